//! [`Index`]: images of one name for several platforms, as one value with exact bytes.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::{
    digest::Digest,
    image::{Image, MANIFEST_TYPE, json},
    platform::Platform,
};

/// Media type of [`Index::json`].
pub const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";

/// A finished image for several platforms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Index {
    /// One for each platform; in the index in this order.
    pub images: BTreeMap<Platform, Image>,
    /// The index's exact bytes.
    pub json: String,
    /// SHA-256 of `json`.
    pub digest: Digest,
}

/// Images that make no index.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum IndexError {
    /// An index of nothing is refused by every reader.
    #[error("an index needs at least one image")]
    Empty,
    /// A reader takes the first that fits, so the second could never run.
    #[error("two images for {0} cannot stand in one index")]
    Twice(Platform),
}

impl Index {
    /// Puts images of one name together; in which order they come does not matter.
    ///
    /// # Errors
    /// [`IndexError`].
    pub fn of(images: impl IntoIterator<Item = Image>) -> Result<Self, IndexError> {
        let mut by_platform = BTreeMap::new();
        for image in images {
            let platform = image.platform;
            if by_platform.insert(platform, image).is_some() {
                return Err(IndexError::Twice(platform));
            }
        }
        if by_platform.is_empty() {
            return Err(IndexError::Empty);
        }
        let json = index_json(
            by_platform.values().map(|image| Entry::of(&image.digest, &image.manifest_json, image.platform)),
        );
        let digest = Digest::sha256(json.as_bytes());
        Ok(Self { images: by_platform, json, digest })
    }
}

/// The exact bytes of an index.
pub(crate) fn index_json<'a>(manifests: impl Iterator<Item = Entry<'a>>) -> String {
    json(&IndexBlob { schema_version: 2, media_type: INDEX_TYPE, manifests: manifests.collect() })
}

/// Field order is byte order of the index: do not sort.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct IndexBlob<'a> {
    schema_version: u32,
    media_type: &'static str,
    manifests: Vec<Entry<'a>>,
}

/// An image manifest in an index.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry<'a> {
    media_type: &'static str,
    digest: &'a Digest,
    size: u64,
    platform: PlatformBlob,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<&'static str, &'a str>,
}

/// A platform as indexes write it.
#[derive(Serialize)]
pub(crate) struct PlatformBlob {
    architecture: &'static str,
    os: &'static str,
}

impl From<Platform> for PlatformBlob {
    fn from(platform: Platform) -> Self {
        Self { architecture: platform.architecture(), os: platform.os() }
    }
}

impl<'a> Entry<'a> {
    pub fn of(digest: &'a Digest, manifest: &str, platform: Platform) -> Self {
        let (size, platform) = (manifest.len() as u64, platform.into());
        Self { media_type: MANIFEST_TYPE, digest, size, platform, annotations: BTreeMap::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::{Base, ImageConfig, assemble};

    fn image(platform: Platform) -> Image {
        assemble(&Base::default(), platform, &ImageConfig::default(), &[])
    }

    #[test]
    fn the_digest_of_a_fixed_index_never_changes_and_its_order_does_not_depend_on_ours() {
        let (amd, arm) = (image(Platform::LinuxAmd64), image(Platform::LinuxArm64));
        let index = Index::of([arm.clone(), amd.clone()]).unwrap();
        assert_eq!(index, Index::of([amd, arm]).unwrap());
        let read = oci_spec::image::ImageIndex::from_reader(index.json.as_bytes()).unwrap();
        let platforms: Vec<_> =
            read.manifests().iter().map(|entry| entry.platform().clone().unwrap().architecture().to_string()).collect();
        assert_eq!(platforms, ["amd64", "arm64"]);
        assert_eq!(index.digest.to_string(), "sha256:4a130de37296b9cae55ca3e4d0d35c03d81622810ec78c92d88c9440c9be02ba");
    }

    #[test]
    fn an_index_of_nothing_or_of_one_platform_twice_is_refused() {
        assert_eq!(Index::of([]), Err(IndexError::Empty));
        let twice = [image(Platform::LinuxArm64), image(Platform::LinuxArm64)];
        assert_eq!(Index::of(twice), Err(IndexError::Twice(Platform::LinuxArm64)));
    }
}
