//! Images as immutable values: trees, layers, configs, manifests, and the lock file that pins what they are made of.
//!
//! The way of a layer: a [`LayerRecipe`] (what is asked, with every byte pinned) → archives → [`Tree`] (paths and
//! nodes, merged in order) → a deterministic tar → compressed frames → [`LayerDescriptor`]. Layers and an
//! [`ImageConfig`] become an [`Image`] by [`image::assemble`]; an [`Image`] becomes a stream that an engine can
//! load by [`export::plan`]. Images of several platforms become an [`Index`]; what a registry must hold of an image, an
//! index or a statement about one is an [`Upload`].
//!
//! The same recipe gives the same bytes on any machine: entries sorted byte-wise, one fixed mtime, no names, ids 0
//! unless declared, a compressor whose block layout and level are part of the recipe.
//!
//! Deliberately absent: the network, the file system, the clock, the environment. Archives come in as
//! [`std::io::Read`], large contents go to a [`content::ContentSink`] that the caller chooses (memory, or a file it
//! owns), layers go out to a [`std::io::Write`]. Fetching is `fleet-packages` and `fleet-registry`.

pub mod attestation;
pub mod compress;
pub mod content;
pub mod deb;
pub mod digest;
pub mod engines;
pub mod export;
pub mod fence;
pub mod healthcheck;
pub mod image;
pub mod index;
pub mod inspect;
pub mod layer;
pub mod layout;
pub mod lock;
pub mod materials;
pub mod npm;
pub mod platform;
pub mod provenance;
pub mod read_tar;
pub mod recipe;
pub mod rootfs;
pub mod sbom;
pub mod tree;
pub mod unpack;
pub mod upload;
pub mod wheel;
pub mod write_tar;

pub use attestation::Referrer;
pub use compress::Compression;
pub use content::{Content, ContentSink, MemorySink};
pub use digest::{Digest, DigestError};
pub use healthcheck::Healthcheck;
pub use image::{Image, ImageConfig};
pub use index::Index;
pub use layer::{LayerDescriptor, Packing};
pub use lock::Lock;
pub use platform::Platform;
pub use recipe::{ImageRecipe, LayerRecipe};
pub use tree::{Meta, Node, Tree, TreeError};
pub use upload::{BlobRef, Upload};
