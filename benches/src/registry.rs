//! [`Registry`]: Debian's docker-registry on loopback, with its requests counted.

use std::{
    fs::{self, File},
    net::TcpStream,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};

/// A registry that is stopped, and its folder left to the caller, when dropped.
pub struct Registry {
    /// `127.0.0.1:12345`
    pub host: String,
    log: PathBuf,
    child: Child,
}

impl Registry {
    /// Starts one that keeps everything below `folder`.
    ///
    /// # Errors
    /// When docker-registry is not installed or does not answer.
    pub fn start(folder: &Path) -> anyhow::Result<Self> {
        fs::create_dir_all(folder)?;
        let host = format!("127.0.0.1:{}", fleet_sim::free_port());
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog:\n  level: error\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            folder.join("data").display()
        );
        fs::write(&config, text)?;
        let log = folder.join("log");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(File::create(&log)?)
            .stderr(Stdio::null())
            .spawn()
            .context("docker-registry is not installed: apt-get install docker-registry")?;
        let registry = Self { host, log, child };
        let start = Instant::now();
        while TcpStream::connect(&registry.host).is_err() {
            ensure!(start.elapsed() < Duration::from_secs(30), "docker-registry does not answer after 30 s");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(registry)
    }

    /// Requests so far, from its access log.
    #[must_use]
    pub fn requests(&self) -> usize {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        text.lines().filter(|line| line.contains(" /v2/") && line.contains("HTTP/1.1\"")).count()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
