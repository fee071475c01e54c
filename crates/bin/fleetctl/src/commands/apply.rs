//! `apply`: plan, show, ask, do, record.

use std::{collections::BTreeSet, io::IsTerminal, path::Path};

use fleet_apply::Report;
use fleet_derivation::Input;
use fleet_model::Address;
use fleet_plan::{Change, Entry, Outcome as Ended, Plan, SCHEMA};
use fleet_store::{Lease, Leased};

use crate::{
    context::{Context, print_json},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::{self, Planned, Prepared},
    sharing,
    ui::{
        self,
        out::{tell, to_stderr},
    },
    world::{self, Outside},
};

/// What `apply` is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// A saved plan.
    pub saved: Option<&'a Path>,
    /// The environment, where there is none.
    pub environment: &'a str,
    /// Do not ask.
    pub approved: bool,
    /// Resources that hold data and may be replaced or removed: `stack/NAME/RESOURCE`.
    pub allow_destroy: &'a [String],
}

/// `fleetctl apply`.
///
/// # Errors
/// Anything that keeps a plan from being made or begun; what happens to single changes is in the exit code.
pub async fn apply(context: &Context, asked: &Asked<'_>) -> Outcome {
    let saved = asked.saved.map(read_saved).transpose()?;
    let environment = saved.as_ref().map_or(asked.environment, |plan| plan.environment.as_str());
    let prepared = Prepared::new(context, environment)?;
    let _lease = lease(&prepared, "apply")?;
    let world = world::connect(context, &prepared, asked.allow_destroy).await?;
    let world = &*world;
    world.may_change().await?;
    world.about_to_apply();
    let planned = pipeline::plan(&prepared, world).await?;
    let (plan, refused) = match saved {
        Some(saved) => fitting(saved, &prepared, &planned)?,
        None => (planned.plan.clone(), Vec::new()),
    };
    to_stderr(format_args!("{}", ui::plan::text(&plan, ui::style::Style::stderr(context.global.color))));
    for (address, why) in refused.iter().filter_map(refusal) {
        tell!("refused: {address} {why}");
    }
    if !plan.is_empty() && !asked.approved && !confirm("Apply this plan?")? {
        world.finish().await;
        tell!("nothing was changed");
        return Ok(Exit::Done);
    }
    let mut report =
        if plan.is_empty() { Report::default() } else { run(context, &prepared, world, &plan, &planned).await? };
    if plan.is_empty() {
        world.finish().await;
        pipeline::catch_up(&prepared, &planned, world.history()).await?;
    }
    report.entries.extend(refused);
    let beyond = pipeline::beyond(&plan, world);
    Ok(finish(context, &plan, &report, &beyond))
}

/// Executes a plan with Ctrl-C handled: once finishes what runs, twice stops at once.
///
/// # Errors
/// A store that cannot be written.
pub async fn run(
    context: &Context,
    prepared: &Prepared,
    world: &dyn Outside,
    plan: &Plan,
    planned: &Planned,
) -> Result<Report, Failure> {
    // Where all that is due is what this version does not do there, nothing is written: also no lease.
    let writes = pipeline::beyond(plan, world).len() < plan.changes.len();
    let kept = if writes { world.keep_out(context, "apply").await? } else { None };
    let report = pipeline::apply(prepared, world, plan, planned, context.interrupts.applying()).await;
    context.interrupts.applied();
    if let Some(kept) = kept {
        kept.release().await;
    }
    report
}

/// Takes the environment's lease in this checkout.
///
/// # Errors
/// Exit code 8 when somebody else has it.
pub fn lease(prepared: &Prepared, what: &str) -> Result<Lease, Failure> {
    let environment = &prepared.scope.environment;
    let leased = prepared
        .opened
        .store
        .lease(environment, &sharing::holder(prepared, what))
        .map_err(|error| Failure::caused(Exit::Failed, "the lease cannot be taken", &error))?;
    match leased {
        Leased::Ours(lease) => Ok(lease),
        Leased::Held(holder) => Err(sharing::held(environment, holder.as_ref())),
    }
}

fn read_saved(path: &Path) -> Result<Plan, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::caused(Exit::Failed, format!("the plan {} cannot be used", path.display()), error)
            .hint("make it with `fleetctl plan -o FILE`")
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let plan: Plan = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    if plan.schema != SCHEMA {
        return Err(Failure::new(
            Exit::Failed,
            format!("the plan {} has schema {}, this fleetctl knows {SCHEMA}", path.display(), plan.schema),
        ));
    }
    Ok(plan)
}

/// The part of a saved plan that still fits, and the rest: refused object by object, or done already by an apply that was
/// interrupted. Nothing outside the plan is touched.
///
/// # Errors
/// A plan of another fleet; exit code 5 when nothing of it fits.
fn fitting(saved: Plan, prepared: &Prepared, planned: &Planned) -> Result<(Plan, Vec<Entry>), Failure> {
    if saved.fleet != prepared.scope.fleet {
        return Err(Failure::new(
            Exit::Failed,
            format!("the plan is for the fleet {}, and this is {}", saved.fleet, prepared.scope.fleet),
        )
        .hint("go to the folder of that fleet, or name it with -C DIR"));
    }
    let (mut fits, mut rest, mut refused) = (Vec::new(), Vec::new(), BTreeSet::new());
    for change in &saved.changes {
        match standing(change, planned) {
            Standing::Fits => fits.push(change.clone()),
            Standing::Done => rest.push(Entry::of(change, Ended::Unchanged)),
            Standing::Moved(why) => {
                refused.insert(change.address.clone());
                rest.push(Entry::of(change, Ended::Stale { why: why.to_owned() }));
            }
        }
    }
    // What is made from something refused would be made from something else than what was planned.
    while let Some(at) = fits.iter().position(|change| derives_from(change, &refused)) {
        let change = fits.remove(at);
        refused.insert(change.address.clone());
        rest.push(Entry::of(&change, Ended::Stale { why: "derives from something that is refused".to_owned() }));
    }
    if fits.is_empty() && !refused.is_empty() {
        let mut failure = Failure::new(Exit::Stale, "the saved plan no longer fits; nothing was changed");
        failure.causes = rest.iter().filter_map(refusal).map(|(address, why)| format!("{address} {why}")).collect();
        return Err(failure.hint("make a new one with `fleetctl plan -o FILE` and review it"));
    }
    Ok((Plan { changes: fits, ..saved }, rest))
}

enum Standing {
    Fits,
    Done,
    Moved(&'static str),
}

fn standing(change: &Change, planned: &Planned) -> Standing {
    let graph = &planned.instance.graph;
    let declared = match &change.derivation {
        None => !planned.instance.desired.contains_key(&change.address),
        Some(wanted) => graph.get(&change.address).is_some_and(|now| now.hash() == wanted.hash() || change.if_changed),
    };
    if !declared {
        return Standing::Moved("is declared differently now");
    }
    let now = planned.state.objects.get(&change.address).map(|observed| observed.version.clone());
    let unseen = now.is_none() && !planned.state.unseen.is_empty();
    if now == change.expect || unseen {
        return Standing::Fits;
    }
    match planned.plan.changes.iter().any(|due| due.address == change.address) {
        true => Standing::Moved("is no longer what the plan was made against"),
        false => Standing::Done,
    }
}

fn derives_from(change: &Change, refused: &BTreeSet<Address>) -> bool {
    let inputs = change.derivation.iter().flat_map(|derivation| derivation.inputs.values());
    inputs
        .filter_map(|input| match input {
            Input::Derivation { address, .. } => Some(address),
            _ => None,
        })
        .any(|address| refused.contains(address))
}

fn refusal(entry: &Entry) -> Option<(&Address, &str)> {
    match &entry.outcome {
        Ended::Stale { why } => Some((&entry.address, why)),
        _ => None,
    }
}

/// Asks on a terminal; without one, refuses and names the option.
///
/// # Errors
/// Without a terminal.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::new(Exit::Usage, "there is no terminal to ask on; nothing was changed")
            .hint("add --auto-approve to go ahead without being asked"));
    }
    to_stderr(format_args!("{question} [y/N] "));
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::caused(Exit::Failed, "the answer cannot be read", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Says how it ended, as data too where data is asked for, and decides the exit code.
///
/// `beyond` are changes of the plan that this version does not make on its target.
pub fn finish(context: &Context, plan: &Plan, report: &Report, beyond: &[&Change]) -> Exit {
    let (exit, summary) = conclude(context, plan, report, beyond);
    if context.json() {
        print_json(&summary);
    }
    exit
}

/// The same for whoever has data of its own.
pub fn conclude(context: &Context, plan: &Plan, report: &Report, beyond: &[&Change]) -> (Exit, serde_json::Value) {
    let exit = exit_of(context, report, beyond.len());
    let done = report.count(|outcome| matches!(outcome, Ended::Done));
    let unchanged = report.count(|outcome| matches!(outcome, Ended::Unchanged));
    let skipped = report.count(|outcome| matches!(outcome, Ended::Skipped));
    let failed = report.entries.len() - done - unchanged - skipped;
    let summary = serde_json::json!({
        "schema": SCHEMA, "environment": plan.environment, "done": done, "was_right": unchanged,
        "failed": failed, "not_tried": skipped, "unchanged": plan.unchanged, "exit": exit as u8, "outcome": exit.word(),
        "entries": report.entries,
    });
    context.console.summarize(summary.clone());
    if !report.entries.is_empty() {
        let mut parts = vec![format!("{done} changed"), format!("{} were right", unchanged + plan.unchanged)];
        if failed > 0 {
            parts.push(format!("{failed} failed"));
        }
        if skipped > 0 {
            parts.push(format!("{skipped} not tried"));
        }
        tell!("{}: {}", plan.environment, parts.join(", "));
    }
    match exit {
        Exit::Done => {}
        Exit::Stale => tell!("what moved was left alone: plan again to see what is due now"),
        _ if is_rest(report, beyond.len()) => {
            if let Some(note) = pipeline::beyond_note(beyond) {
                tell!("{}", note.text);
            }
        }
        _ => tell!("run the same command again to finish: what is done stays done"),
    }
    (exit, summary)
}

/// Is all that was not done what this version does not do on the target?
fn is_rest(report: &Report, beyond: usize) -> bool {
    let undone = report.count(|outcome| !matches!(outcome, Ended::Done | Ended::Unchanged));
    beyond > 0 && undone == beyond && report.count(|outcome| matches!(outcome, Ended::Skipped)) == beyond
}

fn exit_of(context: &Context, report: &Report, beyond: usize) -> Exit {
    let any = |which: fn(&Ended) -> bool| report.count(which) > 0;
    if report.is_complete() {
        Exit::Done
    } else if any(|outcome| matches!(outcome, Ended::RolledBack { .. })) {
        Exit::RolledBack
    } else if any(|outcome| matches!(outcome, Ended::Stale { .. })) {
        Exit::Stale
    } else if report.denied {
        Exit::Denied
    } else if report.unreachable {
        Exit::Unavailable
    } else if report.interrupted && !any(|outcome| matches!(outcome, Ended::Failed { .. })) {
        context.interrupts.exit()
    } else if any(|outcome| matches!(outcome, Ended::Done)) || is_rest(report, beyond) {
        Exit::PartlyApplied
    } else {
        Exit::Failed
    }
}
