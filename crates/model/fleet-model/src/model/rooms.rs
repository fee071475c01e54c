//! Who is in which room: [`Rooms`].

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::{Level, PersonId};
use crate::origin::Origin;

/// The `rooms` node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rooms {
    /// Rules in the order declared.
    pub rules: Vec<RoomRule>,
    /// Which pairs get a direct-message room.
    pub direct_messages: BTreeSet<Pairing>,
}

/// Who gets a direct-message room with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// A person and whom they report to.
    ManagerReport,
    /// Two people with the same manager.
    SameManager,
    /// Two people of the same team of the same department.
    SameTeam,
}

/// One `room` node, alone or within `each "department"` / `each "team"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRule {
    /// Alias local part; may hold `{department}` or `{team}` within `each`.
    pub alias: String,
    /// Display name; `None` derives one from the alias.
    pub name: Option<String>,
    /// Topic.
    pub topic: Option<String>,
    /// What it repeats over.
    pub each: Each,
    /// Who is in it.
    pub members: Vec<MemberRule>,
    /// Anybody may join.
    pub public: bool,
    /// Who may moderate: level 50.
    pub moderators: Vec<MemberRule>,
    /// Where.
    pub origin: Origin,
}

/// What a room rule repeats over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Each {
    /// One room.
    Once,
    /// One per department that has deployed members by the rule.
    Department,
    /// One per team that has a deployed person.
    Team,
}

/// `members "aaron.phillips" level="ceo,vp" in="{department}"`: ids, or attributes that must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRule {
    /// Everybody: `"*"`.
    pub everyone: bool,
    /// Named people; `ceo` and other level words name everybody of that level.
    pub ids: BTreeSet<PersonId>,
    /// Levels; empty: any.
    pub levels: BTreeSet<Level>,
    /// Only people of the department or team that `each` is at (the head of all is never excluded by it).
    pub in_scope: bool,
    /// Only people of this department.
    pub department: Option<String>,
    /// Only people of this team.
    pub team: Option<String>,
}
