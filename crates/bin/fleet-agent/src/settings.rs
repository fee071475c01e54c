//! [`Settings`]: what `fleetctl` tells an agent in `/fleet/agent.json`, checked at the start.
//!
//! Deliberately absent: secrets (files of their own, see [`crate::secrets`]) and anything about other agents.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::Deserialize;

/// Where the settings are unless the command line says otherwise.
pub const DEFAULT_PATH: &str = "/fleet/agent.json";

/// The version of the document that this program reads.
const SCHEMA: u32 = 1;

/// The contents of `/fleet/agent.json`; `docs/reference/agent-runtime.md` describes every field.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Version of this document: 1.
    pub schema: u32,
    /// `@aaron.phillips:anycompany.corp`.
    pub matrix_id: String,
    /// The homeserver's base URL, plain HTTP within the fleet's network.
    pub homeserver: String,
    /// The one device that this agent ever logs in on.
    #[serde(default = "device_id")]
    pub device_id: String,
    /// Register the account when the homeserver does not know it.
    #[serde(default)]
    pub register: bool,
    /// Aliases or ids of rooms to join beside those that invite the agent.
    #[serde(default)]
    pub rooms: Vec<String>,
    /// How to start the gateway: an absolute path and its arguments.
    pub command: Vec<String>,
    /// The agent's workspace: generated files and memory.
    #[serde(default = "workspace_dir")]
    pub workspace_dir: PathBuf,
    /// OpenClaw's own state.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// This program's own files on the agent's volume.
    #[serde(default = "data_dir")]
    pub data_dir: PathBuf,
    /// The rendered workspace.
    #[serde(default = "bundle_dir")]
    pub bundle_dir: PathBuf,
    /// Secret files: `password` and those of `env_secrets`.
    #[serde(default = "secrets_dir")]
    pub secrets_dir: PathBuf,
    /// The org directory's volume.
    #[serde(default = "directory")]
    pub directory: PathBuf,
    /// User that OpenClaw runs as.
    #[serde(default = "agent_id")]
    pub uid: u32,
    /// Group that OpenClaw runs as.
    #[serde(default = "agent_id")]
    pub gid: u32,
    /// Port of OpenClaw's gateway, loopback.
    #[serde(default = "gateway_port")]
    pub gateway_port: u16,
    /// Port of `GET /health`, loopback.
    #[serde(default = "health_port")]
    pub health_port: u16,
    /// Port of `POST /people`, loopback.
    #[serde(default = "tool_port")]
    pub tool_port: u16,
    /// Names of files in `secrets_dir` that OpenClaw gets as environment variables of the same name.
    #[serde(default)]
    pub env_secrets: Vec<String>,
    /// Base URLs of model servers, looked at now and then and reported; nothing depends on the answer.
    #[serde(default)]
    pub model_endpoints: Vec<String>,
    /// Models of Amazon Bedrock by the task's role; on AWS only.
    #[serde(default)]
    pub bedrock: Option<Bedrock>,
    /// Seconds between SIGTERM and SIGKILL for OpenClaw. Less than the engine's own grace period.
    #[serde(default = "grace_seconds")]
    pub grace_seconds: u64,
}

/// Where OpenClaw asks Amazon Bedrock, through us.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bedrock {
    /// Port, loopback.
    pub port: u16,
    /// Regions whose models may be asked.
    pub regions: BTreeSet<String>,
}

fn device_id() -> String {
    "FLEETAGENT".to_owned()
}
fn workspace_dir() -> PathBuf {
    "/data/workspace".into()
}
fn state_dir() -> PathBuf {
    "/data/state".into()
}
fn data_dir() -> PathBuf {
    "/data/fleet".into()
}
fn bundle_dir() -> PathBuf {
    "/fleet/bundle".into()
}
fn secrets_dir() -> PathBuf {
    "/fleet/secrets".into()
}
fn directory() -> PathBuf {
    "/fleet/directory".into()
}
const fn agent_id() -> u32 {
    1000
}
const fn gateway_port() -> u16 {
    20206
}
const fn tool_port() -> u16 {
    20207
}
const fn health_port() -> u16 {
    20208
}
const fn grace_seconds() -> u64 {
    20
}

/// Why an agent cannot start with what it was given. Each message names the file and the remedy.
#[derive(Debug, thiserror::Error)]
pub enum InputError {
    /// A file is not there or cannot be read.
    #[error("{what} is missing: {path} cannot be read ({why}); `fleetctl apply` puts it there")]
    Missing {
        /// What it is for.
        what: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// The system's words.
        why: String,
    },
    /// What the task definition names did not come.
    #[error("the files of this agent were not delivered: {what}: {why}")]
    Undelivered {
        /// Where they should come from.
        what: String,
        /// Why not.
        why: String,
    },
    /// A file is there and wrong.
    #[error("{path} is not usable: {why}")]
    Wrong {
        /// Which file.
        path: PathBuf,
        /// What is wrong, and what to do.
        why: String,
    },
}

impl InputError {
    /// [`InputError::Wrong`] with anything that can be shown.
    pub fn wrong(path: &Path, why: impl std::fmt::Display) -> Self {
        Self::Wrong { path: path.to_owned(), why: why.to_string() }
    }
}

impl Settings {
    /// Reads and checks the document.
    ///
    /// # Errors
    /// [`InputError`] for the first thing that is wrong.
    pub fn read(path: &Path) -> Result<Self, InputError> {
        let text = std::fs::read_to_string(path).map_err(|e| InputError::Missing {
            what: "the document with the agent's settings",
            path: path.to_owned(),
            why: e.to_string(),
        })?;
        Self::parse(&text).map_err(|why| InputError::wrong(path, why))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let settings: Self = serde_json::from_str(text).map_err(|e| e.to_string())?;
        if settings.schema != SCHEMA {
            return Err(format!(
                "schema {} is not {SCHEMA}: fleetctl and the agent image are of different versions",
                settings.schema
            ));
        }
        let id = &settings.matrix_id;
        if !id.starts_with('@') || !id.contains(':') {
            return Err(format!("matrix_id {id:?} is not of the form @name:domain"));
        }
        let host = settings.homeserver.strip_prefix("http://").unwrap_or_default();
        if host.is_empty() {
            return Err(format!(
                "homeserver {:?} is not a plain http:// URL; inside the fleet's network there is no TLS",
                settings.homeserver
            ));
        }
        if settings.command.first().is_none_or(|program| !program.starts_with('/')) {
            return Err("command must begin with the absolute path of a program".to_owned());
        }
        if settings.uid == 0 {
            return Err("uid 0: OpenClaw must not run as root".to_owned());
        }
        let plain = |region: &str| {
            region.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        };
        let regions = settings.bedrock.iter().flat_map(|models| &models.regions);
        if let Some(region) = regions.into_iter().find(|region| region.is_empty() || !plain(region)) {
            return Err(format!("bedrock: {region:?} is not the name of a region"));
        }
        if let Some(name) = settings.env_secrets.iter().find(|name| !is_variable(name)) {
            return Err(format!("env_secrets: {name:?} is not the name of an environment variable"));
        }
        Ok(settings)
    }
}

fn is_variable(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || c == '_';
    !name.is_empty() && name.chars().all(plain) && !name.starts_with(|c: char| c.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str =
        r#"{"schema":1,"matrix_id":"@a:b.c","homeserver":"http://homeserver:6167","command":["/bin/true"]}"#;

    #[test]
    fn a_minimal_document_gets_the_defaults_of_the_image() {
        let settings = Settings::parse(MINIMAL).unwrap();
        assert_eq!((settings.uid, settings.tool_port), (1000, 20207));
        assert_eq!(settings.workspace_dir, Path::new("/data/workspace"));
    }

    #[test]
    fn each_mistake_is_named_with_its_value() {
        for (from, to, expected) in [
            (r#""schema":1"#, r#""schema":2"#, "schema 2"),
            ("@a:b.c", "a", "matrix_id \"a\""),
            ("http://homeserver:6167", "https://homeserver", "plain http"),
            ("/bin/true", "true", "absolute path"),
            (r#""schema":1"#, r#""schema":1,"uid":0"#, "root"),
            (r#""schema":1"#, r#""schema":1,"env_secrets":["A B"]"#, "\"A B\""),
            (r#""schema":1"#, r#""schema":1,"colour":"red""#, "colour"),
            (r#""schema":1"#, r#""schema":1,"bedrock":{"port":1,"regions":["a.b"]}"#, "\"a.b\""),
        ] {
            let error = Settings::parse(&MINIMAL.replace(from, to)).unwrap_err();
            assert!(error.contains(expected), "{error}");
        }
    }
}
