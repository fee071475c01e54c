//! `rehearse`: an environment on AWS, applied to an emulated account on this machine with the code that applies it to a
//! real one. Only the endpoint differs.

use std::{collections::BTreeMap, path::Path, sync::Arc};

use fleet_apply::Events;
use fleet_aws::{
    Account, Place, Standing,
    emulator::{self, Emulator, EmulatorError, Request, Start},
};
use fleet_docker::Search;
use fleet_model::model::Target;

use crate::{
    commands::{
        apply::{self, Asked},
        bootstrap::{self, Ended},
    },
    context::Context,
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    ui::{events::Console, out::tell},
    world,
};

/// Loopback, as `endpoint-url` names it.
const LOOPBACK: &str = "http://127.0.0.1:";
/// Whose workflows an emulated account trusts: nobody's, they cannot reach it.
const REPOSITORY: &str = "nobody/nowhere";

/// `fleetctl rehearse`.
///
/// # Errors
/// An environment that is not meant for an emulator; an emulator that does not start; whatever `apply` can answer.
pub async fn rehearse(context: &Context, environment: &str, keep: bool) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    let (place, port) = emulated(&prepared)?;
    let (cluster, has_manager) = (prepared.scope.whole(), prepared.environment()?.manager.is_some());
    let engine = engine().await;
    if engine.is_none() && has_manager {
        return Err(Failure::new(
            Exit::Unavailable,
            "without a container engine nobody makes accounts and rooms: the manager does not run",
        )
        .hint("start Docker; `fleetctl quickstart --yes` installs one")
        .hint(format!("or remove `manager` from environment {environment}, to rehearse everything but what runs")));
    }
    let failed = |error: EmulatorError| Failure::caused(Exit::Failed, "there is no emulated account", &error);
    let home = context.machine.cache()?.join("emulator");
    tell!("the emulated account is installed below {} where it is not yet", home.display());
    let python = emulator::install(&home).await.map_err(failed)?;
    let folder = home.join(port.to_string());
    clear(&folder.join("requests.log"))?;
    let start = Start { python: &python, folder: &folder, port, place: &place, engine: engine.as_deref() };
    let emulator = Emulator::start(start).await.map_err(failed)?;
    tell!("an empty account {} answers at {}", place.account, emulator.endpoint());
    let outcome = prepare_and_apply(context, prepared).await;
    told(&emulator.requests().await.map_err(failed)?);
    runs(context, place, &cluster).await;
    if keep {
        let endpoint = emulator.endpoint();
        let process = emulator.leave().await.map_err(failed)?;
        tell!(
            "it goes on at {endpoint} as process {process}: `fleetctl plan -e {environment}` asks it; end it with `kill {process}`"
        );
    } else {
        emulator.stop().await;
    }
    outcome
}

/// What an administrator does once per account, and then what everybody does.
async fn prepare_and_apply(context: &Context, prepared: Prepared) -> Outcome {
    if let Ended::Otherwise(exit) = bootstrap::prepare(context, &prepared, Some(REPOSITORY), true).await? {
        return Ok(exit);
    }
    let environment = prepared.scope.environment.clone();
    // `apply` reads the project by itself.
    drop(prepared);
    apply::apply(context, &Asked { saved: None, environment: &environment, approved: true, allow_destroy: &[] }).await
}

/// Tells what runs at the end. That it cannot be told changes nothing of how the rehearsal ended.
async fn runs(context: &Context, place: Place, cluster: &str) {
    let events: Arc<dyn Events> = Arc::<Console>::clone(&context.console);
    match Account::open(place, events).await.standing(cluster).await {
        Ok(services) if services.is_empty() => tell!("no service runs"),
        Ok(services) => services.iter().for_each(|service| {
            let Standing { name, running, desired, rollout, why } = service;
            tell!("service {name}: {running} of {desired} run, {rollout} ({why})");
        }),
        Err(error) => tell!("what runs cannot be told: {error}"),
    }
}

/// Address of the engine that tasks run in. Without one they are on paper, so that agents, who are waited for, do not keep
/// the rehearsal: it shows everything but them.
async fn engine() -> Option<String> {
    match fleet_docker::engine::find(&world::engine_search()).await {
        Search::Found(engine) => {
            tell!("tasks run as containers of {engine:?}");
            Some(engine.endpoint.to_string())
        }
        Search::NotFound { looked_at } => {
            let looked: Vec<String> =
                looked_at.iter().map(|looked| format!("{}: {}", looked.endpoint, looked.why)).collect();
            tell!(
                "no container engine answers ({}): tasks are on paper, and whether they come up is not shown",
                looked.join("; ")
            );
            None
        }
    }
}

/// Where the environment is, and the port of its emulator.
fn emulated(prepared: &Prepared) -> Result<(Place, u16), Failure> {
    let environment = prepared.environment()?;
    let refuse = |why: &str| {
        Failure::new(Exit::Usage, format!("environment {} cannot be rehearsed: {why}", environment.name)).hint(
            "declare one for it: environment \"rehearsal\" extends=\"dev\" { target \"aws\" account=\"111122223333\" region=\"us-east-1\" endpoint-url=\"http://127.0.0.1:4566\"; registry \"127.0.0.1:4566\" }",
        )
    };
    let Target::Aws { account, region, endpoint } = &environment.target else { return Err(refuse("it is not on aws")) };
    let Some(endpoint) = endpoint else { return Err(refuse("without endpoint-url it is in a real account")) };
    let port = endpoint.strip_prefix(LOOPBACK).and_then(|port| port.parse().ok());
    let port = port.ok_or_else(|| refuse("its endpoint-url is not http://127.0.0.1:PORT"))?;
    let Some(registry) = &environment.registry else { return Err(refuse("without a registry it would push to AWS")) };
    if registry.value.host != "127.0.0.1" || registry.value.port != Some(port) {
        return Err(refuse(&format!("its registry is not the emulator's: registry \"127.0.0.1:{port}\"")));
    }
    Ok((Place { account: account.clone(), region: region.clone(), endpoint: Some(endpoint.clone()) }, port))
}

fn clear(log: &Path) -> Result<(), Failure> {
    match std::fs::remove_file(log) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(Failure::caused(Exit::Failed, format!("{} cannot be removed", log.display()), &error))
        }
        _ => Ok(()),
    }
}

/// A request without what it is about, where that is in its path.
fn kind(action: &str) -> &str {
    match action.split_once(" /") {
        Some((_, path)) if path.starts_with("v2/") => "registry",
        Some((_, path)) if path.starts_with("2015-02-01/") => "elasticfilesystem",
        Some(("GET" | "HEAD", _)) => "s3 reads",
        Some(_) => "s3 writes",
        None => action,
    }
}

/// What the account was asked, counted.
fn told(requests: &[Request]) {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for request in requests {
        *counts.entry(kind(&request.action)).or_default() += 1;
    }
    let counted: Vec<String> = counts.iter().map(|(action, count)| format!("{count} {action}")).collect();
    tell!("the account was asked {} times: {}", requests.len(), counted.join(", "));
}
