//! [`CallError`]: why one call to the homeserver failed, without a word of what was sent.

use fleet_apply::ProviderError;
use fleet_model::Address;

/// Why a call failed. Carries what the server said, never what we sent.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// No answer: refused, cut off or timed out.
    #[error("the homeserver at {url} does not answer: {why}")]
    Unreachable {
        /// Where we asked.
        url: String,
        /// Why, in the words of the network.
        why: String,
        /// Nobody listens, or whoever listened hung up: it is not running (yet). `false`: it hangs.
        down: bool,
    },
    /// The server said no.
    #[error("{call}: {message} ({errcode}, HTTP {status})")]
    Refused {
        /// Method and path.
        call: String,
        /// HTTP status.
        status: u16,
        /// Matrix error code, `M_FORBIDDEN`.
        errcode: String,
        /// The server's words.
        message: String,
        /// The body, where an endpoint says more in it (user-interactive authentication).
        body: Vec<u8>,
    },
    /// The answer is not what the specification says.
    #[error("{call}: the answer is not understood: {why}")]
    Garbled {
        /// Method and path.
        call: String,
        /// What is wrong with it.
        why: String,
    },
    /// The service account exists but does not take the password derived from this fleet secret.
    #[error(
        "the account {account} does not accept the password derived from the fleet secret: this homeserver was set up with another secret"
    )]
    WrongSecret {
        /// Which account.
        account: String,
    },
    /// Something here is not as it must be: an id that is no id, a file that cannot be written.
    #[error("{0}")]
    Local(String),
}

impl CallError {
    /// The server's error code, if it gave one.
    pub(crate) fn errcode(&self) -> Option<&str> {
        match self {
            Self::Refused { errcode, .. } => Some(errcode),
            _ => None,
        }
    }

    pub(crate) fn is(&self, code: &str) -> bool {
        self.errcode() == Some(code)
    }

    /// What is asked for does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// The token is no longer good.
    pub(crate) fn is_signed_out(&self) -> bool {
        self.is("M_UNKNOWN_TOKEN") || self.is("M_MISSING_TOKEN")
    }

    /// Nobody is there (yet).
    pub(crate) fn is_down(&self) -> bool {
        matches!(self, Self::Unreachable { down: true, .. })
    }

    /// As the engine understands it, about everything.
    pub(crate) fn general(self) -> ProviderError {
        match self {
            Self::Unreachable { .. } => {
                ProviderError::Unreachable { system: "matrix".to_owned(), why: self.to_string() }
            }
            Self::WrongSecret { .. } => ProviderError::Denied {
                system: "matrix".to_owned(),
                why: format!("{self}; use that secret, or remove the homeserver's volume to start anew"),
            },
            Self::Refused { status: 401 | 403, .. } => {
                ProviderError::Denied { system: "matrix".to_owned(), why: self.to_string() }
            }
            other => ProviderError::Unreachable { system: "matrix".to_owned(), why: other.to_string() },
        }
    }

    /// As the engine understands it, about one object.
    pub(crate) fn about(self, address: &Address) -> ProviderError {
        match self {
            Self::Unreachable { .. } | Self::WrongSecret { .. } => self.general(),
            other => ProviderError::Failed {
                address: address.clone(),
                why: other.to_string(),
                help: other.help(),
                last_lines: Vec::new(),
            },
        }
    }

    fn help(&self) -> Option<String> {
        Some(
            match self.errcode()? {
                "M_FORBIDDEN" => {
                    "the operator's account lacks the power for this: was the room or account changed by hand?"
                }
                "M_LIMIT_EXCEEDED" => {
                    "the homeserver limits the rate of calls: run apply again, it continues where it stopped"
                }
                "M_NOT_FOUND" => "something that this needs is gone: run apply again, it is planned anew",
                _ => return None,
            }
            .to_owned(),
        )
    }
}
