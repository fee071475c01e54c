//! [`RegistryError`]: what can go wrong with a registry, by what a person can do about it.

use fleet_oci::Digest;
use fleet_store::BlobError;
use oci_client::errors::{OciDistributionError, OciErrorCode};

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    /// Text that names no image.
    #[error("`{reference}` is not an image reference: {why}")]
    Reference {
        /// As written.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// No answer. Only a mistake in an environment that uses the image.
    #[error("the registry of {reference} cannot be reached: {why}; check the network, proxy and CA settings of this machine")]
    Unreachable {
        /// The image.
        reference: String,
        /// The client's words.
        why: String,
    },
    /// It answers and has no such image, or none for the platform.
    #[error("{reference} {what}")]
    Absent {
        /// The image.
        reference: String,
        /// What is missing, in words.
        what: String,
    },
    /// It wants credentials.
    #[error("the registry of {reference} does not give it to strangers ({why}); only public images can be a base so far")]
    Denied {
        /// The image.
        reference: String,
        /// Its words.
        why: String,
    },
    /// It sends other bytes than it was asked for.
    #[error("the registry of {reference} sends {what} that is not {wanted}: {why}; nothing was kept")]
    Lies {
        /// The image.
        reference: String,
        /// Manifest, config or layer.
        what: &'static str,
        /// What it should be.
        wanted: Digest,
        /// How it differs.
        why: String,
    },
    /// An answer nobody understands.
    #[error("the registry of {reference} sends what cannot be understood: {why}")]
    Malformed {
        /// The image.
        reference: String,
        /// What is wrong.
        why: String,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] BlobError),
}

impl RegistryError {
    /// Whether it is only that the registry is out of reach.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    pub(crate) fn of(reference: &str, error: OciDistributionError) -> Self {
        let why = innermost(&error);
        let reference = reference.to_owned();
        match error {
            OciDistributionError::RequestError(_) | OciDistributionError::IoError(_) => {
                Self::Unreachable { reference, why }
            }
            OciDistributionError::ServerError { code, .. } if code >= 500 || code == 429 => {
                Self::Unreachable { reference, why: format!("it answers {code}") }
            }
            OciDistributionError::AuthenticationFailure(_) | OciDistributionError::UnauthorizedError { .. } => {
                Self::Denied { reference, why }
            }
            OciDistributionError::ImageManifestNotFoundError(_)
            | OciDistributionError::ServerError { code: 404, .. } => absent(reference),
            OciDistributionError::RegistryError { envelope, .. } => {
                let is = |code: OciErrorCode| envelope.errors.iter().any(|error| error.code == code);
                if is(OciErrorCode::Denied) || is(OciErrorCode::Unauthorized) {
                    Self::Denied { reference, why }
                } else if [OciErrorCode::ManifestUnknown, OciErrorCode::NameUnknown, OciErrorCode::BlobUnknown]
                    .into_iter()
                    .any(is)
                {
                    absent(reference)
                } else {
                    Self::Malformed { reference, why }
                }
            }
            _ => Self::Malformed { reference, why },
        }
    }
}

fn absent(reference: String) -> RegistryError {
    RegistryError::Absent { reference, what: "is not in its registry; check the name and the tag".to_owned() }
}

fn innermost(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}
