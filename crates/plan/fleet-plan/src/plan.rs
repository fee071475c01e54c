//! [`Plan`]: every change, complete, in the order in which it is made.

use std::fmt;

use fleet_derivation::{Derivation, Hash, Input};
use fleet_model::{Address, Origin};
use serde::{Deserialize, Serialize};

use fleet_objects::Desired;
use fleet_stacks::ResourceChange;

/// Version of the plan format, in JSON and in saved plans.
pub const SCHEMA: u32 = 1;

/// What to do to bring one environment from what is to what is declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Fleet name.
    pub fleet: String,
    /// Environment name.
    pub environment: String,
    /// Hash of the derivation graph that it was made from.
    pub graph: Hash,
    /// Changes, in order: by kind, then name.
    pub changes: Vec<Change>,
    /// How many objects are right already.
    pub unchanged: usize,
    /// What a person should know: orphans, what could not be seen, limits.
    pub notes: Vec<Note>,
}

impl Plan {
    /// Nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// A remark beside the plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// What it is about.
    pub address: Option<Address>,
    /// The remark.
    pub text: String,
}

/// What happens to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// It does not exist.
    Create,
    /// It is changed in place.
    Update,
    /// It is removed and made anew.
    Replace,
    /// Its container is replaced by one that becomes healthy, or the former one returns.
    Roll,
    /// It is removed.
    Delete,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Replace => "replace",
            Self::Roll => "roll",
            Self::Delete => "delete",
        })
    }
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Of what.
    pub address: Address,
    /// What happens.
    pub action: Action,
    /// It may turn out that nothing is to do (an image that is rebuilt to the same bytes, a room that could not be seen).
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub if_changed: bool,
    /// Why, root causes first.
    pub reasons: Vec<Reason>,
    /// Hash before.
    pub before: Option<Hash>,
    /// Hash after; provisional while `derivation` has inputs whose output is unknown.
    pub after: Option<Hash>,
    /// The version of the object that this was planned against; `None`: it must not exist.
    pub expect: Option<String>,
    /// As it should be; `None` for a deletion.
    pub desired: Option<Desired>,
    /// The derivation, so that the executor can finish a provisional hash and `why` can explain it later.
    pub derivation: Option<Derivation>,
    /// Of a stack that exists: what happens to its resources. Nothing else may be replaced or removed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resources: Vec<ResourceChange>,
}

/// Why a change is needed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause")]
pub enum Reason {
    /// An input has another value: a root cause.
    Input {
        /// Its name.
        input: String,
        /// What it was.
        before: Option<Input>,
        /// What it is.
        after: Option<Input>,
        /// Where it is declared.
        origin: Option<Origin>,
    },
    /// Another derivation changed, which has reasons of its own.
    Cascade {
        /// Which.
        from: Address,
    },
    /// It does not exist yet.
    Missing,
    /// It exists but is not wanted any more.
    Unwanted,
    /// It exists with the right inputs but is not as it should be: stopped, unhealthy, changed behind our back.
    Drift {
        /// What is wrong, for people: `topic is "a", should be "b"`.
        what: String,
    },
    /// It carries a hash whose derivation is not in the store (another checkout applied it), so the difference is unknown.
    Unknown,
}
