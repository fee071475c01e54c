//! `show`, `graph`, `explain`, `history`, `completions`: look without changing anything.

use std::fmt::Write as _;

use clap::CommandFactory as _;
use fleet_plan::{Generation, Outcome as Ended};
use serde_json::json;

use crate::{
    cli::{Cli, Format, Global},
    commands::stack,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    sharing,
    ui::table::Table,
};

/// `fleetctl show`; with an address and perhaps a repository, only that.
///
/// # Errors
/// A project that does not check; see [`stack::show`].
pub fn show(context: &Context, environment: &str, asked: Option<(&str, Option<&str>)>) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    if let Some((address, repository)) = asked {
        return stack::show(context, &prepared, address, repository);
    }
    let resolved = &prepared.resolved;
    if context.json() {
        print_json(&json!({"schema": 1, "environment": resolved}));
        return Ok(Exit::Done);
    }
    let mut agents = Table::default();
    for agent in resolved.agents.values() {
        agents.row([
            agent.id.clone(),
            agent.title.clone(),
            agent.team.clone().or_else(|| agent.department.clone()).unwrap_or_default(),
            agent.model.value.primary.clone(),
        ]);
    }
    let mut rooms = Table::default();
    for room in resolved.rooms.values() {
        rooms.row([format!("#{}", room.alias), format!("{} members", room.members.len()), room.topic.clone()]);
    }
    let mut out = String::new();
    let _ = writeln!(out, "{} of {}", context.style.strong(environment), prepared.scope.fleet);
    let _ = write!(out, "\n{} agents\n{}", resolved.agents.len(), agents.text());
    let _ = write!(out, "\n{} rooms\n{}", resolved.rooms.len(), rooms.text());
    let humans = resolved.accounts.values().filter(|account| account.human).count();
    let _ = writeln!(
        out,
        "\n{} direct-message pairs, {} accounts of which {humans} human",
        resolved.direct_messages.len(),
        resolved.accounts.len()
    );
    let stacks = stack::list(&prepared)?;
    if !stacks.is_empty() {
        let _ = write!(out, "\nstacks\n{stacks}");
    }
    print_out(&out);
    Ok(Exit::Done)
}

/// `fleetctl graph`.
///
/// # Errors
/// A project that cannot be instantiated.
pub fn graph(context: &Context, environment: &str) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    let instance = prepared.instance(&prepared.recorded_state()?.outputs)?;
    let order = instance
        .graph
        .topological()
        .map_err(|error| Failure::caused(Exit::Failed, "the derivations have no order", &error))?;
    match context.global.format {
        Format::Json => print_json(&json!({
            "schema": 1,
            "hash": instance.graph.hash(),
            "derivations": order.iter().map(|d| json!({"hash": d.hash(), "derivation": d.derivation()})).collect::<Vec<_>>(),
        })),
        Format::Dot => {
            let mut out =
                String::from("digraph fleet {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
            for derivation in &order {
                let _ = writeln!(out, "  \"{}\";", derivation.address);
                for input in instance.graph.inputs_of(&derivation.address) {
                    let _ = writeln!(out, "  \"{input}\" -> \"{}\";", derivation.address);
                }
            }
            out.push_str("}\n");
            print_out(&out);
        }
        Format::Text => {
            let mut table = Table::default();
            for derivation in &order {
                let inputs: Vec<String> =
                    instance.graph.inputs_of(&derivation.address).map(ToString::to_string).collect();
                table.row([derivation.hash().short(), derivation.address.to_string(), inputs.join(" ")]);
            }
            print_out(&table.text());
        }
    }
    Ok(Exit::Done)
}

/// `fleetctl explain`.
///
/// # Errors
/// An unknown code.
pub fn explain(global: &Global, code: Option<&str>) -> Outcome {
    let as_json = global.format == Format::Json;
    let of = |one: &fleet_model::Explanation| json!({"code": one.code, "title": one.title, "text": one.text});
    let Some(code) = code else {
        if as_json {
            print_json(&json!({"schema": 1, "codes": fleet_model::codes().iter().map(of).collect::<Vec<_>>()}));
            return Ok(Exit::Done);
        }
        let mut table = Table::default();
        for explanation in fleet_model::codes() {
            table.row([explanation.code, explanation.title]);
        }
        print_out(&table.text());
        return Ok(Exit::Done);
    };
    let Some(explanation) = fleet_model::explain(code) else {
        let failure = Failure::new(Exit::Usage, format!("there is no code `{code}`"));
        let failure = match fleet_model::nearest_code(code) {
            Some(nearest) => failure.hint(format!("did you mean `{nearest}`?")),
            None => failure,
        };
        return Err(failure.hint("`fleetctl explain` lists all codes"));
    };
    if as_json {
        print_json(&json!({"schema": 1, "codes": [of(explanation)]}));
    } else {
        print_out(&format!("{}: {}\n\n{}\n", explanation.code, explanation.title, explanation.text.trim()));
    }
    Ok(Exit::Done)
}

/// `fleetctl history`.
///
/// # Errors
/// A history that cannot be read.
pub async fn history(context: &Context, environment: &str) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    sharing::recall(context, &prepared).await?;
    let (store, name) = (&prepared.opened.store, prepared.history_name());
    let unreadable = |error: &dyn std::error::Error| Failure::caused(Exit::Failed, "the history cannot be read", error);
    let mut all = Vec::new();
    for number in store.generation_numbers(&name).map_err(|error| unreadable(&error))? {
        all.extend(store.generation(&name, number).map_err(|error| unreadable(&error))?);
    }
    if context.json() {
        print_json(&json!({"schema": 1, "generations": all}));
        return Ok(Exit::Done);
    }
    let mut table = Table::default();
    for generation in &all {
        let done = generation.entries.iter().filter(|entry| entry.outcome == Ended::Done).count();
        let bad = generation.entries.len()
            - generation.entries.iter().filter(|e| matches!(e.outcome, Ended::Done | Ended::Unchanged)).count();
        let verdict = if bad == 0 { String::new() } else { format!("{bad} not done") };
        table.row([
            generation.number.to_string(),
            crate::ui::time(generation.finished),
            by(generation),
            format!("{done} changed"),
            verdict,
        ]);
    }
    print_out(&table.text());
    Ok(Exit::Done)
}

/// Who applied, and from where; nothing where that was not recorded yet.
fn by(generation: &Generation) -> String {
    match (&generation.who, &generation.host) {
        (Some(who), Some(host)) => format!("{who} on {host}"),
        (Some(one), None) | (None, Some(one)) => one.clone(),
        (None, None) => String::new(),
    }
}

/// `fleetctl completions`.
///
/// # Errors
/// Never.
pub fn completions(shell: clap_complete::Shell) -> Outcome {
    // Into memory first: clap gives up with a panic when its reader goes away.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "fleetctl", &mut script);
    print_out(&String::from_utf8_lossy(&script));
    Ok(Exit::Done)
}

/// `fleetctl man`: roff, for `man -l -` or a packager.
///
/// # Errors
/// An unknown command.
pub fn man(command: Option<&str>) -> Outcome {
    let mut program = Cli::command();
    program.build();
    let page = match command {
        None => program,
        Some(name) => program.find_subcommand(name).cloned().ok_or_else(|| {
            Failure::new(Exit::Usage, format!("there is no command `{name}`"))
                .hint("`fleetctl --help` lists all commands")
        })?,
    };
    let mut roff = Vec::new();
    clap_mangen::Man::new(page)
        .render(&mut roff)
        .map_err(|error| Failure::caused(Exit::Failed, "the manual page cannot be made", &error))?;
    print_out(&String::from_utf8_lossy(&roff));
    Ok(Exit::Done)
}
