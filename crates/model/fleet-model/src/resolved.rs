//! [`Resolved`]: what one environment makes of a [`Model`](crate::model::Model): its agents with every override
//! applied, its accounts, rooms and direct-message pairs. Made by [`crate::resolve`].

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    model::{Level, ModelChoice, PersonId, Size},
    origin::{Declared, Origin},
    source::RelPath,
};

/// One environment, resolved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    /// Its name.
    pub environment: String,
    /// Agents by person id.
    pub agents: BTreeMap<PersonId, Agent>,
    /// Accounts by local part: every agent, every human who is in a room. Not the operator's service account.
    pub accounts: BTreeMap<PersonId, Account>,
    /// Rooms by alias local part.
    pub rooms: BTreeMap<String, Room>,
    /// Direct-message pairs, each in id order.
    pub direct_messages: BTreeSet<(PersonId, PersonId)>,
    /// The org directory as agents see it: everybody deployed and every human, by id.
    pub directory: BTreeMap<PersonId, DirectoryEntry>,
    /// Names of the images that this environment uses, transitively (`base image=`).
    pub images: BTreeSet<String>,
}

/// One agent with every override applied; each value remembers where it was declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Agent {
    /// Person id.
    pub id: PersonId,
    /// `@id:domain`.
    pub matrix_id: String,
    /// Full name.
    pub name: String,
    /// Job title.
    pub title: String,
    /// Rank.
    pub level: Level,
    /// Department name.
    pub department: Option<String>,
    /// Team name.
    pub team: Option<String>,
    /// Whom they report to.
    pub reports_to: Option<PersonId>,
    /// Image name.
    pub image: Declared<String>,
    /// Model and fallbacks.
    pub model: Declared<ModelChoice>,
    /// Skill names.
    pub skills: Declared<BTreeSet<String>>,
    /// Seconds between heartbeats; 0: none.
    pub heartbeat_seconds: Declared<u32>,
    /// Answer in rooms only when mentioned.
    pub require_mention: Declared<bool>,
    /// CPU and memory.
    pub size: Declared<Size>,
    /// Role template: the person's own, or `<templates>/roles/<level>.md`.
    pub template: Declared<RelPath>,
    /// Where the person was declared.
    pub origin: Origin,
}

/// One Matrix account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Local part.
    pub id: PersonId,
    /// `@id:domain`.
    pub matrix_id: String,
    /// Display name.
    pub display_name: String,
    /// A real person.
    pub human: bool,
    /// Where.
    pub origin: Origin,
}

/// One room.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Room {
    /// Alias local part.
    pub alias: String,
    /// Display name.
    pub name: String,
    /// Topic; empty: none.
    pub topic: String,
    /// Ids of the people in it.
    pub members: BTreeSet<PersonId>,
    /// Ids with power level 50.
    pub moderators: BTreeSet<PersonId>,
    /// Anybody may join.
    pub public: bool,
    /// Where.
    pub origin: Origin,
}

/// One line of the org directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectoryEntry {
    /// Person id.
    pub id: PersonId,
    /// Full name.
    pub name: String,
    /// Job title.
    pub title: String,
    /// Rank.
    pub level: Level,
    /// Department name.
    pub department: Option<String>,
    /// Team name.
    pub team: Option<String>,
    /// Whom they report to.
    pub reports_to: Option<PersonId>,
    /// `@id:domain`.
    pub matrix_id: String,
    /// Has a running agent or is a human with an account.
    pub deployed: bool,
}
