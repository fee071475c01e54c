//! AWS: one account in one region, its CloudFormation stacks and its image registry.
//!
//! [`Account`] is the way in: the SDK's clients, checked to be the account that `fleet.kdl` names. [`StackProvider`] makes
//! stacks through change sets, [`AgentProvider`] makes agents as services of their own, and
//! [`DirectoryProvider`] puts the org directory where they look for it. [`Tunnel`] leads to what runs in its networks. [`emulator`] starts an account on
//! loopback that answers the same calls.
//! Deliberately absent: rendering of templates and task definitions (fleet-stacks), planning, and the pushing of layers,
//! which is the registry's own protocol (fleet-registry).

mod account;
mod agents;
mod bucket;
mod bundles;
mod calls;
mod definitions;
mod directory;
pub mod emulator;
mod error;
mod files;
mod logs;
mod objects;
mod pauses;
mod rates;
mod repositories;
mod roles;
mod secrets;
mod services;
mod signed;
mod stacks;
mod standing;
mod survey;
mod sweep;
mod teardown;
mod tunnel;
mod vault;

pub use account::{Account, Identity, Place};
pub use agents::AgentProvider;
pub use directory::DirectoryProvider;
pub use error::AwsError;
pub use logs::Log;
pub use repositories::{Login, Repository};
pub use stacks::StackProvider;
pub use standing::Standing;
pub use sweep::{Sweep, Unneeded, YOUNG};
pub use teardown::{Kept, Teardown, Thing};
pub use tunnel::{Far, PluginTunnel, SsmTunnel, Tunnel, TunnelError};
