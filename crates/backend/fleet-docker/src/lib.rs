//! One container engine (Docker, or Podman's compatible socket) as a [`fleet_apply::Provider`].
//!
//! - [`Engine`]: a connection that answered; found by [`engine::find`], installed by [`install::install`].
//! - [`DockerProvider`]: containers of services and agents, the org directory, volumes, the network.
//! - [`Engine`]'s image methods (`images`, [`save`]), [`containerfile::build`], logs, [`DockerProvider::purge`].
//!
//! Flow of a change: `observe` lists → planner → `apply` lists the one object again → [`recover::steps`] (pure) says
//! what brings it from here to there → `roll` runs those steps. A killed run leaves a state that `steps` knows.
//!
//! Deliberately absent: planning, hashing, assembling images (fleet-oci), registries, reading the environment.

mod build_status;
mod calls;
pub mod containerfile;
pub mod directory;
pub mod engine;
mod error;
pub mod files;
pub mod images;
pub mod install;
pub mod labels;
pub mod logs;
mod observe;
mod provider;
mod purge;
pub mod recover;
mod roll;
pub mod save;
pub mod scripts;
mod spec;
mod wait;

pub use engine::{Engine, EngineKind, EngineSearch, Search};
pub use error::EngineError;
pub use provider::DockerProvider;
pub use purge::Purged;
