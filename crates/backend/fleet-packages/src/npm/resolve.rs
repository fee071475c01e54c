//! [`resolve`]: npm's own resolver, run without installing anything, its lock file made ours.

use std::{collections::BTreeMap, path::Path};

use fleet_oci::{
    Digest,
    lock::{NpmLock, NpmPin, Unpack},
};
use serde::Deserialize;
use serde_json::Value;
use tokio::process::Command;

use super::document;
use crate::{fetch::FetchError, pinned::Pinned as _, realize::Workshop};

/// Why packages could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum NpmError {
    /// There is no npm.
    #[error("npm cannot be run: {0}; `fleetctl lock` needs it for images with npm packages (building does not)")]
    NoNpm(#[source] std::io::Error),
    /// npm says no.
    #[error("npm cannot resolve {request}:\n{output}")]
    Failed {
        /// What was asked.
        request: String,
        /// npm's last lines.
        output: String,
    },
    /// A lock file of another shape.
    #[error("npm's lock file cannot be read: {0}")]
    Malformed(String),
    /// A package that does not come from a registry.
    #[error("npm package {path} {why}; only registry packages with a sha512 can be pinned")]
    NotPinnable {
        /// Where in the tree.
        path: String,
        /// Why not.
        why: String,
    },
    /// The registry.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// The temporary folder.
    #[error("a temporary folder cannot be used: {0}")]
    Io(#[from] std::io::Error),
}

/// The whole tree that npm would install for these exact versions, for every platform at once, and the tarballs of
/// `unpack` beside it.
/// Runs `npm install --package-lock-only --ignore-scripts` in a temporary folder; no package's code is run.
///
/// # Errors
/// [`NpmError`].
pub async fn resolve(
    workshop: &Workshop,
    request: &BTreeMap<String, String>,
    unpack: &BTreeMap<String, Unpack>,
) -> Result<NpmLock, NpmError> {
    let mut packages = if request.is_empty() { Vec::new() } else { resolve_tree(request).await? };
    for (name, Unpack { version, at }) in unpack {
        let document = document(workshop, name, version).await?;
        let pin = NpmPin {
            path: at.clone(),
            name: name.clone(),
            version: version.clone(),
            integrity: document.dist.integrity,
            engines: texts(&document.engines),
            ..NpmPin::default()
        };
        pin.digest().map_err(|_| NpmError::NotPinnable { path: at.clone(), why: "has no sha512".to_owned() })?;
        packages.push(pin);
    }
    packages.sort();
    Ok(NpmLock { request: request.clone(), unpack: unpack.clone(), packages })
}

async fn resolve_tree(request: &BTreeMap<String, String>) -> Result<Vec<NpmPin>, NpmError> {
    let folder = tempfile::tempdir()?;
    let manifest = serde_json::json!({ "name": "fleet", "private": true, "dependencies": request });
    tokio::fs::write(folder.path().join("package.json"), manifest.to_string()).await?;
    run_npm(folder.path(), request).await?;
    let text = tokio::fs::read(folder.path().join("package-lock.json")).await?;
    pins(&text)
}

async fn run_npm(folder: &Path, request: &BTreeMap<String, String>) -> Result<(), NpmError> {
    const ARGUMENTS: [&str; 8] = [
        "install",
        "--package-lock-only",
        "--ignore-scripts",
        "--omit=dev",
        "--no-audit",
        "--no-fund",
        "--no-progress",
        "--lockfile-version=3",
    ];
    let run = Command::new("npm").args(ARGUMENTS).current_dir(folder).kill_on_drop(true).output();
    let output = run.await.map_err(NpmError::NoNpm)?;
    if output.status.success() {
        return Ok(());
    }
    let request: Vec<String> = request.iter().map(|(name, version)| format!("{name}@{version}")).collect();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(NpmError::Failed { request: request.join(" "), output: last_lines(&text) })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// package-lock.json, version 3.
#[derive(Deserialize)]
struct PackageLock {
    packages: BTreeMap<String, Entry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    name: Option<String>,
    version: Option<String>,
    integrity: Option<String>,
    resolved: Option<String>,
    #[serde(default)]
    bin: Value,
    #[serde(default)]
    os: Vec<String>,
    #[serde(default)]
    cpu: Vec<String>,
    #[serde(default)]
    libc: Vec<String>,
    #[serde(default)]
    optional: bool,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    link: bool,
    #[serde(default)]
    in_bundle: bool,
    #[serde(default)]
    has_install_script: bool,
    #[serde(default)]
    engines: Value,
}

fn pins(text: &[u8]) -> Result<Vec<NpmPin>, NpmError> {
    let lock: PackageLock = serde_json::from_slice(text).map_err(|error| NpmError::Malformed(error.to_string()))?;
    let mut pins = Vec::new();
    for (path, entry) in lock.packages {
        // The root, what is only for development, and what lies in another package's tarball.
        if path.is_empty() || entry.dev || entry.in_bundle {
            continue;
        }
        pins.push(pin(path, entry)?);
    }
    Ok(pins)
}

fn pin(path: String, entry: Entry) -> Result<NpmPin, NpmError> {
    let refused = |why: &str| NpmError::NotPinnable { path: path.clone(), why: why.to_owned() };
    if entry.link {
        return Err(refused("is a link to a folder"));
    }
    if let Some(resolved) = entry.resolved.filter(|from| !from.starts_with("http")) {
        return Err(refused(&format!("comes from {resolved}")));
    }
    let integrity = entry.integrity.ok_or_else(|| refused("has no integrity"))?;
    Digest::from_integrity(&integrity).map_err(|_| refused("has no sha512"))?;
    let own_name = || path.rsplit("node_modules/").next().unwrap_or_default().to_owned();
    Ok(NpmPin {
        name: entry.name.unwrap_or_else(own_name),
        version: entry.version.ok_or_else(|| refused("has no version"))?,
        integrity,
        bin: texts(&entry.bin),
        os: entry.os,
        cpu: entry.cpu,
        libc: entry.libc,
        optional: entry.optional,
        has_install_script: entry.has_install_script,
        engines: texts(&entry.engines),
        path,
    })
}

/// An object's text values; old packages write arrays there, which say nothing we need.
fn texts(value: &Value) -> BTreeMap<String, String> {
    let fields = value.as_object().into_iter().flatten();
    fields.filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHA512: &str =
        "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==";

    fn read(entry: &str) -> Result<Vec<NpmPin>, NpmError> {
        pins(format!(r#"{{"packages":{{"":{{"name":"fleet"}},{entry}}}}}"#).as_bytes())
    }

    #[test]
    fn a_nested_alias_keeps_its_real_name() {
        let entry = format!(
            r#""node_modules/a/node_modules/@s/b":{{"name":"real","version":"1.0.0","integrity":"{SHA512}","engines":["node"],"bin":{{"b":"b.js"}}}}"#
        );
        let pins = read(&entry).unwrap();
        assert_eq!((pins[0].name.as_str(), pins[0].path.as_str()), ("real", "node_modules/a/node_modules/@s/b"));
        assert_eq!(pins[0].bin["b"], "b.js");
    }

    #[test]
    fn what_does_not_come_from_a_registry_is_refused_by_name() {
        for entry in [
            r#""node_modules/a":{"version":"1.0.0","resolved":"git+ssh://host/a.git"}"#,
            r#""node_modules/a":{"version":"1.0.0","integrity":"sha1-qZk+NkcGgWq6PiVxeFDCbJzQ2J0="}"#,
            r#""node_modules/a":{"link":true,"resolved":"../a"}"#,
        ] {
            assert!(read(entry).unwrap_err().to_string().contains("node_modules/a"), "{entry}");
        }
    }
}
