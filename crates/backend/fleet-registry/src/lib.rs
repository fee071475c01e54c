//! Images in container registries (OCI distribution 1.1), through one [`Client`]: [`Client::resolve`] a reference to a
//! digest for `fleet.lock`, [`Client::pull`] a pinned image into the store, [`Client::push`] what a fleet made with the
//! statements about it.
//!
//! ```text
//! reference   what a text names, and where that is asked for
//! mirrors     other places to pull from
//! credentials who we are: docker's configuration and helpers, or a caller's own source
//! auth        Basic and Bearer, tokens
//! transport   one request: signed, counted, judged; when it is tried again
//! pull        manifests and blobs, never trusted
//! push        from the first look at a tag to the manifest under it
//! blob        one blob to its place: there, mounted, sent, or streamed through from elsewhere
//! referrers   statements, also where a registry has no API for them
//! ```
//!
//! [`LocalImage`] reads bases from OCI layouts and `docker save` archives on disk, [`layout::write`] writes layouts.
//!
//! Every byte is checked: a manifest against the digest it was asked by, a blob against its descriptor, the tar in a
//! layer against the config's diff id, each within declared bounds. A push becomes visible with its last request.
//! [`RegistryError::Unreachable`] is its own kind, because only the caller knows whether an environment needs the image.
//!
//! Deliberately absent: chunked uploads (ECR mishandles them), deleting, listing tags, SDKs of clouds (their tokens
//! come through [`Credentials`]).

mod archive;
mod auth;
mod blob;
mod client;
mod config;
mod credentials;
mod error;
mod events;
pub mod layout;
mod local;
mod manifest;
#[cfg(test)]
mod manifest_fuzz;
mod mirrors;
mod pull;
mod push;
mod reference;
mod referrers;
mod transport;

pub use blob::{Left, Origin, Source, StoreBlobs};
pub use client::Client;
pub use config::RegistryConfig;
pub use credentials::{Credential, Credentials, CredentialsError, DockerConfig, Nobody};
pub use error::RegistryError;
pub use events::{Event, Events, Notice, Pushed};
pub use local::{LocalError, LocalImage};
pub use mirrors::{MirrorError, Mirrors};
pub use reference::Target;
