//! [`take`]: what ECS cannot put into a container as files comes as variables and as one object, and becomes the same files
//! as on any other target, before anything reads them.
//!
//! `FLEET_BUNDLE` and `FLEET_BUNDLE_HASH` name the settings and the workspace; `FLEET_FILE_<name>` is the secret file of that
//! name. With `FLEET_SECRET`, the fleet secret, the password is derived from it here. Only this program sees them: OpenClaw runs as
//! another user and gets none of our environment.

use std::{
    collections::BTreeMap,
    fs,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Component, Path},
    time::Duration,
};

use fleet_secret::{FleetSecret, Secret};
use serde::Deserialize;

use crate::{
    aws::{Object, Place},
    log,
    settings::{InputError, Settings},
};

const SCHEMA: u32 = 1;
/// What variables begin with that hold secret files.
const FILE_VARIABLE: &str = "FLEET_FILE_";
/// The fleet secret, where agents get it; and the epoch of the password, the first one where it is not said.
const FLEET_SECRET: &str = "FLEET_SECRET";
const PASSWORD_EPOCH: &str = "FLEET_PASSWORD_EPOCH";
/// What a parameter holds whose secret the operator has not given: none can be empty.
const NOT_GIVEN: &str = "unset";
/// Attempts to read the bundle, and the first pause between two, which doubles: a task's network and role may be late.
const TRIES: u32 = 6;
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// `{"schema":1,"files":{"agent.json":"…"}}`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    schema: u32,
    files: BTreeMap<String, String>,
}

/// Writes what was delivered below `folder`; nothing where nothing was, as on other targets.
///
/// # Errors
/// [`InputError`] when it is not there, is not what the task definition names, or cannot be written.
pub async fn take(folder: &Path) -> Result<(), InputError> {
    let Some(url) = variable("FLEET_BUNDLE") else { return Ok(()) };
    let wrong = |why: &str| InputError::Undelivered { what: url.clone(), why: why.to_owned() };
    let object = Object::parse(&url).ok_or_else(|| wrong("it is not s3://BUCKET/KEY"))?;
    let hash = variable("FLEET_BUNDLE_HASH").ok_or_else(|| wrong("FLEET_BUNDLE_HASH is not set"))?;
    let place = Place::of(variable).map_err(wrong)?;
    let bytes = fetch(&place, &object).await.map_err(|why| wrong(&why))?;
    if blake3::hash(&bytes).to_hex().as_str() != hash {
        return Err(wrong("it is not what the task definition names; run `fleetctl apply` again"));
    }
    let document: Document = serde_json::from_slice(&bytes).map_err(|error| wrong(&error.to_string()))?;
    if document.schema != SCHEMA {
        return Err(wrong(&format!(
            "schema {} is not {SCHEMA}: fleetctl and the agent image are of different versions",
            document.schema
        )));
    }
    for (path, text) in &document.files {
        if !is_below(path) {
            return Err(wrong(&format!("{path:?} is not a plain relative path")));
        }
        write(&folder.join(path), text.as_bytes(), 0o444)?;
    }
    let mut secrets = write_secrets(&folder.join("secrets"))?;
    secrets += usize::from(derive_password(folder)?);
    log::info("files delivered", &[("bundle", &hash), ("files", &document.files.len()), ("secrets", &secrets)]);
    Ok(())
}

/// A variable that says something.
pub fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

async fn fetch(place: &Place, object: &Object) -> Result<Vec<u8>, String> {
    let mut pause = FIRST_PAUSE;
    for _ in 1..TRIES {
        match place.read(object).await {
            Ok(bytes) => return Ok(bytes),
            Err(why) => log::warn("the files of this agent cannot be fetched yet", &[("why", &why)]),
        }
        tokio::time::sleep(pause).await;
        pause *= 2;
    }
    place.read(object).await
}

/// Makes a file of each secret; an empty one of what was not given. Returns how many.
fn write_secrets(folder: &Path) -> Result<usize, InputError> {
    let mut written = 0;
    for (name, value) in std::env::vars() {
        let Some(name) = name.strip_prefix(FILE_VARIABLE).filter(|name| is_below(name) && !name.contains('/')) else {
            continue;
        };
        let value = if value == NOT_GIVEN { "" } else { &value };
        write(&folder.join(name), value.as_bytes(), 0o400)?;
        written += 1;
    }
    Ok(written)
}

/// Makes the file of the password from the fleet secret, where that came; returns whether it did.
fn derive_password(folder: &Path) -> Result<bool, InputError> {
    let Some(value) = variable(FLEET_SECRET) else { return Ok(false) };
    let wrong = |why: String| InputError::Undelivered { what: FLEET_SECRET.to_owned(), why };
    let fleet = FleetSecret::new(Secret::new(value)).map_err(|error| wrong(error.to_string()))?;
    let epoch = variable(PASSWORD_EPOCH).map_or(Ok(0), |epoch| epoch.parse::<u32>());
    let epoch = epoch.map_err(|error| wrong(format!("{PASSWORD_EPOCH} is no number: {error}")))?;
    let settings = Settings::read(&folder.join("agent.json"))?;
    let password = fleet.password(&settings.matrix_id, epoch);
    write(&folder.join("secrets/password"), password.expose(), 0o400)?;
    Ok(true)
}

fn is_below(path: &str) -> bool {
    !path.is_empty() && Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<(), InputError> {
    let failed = |error: std::io::Error| InputError::wrong(path, error);
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    // A container that is started again finds its own files, which nobody may write.
    match fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_written_elsewhere() {
        assert!(is_below("agent.json") && is_below("bundle/files/SOUL.md"));
        for path in ["", "/etc/passwd", "../x", "a/../../x", "./x"] {
            assert!(!is_below(path), "{path}");
        }
    }
}
