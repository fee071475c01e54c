//! [`StatCache`]: hashes of files by what `stat` says of them, so that unchanged contents are not read again.
//!
//! An entry is used only when size, mtime, ctime, inode, device and execute bit are all as they were; ctime cannot be
//! set back by `touch`. A file that changed so shortly before it was hashed that a later change could bear the same
//! times is not remembered at all, and is read again next time.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::atomic::{AtomicUsize, Ordering},
};

use fleet_derivation::Hash;
use fleet_model::source::{Links, SourceFile};

use crate::{
    Store, WriteError,
    blob::copy,
    folder_cache::FolderCache,
    remembered::Remembered,
    side_by_side::side_by_side,
    stamp::{Stamp, now},
    walk,
};

/// Its file in a store's folder.
const FILE: &str = "stat-cache";
/// First bytes of the file; another format has another number and is ignored.
const MAGIC: &[u8] = b"fleetctl stat cache 2\n";
/// How often a file that changes while it is read is read again before its last reading is taken.
const ATTEMPTS: usize = 3;

/// A file as it was read.
#[derive(Clone, Copy, Debug)]
struct Entry {
    stamp: Stamp,
    hash: [u8; 32],
}

/// A file's hash without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HashedFile {
    /// BLAKE3 of the bytes.
    pub hash: Hash,
    /// The owner's execute bit.
    pub executable: bool,
    /// Bytes.
    pub size: u64,
}

/// A file or folder could not be hashed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot read {}: {why}", .path.display())]
pub struct HashError {
    /// Which.
    pub path: PathBuf,
    /// Why, for people.
    pub why: String,
}

/// Hashes by path and `stat`. Shared by threads; [`StatCache::save`] at the end of a run.
#[derive(Debug, Default)]
pub struct StatCache {
    hashes: Remembered,
    contents_read: AtomicUsize,
    folders: FolderCache,
}

impl StatCache {
    /// The cache of a store. One that is missing, damaged or of another version is empty.
    #[must_use]
    pub fn load(store: &Store) -> Self {
        let hashes = Remembered::load(store.root().join(FILE), MAGIC);
        Self { hashes, folders: FolderCache::load(store.root()), ..Self::default() }
    }

    /// `--no-stat-cache`: believes nothing, reads every file, and writes what it learns.
    #[must_use]
    pub fn distrusting(store: &Store) -> Self {
        let hashes = Remembered::distrusting(store.root().join(FILE), MAGIC);
        Self { hashes, folders: FolderCache::distrusting(store.root()), ..Self::default() }
    }

    /// Without a store: nothing is remembered.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// How many files' contents were read so far.
    #[must_use]
    pub fn contents_read(&self) -> usize {
        self.contents_read.load(Ordering::Relaxed)
    }

    /// How many folders' names were read so far.
    #[must_use]
    pub fn folders_read(&self) -> usize {
        self.folders.read()
    }

    pub(crate) const fn folders(&self) -> &FolderCache {
        &self.folders
    }

    /// Hashes a regular file, from memory where it is unchanged. The path should be absolute: it is the key.
    ///
    /// # Errors
    /// [`HashError`] when it cannot be read or is not a regular file.
    pub fn hash_file(&self, path: &Path) -> Result<HashedFile, HashError> {
        let failed = |error: io::Error| HashError { path: path.to_owned(), why: error.to_string() };
        self.hash_stamped(path, Stamp::of(&fs::metadata(path).map_err(failed)?))
    }

    /// The same for a file that was looked at a moment ago.
    pub(crate) fn hash_stamped(&self, path: &Path, stamp: Stamp) -> Result<HashedFile, HashError> {
        let failed = |error: io::Error| HashError { path: path.to_owned(), why: error.to_string() };
        if let Some(hash) = self.hashes.get(path, &stamp).and_then(|hash| hash.try_into().ok()) {
            return Ok(hashed(&Entry { stamp, hash }));
        }
        let entry = self.read(path, |file| {
            let mut hasher = blake3::Hasher::new();
            copy(file, |bytes| {
                hasher.update(bytes);
                Ok(())
            })?;
            Ok(((), *hasher.finalize().as_bytes()))
        });
        entry.map(|(entry, ())| hashed(&entry)).map_err(failed)
    }

    /// Reads a regular file with its bytes.
    ///
    /// # Errors
    /// [`HashError`] when it cannot be read or is not a regular file.
    pub fn read_file(&self, path: &Path) -> Result<SourceFile, HashError> {
        let read = self.read(path, |file| {
            let mut bytes = Vec::new();
            file.read_to_end(&mut bytes)?;
            let hash = *blake3::hash(&bytes).as_bytes();
            Ok((bytes, hash))
        });
        let (entry, bytes) = read.map_err(|error| HashError { path: path.to_owned(), why: error.to_string() })?;
        Ok(SourceFile { hash: entry.hash, executable: entry.stamp.executable, bytes: bytes.into() })
    }

    /// Hashes a file, or every file below a folder that the ignore rules leave, by path relative to it (a file: by its
    /// name). Files are hashed in parallel and not read where they are unchanged.
    ///
    /// # Errors
    /// [`HashError`]: the first, in byte order, that cannot be read.
    pub fn hash_path(&self, path: &Path) -> Result<BTreeMap<String, HashedFile>, HashError> {
        let failed = |why: String| HashError { path: path.to_owned(), why };
        let real = fs::canonicalize(path).map_err(|error| failed(error.to_string()))?;
        if !real.is_dir() {
            let name = real.file_name().and_then(OsStr::to_str).unwrap_or("file").to_owned();
            return Ok(BTreeMap::from([(name, self.hash_file(&real)?)]));
        }
        let found = walk::walk(&real, &real, Links::Followed, &self.folders).map_err(failed)?;
        let hashes = side_by_side(found, 1, |(name, found)| match found {
            walk::Found::File(file, stamp) => Some((name, self.hash_stamped(&file, stamp))),
            walk::Found::Folder | walk::Found::Link(_) => None,
            walk::Found::Refused(why) => {
                let path = real.join(&name);
                Some((name, Err(HashError { path, why })))
            }
        });
        hashes.into_iter().flatten().map(|(name, hash)| Ok((name, hash?))).collect()
    }

    /// Writes what was learned, when anything was. Concurrent runs overwrite each other's, which costs time only.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn save(&self) -> Result<(), WriteError> {
        self.folders.save()?;
        self.hashes.save()
    }

    /// Opens and reads a file until its stamp is the same before and after, and remembers a settled result.
    fn read<T>(
        &self,
        path: &Path,
        contents: impl Fn(&mut File) -> io::Result<(T, [u8; 32])>,
    ) -> io::Result<(Entry, T)> {
        let mut attempt = 1;
        loop {
            let now = now();
            // A pipe that took the file's place since it was looked at must not block us.
            let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).unwrap_or_default();
            let mut file = File::options().read(true).custom_flags(flags).open(path)?;
            let before = file.metadata()?;
            if !before.is_file() {
                return Err(io::Error::other("it is not a regular file"));
            }
            let stamp = Stamp::of(&before);
            self.contents_read.fetch_add(1, Ordering::Relaxed);
            let (value, hash) = contents(&mut file)?;
            let entry = Entry { stamp, hash };
            let unchanged = Stamp::of(&file.metadata()?) == stamp;
            if unchanged && stamp.settled(now) {
                self.hashes.learn(path, &stamp, &hash);
            }
            if unchanged || attempt == ATTEMPTS {
                return Ok((entry, value));
            }
            attempt += 1;
        }
    }
}

/// One hash over hashed files: over names, execute bits and contents, each with its length before it.
#[must_use]
pub fn combined_hash(files: &BTreeMap<String, HashedFile>) -> Hash {
    let mut hasher = blake3::Hasher::new_derive_key("fleetctl files 1");
    for (name, file) in files {
        hasher.update(&(name.len() as u64).to_le_bytes());
        hasher.update(name.as_bytes());
        hasher.update(&[u8::from(file.executable)]);
        hasher.update(file.hash.as_bytes());
    }
    Hash::from_bytes(*hasher.finalize().as_bytes())
}

fn hashed(entry: &Entry) -> HashedFile {
    HashedFile { hash: Hash::from_bytes(entry.hash), executable: entry.stamp.executable, size: entry.stamp.size }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    type Any = Result<(), Box<dyn std::error::Error>>;

    struct Bench {
        _project: tempfile::TempDir,
        store: Store,
        file: PathBuf,
    }

    fn bench(contents: &str) -> Result<Bench, Box<dyn std::error::Error>> {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        let file = fs::canonicalize(project.path())?.join("input");
        fs::write(&file, contents)?;
        Ok(Bench { _project: project, store, file })
    }

    /// A cache whose entries are all old enough to be believed, made without waiting: the file's own times cannot be
    /// set (ctime), so the entry is put in as a later run would have done.
    fn believing(bench: &Bench) -> Result<StatCache, Box<dyn std::error::Error>> {
        let cache = StatCache::load(&bench.store);
        let stamp = Stamp::of(&fs::metadata(&bench.file)?);
        let hash = blake3::hash(&fs::read(&bench.file)?);
        cache.hashes.learn(&bench.file, &stamp, hash.as_bytes());
        cache.save()?;
        Ok(StatCache::load(&bench.store))
    }

    #[test]
    fn an_unchanged_file_is_not_read_again() -> Any {
        let bench = bench("AAAA1111")?;
        let cache = believing(&bench)?;
        assert_eq!(cache.hash_file(&bench.file)?.hash, Hash::of(b"AAAA1111"));
        assert_eq!(cache.contents_read(), 0);
        let distrusting = StatCache::distrusting(&bench.store);
        distrusting.hash_file(&bench.file)?;
        assert_eq!(distrusting.contents_read(), 1);
        Ok(())
    }

    #[test]
    fn an_edit_of_the_same_size_with_its_mtime_put_back_is_seen() -> Any {
        let bench = bench("AAAA1111")?;
        let cache = believing(&bench)?;
        let mtime = fs::metadata(&bench.file)?.modified()?;
        std::thread::sleep(Duration::from_millis(20));
        fs::write(&bench.file, "BBBB2222")?;
        File::options().write(true).open(&bench.file)?.set_modified(mtime)?;
        assert_eq!(cache.hash_file(&bench.file)?.hash, Hash::of(b"BBBB2222"));
        Ok(())
    }

    #[test]
    fn a_file_that_changed_a_moment_ago_is_not_remembered() -> Any {
        let bench = bench("AAAA1111")?;
        for _ in 0..2 {
            let cache = StatCache::load(&bench.store);
            cache.hash_file(&bench.file)?;
            assert_eq!(cache.contents_read(), 1, "a second edit within the clock's tick would go unseen");
            cache.save()?;
        }
        Ok(())
    }

    #[test]
    fn the_execute_bit_is_part_of_what_is_compared() -> Any {
        use std::os::unix::fs::PermissionsExt;
        let bench = bench("#!/bin/sh")?;
        let cache = believing(&bench)?;
        fs::set_permissions(&bench.file, fs::Permissions::from_mode(0o755))?;
        assert!(cache.hash_file(&bench.file)?.executable);
        Ok(())
    }
}
