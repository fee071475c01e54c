//! [`StoreCache`]: `.fleet/` as the place where packages and layers are kept.

use std::{io, path::PathBuf, sync::Arc};

use fleet_oci::{Digest, Image, digest};
use fleet_packages::BlobCache;
use fleet_store::{Algorithm, BlobId, Store};

/// A store behind the trait that fleet-packages asks for.
#[derive(Clone)]
pub struct StoreCache(pub Arc<Store>);

/// The store's name of a digest.
#[must_use]
pub fn blob_id(digest: &Digest) -> Option<BlobId> {
    let algorithm = match digest.algorithm() {
        digest::Algorithm::Sha256 => Algorithm::Sha256,
        digest::Algorithm::Sha512 => Algorithm::Sha512,
    };
    BlobId::new(algorithm, digest.hex()).ok()
}

/// The store's names of an image's layers.
#[must_use]
pub fn layer_blobs(image: &Image) -> Vec<BlobId> {
    image.layers.iter().filter_map(|layer| blob_id(&layer.digest)).collect()
}

impl BlobCache for StoreCache {
    fn get(&self, digest: &Digest) -> Option<PathBuf> {
        self.0.blob_path(&blob_id(digest)?)
    }

    fn check(&self, digest: &Digest) -> bool {
        blob_id(digest).is_some_and(|id| self.0.verify_blob(&id).unwrap_or(false))
    }

    fn scratch(&self) -> io::Result<tempfile::NamedTempFile> {
        self.0.scratch_file()
    }

    fn put(&self, digest: &Digest, file: tempfile::NamedTempFile) -> io::Result<PathBuf> {
        let id = blob_id(digest).ok_or_else(|| io::Error::other(format!("{digest} is no name for a blob")))?;
        self.0.adopt_blob(&id, file).map_err(io::Error::other)
    }

    fn put_made(&self, digest: &Digest, file: tempfile::NamedTempFile) -> io::Result<PathBuf> {
        let id = blob_id(digest).ok_or_else(|| io::Error::other(format!("{digest} is no name for a blob")))?;
        self.0.adopt_made_blob(&id, file).map_err(io::Error::other)
    }
}
