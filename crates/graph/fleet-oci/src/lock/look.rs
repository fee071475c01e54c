//! Looking something up in a [`Lock`]: what was pinned for an image, if it still answers what `fleet.kdl` asks, and whole.

use std::collections::BTreeMap;

use super::{BasePin, DebianLock, Lock, LockError, NpmLock, NpmPin, PipLock, Unpack};
use crate::platform::Platform;

impl Lock {
    /// The digest of a base image.
    ///
    /// # Errors
    /// [`LockError::Missing`].
    pub fn base(&self, image: &str, reference: &str, platform: Platform) -> Result<&BasePin, LockError> {
        self.bases
            .get(reference)
            .and_then(|platforms| platforms.get(&platform))
            .ok_or_else(|| missing(image, format!("the base {reference} for {platform}")))
    }

    /// The Debian packages of an image.
    ///
    /// # Errors
    /// [`LockError::Missing`], [`LockError::Stale`].
    pub fn debian(
        &self,
        image: &str,
        suite: &str,
        architecture: &str,
        request: &[String],
    ) -> Result<&DebianLock, LockError> {
        let entry = self.debian.get(image).and_then(|arches| arches.get(architecture));
        let entry = entry.ok_or_else(|| missing(image, format!("debian {suite} for {architecture}")))?;
        let asked = debian_request(suite, request);
        let locked = debian_request(&entry.suite, &entry.request);
        fresh(image, "debian packages", locked, asked)?;
        // Not by name: another package may provide what was asked for.
        let lost = entry.packages.is_empty().then(|| entry.request.first()).flatten();
        whole(image, lost.map(|name| format!("the package {name} for {architecture}")))?;
        Ok(entry)
    }

    /// The Node runtime of an image.
    ///
    /// # Errors
    /// [`LockError::Missing`], [`LockError::Stale`].
    pub fn node(&self, image: &str, version: &str, platform: Platform) -> Result<&NpmPin, LockError> {
        let absent = || missing(image, format!("node {version} for {platform}"));
        let entry = self.node.get(image).ok_or_else(absent)?;
        fresh(image, "node", entry.version.clone(), version.to_owned())?;
        entry.platforms.get(&platform).ok_or_else(absent)
    }

    /// The npm packages under one folder of an image.
    ///
    /// # Errors
    /// [`LockError::Missing`], [`LockError::Stale`].
    pub fn npm(
        &self,
        image: &str,
        to: &str,
        request: &BTreeMap<String, String>,
        unpack: &BTreeMap<String, Unpack>,
    ) -> Result<&NpmLock, LockError> {
        let entry = self.npm.get(image).and_then(|folders| folders.get(to));
        let entry = entry.ok_or_else(|| missing(image, format!("npm packages in {to}")))?;
        let locked = npm_request(&entry.request, &entry.unpack);
        fresh(image, &format!("npm packages in {to}"), locked, npm_request(request, unpack))?;
        let places = entry.request.iter().map(|(name, version)| (name, format!("node_modules/{name}"), version));
        let tarballs = entry.unpack.iter().map(|(name, Unpack { version, at })| (name, at.clone(), version));
        let lacks = |place: &str, version: &str| {
            !entry.packages.iter().any(|pin| pin.path.trim_end_matches('/') == place && pin.version == version)
        };
        let lost = places.chain(tarballs).find(|(_, at, version)| lacks(at.trim_end_matches('/'), version));
        whole(image, lost.map(|(name, _, version)| format!("{name}@{version} in {to}")))?;
        Ok(entry)
    }

    /// The Python packages under one folder of an image.
    ///
    /// # Errors
    /// [`LockError::Missing`], [`LockError::Stale`].
    pub fn pip(&self, image: &str, to: &str, platform: Platform, asked: &PipAsked) -> Result<&PipLock, LockError> {
        let what = format!("Python packages in {to}");
        let entry = self.pip.get(image).and_then(|folders| folders.get(to)?.get(&platform));
        let entry = entry.ok_or_else(|| missing(image, format!("{what} for {platform}")))?;
        let locked = PipAsked { python: entry.python.clone(), request: entry.request.clone() };
        fresh(image, &what, locked.show(), asked.show())?;
        let project = |requirement: &str| {
            let end = requirement.find(|c: char| !c.is_ascii_alphanumeric() && !"-_.".contains(c));
            normalised(&requirement[..end.unwrap_or(requirement.len())])
        };
        let lacks = |requirement: &&String| !entry.packages.iter().any(|pin| pin.name == project(requirement));
        let lost = entry.request.iter().find(lacks);
        whole(image, lost.map(|requirement| format!("{requirement} in {to} for {platform}")))?;
        Ok(entry)
    }
}

/// What `fleet.kdl` asks of a `pip` layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PipAsked {
    /// `3.11`
    pub python: String,
    /// Requirements in any order.
    pub request: Vec<String>,
}

impl PipAsked {
    fn show(&self) -> String {
        format!("python {}: {}", self.python, sorted(&self.request))
    }
}

/// PEP 503, "Normalized Names".
#[must_use]
pub fn normalised(name: &str) -> String {
    let parts = name.split(['-', '_', '.']).filter(|part| !part.is_empty());
    parts.collect::<Vec<_>>().join("-").to_lowercase()
}

/// Of what was asked for nothing is `lost`.
fn whole(image: &str, lost: Option<String>) -> Result<(), LockError> {
    lost.map_or(Ok(()), |what| Err(LockError::Torn { image: image.to_owned(), what }))
}

fn missing(image: &str, what: String) -> LockError {
    LockError::Missing { image: image.to_owned(), what }
}

fn fresh(image: &str, what: &str, locked: String, asked: String) -> Result<(), LockError> {
    if locked == asked {
        return Ok(());
    }
    Err(LockError::Stale { image: image.to_owned(), what: what.to_owned(), locked, asked })
}

fn sorted(list: &[String]) -> String {
    let mut list: Vec<&str> = list.iter().map(String::as_str).collect();
    list.sort_unstable();
    list.dedup();
    list.join(" ")
}

fn npm_request(request: &BTreeMap<String, String>, unpack: &BTreeMap<String, Unpack>) -> String {
    let packages = request.iter().map(|(name, version)| format!("{name}@{version}"));
    let tarballs = unpack.iter().map(|(name, Unpack { version, at })| format!("{name}@{version} at {at}"));
    packages.chain(tarballs).collect::<Vec<_>>().join(", ")
}

fn debian_request(suite: &str, request: &[String]) -> String {
    format!("{suite}: {}", sorted(request))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        digest::Digest,
        lock::{PipPin, tests::sample},
    };

    #[test]
    fn a_request_that_changed_names_the_command_that_mends_it() {
        let asked = BTreeMap::from([("openclaw".to_owned(), "2026.9.7".to_owned())]);
        let error = sample().npm("agent", "/opt/openclaw", &asked, &BTreeMap::new()).unwrap_err().to_string();
        assert!(error.contains("openclaw@2026.9.6") && error.contains("openclaw@2026.9.7"), "{error}");
        assert!(error.contains("fleetctl lock --only image/agent"), "{error}");
    }

    #[test]
    fn a_lock_that_lost_what_it_was_asked_for_is_not_believed() {
        let asked = BTreeMap::from([("openclaw".to_owned(), "2026.9.6".to_owned())]);
        let mut lock = sample();
        let found = |lock: &Lock| lock.npm("agent", "/opt/openclaw", &asked, &BTreeMap::new()).map(drop);
        let error = found(&lock).unwrap_err().to_string();
        assert!(error.contains("openclaw@2026.9.6 in /opt/openclaw") && error.contains("merge"), "{error}");
        let pin = |version: &str| NpmPin {
            path: "node_modules/openclaw".into(),
            version: version.into(),
            ..NpmPin::default()
        };
        let entry = lock.npm.get_mut("agent").unwrap().get_mut("/opt/openclaw").unwrap();
        entry.packages.push(pin("2026.9.5"));
        assert!(found(&lock).is_err(), "another version is not it");
        lock.npm.get_mut("agent").unwrap().get_mut("/opt/openclaw").unwrap().packages.push(pin("2026.9.6"));
        assert_eq!(found(&lock), Ok(()));

        let mut packages = Vec::new();
        let asked = PipAsked { python: "3.11".into(), request: vec!["Matrix_Synapse[redis]==1.0".into()] };
        for complete in [false, true] {
            if complete {
                let (filename, sha256) = ("x.whl".to_owned(), Digest::sha256(b"x"));
                packages.push(PipPin { name: "matrix-synapse".into(), version: "1.0".into(), filename, sha256 });
            }
            let entry = PipLock {
                python: asked.python.clone(),
                glibc: "2.36".into(),
                request: asked.request.clone(),
                packages: packages.clone(),
            };
            let mut lock = Lock::default();
            let folders = lock.pip.entry("server".into()).or_default();
            folders.entry("/opt".into()).or_default().insert(Platform::LinuxAmd64, entry);
            assert_eq!(lock.pip("server", "/opt", Platform::LinuxAmd64, &asked).is_ok(), complete);
        }
    }

    #[test]
    fn project_names_are_normalised() {
        assert_eq!(normalised("Zope.Interface__x"), "zope-interface-x");
    }
}
