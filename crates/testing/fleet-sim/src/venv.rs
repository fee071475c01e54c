//! Python programs that tests run for real, each in an environment of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where tests keep what is installed once per machine: `FLEET_TEST_HOME`, or a folder of the user's cache.
fn home() -> PathBuf {
    match std::env::var_os("FLEET_TEST_HOME") {
        Some(home) => PathBuf::from(home),
        None => PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache/fleet-tests"),
    }
}

/// The folder of programs of a Python environment with pinned packages in it, for instance
/// `venv("synapse", "matrix-synapse==1.163.2")`; several are separated by spaces. Installed once per machine; test programs wait for one another.
///
/// # Panics
/// When it cannot be installed, with what is missing.
#[must_use]
pub fn venv(name: &str, requirement: &str) -> PathBuf {
    let place = home().join("venv").join(name);
    let need = |what: &str, done: std::io::Result<()>| {
        if let Err(error) = done {
            panic!("needed for this test: {what}: {error}");
        }
    };
    need("a folder for Python environments", fs::create_dir_all(&place));
    let lock = fs::File::create(place.with_extension("lock"));
    need("a lock beside it", lock.as_ref().map(drop).map_err(|error| std::io::Error::other(error.to_string())));
    if let Ok(lock) = &lock {
        need("the lock", lock.lock());
    }
    let complete = place.join(format!(".{requirement}"));
    if !complete.exists() {
        run(
            "python3 with its venv module (apt-get install python3-venv)",
            Command::new("python3").args(["-m", "venv"]).arg(&place),
        );
        let install = ["install", "--quiet", "--disable-pip-version-check"].into_iter().chain(requirement.split(' '));
        run("pip and its package index", Command::new(place.join("bin/pip")).args(install));
        need("a mark that it is complete", fs::write(&complete, ""));
    }
    Path::join(&place, "bin")
}

fn run(what: &str, command: &mut Command) {
    match command.output() {
        Ok(output) if output.status.success() => {}
        Ok(output) => panic!("needed for this test: {what}: {}", String::from_utf8_lossy(&output.stderr)),
        Err(error) => panic!("needed for this test: {what}: {error}"),
    }
}
