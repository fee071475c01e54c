//! [`LayerDescriptor`]: what is known of a layer once its bytes were made.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::{
    compress::{BlockWriter, Compression},
    digest::Digest,
    tree::Tree,
    write_tar::write_tar,
};

/// A layer as manifests and engines name it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LayerDescriptor {
    /// OCI media type; says how it is compressed.
    pub media_type: String,
    /// SHA-256 of the blob as stored and sent.
    pub digest: Digest,
    /// SHA-256 of the tar inside.
    pub diff_id: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// Bytes of the tar inside; 0 when nobody unpacked it (a base that is only referred to).
    pub uncompressed: u64,
}

/// Writes a tree as a compressed layer.
///
/// # Errors
/// When a content cannot be read or the writer refuses.
pub fn write_layer<W: Write>(tree: &Tree, compression: Compression, out: W) -> io::Result<(W, LayerDescriptor)> {
    let mut writer = BlockWriter::new(out, compression);
    write_tar(tree, &mut writer)?;
    let (out, made) = writer.finish()?;
    let descriptor = LayerDescriptor {
        media_type: compression.media_type().to_owned(),
        digest: made.digest,
        diff_id: made.diff_id,
        size: made.size,
        uncompressed: made.uncompressed,
    };
    Ok((out, descriptor))
}
