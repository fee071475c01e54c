//! [`PluginTunnel`]: tunnels by the official `session-manager-plugin`, where an account asks for what only it can.
//!
//! It is called as the AWS command line calls it (`session.go` of
//! [session-manager-plugin](https://github.com/aws/session-manager-plugin)): the answer to StartSession, which has the token, is in a
//! variable and not among the arguments, which everybody on this machine can read. Deliberately absent: starting it again when it
//! ends; it takes sessions up by itself.

use std::{net::SocketAddr, process::Stdio, sync::Arc, time::Duration};

use async_trait::async_trait;
use fleet_apply::{Event, Events, Scope};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt as _, BufReader},
    process::{Child, Command},
    sync::{Mutex, watch},
    time::timeout,
};

use super::{Far, Tunnel, TunnelError, listen, sessions::Sessions};
use crate::account::Account;

/// Its name on PATH.
const PROGRAM: &str = "session-manager-plugin";
/// How it is installed.
const INSTALL: &str =
    "https://docs.aws.amazon.com/systems-manager/latest/userguide/session-manager-working-with-install-plugin.html";
/// The variable that it takes the answer from; it knows it by how it begins.
const ANSWER: &str = "AWS_SSM_START_SESSION_RESPONSE";
/// What it prints once it listens.
const LISTENS: &str = "Waiting for connections";
/// How long until it listens.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long it may take to end its session.
const END_WITHIN: Duration = Duration::from_secs(10);

/// Tunnels by the official plugin.
pub struct PluginTunnel {
    account: Account,
    scope: Scope,
    events: Arc<dyn Events>,
    running: Mutex<Vec<Running>>,
    over: watch::Sender<Option<String>>,
}

struct Running {
    sessions: Sessions,
    session: String,
    process: Option<u32>,
    ended: tokio::task::JoinHandle<()>,
}

impl PluginTunnel {
    /// Nothing is asked before one is opened.
    #[must_use]
    pub fn new(account: Account, scope: Scope, events: Arc<dyn Events>) -> Self {
        Self { account, scope, events, running: Mutex::default(), over: watch::channel(None).0 }
    }

    /// Starts it for a session.
    fn start(&self, answer: &Value, request: &Value) -> Result<Child, TunnelError> {
        let place = &self.account.place;
        let endpoint = place.endpoint.clone().unwrap_or_default();
        let profile = std::env::var("AWS_PROFILE").unwrap_or_default();
        let request = request.to_string();
        let mut command = Command::new(PROGRAM);
        command.args([ANSWER, &place.region, "StartSession", &profile, &request, &endpoint]);
        // A group of its own: Ctrl-C is for us, and we end it.
        command.env(ANSWER, answer.to_string()).process_group(0).kill_on_drop(true);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        command.spawn().map_err(|why| TunnelError::Plugin { why: why.to_string() })
    }
}

/// Whether it can be started. Asked before a session is begun.
fn installed() -> Result<(), TunnelError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    if std::env::split_paths(&path).any(|folder| folder.join(PROGRAM).is_file()) {
        return Ok(());
    }
    let why = format!("it is not on PATH; install it ({INSTALL}), or leave --tunnel plugin out to do without it");
    Err(TunnelError::Plugin { why })
}

/// Waits until it listens.
async fn listens(child: &mut Child) -> Result<(), TunnelError> {
    let failed = |why: String| TunnelError::Plugin { why };
    let Some(output) = child.stdout.take() else { return Err(failed("it has no output".to_owned())) };
    let mut lines = BufReader::new(output).lines();
    let mut said = Vec::new();
    let read = async {
        while let Ok(Some(line)) = lines.next_line().await {
            if line.contains(LISTENS) {
                return Ok(());
            }
            said.push(line);
        }
        let said: Vec<&str> = said.iter().map(|line| line.trim()).filter(|line| !line.is_empty()).collect();
        Err(failed(format!("it ended: {}", said.join(" | "))))
    };
    let outcome = timeout(READY_WITHIN, read).await;
    // What it says later is of no use, and a pipe that nobody reads would stop it.
    tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
    outcome.map_err(|_| failed(format!("it did not listen within {} s", READY_WITHIN.as_secs())))?
}

#[async_trait]
impl Tunnel for PluginTunnel {
    async fn open(&self, far: &Far, local: u16) -> Result<SocketAddr, TunnelError> {
        installed()?;
        // Whether the port is free is seen here; it would only say that something failed.
        let (listener, address) = listen(local).await?;
        drop(listener);
        let bastion = self.account.bastion(&self.scope).await?;
        let sessions = Sessions { account: self.account.clone(), bastion };
        let request = sessions.request(far, address.port());
        let answer = sessions.ask("StartSession", &request).await?;
        let session = answer["SessionId"].as_str().unwrap_or_default().to_owned();
        let started = async {
            let mut child = self.start(&answer, &request)?;
            listens(&mut child).await.map(|()| child)
        };
        let mut child = match started.await {
            Ok(child) => child,
            Err(error) => {
                // Why it did not start is what matters; AWS ends what nobody uses.
                drop(sessions.end(&session).await);
                return Err(error);
            }
        };
        let (process, over, far) = (child.id(), self.over.clone(), far.clone());
        let ended = tokio::spawn(async move {
            let status = child.wait().await.map_or_else(|error| error.to_string(), |status| status.to_string());
            over.send_replace(Some(format!("that to {far} ended ({status})")));
        });
        self.running.lock().await.push(Running { sessions, session, process, ended });
        Ok(address)
    }

    async fn over(&self) -> TunnelError {
        let mut over = self.over.subscribe();
        let why = over.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        TunnelError::Plugin { why: why.unwrap_or_default() }
    }

    async fn close(&self) {
        for running in std::mem::take(&mut *self.running.lock().await) {
            let process = running.process.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
            if let Some(process) = process.filter(|_| !running.ended.is_finished()) {
                let _ = kill_process(process, Signal::INT);
            }
            let mut ended = running.ended;
            if timeout(END_WITHIN, &mut ended).await.is_err() {
                // With it goes the child.
                ended.abort();
            }
            if let Err(error) = running.sessions.end(&running.session).await {
                let text = format!("session {} may go on until it is idle: {error}", running.session);
                self.events.emit(Event::Notice { text });
            }
        }
    }
}
