//! [`Referrer`]: a statement about an image, as an artifact that names the image as its subject (OCI image
//! specification 1.1, "Guidelines for Artifact Usage").
//!
//! What is said is made by [`crate::provenance`] and [`crate::sbom`]. Nothing of it is in the image itself, so that two
//! revisions with the same content stay one image.

use serde::Serialize;

use crate::{
    digest::Digest,
    image::{Image, MANIFEST_TYPE, json},
    index::{INDEX_TYPE, Index},
};

/// Media type of the config of an artifact that has none.
pub const EMPTY_TYPE: &str = "application/vnd.oci.empty.v1+json";
/// That config.
const EMPTY: &[u8] = b"{}";

/// The manifest that a referrer is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Its media type.
    pub media_type: &'static str,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

impl Subject {
    /// An image for one platform.
    #[must_use]
    pub fn of_image(image: &Image) -> Self {
        let size = image.manifest_json.len() as u64;
        Self { media_type: MANIFEST_TYPE, digest: image.digest.clone(), size }
    }

    /// An image for several platforms.
    #[must_use]
    pub fn of_index(index: &Index) -> Self {
        Self { media_type: INDEX_TYPE, digest: index.digest.clone(), size: index.json.len() as u64 }
    }
}

/// A statement as it stands in a registry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Referrer {
    /// What kind of statement; the media type of `content` too.
    pub artifact_type: String,
    /// What it is about.
    pub subject: Subject,
    /// The statement.
    pub content: Vec<u8>,
    /// The artifact's manifest, exact bytes.
    pub manifest_json: String,
    /// SHA-256 of the manifest.
    pub digest: Digest,
}

impl Referrer {
    /// Media types and bytes of the blobs that the manifest names, in its order.
    pub fn blobs(&self) -> impl Iterator<Item = (&str, &[u8])> {
        [(EMPTY_TYPE, EMPTY), (self.artifact_type.as_str(), self.content.as_slice())].into_iter()
    }
}

/// Makes an artifact of a statement.
#[must_use]
pub fn artifact(artifact_type: &str, content: &[u8], subject: &Subject) -> Referrer {
    let descriptor =
        |media_type, bytes: &[u8]| Descriptor { media_type, digest: Digest::sha256(bytes), size: bytes.len() as u64 };
    let manifest_json = json(&ArtifactManifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        artifact_type,
        config: descriptor(EMPTY_TYPE, EMPTY),
        layers: [descriptor(artifact_type, content)],
        subject: Descriptor { media_type: subject.media_type, digest: subject.digest.clone(), size: subject.size },
    });
    let digest = Digest::sha256(manifest_json.as_bytes());
    Referrer {
        artifact_type: artifact_type.to_owned(),
        subject: subject.clone(),
        content: content.to_vec(),
        manifest_json,
        digest,
    }
}

/// Field order is byte order of the manifest: do not sort.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ArtifactManifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    artifact_type: &'a str,
    config: Descriptor<'a>,
    layers: [Descriptor<'a>; 1],
    subject: Descriptor<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: Digest,
    size: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        image::{Base, ImageConfig, assemble},
        platform::Platform,
    };

    #[test]
    fn an_artifact_is_what_the_oci_types_read() {
        let image = assemble(&Base::default(), Platform::LinuxAmd64, &ImageConfig::default(), &[]);
        let made = artifact("application/spdx+json", b"[]", &Subject::of_image(&image));
        let read = oci_spec::image::ImageManifest::from_reader(made.manifest_json.as_bytes()).unwrap();
        assert_eq!(read.subject().as_ref().unwrap().digest().to_string(), image.digest.to_string());
        assert_eq!(read.artifact_type().as_ref().unwrap().to_string(), "application/spdx+json");
        assert_eq!(read.config().digest().to_string(), Digest::sha256(b"{}").to_string());
        assert_eq!(read.layers()[0].digest().to_string(), Digest::sha256(b"[]").to_string());
    }
}
