//! Images in container registries: [`resolve`] a reference to a digest for `fleet.lock`, [`pull`] a pinned image's
//! layers into the store so that others can stand on it.
//!
//! Every byte is checked: a manifest against the digest it was asked by, a blob against its descriptor, the tar in
//! a layer against the config's diff id, each within declared bounds. [`RegistryError::Unreachable`] is its own
//! kind, because only the caller knows whether an environment needs the image at all.
//!
//! Deliberately absent, for now: credentials (anonymous pulls only), mirrors, pushing.

mod error;
mod manifest;
#[cfg(test)]
mod manifest_fuzz;
mod pull;

pub use error::RegistryError;
pub use pull::{pull, resolve};
