//! `say`, `logs`, `password`: reach what runs.

use std::time::{Duration, Instant};

use fleet_aws::{AwsError, Log};
use fleet_matrix::{CallError, Login, MatrixProvider};
use fleet_model::{Address, Kind, model::Target, resolved::Account};
use futures::StreamExt;

use crate::{
    cloud,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    tunnels::{self, By},
    ui::out::{self, tell},
    world::{self, Outside as _, World, exit_of},
};

/// How often is asked for what was printed since.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// What to say.
pub struct Saying<'a> {
    /// Room alias or id.
    pub room: &'a str,
    /// The text.
    pub text: &'a str,
    /// Who says it.
    pub speaker: Option<&'a str>,
    /// How long to wait for an answer.
    pub wait: Duration,
    /// On AWS: who speaks the protocol of the tunnel.
    pub by: By,
}

/// `fleetctl say`: stdout gets the answers, one `name: text` each.
///
/// # Errors
/// An unknown person or room, a homeserver that does not answer; exit code 1 when nobody answered in time.
pub async fn say(context: &Context, environment: &str, saying: &Saying<'_>) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    let speaker = speaker(&prepared, saying.speaker)?.matrix_id.clone();
    if matches!(prepared.environment()?.target, Target::Aws { .. }) {
        return say_on_aws(context, &prepared, &speaker, saying).await;
    }
    let world = World::connect(context, &prepared).await?;
    let outcome = converse(context, &world.matrix, &speaker, saying).await;
    world.finish().await;
    outcome
}

/// The same through a tunnel, which is closed again however it ends.
async fn say_on_aws(context: &Context, prepared: &Prepared, speaker: &str, saying: &Saying<'_>) -> Outcome {
    let (account, _) = cloud::account(context, prepared).await?;
    let secret = cloud::fleet_secret(&account, prepared).await?;
    let (tunnel, far) = (tunnels::tunnels(context, prepared, &account, saying.by), tunnels::homeserver(prepared));
    context.interrupts.hold();
    let said = async {
        let address = tunnel.open(&far, 0).await.map_err(|error| tunnels::failed(&far, &error))?;
        let matrix = world::matrix(context, prepared, address.port(), &secret, Login::ForOneRun)?;
        let outcome = tokio::select! {
            outcome = converse(context, &matrix, speaker, saying) => outcome,
            () = context.interrupts.asked() => Ok(context.interrupts.exit()),
            // Nobody can be signed out through it any more.
            error = tunnel.over() => return Err(tunnels::failed(&far, &error)),
        };
        world::sign_out(&matrix, &context.console).await;
        outcome
    };
    let outcome = said.await;
    tunnel.close().await;
    outcome
}

async fn converse(context: &Context, matrix: &MatrixProvider, speaker: &str, saying: &Saying<'_>) -> Outcome {
    let failed = |error: CallError| {
        let exit = if matches!(error, CallError::Unreachable { .. }) { Exit::Unavailable } else { Exit::Failed };
        Failure::caused(exit, format!("nothing was said in {}", saying.room), &error)
            .hint("`fleetctl status` shows whether the homeserver runs and which rooms there are")
    };
    let mut sent = matrix.send_message(speaker, saying.room, saying.text).await.map_err(failed)?;
    for name in &sent.not_members {
        tell!("warning: {name} names nobody in the room, so nobody was mentioned by it");
    }
    if saying.wait.is_zero() {
        return Ok(Exit::Done);
    }
    let end = Instant::now() + saying.wait;
    let left = end.saturating_duration_since(Instant::now());
    let replies = matrix.replies_since(&mut sent, left).await.map_err(failed)?;
    for reply in &replies {
        if context.json() {
            print_json(&serde_json::json!({
                "schema": 1, "sender": reply.sender.as_str(), "name": reply.name, "text": reply.text,
            }));
        } else {
            print_out(&format!("{}: {}\n", reply.name, reply.text));
        }
    }
    if replies.is_empty() {
        return Err(Failure::new(Exit::Failed, format!("nobody answered within {} s", saying.wait.as_secs()))
            .hint("agents answer in rooms when they are mentioned: write @name")
            .hint(
                "`fleetctl status` shows whether a model is reachable; `fleetctl logs agent/NAME` what the agent did",
            ));
    }
    Ok(Exit::Done)
}

/// The given human, or the one of the highest rank.
fn speaker<'p>(prepared: &'p Prepared, given: Option<&str>) -> Result<&'p Account, Failure> {
    let humans = || prepared.resolved.accounts.values().filter(|account| account.human);
    let names = || humans().map(|account| account.id.as_str()).collect::<Vec<_>>().join(", ");
    match given {
        Some(id) => humans().find(|account| account.id == id).ok_or_else(|| {
            Failure::new(Exit::Usage, format!("`{id}` is no human of {}", prepared.scope.environment))
                .hint(format!("humans with an account are: {}", names()))
        }),
        None => {
            let rank = |account: &&Account| prepared.model.org.people.get(&account.id).map(|person| person.level);
            humans().min_by_key(rank).ok_or_else(|| {
                Failure::new(Exit::Failed, "no human has an account in this environment")
                    .hint("declare one: human \"your.name\" name=\"Your Name\" title=\"…\" level=\"ceo\"")
            })
        }
    }
}

/// `fleetctl logs`.
///
/// # Errors
/// An address without a container; a log that is not there.
pub async fn logs(context: &Context, environment: &str, address: &str, follow: bool, tail: u32) -> Outcome {
    let address: Address =
        address.parse().map_err(|error| Failure::caused(Exit::Usage, "this is not an address", &error))?;
    if !matches!(address.kind, Kind::Agent | Kind::Service) {
        return Err(Failure::new(Exit::Usage, format!("{address} has no container"))
            .hint("agents and services have: agent/NAME, service/homeserver"));
    }
    let prepared = Prepared::new(context, environment)?;
    if matches!(prepared.environment()?.target, Target::Aws { .. }) {
        return logs_on_aws(context, &prepared, &address, follow, tail).await;
    }
    let world = World::connect(context, &prepared).await?;
    let container = world.docker.container_name(&address);
    let mut lines = std::pin::pin!(world.docker.engine().logs(&container, follow, Some(tail)));
    while let Some(line) = lines.next().await {
        let line = line.map_err(|error| {
            Failure::caused(Exit::Failed, format!("the log of {address} cannot be read"), &error)
                .hint("`fleetctl status` shows what runs")
        })?;
        print_out(&format!("{}\n", line.text.trim_end()));
    }
    Ok(Exit::Done)
}

/// The same on AWS: of all its tasks, the one that runs last.
async fn logs_on_aws(context: &Context, prepared: &Prepared, address: &Address, follow: bool, tail: u32) -> Outcome {
    let (account, _) = cloud::account(context, prepared).await?;
    let unread = |why: &str| Failure::new(Exit::Failed, why.to_owned()).hint("`fleetctl status` shows what runs");
    let Some(mut log) = Log::of(account, &prepared.scope, address) else {
        return Err(unread(&format!("{address} prints nothing")));
    };
    let failed = |error: AwsError| unread_because(address, error);
    let Some(last) = log.last(tail as usize).await.map_err(failed)? else {
        return Err(unread(&format!(
            "there is no log of {address}: it has not run, or its log went with its environment"
        )));
    };
    let print = |lines: Vec<String>| lines.iter().for_each(|line| print_out(&format!("{line}\n")));
    print(last);
    while follow && !out::unread() {
        tokio::time::sleep(LOOK_AGAIN).await;
        print(log.more().await.map_err(failed)?);
    }
    Ok(Exit::Done)
}

fn unread_because(address: &Address, error: AwsError) -> Failure {
    let error = error.about(address);
    Failure::caused(exit_of(&error), format!("the log of {address} cannot be read"), &error)
}

/// `fleetctl password`: the one place where a derived password is shown, because a person asked for exactly that.
///
/// # Errors
/// Somebody without an account; on AWS, an account that does not let us read its fleet secret.
pub async fn password(context: &Context, environment: &str, person: &str) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    let account = speaker(&prepared, Some(person))?;
    let fleet = match prepared.environment()?.target {
        Target::Docker => context.machine.secrets(&prepared.scope, &prepared.model)?.fleet,
        Target::Aws { .. } => {
            let (account, _) = cloud::account(context, &prepared).await?;
            cloud::fleet_secret(&account, &prepared).await?
        }
    };
    let secret = fleet.password(&account.matrix_id, 0);
    let text =
        secret.expose_str().map_err(|error| Failure::caused(Exit::Failed, "the password is not text", &error))?;
    print_out(&format!("{text}\n"));
    Ok(Exit::Done)
}
