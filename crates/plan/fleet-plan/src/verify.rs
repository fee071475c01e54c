//! [`Facts`]: what was seen of an account before anything is made in it, and [`Finding`]: what that means.
//!
//! Deliberately absent: how it is seen (fleet-aws), and how it is judged (fleet-planner).

use std::collections::{BTreeMap, BTreeSet};

use fleet_stacks::{agent::BedrockModel, quota::Quota};
use serde::Serialize;

/// What is asked of an account.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Questions {
    /// Quotas that the environment takes something of.
    pub quotas: BTreeSet<Quota>,
    /// Models that agents are declared with.
    pub models: BTreeSet<BedrockModel>,
    /// ARN of the policy that bounds every role of the fleet.
    pub boundary: String,
    /// Roles that workflows act as, by name.
    pub workflow_roles: Vec<String>,
    /// The path of the environment's own roles.
    pub role_path: String,
    /// Name of the fleet secret.
    pub secret: String,
    /// Parameters that hold what an operator provides.
    pub parameters: BTreeSet<String>,
    /// Names of the environment's stacks in addresses.
    pub stacks: Vec<String>,
}

/// Something that was looked at; or why it could not be.
pub type Seen<T> = Result<T, Unseen>;

/// Why something could not be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unseen {
    /// The call, and what AWS says of it.
    pub why: String,
}

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// How much the account has.
    pub limits: BTreeMap<Quota, Seen<u64>>,
    /// How much of it is taken by anybody, where that can be counted.
    pub used: BTreeMap<Quota, Seen<u64>>,
    /// Whether models can be asked.
    pub models: BTreeMap<BedrockModel, Seen<Access>>,
    /// Is the boundary there?
    pub boundary: Seen<bool>,
    /// Which roles of workflows are there.
    pub workflow_roles: BTreeMap<String, Seen<bool>>,
    /// Who may act as the environment's roles that are there: JSON, by name.
    pub trusts: Seen<BTreeMap<String, String>>,
    /// The fleet secret.
    pub secret: Seen<SecretState>,
    /// What an operator provided before.
    pub parameters: Seen<BTreeMap<String, Provided>>,
    /// Templates of the stacks that stand, by their names in addresses.
    pub deployed: Seen<BTreeMap<String, String>>,
    /// Agents whose service is there.
    pub agents: Seen<BTreeSet<String>>,
}

/// Whether an account can use a model ("GetFoundationModelAvailability", "GetInferenceProfile").
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Access {
    /// It can.
    Ready,
    /// There is no such model or profile in the region.
    Absent,
    /// The inference profile is not active: AWS's word.
    Inactive(String),
    /// AWS does not let the account use it: what it says.
    Refused(String),
    /// The agreement with its maker is not in place: AWS's word.
    NoAgreement(String),
}

/// How the fleet secret is. Its value is not told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SecretState {
    /// There is none.
    Absent,
    /// It is on its way to be removed.
    Leaving,
    /// It is there; whoever asked may not read what is in it.
    Closed(String),
    /// It is no JSON object.
    Shapeless,
    /// The field is not among these.
    NoField(Vec<String>),
    /// The field holds too little, or no text.
    TooShort,
    /// As it should be.
    Right,
}

/// What a parameter holds that an operator provides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Provided {
    /// A value.
    Given,
    /// What stands for none.
    NotGiven,
    /// It is not there.
    Absent,
}

/// What something means for an `apply`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It is as needed.
    Ok,
    /// It could not be looked at.
    Unseen,
    /// An `apply` works, and something after it does not.
    Warning,
    /// An `apply` would fail.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What.
    pub what: String,
    /// What it means.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What is needed, where that is more than being there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub needed: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    /// Something and what was found of it.
    pub fn new(verdict: Verdict, what: impl Into<String>, found: impl Into<String>) -> Self {
        Self { what: what.into(), verdict, found: found.into(), needed: None, remedy: None }
    }

    /// What is needed.
    #[must_use]
    pub fn needs(mut self, needed: impl Into<String>) -> Self {
        self.needed = Some(needed.into());
        self
    }

    /// What to do.
    #[must_use]
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.remedy = Some(remedy.into());
        self
    }
}
