//! `fleet-agent`: the entry point of an agent's container. See `docs/reference/agent-runtime.md` for the contract.
//!
//! It takes the lock on the agent's volume, logs in to Matrix, lays out the workspace, writes OpenClaw's final
//! configuration, and supervises `openclaw gateway run` under another user. Deliberately absent: everything that
//! concerns more than one agent.

mod aws;
mod backoff;
mod bedrock;
mod bundle;
mod child;
mod configuration;
mod delivery;
mod directory;
mod folder;
mod following;
mod homeserver;
mod http;
mod layout;
mod lock;
mod log;
mod login;
mod models;
mod people;
mod rooms;
mod secrets;
mod settings;
mod signature;
mod status;
mod supervise;
mod tool;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use fleet_secret::Secret;
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::{
    bundle::Bundle,
    child::Reaper,
    folder::{Entry, Folder, Owner},
    settings::{InputError, Settings},
    status::{State, Status},
    supervise::{Outcome, Supervisor},
};

/// An input is missing or wrong (`EX_CONFIG`).
const EXIT_INPUT: u8 = 78;
/// OpenClaw kept failing (`EX_SOFTWARE`).
const EXIT_GAVE_UP: u8 = 70;
/// The volume or a port cannot be used (`EX_IOERR`).
const EXIT_IO: u8 = 74;
/// The command line is wrong (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;

const USAGE: &str = "fleet-agent [run|health|--version] [--settings FILE]

  run        supervise the agent (default)
  health     print the agent's state as JSON; exit 0 when it is healthy
  --settings where the settings are (default /fleet/agent.json)";

#[derive(PartialEq)]
enum Verb {
    Run,
    Health,
    Version,
}

fn arguments() -> Option<(Verb, PathBuf)> {
    let (mut verb, mut path) = (Verb::Run, PathBuf::from(settings::DEFAULT_PATH));
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "run" => verb = Verb::Run,
            "health" => verb = Verb::Health,
            "--version" | "-V" => verb = Verb::Version,
            "--settings" => path = arguments.next()?.into(),
            _ => return None,
        }
    }
    Some((verb, path))
}

fn main() -> ExitCode {
    let Some((verb, path)) = arguments() else {
        eprintln!("{USAGE}");
        return EXIT_USAGE.into();
    };
    if verb == Verb::Version {
        println!("fleet-agent {}", env!("CARGO_PKG_VERSION"));
        return ExitCode::SUCCESS;
    }
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            log::error("cannot start", &[("why", &error)]);
            return EXIT_IO.into();
        }
    };
    if verb == Verb::Run
        && let Err(error) = runtime.block_on(delivery::take(path.parent().unwrap_or(&path)))
    {
        return refuse(&error);
    }
    let settings = match Settings::read(&path) {
        Ok(settings) => settings,
        Err(error) => return refuse(&error),
    };
    if verb == Verb::Health {
        return runtime.block_on(health(&settings));
    }
    let code = runtime.block_on(run(settings));
    // A name look-up that hangs in a helper thread must not keep the container.
    runtime.shutdown_timeout(Duration::from_secs(1));
    code
}

fn refuse(error: &InputError) -> ExitCode {
    log::error(&error.to_string(), &[]);
    EXIT_INPUT.into()
}

/// The container's health check: an exit code, and the report for whoever reads the health log.
async fn health(settings: &Settings) -> ExitCode {
    let url = format!("http://127.0.0.1:{}/health", settings.health_port);
    match http::get(&url, Duration::from_secs(4)).await {
        Ok(answer) => {
            println!("{}", String::from_utf8_lossy(answer.body()));
            if answer.status().is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Err(error) => {
            println!("fleet-agent does not answer: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(settings: Settings) -> ExitCode {
    let status = Status::new(&settings.matrix_id);
    let (stopper, stop) = watch::channel(false);
    let reaper = match listen_to_signals(stopper).and_then(|()| Reaper::start()) {
        Ok(reaper) => reaper,
        Err(error) => return fail("signals cannot be handled", &error),
    };
    let inputs = match Inputs::read(&settings) {
        Ok(inputs) => inputs,
        Err(error) => return refuse(&error),
    };
    if let Err(error) = following::follow(&settings.directory) {
        return refuse(&error);
    }
    // Whatever this or a child executes later, it cannot gain more rights than it has.
    if let Err(error) = rustix::thread::set_no_new_privs(true) {
        return fail("rights cannot be given up", &error);
    }
    let place = match settings.bedrock.as_ref().map(|_| aws::Place::of(delivery::variable)).transpose() {
        Ok(place) => place,
        Err(why) => {
            let document = Path::new(settings::DEFAULT_PATH);
            return refuse(&InputError::wrong(document, format!("bedrock: {why}")));
        }
    };
    if let Err(error) = serve(&settings, place, &status).await {
        return fail("the loopback ports cannot be used", &error);
    }
    let mut waiting = stop.clone();
    let volume = tokio::select! {
        volume = Volume::take(&settings, &status) => volume,
        _ = waiting.wait_for(|stop| *stop) => return ExitCode::SUCCESS,
    };
    let volume = match volume {
        Ok(volume) => volume,
        Err(error) => return fail("the agent's volume cannot be used", &error),
    };
    match layout::lay_out(&volume.workspace, &volume.own, &inputs.bundle) {
        Ok(kept) => {
            for one in &kept {
                log::warn("the agent had edited a generated file", &[("file", &one.path), ("kept_as", &one.kept_as)]);
            }
            log::info("workspace laid out", &[("files", &inputs.bundle.files.len()), ("kept_edits", &kept.len())]);
            status.update(|report| report.edited = kept);
        }
        Err(error) => return fail("the workspace cannot be laid out", &error),
    }
    models::watch(settings.model_endpoints.clone(), status.clone());
    let supervisor = Supervisor {
        settings,
        configuration: inputs.bundle.configuration,
        env_secrets: inputs.env_secrets,
        own: volume.own,
        state: volume.state,
        status,
        stop,
    };
    match supervise::run(supervisor, reaper).await {
        Ok(Outcome::Stopped) => ExitCode::SUCCESS,
        Ok(Outcome::GaveUp) => EXIT_GAVE_UP.into(),
        Err(error) => refuse(&error),
    }
}

fn fail(what: &str, error: &dyn std::fmt::Display) -> ExitCode {
    log::error(what, &[("why", &error)]);
    EXIT_IO.into()
}

fn listen_to_signals(stopper: watch::Sender<bool>) -> std::io::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => log::info("asked to stop", &[("signal", &"SIGTERM")]),
            _ = interrupt.recv() => log::info("asked to stop", &[("signal", &"SIGINT")]),
        }
        stopper.send_replace(true);
        // Whoever watches must find the channel open.
        std::future::pending::<()>().await;
    });
    Ok(())
}

/// In the environment in place of a secret that the operator has not given. OpenClaw wants every key that its
/// configuration names; an agent without one still runs and joins its rooms. Too short to be starred out of its log.
const NOT_GIVEN: &str = "unset";

/// What the container was given beside its settings.
struct Inputs {
    bundle: Bundle,
    env_secrets: Vec<(String, Secret)>,
}

impl Inputs {
    fn read(settings: &Settings) -> Result<Self, InputError> {
        // Looked at now so that a container without one says so at once; read again when a login needs it.
        secrets::read(&secrets::password_path(settings), "the account's password")?;
        let mut env_secrets = Vec::new();
        for name in &settings.env_secrets {
            let secret = secrets::read_if_given(&settings.secrets_dir.join(name), "a declared secret")?;
            let secret = secret.unwrap_or_else(|| {
                log::warn("a declared secret was not given; models that need it cannot answer", &[("name", name)]);
                Secret::new(NOT_GIVEN)
            });
            env_secrets.push((name.clone(), secret));
        }
        Ok(Self { bundle: Bundle::read(&settings.bundle_dir)?, env_secrets })
    }
}

async fn serve(settings: &Settings, place: Option<aws::Place>, status: &Status) -> std::io::Result<()> {
    if let (Some(models), Some(place)) = (&settings.bedrock, place) {
        bedrock::serve(models.port, &models.regions, place).await?;
    }
    let report = status.clone();
    let health: http::Handler = Arc::new(move |_, path, _| match path {
        "/health" => report.answer(),
        _ => http::Answer { status: ::http::StatusCode::NOT_FOUND, body: "{}".to_owned() },
    });
    http::serve(settings.health_port, health).await?;
    let people = directory::watch(&settings.directory);
    http::serve(settings.tool_port, Arc::new(move |method, path, body| tool::answer(&people, method, path, body))).await
}

/// The agent's volume, ours alone.
struct Volume {
    workspace: Folder,
    state: Folder,
    own: Folder,
}

impl Volume {
    async fn take(settings: &Settings, status: &Status) -> std::io::Result<Self> {
        let root = rustix::process::geteuid().is_root();
        let nobody: Owner = root.then_some((0, 0));
        let agent: Owner = root.then_some((settings.uid, settings.gid));
        let own = Folder::ensure(&settings.data_dir, nobody, 0o700)?;
        let lock = lock::wait(&settings.data_dir.join("lock"), |holder| {
            status.set(State::WaitingForLock, format!("{holder} runs this agent on the same volume"));
        })
        .await?;
        // Held until the process ends: whatever happens, no second gateway starts while this one may live.
        std::mem::forget(lock);
        let workspace = Folder::ensure(&settings.workspace_dir, agent, 0o755)?;
        let state = Folder::ensure(&settings.state_dir, agent, 0o700)?;
        match state.entry("home")? {
            Entry::Folder => {}
            Entry::Absent => drop(state.make("home")?),
            Entry::File | Entry::Other => {
                state.remove("home")?;
                state.make("home")?;
            }
        }
        Ok(Self { workspace, state, own })
    }
}
