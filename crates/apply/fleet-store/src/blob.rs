//! Content by hash: [`BlobWriter`], and the store's blob functions.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use crate::{
    Algorithm, BlobId, Store,
    atomic::{Temporary, sync_parent},
    blob_id::Hasher,
};

/// Why a blob could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// A file system error.
    #[error("cannot {doing} {}: {source}{}", .path.display(), crate::atomic::remedy(.source))]
    Io {
        /// `read`, `write`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes are not those that were asked for. Nothing was stored.
    #[error(
        "the content is {found} but {expected} was expected: it was damaged or replaced on the way here; nothing was stored"
    )]
    Mismatch {
        /// What was asked for.
        expected: BlobId,
        /// What came.
        found: BlobId,
    },
}

impl BlobError {
    fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// A blob being written; invisible until [`BlobWriter::finish`], and gone when dropped before.
pub struct BlobWriter<'a> {
    store: &'a Store,
    temporary: Temporary,
    file: File,
    hasher: Hasher,
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hasher.update(&bytes[..written]);
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl BlobWriter<'_> {
    /// Puts the blob into the store under the name of what was written, on the disk.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when `expected` is another name, [`BlobError::Io`].
    pub fn finish(self, expected: Option<&BlobId>) -> Result<BlobId, BlobError> {
        let found = self.hasher.finish();
        if let Some(expected) = expected.filter(|e| **e != found) {
            return Err(BlobError::Mismatch { expected: expected.clone(), found });
        }
        let path = self.store.blob_place(&found);
        if !self.store.refresh_blob(&path, &self.file) {
            self.file.sync_all().map_err(BlobError::at("write", &path))?;
            self.store.place(self.temporary, &path).map_err(BlobError::at("write", &path))?;
        }
        Ok(found)
    }
}

impl Store {
    /// Where a blob is, when it is there. The path stays valid while this store is open.
    #[must_use]
    pub fn blob_path(&self, id: &BlobId) -> Option<PathBuf> {
        Some(self.blob_place(id)).filter(|path| path.is_file())
    }

    /// Opens a blob for reading; `None` when it is not there. Its bytes are not checked: see [`Store::read_blob`].
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn open_blob(&self, id: &BlobId) -> Result<Option<File>, BlobError> {
        let path = self.blob_place(id);
        match File::open(&path) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(BlobError::Io { doing: "read", path, source }),
        }
    }

    /// Reads a blob and checks that the bytes are what the name says. A damaged one is removed, noted, and `None`.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn read_blob(&self, id: &BlobId) -> Result<Option<Vec<u8>>, BlobError> {
        let path = self.blob_place(id);
        let Some(mut file) = self.open_blob(id)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).map_err(BlobError::at("read", &path))?;
        if BlobId::of(id.algorithm(), &bytes) == *id {
            return Ok(Some(bytes));
        }
        self.put_aside(&path, "its content is not what its name says");
        Ok(None)
    }

    /// Checks a blob's bytes without keeping them; a damaged one is removed and noted. True when it is there and right.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn verify_blob(&self, id: &BlobId) -> Result<bool, BlobError> {
        let path = self.blob_place(id);
        let Some(mut file) = self.open_blob(id)? else { return Ok(false) };
        let right = hash_of(&mut file, id.algorithm()).map_err(BlobError::at("read", &path))? == *id;
        if !right {
            self.put_aside(&path, "its content is not what its name says");
        }
        Ok(right)
    }

    /// Starts a blob whose bytes come in pieces.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn blob_writer(&self, algorithm: Algorithm) -> Result<BlobWriter<'_>, BlobError> {
        let temporary = self.temporary();
        let file = temporary.create(0o600).map_err(BlobError::at("write", &temporary.path))?;
        Ok(BlobWriter { store: self, temporary, file, hasher: Hasher::new(algorithm) })
    }

    /// Stores some bytes under their name.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn put_blob(&self, algorithm: Algorithm, bytes: &[u8]) -> Result<BlobId, BlobError> {
        let mut writer = self.blob_writer(algorithm)?;
        writer.write_all(bytes).map_err(BlobError::at("write", &writer.temporary.path))?;
        writer.finish(None)
    }

    /// Stores some bytes that must have this name.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when they have another, [`BlobError::Io`].
    pub fn put_blob_expecting(&self, id: &BlobId, bytes: &[u8]) -> Result<(), BlobError> {
        let mut writer = self.blob_writer(id.algorithm())?;
        writer.write_all(bytes).map_err(BlobError::at("write", &writer.temporary.path))?;
        writer.finish(Some(id)).map(drop)
    }

    /// Copies a file into the store, checking that its bytes have this name. The file stays where it is.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when they have another, [`BlobError::Io`].
    pub fn put_blob_from_file(&self, id: &BlobId, file: &Path) -> Result<(), BlobError> {
        let mut from = File::open(file).map_err(BlobError::at("read", file))?;
        let mut writer = self.blob_writer(id.algorithm())?;
        copy(&mut from, |bytes| writer.write_all(bytes)).map_err(BlobError::at("copy", file))?;
        writer.finish(Some(id)).map(drop)
    }

    /// Makes a file from [`Store::scratch_file`] a blob, without copying it, after checking that its bytes have this name.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] when they have another, [`BlobError::Io`].
    pub fn adopt_blob(&self, id: &BlobId, scratch: tempfile::NamedTempFile) -> Result<PathBuf, BlobError> {
        let found =
            hash_of(&mut File::open(scratch.path()).map_err(BlobError::at("read", scratch.path()))?, id.algorithm())
                .map_err(BlobError::at("read", scratch.path()))?;
        if found != *id {
            return Err(BlobError::Mismatch { expected: id.clone(), found });
        }
        let path = self.blob_place(id);
        let adopt = || {
            if !self.refresh_blob(&path, scratch.as_file()) {
                scratch.as_file().sync_all()?;
                let new = self.make_parent(&path)?;
                scratch.persist(&path).map_err(|failed| failed.error)?;
                sync_name(&path, new)?;
            }
            Ok(())
        };
        adopt().map_err(BlobError::at("write", &path))?;
        Ok(path)
    }

    /// As [`Store::adopt_blob`], for bytes that were made and hashed here and can be made again: they are neither read
    /// again nor synced, which would take longer than making a small layer. What a power failure leaves of them is
    /// shorter, so whoever uses such a blob knows its length and asks [`Store::has_whole_blob`].
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn adopt_made_blob(&self, id: &BlobId, scratch: tempfile::NamedTempFile) -> Result<PathBuf, BlobError> {
        let path = self.blob_place(id);
        let adopt = || {
            if !self.refresh_blob(&path, scratch.as_file()) {
                self.make_parent(&path)?;
                scratch.persist(&path).map_err(|failed| failed.error)?;
            }
            Ok(())
        };
        adopt().map_err(BlobError::at("write", &path))?;
        Ok(path)
    }

    /// Whether a blob is there with all its bytes.
    #[must_use]
    pub fn has_whole_blob(&self, id: &BlobId, size: u64) -> bool {
        fs::metadata(self.blob_place(id)).is_ok_and(|found| found.is_file() && found.size() == size)
    }

    fn blob_place(&self, id: &BlobId) -> PathBuf {
        self.root().join("blobs").join(id.algorithm().as_str()).join(&id.hex()[..2]).join(id.hex())
    }

    /// True when the blob is there already with as many bytes; it then counts as written now, so that collection
    /// leaves it alone. A blob of another length was damaged and is replaced.
    fn refresh_blob(&self, path: &Path, written: &File) -> bool {
        let Ok(there) = File::options().write(true).open(path) else { return false };
        let same = matches!((there.metadata(), written.metadata()), (Ok(a), Ok(b)) if a.size() == b.size());
        same && there.set_modified(SystemTime::now()).is_ok()
    }

    /// Moves a finished temporary file, which is on the disk, to its place, making the folders on the way.
    pub(crate) fn place(&self, temporary: Temporary, path: &Path) -> io::Result<()> {
        let new = self.make_parent(path)?;
        temporary.rename_to(path)?;
        sync_name(path, new)
    }

    /// Makes the folder that a file belongs in; true when there was none.
    pub(crate) fn make_parent(&self, path: &Path) -> io::Result<bool> {
        match path.parent().filter(|parent| !parent.is_dir()) {
            Some(parent) => DirBuilder::new().recursive(true).mode(0o700).create(parent).map(|()| true),
            None => Ok(false),
        }
    }

    /// Removes something damaged and says so: from now on it is missing.
    pub(crate) fn put_aside(&self, path: &Path, why: &str) {
        let end = match fs::remove_file(path) {
            Ok(()) => "it was removed".to_owned(),
            Err(error) => format!("it could not be removed either: {error}"),
        };
        let shown = path.strip_prefix(self.root()).unwrap_or(path).display();
        self.note(format!("{}/{shown}: {why}; {end}", crate::DIRECTORY));
    }
}

/// Makes a file's name last through a power failure, and its folder's where that is new.
fn sync_name(path: &Path, new_folder: bool) -> io::Result<()> {
    sync_parent(path)?;
    path.parent().filter(|_| new_folder).map_or(Ok(()), sync_parent)
}

fn hash_of(from: &mut impl Read, algorithm: Algorithm) -> io::Result<BlobId> {
    let mut hasher = Hasher::new(algorithm);
    copy(from, |bytes| {
        hasher.update(bytes);
        Ok(())
    })?;
    Ok(hasher.finish())
}

/// Reads to the end in large pieces.
pub(crate) fn copy(from: &mut impl Read, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match from.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => each(&buffer[..n])?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Any = Result<(), Box<dyn std::error::Error>>;

    fn store() -> Result<(tempfile::TempDir, Store), Box<dyn std::error::Error>> {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        Ok((project, store))
    }

    #[test]
    fn bytes_come_back_under_every_algorithm() -> Any {
        let (_project, store) = store()?;
        for algorithm in [Algorithm::Blake3, Algorithm::Sha256, Algorithm::Sha512] {
            let id = store.put_blob(algorithm, b"abc")?;
            assert_eq!(id, id.to_string().parse()?);
            assert_eq!(store.read_blob(&id)?.as_deref(), Some(&b"abc"[..]));
            assert!(store.blob_path(&id).is_some());
        }
        let known = BlobId::sha256("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad")?;
        assert!(store.verify_blob(&known)?);
        Ok(())
    }

    #[test]
    fn bytes_with_another_name_are_refused_and_not_stored() -> Any {
        let (_project, store) = store()?;
        let expected = BlobId::of(Algorithm::Sha256, b"what was asked for");
        let refused = store.put_blob_expecting(&expected, b"what came");
        assert!(matches!(refused, Err(BlobError::Mismatch { .. })));
        assert_eq!(store.blob_path(&expected), None);
        assert_eq!(fs::read_dir(store.root().join("tmp"))?.count(), 0);
        Ok(())
    }

    #[test]
    fn a_scratch_file_becomes_a_blob_when_its_bytes_are_right() -> Any {
        let (_project, store) = store()?;
        let id = BlobId::of(Algorithm::Sha512, b"package");
        for (bytes, right) in [(&b"another"[..], false), (b"package", true), (b"package", true)] {
            let mut scratch = store.scratch_file()?;
            scratch.write_all(bytes)?;
            assert_eq!(store.adopt_blob(&id, scratch).is_ok(), right);
            assert_eq!(store.verify_blob(&id)?, right);
        }
        assert_eq!(fs::read_dir(store.root().join("tmp"))?.count(), 0);
        Ok(())
    }

    #[test]
    fn a_made_blob_that_lost_bytes_is_not_whole_and_is_replaced() -> Any {
        let (_project, store) = store()?;
        let id = BlobId::of(Algorithm::Sha256, b"layer");
        let made = || -> Result<PathBuf, Box<dyn std::error::Error>> {
            let mut scratch = store.scratch_file()?;
            scratch.write_all(b"layer")?;
            Ok(store.adopt_made_blob(&id, scratch)?)
        };
        assert!(!store.has_whole_blob(&id, 5));
        let path = made()?;
        assert!(store.has_whole_blob(&id, 5));
        fs::write(&path, b"lay")?;
        assert!(!store.has_whole_blob(&id, 5));
        made()?;
        assert!(store.has_whole_blob(&id, 5) && store.verify_blob(&id)?);
        assert_eq!(fs::read_dir(store.root().join("tmp"))?.count(), 0);
        Ok(())
    }

    #[test]
    fn a_damaged_blob_is_missing_and_reported() -> Any {
        let (_project, store) = store()?;
        let id = store.put_blob(Algorithm::Blake3, b"good")?;
        let path = store.blob_path(&id).ok_or("not stored")?;
        fs::write(&path, b"evil")?;
        assert_eq!(store.read_blob(&id)?, None);
        assert_eq!(store.take_notes().len(), 1);
        assert!(!path.exists());
        Ok(())
    }

    #[test]
    fn a_name_that_is_no_digest_never_becomes_a_path() {
        for text in ["sha256:../../etc/passwd", "sha256:", "md5:00", "sha256", "blake3:zz"] {
            assert!(text.parse::<BlobId>().is_err(), "{text}");
        }
    }
}
