//! [`State`]: what providers observed, by address.

use std::collections::BTreeMap;

use fleet_derivation::Hash;
use fleet_model::Address;
use serde::{Deserialize, Serialize};

use fleet_objects::Desired;

/// What exists, as far as it could be seen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// Objects that belong to this environment, wanted or not.
    pub objects: BTreeMap<Address, Observed>,
    /// Outputs found at the target, by derivation hash: an image tagged `d-<hash>` and its digest.
    pub outputs: BTreeMap<Hash, String>,
    /// Things found that nobody declared and that only a person may remove: an unknown room, a stray volume.
    pub orphans: BTreeMap<Address, String>,
    /// Stacks that are in place, by address.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub stacks: BTreeMap<Address, DeployedStack>,
    /// What could not be seen and why: the homeserver does not run yet, say. Plans about it are conditional.
    pub unseen: Vec<String>,
}

impl State {
    /// Joins what two providers saw.
    #[must_use]
    pub fn merged(mut self, other: Self) -> Self {
        self.objects.extend(other.objects);
        self.outputs.extend(other.outputs);
        self.orphans.extend(other.orphans);
        self.stacks.extend(other.stacks);
        self.unseen.extend(other.unseen);
        self
    }
}

/// A CloudFormation stack as it was deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployedStack {
    /// Its template as it was submitted: JSON.
    pub template: String,
    /// Values of its parameters.
    pub parameters: BTreeMap<String, String>,
    /// Its outputs.
    pub outputs: BTreeMap<String, String>,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

/// One object as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observed {
    /// The derivation hash it carries (a container's label, an image's tag), where its kind carries one.
    pub hash: Option<Hash>,
    /// What is really there, for kinds that are compared by value (accounts, rooms).
    pub actual: Option<Desired>,
    /// Running or not.
    pub run: RunState,
    /// Health.
    pub health: Health,
    /// The outside system's id: container id, room id, image id.
    pub id: String,
    /// Changes whenever the object changes; a write is refused when it is no longer this (compare and set).
    pub version: String,
    /// Work that an earlier apply left unfinished here; a no-op is not enough to call it right.
    pub unfinished: Option<String>,
}

/// Whether something runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunState {
    /// It runs.
    Running,
    /// It exists and does not run.
    Stopped,
    /// It has nothing to run: an account, a room, an image.
    Present,
}

/// Health as the outside system tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// Serves.
    Healthy,
    /// Not yet known.
    Starting,
    /// Does not serve.
    Unhealthy,
    /// Has no health.
    None,
}
