//! [`EngineError`]: what can go wrong between us and a container engine, and its place among provider errors.

use std::io::ErrorKind;

use fleet_apply::{ProviderError, causes::chain};
use fleet_model::Address;

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// No answer, or the connection broke: exit code 69.
    #[error("the container engine at {endpoint} does not answer: {why}")]
    Unreachable {
        /// Where it was.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// The socket may not be opened by this user: exit code 77.
    #[error("not allowed to use the container engine at {endpoint}: {why}")]
    Denied {
        /// Where it is.
        endpoint: String,
        /// Why.
        why: String,
    },
    /// What was named does not exist.
    #[error("{what}: not found: {why}")]
    NotFound {
        /// The call.
        what: String,
        /// The engine's words.
        why: String,
    },
    /// Somebody else was faster, or a name is taken.
    #[error("{what}: {why}")]
    Conflict {
        /// The call.
        what: String,
        /// The engine's words.
        why: String,
    },
    /// The engine refused or failed.
    #[error("{what}: {why}")]
    Refused {
        /// The call.
        what: String,
        /// The engine's words.
        why: String,
    },
    /// This engine cannot do it at all.
    #[error("{why}")]
    Unsupported {
        /// What is missing.
        why: String,
        /// What to do.
        help: String,
    },
}

impl EngineError {
    /// Sorts a `bollard` error. `what` is the call, for people; `endpoint` where the engine is.
    pub(crate) fn from_bollard(endpoint: &str, what: &str, error: bollard::errors::Error) -> Self {
        use bollard::errors::Error as E;
        let what = what.to_owned();
        match error {
            E::DockerResponseServerError { status_code: 404, message } => Self::NotFound { what, why: message },
            E::DockerResponseServerError { status_code: 409, message } => Self::Conflict { what, why: message },
            E::DockerResponseServerError { status_code: 401 | 403, message } => {
                Self::Denied { endpoint: endpoint.to_owned(), why: message }
            }
            E::DockerResponseServerError { message, .. } => Self::Refused { what, why: message },
            E::DockerStreamError { error } => Self::Refused { what, why: error },
            E::RequestTimeoutError => {
                Self::Unreachable { endpoint: endpoint.to_owned(), why: format!("{what}: no answer in time") }
            }
            other if caused_by(&other, ErrorKind::PermissionDenied) => {
                Self::Denied { endpoint: endpoint.to_owned(), why: chain(&other) }
            }
            other if caused_by(&other, ErrorKind::ConnectionRefused) => {
                Self::Unreachable { endpoint: endpoint.to_owned(), why: "nobody listens there".to_owned() }
            }
            other => Self::Unreachable { endpoint: endpoint.to_owned(), why: format!("{what}: {}", chain(&other)) },
        }
    }

    /// As an error of the provider that works on `address`.
    pub(crate) fn at(self, address: &Address) -> ProviderError {
        match self {
            Self::Unreachable { .. } | Self::Denied { .. } => self.anywhere(),
            Self::Conflict { what, why } => {
                ProviderError::Stale { address: address.clone(), why: format!("{what}: {why}") }
            }
            Self::Unsupported { why, help } => ProviderError::failed(address, why).help(help),
            other => ProviderError::failed(address, other.to_string()),
        }
    }

    /// As an error of a provider that works on no object in particular.
    pub(crate) fn anywhere(self) -> ProviderError {
        let system = "docker".to_owned();
        match self {
            Self::Denied { why, endpoint } => ProviderError::Denied {
                system,
                why: format!("{endpoint}: {why}; run as root or join the group that owns the socket"),
            },
            Self::Unreachable { why, endpoint } => {
                ProviderError::Unreachable { system, why: format!("{endpoint}: {why}") }
            }
            other => ProviderError::Unreachable { system, why: other.to_string() },
        }
    }
}

/// Some cause of it is of this kind.
fn caused_by(error: &bollard::errors::Error, kind: ErrorKind) -> bool {
    std::iter::successors(Some(error as &(dyn std::error::Error + 'static)), |&error| error.source())
        .any(|cause| cause.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == kind))
}
