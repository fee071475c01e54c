//! Debian: [`resolve`] package names into pins, and where pinned packages are fetched.

mod index;
mod release;
mod solve;

use fleet_oci::{
    Digest, Platform,
    digest::DigestError,
    lock::{DebPin, DebianLock},
};
use serde::Deserialize;

use crate::{
    fetch::{FetchError, Wanted},
    pinned::Pinned,
    realize::Workshop,
};
use index::Index;

/// Why names could not be resolved.
#[derive(Debug, thiserror::Error)]
pub enum DebianError {
    /// An index could not be fetched.
    #[error(transparent)]
    Fetch(#[from] FetchError),
    /// A signature that is none of Debian's.
    #[error("{url} is not signed by a key in {keyring}: {why}; the mirror may be forged, nothing was taken from it")]
    Signature {
        /// The Release file.
        url: String,
        /// Where trusted keys were looked for.
        keyring: String,
        /// What is wrong.
        why: String,
    },
    /// An index that makes no sense.
    #[error("{url} cannot be read: {why}")]
    Malformed {
        /// Which file.
        url: String,
        /// What is wrong.
        why: String,
    },
    /// Nothing of that name.
    #[error("Debian {suite} has no package {name} for {architecture}{}", hint.as_ref().map(|near| format!("; did you mean {near}?")).unwrap_or_default())]
    UnknownPackage {
        /// `bookworm`
        suite: String,
        /// What was asked.
        name: String,
        /// `amd64`
        architecture: String,
        /// A package whose name is near.
        hint: Option<String>,
    },
    /// A dependency that nothing fulfils.
    #[error("Debian package {package} needs {needs}, which nothing in {suite} provides")]
    Unsatisfiable {
        /// `bookworm`
        suite: String,
        /// Who needs it.
        package: String,
        /// The dependency as written.
        needs: String,
    },
}

/// What was asked of Debian.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// `bookworm`
    pub suite: &'a str,
    /// For which architecture.
    pub platform: Platform,
    /// Package names. Nothing is implied, not even essential packages: a root file system that is to be of use
    /// needs at least `base-files` and `libc6`, a shell (`dash`) and `coreutils` where scripts are run.
    pub packages: &'a [String],
}

/// An entry for the lock, and what a person should know of how it came about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolved<L> {
    /// The entry.
    pub lock: L,
    /// One line each.
    pub notes: Vec<String>,
}

/// The newest versions in the suite, its updates and its security archive, with all dependencies
/// (`Depends`, `Pre-Depends`; no `Recommends`).
///
/// # Errors
/// [`DebianError`].
pub async fn resolve(workshop: &Workshop, request: Request<'_>) -> Result<Resolved<DebianLock>, DebianError> {
    let mut notes = Vec::new();
    let mut index = Index::default();
    let mut date = String::new();
    for (archive, suite, needed) in release::suites(request.suite) {
        let release = match release::fetch(workshop, archive, &suite).await {
            Err(DebianError::Fetch(error)) if !needed && error.is_absent() => continue,
            other => other?,
        };
        if let Some(why) = &release.unverified {
            notes.push(format!("the signature of {suite} was not checked: {why}"));
        }
        if needed {
            date = release.date();
        }
        let packages = release::packages(workshop, (archive, &suite), &release, request.platform).await?;
        let malformed = |why| DebianError::Malformed { url: format!("the package index of {suite}"), why };
        index.add(archive, &packages).map_err(malformed)?;
    }
    let packages = solve::solve(&index, request)?;
    let mut asked = request.packages.to_vec();
    asked.sort();
    asked.dedup();
    let lock = DebianLock { suite: request.suite.to_owned(), request: asked, release_date: date, packages };
    Ok(Resolved { lock, notes })
}

/// Fetches pinned packages into the store without making a layer of them.
///
/// # Errors
/// [`FetchError`].
pub async fn fetch(workshop: &Workshop, pins: &[DebPin]) -> Result<Vec<std::path::PathBuf>, FetchError> {
    crate::pinned::fetch_all(workshop, pins).await
}

impl Pinned for DebPin {
    fn title(&self) -> String {
        format!("Debian package {} {}", self.name, self.version)
    }

    fn digest(&self) -> Result<Digest, DigestError> {
        Ok(self.sha256.clone())
    }

    fn size(&self) -> u64 {
        self.size
    }

    async fn urls(&self, workshop: &Workshop) -> Result<Vec<String>, FetchError> {
        Ok(vec![format!("{}/{}", workshop.sources.archive(&self.archive), self.pool_path)])
    }

    /// The snapshot archive keeps every version there ever was, by SHA-1, which it tells for a name and version.
    async fn more_urls(&self, workshop: &Workshop) -> Result<Vec<String>, FetchError> {
        #[derive(Deserialize)]
        struct Answer {
            result: Vec<File>,
        }
        #[derive(Deserialize)]
        struct File {
            hash: String,
            architecture: String,
        }
        let base = &workshop.sources.debian_snapshot;
        let url = format!("{base}/mr/binary/{}/{}/binfiles", self.name, self.version);
        let answer = workshop.fetcher.answer(&url, "application/json").await?;
        let files: Answer = serde_json::from_slice(&answer).unwrap_or(Answer { result: Vec::new() });
        let files = files.result.into_iter().filter(|file| file.architecture == self.architecture);
        Ok(files.map(|file| format!("{base}/file/{}", file.hash)).collect())
    }
}

/// An index file, through the store: equal indexes are downloaded once.
async fn index_file(workshop: &Workshop, wanted: Wanted) -> Result<Vec<u8>, DebianError> {
    let path = workshop.fetcher.blob(&wanted).await?;
    Ok(tokio::fs::read(path).await.map_err(FetchError::from)?)
}
