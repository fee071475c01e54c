//! [`pack`]: a tree that somebody else read, as a layer in the blob store.

use std::io;

use fleet_oci::{
    ContentSink, LayerDescriptor, Tree,
    layer::{Packing, write_layer},
    read_tar::ReadTarError,
};

use crate::{cache::BlobCache, spill::SpillSink};

/// Why no layer was made.
#[derive(Debug, thiserror::Error)]
pub enum PackLayerError {
    /// What was read.
    #[error(transparent)]
    Read(#[from] ReadTarError),
    /// The disk.
    #[error("the blob store cannot be used: {0}")]
    Io(#[from] io::Error),
}

/// Makes a layer of the tree that `read` gives; its contents go to the sink, and not into memory.
///
/// # Errors
/// [`PackLayerError`].
pub fn pack(
    cache: &dyn BlobCache,
    packing: Packing,
    read: impl FnOnce(&mut dyn ContentSink) -> Result<Tree, ReadTarError>,
) -> Result<LayerDescriptor, PackLayerError> {
    let mut sink = SpillSink::new(cache.scratch()?.into_file());
    let tree = read(&mut sink)?;
    let (out, descriptor) = write_layer(&tree, packing, io::BufWriter::new(cache.scratch()?))?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    cache.put(&descriptor.digest, file)?;
    Ok(descriptor)
}
