//! [`Upload`]: what must be in a registry (or a layout) for an image, an index or a referrer to be there.
//!
//! The same value serves all three: blobs, then children, then the manifest by its digest. Who sends it asks a store
//! for the blobs that are not [`BlobRef::inline`]. Deliberately absent: where to, and whether it is there already.

use std::collections::BTreeMap;

use crate::{
    attestation::Referrer,
    digest::Digest,
    image::{CONFIG_TYPE, Image, MANIFEST_TYPE},
    index::{INDEX_TYPE, Index},
};

/// A blob that a manifest names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobRef {
    /// Of its bytes.
    pub digest: Digest,
    /// Bytes.
    pub size: u64,
    /// As the manifest has it.
    pub media_type: String,
    /// The bytes themselves where they are small and stand in no store: configs, statements.
    pub inline: Option<Vec<u8>>,
}

/// A manifest with everything it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Upload {
    /// Exact bytes.
    pub manifest: Vec<u8>,
    /// Media type of `manifest`.
    pub media_type: String,
    /// SHA-256 of `manifest`.
    pub digest: Digest,
    /// Blobs that `manifest` names, each once, in its order (the config first). They must be there before it.
    pub blobs: Vec<BlobRef>,
    /// Manifests that `manifest` names. They must be there before it; each is put by digest, without a tag.
    pub children: Vec<Upload>,
    /// The manifest that this one is about, when it is a referrer. It need not be there before it.
    pub subject: Option<Digest>,
}

impl Upload {
    /// An image for one platform.
    #[must_use]
    pub fn of_image(image: &Image) -> Self {
        let layers = image.layers.iter().map(|layer| BlobRef {
            digest: layer.digest.clone(),
            size: layer.size,
            media_type: layer.media_type.clone(),
            inline: None,
        });
        let config = BlobRef::inline(CONFIG_TYPE, image.config_json.as_bytes());
        Self::new(&image.manifest_json, MANIFEST_TYPE).with_blobs([config].into_iter().chain(layers))
    }

    /// An image for several platforms.
    #[must_use]
    pub fn of_index(index: &Index) -> Self {
        let children = index.images.values().map(Self::of_image).collect();
        Self { children, ..Self::new(&index.json, INDEX_TYPE) }
    }

    /// A statement about an image.
    #[must_use]
    pub fn of_referrer(referrer: &Referrer) -> Self {
        let blobs = referrer.blobs().map(|(media_type, bytes)| BlobRef::inline(media_type, bytes));
        let upload = Self::new(&referrer.manifest_json, MANIFEST_TYPE).with_blobs(blobs);
        Self { subject: Some(referrer.subject.digest.clone()), ..upload }
    }

    /// Every blob of this manifest and of its children, each once.
    #[must_use]
    pub fn all_blobs(&self) -> BTreeMap<&Digest, &BlobRef> {
        let own = self.blobs.iter().map(|blob| (&blob.digest, blob));
        own.chain(self.children.iter().flat_map(Self::all_blobs)).collect()
    }

    fn new(manifest: &str, media_type: &str) -> Self {
        Self {
            manifest: manifest.as_bytes().to_vec(),
            media_type: media_type.to_owned(),
            digest: Digest::sha256(manifest.as_bytes()),
            blobs: Vec::new(),
            children: Vec::new(),
            subject: None,
        }
    }

    fn with_blobs(mut self, blobs: impl Iterator<Item = BlobRef>) -> Self {
        for blob in blobs {
            if self.blobs.iter().all(|known| known.digest != blob.digest) {
                self.blobs.push(blob);
            }
        }
        self
    }
}

impl BlobRef {
    fn inline(media_type: &str, bytes: &[u8]) -> Self {
        Self {
            digest: Digest::sha256(bytes),
            size: bytes.len() as u64,
            media_type: media_type.to_owned(),
            inline: Some(bytes.to_vec()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attestation::{Subject, artifact},
        image::{Base, ImageConfig, assemble},
        layer::LayerDescriptor,
        platform::Platform,
    };

    fn image(platform: Platform, names: &[&str]) -> Image {
        let layers: Vec<_> = names
            .iter()
            .map(|name| LayerDescriptor {
                media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
                digest: Digest::sha256(name.as_bytes()),
                diff_id: Digest::sha256(format!("{name} unpacked").as_bytes()),
                size: 3,
                uncompressed: 1024,
            })
            .collect();
        assemble(&Base::default(), platform, &ImageConfig::default(), &layers)
    }

    /// What the manifest's own text names.
    fn named(manifest: &[u8]) -> Vec<String> {
        let json: serde_json::Value = serde_json::from_slice(manifest).unwrap();
        let layers = json["layers"].as_array().cloned().unwrap_or_default();
        let all = [json["config"].clone()].into_iter().chain(layers);
        all.map(|blob| blob["digest"].as_str().unwrap().to_owned()).collect()
    }

    #[test]
    fn an_image_needs_its_config_and_each_layer_once() {
        let upload = Upload::of_image(&image(Platform::LinuxAmd64, &["a", "b", "a"]));
        let mut wanted = named(&upload.manifest);
        assert_eq!(wanted.pop(), Some(Digest::sha256(b"a").to_string()), "a layer that comes twice");
        assert_eq!(upload.blobs.iter().map(|blob| blob.digest.to_string()).collect::<Vec<_>>(), wanted);
        let config = &upload.blobs[0];
        assert_eq!(Digest::sha256(config.inline.as_ref().unwrap()), config.digest);
        assert!(upload.blobs[1..].iter().all(|layer| layer.inline.is_none()));
    }

    #[test]
    fn an_index_needs_its_images_first_and_a_layer_of_both_once() {
        let both = Platform::ALL.map(|platform| image(platform, &["shared", platform.architecture()]));
        let upload = Upload::of_index(&Index::of(both).unwrap());
        assert_eq!(upload.children.len(), 2);
        assert_eq!(upload.all_blobs().len(), 5, "two configs, two layers of their own, one shared");
        assert_eq!(upload.digest, Digest::sha256(&upload.manifest));
    }

    #[test]
    fn a_referrer_names_its_subject_and_carries_its_bytes() {
        let about = image(Platform::LinuxAmd64, &["a"]);
        let upload = Upload::of_referrer(&artifact("application/vnd.in-toto+json", b"{}!", &Subject::of_image(&about)));
        assert_eq!(upload.subject, Some(about.digest));
        assert_eq!(
            upload.blobs.iter().map(|blob| blob.digest.to_string()).collect::<Vec<_>>(),
            named(&upload.manifest)
        );
        assert!(upload.blobs.iter().all(|blob| blob.inline.is_some()));
    }
}
