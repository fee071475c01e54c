//! [`BlobId`]: the name of some bytes, computed from them.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};
use sha2::Digest as _;

/// How a blob's name is computed: BLAKE3 for what we name, the others for what the outside world names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Algorithm {
    /// 32 bytes; our own.
    Blake3,
    /// 32 bytes; OCI, Debian, PyPI.
    Sha256,
    /// 64 bytes; npm.
    Sha512,
}

impl Algorithm {
    /// As in digests and folder names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    const fn hex_length(self) -> usize {
        match self {
            Self::Blake3 | Self::Sha256 => 64,
            Self::Sha512 => 128,
        }
    }
}

impl FromStr for Algorithm {
    type Err = NotABlobId;

    fn from_str(text: &str) -> Result<Self, NotABlobId> {
        [Self::Blake3, Self::Sha256, Self::Sha512]
            .into_iter()
            .find(|a| a.as_str() == text)
            .ok_or_else(|| NotABlobId { text: text.to_owned() })
    }
}

/// `sha256:…`: the name of some bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobId {
    algorithm: Algorithm,
    hex: String,
}

/// A text that does not name a blob.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("`{text}` is not a digest; digests read sha256:<64 hex characters>, blake3:<64> or sha512:<128>")]
pub struct NotABlobId {
    /// What was given.
    pub text: String,
}

impl BlobId {
    /// From an algorithm and lower- or upper-case hex.
    ///
    /// # Errors
    /// [`NotABlobId`] when the hex has the wrong length or other characters.
    pub fn new(algorithm: Algorithm, hex: &str) -> Result<Self, NotABlobId> {
        if hex.len() != algorithm.hex_length() || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotABlobId { text: format!("{}:{hex}", algorithm.as_str()) });
        }
        Ok(Self { algorithm, hex: hex.to_ascii_lowercase() })
    }

    /// The SHA-256 blob of this hex.
    ///
    /// # Errors
    /// [`NotABlobId`].
    pub fn sha256(hex: &str) -> Result<Self, NotABlobId> {
        Self::new(Algorithm::Sha256, hex)
    }

    /// The name of these bytes.
    #[must_use]
    pub fn of(algorithm: Algorithm, bytes: &[u8]) -> Self {
        let mut hasher = Hasher::new(algorithm);
        hasher.update(bytes);
        hasher.finish()
    }

    /// The algorithm.
    #[must_use]
    pub const fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// Lower-case hex.
    #[must_use]
    pub fn hex(&self) -> &str {
        &self.hex
    }
}

impl fmt::Display for BlobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.algorithm.as_str(), self.hex)
    }
}

impl FromStr for BlobId {
    type Err = NotABlobId;

    fn from_str(text: &str) -> Result<Self, NotABlobId> {
        let (algorithm, hex) = text.split_once(':').ok_or_else(|| NotABlobId { text: text.to_owned() })?;
        Self::new(algorithm.parse().map_err(|_| NotABlobId { text: text.to_owned() })?, hex)
    }
}

impl TryFrom<String> for BlobId {
    type Error = NotABlobId;
    fn try_from(text: String) -> Result<Self, NotABlobId> {
        text.parse()
    }
}

impl From<BlobId> for String {
    fn from(id: BlobId) -> Self {
        id.to_string()
    }
}

/// Computes a name while the bytes go by.
pub(crate) enum Hasher {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    pub fn new(algorithm: Algorithm) -> Self {
        match algorithm {
            Algorithm::Blake3 => Self::Blake3(Box::default()),
            Algorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            Algorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Blake3(h) => {
                h.update(bytes);
            }
            Self::Sha256(h) => h.update(bytes),
            Self::Sha512(h) => h.update(bytes),
        }
    }

    pub fn finish(self) -> BlobId {
        let (algorithm, hex) = match self {
            Self::Blake3(h) => (Algorithm::Blake3, hex::encode(h.finalize().as_bytes())),
            Self::Sha256(h) => (Algorithm::Sha256, hex::encode(h.finalize())),
            Self::Sha512(h) => (Algorithm::Sha512, hex::encode(h.finalize())),
        };
        BlobId { algorithm, hex }
    }
}
