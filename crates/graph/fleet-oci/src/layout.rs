//! [`index`]: the `index.json` of an OCI layout, with images added or replaced by name.
//!
//! A layout is a folder: `oci-layout`, `index.json` and `blobs/<algorithm>/<hex>`. Deliberately absent: the folder itself
//! (`fleet_registry::layout`).

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::{digest::Digest, image::json, index::INDEX_TYPE, upload::Upload};

/// Name of the file that makes a folder a layout.
pub const MARKER: &str = "oci-layout";
/// What stands in it.
pub const MARKER_TEXT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
/// Name of the file that lists the images.
pub const INDEX: &str = "index.json";

/// Annotation that names an image in a layout.
pub(crate) const NAME: &str = "org.opencontainers.image.ref.name";
/// Annotation that containerd takes an image's whole name from.
pub(crate) const FULL_NAME: &str = "io.containerd.image.name";
/// Annotation of statements: the name of the image that they are about, so that they go with it.
const ABOUT: &str = "dev.fleetctl.about";

/// What is put into a layout under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The name by which readers ask for it (`oci:DIR:NAME`).
    pub name: String,
    /// `repository:tag`
    pub full_name: String,
    /// An image or an index.
    pub image: Upload,
    /// Statements about it, or about its images.
    pub statements: Vec<Upload>,
}

/// Why an `index.json` cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// Not JSON of the shape.
    #[error("its index.json cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// No image of that name.
    #[error("it has no image `{asked}`; it has: {}", if .there.is_empty() { "none".to_owned() } else { .there.join(", ") })]
    NoSuchName {
        /// What was asked for.
        asked: String,
        /// Names that are there.
        there: Vec<String>,
    },
    /// No name was given, and there is not exactly one image.
    #[error("it has {} images ({}): say which, with `#NAME`", .there.len(), .there.join(", "))]
    WhichOne {
        /// Names that are there; those without one by digest.
        there: Vec<String>,
    },
}

/// `path/of/blob` below a layout's folder.
#[must_use]
pub fn blob_path(digest: &Digest) -> String {
    format!("blobs/{}/{}", digest.algorithm().name(), digest.hex())
}

/// The bytes of `index.json`: what `former` holds, without what the new items replace, and the items.
///
/// # Errors
/// [`LayoutError::Malformed`] for a former index that is none.
pub fn index(former: Option<&[u8]>, items: &[Item]) -> Result<String, LayoutError> {
    #[derive(Deserialize)]
    struct Former {
        #[serde(default)]
        manifests: Vec<Value>,
    }
    let mut manifests = match former {
        Some(bytes) => serde_json::from_slice::<Former>(bytes)?.manifests,
        None => Vec::new(),
    };
    let replaced = |entry: &Value| {
        let name = [NAME, ABOUT].iter().find_map(|key| entry["annotations"][*key].as_str());
        items.iter().any(|item| name == Some(&item.name))
    };
    manifests.retain(|entry| !replaced(entry));
    for item in items {
        let names = json!({ FULL_NAME: item.full_name, NAME: item.name });
        manifests.push(descriptor(&item.image, names));
        manifests.extend(item.statements.iter().map(|upload| descriptor(upload, json!({ ABOUT: item.name }))));
    }
    #[derive(Serialize)]
    #[serde(rename_all = "camelCase")]
    struct Index {
        schema_version: u32,
        media_type: &'static str,
        manifests: Vec<Value>,
    }
    Ok(json(&Index { schema_version: 2, media_type: INDEX_TYPE, manifests }))
}

fn descriptor(upload: &Upload, annotations: Value) -> Value {
    let mut entry = Map::new();
    entry.insert("mediaType".to_owned(), upload.media_type.as_str().into());
    entry.insert("digest".to_owned(), upload.digest.to_string().into());
    entry.insert("size".to_owned(), upload.manifest.len().into());
    entry.insert("annotations".to_owned(), annotations);
    Value::Object(entry)
}

/// What an index says of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Media type of the manifest; absent in some old layouts.
    #[serde(default)]
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    #[serde(default)]
    pub size: u64,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

/// The entry that a name means in an `index.json`; without a name, the only image there.
///
/// # Errors
/// [`LayoutError`].
pub fn find(index: &[u8], name: Option<&str>) -> Result<Entry, LayoutError> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Entry>,
    }
    let mut images = serde_json::from_slice::<Index>(index)?.manifests;
    images.retain(|entry| !entry.annotations.contains_key(ABOUT));
    let there = || images.iter().map(|entry| entry.annotations.get(NAME).cloned().unwrap_or(entry.digest.to_string()));
    match name {
        Some(asked) => images
            .iter()
            .find(|entry| [NAME, FULL_NAME].iter().any(|key| entry.annotations.get(*key).is_some_and(|n| n == asked)))
            .cloned()
            .ok_or_else(|| LayoutError::NoSuchName { asked: asked.to_owned(), there: there().collect() }),
        None if images.len() == 1 => Ok(images.swap_remove(0)),
        None => Err(LayoutError::WhichOne { there: there().collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        attestation::{Subject, artifact},
        image::{Base, ImageConfig, assemble},
        platform::Platform,
    };

    fn item(name: &str, env: &str) -> Item {
        let config = ImageConfig { env: [("A".to_owned(), env.to_owned())].into(), ..ImageConfig::default() };
        let image = assemble(&Base::default(), Platform::LinuxAmd64, &config, &[]);
        let statement = Upload::of_referrer(&artifact("application/x", env.as_bytes(), &Subject::of_image(&image)));
        Item {
            name: name.to_owned(),
            full_name: format!("f/{name}:d-{env}"),
            image: Upload::of_image(&image),
            statements: vec![statement],
        }
    }

    #[test]
    fn an_image_of_the_same_name_is_replaced_with_its_statements_and_others_stay() {
        let first = index(None, &[item("a", "1"), item("b", "1")]).unwrap();
        let second = index(Some(first.as_bytes()), &[item("a", "2")]).unwrap();
        let read = oci_spec::image::ImageIndex::from_reader(second.as_bytes()).unwrap();
        assert_eq!(read.manifests().len(), 4);
        for (name, env) in [("a", "2"), ("b", "1"), ("f/a:d-2", "2")] {
            let wanted = item(name.trim_start_matches("f/").trim_end_matches(":d-2"), env).image.digest;
            assert_eq!(find(second.as_bytes(), Some(name)).unwrap().digest, wanted, "{name}");
        }
        assert_eq!(second, index(Some(second.as_bytes()), &[item("a", "2")]).unwrap(), "again is the same");
    }

    #[test]
    fn a_name_that_is_missing_is_answered_with_those_that_are_there() {
        let one = index(None, &[item("a", "1")]).unwrap();
        assert_eq!(find(one.as_bytes(), None).unwrap().digest, item("a", "1").image.digest);
        assert!(find(one.as_bytes(), Some("c")).unwrap_err().to_string().contains("it has: a"));
        let two = index(Some(one.as_bytes()), &[item("b", "1")]).unwrap();
        assert!(find(two.as_bytes(), None).unwrap_err().to_string().contains("2 images (a, b)"));
        assert!(index(Some(b"[1"), &[]).is_err());
    }
}
