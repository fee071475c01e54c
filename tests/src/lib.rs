//! What every test shares: a throw-away project, the built program, real services.
//!
//! [`Fleet`] is where stories begin. Its agents are *light*: a shell script in a small image instead of OpenClaw, so
//! that a roll takes a second. Everything else is real: the engine, the image, Synapse, the program as a process.

pub mod cloud;
pub mod engine;
pub mod fleet;
pub mod homeserver;
pub mod model;
pub mod run;
pub mod search;
pub mod sources;

pub use fleet::Fleet;
pub use run::Output;
