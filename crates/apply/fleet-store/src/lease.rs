//! [`Lease`]: who works on an environment from this checkout now. Advisory: it spares people surprises; what keeps the world
//! right is compare-and-set per object. One that checkouts share is in [`crate::History`].

use std::{
    fs::{File, OpenOptions, TryLockError},
    io::{self, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::PathBuf,
    time::{SystemTime, UNIX_EPOCH},
};

use serde::{Deserialize, Serialize};

use crate::{Store, objects::file_name};

/// Who holds a lease.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// The user's name.
    pub who: String,
    /// The host's name.
    pub host: String,
    /// The process.
    pub pid: u32,
    /// Seconds since 1970, UTC.
    pub since: u64,
    /// What it does: `apply -e local`.
    pub what: String,
    /// When a lease that is not renewed runs out, likewise. `None`: it ends with its process.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<u64>,
}

impl Holder {
    /// This process, now.
    #[must_use]
    pub fn this_process(who: impl Into<String>, what: impl Into<String>) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self { who: who.into(), host, pid: std::process::id(), since, what: what.into(), until: None }
    }
}

/// A lease that this process holds; released when dropped and when the process ends, however it ends.
#[derive(Debug)]
pub struct Lease {
    file: File,
}

impl Drop for Lease {
    fn drop(&mut self) {
        // The lock goes with the file; the text is only for people.
        let _ = self.file.set_len(0);
    }
}

/// What became of asking for a lease.
#[derive(Debug)]
pub enum Leased<L = Lease> {
    /// It is ours.
    Ours(L),
    /// Somebody else has it. `None`: they have not written yet who they are.
    Held(Option<Holder>),
}

/// A lease could not be asked for, kept or released.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// Its file.
    #[error("cannot take the lease {}: {source}{}", .path.display(), crate::atomic::remedy(.source))]
    File {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bucket refused or did not answer.
    #[error("cannot {doing} the lease {object}: {why}")]
    Bucket {
        /// `read`, `write`.
        doing: &'static str,
        /// Its object.
        object: String,
        /// Why.
        why: String,
    },
    /// An object that nobody of us wrote.
    #[error(
        "{object} is no lease that this fleetctl knows ({why}): use the fleetctl that wrote it, \
         or remove the object once nobody works on the environment"
    )]
    Unknown {
        /// Which.
        object: String,
        /// What is wrong with it.
        why: String,
    },
    /// It ran out and somebody else took it.
    #[error("the lease on {environment} ran out and was taken over{}", .by.as_ref().map(|by| format!(" by {} on {}", by.who, by.host)).unwrap_or_default())]
    Lost {
        /// On what.
        environment: String,
        /// Who has it now.
        by: Option<Holder>,
    },
}

impl Store {
    /// Asks for the lease of an environment, without waiting.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn lease(&self, environment: &str, holder: &Holder) -> Result<Leased, LeaseError> {
        let path = self.root().join("leases").join(file_name(environment));
        let failed = |source| LeaseError::File { path: path.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(failed)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(failed)?;
                return Ok(Leased::Held(serde_json::from_str(&text).ok()));
            }
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let text = serde_json::to_string(holder).map_err(|error| failed(error.into()))?;
        file.set_len(0).map_err(failed)?;
        file.seek(SeekFrom::Start(0)).map_err(failed)?;
        file.write_all(text.as_bytes()).map_err(failed)?;
        Ok(Leased::Ours(Lease { file }))
    }

    /// Who holds the lease of an environment; `None` where nobody does.
    ///
    /// # Errors
    /// [`LeaseError`].
    pub fn lease_holder(&self, environment: &str) -> Result<Option<Holder>, LeaseError> {
        let path = self.root().join("leases").join(file_name(environment));
        let failed = |source| LeaseError::File { path: path.clone(), source };
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        match file.try_lock_shared() {
            Ok(()) => Ok(None),
            Err(TryLockError::WouldBlock) => {
                let mut text = String::new();
                file.read_to_string(&mut text).map_err(failed)?;
                Ok(serde_json::from_str(&text).ok())
            }
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_to_ask_learns_who_was_first() -> Result<(), Box<dyn std::error::Error>> {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        let first = Holder::this_process("ada", "apply -e local");
        let Leased::Ours(lease) = store.lease("local", &first)? else { panic!("held by nobody") };
        let Leased::Held(Some(seen)) = store.lease("local", &Holder::this_process("ben", "apply"))? else {
            panic!("two hold one lease")
        };
        assert_eq!(seen, first);
        assert!(matches!(store.lease("production", &first)?, Leased::Ours(_)), "environments are independent");
        drop(lease);
        assert!(matches!(store.lease("local", &first)?, Leased::Ours(_)));
        Ok(())
    }
}
