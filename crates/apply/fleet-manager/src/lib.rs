//! Accounts and rooms of a homeserver that only its own network reaches: [`Manager`] runs inside and makes them,
//! [`RemoteMatrix`] is the operator's side of it, a [`fleet_apply::Provider`] like any other. Between them are objects
//! in one bucket ([`protocol`]), signed with a key derived from the fleet secret.
//!
//! What a manager makes it makes through a provider that it is given, by the engine's own executor. Deliberately absent:
//! which homeserver that is, how a bucket is reached, and any secret value in an object.

mod follow;
mod journal;
mod mailbox;
mod manager;
pub mod protocol;
mod remote;

pub use mailbox::{MailError, Mailbox};
pub use manager::{Homeserver, Manager, Pace};
pub use remote::{Reach, RemoteMatrix, Waits};
