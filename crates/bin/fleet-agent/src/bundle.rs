//! [`Bundle`]: the rendered workspace as `fleetctl` delivered it, checked against its manifest.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::settings::InputError;

const SCHEMA: u32 = 1;

/// Names at the top of a workspace that belong to the agent: no bundle may write there.
const MEMORY: [&str; 3] = ["MEMORY.md", "memory", "USER.md"];

/// Generated files and OpenClaw's configuration.
#[derive(Debug)]
pub struct Bundle {
    /// Generated files in path order.
    pub files: Vec<Generated>,
    /// `openclaw.json` without tokens.
    pub configuration: Value,
}

/// One generated file.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Path below the workspace, `/` between its parts.
    pub path: String,
    /// What it holds.
    pub bytes: Vec<u8>,
    /// SHA-256 of `bytes`, lower-case hex.
    pub sha256: String,
    /// Permission bits.
    pub mode: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    schema: u32,
    files: Vec<Listed>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    path: String,
    sha256: String,
    #[serde(default = "readable")]
    mode: u32,
}

const fn readable() -> u32 {
    0o644
}

/// SHA-256 in lower-case hex.
pub fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

impl Bundle {
    /// Reads `manifest.json`, `files/…` and `openclaw.json` below `folder`.
    ///
    /// # Errors
    /// [`InputError`] when one is missing, differs from the manifest, or would touch the agent's memory.
    pub fn read(folder: &Path) -> Result<Self, InputError> {
        let manifest_path = folder.join("manifest.json");
        let manifest: Manifest = parse(&manifest_path, "the workspace's manifest")?;
        if manifest.schema != SCHEMA {
            return Err(InputError::wrong(&manifest_path, format!("schema {} is not {SCHEMA}", manifest.schema)));
        }
        let mut seen = BTreeSet::new();
        let mut files = Vec::new();
        for listed in manifest.files {
            check_path(&listed.path).map_err(|why| InputError::wrong(&manifest_path, why))?;
            if !seen.insert(listed.path.clone()) {
                return Err(InputError::wrong(&manifest_path, format!("{} is listed twice", listed.path)));
            }
            files.push(generated(folder, listed)?);
        }
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let configuration: Value = parse(&folder.join("openclaw.json"), "OpenClaw's configuration")?;
        if !configuration.is_object() {
            return Err(InputError::wrong(&folder.join("openclaw.json"), "it is not a JSON object"));
        }
        Ok(Self { files, configuration })
    }
}

fn bytes(path: &Path, what: &'static str) -> Result<Vec<u8>, InputError> {
    fs::read(path).map_err(|e| InputError::Missing { what, path: path.to_owned(), why: e.to_string() })
}

fn parse<T: serde::de::DeserializeOwned>(path: &Path, what: &'static str) -> Result<T, InputError> {
    serde_json::from_slice(&bytes(path, what)?).map_err(|e| InputError::wrong(path, e))
}

fn generated(folder: &Path, listed: Listed) -> Result<Generated, InputError> {
    let path: PathBuf = folder.join("files").join(&listed.path);
    let bytes = bytes(&path, "a generated file")?;
    let sha256 = sha256(&bytes);
    if sha256 != listed.sha256 {
        return Err(InputError::wrong(&path, "it is not what the manifest says; run `fleetctl apply` again"));
    }
    Ok(Generated { path: listed.path, bytes, sha256, mode: listed.mode })
}

fn check_path(path: &str) -> Result<(), String> {
    let parts: Vec<&str> = path.split('/').collect();
    if parts.iter().any(|part| part.is_empty() || *part == "." || *part == ".." || part.contains('\0')) {
        return Err(format!("{path:?} is not a plain relative path"));
    }
    if parts.first().is_some_and(|top| MEMORY.iter().any(|memory| memory.eq_ignore_ascii_case(top))) {
        return Err(format!("{path} belongs to the agent's memory; nothing generated may be written there"));
    }
    Ok(())
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A bundle of the given files, for tests of what uses one.
    pub fn bundle(files: &[(&str, &str)]) -> Bundle {
        let made = |(path, text): &(&str, &str)| Generated {
            path: (*path).to_owned(),
            bytes: text.as_bytes().to_vec(),
            sha256: sha256(text.as_bytes()),
            mode: 0o644,
        };
        Bundle { files: files.iter().map(made).collect(), configuration: serde_json::json!({}) }
    }

    fn delivered(manifest: &str, soul: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("files")).unwrap();
        fs::write(folder.path().join("files/SOUL.md"), soul).unwrap();
        fs::write(folder.path().join("manifest.json"), manifest).unwrap();
        fs::write(folder.path().join("openclaw.json"), "{}").unwrap();
        folder
    }

    fn listing(path: &str, text: &str) -> String {
        format!(r#"{{"schema":1,"files":[{{"path":"{path}","sha256":"{}","mode":420}}]}}"#, sha256(text.as_bytes()))
    }

    #[test]
    fn a_bundle_is_what_its_manifest_says() {
        let folder = delivered(&listing("SOUL.md", "kind"), "kind");
        let bundle = Bundle::read(folder.path()).unwrap();
        assert_eq!((bundle.files[0].path.as_str(), bundle.files[0].mode), ("SOUL.md", 0o644));
        let folder = delivered(&listing("SOUL.md", "kind"), "kin");
        assert!(Bundle::read(folder.path()).unwrap_err().to_string().contains("fleetctl apply"));
    }

    #[test]
    fn a_bundle_that_would_touch_memory_or_leave_the_workspace_is_refused() {
        for path in
            ["MEMORY.md", "memory/2026-11-21.md", "Memory/x", "USER.md", "../SOUL.md", "/SOUL.md", "a//b", "a/./b"]
        {
            let folder = delivered(&listing(path, "kind"), "kind");
            assert!(matches!(Bundle::read(folder.path()), Err(InputError::Wrong { .. })), "{path}");
        }
    }

    #[test]
    fn a_missing_manifest_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let error = Bundle::read(folder.path()).unwrap_err().to_string();
        assert!(error.contains("manifest.json") && error.contains("fleetctl apply"), "{error}");
    }
}
