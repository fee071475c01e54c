//! [`Event`]: what a person may want to see while something is sent. [`Pushed`]: what came of it.

use std::time::Duration;

use fleet_oci::Digest;

/// Something happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A blob begins to be sent.
    Sending {
        /// Which.
        digest: Digest,
        /// Its bytes.
        size: u64,
    },
    /// A blob was sent.
    Sent {
        /// Which.
        digest: Digest,
        /// Its bytes.
        size: u64,
    },
    /// A blob was taken from another repository of the registry without being sent.
    Mounted {
        /// Which.
        digest: Digest,
        /// The other repository.
        from: String,
    },
    /// A blob was there.
    Skipped {
        /// Which.
        digest: Digest,
    },
    /// A manifest can now be pulled.
    Manifest {
        /// Which.
        digest: Digest,
        /// The tag it is under, if any.
        tag: Option<String>,
    },
    /// Something failed and is tried again.
    Retrying {
        /// What went wrong.
        why: String,
        /// The wait before the next attempt.
        pause: Duration,
    },
}

/// Takes events, from several tasks at a time.
pub type Events<'a> = &'a (dyn Fn(Event) + Send + Sync);

/// What a push did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pushed {
    /// Of the manifest that is now there.
    pub digest: Digest,
    /// The tag had it before: nothing else was asked.
    pub found: bool,
    /// Bytes of blobs that were sent, those of statements too.
    pub sent: u64,
    /// Blobs taken from other repositories of the registry.
    pub mounted: usize,
    /// Blobs that were there, as far as anybody looked: none when the manifest was there.
    pub skipped: usize,
    /// HTTP requests, those for tokens included.
    pub requests: usize,
    /// What could not be done and does no harm.
    pub notices: Vec<Notice>,
}

/// Something that could not be done and does no harm.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// The registry has no referrers API, and the tag that stands in for it cannot be written. The statement is there,
    /// but nobody who looks at the image finds it.
    ReferrerUnlisted {
        /// The statement.
        digest: Digest,
        /// What it is about.
        subject: Digest,
        /// The registry's words.
        why: String,
    },
}

impl std::fmt::Display for Notice {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::ReferrerUnlisted { digest, subject, why } => write!(
                f,
                "the statement {digest} about {subject} was skipped: the registry has no referrers API, and the tag that stands in for it is refused ({why})"
            ),
        }
    }
}
