//! [`Lock`]: `fleet.lock`, the exact versions and hashes of everything images take from elsewhere.
//!
//! JSON, keys sorted, two-space indent, one line feed at the end, so that a diff shows what was updated and nothing
//! else. It names no host: where a blob is fetched from is the machine's configuration, what it is stands here.
//! Nothing unresolved is ever written: an entry is complete or absent.
//!
//! Deliberately absent: resolving (`fleet-packages`, `fleet-registry`) and reading the file (the edge).

mod error;
mod look;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    error::LockError,
    look::{PipAsked, normalised},
};
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

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(super) fn sample() -> Lock {
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
    fn a_package_for_another_platform_is_left_out_only_when_it_is_optional() {
        let mut lock = sample().npm.remove("agent").unwrap().remove("/opt/openclaw").unwrap();
        let names: Vec<_> = lock.packages_for(Platform::LinuxArm64).unwrap().into_iter().map(|pin| pin.path).collect();
        assert_eq!(names, ["node_modules/a", "node_modules/d-posix"]);
        lock.packages[1].optional = false;
        assert_eq!(lock.packages_for(Platform::LinuxArm64).unwrap_err().path, "node_modules/b-win");
    }
}
