//! Packages from Debian, npm and Python indexes: resolved into `fleet.lock` on request, fetched by hash, made into
//! layers.
//!
//! [`Workshop`] is what one needs for both: where the machine's mirrors are ([`Sources`]), where blobs are kept
//! ([`BlobCache`]) and how downloads are done ([`Fetcher`]). [`realize_layer`] makes a layer of a
//! [`fleet_oci::LayerRecipe`]; [`debian::resolve`], [`npm::resolve`] and [`pip::resolve`] make lock entries.
//!
//! Making a layer runs no program and no package's script; only `npm::resolve` and `pip::resolve` run the
//! ecosystem's own client, and only `fleetctl lock` calls those.
//!
//! Deliberately absent: what an image is (`fleet-oci`), registries (`fleet-registry`), credentials.

#![allow(clippy::result_large_err, reason = "an error ends a build; its size is on no hot path")]

mod archive;
mod cache;
pub mod debian;
mod fetch;
pub mod npm;
mod pack;
mod pinned;
pub mod pip;
mod realize;
mod source_file;
mod sources;
mod spill;

pub use archive::{archive_stream, write_archive};
pub use cache::{BlobCache, FolderCache};
pub use fetch::{Event, FetchError, Fetcher, Progress, Wanted};
pub use pack::{PackLayerError, pack};
pub use realize::{RealizeError, RealizedLayer, Workshop, realize_layer};
pub use sources::Sources;
