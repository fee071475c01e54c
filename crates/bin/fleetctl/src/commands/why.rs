//! `why`: the root causes of an object's last change, and of the one that is due.

use std::fmt::Write as _;

use fleet_model::Address;
use fleet_plan::{Entry, Generation};
use serde_json::json;

use crate::{
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    sharing, ui,
};

/// `fleetctl why ADDRESS`. Reads history and sources only; asks no engine, and of an account its state bucket alone.
///
/// # Errors
/// A text that is no address, an address that neither exists nor existed.
pub async fn why(context: &Context, address: &str, environment: &str, generation: Option<u64>) -> Outcome {
    let address: Address =
        address.parse().map_err(|error| Failure::caused(Exit::Usage, "this is not an address", &error))?;
    let prepared = Prepared::new(context, environment)?;
    sharing::recall(context, &prepared).await?;
    let found = past(&prepared, &address, generation)?;
    let state = prepared.recorded_state()?;
    let instance = prepared.instance(&state.outputs)?;
    let plan = prepared.plan(&instance, &state)?;
    let due = plan.changes.iter().find(|change| change.address == address);
    if found.is_none() && due.is_none() && !instance.desired.contains_key(&address) {
        let mut names: Vec<&Address> = instance.desired.keys().filter(|other| other.kind == address.kind).collect();
        names.truncate(8);
        let names: Vec<String> = names.into_iter().map(ToString::to_string).collect();
        return Err(Failure::new(Exit::Failed, format!("{address} is in no plan and no generation of {environment}"))
            .hint(format!("of its kind there are: {}", names.join(", "))));
    }
    if context.json() {
        print_json(&json!({
            "schema": 1,
            "address": address,
            "generation": found.as_ref().map(|(generation, _)| generation.number),
            "last": found.as_ref().map(|(_, entry)| json!({
                "action": entry.action, "outcome": entry.outcome, "before": entry.before, "after": entry.after,
                "reasons": entry.reasons.iter().map(ui::plan::reason_json).collect::<Vec<_>>(),
            })),
            "due": due.map(|change| json!({
                "action": change.action,
                "reasons": change.reasons.iter().map(ui::plan::reason_json).collect::<Vec<_>>(),
            })),
        }));
        return Ok(Exit::Done);
    }
    let mut out = String::new();
    match &found {
        None => {
            let _ =
                writeln!(out, "{address} was not changed by any generation of {environment} that is recorded here.");
        }
        Some((generation, entry)) => {
            let _ = writeln!(
                out,
                "{address}: {} in generation {}, {}",
                entry.action,
                generation.number,
                ui::time(generation.finished)
            );
            for reason in &entry.reasons {
                let _ = writeln!(out, "  {}", ui::plan::sentence(reason));
            }
        }
    }
    if let Some(change) = due {
        let _ = writeln!(out, "due: {}", change.action);
        for reason in &change.reasons {
            let _ = writeln!(out, "  {}", ui::plan::sentence(reason));
        }
    }
    print_out(&out);
    Ok(Exit::Done)
}

/// The newest generation, or the given one, that changed the object.
fn past(prepared: &Prepared, address: &Address, only: Option<u64>) -> Result<Option<(Generation, Entry)>, Failure> {
    let store = &prepared.opened.store;
    let (environment, name) = (&prepared.scope.environment, prepared.history_name());
    let unreadable = |error: &dyn std::error::Error| Failure::caused(Exit::Failed, "the history cannot be read", error);
    let mut numbers = store.generation_numbers(&name).map_err(|error| unreadable(&error))?;
    if let Some(only) = only.filter(|only| !numbers.contains(only)) {
        let known: Vec<String> = numbers.iter().map(u64::to_string).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        return Err(Failure::new(Exit::Usage, format!("{environment} has no generation {only}"))
            .hint(format!("recorded here: {known}; `fleetctl history` lists them")));
    }
    numbers.retain(|number| only.is_none_or(|only| only == *number));
    numbers.sort_unstable();
    for number in numbers.into_iter().rev() {
        let Some(generation) = store.generation(&name, number).map_err(|error| unreadable(&error))? else {
            continue;
        };
        // An object that turned out to be right was not changed by that generation.
        let entry = generation
            .entries
            .iter()
            .find(|entry| entry.address == *address && entry.outcome != fleet_plan::Outcome::Unchanged)
            .cloned();
        if let Some(entry) = entry {
            return Ok(Some((generation, entry)));
        }
    }
    Ok(None)
}
