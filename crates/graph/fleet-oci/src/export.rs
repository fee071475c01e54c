//! [`plan`]: an image as one tar stream that container engines load.
//!
//! The stream is a `docker save` archive and an OCI layout at once (as `docker save` writes since version 25), so
//! that old engines, new engines and Podman each find the part they know. Layers stand in it unpacked: Docker 20.10
//! loads no zstd, and over a local socket unpacking here is cheaper than having the engine unpack gzip. So the
//! manifest in the stream differs from the one that registries get; the config, and with it the image's id in the
//! engine, is the same.
//!
//! It is a list of [`Segment`]s: the caller streams layers from wherever they lie, nothing is copied first.

use std::collections::BTreeSet;

use serde::Serialize;

use crate::{
    digest::Digest,
    image::{Image, json, manifest},
    index::{Entry, index_json},
    layer::LayerDescriptor,
    layout::{FULL_NAME, NAME, blob_path},
    write_tar::{member_end, member_start},
};

/// Media type of a layer that is not compressed.
const TAR_TYPE: &str = "application/vnd.oci.image.layer.v1.tar";

/// A part of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// These bytes.
    Bytes(Vec<u8>),
    /// The tar inside this layer, exactly `uncompressed` bytes; [`crate::compress::unpacked`] reads it.
    Layer(LayerDescriptor),
}

/// An image under the names it gets in the engine.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// The image.
    pub image: &'a Image,
    /// `repository:tag`; at least one, else engines may collect it.
    pub names: &'a [String],
}

/// A whole stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Export {
    /// In order.
    pub segments: Vec<Segment>,
    /// Bytes of the whole stream.
    pub length: u64,
}

/// Lays out the stream. Layers whose diff id is in `omit` are left out: an engine that already has the chain of
/// layers up to there does not read them (Docker's overlay2 store; not the containerd store, nor Podman).
/// With anything omitted the stream is a `docker save` archive only.
#[must_use]
pub fn plan(images: &[Named<'_>], omit: &BTreeSet<Digest>) -> Export {
    let mut stream = Stream::default();
    for named in images {
        let image = named.image;
        stream.bytes(&blob_path(&image.config_digest), image.config_json.as_bytes());
        if omit.is_empty() {
            let manifest = unpacked_manifest(image);
            stream.bytes(&blob_path(&Digest::sha256(manifest.as_bytes())), manifest.as_bytes());
        }
        for layer in image.layers.iter().filter(|layer| !omit.contains(&layer.diff_id)) {
            stream.layer(layer);
        }
    }
    stream.bytes("manifest.json", docker_manifest(images).as_bytes());
    if omit.is_empty() {
        stream.bytes("index.json", oci_index(images).as_bytes());
        stream.bytes("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#);
    }
    stream.finish()
}

/// The image's manifest with its layers as they stand in the stream.
fn unpacked_manifest(image: &Image) -> String {
    let unpacked = |layer: &LayerDescriptor| LayerDescriptor {
        media_type: TAR_TYPE.to_owned(),
        digest: layer.diff_id.clone(),
        size: layer.uncompressed,
        ..layer.clone()
    };
    manifest(image.config_json.len(), &image.config_digest, &image.layers.iter().map(unpacked).collect::<Vec<_>>())
}

fn docker_manifest(images: &[Named<'_>]) -> String {
    #[derive(Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Entry<'a> {
        config: String,
        repo_tags: &'a [String],
        layers: Vec<String>,
    }
    let entries: Vec<_> = images
        .iter()
        .map(|named| Entry {
            config: blob_path(&named.image.config_digest),
            repo_tags: named.names,
            layers: named.image.layers.iter().map(|layer| blob_path(&layer.diff_id)).collect(),
        })
        .collect();
    json(&entries)
}

fn oci_index(images: &[Named<'_>]) -> String {
    let manifests: Vec<(String, Digest)> = images
        .iter()
        .map(|named| unpacked_manifest(named.image))
        .map(|manifest| {
            let digest = Digest::sha256(manifest.as_bytes());
            (manifest, digest)
        })
        .collect();
    let entries = images.iter().zip(&manifests).flat_map(|(named, (manifest, digest))| {
        // One descriptor for each name: an annotation holds only one.
        let names = named.names.iter().map(|name| Some(name.as_str()));
        let names: Vec<Option<&str>> = if named.names.is_empty() { vec![None] } else { names.collect() };
        names.into_iter().map(move |name| {
            let mut entry = Entry::of(digest, manifest, named.image.platform);
            if let Some(name) = name {
                let reference = name.rsplit_once(':').map_or(name, |(_, tag)| tag);
                entry.annotations = [(FULL_NAME, name), (NAME, reference)].into();
            }
            entry
        })
    });
    index_json(entries)
}

#[derive(Default)]
struct Stream {
    segments: Vec<Segment>,
    length: u64,
    members: BTreeSet<String>,
}

impl Stream {
    fn push(&mut self, bytes: Vec<u8>) {
        self.length += bytes.len() as u64;
        match self.segments.last_mut() {
            Some(Segment::Bytes(last)) => last.extend(bytes),
            _ => self.segments.push(Segment::Bytes(bytes)),
        }
    }

    /// Two images share blobs; each stands once.
    fn is_new(&mut self, path: &str) -> bool {
        self.members.insert(path.to_owned())
    }

    fn bytes(&mut self, path: &str, content: &[u8]) {
        if self.is_new(path) {
            let size = content.len() as u64;
            self.push([&member_start(path, size), content, &member_end(size)].concat());
        }
    }

    fn layer(&mut self, layer: &LayerDescriptor) {
        let path = blob_path(&layer.diff_id);
        if self.is_new(&path) {
            self.push(member_start(&path, layer.uncompressed));
            self.segments.push(Segment::Layer(layer.clone()));
            self.length += layer.uncompressed;
            self.push(member_end(layer.uncompressed));
        }
    }

    fn finish(mut self) -> Export {
        self.push(vec![0; 1024]);
        Export { segments: self.segments, length: self.length }
    }
}

/// Layers that an engine will not read because it has their chain: those that `image` shares, from the bottom, with an
/// image of the engine. `chains` are the engine's `RootFS.Layers` (diff ids, bottom to top), image by image. Only for
/// [`plan`]'s `omit` with Docker's own layer store (`Driver: overlay2`): others read every layer.
#[must_use]
pub fn already_there(image: &Image, chains: &[Vec<Digest>]) -> BTreeSet<Digest> {
    let ours: Vec<&Digest> = image.layers.iter().map(|layer| &layer.diff_id).collect();
    let shared = |chain: &Vec<Digest>| ours.iter().zip(chain).take_while(|(own, theirs)| **own == *theirs).count();
    let most = chains.iter().map(shared).max().unwrap_or(0);
    let known: BTreeSet<Digest> = ours[..most].iter().copied().cloned().collect();
    // A layer that comes again above the shared part is read there.
    ours[most..].iter().fold(known, |mut known, above| {
        known.remove(*above);
        known
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        image::{Base, ImageConfig, assemble},
        platform::Platform,
    };

    fn layer(name: &str) -> LayerDescriptor {
        LayerDescriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd".into(),
            digest: Digest::sha256(name.as_bytes()),
            diff_id: Digest::sha256(format!("{name} unpacked").as_bytes()),
            size: 3,
            uncompressed: 1025,
        }
    }

    fn image(names: &[&str]) -> Image {
        let layers: Vec<_> = names.iter().map(|name| layer(name)).collect();
        assemble(&Base::default(), Platform::LinuxAmd64, &ImageConfig::default(), &layers)
    }

    /// The stream with every layer as zeros.
    fn bytes(export: &Export) -> Vec<u8> {
        let parts = export.segments.iter().map(|segment| match segment {
            Segment::Bytes(bytes) => bytes.clone(),
            Segment::Layer(layer) => vec![0; layer.uncompressed as usize],
        });
        parts.collect::<Vec<_>>().concat()
    }

    fn members(export: &Export) -> Vec<(String, Vec<u8>)> {
        use std::io::Read as _;
        let bytes = bytes(export);
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            (entry.path().unwrap().to_str().unwrap().to_owned(), content)
        });
        entries.collect()
    }

    #[test]
    fn an_engine_of_any_age_finds_what_it_reads() {
        let names = ["fleet/a:d-1".to_owned(), "fleet/a:d-2".to_owned()];
        let (one, two) = (image(&["base", "a"]), image(&["base", "b"]));
        let images = [Named { image: &one, names: &names }, Named { image: &two, names: &[] }];
        let export = plan(&images, &BTreeSet::new());
        assert_eq!(export.length, bytes(&export).len() as u64);
        let members = members(&export);
        let find = |path: &str| members.iter().find(|(name, _)| name == path).map(|(_, content)| &content[..]);
        let docker: serde_json::Value = serde_json::from_slice(find("manifest.json").unwrap()).unwrap();
        assert_eq!(docker[0]["RepoTags"], serde_json::json!(names));
        for path in docker[0]["Layers"].as_array().unwrap() {
            assert_eq!(find(path.as_str().unwrap()).unwrap().len(), 1025);
        }
        let index = oci_spec::image::ImageIndex::from_reader(find("index.json").unwrap()).unwrap();
        assert_eq!(index.manifests().len(), 3, "one for each name, one for the image without");
        for entry in index.manifests() {
            let path = format!("blobs/sha256/{}", entry.digest().digest());
            let manifest = oci_spec::image::ImageManifest::from_reader(find(&path).unwrap()).unwrap();
            for blob in manifest.layers().iter().chain([manifest.config()]) {
                let stored = find(&format!("blobs/sha256/{}", blob.digest().digest())).unwrap();
                assert_eq!(stored.len() as u64, blob.size());
            }
        }
        let shared = export.segments.iter().filter(|segment| matches!(segment, Segment::Layer(_))).count();
        assert_eq!(shared, 3, "a shared layer is sent once");
    }

    #[test]
    fn layers_the_engine_has_from_the_bottom_up_are_not_sent() {
        let image = image(&["base", "a", "b"]);
        let chain = |names: &[&str]| names.iter().map(|name| layer(name).diff_id).collect::<Vec<_>>();
        assert_eq!(already_there(&image, &[chain(&["a", "base"]), chain(&["other"])]), BTreeSet::new());
        let omit = already_there(&image, &[chain(&["base"]), chain(&["base", "a", "c"])]);
        assert_eq!(omit, chain(&["base", "a"]).into_iter().collect());
        let export = plan(&[Named { image: &image, names: &[] }], &omit);
        assert_eq!(members(&export).iter().filter(|(_, content)| content.len() == 1025).count(), 1);
    }
}
