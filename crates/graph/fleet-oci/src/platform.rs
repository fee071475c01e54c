//! [`Platform`]: what an image runs on, and what the package worlds call it.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A platform images are made for; shown as `linux/amd64`. Only Linux, only the two architectures that Fargate has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Platform {
    /// `linux/amd64`
    LinuxAmd64,
    /// `linux/arm64`
    LinuxArm64,
}

/// Text that names no platform we make images for.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{0}` is not a platform; known are linux/amd64 and linux/arm64")]
pub struct UnknownPlatform(pub String);

impl Platform {
    /// Every platform.
    pub const ALL: [Self; 2] = [Self::LinuxAmd64, Self::LinuxArm64];

    /// OCI's and Debian's name of the architecture (they agree on these two).
    #[must_use]
    pub fn architecture(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "amd64",
            Self::LinuxArm64 => "arm64",
        }
    }

    /// The platform of a Debian architecture.
    #[must_use]
    pub fn from_architecture(architecture: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.architecture() == architecture)
    }

    /// OCI's name of the operating system.
    #[must_use]
    pub fn os(self) -> &'static str {
        "linux"
    }

    /// Node's `process.arch`, as `cpu` in package.json names it.
    #[must_use]
    pub fn npm_cpu(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "x64",
            Self::LinuxArm64 => "arm64",
        }
    }

    /// The machine name in wheel tags and multiarch folders (`x86_64`, `aarch64`).
    #[must_use]
    pub fn machine(self) -> &'static str {
        match self {
            Self::LinuxAmd64 => "x86_64",
            Self::LinuxArm64 => "aarch64",
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os(), self.architecture())
    }
}

impl FromStr for Platform {
    type Err = UnknownPlatform;

    fn from_str(text: &str) -> Result<Self, UnknownPlatform> {
        Self::ALL
            .into_iter()
            .find(|platform| platform.to_string() == text)
            .ok_or_else(|| UnknownPlatform(text.to_owned()))
    }
}

impl TryFrom<String> for Platform {
    type Error = UnknownPlatform;

    fn try_from(text: String) -> Result<Self, UnknownPlatform> {
        text.parse()
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}
