//! npm: [`resolve`] package versions into pins by npm itself, and where pinned packages are fetched.

mod resolve;

use std::collections::BTreeMap;

use fleet_oci::{
    Digest, Platform,
    digest::DigestError,
    lock::{NodeLock, NpmPin},
};
use serde::Deserialize;

use crate::{fetch::FetchError, pinned::Pinned, realize::Workshop};
pub use resolve::{NpmError, resolve};

impl Pinned for NpmPin {
    fn title(&self) -> String {
        format!("npm package {}@{}", self.name, self.version)
    }

    fn digest(&self) -> Result<Digest, DigestError> {
        Digest::from_integrity(&self.integrity)
    }

    fn size(&self) -> u64 {
        0
    }

    async fn urls(&self, workshop: &Workshop) -> Result<Vec<String>, FetchError> {
        let file = self.name.rsplit_once('/').map_or(self.name.as_str(), |(_, file)| file);
        Ok(vec![format!("{}/{}/-/{file}-{}.tgz", workshop.sources.npm, self.name, self.version)])
    }

    /// Registries may keep tarballs elsewhere; the version's document says where.
    async fn more_urls(&self, workshop: &Workshop) -> Result<Vec<String>, FetchError> {
        Ok(vec![document(workshop, &self.name, &self.version).await?.dist.tarball])
    }
}

/// What a registry says of one version.
#[derive(Deserialize)]
struct Document {
    dist: Dist,
    #[serde(default)]
    bin: BTreeMap<String, String>,
    #[serde(default)]
    engines: serde_json::Value,
}

#[derive(Deserialize)]
struct Dist {
    tarball: String,
    #[serde(default)]
    integrity: String,
}

async fn document(workshop: &Workshop, name: &str, version: &str) -> Result<Document, FetchError> {
    let url = format!("{}/{}/{version}", workshop.sources.npm, name.replace('/', "%2f"));
    let answer = workshop.fetcher.answer(&url, "application/json").await?;
    serde_json::from_slice(&answer).map_err(|error| FetchError::Unreachable {
        url: crate::fetch::shown(&url),
        why: format!("its answer is no package document: {error}"),
    })
}

/// The lock entry of a Node version: the npm packages that carry the official binary.
///
/// # Errors
/// [`FetchError`]; absent ([`FetchError::is_absent`]) when there is no such version.
pub async fn resolve_node(workshop: &Workshop, version: &str, platforms: &[Platform]) -> Result<NodeLock, FetchError> {
    let mut lock = NodeLock { version: version.to_owned(), platforms: BTreeMap::new() };
    for platform in platforms {
        let name = format!("node-linux-{}", platform.npm_cpu());
        let document = document(workshop, &name, version).await?;
        Digest::from_integrity(&document.dist.integrity)?;
        let pin = NpmPin {
            path: format!("node_modules/{name}"),
            name,
            version: version.to_owned(),
            integrity: document.dist.integrity,
            bin: document.bin,
            ..NpmPin::default()
        };
        lock.platforms.insert(*platform, pin);
    }
    Ok(lock)
}

/// What a person should know of packages that were only unpacked.
pub(crate) fn notes(pins: &[NpmPin]) -> Vec<String> {
    let wanting = pins.iter().filter(|pin| pin.has_install_script);
    wanting.map(|pin| format!("{}@{}: install script not run", pin.name, pin.version)).collect()
}
