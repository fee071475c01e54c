//! `plan` and `diff`: what would change and why, and its full contents. Both only read.

use std::{collections::BTreeMap, fmt::Write as _, path::Path};

use fleet_objects::{ContainerSpec, Content, Desired};
use fleet_plan::{Change, Plan};
use fleet_store::write_atomic;

use crate::{
    cli::PlanArgs,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::{self, Prepared},
    ui::{self, out::tell},
    world,
};

/// `fleetctl plan`.
///
/// # Errors
/// Anything that keeps a plan from being made.
pub async fn plan(context: &Context, args: &PlanArgs) -> Outcome {
    let plan = make(context, args).await?;
    finished(context, args, &plan)?;
    if context.json() {
        print_json(&ui::plan::json(&plan));
    } else {
        print_out(&ui::plan::text(&plan, context.style));
        if let Some(path) = &args.out {
            tell!("saved; `fleetctl apply {}` does exactly this", path.display());
        }
    }
    exit(args, &plan)
}

/// `fleetctl diff`.
///
/// # Errors
/// Anything that keeps a plan from being made.
pub async fn diff(context: &Context, args: &PlanArgs) -> Outcome {
    let plan = make(context, args).await?;
    finished(context, args, &plan)?;
    if context.json() {
        print_json(&serde_json::json!(plan));
    } else {
        let mut out = String::new();
        for change in &plan.changes {
            full(&mut out, change);
        }
        print_out(&out);
        print_out(
            &ui::plan::text(&Plan { changes: Vec::new(), ..plan.clone() }, context.style)
                .replace("nothing to do, ", ""),
        );
    }
    exit(args, &plan)
}

/// What both do with a plan beside showing it.
fn finished(context: &Context, args: &PlanArgs, plan: &Plan) -> Result<(), Failure> {
    if let Some(path) = &args.out {
        save(path, plan)?;
    }
    ui::github::summarize(plan);
    context.console.summarize(serde_json::json!({
        "environment": plan.environment, "changes": plan.changes.len(), "unchanged": plan.unchanged,
    }));
    Ok(())
}

async fn make(context: &Context, args: &PlanArgs) -> Result<Plan, Failure> {
    let prepared = Prepared::new(context, &args.environment.environment)?;
    if args.offline {
        let state = prepared.recorded_state()?;
        let instance = prepared.instance(&state.outputs)?;
        let mut plan = prepared.plan(&instance, &state)?;
        let text = match prepared.last_generation()? {
            Some(generation) => format!("compared with generation {}, not with what runs", generation.number),
            None => "nothing was applied from here yet; compared with nothing".to_owned(),
        };
        plan.notes.push(fleet_plan::Note { address: None, text });
        return Ok(plan);
    }
    let world = world::connect(context, &prepared, &[]).await?;
    let planned = pipeline::plan(&prepared, &*world).await?;
    world.finish().await;
    Ok(planned.plan)
}

fn exit(args: &PlanArgs, plan: &Plan) -> Outcome {
    Ok(if args.detailed_exitcode && !plan.is_empty() { Exit::ChangesPresent } else { Exit::Done })
}

/// Writes a plan for `apply FILE`. It holds no secret: only references.
///
/// # Errors
/// A file that cannot be written.
pub fn save(path: &Path, plan: &Plan) -> Result<(), Failure> {
    let mut text = serde_json::to_string_pretty(plan)
        .map_err(|error| Failure::caused(Exit::Failed, "the plan cannot be written", &error))?;
    text.push('\n');
    write_atomic(path, text.as_bytes(), 0o600)
        .map_err(|error| Failure::caused(Exit::Failed, "the plan cannot be written", &error))
}

/// Everything about one change: reasons, every input, every file.
fn full(out: &mut String, change: &Change) {
    let _ = writeln!(out, "{} {}", change.action, change.address);
    for reason in &change.reasons {
        let _ = writeln!(out, "  why: {}", ui::plan::sentence(reason));
    }
    let hash = |hash: &Option<fleet_derivation::Hash>| hash.map_or_else(|| "none".to_owned(), |hash| hash.short());
    let _ = writeln!(out, "  derivation: {} → {}", hash(&change.before), hash(&change.after));
    for line in ui::plan::resources(change, true) {
        let _ = writeln!(out, "  {line}");
    }
    match &change.desired {
        None => {}
        Some(Desired::Container(spec)) => container(out, spec),
        Some(Desired::Agent(spec)) => {
            container(out, &spec.container);
            for (title, text) in
                [("task definition", &spec.task), ("service", &spec.service), ("role", &spec.role.policy)]
            {
                block(out, title, &fleet_stacks::pretty(text));
            }
        }
        Some(Desired::Directory(spec)) => block(out, "directory", &spec.document),
        Some(Desired::Stack(spec)) => {
            json_lines(out, &serde_json::json!({"parameters": spec.parameters, "tags": spec.tags}));
            block(out, "template", &fleet_stacks::pretty(&spec.template));
        }
        Some(Desired::Image(spec)) => {
            for (name, input) in change.derivation.iter().flat_map(|derivation| &derivation.inputs) {
                let _ = writeln!(out, "  {name}: {}", ui::plan::value(input));
            }
            json_lines(out, &serde_json::json!({"checks": spec.checks, "config": spec.recipe.config}));
        }
        Some(other) => json_lines(out, &serde_json::json!(other)),
    }
    out.push('\n');
}

/// A container and every file that it is given.
fn container(out: &mut String, spec: &ContainerSpec) {
    let mut shown = spec.clone();
    let files: BTreeMap<String, Content> = shown.files.drain(..).map(|file| (file.path, file.content)).collect();
    json_lines(out, &serde_json::json!(shown));
    for (path, content) in files {
        match content {
            Content::Text { text } => block(out, &path, &text),
            Content::Secret { secret } => {
                let _ = writeln!(out, "  {path}: secret, {}", serde_json::json!(secret));
            }
            Content::Filled { text, secret } => {
                let _ = writeln!(out, "  {path}: with a secret in it, {}", serde_json::json!(secret));
                block(out, &path, &text);
            }
        }
    }
}

fn json_lines(out: &mut String, value: &serde_json::Value) {
    for line in format!("{value:#}").lines() {
        let _ = writeln!(out, "  {line}");
    }
}

fn block(out: &mut String, title: &str, text: &str) {
    let _ = writeln!(out, "  {title}:");
    for line in text.lines() {
        let _ = writeln!(out, "    {line}");
    }
}
