//! The homeserver as a [`fleet_apply::Provider`]: [`MatrixProvider`] observes and converges accounts and rooms, and
//! speaks for a person (`fleetctl say`).
//!
//! Two flavours of homeserver: Synapse, whose admin API sees and does everything as the operator's service account, and
//! any other (Conduit), where only the client-server API is there and identities are used one after the other.
//! Request and response shapes of the client-server API are `ruma`'s; the few of Synapse's admin API are in `synapse`.
//!
//! Deliberately absent: federation, end-to-end encryption, deactivating accounts (a deactivated name never comes back),
//! removing rooms that nobody declares (they are listed, a person decides).

mod account;
mod delete;
mod direct;
mod error;
mod http;
mod observe;
mod provider;
mod record;
mod register;
mod room;
mod say;
mod session;
mod state;
mod synapse;

pub use error::CallError;
pub use provider::{Flavour, Login, MatrixProvider, Settings};
pub use say::{Reply, Sent};
pub use session::{DEVICE, SERVICE_LOCALPART};

/// What the key is derived for that both the homeserver's container and we know: Synapse's `registration_shared_secret`.
pub const SHARED_SECRET_LABEL: &str = "synapse-registration-shared-secret";

/// What the token is derived for that registers accounts where there is no shared secret (Conduit).
pub const REGISTRATION_TOKEN_LABEL: &str = "registration-token";
