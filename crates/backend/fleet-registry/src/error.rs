//! [`RegistryError`]: what can go wrong with a registry, by what a person can do about it.

use fleet_oci::Digest;
use fleet_store::BlobError;

use crate::credentials::CredentialsError;

/// Why an image cannot be had, or cannot be put there.
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
    /// No answer, or none that helps, after all attempts. Only a mistake in an environment that uses the image.
    #[error(
        "the registry of {reference} cannot be reached: {why}; check the network, proxy and CA settings of this machine"
    )]
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
    /// It does not let us.
    #[error("{host} does not allow it for {reference}: {}", denied(.user.as_deref(), .host, .why))]
    Denied {
        /// The image.
        reference: String,
        /// Who refuses.
        host: String,
        /// Who we said we are, if anybody.
        user: Option<String>,
        /// Its words.
        why: String,
    },
    /// Who we are could not be found out.
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    /// It sends other bytes than it was asked for.
    #[error("the registry of {reference} sends {what} that is not {wanted}: {why}; it is not used")]
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
    /// A tag that may not change its meaning means something else.
    #[error(
        "{reference} is {there} in the registry, and this is {ours}: the tag names what the image is made of, so one of the two was made wrongly or by another version of fleetctl; nothing was pushed. Build again with `fleetctl build --check`, and remove the tag if what is there is wrong"
    )]
    Taken {
        /// Image and tag.
        reference: String,
        /// What was to be pushed.
        ours: Digest,
        /// What is there.
        there: Digest,
    },
    /// It does not take what was sent.
    #[error("the registry of {reference} refuses {what}: {why}")]
    Refused {
        /// The image.
        reference: String,
        /// Blob or manifest.
        what: String,
        /// Status and words.
        why: String,
    },
    /// A blob that has to be sent cannot be found.
    #[error("{reference} needs the blob {blob}, which {why}")]
    NoBlob {
        /// The image.
        reference: String,
        /// Which.
        blob: Digest,
        /// Where it was looked for.
        why: String,
    },
    /// The machine's own settings.
    #[error("registries cannot be spoken to: {0}")]
    Setup(String),
    /// The store.
    #[error(transparent)]
    Store(#[from] BlobError),
}

fn denied(user: Option<&str>, host: &str, why: &str) -> String {
    match user {
        Some(user) => format!(
            "user `{user}` with the wrong password, or without the right to it ({why}); mend it with `docker login {host}`"
        ),
        None => format!("it wants to know who asks ({why}); say so with `docker login {host}`"),
    }
}

impl RegistryError {
    /// Whether it is only that the registry is out of reach.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }
}
