//! Manifests and indexes as registries send them, OCI's and Docker's.

use fleet_oci::{Digest, Platform};
use serde::Deserialize;

/// What we ask for.
pub(crate) const ACCEPTED: [&str; 4] = [
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// A manifest larger than this is refused (registries refuse it, too).
pub(crate) const MAXIMUM_MANIFEST: usize = 4 << 20;
/// No image has more layers; engines stop at 127.
pub(crate) const MAXIMUM_LAYERS: usize = 512;

/// An index has `manifests`, an image manifest has `config` and `layers`.
#[derive(Debug, Deserialize)]
pub(crate) struct Document {
    manifests: Option<Vec<Entry>>,
    config: Option<Blob>,
    layers: Option<Vec<Blob>>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    digest: Digest,
    platform: Option<EntryPlatform>,
}

#[derive(Debug, Deserialize)]
struct EntryPlatform {
    os: String,
    architecture: String,
}

/// A blob that a manifest names.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Blob {
    pub media_type: String,
    pub digest: Digest,
    pub size: u64,
}

/// What a document turned out to be.
#[derive(Debug)]
pub(crate) enum Kind {
    /// Many platforms; the digest is this platform's, if it has it.
    Index(Option<Digest>),
    /// One image.
    Image { config: Blob, layers: Vec<Blob> },
}

/// What a manifest keeps in its repository.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    pub blobs: Vec<Digest>,
    pub manifests: Vec<Digest>,
}

impl Document {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        if bytes.len() > MAXIMUM_MANIFEST {
            return Err(format!("its manifest has {} bytes, more than {MAXIMUM_MANIFEST}", bytes.len()));
        }
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }

    pub(crate) fn parse(bytes: &[u8], platform: Platform) -> Result<Kind, String> {
        let document = Self::read(bytes)?;
        match (document.manifests, document.config, document.layers) {
            (Some(entries), _, _) => {
                let ours = |entry: &&Entry| {
                    entry.platform.as_ref().is_some_and(|theirs| {
                        theirs.os == platform.os() && theirs.architecture == platform.architecture()
                    })
                };
                Ok(Kind::Index(entries.iter().find(ours).map(|entry| entry.digest.clone())))
            }
            (None, Some(config), Some(layers)) if layers.len() <= MAXIMUM_LAYERS => Ok(Kind::Image { config, layers }),
            (None, Some(_), Some(layers)) => Err(format!("it has {} layers", layers.len())),
            _ => Err("it is neither an image manifest nor an index".to_owned()),
        }
    }

    pub(crate) fn kept(bytes: &[u8]) -> Result<Kept, String> {
        let document = Self::read(bytes)?;
        let blobs = document.config.into_iter().chain(document.layers.into_iter().flatten());
        Ok(Kept {
            blobs: blobs.map(|blob| blob.digest).collect(),
            manifests: document.manifests.into_iter().flatten().map(|entry| entry.digest).collect(),
        })
    }
}

impl Blob {
    /// The layer's media type in an OCI manifest; Docker has its own names for the same bytes.
    pub(crate) fn oci_type(&self) -> &str {
        match self.media_type.as_str() {
            "application/vnd.docker.image.rootfs.diff.tar.gzip" => "application/vnd.oci.image.layer.v1.tar+gzip",
            "application/vnd.docker.image.rootfs.diff.tar" => "application/vnd.oci.image.layer.v1.tar",
            other => other,
        }
    }
}
