//! Debian's `docker-registry` as a process of one test.

#![allow(dead_code, reason = "shared by several test binaries")]

use std::{
    fs::{self, File},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use fleet_sim::free_port;

pub const USER: &str = "joe";
pub const PASSWORD: &str = "correct horse battery";

/// A registry that keeps its images in a folder of its own; gone with the value.
pub struct DockerRegistry {
    pub host: String,
    pub folder: tempfile::TempDir,
    running: Option<Child>,
}

/// A request in the registry's own log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Logged {
    /// `PUT /v2/a/manifests/b`
    pub request: String,
    pub status: u16,
}

impl DockerRegistry {
    /// Wants a password.
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let htpasswd = folder.path().join("htpasswd");
        let made = Command::new("htpasswd").args(["-Bbn", USER, PASSWORD]).output().expect("htpasswd is installed");
        assert!(made.status.success());
        fs::write(&htpasswd, made.stdout).unwrap();
        Self::with(folder, &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}", htpasswd.display()), "")
    }

    /// Open to strangers.
    pub fn open() -> Self {
        Self::with(tempfile::tempdir().unwrap(), "", "")
    }

    /// With more settings: a line of its own, and more in its `http` section.
    pub fn with(folder: tempfile::TempDir, auth: &str, http: &str) -> Self {
        Self::at("127.0.0.1", folder, (auth, http))
    }

    /// On another address of this machine.
    pub fn at(address: &str, folder: tempfile::TempDir, (auth, http): (&str, &str)) -> Self {
        let host = format!("{address}:{}", free_port());
        let images = folder.path().join("images");
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: false}}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}, delete: {{enabled: true}}}}\n\
             http: {{addr: '{host}', secret: test{http}}}\n{auth}\n",
            images.display()
        );
        fs::write(folder.path().join("config.yml"), config).unwrap();
        let mut registry = Self { host, folder, running: None };
        registry.start_again();
        registry
    }

    pub fn start_again(&mut self) {
        let log = File::options().create(true).append(true).open(self.log_file()).unwrap();
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(self.folder.path().join("config.yml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .expect("docker-registry is installed");
        self.running = Some(child);
        let start = Instant::now();
        while TcpStream::connect(&self.host).is_err() {
            assert!(start.elapsed() < Duration::from_secs(60), "the registry does not start: {}", self.log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.running.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Leaves a file of a repository empty, as a kill between making and writing it does.
    pub fn tear(&self, repository: &str, file: &str) {
        let folder = self.folder.path().join("images/docker/registry/v2/repositories").join(repository);
        File::options().write(true).truncate(true).open(folder.join(file)).expect("a file of the repository");
    }

    pub fn pid(&self) -> u32 {
        self.running.as_ref().unwrap().id()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap()
    }

    /// What it was asked so far, in its own words.
    pub fn asked(&self) -> Vec<Logged> {
        let log = self.log();
        let lines = log.lines().filter_map(|line| {
            let (_, rest) = line.split_once("] \"")?;
            // Over TLS it is spoken to by HTTP/2.
            let (request, rest) = rest.split_once(" HTTP/1.1\" ").or_else(|| rest.split_once(" HTTP/2.0\" "))?;
            Some(Logged { request: request.to_owned(), status: rest.split(' ').next()?.parse().ok()? })
        });
        lines.collect()
    }

    /// How often a request that contains both was answered so.
    pub fn count(&self, method: &str, part: &str, status: u16) -> usize {
        let fits = |logged: &&Logged| {
            logged.request.starts_with(method) && logged.request.contains(part) && logged.status == status
        };
        self.asked().iter().filter(fits).count()
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        self.kill();
    }
}
