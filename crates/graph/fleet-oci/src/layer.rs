//! [`LayerDescriptor`]: what is known of a layer once its bytes were made.

use std::io::{self, Write};

use serde::{Deserialize, Serialize};

use crate::{
    compress::{BlockWriter, Compression},
    digest::Digest,
    tree::Tree,
    write_tar::{MTIME, write_tar_at},
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

/// How a tree becomes the bytes of a layer; all of it is part of a layer's hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    /// How they are compressed.
    pub compression: Compression,
    /// Seconds since 1970 of every entry.
    pub mtime: u64,
}

impl Default for Packing {
    fn default() -> Self {
        Compression::default().into()
    }
}

impl From<Compression> for Packing {
    fn from(compression: Compression) -> Self {
        Self { compression, mtime: MTIME }
    }
}

/// Writes a tree as a compressed layer.
///
/// # Errors
/// When a content cannot be read or the writer refuses.
pub fn write_layer<W: Write>(tree: &Tree, packing: impl Into<Packing>, out: W) -> io::Result<(W, LayerDescriptor)> {
    let Packing { compression, mtime } = packing.into();
    let mut writer = BlockWriter::new(out, compression);
    write_tar_at(tree, mtime, &mut writer)?;
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
