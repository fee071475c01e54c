//! A fake world behind the same [`fleet_apply::Provider`] trait as the real one, and the contract both are held to.
//!
//! - [`World`]: containers, the directory, images, accounts and rooms in memory; what is unhealthy, what fails and when
//!   a run dies are arguments, so that one seed is one story.
//! - [`contract::provider_contract`]: what every provider must do, run here for the fake and in `fleet-docker` for the
//!   real engine: a fake that behaves better than the real thing is worth nothing.
//! - [`CallLog`]: counts calls, and kills a run before a given write.
//! - [`free_port`]: a port for a server that a test starts.
//! - [`busybox`]: the files of an image that can do something, for tests with an engine.
//! - [`venv`]: a Python program that a test runs, installed once per machine.
//!
//! Deliberately absent: planning beyond [`contract::change`], time.

mod busybox;
mod containers;
pub mod contract;
mod faults;
mod log;
mod port;
mod venv;
mod world;

pub use busybox::busybox;
pub use faults::Faults;
pub use log::{CallLog, KILLED, killed};
pub use port::{free_port, until_closed};
pub use venv::venv;
pub use world::{SimProvider, World};
