//! [`BlobCache`]: where blobs are kept by digest.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use fleet_oci::{Digest, digest::HashingWriter};
use tempfile::NamedTempFile;

/// A content-addressed place for blobs. Implementations must make [`BlobCache::put`] atomic: a blob is there whole
/// or not at all, whatever dies when.
pub trait BlobCache: Send + Sync {
    /// Where the blob lies, when it is there.
    fn get(&self, digest: &Digest) -> Option<PathBuf>;

    /// An empty file on the same file system, for a blob that is being made.
    ///
    /// # Errors
    /// When the cache cannot be written.
    fn scratch(&self) -> io::Result<NamedTempFile>;

    /// Takes over a file from [`BlobCache::scratch`], whose bytes the caller has verified to have this digest.
    ///
    /// # Errors
    /// When the cache cannot be written.
    fn put(&self, digest: &Digest, file: NamedTempFile) -> io::Result<PathBuf>;

    /// Looks at the bytes of a blob: true when they are what its name says. Damaged ones are put aside, so that they are had
    /// anew by whoever asks for them next.
    fn check(&self, digest: &Digest) -> bool;

    /// As [`BlobCache::put`], for bytes that were made here and can be made again, which need not last through a power
    /// failure: whoever takes them from the cache looks at their length.
    ///
    /// # Errors
    /// When the cache cannot be written.
    fn put_made(&self, digest: &Digest, file: NamedTempFile) -> io::Result<PathBuf> {
        self.put(digest, file)
    }
}

/// A [`BlobCache`] in a folder of its own: `<folder>/<algorithm>/<hex>`.
#[derive(Clone, Debug)]
pub struct FolderCache {
    folder: PathBuf,
}

impl FolderCache {
    /// Uses a folder; it is made when something is first put there.
    #[must_use]
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self { folder: folder.into() }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.folder.join(digest.algorithm().name()).join(digest.hex())
    }
}

impl BlobCache for FolderCache {
    fn check(&self, digest: &Digest) -> bool {
        let path = self.path(digest);
        let mut hashed = HashingWriter::new(io::sink(), digest.algorithm());
        let read = fs::File::open(&path).and_then(|mut file| io::copy(&mut file, &mut hashed));
        let right = read.is_ok() && hashed.finish().1 == *digest;
        if !right {
            let _ = fs::remove_file(path);
        }
        right
    }

    fn get(&self, digest: &Digest) -> Option<PathBuf> {
        Some(self.path(digest)).filter(|path| path.is_file())
    }

    fn scratch(&self) -> io::Result<NamedTempFile> {
        let folder = self.folder.join("tmp");
        fs::create_dir_all(&folder)?;
        NamedTempFile::new_in(folder)
    }

    fn put(&self, digest: &Digest, file: NamedTempFile) -> io::Result<PathBuf> {
        let path = self.path(digest);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        file.as_file().sync_data()?;
        file.persist(&path).map_err(|failed| failed.error)?;
        Ok(path)
    }
}
