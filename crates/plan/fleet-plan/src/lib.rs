//! The nouns between planner and executor: what is ([`State`]), what should be ([`Desired`]), what to do
//! ([`Plan`], made of [`Change`]s), and what was done ([`Generation`]).
//!
//! A plan is complete: the executor makes no choices, it only finds out that a change is no longer needed or no
//! longer possible. Deliberately absent: how a plan is made (fleet-planner), effects, secrets.

mod generation;
mod plan;
mod state;
pub mod verify;

pub use fleet_objects::{
    AccountSpec, AgentRole, AgentSpec, Bundle, ContainerSpec, Content, Desired, DirectorySpec, HealthProbe, ImageSpec,
    PlacedFile, PublishedPort, RoomSpec, SECRET_PLACE, SecretUse, StackParameter, StackSpec, VolumeMount, directory,
    manager,
};
pub use fleet_stacks::ResourceChange;
pub use generation::{Entry, Generation, Outcome};
pub use plan::{Action, Change, Note, Plan, Reason, SCHEMA};
pub use state::{DeployedStack, Health, Observed, RunState, State};
