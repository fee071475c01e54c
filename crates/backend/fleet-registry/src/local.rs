//! [`LocalImage`]: images on disk as bases: OCI layouts and `docker save` archives, pinned by digest like those of
//! registries, and trusted as little.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    path::{Path, PathBuf},
};

use fleet_oci::{
    Compression, Digest, LayerDescriptor, Platform,
    image::{Base, read_config},
    inspect::inspect_layer,
    layout::{Entry, INDEX, LayoutError, blob_path, find},
};
use fleet_store::{BlobError, Store};
use serde::Deserialize;

use crate::{
    archive::Archive,
    manifest::{Blob, Document, Kind, MAXIMUM_MANIFEST},
    pull::{MAXIMUM_CONFIG, MAXIMUM_INDEXES, id_of},
};

/// An image on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LocalImage {
    /// `oci:FOLDER[#NAME]`; its digest is that of its manifest.
    Layout {
        /// The layout.
        folder: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
    /// `docker-archive:FILE[#REPOSITORY:TAG]`; its digest is that of its config, which names every layer.
    Archive {
        /// The archive.
        file: PathBuf,
        /// Which of its images.
        name: Option<String>,
    },
}

/// Why an image on disk cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// A file.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The index of a layout.
    #[error("{}: {source}", .path.display())]
    Layout {
        /// Which.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: LayoutError,
    },
    /// Something that is not what it should be.
    #[error("{}: {why}", .path.display())]
    Malformed {
        /// Which file or folder.
        path: PathBuf,
        /// What is wrong.
        why: String,
    },
    /// It is another image than the one that was pinned.
    #[error("{} holds {found}, fleet.lock pins {pinned}; run `fleetctl lock` if that is meant", .path.display())]
    Changed {
        /// Which file or folder.
        path: PathBuf,
        /// What is there.
        found: Digest,
        /// What should be.
        pinned: Digest,
    },
    /// The store.
    #[error(transparent)]
    Store(#[from] BlobError),
}

impl LocalImage {
    /// Reads `oci:…` and `docker-archive:…`, relative to a project's folder; `None` for what a registry has.
    #[must_use]
    pub fn parse(reference: &str, project: &Path) -> Option<Self> {
        let (kind, rest) = reference.split_once(':')?;
        let (path, name) = rest.split_once('#').map_or((rest, None), |(path, name)| (path, Some(name.to_owned())));
        match kind {
            "oci" => Some(Self::Layout { folder: project.join(path), name }),
            "docker-archive" => Some(Self::Archive { file: project.join(path), name }),
            _ => None,
        }
    }

    /// The folder or file.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Layout { folder: path, .. } | Self::Archive { file: path, .. } => path,
        }
    }

    /// The digest that pins it, as it is now.
    ///
    /// # Errors
    /// [`LocalError`].
    pub fn resolve(&self, platform: Platform) -> Result<Digest, LocalError> {
        match self {
            Self::Layout { folder, name } => {
                Layout { folder }.resolve(name.as_deref(), platform).map(|(digest, _)| digest)
            }
            Self::Archive { file, name } => {
                let mut archive = Archive::open(file)?;
                Ok(Digest::sha256(&archive.image(name.as_deref(), platform)?.config))
            }
        }
    }

    /// Its layers into the store, verified down to their diff ids. Layers of an archive are compressed as `compression` says;
    /// those of a layout stay as they are.
    ///
    /// # Errors
    /// [`LocalError::Changed`] when it is not the pinned one; [`LocalError`].
    pub fn read(
        &self,
        pinned: &Digest,
        platform: Platform,
        compression: Compression,
        store: &Store,
    ) -> Result<Base, LocalError> {
        match self {
            Self::Layout { folder, name } => {
                let layout = Layout { folder };
                let (found, kind) = layout.resolve(name.as_deref(), platform)?;
                same(folder, found, pinned)?;
                layout.base(&kind.0, &kind.1, store)
            }
            Self::Archive { file, name } => {
                let mut archive = Archive::open(file)?;
                let image = archive.image(name.as_deref(), platform)?;
                same(file, Digest::sha256(&image.config), pinned)?;
                archive.base(&image, platform, compression, store)
            }
        }
    }
}

fn same(path: &Path, found: Digest, pinned: &Digest) -> Result<(), LocalError> {
    if found == *pinned {
        return Ok(());
    }
    Err(LocalError::Changed { path: path.to_owned(), found, pinned: pinned.clone() })
}

/// A layout being read.
struct Layout<'a> {
    folder: &'a Path,
}

impl Layout<'_> {
    /// The manifest of an image for a platform, through whatever indexes stand around it.
    fn resolve(&self, name: Option<&str>, platform: Platform) -> Result<(Digest, (Blob, Vec<Blob>)), LocalError> {
        let path = self.folder.join(INDEX);
        let index = bounded(&path, MAXIMUM_MANIFEST as u64)?;
        let Entry { mut digest, .. } =
            find(&index, name).map_err(|source| LocalError::Layout { path: self.folder.to_owned(), source })?;
        for _ in 0..=MAXIMUM_INDEXES {
            let bytes = self.blob(&digest, MAXIMUM_MANIFEST as u64)?;
            match Document::parse(&bytes, platform).map_err(|why| malformed(self.folder, why))? {
                Kind::Image { config, layers } => {
                    is_for(self.folder, &self.blob(&config.digest, MAXIMUM_CONFIG)?, platform)?;
                    return Ok((digest, (config, layers)));
                }
                Kind::Index(Some(inner)) => digest = inner,
                Kind::Index(None) => return Err(malformed(self.folder, format!("it has no image for {platform}"))),
            }
        }
        Err(malformed(self.folder, format!("an index in an index, more than {MAXIMUM_INDEXES} deep")))
    }

    fn base(&self, config: &Blob, layers: &[Blob], store: &Store) -> Result<Base, LocalError> {
        let json = self.blob(&config.digest, MAXIMUM_CONFIG)?;
        let (settings, diff_ids) = read_config(&json).map_err(|error| malformed(self.folder, error.to_string()))?;
        if diff_ids.len() != layers.len() {
            let why = format!("{} layers in its manifest, {} in its config", layers.len(), diff_ids.len());
            return Err(malformed(self.folder, why));
        }
        let mut read = Vec::new();
        for (blob, diff_id) in layers.iter().zip(diff_ids) {
            let path = self.folder.join(blob_path(&blob.digest));
            let id = id_of(&blob.digest).map_err(|error| malformed(&path, error.to_string()))?;
            store.put_blob_from_file(&id, &path)?;
            let media_type = blob.oci_type().to_owned();
            let file = File::open(&path).map_err(at(&path))?;
            let looked = inspect_layer(&media_type, blob.size, BufReader::new(file));
            let looked = looked.map_err(|error| malformed(&path, error.to_string()))?;
            if looked.diff_id != diff_id {
                let why = format!("the tar inside is {}, its config says {diff_id}", looked.diff_id);
                return Err(malformed(&path, why));
            }
            let (digest, size, uncompressed) = (blob.digest.clone(), blob.size, looked.uncompressed);
            read.push(LayerDescriptor { media_type, digest, diff_id, size, uncompressed });
        }
        Ok(Base { config: settings, layers: read })
    }

    fn blob(&self, digest: &Digest, most: u64) -> Result<Vec<u8>, LocalError> {
        let path = self.folder.join(blob_path(digest));
        let bytes = bounded(&path, most)?;
        let mut hash = fleet_oci::digest::Hasher::new(digest.algorithm());
        hash.update(&bytes);
        let found = hash.finish();
        if found == *digest { Ok(bytes) } else { Err(malformed(&path, format!("its bytes are {found}"))) }
    }
}

/// A config says what its image runs on.
pub(crate) fn is_for(path: &Path, config: &[u8], platform: Platform) -> Result<(), LocalError> {
    #[derive(Deserialize)]
    struct Built {
        os: String,
        architecture: String,
    }
    let built: Built = serde_json::from_slice(config).map_err(|error| malformed(path, error.to_string()))?;
    if (built.os.as_str(), built.architecture.as_str()) == (platform.os(), platform.architecture()) {
        return Ok(());
    }
    Err(malformed(path, format!("its image is for {}/{}, not for {platform}", built.os, built.architecture)))
}

fn bounded(path: &Path, most: u64) -> Result<Vec<u8>, LocalError> {
    let length = fs::metadata(path).map_err(at(path))?.len();
    if length > most {
        return Err(malformed(path, format!("it has {length} bytes, more than {most}")));
    }
    fs::read(path).map_err(at(path))
}

pub(crate) fn malformed(path: &Path, why: String) -> LocalError {
    LocalError::Malformed { path: path.to_owned(), why }
}

pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> LocalError {
    let path = path.to_owned();
    move |source| LocalError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use fleet_oci::{
        Content, Image, ImageConfig, Meta, Node, Tree, Upload, image::assemble, layer::write_layer, layout::Item,
    };

    use super::*;
    use crate::layout;

    const PLATFORM: Platform = Platform::LinuxAmd64;

    fn image(store: &Store) -> Image {
        let mut tree = Tree::new();
        let node = Node::File(Meta::from_x_bit(false), Content::bytes(b"text".to_vec()));
        tree.insert("etc/file", node).unwrap();
        let (bytes, layer) = write_layer(&tree, Compression::Zstd, Vec::new()).unwrap();
        store.put_blob(fleet_store::Algorithm::Sha256, &bytes).unwrap();
        let config = ImageConfig { user: Some("1000".to_owned()), ..ImageConfig::default() };
        assemble(&Base::default(), PLATFORM, &config, &[layer])
    }

    /// A layout with one image, and another, empty store.
    fn layout(place: &Path) -> (Image, LocalImage, Store) {
        let store = Store::open(&place.join("one")).unwrap();
        let image = image(&store);
        let item = Item {
            name: "base".into(),
            full_name: "f/base:d-1".into(),
            image: Upload::of_image(&image),
            statements: Vec::new(),
        };
        layout::write(&place.join("layout"), &[item], &store).unwrap();
        let local = LocalImage::parse("oci:layout#base", place).unwrap();
        (image, local, Store::open(&place.join("two")).unwrap())
    }

    #[test]
    fn a_layout_is_a_base_whose_digest_is_that_of_its_manifest() {
        let place = tempfile::tempdir().unwrap();
        let (image, local, store) = layout(place.path());
        assert_eq!(local.resolve(PLATFORM).unwrap(), image.digest);
        let base = local.read(&image.digest, PLATFORM, Compression::Gzip, &store).unwrap();
        assert_eq!((base.layers, base.config), (image.layers.clone(), image.config.clone()));
        assert!(store.blob_path(&id_of(&image.layers[0].digest).unwrap()).is_some());
        let other = Digest::sha256(b"another");
        let refused = local.read(&other, PLATFORM, Compression::Gzip, &store).unwrap_err();
        assert!(matches!(refused, LocalError::Changed { .. }), "{refused}");
        assert!(
            local.resolve(Platform::LinuxArm64).unwrap_err().to_string().contains("linux/amd64, not for linux/arm64")
        );
    }

    #[test]
    fn a_layout_whose_blobs_are_not_what_their_names_say_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let (image, local, store) = layout(place.path());
        for digest in [&image.layers[0].digest, &image.config_digest, &image.digest] {
            let path = place.path().join("layout").join(blob_path(digest));
            let good = fs::read(&path).unwrap();
            fs::write(&path, [&good[..good.len() - 1], b"!"].concat()).unwrap();
            let refused = local.read(&image.digest, PLATFORM, Compression::Zstd, &store);
            assert!(refused.is_err(), "{digest}");
            fs::write(&path, good).unwrap();
        }
        assert!(local.read(&image.digest, PLATFORM, Compression::Zstd, &store).is_ok());
    }

    #[test]
    fn what_is_no_path_in_a_project_is_a_registry_s() {
        let project = Path::new("/project");
        let archive = LocalImage::Archive { file: "/project/a.tar".into(), name: Some("f/a:1".into()) };
        assert_eq!(LocalImage::parse("docker-archive:a.tar#f/a:1", project), Some(archive));
        for reference in ["docker.io/library/debian:12", "localhost:5000/a:1", "a"] {
            assert_eq!(LocalImage::parse(reference, project), None, "{reference}");
        }
    }
}
