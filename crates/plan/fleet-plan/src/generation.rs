//! [`Generation`]: the record of one apply.

use std::collections::BTreeMap;

use fleet_derivation::Hash;
use fleet_model::Address;
use serde::{Deserialize, Serialize};

use crate::plan::{Action, Change, Reason};

/// What one apply did, and what every object of the environment derived from afterwards.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Generation {
    /// [`crate::SCHEMA`].
    pub schema: u32,
    /// 1, 2, 3… per environment.
    pub number: u64,
    /// Environment.
    pub environment: String,
    /// Seconds since 1970, UTC, when it ended.
    pub finished: u64,
    /// The user who applied, as the system calls them. `None` in generations of an earlier `fleetctl`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub who: Option<String>,
    /// The host that they applied from; `None` likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// Every object that is as declared, with the hash of its derivation (found in the store).
    pub objects: BTreeMap<Address, Hash>,
    /// Outputs known at the end, by derivation hash.
    pub outputs: BTreeMap<Hash, String>,
    /// What was changed.
    pub entries: Vec<Entry>,
}

/// One change of a generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Of what.
    pub address: Address,
    /// What was to happen.
    pub action: Action,
    /// Why.
    pub reasons: Vec<Reason>,
    /// Hash before.
    pub before: Option<Hash>,
    /// Hash after.
    pub after: Option<Hash>,
    /// How it ended.
    pub outcome: Outcome,
}

impl Entry {
    /// How a change of a plan ended.
    #[must_use]
    pub fn of(change: &Change, outcome: Outcome) -> Self {
        Self {
            address: change.address.clone(),
            action: change.action,
            reasons: change.reasons.clone(),
            before: change.before,
            after: change.after,
            outcome,
        }
    }
}

/// How a change ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// Done.
    Done,
    /// Nothing was to do after all.
    Unchanged,
    /// Undone: the former version runs again.
    RolledBack {
        /// Why.
        why: String,
    },
    /// Refused because the object moved since the plan was made.
    Stale {
        /// What moved.
        why: String,
    },
    /// Failed.
    Failed {
        /// Why.
        why: String,
    },
    /// Not tried, because something before it failed or the run was interrupted.
    Skipped,
}
