//! `destroy` on AWS: agents, then the environment's stack; with `--purge` its data, too. What stays is named.

use fleet_apply::ProviderError;
use fleet_aws::{Kept, Teardown, Thing};
use fleet_store::Depth;
use serde_json::{Value, json};

use crate::{
    cloud,
    commands::apply,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    sharing::Sharing,
    ui::out::{tell, to_stderr},
    world::{exit_of, unobservable},
};

/// `fleetctl destroy` of an environment on AWS.
///
/// # Errors
/// An account that cannot be used; what could not be removed; without a terminal, a missing `--auto-approve`.
pub async fn destroy(context: &Context, prepared: &Prepared, purge: bool, approved: bool) -> Outcome {
    let environment = &prepared.scope.environment;
    let (account, _) = cloud::account(context, prepared).await?;
    let sharing = Sharing::open(&account, prepared, Depth::Newest).await?;
    sharing.nobody_works().await?;
    let teardown = Teardown::new(account, prepared.scope.clone(), purge);
    let found = teardown.survey().await.map_err(unobservable)?;
    if found.is_empty() {
        let kept = teardown.kept().await.map_err(unobservable)?;
        match context.json() {
            true => print_json(&document(&found, &kept)),
            false => print_out(&format!("{environment}: nothing is there\n{}", stays(&kept))),
        }
        return Ok(Exit::Done);
    }
    to_stderr(format_args!("{}", goes(&found)));
    let question = if purge {
        "Remove all this? Memory, rooms, messages and backups are lost for good."
    } else {
        "Remove these? Memory, rooms and backups stay, and a later apply finds everything again."
    };
    if !approved && !apply::confirm(question)? {
        tell!("nothing was removed");
        return Ok(Exit::Done);
    }
    let removed = async { teardown.remove(&*context.console).await.map_err(unremoved) };
    sharing.alone(context, "destroy", removed).await?;
    let kept = teardown.kept().await.map_err(unobservable)?;
    match context.json() {
        true => print_json(&document(&found, &kept)),
        false => print_out(&format!("{environment}: {}\n{}", counted(&found), stays(&kept))),
    }
    Ok(Exit::Done)
}

fn unremoved(error: ProviderError) -> Failure {
    let failure = Failure::caused(exit_of(&error), "it could not be removed", &error);
    let failure = match error {
        ProviderError::Failed { help: Some(help), .. } => failure.hint(help),
        _ => failure,
    };
    failure.hint("what was removed is gone; the same command, run again, goes on")
}

fn goes(found: &[Thing]) -> String {
    found.iter().map(|thing| format!("  - {:11} {}\n", thing.kind, thing.name)).collect()
}

fn stays(kept: &[Kept]) -> String {
    kept.iter().map(|kept| format!("  stays: {}: {}\n", kept.what, kept.why)).collect()
}

fn counted(found: &[Thing]) -> String {
    let named = |kind: &str| -> Vec<&str> {
        found.iter().filter(|thing| thing.kind == kind).map(|thing| thing.name.as_str()).collect()
    };
    let stacks: Vec<String> = named("stack").into_iter().map(|stack| format!("stack/{stack}")).collect();
    let stacks = if stacks.is_empty() { "none".to_owned() } else { stacks.join(", ") };
    format!("agents removed: {}, stacks: {stacks}", named("agent").len())
}

fn document(found: &[Thing], kept: &[Kept]) -> Value {
    json!({
        "schema": 1,
        "removed": found.iter().map(|thing| json!({"kind": thing.kind, "name": thing.name})).collect::<Vec<_>>(),
        "stays": kept.iter().map(|kept| json!({"what": kept.what, "why": kept.why})).collect::<Vec<_>>(),
    })
}
