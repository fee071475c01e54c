//! [`Emulator`]: an AWS account on a port of loopback: MiniStack, with what it lacks added by `emulator/emulator.py`.
//!
//! It answers the calls that AWS answers, and runs tasks as containers of an engine of this machine. What it cannot show is
//! listed in `docs/reference/aws.md`. Deliberately absent: any difference in how it is talked to; only the endpoint is another
//! one.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use serde::Deserialize;
use tokio::{
    fs,
    io::AsyncWriteExt as _,
    net::TcpStream,
    process::{Child, Command},
    time::{Instant, sleep},
};

use crate::account::Place;

/// What runs, and what it needs beside itself; installed into an environment of its own.
pub const REQUIREMENTS: [&str; 2] = ["ministack==1.5.33", "docker==7.2.0"];
/// The program, and what it is made of.
const SCRIPTS: [(&str, &str); 8] = [
    ("emulator.py", include_str!("../emulator/emulator.py")),
    ("containers.py", include_str!("../emulator/containers.py")),
    ("definition.py", include_str!("../emulator/definition.py")),
    ("engine.py", include_str!("../emulator/engine.py")),
    ("quotas.py", include_str!("../emulator/quotas.py")),
    ("services.py", include_str!("../emulator/services.py")),
    ("sessions.py", include_str!("../emulator/sessions.py")),
    ("tasks.py", include_str!("../emulator/tasks.py")),
];
/// How long it may take to answer, on a machine that is busy with other things.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// Pause between two looks.
const LOOK: Duration = Duration::from_millis(50);
/// How long it has to remove its containers and end before it is ended.
const STOP_WITHIN: Duration = Duration::from_secs(90);
/// Name of the file of bad answers that are to be given.
const FAULTS: &str = "faults.json";
/// Name of the file of quotas that the account asked for.
const QUOTAS: &str = "quotas.json";
/// Name of the file of what is wrong with the lines of sessions.
const LINE: &str = "line.json";
/// Lines of its log that an error shows.
const LAST_LINES: usize = 12;

/// Why there is no emulator.
#[derive(Debug, thiserror::Error)]
pub enum EmulatorError {
    /// A file.
    #[error("{what} {path}: {why}")]
    File {
        /// What was tried.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        why: io::Error,
    },
    /// A program is missing or fails.
    #[error("{program} fails: {why}; it needs Python 3 with its venv module (apt-get install python3-venv) and PyPI")]
    Program {
        /// Which.
        program: String,
        /// Why.
        why: String,
    },
    /// It ended or does not answer.
    #[error("the emulator does not answer on port {port}; it said: {said}")]
    Silent {
        /// Where.
        port: u16,
        /// The last lines of its log.
        said: String,
    },
}

/// What it is started with.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// A Python with [`REQUIREMENTS`] installed.
    pub python: &'a Path,
    /// A folder of its own: its script, its log and the log of requests.
    pub folder: &'a Path,
    /// Port on loopback.
    pub port: u16,
    /// The account and region that it plays.
    pub place: &'a Place,
    /// Address of the container engine that tasks run in: `unix:///var/run/docker.sock`. Where none answers there they stay
    /// PENDING, and stacks do not wait for their services. Without an address tasks are on paper, and always run: for tests
    /// of what is asked of AWS.
    pub engine: Option<&'a str>,
}

/// A request that it was sent.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Request {
    /// `cloudformation CreateChangeSet`, `PUT /v2/…`.
    pub action: String,
    /// Whether a task asked, from its container.
    #[serde(default)]
    pub by_task: bool,
}

/// A bad answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing was done: too many calls.
    Throttle,
    /// Nothing was done: an error of the service.
    Fail,
    /// Nothing was done: whoever asks is not allowed to.
    Deny,
    /// It was done, and an error comes back.
    Lose,
    /// Nothing was done: the credentials have run out.
    Expire,
    /// Nothing was done: the time in the signature is not AWS's.
    Skew,
}

impl Fault {
    const fn word(self) -> &'static str {
        match self {
            Self::Throttle => "throttle",
            Self::Fail => "fail",
            Self::Deny => "deny",
            Self::Lose => "lose",
            Self::Expire => "expire",
            Self::Skew => "skew",
        }
    }
}

/// What is wrong with the line between the two ends of a session; 0 where nothing is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// Every so many-th message is lost.
    pub lose: u32,
    /// Every so many-th arrives twice.
    pub repeat: u32,
    /// Every so many-th arrives after the next one.
    pub swap: u32,
    /// After so many the socket is closed, once.
    pub cut: u32,
}

/// A running emulator. It ends with this value, and with this process, however that ends: when its standard input is closed.
#[derive(Debug)]
pub struct Emulator {
    child: Child,
    folder: PathBuf,
    port: u16,
}

/// What keeps it running once its standard input is closed.
const STAY: &[u8] = b"stay";

impl Emulator {
    /// Starts it and waits until it answers.
    ///
    /// # Errors
    /// [`EmulatorError`].
    pub async fn start(start: Start<'_>) -> Result<Self, EmulatorError> {
        let folder = start.folder.to_path_buf();
        fs::create_dir_all(&folder).await.map_err(file("making", &folder))?;
        for (name, text) in SCRIPTS {
            let script = folder.join(name);
            fs::write(&script, text).await.map_err(file("writing", &script))?;
        }
        let table = folder.join("replacements.json");
        fs::write(&table, replacements()).await.map_err(file("writing", &table))?;
        let log_path = folder.join("emulator.log");
        let log = std::fs::File::create(&log_path).map_err(file("writing", &log_path))?;
        let errors = log.try_clone().map_err(file("writing", &log_path))?;
        let child = Command::new(start.python)
            .arg(folder.join(SCRIPTS[0].0))
            .envs([("BIND_HOST", "127.0.0.1"), ("IOT_MTLS_ENABLED", "0"), ("SFTP_ENABLED", "0")])
            .env("GATEWAY_PORT", start.port.to_string())
            .env("MINISTACK_REGION", &start.place.region)
            .env("MINISTACK_ACCOUNT_ID", &start.place.account)
            .env("FLEET_EMULATOR_LOG", folder.join("requests.log"))
            .env("FLEET_EMULATOR_FAULTS", folder.join(FAULTS))
            .env("FLEET_EMULATOR_QUOTAS", folder.join(QUOTAS))
            .env("FLEET_EMULATOR_LINE", folder.join(LINE))
            .env("FLEET_EMULATOR_REPLACEMENTS", &table)
            .env("FLEET_EMULATOR_ENGINE", start.engine.unwrap_or_default())
            // MiniStack itself gets none: it drops entry points, secrets and volumes of tasks.
            .env("DOCKER_HOST", "unix:///nonexistent/engine.sock")
            // A group of its own: Ctrl-C is for us, and we end it.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(log)
            .stderr(errors)
            .spawn()
            .map_err(|why| EmulatorError::Program {
                program: start.python.display().to_string(),
                why: why.to_string(),
            })?;
        let mut emulator = Self { child, folder, port: start.port };
        emulator.ready().await?;
        Ok(emulator)
    }

    async fn ready(&mut self) -> Result<(), EmulatorError> {
        let until = Instant::now() + READY_WITHIN;
        while Instant::now() < until {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                break;
            }
            if TcpStream::connect(("127.0.0.1", self.port)).await.is_ok() {
                return Ok(());
            }
            sleep(LOOK).await;
        }
        Err(self.silent().await)
    }

    async fn silent(&self) -> EmulatorError {
        let said = fs::read_to_string(self.folder.join("emulator.log")).await.unwrap_or_default();
        let lines: Vec<&str> = said.lines().collect();
        EmulatorError::Silent { port: self.port, said: lines[lines.len().saturating_sub(LAST_LINES)..].join(" | ") }
    }

    /// Where it is asked.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Everything that it was asked so far, in order.
    ///
    /// # Errors
    /// A log that cannot be read.
    pub async fn requests(&self) -> Result<Vec<Request>, EmulatorError> {
        let path = self.folder.join("requests.log");
        let text = fs::read_to_string(&path).await.map_err(file("reading", &path))?;
        Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// Answers these actions badly, each once: see [`Fault`].
    ///
    /// # Errors
    /// A file that cannot be written.
    pub async fn answer_badly(&self, faults: &[(&str, Fault)]) -> Result<(), EmulatorError> {
        let path = self.folder.join(FAULTS);
        let faults: Vec<_> = faults.iter().map(|(action, fault)| (action, fault.word())).collect();
        fs::write(&path, serde_json::json!(faults).to_string()).await.map_err(file("writing", &path))
    }

    /// What the account has of these quotas, by their codes, in place of what AWS gives everybody.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub async fn has_quotas(&self, quotas: &[(&str, u64)]) -> Result<(), EmulatorError> {
        let path = self.folder.join(QUOTAS);
        let quotas: BTreeMap<&str, u64> = quotas.iter().copied().collect();
        fs::write(&path, serde_json::json!(quotas).to_string()).await.map_err(file("writing", &path))
    }

    /// What happens from now on to the messages of sessions that begin.
    ///
    /// # Errors
    /// A file that cannot be written.
    pub async fn disturb(&self, line: Line) -> Result<(), EmulatorError> {
        let path = self.folder.join(LINE);
        let all = [("lose", line.lose), ("repeat", line.repeat), ("swap", line.swap), ("cut", line.cut)];
        let wrong: BTreeMap<&str, u32> = all.into_iter().filter(|(_, each)| *each > 0).collect();
        fs::write(&path, serde_json::json!(wrong).to_string()).await.map_err(file("writing", &path))
    }

    /// Its process id while it runs.
    #[must_use]
    pub fn process(&self) -> Option<u32> {
        self.child.id()
    }

    /// Leaves it running, without us; returns its process id.
    ///
    /// # Errors
    /// It has ended.
    pub async fn leave(mut self) -> Result<u32, EmulatorError> {
        let told = match self.child.stdin.as_mut() {
            Some(input) => input.write_all(STAY).await,
            None => Err(io::ErrorKind::BrokenPipe.into()),
        };
        match (told, self.child.id()) {
            (Ok(()), Some(process)) => Ok(process),
            _ => Err(self.silent().await),
        }
    }

    /// Ends it, with all containers, networks and volumes that it made.
    pub async fn stop(mut self) {
        drop(self.child.stdin.take());
        if tokio::time::timeout(STOP_WITHIN, self.child.wait()).await.is_err() {
            // What it leaves is removed when the next one starts.
            drop(self.child.kill().await);
        }
    }
}

/// Installs it below a folder, once; returns the Python that runs it.
///
/// # Errors
/// [`EmulatorError`].
pub async fn install(home: &Path) -> Result<PathBuf, EmulatorError> {
    let place = home.join(REQUIREMENTS.join("+"));
    let python = place.join("bin/python");
    let complete = place.join(".complete");
    if fs::try_exists(&complete).await.unwrap_or(false) {
        return Ok(python);
    }
    fs::create_dir_all(home).await.map_err(file("making", home))?;
    run(Command::new("python3").args(["-m", "venv", "--clear"]).arg(&place)).await?;
    let pip = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
    run(Command::new(&python).args(pip).args(REQUIREMENTS)).await?;
    fs::write(&complete, "").await.map_err(file("writing", &complete))?;
    Ok(python)
}

async fn run(command: &mut Command) -> Result<(), EmulatorError> {
    let program = command.as_std().get_program().to_string_lossy().into_owned();
    let failed = |why: String| EmulatorError::Program { program: program.clone(), why };
    let output = command.stdin(Stdio::null()).output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.trim().lines().collect();
    Err(failed(lines[lines.len().saturating_sub(LAST_LINES)..].join(" | ")))
}

/// Which properties replace a resource: MiniStack knows it for few types, and says "perhaps" of all others.
fn replacements() -> String {
    let table: BTreeMap<&str, BTreeMap<&str, &[&str]>> = fleet_stacks::TABLE
        .iter()
        .map(|row| (row.kind, BTreeMap::from([("always", row.always), ("perhaps", row.perhaps)])))
        .collect();
    serde_json::json!(table).to_string()
}

fn file(what: &'static str, path: &Path) -> impl Fn(io::Error) -> EmulatorError {
    move |why| EmulatorError::File { what, path: path.to_path_buf(), why }
}
