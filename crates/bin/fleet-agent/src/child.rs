//! [`Gateway`]: OpenClaw as a child under another user, and [`Reaper`], which buries every process that ends.
//!
//! As PID 1 this program inherits all orphans of the container, so ends are collected in one place for any process;
//! nothing else here may wait for a child.

use std::{
    fmt, io,
    os::unix::process::CommandExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use fleet_secret::Secret;
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncRead, BufReader},
    process::{ChildStderr, ChildStdout},
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    task::JoinHandle,
};

use crate::{secrets::Scrubber, settings::Settings};

/// Longer lines are passed on in pieces.
const LONGEST_LINE: u64 = 64 * 1024;
/// How long a killed process may take to be gone.
const BURIAL: Duration = Duration::from_secs(5);
/// How long to wait for what a process that ended still had to say.
const LAST_WORDS: Duration = Duration::from_secs(1);
/// What OpenClaw may inherit from our environment: nothing that could be a credential.
const INHERITED: [&str; 15] = [
    "PATH",
    "TZ",
    "LANG",
    "LC_ALL",
    "LC_CTYPE",
    "NODE_EXTRA_CA_CERTS",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "NODE_OPTIONS",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It exited.
    Exit(i32),
    /// A signal ended it.
    Signal(i32),
}

impl Ended {
    fn of(status: WaitStatus) -> Self {
        status.exit_status().map_or_else(|| Self::Signal(status.terminating_signal().unwrap_or(0)), Self::Exit)
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exit(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => write!(f, "signal {number}"),
        }
    }
}

/// Collects ended processes.
pub struct Reaper(mpsc::UnboundedReceiver<(Pid, Ended)>);

impl Reaper {
    /// Begins to collect.
    ///
    /// # Errors
    /// When the signal handler cannot be installed.
    pub fn start() -> io::Result<Self> {
        let mut child = signal(SignalKind::child())?;
        let (sender, receiver) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while child.recv().await.is_some() {
                while let Ok(Some((pid, status))) = rustix::process::wait(WaitOptions::NOHANG) {
                    if status.exited() || status.signaled() {
                        // Without a receiver the program is ending.
                        let _ = sender.send((pid, Ended::of(status)));
                    }
                }
            }
        });
        Ok(Self(receiver))
    }

    /// Waits for the end of one process.
    pub async fn end_of(&mut self, pid: Pid) -> Ended {
        loop {
            match self.0.recv().await {
                Some((ended, how)) if ended == pid => return how,
                Some(_) => {}
                None => std::future::pending().await,
            }
        }
    }
}

/// A running gateway.
pub struct Gateway {
    pid: Pid,
    output: Vec<JoinHandle<()>>,
    ended: Option<Ended>,
}

impl Gateway {
    /// Starts OpenClaw in its own process group, under the agent's user, with a clean environment.
    ///
    /// # Errors
    /// When the program cannot be started.
    pub fn start(settings: &Settings, secrets: &[(String, Secret)], scrubber: &Scrubber) -> io::Result<Self> {
        let (program, arguments) = settings.command.split_first().ok_or(io::ErrorKind::InvalidInput)?;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment(settings)).current_dir(&settings.workspace_dir);
        for (name, value) in secrets {
            command.env(name, value.expose_str().map_err(io::Error::other)?);
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        if rustix::process::geteuid().is_root() {
            // Also drops every supplementary group.
            command.uid(settings.uid).gid(settings.gid);
        }
        let mut child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(io::ErrorKind::InvalidData)?;
        let mut output = Vec::new();
        if let Some(out) = child.stdout.take() {
            output.push(tokio::spawn(pass_on(ChildStdout::from_std(out)?, scrubber.clone())));
        }
        if let Some(err) = child.stderr.take() {
            output.push(tokio::spawn(pass_on(ChildStderr::from_std(err)?, scrubber.clone())));
        }
        Ok(Self { pid, output, ended: None })
    }

    /// Waits for its end, and until its last words are passed on. May be dropped and called again.
    pub async fn end(&mut self, reaper: &mut Reaper) -> Ended {
        let ended = match self.ended {
            Some(ended) => ended,
            None => *self.ended.insert(reaper.end_of(self.pid).await),
        };
        self.kill_rest();
        for output in self.output.drain(..) {
            // A process that left the group may hold the pipe open for ever.
            let _ = tokio::time::timeout(LAST_WORDS, output).await;
        }
        ended
    }

    /// Asks it to end, and after `grace` ends it.
    pub async fn stop(&mut self, reaper: &mut Reaper, grace: Duration) -> Ended {
        // It may have ended already; then there is an end to collect all the same.
        let _ = rustix::process::kill_process(self.pid, Signal::TERM);
        if let Ok(ended) = tokio::time::timeout(grace, self.end(reaper)).await {
            return ended;
        }
        self.kill_rest();
        tokio::time::timeout(BURIAL, self.end(reaper)).await.unwrap_or(Ended::Signal(Signal::KILL.as_raw()))
    }

    /// Ends what is left of its process group, so that nothing of a former gateway holds a port or a database.
    fn kill_rest(&self) {
        let _ = rustix::process::kill_process_group(self.pid, Signal::KILL);
    }
}

fn environment(settings: &Settings) -> Vec<(String, String)> {
    let state = settings.state_dir.to_string_lossy();
    let mut pairs: Vec<(String, String)> =
        INHERITED.iter().filter_map(|name| Some(((*name).to_owned(), std::env::var(name).ok()?))).collect();
    for (name, value) in [
        ("HOME", format!("{state}/home").as_str()),
        ("OPENCLAW_STATE_DIR", &state),
        ("OPENCLAW_CONFIG_PATH", &format!("{state}/openclaw.json")),
        // The configuration is ours: OpenClaw must neither rewrite nor repair it.
        ("OPENCLAW_CONFIG_READONLY", "1"),
        ("OPENCLAW_NO_RESPAWN", "1"),
        ("OPENCLAW_NO_AUTO_UPDATE", "1"),
        ("OPENCLAW_OFFLINE", "1"),
        ("OPENCLAW_DISABLE_BONJOUR", "1"),
        ("DO_NOT_TRACK", "1"),
    ] {
        pairs.push((name.to_owned(), value.to_owned()));
    }
    pairs
}

async fn pass_on(from: impl AsyncRead + Unpin, scrubber: Scrubber) {
    use std::io::Write as _;
    use tokio::io::AsyncReadExt as _;
    let mut reader = BufReader::new(from);
    let mut line = Vec::new();
    loop {
        line.clear();
        match (&mut reader).take(LONGEST_LINE).read_until(b'\n', &mut line).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                let mut out = io::stdout().lock();
                // Nobody reads our output any more: that must not end the agent.
                let _ = out
                    .write_all(&scrubber.clean(&line))
                    .and_then(|()| out.write_all(b"\n"))
                    .and_then(|()| out.flush());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_has_no_room_for_credentials() {
        let text = r#"{"schema":1,"matrix_id":"@a:b.c","homeserver":"http://h","command":["/bin/true"]}"#;
        let settings: Settings = serde_json::from_str(text).unwrap();
        for (name, _) in environment(&settings) {
            let known = INHERITED.contains(&name.as_str())
                || name.starts_with("OPENCLAW_")
                || name == "HOME"
                || name == "DO_NOT_TRACK";
            assert!(known, "{name}");
        }
    }

    #[tokio::test]
    async fn a_gateway_that_ignores_sigterm_is_killed_after_its_grace_period() {
        let mut reaper = Reaper::start().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let settings: Settings = serde_json::from_value(serde_json::json!({
            "schema": 1, "matrix_id": "@a:b.c", "homeserver": "http://h", "workspace_dir": folder.path(),
            "uid": rustix::process::getuid().as_raw(), "gid": rustix::process::getgid().as_raw(),
            "command": ["/bin/sh", "-c", "trap '' TERM; touch ready; while :; do sleep 0.05; done"],
        }))
        .unwrap();
        let mut gateway = Gateway::start(&settings, &[], &Scrubber::default()).unwrap();
        while !folder.path().join("ready").exists() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let ended = gateway.stop(&mut reaper, Duration::from_millis(300)).await;
        assert_eq!(ended, Ended::Signal(9));
        let settings = Settings { command: vec!["/bin/sh".into(), "-c".into(), "exit 3".into()], ..settings };
        let mut gateway = Gateway::start(&settings, &[], &Scrubber::default()).unwrap();
        assert_eq!(gateway.end(&mut reaper).await, Ended::Exit(3));
    }
}
