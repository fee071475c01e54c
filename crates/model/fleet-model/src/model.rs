//! [`Model`]: everything `fleet.kdl` and its includes declare, checked, with the place of each declaration.
//!
//! Deliberately absent: what an environment makes of it (see [`crate::resolved`]), hashes, and anything read
//! from a machine.

mod environment;
mod images;
mod models;
mod org;
mod rooms;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use self::{
    environment::{
        Environment, Homeserver, HomeserverKind, LayerCompression, MAX_HEALTHY_WITHIN_SECONDS, Manager, RegistryPlace,
        Rollout, Target, Web,
    },
    images::{BaseRef, ContainerfileRecipe, Fetched, Image, Layer, LayeredRecipe, Recipe, Unpack, User},
    models::{ModelChoice, ModelProvider, ModelProviderKind, SecretName, ServedModel},
    org::{Department, Level, Org, Overrides, Person, PersonId, Size, Team},
    rooms::{Each, MemberRule, Pairing, RoomRule, Rooms},
};
use crate::{
    origin::{Declared, Origin},
    source::RelPath,
};

/// A whole project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The `fleet` node.
    pub fleet: Fleet,
    /// Folder of templates and skills; `templates "templates"`.
    pub templates: Declared<RelPath>,
    /// The `org` node.
    pub org: Org,
    /// `models { provider … }` by provider name.
    pub providers: BTreeMap<String, ModelProvider>,
    /// `images { image … }` by name.
    pub images: BTreeMap<String, Image>,
    /// The `rooms` node.
    pub rooms: Rooms,
    /// `environment` nodes by name, `extends` already applied.
    pub environments: BTreeMap<String, Environment>,
}

/// `fleet "anycompany" domain="anycompany.corp" tool-version=">=0.1"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Name in container, stack and task-family names: lower case, digits, dashes.
    pub name: String,
    /// The Matrix server name.
    pub domain: String,
    /// Where.
    pub origin: Origin,
}
