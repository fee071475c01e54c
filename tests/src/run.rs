//! [`Program`]: the built `fleetctl` as a process, and [`Output`]: what became of it.

use std::{
    env,
    io::Read,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::sources::workspace;

/// No command of a test may take longer; one that does is killed and fails its test. The first build of the agent image
/// compiles the agent runtime and fetches 331 packages: on a busy machine that alone took ten minutes.
const LONGEST: Duration = Duration::from_secs(1800);

/// How a process ended.
#[derive(Clone, Debug)]
pub struct Output {
    /// Its exit code; `None` when a signal ended it.
    pub code: Option<i32>,
    /// What it wrote for programs.
    pub stdout: String,
    /// What it wrote for people.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Output {
    /// Fails the test, with everything that was printed, unless the exit code is this one.
    #[track_caller]
    pub fn expect(&self, code: i32) -> &Self {
        assert_eq!(self.code, Some(code), "exit code\n── stdout\n{}\n── stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// Fails the test unless this text was printed, on either stream.
    #[track_caller]
    pub fn says(&self, text: &str) -> &Self {
        let said = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(said, "`{text}` was not said\n── stdout\n{}\n── stderr\n{}", self.stdout, self.stderr);
        self
    }

    /// stdout as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("no JSON: {error}\n── stdout\n{}\n── stderr\n{}", self.stdout, self.stderr))
    }
}

/// The program under test: `FLEETCTL`, else what `cargo build --release` makes.
///
/// # Errors
/// When it is not there: where it was looked for and what to do.
pub fn fleetctl() -> Result<PathBuf, String> {
    let given = env::var_os("FLEETCTL").map(PathBuf::from);
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
    let path = given.unwrap_or_else(|| target.join("release/fleetctl"));
    if path.is_file() {
        return Ok(path);
    }
    Err(format!(
        "{} is not there: build it with `cargo build --release -p fleetctl`, or name it in FLEETCTL",
        path.display()
    ))
}

/// A command that runs the program in a folder, with settings of its own below `home` and no terminal.
///
/// # Panics
/// When the program was not built.
#[must_use]
#[track_caller]
pub fn command(folder: &Path, home: &Path) -> Command {
    let mut command = Command::new(fleetctl().expect("the program under test"));
    command
        .current_dir(folder)
        .env("XDG_CONFIG_HOME", home.join("config"))
        .env("XDG_STATE_HOME", home.join("state"))
        .env("NO_COLOR", "1")
        .env_remove("FLEET_SECRET")
        .env_remove("AWS_BEARER_TOKEN_BEDROCK")
        .env_remove("CLICOLOR_FORCE")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    command
}

/// A process whose output is being read.
pub struct Running {
    child: Child,
    streams: [thread::JoinHandle<String>; 2],
    began: Instant,
}

impl Running {
    /// Starts it.
    #[must_use]
    pub fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("the program starts");
        let stdout = child.stdout.take().expect("piped");
        let stderr = child.stderr.take().expect("piped");
        Self { child, streams: [read(stdout), read(stderr)], began: Instant::now() }
    }

    /// Its process id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it a signal, as `kill -NAME` does.
    #[track_caller]
    pub fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([&format!("-{name}"), &self.id().to_string()]).status();
        assert!(sent.expect("kill runs").success(), "it had ended before SIG{name}");
    }

    /// Ends it as `kill -9` does, unless it ended by itself. True when it was still running.
    pub fn kill(&mut self) -> bool {
        let running = matches!(self.child.try_wait(), Ok(None));
        let _ = self.child.kill();
        running
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// When it takes longer than any command may.
    #[must_use]
    pub fn wait(mut self) -> Output {
        let status = self.status();
        let took = self.began.elapsed();
        let [stdout, stderr] = self.streams.map(|stream| stream.join().unwrap_or_default());
        let output = Output { code: status.and_then(|status| status.code()), stdout, stderr, took };
        assert!(status.is_some(), "it did not end within {LONGEST:?}: {output:?}");
        output
    }

    fn status(&mut self) -> Option<ExitStatus> {
        while self.began.elapsed() < LONGEST {
            if let Some(status) = self.child.try_wait().expect("a child of ours") {
                return Some(status);
            }
            thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
        None
    }
}

fn read(mut stream: impl Read + Send + 'static) -> thread::JoinHandle<String> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        // What was written before a kill counts; an error here is the end of it.
        let _ = stream.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits until something is so.
///
/// # Panics
/// When it is not within the given time.
#[track_caller]
pub fn eventually(what: &str, within: Duration, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + within;
    while !holds() {
        assert!(Instant::now() < end, "not within {within:?}: {what}");
        thread::sleep(Duration::from_millis(200));
    }
}
