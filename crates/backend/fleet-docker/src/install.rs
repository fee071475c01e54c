//! Getting a container engine onto a machine that has none: [`install_plan`] says what (pure), [`install`] does it.
//!
//! Deliberately absent: asking for consent (the edge shows the plan first), and any system other than Debian and its
//! relatives: elsewhere the plan is a text for a person.

use std::{collections::BTreeMap, path::PathBuf, process::Stdio, time::Duration};

use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, BufReader},
    process::Command,
};

use crate::engine::{Engine, EngineSearch, Search, find};

/// How long a freshly started engine may take to answer.
const STARTS_WITHIN: Duration = Duration::from_secs(60);
/// How long to wait for an engine that the package itself started.
const STARTED_BY_PACKAGE: Duration = Duration::from_secs(5);

/// What would be done to have an engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InstallPlan {
    /// These commands, then this start.
    Commands {
        /// Argument vectors, in order.
        commands: Vec<Vec<String>>,
        /// How to start it, if the package did not.
        start: Start,
    },
    /// A person must do it; the text says what.
    ByHand {
        /// One or two sentences.
        text: String,
    },
}

/// How the engine is started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// systemd runs here: it starts the engine now and at every boot.
    Systemd,
    /// Nothing manages services: `dockerd` runs in a session of its own until the machine stops.
    Daemon {
        /// Where its output goes.
        log: PathBuf,
    },
}

impl InstallPlan {
    /// The commands as a person would type them; for [`InstallPlan::ByHand`] the text.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::ByHand { text } => vec![text.clone()],
            Self::Commands { commands, start } => {
                let mut lines: Vec<String> = commands.iter().map(|c| c.join(" ")).collect();
                lines.push(match start {
                    Start::Systemd => "systemctl enable --now docker".to_owned(),
                    Start::Daemon { log } => format!("setsid --fork dockerd >> {} 2>&1", log.display()),
                });
                lines
            }
        }
    }
}

/// Why there is no engine after all.
#[derive(Debug, thiserror::Error)]
pub enum InstallError {
    /// Only a person can do it.
    #[error("{text}")]
    ByHand {
        /// What to do.
        text: String,
    },
    /// A command could not be started.
    #[error("`{command}` could not be started: {source}")]
    NotStarted {
        /// Which.
        command: String,
        /// Why.
        source: std::io::Error,
    },
    /// A command failed.
    #[error("`{command}` ended with {status}")]
    CommandFailed {
        /// Which.
        command: String,
        /// `exit status: 100`.
        status: String,
        /// The last lines it printed.
        last_lines: Vec<String>,
    },
    /// It was installed and started and does not answer.
    #[error("the container engine was started and does not answer after {seconds} s{}", .log.as_ref().map(|l| format!("; see {}", l.display())).unwrap_or_default())]
    Silent {
        /// How long we waited.
        seconds: u64,
        /// Its log, where we started it.
        log: Option<PathBuf>,
    },
}

/// What would be installed. `os_release` is the text of `/etc/os-release`.
#[must_use]
pub fn install_plan(os_release: &str, is_root: bool, has_systemd: bool) -> InstallPlan {
    let fields = os_release_fields(os_release);
    let field = |name: &str| fields.get(name).cloned().unwrap_or_default();
    let debian =
        field("ID") == "debian" || field("ID") == "ubuntu" || field("ID_LIKE").split(' ').any(|l| l == "debian");
    let name = fields.get("PRETTY_NAME").cloned().unwrap_or_else(|| "this system".to_owned());
    if !debian {
        return InstallPlan::ByHand {
            text: format!(
                "on {name} fleetctl does not install a container engine itself: install Docker or Podman (with its API \
                 socket enabled), check that `docker info` or `podman info` answers, and run this again"
            ),
        };
    }
    if !is_root {
        return InstallPlan::ByHand {
            text: format!(
                "installing a container engine on {name} needs root: run this again as root, or run \
                 `sudo apt-get install docker.io` and join the group `docker`"
            ),
        };
    }
    let command = |words: &[&str]| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>();
    InstallPlan::Commands {
        commands: vec![
            command(&["apt-get", "update"]),
            // iptables: the bridge network needs it, and on newer releases it is no dependency of docker.io.
            command(&["apt-get", "install", "-y", "--no-install-recommends", "docker.io", "iptables"]),
        ],
        start: if has_systemd { Start::Systemd } else { Start::Daemon { log: PathBuf::from("/var/log/dockerd.log") } },
    }
}

/// `KEY=value` and `KEY="value"` lines.
fn os_release_fields(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.trim().split_once('='))
        .map(|(key, value)| (key.to_owned(), value.trim_matches(['"', '\'']).to_owned()))
        .collect()
}

/// Carries out a plan and waits until the engine answers. Idempotent: what is installed or runs already stays.
/// `progress` gets a line per step and per line that a step prints.
///
/// # Errors
/// See [`InstallError`].
pub async fn install(
    plan: &InstallPlan,
    search: &EngineSearch,
    progress: &mut (dyn FnMut(String) + Send),
) -> Result<Engine, InstallError> {
    let (commands, start) = match plan {
        InstallPlan::ByHand { text } => return Err(InstallError::ByHand { text: text.clone() }),
        InstallPlan::Commands { commands, start } => (commands, start),
    };
    for command in commands {
        run(command, progress).await?;
    }
    if let Some(engine) = answers_within(search, STARTED_BY_PACKAGE).await {
        return Ok(engine);
    }
    progress("starting the container engine".to_owned());
    let log = match start {
        Start::Systemd => {
            let words = ["systemctl", "enable", "--now", "docker"];
            run(&words.map(str::to_owned), progress).await?;
            None
        }
        Start::Daemon { log } => {
            start_daemon(log).await?;
            Some(log.clone())
        }
    };
    answers_within(search, STARTS_WITHIN).await.ok_or(InstallError::Silent { seconds: STARTS_WITHIN.as_secs(), log })
}

async fn answers_within(search: &EngineSearch, limit: Duration) -> Option<Engine> {
    let end = tokio::time::Instant::now() + limit;
    loop {
        if let Search::Found(engine) = find(search).await {
            return Some(*engine);
        }
        if tokio::time::Instant::now() >= end {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
}

/// Runs a command, passing on what it prints; `stderr` joins `stdout`.
async fn run(words: &[String], progress: &mut (dyn FnMut(String) + Send)) -> Result<(), InstallError> {
    let line = words.join(" ");
    progress(format!("$ {line}"));
    let not_started = |source| InstallError::NotStarted { command: line.clone(), source };
    let [program, arguments @ ..] = words else { return Ok(()) };
    let mut child = Command::new(program)
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(not_started)?;
    let mut stderr = child.stderr.take();
    let errors = tokio::spawn(async move {
        let mut text = String::new();
        if let Some(stream) = stderr.as_mut() {
            // What cannot be read as text is not worth failing an installation for.
            let _ = stream.read_to_string(&mut text).await;
        }
        text
    });
    let mut last_lines = Vec::new();
    if let Some(stdout) = child.stdout.take() {
        let mut lines = BufReader::new(stdout).split(b'\n');
        while let Ok(Some(line)) = lines.next_segment().await {
            let text = settled(&String::from_utf8_lossy(&line));
            last_lines.push(text.clone());
            progress(text);
        }
    }
    let status = child.wait().await.map_err(not_started)?;
    last_lines.extend(errors.await.unwrap_or_default().lines().map(str::to_owned));
    if status.success() {
        return Ok(());
    }
    let last_lines = last_lines.split_off(last_lines.len().saturating_sub(20));
    Err(InstallError::CommandFailed { command: line, status: status.to_string(), last_lines })
}

/// A line as a terminal shows it in the end: programs overwrite their percentages after a carriage return.
fn settled(line: &str) -> String {
    line.trim_end().rsplit('\r').next().unwrap_or_default().to_owned()
}

/// Starts `dockerd` in a session of its own, so that it outlives us and our terminal.
async fn start_daemon(log: &std::path::Path) -> Result<(), InstallError> {
    let command = "setsid --fork dockerd".to_owned();
    let not_started = |source| InstallError::NotStarted { command: command.clone(), source };
    let output = std::fs::OpenOptions::new().create(true).append(true).open(log).map_err(not_started)?;
    let errors = output.try_clone().map_err(not_started)?;
    let status = Command::new("setsid")
        .args(["--fork", "dockerd"])
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .status()
        .await
        .map_err(not_started)?;
    if status.success() {
        Ok(())
    } else {
        Err(InstallError::CommandFailed { command, status: status.to_string(), last_lines: Vec::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_percentage_that_is_overwritten_only_the_end_is_shown() {
        assert_eq!(
            settled("(Reading database ... 5%\r(Reading database ... 7 files installed.)\r"),
            "(Reading database ... 7 files installed.)"
        );
        assert_eq!(settled("Unpacking runc ..."), "Unpacking runc ...");
        assert_eq!(settled(""), "");
    }

    const BOOKWORM: &str = "PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nID=debian\nVERSION_CODENAME=bookworm\n";

    #[test]
    fn on_debian_root_gets_the_two_commands_and_a_daemon_where_nothing_manages_services() {
        let plan = install_plan(BOOKWORM, true, false);
        assert_eq!(
            plan.lines(),
            [
                "apt-get update",
                "apt-get install -y --no-install-recommends docker.io iptables",
                "setsid --fork dockerd >> /var/log/dockerd.log 2>&1",
            ]
        );
    }

    #[test]
    fn where_systemd_runs_it_starts_the_engine() {
        let plan = install_plan("ID=linuxmint\nID_LIKE=\"ubuntu debian\"\n", true, true);
        assert_eq!(plan.lines().last().map(String::as_str), Some("systemctl enable --now docker"));
    }

    #[test]
    fn elsewhere_or_without_root_a_person_is_told_what_to_do() {
        let InstallPlan::ByHand { text } = install_plan("ID=fedora\nPRETTY_NAME=\"Fedora 43\"\n", true, true) else {
            panic!("commands for Fedora")
        };
        assert!(text.contains("Fedora 43") && text.contains("install Docker or Podman"), "{text}");
        let InstallPlan::ByHand { text } = install_plan(BOOKWORM, false, true) else { panic!("commands without root") };
        assert!(text.contains("needs root") && text.contains("apt-get install docker.io"), "{text}");
    }

    #[tokio::test]
    async fn a_command_that_fails_is_reported_with_what_it_printed() {
        let words = ["sh", "-c", "echo out; echo broken >&2; exit 3"].map(str::to_owned);
        let mut seen = Vec::new();
        let Err(InstallError::CommandFailed { status, last_lines, .. }) = run(&words, &mut |l| seen.push(l)).await
        else {
            panic!("it did not fail")
        };
        assert!(status.contains('3'), "{status}");
        assert_eq!(last_lines, ["out", "broken"]);
        assert_eq!(seen, ["$ sh -c echo out; echo broken >&2; exit 3", "out"]);
    }
}
