//! [`ManagerSettings`]: what the stack of an environment tells its manager, and where the two sides of it meet.

use fleet_model::model::HomeserverKind;
use serde::{Deserialize, Serialize};

/// What all objects of the manager begin with, in the config bucket.
pub const MANAGER: &str = "manager/";
/// Where objects of work are.
pub const WORK: &str = "manager/work";
/// Where progress is, below it one folder per object of work.
pub const PROGRESS: &str = "manager/progress";
/// What the manager saw last.
pub const OBSERVED: &str = "manager/observed.json";

/// What a manager must know beside its bucket and the fleet secret, as JSON in `FLEET_MANAGER`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManagerSettings {
    /// [`Self::SCHEMA`].
    pub schema: u32,
    /// Fleet name.
    pub fleet: String,
    /// Environment name.
    pub environment: String,
    /// Matrix server name.
    pub domain: String,
    /// 12 digits.
    pub account: String,
    /// For instance `us-east-1`.
    pub region: String,
    /// Which homeserver it is.
    pub kind: HomeserverKind,
    /// URL of the homeserver, within the network.
    pub homeserver: String,
}

impl ManagerSettings {
    /// Version of this.
    pub const SCHEMA: u32 = 1;
}
