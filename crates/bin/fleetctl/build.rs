//! Hashes what this program is compiled from, so that it can say so itself: the manager's image derives from that, and two
//! checkouts of the same sources agree on it.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use sha2::{Digest, Sha256};

/// Relative to the checkout.
const SOURCES: [&str; 11] = [
    "Cargo.lock",
    "Cargo.toml",
    "crates/apply",
    "crates/backend",
    "crates/bin/fleetctl",
    "crates/graph",
    "crates/model",
    "crates/plan",
    "images/agent/plugins",
    "images/homeserver",
    "templates",
];
/// Folders whose files are in no program.
const ELSEWHERE: [&str; 3] = ["golden", "target", "tests"];
/// What else the compiler is told.
const SETTINGS: [&str; 4] = ["CARGO_ENCODED_RUSTFLAGS", "OPT_LEVEL", "PROFILE", "TARGET"];

fn main() {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let mut files = Vec::new();
    for source in SOURCES {
        walk(&checkout.join(source), &mut files);
    }
    files.sort();
    let mut all = Sha256::new();
    let mut add = |part: &[u8]| {
        all.update((part.len() as u64).to_le_bytes());
        all.update(part);
    };
    for file in files {
        println!("cargo::rerun-if-changed={}", file.display());
        let name = file.strip_prefix(&checkout).unwrap_or(&file);
        add(name.to_string_lossy().as_bytes());
        add(&fs::read(&file).unwrap_or_default());
    }
    for setting in SETTINGS {
        println!("cargo::rerun-if-env-changed={setting}");
        add(env::var(setting).unwrap_or_default().as_bytes());
    }
    let rustc = env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let version = Command::new(rustc).arg("-vV").output();
    add(&version.map(|output| output.stdout).unwrap_or_default());
    let hash: String = all.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=FLEETCTL_SOURCES={hash}");
    // At a fixed address nothing has to be relocated when it starts: docs/decisions/0029-cheap-to-start.md.
    let target = |what| env::var(format!("CARGO_CFG_TARGET_{what}")).unwrap_or_default();
    if target("OS") == "linux" && target("ENV") == "gnu" {
        println!("cargo::rustc-link-arg-bins=-no-pie");
    }
}

fn walk(at: &Path, files: &mut Vec<PathBuf>) {
    if at.is_file() {
        files.push(at.to_owned());
        return;
    }
    // A new file changes its folder.
    if at.file_name().is_some_and(|name| name == "src") {
        println!("cargo::rerun-if-changed={}", at.display());
    }
    for entry in fs::read_dir(at).into_iter().flatten().flatten() {
        let elsewhere = ELSEWHERE.iter().any(|name| entry.file_name() == *name);
        if !elsewhere {
            walk(&entry.path(), files);
        }
    }
}
