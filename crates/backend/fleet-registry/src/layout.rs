//! [`write`]: images into an OCI layout, a folder that skopeo, umoci, containerd and others read.
//!
//! A new layout appears whole: it is made beside its place and renamed. An existing one gets the blobs first and its
//! `index.json` last, under a lock, so that readers and other writers always see a complete layout. Blobs that an image
//! replaced stay; nothing here deletes.

use std::{
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use fleet_oci::{
    BlobRef, Digest, Upload,
    digest::{DAMAGED, HashingWriter},
    layout::{INDEX, Item, LayoutError, MARKER, MARKER_TEXT, blob_path, index},
};
use fleet_store::{Store, WriteError, write_atomic};

use crate::pull::id_of;

/// An `index.json` larger than this is refused.
const MAXIMUM_INDEX: u64 = 16 << 20;

/// Why a layout could not be written. What was there before is still there.
#[derive(Debug, thiserror::Error)]
pub enum WriteLayoutError {
    /// Something else is there.
    #[error("{} is not empty and no OCI layout; name another folder, or move it away", .0.display())]
    SomethingElse(PathBuf),
    /// The layout that is there cannot be added to.
    #[error("{}: {source}", .folder.display())]
    Former {
        /// The layout.
        folder: PathBuf,
        /// What is wrong with it.
        #[source]
        source: LayoutError,
    },
    /// A blob is not in the store.
    #[error("the blob {0} is not in the store; build again")]
    NoBlob(Digest),
    /// A blob in the store is not what its name says. It is put aside.
    #[error("the blob {0} {DAMAGED}")]
    Damaged(Digest),
    /// The disk.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The disk.
    #[error(transparent)]
    Write(#[from] WriteError),
}

/// Whether a layout can be written at `folder`: nothing is there, or an empty folder, or a layout.
///
/// # Errors
/// [`WriteLayoutError::SomethingElse`].
pub fn usable(folder: &Path) -> Result<(), WriteLayoutError> {
    let vacant = || fs::read_dir(folder).map_or(true, |mut entries| entries.next().is_none());
    if folder.is_file() || !(folder.join(MARKER).is_file() || vacant()) {
        return Err(WriteLayoutError::SomethingElse(folder.to_owned()));
    }
    Ok(())
}

/// Writes images, each with its statements, into the layout at `folder`: a new one, or one more name in one that is there.
///
/// # Errors
/// [`WriteLayoutError`].
pub fn write(folder: &Path, items: &[Item], store: &Store) -> Result<(), WriteLayoutError> {
    if folder.join(MARKER).is_file() {
        let marker = File::open(folder.join(MARKER)).map_err(at(folder))?;
        marker.lock().map_err(at(folder))?;
        return fill(folder, items, store);
    }
    usable(folder)?;
    let parent = folder.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(at(parent))?;
    let whole = tempfile::Builder::new().prefix(".layout-").tempdir_in(parent).map_err(at(parent))?;
    fs::set_permissions(whole.path(), Permissions::from_mode(0o755)).map_err(at(folder))?;
    fill(whole.path(), items, store)?;
    fs::rename(whole.path(), folder).map_err(at(folder))?;
    // Its folder is where it belongs; there is nothing left to remove.
    let _ = whole.keep();
    sync_folder(parent)
}

fn fill(folder: &Path, items: &[Item], store: &Store) -> Result<(), WriteLayoutError> {
    for item in items {
        for upload in [&item.image].into_iter().chain(&item.statements) {
            put(folder, upload, store)?;
        }
    }
    let file = folder.join(INDEX);
    let former = match fs::metadata(&file) {
        Ok(metadata) if metadata.len() > MAXIMUM_INDEX => {
            let why = format!("it has {} bytes, more than {MAXIMUM_INDEX}", metadata.len());
            return Err(at(&file)(io::Error::new(io::ErrorKind::InvalidData, why)));
        }
        Ok(_) => Some(fs::read(&file).map_err(at(&file))?),
        Err(_) => None,
    };
    let merged = index(former.as_deref(), items)
        .map_err(|source| WriteLayoutError::Former { folder: folder.to_owned(), source })?;
    write_atomic(&file, merged.as_bytes(), 0o644)?;
    if former.is_none() {
        write_atomic(&folder.join(MARKER), MARKER_TEXT.as_bytes(), 0o644)?;
    }
    Ok(())
}

fn put(folder: &Path, upload: &Upload, store: &Store) -> Result<(), WriteLayoutError> {
    for child in &upload.children {
        put(folder, child, store)?;
    }
    for blob in &upload.blobs {
        put_blob(folder, blob, store)?;
    }
    put_bytes(folder, (&upload.digest, upload.manifest.len() as u64), &mut &upload.manifest[..]).map(drop)
}

fn put_blob(folder: &Path, blob: &BlobRef, store: &Store) -> Result<(), WriteLayoutError> {
    let named = (&blob.digest, blob.size);
    if let Some(bytes) = &blob.inline {
        return put_bytes(folder, named, &mut &bytes[..]).map(drop);
    }
    let absent = || WriteLayoutError::NoBlob(blob.digest.clone());
    let id = id_of(&blob.digest).map_err(|_| absent())?;
    // Copied and not linked: who edits a layout must not edit the store.
    let mut file = store.open_blob(&id).ok().flatten().ok_or_else(absent)?;
    if put_bytes(folder, named, &mut file)? {
        return Ok(());
    }
    // Whatever comes of it, nothing wrong was written.
    drop(store.verify_blob(&id));
    Err(WriteLayoutError::Damaged(blob.digest.clone()))
}

/// A blob under its name, whole or not at all; false when the bytes are not those of the name, which writes nothing. One that is
/// there with as many bytes has the same: its name is their hash.
fn put_bytes(
    folder: &Path,
    (digest, size): (&Digest, u64),
    bytes: &mut dyn io::Read,
) -> Result<bool, WriteLayoutError> {
    let path = &folder.join(blob_path(digest));
    if fs::metadata(path).is_ok_and(|there| there.is_file() && there.len() == size) {
        return Ok(true);
    }
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(at(parent))?;
    let mut written = || {
        let file = tempfile::Builder::new().prefix(".blob-").tempfile_in(parent)?;
        let mut hashed = HashingWriter::new(file, digest.algorithm());
        io::copy(bytes, &mut hashed)?;
        let (mut file, written, _) = hashed.finish();
        if written != *digest {
            return Ok(false);
        }
        file.flush()?;
        file.as_file().set_permissions(Permissions::from_mode(0o644))?;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|failed| failed.error)?;
        Ok(true)
    };
    let right = written().map_err(at(path))?;
    sync_folder(parent)?;
    Ok(right)
}

fn sync_folder(folder: &Path) -> Result<(), WriteLayoutError> {
    File::open(folder).and_then(|folder| folder.sync_all()).map_err(at(folder))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> WriteLayoutError {
    let path = path.to_owned();
    move |source| WriteLayoutError::Io { path, source }
}

#[cfg(test)]
mod tests {
    use fleet_oci::{
        Image, ImageConfig, LayerDescriptor, Platform,
        image::{Base, assemble},
    };

    use super::*;

    fn image(store: &Store, content: &[u8]) -> Image {
        store.put_blob(fleet_store::Algorithm::Sha256, content).unwrap();
        let digest = Digest::sha256(content);
        let layer = LayerDescriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar".into(),
            diff_id: digest.clone(),
            digest,
            size: content.len() as u64,
            uncompressed: content.len() as u64,
        };
        assemble(&Base::default(), Platform::LinuxAmd64, &ImageConfig::default(), &[layer])
    }

    fn item(name: &str, image: &Image) -> Item {
        let full_name = format!("f/{name}:d-1");
        Item { name: name.into(), full_name, image: Upload::of_image(image), statements: Vec::new() }
    }

    #[test]
    fn a_second_image_joins_the_first_and_every_blob_is_what_its_name_says() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let folder = place.path().join("deep/out");
        write(&folder, &[item("a", &image(&store, b"one"))], &store).unwrap();
        write(&folder, &[item("b", &image(&store, b"two"))], &store).unwrap();
        let blobs: Vec<_> = fs::read_dir(folder.join("blobs/sha256")).unwrap().map(|entry| entry.unwrap()).collect();
        assert_eq!(blobs.len(), 6, "two manifests, two configs, two layers, and no temporary file");
        for blob in blobs {
            let found = Digest::sha256(&fs::read(blob.path()).unwrap());
            assert_eq!(found.hex(), blob.file_name().to_str().unwrap());
        }
        let index = fs::read(folder.join(INDEX)).unwrap();
        for name in ["a", "b"] {
            assert!(fleet_oci::layout::find(&index, Some(name)).is_ok(), "{name}");
        }
        let beside: Vec<_> = fs::read_dir(place.path().join("deep")).unwrap().collect();
        assert_eq!(beside.len(), 1, "{beside:?}");
    }

    #[test]
    fn a_folder_with_something_else_in_it_is_refused_and_untouched() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let refused = write(place.path(), &[item("a", &image(&store, b"one"))], &store).unwrap_err();
        assert!(refused.to_string().contains("no OCI layout"), "{refused}");
        assert!(!place.path().join("blobs").exists() && !place.path().join(INDEX).exists());
    }

    #[test]
    fn a_layer_that_is_not_in_the_store_leaves_no_layout() {
        let place = tempfile::tempdir().unwrap();
        let store = Store::open(place.path()).unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let made = image(&Store::open(elsewhere.path()).unwrap(), b"one");
        let folder = place.path().join("out");
        assert!(matches!(write(&folder, &[item("a", &made)], &store), Err(WriteLayoutError::NoBlob(_))));
        assert!(!folder.exists());
    }
}
