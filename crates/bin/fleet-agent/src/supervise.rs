//! [`run`]: logs in, starts OpenClaw, looks after it, and starts it again with growing pauses when it stops.

use std::{
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use fleet_secret::Secret;
use serde_json::Value;
use tokio::sync::watch;

use crate::{
    backoff::{self, Decision},
    child::{Ended, Gateway, Reaper},
    configuration,
    folder::Folder,
    http, log,
    login::{self, Session},
    rooms,
    secrets::{self, Scrubber},
    settings::{InputError, Settings},
    status::{State, Status},
};

/// How often OpenClaw is looked at.
const PACE: Duration = Duration::from_secs(2);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(4);
/// Looks without any answer before a healthy OpenClaw counts as unhealthy: a machine may be busy for a moment.
const SILENCES: u32 = 3;
/// How often the homeserver is asked whether the login still holds.
const LOGIN_PACE: Duration = Duration::from_secs(60);
/// OpenClaw that is not ready for so long is started again.
const LONGEST_UNREADY: Duration = Duration::from_secs(300);

/// What the supervisor works with.
pub struct Supervisor {
    /// The agent's settings.
    pub settings: Settings,
    /// OpenClaw's configuration as the bundle has it.
    pub configuration: Value,
    /// Secrets for OpenClaw's environment.
    pub env_secrets: Vec<(String, Secret)>,
    /// This program's own folder on the volume.
    pub own: Folder,
    /// OpenClaw's state folder.
    pub state: Folder,
    /// What is reported.
    pub status: Status,
    /// Becomes true when the container is asked to stop.
    pub stop: watch::Receiver<bool>,
}

/// How it ended for good.
#[derive(Debug)]
pub enum Outcome {
    /// The container was asked to stop, and OpenClaw did.
    Stopped,
    /// OpenClaw kept failing.
    GaveUp,
}

#[derive(Debug, thiserror::Error)]
enum Unready {
    #[error("OpenClaw does not answer: {0}")]
    Silent(#[from] http::SendError),
    #[error("OpenClaw says that it is not ready: {0}")]
    Failing(String),
}

enum Verdict {
    Stop,
    Ended(Ended),
    SignedOut,
    Unready(String),
}

/// Supervises until the container is asked to stop or OpenClaw keeps failing.
///
/// # Errors
/// [`InputError`] when an input turns out to be unusable only now.
pub async fn run(mut supervisor: Supervisor, mut reaper: Reaper) -> Result<Outcome, InputError> {
    let mut failures = 0;
    loop {
        let Some(session) = supervisor.session().await? else { return Ok(Outcome::Stopped) };
        let rooms = rooms::settle(Arc::clone(&session), supervisor.settings.rooms.clone(), supervisor.status.clone());
        let started = Instant::now();
        let verdict = supervisor.attend(&session, &mut reaper).await?;
        rooms.abort();
        let why = match verdict {
            Verdict::Stop => return Ok(Outcome::Stopped),
            Verdict::SignedOut => {
                log::warn("the homeserver no longer takes our login; logging in again", &[]);
                continue;
            }
            Verdict::Ended(ended) => format!("OpenClaw stopped: {ended}"),
            Verdict::Unready(why) => format!("OpenClaw was not ready for {} s: {why}", LONGEST_UNREADY.as_secs()),
        };
        match backoff::decide(failures, started.elapsed(), fastrand::f64()) {
            Decision::GiveUp => {
                log::error(
                    "OpenClaw keeps failing; giving up",
                    &[("why", &why), ("failures", &backoff::FAST_FAILURES)],
                );
                return Ok(Outcome::GaveUp);
            }
            Decision::Restart { after, failures: now } => {
                failures = now;
                supervisor.status.set(State::Restarting, &why);
                supervisor.status.update(|report| report.restarts += 1);
                log::warn(
                    "starting OpenClaw again",
                    &[("why", &why), ("in_ms", &after.as_millis()), ("failures", &now)],
                );
                if supervisor.stopped_within(after).await {
                    return Ok(Outcome::Stopped);
                }
            }
        }
    }
}

impl Supervisor {
    /// A login that works; `None` when asked to stop meanwhile.
    async fn session(&mut self) -> Result<Option<Arc<Session>>, InputError> {
        let mut stop = self.stop.clone();
        tokio::select! {
            session = login::log_in(&self.settings, &self.own, &self.status) => Ok(Some(Arc::new(session?))),
            _ = stop.wait_for(|stop| *stop) => Ok(None),
        }
    }

    async fn stopped_within(&mut self, pause: Duration) -> bool {
        tokio::time::timeout(pause, self.stop.wait_for(|stop| *stop)).await.is_ok()
    }

    /// Starts OpenClaw and stays with it until there is something to decide. It is gone when this returns.
    async fn attend(&mut self, session: &Arc<Session>, reaper: &mut Reaper) -> Result<Verdict, InputError> {
        self.status.set(State::StartingOpenclaw, "OpenClaw is starting");
        let scrubber = self.write_configuration(session)?;
        let mut gateway = match Gateway::start(&self.settings, &self.env_secrets, &scrubber) {
            Ok(gateway) => gateway,
            Err(error) => {
                let program = PathBuf::from(self.settings.command.first().cloned().unwrap_or_default());
                return Err(InputError::wrong(&program, format!("OpenClaw cannot be started: {error}")));
            }
        };
        log::info("OpenClaw started", &[("uid", &self.settings.uid)]);
        let mut stop = self.stop.clone();
        let verdict = tokio::select! {
            ended = gateway.end(reaper) => return Ok(Verdict::Ended(ended)),
            _ = stop.wait_for(|stop| *stop) => Verdict::Stop,
            verdict = self.watch(session) => verdict,
        };
        if matches!(verdict, Verdict::Stop) {
            self.status.set(State::Stopping, "the container was asked to stop");
        }
        let grace = Duration::from_secs(self.settings.grace_seconds);
        let ended = gateway.stop(reaper, grace).await;
        log::info("OpenClaw stopped", &[("how", &ended)]);
        Ok(verdict)
    }

    /// Writes the final configuration and tells what must never be printed.
    fn write_configuration(&self, session: &Session) -> Result<Scrubber, InputError> {
        let path = self.settings.state_dir.join("openclaw.json");
        let wrong = |e: &dyn std::fmt::Display| InputError::wrong(&path, format!("it cannot be written: {e}"));
        let gateway = secrets::random(32).map_err(|e| wrong(&e))?;
        let config =
            configuration::complete(&self.configuration, &self.settings, session, &gateway).map_err(|e| wrong(&e))?;
        self.state.write("openclaw.json", format!("{config:#}\n").as_bytes(), 0o600).map_err(|e| wrong(&e))?;
        let mut scrubber = Scrubber::default();
        scrubber.add(&gateway);
        scrubber.add(&session.token);
        for (_, secret) in &self.env_secrets {
            scrubber.add(secret);
        }
        Ok(scrubber)
    }

    /// Looks at OpenClaw and at the login again and again.
    async fn watch(&self, session: &Session) -> Verdict {
        let mut last_ready = Instant::now();
        let mut silences = 0;
        let mut login_checked = Instant::now();
        loop {
            match self.ready().await {
                Ok(()) => {
                    (last_ready, silences) = (Instant::now(), 0);
                    if self.status.set(State::Healthy, "") {
                        log::info("healthy", &[]);
                    }
                }
                Err(Unready::Silent(_)) if self.status.state() == State::Healthy && silences < SILENCES => {
                    silences += 1
                }
                Err(unready) => self.note_unready(&unready.to_string()),
            }
            if last_ready.elapsed() > LONGEST_UNREADY {
                return Verdict::Unready(
                    self.ready().await.err().map(|unready| unready.to_string()).unwrap_or_default(),
                );
            }
            if login_checked.elapsed() > LOGIN_PACE {
                login_checked = Instant::now();
                if session.check().await.is_err_and(|error| error.is_signed_out()) {
                    return Verdict::SignedOut;
                }
            }
            tokio::time::sleep(PACE).await;
        }
    }

    fn note_unready(&self, why: &str) {
        if self.status.state() == State::StartingOpenclaw {
            self.status.set(State::StartingOpenclaw, why);
        } else if self.status.set(State::Unhealthy, why) {
            log::warn("OpenClaw is not ready", &[("why", &why)]);
        }
    }

    /// OpenClaw's own opinion: whether it, its databases and its Matrix connection work.
    async fn ready(&self) -> Result<(), Unready> {
        let url = format!("http://127.0.0.1:{}/readyz", self.settings.gateway_port);
        let answer = http::get(&url, PATIENCE).await?;
        if answer.status().is_success() {
            return Ok(());
        }
        let said: Value = serde_json::from_slice(answer.body()).unwrap_or_default();
        let failing: Vec<&str> = said["failing"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        Err(Unready::Failing(if failing.is_empty() { "no reason given".to_owned() } else { failing.join(", ") }))
    }
}
