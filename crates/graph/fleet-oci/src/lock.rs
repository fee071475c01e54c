//! [`Lock`]: `fleet.lock`, the exact versions and hashes of everything images take from elsewhere.
//!
//! JSON, keys sorted, two-space indent, one line feed at the end, so that a diff shows what was updated and nothing
//! else. It names no host: where a blob is fetched from is the machine's configuration, what it is stands here.
//! Nothing unresolved is ever written: an entry is complete or absent.
//!
//! Deliberately absent: resolving (`fleet-packages`, `fleet-registry`) and reading the file (the edge).

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{digest::Digest, platform::Platform};

/// The only schema so far.
pub const SCHEMA: u32 = 1;

/// The whole lock file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lock {
    /// [`SCHEMA`]
    pub schema: u32,
    /// Image reference as written → platform → what it was pinned to.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bases: BTreeMap<String, BTreeMap<Platform, BasePin>>,
    /// Image name → architecture → packages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub debian: BTreeMap<String, BTreeMap<String, DebianLock>>,
    /// Image name → Node version and its packages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub node: BTreeMap<String, NodeLock>,
    /// Image name → folder in the image → packages, for all platforms at once.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub npm: BTreeMap<String, BTreeMap<String, NpmLock>>,
    /// Image name → folder in the image → platform → packages.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub pip: BTreeMap<String, BTreeMap<String, BTreeMap<Platform, PipLock>>>,
}

/// A base image at one platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BasePin {
    /// Manifest digest.
    pub digest: Digest,
}

/// What was asked of Debian and what that gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebianLock {
    /// `bookworm`
    pub suite: String,
    /// Package names as `fleet.kdl` lists them, sorted.
    pub request: Vec<String>,
    /// The `Date` of the suite's newest Release file that was read, RFC 5322 as written there.
    pub release_date: String,
    /// All packages with their dependencies, by name.
    pub packages: Vec<DebPin>,
}

/// One Debian package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DebPin {
    /// Binary package name.
    pub name: String,
    /// Full version with epoch.
    pub version: String,
    /// `amd64`, `arm64` or `all`.
    pub architecture: String,
    /// Which archive it was in: `debian` or `debian-security`.
    pub archive: String,
    /// Path in that archive, `pool/main/…`.
    pub pool_path: String,
    /// Bytes.
    pub size: u64,
    /// Of the `.deb`.
    pub sha256: Digest,
}

/// The Node runtime.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeLock {
    /// Exact version.
    pub version: String,
    /// The npm package that carries the binary.
    pub platforms: BTreeMap<Platform, NpmPin>,
}

/// What was asked of npm and what that gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NpmLock {
    /// Package → exact version as `fleet.kdl` has it.
    pub request: BTreeMap<String, String>,
    /// Packages whose tarball alone is put somewhere, as `fleet.kdl` has them.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub unpack: BTreeMap<String, Unpack>,
    /// By path.
    pub packages: Vec<NpmPin>,
}

/// A tarball that is put at a place of its own, without what its package depends on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpack {
    /// Exact version.
    pub version: String,
    /// Relative to the layer's folder.
    pub at: String,
}

/// One npm package at one place of a `node_modules` tree.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NpmPin {
    /// Where, e.g. `node_modules/a/node_modules/b`.
    pub path: String,
    /// Package name; differs from the path's for aliases.
    pub name: String,
    /// Exact version.
    pub version: String,
    /// Subresource integrity with a sha512.
    pub integrity: String,
    /// Command → file in the package.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub bin: BTreeMap<String, String>,
    /// Operating systems it is for; empty is all; `!x` excludes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub os: Vec<String>,
    /// Architectures, likewise.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub cpu: Vec<String>,
    /// C libraries, likewise; our images have glibc.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub libc: Vec<String>,
    /// May be left out where it does not fit the platform.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub optional: bool,
    /// It wants to run something when installed; it is not run.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub has_install_script: bool,
    /// What it declares to need, e.g. `node` → `>=24.16.0`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub engines: BTreeMap<String, String>,
}

/// What was asked of a Python index and what that gave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipLock {
    /// `3.11`
    pub python: String,
    /// Newest glibc the wheels may need, `2.36`.
    pub glibc: String,
    /// Requirements as `fleet.kdl` has them, e.g. `matrix-synapse==1.163.2`, sorted.
    pub request: Vec<String>,
    /// By name.
    pub packages: Vec<PipPin>,
}

/// One wheel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PipPin {
    /// Normalised project name (PEP 503).
    pub name: String,
    /// Exact version.
    pub version: String,
    /// The wheel's file name.
    pub filename: String,
    /// Of the wheel.
    pub sha256: Digest,
}

/// Why the lock does not serve. Every message names the image and the command that mends it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LockError {
    /// Not JSON of this shape.
    #[error("fleet.lock cannot be read: {what}, at line {line}, column {column}")]
    Malformed {
        /// What is wrong, without the place.
        what: String,
        /// 1-based.
        line: usize,
        /// In bytes, 1-based; 0 where a line ends too early.
        column: usize,
    },
    /// Written by a newer fleetctl.
    #[error("fleet.lock has schema {0}, this fleetctl knows {SCHEMA}; use the version that wrote it")]
    Schema(u32),
    /// Nothing is pinned.
    #[error("image {image}: {what} is not in fleet.lock; run `fleetctl lock --only image/{image}`")]
    Missing {
        /// Name in `fleet.kdl`.
        image: String,
        /// What is missing, in words.
        what: String,
    },
    /// What is pinned answers another question.
    #[error(
        "image {image}: fleet.lock pins {what} for {locked}, fleet.kdl asks for {asked}; run `fleetctl lock --only image/{image}`"
    )]
    Stale {
        /// Name in `fleet.kdl`.
        image: String,
        /// Which part.
        what: String,
        /// The request in the lock.
        locked: String,
        /// The request in `fleet.kdl`.
        asked: String,
    },
    /// What is pinned does not answer its own question.
    #[error(
        "image {image}: fleet.lock was asked for {what}, and does not have it: a merge may have lost it; run `fleetctl lock --only image/{image}`"
    )]
    Torn {
        /// Name in `fleet.kdl`.
        image: String,
        /// What is not there.
        what: String,
    },
}

impl Default for Lock {
    fn default() -> Self {
        Self {
            schema: SCHEMA,
            bases: BTreeMap::new(),
            debian: BTreeMap::new(),
            node: BTreeMap::new(),
            npm: BTreeMap::new(),
            pip: BTreeMap::new(),
        }
    }
}

impl Lock {
    /// Reads the file's text.
    ///
    /// # Errors
    /// [`LockError::Malformed`] with the place, and [`LockError::Schema`].
    pub fn parse(text: &str) -> Result<Self, LockError> {
        #[derive(Deserialize)]
        #[serde(expecting = "an object with the number `schema`")]
        struct Version {
            schema: u32,
        }
        let malformed = |error: serde_json::Error| LockError::Malformed {
            what: error.to_string().split(" at line ").next().unwrap_or_default().to_owned(),
            line: error.line(),
            column: error.column(),
        };
        // The version first: a newer schema must not be reported as a misspelt field.
        let version: Version = serde_json::from_str(text).map_err(malformed)?;
        if version.schema != SCHEMA {
            return Err(LockError::Schema(version.schema));
        }
        serde_json::from_str(text).map_err(malformed)
    }

    /// The file's text.
    #[must_use]
    pub fn to_text(&self) -> String {
        // Only maps with non-string keys can fail to serialise; all keys here are text.
        let mut text = serde_json::to_string_pretty(self).unwrap_or_default();
        text.push('\n');
        text
    }

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

impl NpmPin {
    /// Whether npm would install this package on a platform with glibc.
    #[must_use]
    pub fn wanted_on(&self, platform: Platform) -> bool {
        allows(&self.os, platform.os()) && allows(&self.cpu, platform.npm_cpu()) && allows(&self.libc, "glibc")
    }
}

impl NpmLock {
    /// The packages that go into an image for `platform`, by path.
    ///
    /// # Errors
    /// The first package that does not fit the platform and is not optional.
    pub fn packages_for(&self, platform: Platform) -> Result<Vec<NpmPin>, &NpmPin> {
        match self.packages.iter().find(|pin| !pin.optional && !pin.wanted_on(platform)) {
            Some(misfit) => Err(misfit),
            None => Ok(self.packages.iter().filter(|pin| pin.wanted_on(platform)).cloned().collect()),
        }
    }
}

/// npm's rule for `os`, `cpu` and `libc`: not excluded, and named unless nothing is named.
fn allows(list: &[String], value: &str) -> bool {
    let excluded = list.iter().any(|item| item.strip_prefix('!') == Some(value));
    let mut named = list.iter().filter(|item| !item.starts_with('!')).peekable();
    !excluded && (named.peek().is_none() || named.any(|item| item == value || item == "any"))
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

    fn sample() -> Lock {
        let mut lock = Lock::default();
        let entry = NpmLock {
            request: BTreeMap::from([("openclaw".into(), "2026.9.6".into())]),
            unpack: BTreeMap::new(),
            packages: vec![
                NpmPin { path: "node_modules/a".into(), ..NpmPin::default() },
                NpmPin {
                    path: "node_modules/b-win".into(),
                    os: vec!["win32".into()],
                    optional: true,
                    ..NpmPin::default()
                },
                NpmPin {
                    path: "node_modules/c-musl".into(),
                    libc: vec!["musl".into()],
                    optional: true,
                    ..NpmPin::default()
                },
                NpmPin { path: "node_modules/d-posix".into(), os: vec!["!win32".into()], ..NpmPin::default() },
            ],
        };
        lock.npm.entry("agent".into()).or_default().insert("/opt/openclaw".into(), entry);
        lock
    }

    #[test]
    fn the_lock_survives_its_own_text_and_a_newer_schema_is_named() {
        let lock = sample();
        assert_eq!(Lock::parse(&lock.to_text()), Ok(lock));
        let newer = r#"{"schema":2,"wheels":{}}"#;
        assert_eq!(Lock::parse(newer), Err(LockError::Schema(2)));
        assert!(matches!(Lock::parse(r#"{"schema":1,"npn":{}}"#), Err(LockError::Malformed { line: 1, .. })));
        let said = Lock::parse("[]").unwrap_err().to_string();
        assert!(said.contains("expected an object with the number `schema`"), "{said}");
    }

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

    #[test]
    fn a_package_for_another_platform_is_left_out_only_when_it_is_optional() {
        let mut lock = sample().npm.remove("agent").unwrap().remove("/opt/openclaw").unwrap();
        let names: Vec<_> = lock.packages_for(Platform::LinuxArm64).unwrap().into_iter().map(|pin| pin.path).collect();
        assert_eq!(names, ["node_modules/a", "node_modules/d-posix"]);
        lock.packages[1].optional = false;
        assert_eq!(lock.packages_for(Platform::LinuxArm64).unwrap_err().path, "node_modules/b-win");
    }
}
