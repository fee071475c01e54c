//! `destroy`: remove an environment; with `--purge` also everything it remembers.

mod aws;

use fleet_docker::Purged;
use fleet_model::model::Target;
use fleet_store::private_file;

use crate::{
    commands::apply,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    ui::out::{tell, to_stderr},
    world::World,
};

/// `fleetctl destroy`.
///
/// # Errors
/// An engine or an account that does not answer; without a terminal, a missing `--auto-approve`.
pub async fn destroy(context: &Context, environment: &str, purge: bool, approved: bool) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    let _lease = apply::lease(&prepared, "destroy")?;
    match prepared.environment()?.target {
        Target::Docker => on_docker(context, &prepared, purge, approved).await,
        Target::Aws { .. } => aws::destroy(context, &prepared, purge, approved).await,
    }
}

async fn on_docker(context: &Context, prepared: &Prepared, purge: bool, approved: bool) -> Outcome {
    let environment = &prepared.scope.environment;
    let world = World::connect(context, prepared).await?;
    let failed = |error: fleet_apply::ProviderError| Failure::caused(Exit::Failed, "it could not be removed", &error);
    let found = world.docker.purgeable(purge, &*context.console).await.map_err(failed)?;
    if found.containers.is_empty() && found.networks.is_empty() && found.volumes.is_empty() {
        match context.json() {
            true => print_json(&serde_json::json!({"schema": 1, "containers": [], "networks": [], "volumes": []})),
            false => print_out(&format!("{environment}: nothing is there\n")),
        }
        return Ok(Exit::Done);
    }
    to_stderr(format_args!("{}", list(&found)));
    let question = if purge {
        "Remove all this? Memory, rooms and messages are lost for good."
    } else {
        "Remove these? Volumes stay, and a later apply finds everything again."
    };
    if !approved && !apply::confirm(question)? {
        tell!("nothing was removed");
        return Ok(Exit::Done);
    }
    let gone = world.docker.purge(purge, &*context.console).await.map_err(failed)?;
    if purge {
        // The homeserver that issued it is gone; the fleet secret stays, it may be used elsewhere.
        private_file::remove(&context.machine.token_file(&prepared.scope)?)
            .map_err(|error| Failure::caused(Exit::Failed, "the access token could not be removed", &error))?;
    }
    if context.json() {
        print_json(&serde_json::json!({
            "schema": 1, "containers": gone.containers, "networks": gone.networks, "volumes": gone.volumes,
        }));
    } else {
        print_out(&format!(
            "{environment}: containers removed: {}, networks: {}, volumes: {}\n",
            gone.containers.len(),
            gone.networks.len(),
            gone.volumes.len()
        ));
    }
    Ok(Exit::Done)
}

fn list(found: &Purged) -> String {
    let mut text = String::new();
    for (what, names) in [("container", &found.containers), ("network", &found.networks), ("volume", &found.volumes)] {
        for name in names {
            text.push_str(&format!("  - {what:9} {name}\n"));
        }
    }
    text
}
