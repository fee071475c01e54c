//! `status`: what runs, how it is, and what keeps agents from answering.

use std::{collections::BTreeSet, time::Duration};

use fleet_model::{
    Address, Kind,
    model::{Model, ModelProviderKind, SecretName, Target},
    resolved::Resolved,
};
use fleet_plan::{Health, Observed, RunState, State};
use serde_json::json;
use tokio::net::TcpStream;

use crate::{
    context::{Context, print_json, print_out},
    error::Outcome,
    exit::Exit,
    pipeline::{self, Prepared},
    ui::{out::tell, table::Table},
    world::{self, Outside as _, World},
};

/// A model provider and why agents cannot use it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct ModelProblem {
    /// The provider.
    pub provider: String,
    /// What is wrong and what to do.
    pub what: String,
}

/// `fleetctl status`.
///
/// # Errors
/// An engine or an account that does not answer.
pub async fn status(context: &Context, environment: &str) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    let (planned, problems) = match prepared.environment()?.target {
        Target::Docker => {
            let world = World::connect(context, &prepared).await?;
            let planned = pipeline::plan(&prepared, &world).await?;
            world.finish().await;
            let problems = model_problems(&prepared.model, &prepared.resolved, &world).await;
            (planned, problems)
        }
        Target::Aws { .. } => {
            let world = world::connect(context, &prepared, &[]).await?;
            (pipeline::plan(&prepared, &*world).await?, Vec::new())
        }
    };
    if context.json() {
        let objects: Vec<_> = planned.instance.desired.keys().map(|address| one_json(address, &planned)).collect();
        print_json(&json!({
            "schema": 1, "environment": environment, "objects": objects,
            "due": planned.plan.changes.len(), "models": problems, "notes": planned.plan.notes,
        }));
        return Ok(Exit::Done);
    }
    print_out(&text(&planned.state, &planned.instance.desired.keys().cloned().collect::<Vec<_>>()));
    for problem in &problems {
        tell!("warning: model provider {}: {}", problem.provider, problem.what);
    }
    let due = planned.plan.changes.len();
    // What this version does not make there is missing for good.
    if matches!(prepared.environment()?.target, Target::Aws { .. }) {
        planned.plan.notes.iter().for_each(|note| tell!("note: {}", note.text));
    }
    let verdict = if due == 0 {
        "all as declared".to_owned()
    } else {
        format!("{due} changes are due: fleetctl plan -e {environment}")
    };
    print_out(&format!("{environment}: {verdict}\n"));
    Ok(Exit::Done)
}

fn one_json(address: &Address, planned: &pipeline::Planned) -> serde_json::Value {
    let observed = planned.state.objects.get(address);
    let derivation = planned.instance.graph.get(address).map(|d| d.with_outputs(&planned.state.outputs).hash());
    let image = derivation.and_then(|hash| planned.state.outputs.get(&hash)).filter(|_| address.kind == Kind::Image);
    let due = planned.plan.changes.iter().any(|change| change.address == *address);
    json!({
        "address": address,
        // Accounts and rooms carry no hash; one that is as declared is what its derivation says.
        "hash": observed.and_then(|o| o.hash).or(if due { None } else { derivation }),
        "id": observed.map(|o| o.id.clone()).or_else(|| image.cloned()),
        "state": match observed {
            Some(observed) => run_word(observed.run),
            None if image.is_some() => "present",
            None => "missing",
        },
        "health": observed.map_or("none", |o| health_word(o.health)),
        "due": due,
    })
}

const fn run_word(run: RunState) -> &'static str {
    match run {
        RunState::Running => "running",
        RunState::Stopped => "stopped",
        RunState::Present => "present",
    }
}

const fn health_word(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Starting => "starting",
        Health::Unhealthy => "unhealthy",
        Health::None => "none",
    }
}

/// What runs as a table; accounts and rooms are counted.
#[must_use]
pub fn text(state: &State, wanted: &[Address]) -> String {
    let mut table = Table::default();
    let (mut accounts, mut rooms) = ((0, 0), (0, 0));
    for address in wanted {
        let observed = state.objects.get(address);
        let count = match address.kind {
            Kind::Account => &mut accounts,
            Kind::Room => &mut rooms,
            Kind::Image => continue,
            _ => {
                table.row(row(address, observed));
                continue;
            }
        };
        count.1 += 1;
        count.0 += usize::from(observed.is_some());
    }
    table.row(["accounts".to_owned(), format!("{} of {}", accounts.0, accounts.1)]);
    table.row(["rooms".to_owned(), format!("{} of {}", rooms.0, rooms.1)]);
    table.text()
}

fn row(address: &Address, observed: Option<&Observed>) -> Vec<String> {
    let Some(observed) = observed else { return vec![address.to_string(), "missing".to_owned()] };
    let health = match observed.health {
        Health::None => String::new(),
        health => health_word(health).to_owned(),
    };
    vec![
        address.to_string(),
        run_word(observed.run).to_owned(),
        health,
        observed.hash.map(|hash| hash.short()).unwrap_or_default(),
        observed.id.chars().take(12).collect(),
    ]
}

/// Model providers that agents of the environment name and cannot use from this machine.
pub async fn model_problems(model: &Model, resolved: &Resolved, world: &World) -> Vec<ModelProblem> {
    let mut used: Vec<&str> = resolved
        .agents
        .values()
        .flat_map(|agent| std::iter::once(&agent.model.value.primary).chain(&agent.model.value.fallbacks))
        .filter_map(|name| Some(name.split_once('/')?.0))
        .collect();
    used.sort_unstable();
    used.dedup();
    // What an engine that does not answer would have told is told by the rest of the status.
    let without = world.docker.made_without().await.ok().flatten();
    let mut problems = Vec::new();
    for name in used {
        let Some(provider) = model.providers.get(name) else { continue };
        let what = match &provider.kind {
            ModelProviderKind::Bedrock { api_key: None, .. } => Some(format!("it names no key. {NO_BEDROCK_KEY}")),
            ModelProviderKind::Bedrock { api_key: Some(key), .. } => missing_key(key, without.as_ref(), world),
            ModelProviderKind::OpenAi { base_url, api_key, .. } => match unreachable_endpoint(base_url, world).await {
                None => api_key.as_ref().and_then(|key| missing_key(key, without.as_ref(), world)),
                unreachable => unreachable,
            },
        };
        problems.extend(what.map(|what| ModelProblem { provider: name.to_owned(), what }));
    }
    problems
}

/// What to do about a provider of kind `bedrock` without `api-key`, on this target.
const NO_BEDROCK_KEY: &str = "Declare api-key=\"AWS_BEARER_TOKEN_BEDROCK\" and set that variable to a Bedrock API key: \
     AWS credentials of this machine never enter a container. Agents run and join rooms meanwhile";

/// What to do about a key that agents were made without; `None`: they have it. Where no agent runs yet, whether it is
/// set here decides.
fn missing_key(key: &SecretName, without: Option<&BTreeSet<String>>, world: &World) -> Option<String> {
    let set = world.secrets.operator.contains_key(&key.0);
    if without.map_or(set, |without| !without.contains(&key.0)) {
        return None;
    }
    let name = &key.0;
    Some(if set {
        format!("{name} is set here, and agents that run were made without it: `fleetctl apply` gives it to them")
    } else {
        format!("set {name} to a key of this provider, then `fleetctl apply`; agents run and join rooms meanwhile")
    })
}

/// Why containers cannot reach an endpoint; `None` when they can, as far as this machine can tell.
async fn unreachable_endpoint(base_url: &str, world: &World) -> Option<String> {
    let url = reqwest::Url::parse(base_url).ok()?;
    let (host, port) = (url.host_str()?.to_owned(), url.port_or_known_default()?);
    let answers = answers(&host, port).await;
    if fleet_graph::openclaw::from_container(base_url) == base_url {
        return (!answers).then(|| format!("{base_url} does not answer; start it, or declare another provider"));
    }
    if !answers {
        return Some(format!(
            "nothing answers at {base_url} on this machine; start a server there (for instance `ollama serve`) or declare another provider. Agents run and join rooms meanwhile"
        ));
    }
    // Containers come in through the engine's bridge, where a server bound to loopback does not listen.
    let gateway = world.docker.engine().host_gateway().await?;
    if self::answers(&gateway, port).await {
        return None;
    }
    Some(format!(
        "{base_url} answers on this machine's loopback only; containers come from {gateway}. Let it listen there too (for Ollama: OLLAMA_HOST=0.0.0.0)"
    ))
}

async fn answers(host: &str, port: u16) -> bool {
    let host = host.trim_matches(['[', ']']);
    matches!(tokio::time::timeout(Duration::from_secs(2), TcpStream::connect((host, port))).await, Ok(Ok(_)))
}
