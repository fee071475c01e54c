//! [`Provider`]: one outside system as the engine sees it.
//!
//! Implementations live in `backend/`; the in-memory one in `testing/fleet-sim` is held to the same contract suite.
//! A provider never plans: it observes, and it makes one given [`Change`] true.

use std::collections::BTreeMap;

use async_trait::async_trait;
use fleet_derivation::Hash;
use fleet_model::Address;
use fleet_plan::{Change, SecretUse, State};
use fleet_secret::{FleetSecret, Secret};

use crate::{causes, events::Events};

/// Which fleet and environment a provider works for. Names of everything it makes start with both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scope {
    /// Fleet name.
    pub fleet: String,
    /// Environment name.
    pub environment: String,
    /// Matrix server name.
    pub domain: String,
}

impl Scope {
    /// `<fleet>-<environment>-<name>`: the one rule for names at a target.
    #[must_use]
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.whole())
    }

    /// `<fleet>-<environment>`: what has no name of its own within the environment, such as its cluster.
    #[must_use]
    pub fn whole(&self) -> String {
        format!("{}-{}", self.fleet, self.environment)
    }
}

/// One outside system.
#[async_trait]
pub trait Provider: Send + Sync {
    /// For messages: `docker`, `matrix`.
    fn name(&self) -> &'static str;

    /// Does this provider look after this address?
    fn owns(&self, address: &Address) -> bool;

    /// Reads everything of the scope, with reads only. `wanted` are the addresses that are declared, so that a provider
    /// may look them up directly and can tell an orphan.
    ///
    /// # Errors
    /// When the outside system cannot be read. An outside system that is *expected* to be absent (a homeserver that is
    /// not deployed yet) is no error: say so in [`State::unseen`].
    async fn observe(&self, wanted: &[Address]) -> Result<State, ProviderError>;

    /// Told once before the changes of a plan that are this provider's are made, for who makes them together.
    fn begin(&self, changes: &[&Change]) {
        let _ = changes;
    }

    /// Makes one change true, idempotently: doing it twice, or after a crash in the middle of it, ends the same.
    /// Checks `change.expect` against the present version first. `ready` holds the outputs of the derivations that it depends on.
    ///
    /// # Errors
    /// See [`ProviderError`]; after [`ProviderError::RolledBack`] the former version runs.
    async fn apply(&self, change: &Change, ready: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError>;
}

/// What a provider needs beside the change.
pub struct Ready<'a> {
    /// Outputs by derivation hash: image tags to digests.
    pub outputs: &'a BTreeMap<Hash, String>,
    /// Resolves references to secrets at the moment of use.
    pub secrets: &'a Secrets,
}

/// What became of a change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It was made; for images the output digest.
    Changed {
        /// What the derivation produced, where it produces something (an image's digest).
        output: Option<String>,
    },
    /// It was right already; no write was made.
    Unchanged {
        /// As above.
        output: Option<String>,
    },
}

/// Why a provider could not observe or apply.
#[derive(Debug, thiserror::Error)]
pub enum ProviderError {
    /// The outside system did not answer: exit code 69.
    #[error("{system} cannot be reached: {why}")]
    Unreachable {
        /// Which.
        system: String,
        /// Why, for people.
        why: String,
    },
    /// The object is not what the plan was made against: exit code 5.
    #[error("{address} changed since the plan was made: {why}")]
    Stale {
        /// Which.
        address: Address,
        /// What moved.
        why: String,
    },
    /// The new version did not become healthy and the former one runs again: exit code 4.
    #[error("{address} was rolled back: {why}")]
    RolledBack {
        /// Which.
        address: Address,
        /// Why.
        why: String,
        /// The last lines that the failed container printed.
        last_lines: Vec<String>,
    },
    /// It failed, and there was no former version to return to or nothing was changed.
    #[error("{address}: {why}")]
    Failed {
        /// Which.
        address: Address,
        /// Why.
        why: String,
        /// What to do about it.
        help: Option<String>,
        /// The last lines that a failed container printed.
        last_lines: Vec<String>,
    },
    /// Not allowed: exit code 77.
    #[error("{system} refuses: {why}")]
    Denied {
        /// Which.
        system: String,
        /// Why.
        why: String,
    },
}

impl ProviderError {
    /// [`Self::Failed`] without more to say; [`Self::help`] and [`Self::last_words`] add it.
    #[must_use]
    pub fn failed(address: &Address, why: impl Into<String>) -> Self {
        Self::Failed { address: address.clone(), why: why.into(), help: None, last_lines: Vec::new() }
    }

    /// [`Self::Failed`] because of an error and of all that caused it.
    #[must_use]
    pub fn caused(address: &Address, error: &dyn std::error::Error) -> Self {
        Self::failed(address, causes::chain(error))
    }

    /// [`Self::Failed`] with what to do about it; any other is what it was.
    #[must_use]
    pub fn help(mut self, what: impl Into<String>) -> Self {
        if let Self::Failed { help, .. } = &mut self {
            *help = Some(what.into());
        }
        self
    }

    /// With what the failed container printed last, where there was one.
    #[must_use]
    pub fn last_words(mut self, lines: Vec<String>) -> Self {
        if let Self::RolledBack { last_lines, .. } | Self::Failed { last_lines, .. } = &mut self {
            *last_lines = lines;
        }
        self
    }

    /// The last lines that a failed container printed, where there are any.
    #[must_use]
    pub fn last_lines(&self) -> &[String] {
        match self {
            Self::RolledBack { last_lines, .. } | Self::Failed { last_lines, .. } => last_lines,
            _ => &[],
        }
    }

    /// What went wrong and, where it is known, what to do about it; without the address, which stands beside it.
    #[must_use]
    pub fn explained(&self) -> String {
        match self {
            Self::RolledBack { why, .. } => format!("{why}; the former version runs again"),
            Self::Failed { why, help: Some(help), .. } => format!("{why} ({help})"),
            Self::Failed { why, .. } | Self::Stale { why, .. } => why.clone(),
            other => other.to_string(),
        }
    }
}

/// The secrets of one environment, resolved at the moment of use.
pub struct Secrets {
    /// What passwords and keys are derived from.
    pub fleet: FleetSecret,
    /// Values the operator provided, by variable name.
    pub operator: BTreeMap<String, Secret>,
}

impl Secrets {
    /// The value a reference stands for; an operator's secret that was not provided is empty.
    #[must_use]
    pub fn resolve(&self, used: &SecretUse) -> Secret {
        match used {
            SecretUse::Password { matrix_id, epoch } => self.fleet.password(matrix_id, *epoch),
            SecretUse::Key { label } => self.fleet.key_for(label),
            SecretUse::Operator { name } => self.operator.get(name).cloned().unwrap_or_else(|| Secret::new(Vec::new())),
        }
    }
}
