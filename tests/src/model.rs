//! [`Model`]: a scripted model that agents in containers can ask.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{run::eventually, sources::workspace};

/// A scripted model, reachable from containers. It ends with this value.
pub struct Model {
    process: Child,
    folder: TempDir,
    /// Where it listens, on all addresses of this machine.
    pub port: u16,
}

impl Model {
    /// Starts it with rules of `tests/fixtures/model-server`.
    ///
    /// # Panics
    /// When it does not start.
    #[must_use]
    pub fn start(script: &str) -> Self {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("script.json"), script).expect("a script");
        let process = Command::new("python3")
            .arg(workspace().join("tests/fixtures/model-server/server.py"))
            .args(["--host", "0.0.0.0", "--port", "0", "--script"])
            .arg(at("script.json"))
            .arg("--log")
            .arg(at("log"))
            .arg("--port-file")
            .arg(at("port"))
            .stdout(Stdio::null())
            .spawn()
            .expect("python3 runs the scripted model");
        let port = || read_port(&at("port"));
        eventually("the scripted model listens", Duration::from_secs(120), || port().is_some());
        let port = port().expect("a port");
        Self { process, folder, port }
    }

    /// How many answers it was asked for.
    #[must_use]
    pub fn asked(&self) -> usize {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default().lines().count()
    }
}

fn read_port(file: &Path) -> Option<u16> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
