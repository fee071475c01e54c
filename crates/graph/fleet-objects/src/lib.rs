//! [`Desired`]: one object as it should be, complete, as a provider needs it. No secret values: only references.
//!
//! Deliberately absent: how objects are derived (fleet-graph) and what is done about them (fleet-plan).

mod agent;
pub mod directory;
pub mod manager;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleet_derivation::Hash;
use fleet_model::{Address, model::Size};
use fleet_oci::ImageRecipe;
use serde::{Deserialize, Serialize};

pub use agent::{AgentRole, AgentSpec, Bundle};
pub use directory::DirectorySpec;
pub use manager::ManagerSettings;

/// One object as it should be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "object")]
pub enum Desired {
    /// A container image.
    Image(ImageSpec),
    /// A service's or an agent's container.
    Container(ContainerSpec),
    /// An agent's service on AWS.
    Agent(Box<AgentSpec>),
    /// The org directory.
    Directory(DirectorySpec),
    /// A Matrix account.
    Account(AccountSpec),
    /// A Matrix room.
    Room(RoomSpec),
    /// A CloudFormation stack.
    Stack(StackSpec),
}

/// A CloudFormation stack.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StackSpec {
    /// The template: JSON without white space, at most 1 MB.
    pub template: String,
    /// Where each parameter's value comes from.
    pub parameters: BTreeMap<String, StackParameter>,
    /// Its tags, which never change.
    pub tags: BTreeMap<String, String>,
    /// What its services read from Parameter Store and must be there before they start: names, and the labels under
    /// which the values are derived from the fleet secret.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, String>,
}

/// Where a stack parameter's value comes from when the stack is deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "from")]
pub enum StackParameter {
    /// An image of the fleet, as `repository@digest`.
    Image {
        /// Its name in `fleet.kdl`.
        image: String,
    },
    /// An output of another stack.
    Output {
        /// The stack's name in addresses.
        stack: String,
        /// The output.
        output: String,
    },
    /// A machine image that `fleet.lock` pins.
    MachineImage,
}

/// An image to have at the target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageSpec {
    /// `agent`; the repository is `<fleet>/<name>`, the tag `d-<derivation hash>`.
    pub name: String,
    /// How it is made.
    pub recipe: ImageRecipe,
    /// Argument vectors that must succeed in the image before anything rolls.
    pub checks: Vec<Vec<String>>,
}

/// A container: homeserver, web client or agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerSpec {
    /// The image it runs.
    pub image: Address,
    /// The image's derivation hash: its tag is `d-<hash>`.
    pub image_hash: Hash,
    /// The image's output digest where it was known at plan time.
    pub image_output: Option<String>,
    /// Environment.
    pub env: BTreeMap<String, String>,
    /// In place of the image's command.
    pub command: Option<Vec<String>>,
    /// Files put into the container before it starts.
    pub files: Vec<PlacedFile>,
    /// Volumes, each private to this environment.
    pub volumes: Vec<VolumeMount>,
    /// Ports published on 127.0.0.1.
    pub ports: Vec<PublishedPort>,
    /// CPU and memory limits.
    pub size: Size,
    /// How to tell that it serves.
    pub health: Option<HealthProbe>,
    /// Its own host name; constant over rolls, because OpenClaw tells a dead predecessor from a live rival by it.
    pub hostname: String,
    /// Names under which other containers of the environment reach it.
    pub aliases: BTreeSet<String>,
    /// Give it a name for the machine that runs the engine (`host.docker.internal`).
    pub host_gateway: bool,
    /// Seconds between SIGTERM and SIGKILL.
    pub stop_grace_seconds: u32,
    /// Seconds it has to become healthy after a start; then a roll is undone.
    pub healthy_within_seconds: u32,
    /// Read-only root file system with writable `/tmp`.
    pub read_only_root: bool,
}

/// A file in a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlacedFile {
    /// Absolute path in the container.
    pub path: String,
    /// Permission bits, for instance `0o400`.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
    /// The bytes or where they come from.
    pub content: Content,
}

/// What a file holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "from")]
pub enum Content {
    /// Text, part of the plan.
    Text {
        /// The text; one copy, however many containers have it.
        text: Arc<str>,
    },
    /// A secret, looked up when the file is written and never before.
    Secret {
        /// Which.
        secret: SecretUse,
    },
    /// Text around one secret, which takes the place of [`SECRET_PLACE`] when the file is written: for programs that
    /// want everything in one file.
    Filled {
        /// The text.
        text: String,
        /// Which.
        secret: SecretUse,
    },
}

/// Where the secret goes in [`Content::Filled`].
pub const SECRET_PLACE: &str = "{{secret}}";

impl Content {
    /// The secret that the file holds.
    #[must_use]
    pub const fn secret(&self) -> Option<&SecretUse> {
        match self {
            Self::Text { .. } => None,
            Self::Secret { secret } | Self::Filled { secret, .. } => Some(secret),
        }
    }
}

/// A reference to a secret value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "secret")]
pub enum SecretUse {
    /// The derived password of an account.
    Password {
        /// `@id:domain`.
        matrix_id: String,
        /// Epoch.
        epoch: u32,
    },
    /// A key derived from the fleet secret for a purpose: see `FleetSecret::key_for`.
    Key {
        /// The purpose.
        label: String,
    },
    /// A value that the operator provides in the environment variable of this name. Absent: the file is empty and the
    /// container is told so by its own configuration.
    Operator {
        /// The variable.
        name: String,
    },
}

/// A named volume in a container. Its name at the target is `<fleet>-<environment>-<volume>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct VolumeMount {
    /// `data-aaron.phillips`, `directory`, `homeserver`.
    pub volume: String,
    /// Absolute path in the container.
    pub path: String,
    /// Read only.
    pub read_only: bool,
}

/// A port published on 127.0.0.1 of the operator's machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublishedPort {
    /// On the operator's machine.
    pub host: u16,
    /// In the container.
    pub container: u16,
}

/// A command in the container that tells whether it serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HealthProbe {
    /// Argument vector; exit code 0 is healthy.
    pub command: Vec<String>,
    /// Seconds between probes.
    pub interval_seconds: u32,
    /// Seconds a probe may take.
    pub timeout_seconds: u32,
    /// Seconds after the start in which failures do not count.
    pub start_period_seconds: u32,
    /// Failures in a row before it counts as unhealthy.
    pub retries: u32,
}

/// A Matrix account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountSpec {
    /// `@id:domain`.
    pub matrix_id: String,
    /// Display name.
    pub display_name: String,
    /// Password epoch.
    pub epoch: u32,
}

/// A Matrix room as the homeserver should have it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomSpec {
    /// Local part of the canonical alias.
    pub alias: String,
    /// `m.room.name`; for direct messages empty.
    pub name: String,
    /// `m.room.topic`; empty: none.
    pub topic: String,
    /// Matrix ids of the members, without the operator's service account.
    pub members: BTreeSet<String>,
    /// Power levels of members that differ from 0.
    pub power: BTreeMap<String, i64>,
    /// Anybody may join.
    pub public: bool,
    /// A direct-message room of exactly two members, without the service account.
    pub direct: bool,
}
