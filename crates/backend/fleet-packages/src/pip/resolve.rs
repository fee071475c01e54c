//! [`resolve`]: pip's own resolver, run without installing anything, its report made our lock.

use fleet_oci::{
    Digest, Platform,
    lock::{PipLock, PipPin, normalised},
};
use serde::Deserialize;
use tokio::process::Command;

/// Minor versions of glibc that wheels are tagged with, newest first.
const GLIBC_MINORS: [u32; 14] = [41, 40, 39, 38, 36, 35, 34, 31, 28, 27, 26, 24, 17, 5];

/// Why requirements could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum PipError {
    /// There is no Python.
    #[error(
        "python3 cannot be run: {0}; `fleetctl lock` needs it with pip for images with Python packages (building does not)"
    )]
    NoPython(#[source] std::io::Error),
    /// pip says no.
    #[error("pip cannot resolve {request}:\n{output}")]
    Failed {
        /// What was asked.
        request: String,
        /// pip's last lines.
        output: String,
    },
    /// A report of another shape.
    #[error("pip's report cannot be read: {0}")]
    Malformed(String),
    /// Something that is no wheel, or has no hash.
    #[error("Python package {name} {why}; only wheels with a sha256 can be pinned")]
    NotPinnable {
        /// Project name.
        name: String,
        /// Why not.
        why: String,
    },
}

/// What is asked of a Python index.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// The image's Python, `3.11`.
    pub python: &'a str,
    /// The image's glibc, `2.36`.
    pub glibc: &'a str,
    /// For which platform.
    pub platform: Platform,
    /// Requirements, e.g. `matrix-synapse==1.163.2`.
    pub requirements: &'a [String],
}

/// All wheels that pip would install. Runs `python3 -m pip install --dry-run`; nothing is installed, no package's
/// code is run (only wheels are considered). Conditions on the Python version are judged by the Python that runs
/// pip, so a note tells when that is another one than the image's.
///
/// # Errors
/// [`PipError`].
pub async fn resolve(request: Request<'_>) -> Result<crate::debian::Resolved<PipLock>, PipError> {
    let report = run_pip(request).await?;
    let mut packages: Vec<PipPin> = report.install.into_iter().map(pin).collect::<Result<_, _>>()?;
    packages.sort();
    let mut asked = request.requirements.to_vec();
    asked.sort();
    asked.dedup();
    let mut notes = Vec::new();
    let ran_on = report.environment.python_version;
    if ran_on != request.python {
        let wanted = request.python;
        notes.push(format!(
            "pip ran on Python {ran_on}, the image has {wanted}: dependencies that only one of them needs may be wrong"
        ));
    }
    let lock = PipLock { python: request.python.to_owned(), glibc: request.glibc.to_owned(), request: asked, packages };
    Ok(crate::debian::Resolved { lock, notes })
}

async fn run_pip(request: Request<'_>) -> Result<Report, PipError> {
    let mut command = Command::new("python3");
    command.args(["-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed", "--no-input"]);
    // A dry run for another platform still wants a target; it is never written.
    command.args(["--only-binary", ":all:", "--target", "/nonexistent", "--report", "-"]);
    command.args(["--implementation", "cp", "--python-version", request.python]);
    for tag in platform_tags(request.glibc, request.platform) {
        command.args(["--platform", &tag]);
    }
    command.arg("--").args(request.requirements).kill_on_drop(true);
    let output = command.output().await.map_err(PipError::NoPython)?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        let output = lines[lines.len().saturating_sub(12)..].join("\n");
        return Err(PipError::Failed { request: request.requirements.join(" "), output });
    }
    serde_json::from_slice(&output.stdout).map_err(|error| PipError::Malformed(error.to_string()))
}

/// Wheel tags that run on this glibc, best first.
fn platform_tags(glibc: &str, platform: Platform) -> Vec<String> {
    let newest: u32 = glibc.rsplit('.').next().and_then(|minor| minor.parse().ok()).unwrap_or(17);
    let machine = platform.machine();
    let mut tags: Vec<String> = GLIBC_MINORS
        .iter()
        .filter(|minor| **minor <= newest)
        .map(|minor| format!("manylinux_2_{minor}_{machine}"))
        .collect();
    tags.extend(["2014", "2010", "1"].map(|legacy| format!("manylinux{legacy}_{machine}")));
    tags.push(format!("linux_{machine}"));
    tags
}

#[derive(Deserialize)]
struct Report {
    install: Vec<Install>,
    environment: Environment,
}

#[derive(Deserialize)]
struct Environment {
    python_version: String,
}

#[derive(Deserialize)]
struct Install {
    download_info: DownloadInfo,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct DownloadInfo {
    url: String,
    archive_info: Option<ArchiveInfo>,
}

#[derive(Deserialize)]
struct ArchiveInfo {
    hashes: Option<Hashes>,
}

#[derive(Deserialize)]
struct Hashes {
    sha256: Option<String>,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    version: String,
}

fn pin(install: Install) -> Result<PipPin, PipError> {
    let name = normalised(&install.metadata.name);
    let refused = |why: &str| PipError::NotPinnable { name: name.clone(), why: why.to_owned() };
    let path = install.download_info.url.split(['#', '?']).next().unwrap_or_default().to_owned();
    let filename = path.rsplit('/').next().unwrap_or_default().replace("%2B", "+");
    if !filename.ends_with(".whl") {
        return Err(refused("is not a wheel"));
    }
    let hashes = install.download_info.archive_info.and_then(|info| info.hashes);
    let sha256 = hashes.and_then(|hashes| hashes.sha256).ok_or_else(|| refused("has no sha256"))?;
    let sha256 = Digest::from_sha256_hex(&sha256).map_err(|_| refused("has no sha256"))?;
    Ok(PipPin { version: install.metadata.version, filename, sha256, name })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_wheel_is_taken_that_needs_a_newer_glibc() {
        let tags = platform_tags("2.36", Platform::LinuxArm64);
        assert_eq!(tags[0], "manylinux_2_36_aarch64");
        assert!(tags.contains(&"manylinux2014_aarch64".to_owned()));
        assert!(!tags.iter().any(|tag| tag.contains("_2_38_")));
    }
}
