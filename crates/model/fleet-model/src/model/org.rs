//! People, departments and teams: [`Org`]; what may be set for all or each of them: [`Overrides`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::ModelChoice;
use crate::{
    origin::{Declared, Origin},
    source::RelPath,
};

/// A person's name in addresses and Matrix local parts: `aaron.phillips`.
pub type PersonId = String;

/// Rank of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The head.
    Ceo,
    /// Heads a department.
    Vp,
    /// Heads a team.
    Director,
    /// Leads people in a team.
    Manager,
    /// Individual contributor.
    Ic,
}

impl Level {
    /// Every level, highest first.
    pub const ALL: [Self; 5] = [Self::Ceo, Self::Vp, Self::Director, Self::Manager, Self::Ic];

    /// The word in `fleet.kdl` and in template file names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ceo => "ceo",
            Self::Vp => "vp",
            Self::Director => "director",
            Self::Manager => "manager",
            Self::Ic => "ic",
        }
    }
}

/// People, departments and teams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// Overrides that apply to everybody.
    pub defaults: Overrides,
    /// By name.
    pub departments: BTreeMap<String, Department>,
    /// Everybody, humans included, by id.
    pub people: BTreeMap<PersonId, Person>,
}

/// One department.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Department {
    /// As people write it: `FP&A`.
    pub name: String,
    /// Slug used in room aliases; `alias=` or derived from the name.
    pub alias: String,
    /// Overrides for its people.
    pub defaults: Overrides,
    /// Its teams by name.
    pub teams: BTreeMap<String, Team>,
    /// Where.
    pub origin: Origin,
}

/// One team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Team {
    /// As people write it.
    pub name: String,
    /// Slug used in room aliases; `alias=` or derived from the name.
    pub alias: String,
    /// Where.
    pub origin: Origin,
}

/// One person, human or agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Matrix local part.
    pub id: PersonId,
    /// Full name.
    pub name: String,
    /// Job title.
    pub title: String,
    /// Rank.
    pub level: Level,
    /// Department, except for the head of all.
    pub department: Option<String>,
    /// Team within the department.
    pub team: Option<String>,
    /// Who they report to.
    pub reports_to: Option<PersonId>,
    /// A real person: has an account, never an agent.
    pub human: bool,
    /// What differs from department and defaults.
    pub overrides: Overrides,
    /// Where (a line of `fleet.kdl` or of the directory file).
    pub origin: Origin,
}

/// What can be set for everybody, a department or a person; the nearest wins, per field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Primary model and fallbacks, each `provider/model-id`.
    pub model: Option<Declared<ModelChoice>>,
    /// Names of skills, each a folder below `<templates>/skills/`.
    pub skills: Option<Declared<BTreeSet<String>>>,
    /// Seconds between heartbeats; 0 switches them off.
    pub heartbeat_seconds: Option<Declared<u32>>,
    /// Answer in rooms only when mentioned.
    pub require_mention: Option<Declared<bool>>,
    /// CPU and memory.
    pub size: Option<Declared<Size>>,
    /// A template of the role in place of `roles/<level>.md`.
    pub template: Option<Declared<RelPath>>,
    /// The image that the agent runs.
    pub image: Option<Declared<String>>,
}

/// `size cpu=1024 memory-mib=2048`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// CPU units, 1024 to a core.
    pub cpu: u32,
    /// Mebibytes.
    pub memory_mib: u32,
}
