//! Where a fleet runs, and how: [`Environment`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Overrides, PersonId, Size};
use crate::{
    aws::Network,
    origin::{Declared, Origin},
};

/// One `environment` node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Name.
    pub name: String,
    /// Where it runs.
    pub target: Target,
    /// `target … compression="gzip"`: how layers of its images are compressed.
    #[serde(default)]
    pub compression: LayerCompression,
    /// `registry "host:5000/prefix"`: where its images are pushed.
    #[serde(default)]
    pub registry: Option<Declared<RegistryPlace>>,
    /// Which homeserver.
    pub homeserver: Homeserver,
    /// Web client's image, when there is one.
    pub web: Option<Web>,
    /// The fleet's manager, for AWS: it makes accounts and rooms from inside the network.
    pub manager: Option<Manager>,
    /// Ids of the people who are deployed as agents, selectors already resolved.
    pub deploy: BTreeMap<PersonId, Option<Origin>>,
    /// `override { model … }`: what this environment imposes on every agent: defaults < department < person < environment.
    /// It exists because a laptop has other models and less memory than the cloud.
    pub overrides: Overrides,
    /// `limits agents=50`.
    pub agent_limit: Option<Declared<u32>>,
    /// `network …`, for AWS.
    pub network: Network,
    /// `logs retention="7d"`, in days, for AWS: one of [`crate::aws::LOG_DAYS`].
    pub log_days: Declared<u32>,
    /// `backup retention="7d"`, in days, for AWS; `None`: no backups.
    pub backup_days: Option<Declared<u32>>,
    /// `compute "fargate-spot"`, for AWS: agents run on spare capacity, which AWS takes back with two minutes' notice.
    pub agents_on_spot: Option<Declared<bool>>,
    /// `credentials "fleet-secret"`, for AWS: agents get the fleet secret and derive their password from it. Else each gets
    /// its own password only.
    pub agents_get_fleet_secret: Option<Declared<bool>>,
    /// `rollout wave=10 pause="30s" max-failures=1`.
    pub rollout: Rollout,
    /// Where.
    pub origin: Origin,
}

/// Where an environment runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "target")]
pub enum Target {
    /// A container engine.
    Docker,
    /// Amazon Web Services.
    Aws {
        /// 12 digits.
        account: String,
        /// Region.
        region: String,
        /// `endpoint-url`: in place of AWS's own addresses, an emulator. Part of no derivation.
        #[serde(default)]
        endpoint: Option<String>,
    },
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerCompression {
    /// For every engine and registry of today.
    #[default]
    Zstd,
    /// For tools that know nothing else.
    Gzip,
}

/// A registry and where in it a fleet's repositories are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RegistryPlace {
    /// Host in lower case.
    pub host: String,
    /// Port, where it is not that of the scheme.
    pub port: Option<u16>,
    /// Before each repository, without slashes at its ends; empty for none.
    pub prefix: String,
}

impl std::fmt::Display for RegistryPlace {
    /// `host[:port][/prefix]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Which homeserver implementation an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HomeserverKind {
    /// Element's Synapse.
    Synapse,
    /// Conduit.
    Conduit,
}

/// `homeserver image="homeserver" kind="synapse" port=6167`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Homeserver {
    /// Image name.
    pub image: String,
    /// Implementation.
    pub kind: HomeserverKind,
    /// Operator port on 127.0.0.1.
    pub port: u16,
    /// CPU and memory.
    pub size: Size,
    /// Where.
    pub origin: Option<Origin>,
}

/// `web image="element" port=8080`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Web {
    /// Image name.
    pub image: String,
    /// Operator port on 127.0.0.1.
    pub port: u16,
    /// CPU and memory.
    pub size: Size,
    /// Where.
    pub origin: Origin,
}

/// `manager image="manager"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    /// Image name.
    pub image: String,
    /// CPU and memory.
    pub size: Size,
    /// Where.
    pub origin: Origin,
}

/// The longest time an agent may be given to become healthy: half an hour.
pub const MAX_HEALTHY_WITHIN_SECONDS: u32 = 1_800;

/// How agents roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Agents rolled at once.
    pub wave: u32,
    /// Seconds between waves.
    pub pause_seconds: u32,
    /// Failures after which the rollout stops.
    pub max_failures: u32,
    /// Seconds an agent has to become healthy.
    pub healthy_within_seconds: u32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { wave: 10, pause_seconds: 0, max_failures: 1, healthy_within_seconds: 180 }
    }
}
