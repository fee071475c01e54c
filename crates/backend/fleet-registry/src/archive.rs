//! [`Archive`]: a `docker save` archive, of an engine of any age, of Podman or of ours. Old engines write a folder for each
//! layer, new ones an OCI layout beside `manifest.json`; this reads what that file names, wherever it lies.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    path::Path,
};

use fleet_oci::{
    Compression, Digest, LayerDescriptor, Platform,
    compress::{BlockWriter, unpacked},
    fence::{Fence, NextError},
    image::{Base, read_config},
    inspect::inspect_layer,
};
use fleet_store::Store;
use serde::Deserialize;

use crate::{
    local::{LocalError, at, is_for, malformed},
    manifest::{MAXIMUM_LAYERS, MAXIMUM_MANIFEST},
    pull::{MAXIMUM_CONFIG, id_of},
};

/// An archive with more members is refused.
const MAXIMUM_MEMBERS: usize = 10_000;
/// Media types of layers by their first bytes: engines that keep layers compressed write them as they are.
const MEDIA_TYPES: [(&[u8], &str); 3] = [
    (&[0x1f, 0x8b], "application/vnd.oci.image.layer.v1.tar+gzip"),
    (&[0x28, 0xb5, 0x2f, 0xfd], "application/vnd.oci.image.layer.v1.tar+zstd"),
    (&[], "application/vnd.oci.image.layer.v1.tar"),
];

/// An archive being read: its members are found once and read where they stand.
pub(crate) struct Archive<'a> {
    path: &'a Path,
    file: File,
    /// Path → offset and length.
    members: BTreeMap<String, (u64, u64)>,
}

/// What an archive says of an image.
pub(crate) struct Archived {
    pub config: Vec<u8>,
    layers: Vec<String>,
}

/// An entry of `manifest.json`.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Said {
    config: String,
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

impl Said {
    fn has(&self, name: &str) -> bool {
        self.repo_tags.iter().flatten().any(|tag| tag == name)
    }
}

impl<'a> Archive<'a> {
    pub(crate) fn open(path: &'a Path) -> Result<Self, LocalError> {
        let mut file = File::open(path).map_err(at(path))?;
        let mut members = BTreeMap::new();
        let mut links = BTreeMap::new();
        let (fence, gate) = Fence::new(&mut file);
        let mut archive = tar::Archive::new(fence);
        let mut entries = archive.entries_with_seek().map_err(at(path))?;
        for count in 0.. {
            let entry = gate.next(&mut entries).map_err(|error| match error {
                NextError::TooLong => malformed(path, error.to_string()),
                NextError::Io(error) => at(path)(error),
            });
            let Some(entry) = entry? else { break };
            if count >= MAXIMUM_MEMBERS {
                return Err(malformed(path, format!("it has more than {MAXIMUM_MEMBERS} members")));
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).trim_start_matches("./").to_owned();
            if let Some(target) = entry.link_name_bytes() {
                links.insert(name, String::from_utf8_lossy(&target).into_owned());
            } else {
                members.insert(name, (entry.raw_file_position(), entry.size()));
            }
        }
        // Old engines write a layer once and link to it: `<id>/layer.tar` → `../<other>/layer.tar`.
        for (name, target) in links {
            if let Some(place) = members.get(target.trim_start_matches("../")).copied() {
                members.insert(name, place);
            }
        }
        Ok(Self { path, file, members })
    }

    fn member(&mut self, name: &str) -> Result<(impl Read + '_, u64), LocalError> {
        let found = self.members.get(name).copied();
        let (offset, length) = found.ok_or_else(|| malformed(self.path, format!("it has no {name}")))?;
        self.file.seek(SeekFrom::Start(offset)).map_err(at(self.path))?;
        Ok(((&mut self.file).take(length), length))
    }

    fn small(&mut self, name: &str, most: u64) -> Result<Vec<u8>, LocalError> {
        let path = self.path;
        let (mut reader, length) = self.member(name)?;
        if length > most {
            return Err(malformed(path, format!("{name} has {length} bytes, more than {most}")));
        }
        let mut bytes = Vec::new();
        reader.read_to_end(&mut bytes).map_err(at(path))?;
        Ok(bytes)
    }

    /// The image of this name; without one, the only image that there is for the platform.
    pub(crate) fn image(&mut self, name: Option<&str>, platform: Platform) -> Result<Archived, LocalError> {
        let json = self.small("manifest.json", MAXIMUM_MANIFEST as u64)?;
        let said: Vec<Said> = serde_json::from_slice(&json).map_err(|error| malformed(self.path, error.to_string()))?;
        let there =
            said.iter().flat_map(|image| image.repo_tags.iter().flatten()).cloned().collect::<Vec<_>>().join(", ");
        let fitting: Vec<Said> = said.into_iter().filter(|image| name.is_none_or(|name| image.has(name))).collect();
        let several = fitting.len() > 1;
        let mut found = Vec::new();
        for image in fitting {
            if image.layers.len() > MAXIMUM_LAYERS {
                return Err(malformed(self.path, format!("its image has {} layers", image.layers.len())));
            }
            let config = self.small(&image.config, MAXIMUM_CONFIG)?;
            // One name may stand for an image of each platform.
            if !several || is_for(self.path, &config, platform).is_ok() {
                found.push(Archived { config, layers: image.layers });
            }
        }
        match (found.pop(), found.is_empty()) {
            (Some(image), true) => Ok(image),
            _ => Err(malformed(self.path, format!("say which image with #REPOSITORY:TAG; it has: {there}"))),
        }
    }

    /// Its layers into the store, each proven to be what the config says, compressed anew: the tar inside stays as it is.
    pub(crate) fn base(
        &mut self,
        image: &Archived,
        platform: Platform,
        compression: Compression,
        store: &Store,
    ) -> Result<Base, LocalError> {
        is_for(self.path, &image.config, platform)?;
        let (settings, diff_ids) =
            read_config(&image.config).map_err(|error| malformed(self.path, error.to_string()))?;
        if diff_ids.len() != image.layers.len() {
            let why = format!("{} layers in its manifest, {} in its config", image.layers.len(), diff_ids.len());
            return Err(malformed(self.path, why));
        }
        let mut layers = Vec::new();
        for (name, diff_id) in image.layers.iter().zip(diff_ids) {
            layers.push(self.layer(name, diff_id, compression, store)?);
        }
        Ok(Base { config: settings, layers })
    }

    fn media_type(&mut self, name: &str) -> Result<&'static str, LocalError> {
        let path = self.path;
        let mut first = Vec::new();
        self.member(name)?.0.take(4).read_to_end(&mut first).map_err(at(path))?;
        let fits = MEDIA_TYPES.iter().find(|(magic, _)| first.starts_with(magic));
        fits.map(|(_, media_type)| *media_type).ok_or_else(|| malformed(path, format!("{name} is no layer")))
    }

    fn layer(
        &mut self,
        name: &str,
        diff_id: Digest,
        compression: Compression,
        store: &Store,
    ) -> Result<LayerDescriptor, LocalError> {
        let path = self.path;
        let media_type = self.media_type(name)?;
        let (reader, length) = self.member(name)?;
        let looked = inspect_layer(media_type, length, BufReader::new(reader));
        let looked = looked.map_err(|error| malformed(path, format!("{name}: {error}")))?;
        if looked.diff_id != diff_id {
            return Err(malformed(path, format!("{name} is {}, its config says {diff_id}", looked.diff_id)));
        }
        let (reader, _) = self.member(name)?;
        let mut tar = unpacked(media_type, BufReader::new(reader)).map_err(at(path))?;
        let out = io::BufWriter::new(store.scratch_file().map_err(at(path))?);
        let mut writer = BlockWriter::new(out, compression);
        io::copy(&mut tar, &mut writer).map_err(at(path))?;
        let (out, made) = writer.finish().map_err(at(path))?;
        let file = out.into_inner().map_err(|failed| at(path)(failed.into_error()))?;
        let id = id_of(&made.digest).map_err(|error| malformed(path, error.to_string()))?;
        store.adopt_blob(&id, file)?;
        Ok(LayerDescriptor {
            media_type: compression.media_type().to_owned(),
            digest: made.digest,
            diff_id,
            size: made.size,
            uncompressed: made.uncompressed,
        })
    }
}

#[cfg(test)]
mod tests {
    use fleet_oci::{Content, Meta, Node, Tree, layer::write_layer};

    use super::*;
    use crate::local::LocalImage;

    const PLATFORM: Platform = Platform::LinuxAmd64;

    fn tree(text: &str) -> Tree {
        let mut tree = Tree::new();
        let node = Node::File(Meta::from_x_bit(false), Content::bytes(text.as_bytes().to_vec()));
        tree.insert("etc/file", node).unwrap();
        tree
    }

    fn config(diff_ids: &[&Digest], architecture: &str) -> String {
        serde_json::json!({
            "architecture": architecture, "os": "linux",
            "config": {"Entrypoint": ["/bin/app"], "Healthcheck": {"Test": ["CMD", "true"]}, "OnBuild": null},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string()
    }

    #[test]
    fn a_name_without_end_is_refused_before_it_fills_memory() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("image.tar");
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::GNULongName);
        header.set_size(64 << 20);
        header.set_cksum();
        // Sparse: the name is 64 MiB of NUL.
        std::fs::write(&path, header.as_bytes()).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(65 << 20).unwrap();
        let error = Archive::open(&path).map(drop).unwrap_err().to_string();
        assert!(error.contains("bytes of headers"), "{error}");
    }

    enum Member<'a> {
        File(&'a str, &'a [u8]),
        Link(&'a str, &'a str),
    }

    fn archive(folder: &Path, members: &[Member<'_>]) -> LocalImage {
        let file = folder.join("saved.tar");
        let mut tar = tar::Builder::new(File::create(&file).unwrap());
        for member in members {
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o644);
            match member {
                Member::File(name, bytes) => {
                    header.set_size(bytes.len() as u64);
                    tar.append_data(&mut header, name, *bytes).unwrap();
                }
                Member::Link(name, target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_size(0);
                    tar.append_link(&mut header, name, target).unwrap();
                }
            }
        }
        tar.into_inner().unwrap();
        LocalImage::Archive { file, name: None }
    }

    /// The layer's blob as an engine with that store writes it.
    fn kept(text: &str, compression: Option<Compression>) -> (Vec<u8>, Digest) {
        let (blob, layer) = write_layer(&tree(text), compression.unwrap_or_default(), Vec::new()).unwrap();
        let mut tar = Vec::new();
        unpacked(&layer.media_type, &blob[..]).unwrap().read_to_end(&mut tar).unwrap();
        (if compression.is_some() { blob } else { tar }, layer.diff_id)
    }

    #[test]
    fn layers_keep_their_tar_whether_the_engine_wrote_them_bare_linked_or_compressed() {
        for (wanted, first, second) in [
            (Compression::Zstd, None, None),
            (Compression::Gzip, None, Some(Compression::Zstd)),
            (Compression::Zstd, Some(Compression::Gzip), Some(Compression::Zstd)),
        ] {
            let place = tempfile::tempdir().unwrap();
            let store = Store::open(&place.path().join("store")).unwrap();
            let ((one, one_id), (two, two_id)) = (kept("one", first), kept("two", second));
            let json = config(&[&one_id, &two_id, &one_id], "amd64");
            let manifest = r#"[{"Config": "c.json", "RepoTags": null, "Layers": ["1/layer.tar", "blobs/sha256/2", "3/layer.tar"]}]"#;
            let local = archive(
                place.path(),
                &[
                    Member::File("1/layer.tar", &one),
                    Member::File("blobs/sha256/2", &two),
                    Member::Link("3/layer.tar", "../1/layer.tar"),
                    Member::File("c.json", json.as_bytes()),
                    Member::File("manifest.json", manifest.as_bytes()),
                ],
            );
            let pinned = local.resolve(PLATFORM).unwrap();
            assert_eq!(pinned, Digest::sha256(json.as_bytes()), "an engine calls the image by its config");
            let base = local.read(&pinned, PLATFORM, wanted, &store).unwrap();
            assert_eq!(base.config.healthcheck.unwrap().test.unwrap(), ["CMD", "true"]);
            for (layer, text) in base.layers.iter().zip(["one", "two", "one"]) {
                let (blob, made) = write_layer(&tree(text), wanted, Vec::new()).unwrap();
                assert_eq!(*layer, made, "the same bytes as a layer that was made here");
                assert_eq!(store.read_blob(&id_of(&layer.digest).unwrap()).unwrap().unwrap(), blob);
            }
        }
    }

    #[test]
    fn of_images_for_several_platforms_that_of_this_one_is_read() {
        let place = tempfile::tempdir().unwrap();
        let (layer, id) = kept("one", None);
        let configs = [config(&[&id], "arm64"), config(&[&id], "amd64")];
        let manifest = r#"[{"Config": "0", "Layers": ["l"]}, {"Config": "1", "Layers": ["l"]}]"#;
        let [arm, amd] = [&configs[0], &configs[1]].map(|config| config.as_bytes());
        let members = [
            Member::File("0", arm),
            Member::File("1", amd),
            Member::File("l", &layer),
            Member::File("manifest.json", manifest.as_bytes()),
        ];
        let local = archive(place.path(), &members);
        assert_eq!(local.resolve(PLATFORM).unwrap(), Digest::sha256(amd));
        assert_eq!(local.resolve(Platform::LinuxArm64).unwrap(), Digest::sha256(arm));
    }

    #[test]
    fn an_archive_that_lies_is_refused_with_the_layer_named() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(&place.path().join("store")).unwrap();
        let (good, id) = kept("one", None);
        let (other, _) = kept("two", None);
        let mut escaping = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..9].copy_from_slice(b"../escape");
        header.set_size(0);
        header.set_cksum();
        escaping.append(&header, &b""[..]).unwrap();
        let escaping = escaping.into_inner().unwrap();
        for (layer, word) in [
            (&other[..], "its config says"),
            (&good[..good.len() / 2], "layer-of-it"),
            (&escaping[..], "`..`"),
            (&[0x1f, 0x8b, 8, 0][..], "cannot be unpacked"),
        ] {
            let json = config(&[&id], "amd64");
            let manifest = r#"[{"Config": "c", "Layers": ["layer-of-it"]}]"#;
            let members = [
                Member::File("c", json.as_bytes()),
                Member::File("layer-of-it", layer),
                Member::File("manifest.json", manifest.as_bytes()),
            ];
            let local = archive(place.path(), &members);
            let pinned = local.resolve(PLATFORM).unwrap();
            let refused = local.read(&pinned, PLATFORM, Compression::Zstd, &store).unwrap_err().to_string();
            assert!(refused.contains(word) && refused.contains("layer-of-it"), "{refused}");
        }
    }
}
