//! `show`, `graph`, `explain`, `history`, `completions`: look without changing anything.

use std::fmt::Write as _;

use clap::CommandFactory as _;
use fleet_plan::Outcome as Ended;
use serde_json::json;

use crate::{
    cli::{Cli, Format},
    commands::stack,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
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
            "derivations": order.iter().map(|d| json!({"hash": d.hash(), "derivation": d})).collect::<Vec<_>>(),
        })),
        Format::Dot => {
            let mut out = String::from("digraph fleet {\n  rankdir=LR;\n  node [shape=box, fontname=\"sans-serif\"];\n");
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
                let inputs: Vec<String> = instance.graph.inputs_of(&derivation.address).map(ToString::to_string).collect();
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
pub fn explain(code: Option<&str>) -> Outcome {
    let Some(code) = code else {
        let mut table = Table::default();
        for explanation in fleet_model::codes() {
            table.row([explanation.code, explanation.title]);
        }
        print_out(&table.text());
        return Ok(Exit::Done);
    };
    match fleet_model::explain(code) {
        Some(explanation) => {
            print_out(&format!("{}: {}\n\n{}\n", explanation.code, explanation.title, explanation.text.trim()));
            Ok(Exit::Done)
        }
        None => Err(Failure::new(Exit::Usage, format!("there is no code `{code}`"))
            .hint("`fleetctl explain` lists all codes")),
    }
}

/// `fleetctl history`.
///
/// # Errors
/// A history that cannot be read.
pub fn history(context: &Context, environment: &str) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    let store = &prepared.opened.store;
    let unreadable = |error: &dyn std::error::Error| Failure::caused(Exit::Failed, "the history cannot be read", error);
    let mut all = Vec::new();
    for number in store.generation_numbers(environment).map_err(|error| unreadable(&error))? {
        all.extend(store.generation(environment, number).map_err(|error| unreadable(&error))?);
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
            format!("{done} changed"),
            verdict,
        ]);
    }
    print_out(&table.text());
    Ok(Exit::Done)
}

/// `fleetctl completions`.
///
/// # Errors
/// Never.
pub fn completions(shell: clap_complete::Shell) -> Outcome {
    clap_complete::generate(shell, &mut Cli::command(), "fleetctl", &mut std::io::stdout());
    Ok(Exit::Done)
}
