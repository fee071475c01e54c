//! AWS: one account in one region, its CloudFormation stacks and its image registry.
//!
//! [`Account`] is the way in: the SDK's clients, checked to be the account that `fleet.kdl` names. [`StackProvider`] makes
//! stacks through change sets. [`emulator`] starts an account on loopback that answers the same calls.
//! Deliberately absent: rendering of templates (fleet-stacks), planning, agents (not yet), and the pushing of layers, which
//! is the registry's own protocol (fleet-registry).

mod account;
mod calls;
pub mod emulator;
mod error;
mod repositories;
mod secrets;
mod stacks;

pub use account::{Account, Place};
pub use error::AwsError;
pub use repositories::{Login, Repository};
pub use stacks::StackProvider;
