//! [`StatCache`]: hashes of files by what `stat` says of them, so that unchanged contents are not read again.
//!
//! An entry is used only when size, mtime, ctime, inode, device and execute bit are all as they were; ctime cannot be
//! set back by `touch`. A file that changed so shortly before it was hashed that a later change could bear the same
//! times is not remembered at all, and is read again next time.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs::{self, File},
    io::{self, Read},
    os::unix::{ffi::OsStrExt, fs::OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use fleet_derivation::Hash;
use fleet_model::source::{Links, SourceFile};
use rayon::prelude::*;

use crate::{
    Store, WriteError,
    atomic::{Temporary, write_unsynced},
    blob::copy,
    folder_cache::FolderCache,
    stamp::{Stamp, now, seal, take, unseal},
    walk,
};

/// First bytes of the file; another format has another number and is ignored.
const MAGIC: &[u8] = b"fleetctl stat cache 1\n";
/// Bytes of an entry that has a path of some length.
const ENTRY_SIZE: usize = 160;
/// How often a file that changes while it is read is read again before its last reading is taken.
const ATTEMPTS: usize = 3;

/// An entry of the file, and whether its path was there in this run.
#[derive(Debug)]
struct Known {
    entry: Entry,
    seen: AtomicBool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
    file: Option<PathBuf>,
    /// By path, as bytes: paths compare part by part, which costs more than the look-up is worth.
    known: BTreeMap<OsString, Known>,
    learned: Mutex<BTreeMap<OsString, Entry>>,
    contents_read: AtomicUsize,
    folders: FolderCache,
}

impl StatCache {
    /// The cache of a store. One that is missing, damaged or of another version is empty.
    #[must_use]
    pub fn load(store: &Store) -> Self {
        let file = store.root().join("stat-cache");
        let entries = fs::read(&file).ok().and_then(|bytes| decode(&bytes)).unwrap_or_default();
        let known = |(path, entry)| (path, Known { entry, seen: AtomicBool::new(false) });
        let known = entries.into_iter().map(known).collect();
        Self { file: Some(file), known, folders: FolderCache::load(store.root()), ..Self::default() }
    }

    /// `--no-stat-cache`: believes nothing, reads every file, and writes what it learns.
    #[must_use]
    pub fn distrusting(store: &Store) -> Self {
        let folders = FolderCache::distrusting(store.root());
        Self { file: Some(store.root().join("stat-cache")), folders, ..Self::default() }
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
        if let Some(known) = self.known.get(path.as_os_str()).filter(|known| known.entry.stamp == stamp) {
            known.seen.store(true, Ordering::Relaxed);
            return Ok(hashed(&known.entry));
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
        let hashes: Vec<(String, Result<HashedFile, HashError>)> = found
            .into_par_iter()
            .filter_map(|(name, found)| match found {
                walk::Found::File(file, stamp) => Some((name, self.hash_stamped(&file, stamp))),
                walk::Found::Folder | walk::Found::Link(_) => None,
                walk::Found::Refused(why) => {
                    let path = real.join(&name);
                    Some((name, Err(HashError { path, why })))
                }
            })
            .collect();
        hashes.into_iter().map(|(name, hash)| Ok((name, hash?))).collect()
    }

    /// Writes what was learned, when anything was. Concurrent runs overwrite each other's, which costs time only.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn save(&self) -> Result<(), WriteError> {
        self.folders.save()?;
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = &self.file else { return Ok(()) };
        if learned.iter().all(|(path, entry)| self.known.get(path).is_some_and(|known| known.entry == *entry)) {
            return Ok(());
        }
        let mut all: BTreeMap<&OsStr, &Entry> = learned.iter().map(|(path, entry)| (path.as_os_str(), entry)).collect();
        for (path, known) in &self.known {
            // Files that nobody asked for this time stay; those that are gone do not, or the cache would only grow.
            let there = || known.seen.load(Ordering::Relaxed) || Path::new(path).exists();
            if !learned.contains_key(path) && there() {
                all.insert(path, &known.entry);
            }
        }
        // Damaged by a power failure, it is empty.
        let temporary = Temporary::within(&file.with_file_name("tmp"));
        write_unsynced(file, &temporary, &encode(&all), 0o600)
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
                self.remember(path, entry);
            }
            if unchanged || attempt == ATTEMPTS {
                return Ok((entry, value));
            }
            attempt += 1;
        }
    }

    fn remember(&self, path: &Path, entry: Entry) {
        self.learned.lock().unwrap_or_else(PoisonError::into_inner).insert(path.as_os_str().to_owned(), entry);
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

/// [`MAGIC`], the entries, and BLAKE3 of all before it. An entry is the path's length (4 bytes) and bytes, six numbers and
/// the hash; numbers are little endian.
fn encode(entries: &BTreeMap<&OsStr, &Entry>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (path, Entry { stamp, hash }) in entries {
        let path = path.as_bytes();
        let Ok(length) = u32::try_from(path.len()) else { continue };
        bytes.extend(length.to_le_bytes());
        bytes.extend(path);
        stamp.encode(&mut bytes);
        bytes.extend(hash);
    }
    seal(bytes)
}

fn decode(bytes: &[u8]) -> Option<Vec<(OsString, Entry)>> {
    let mut rest = unseal(bytes, MAGIC)?;
    let mut entries = Vec::with_capacity(rest.len() / ENTRY_SIZE);
    while !rest.is_empty() {
        let length = usize::try_from(u32::from_le_bytes(take(&mut rest)?)).ok()?;
        let (path, after) = rest.split_at_checked(length)?;
        rest = after;
        let stamp = Stamp::decode(&mut rest)?;
        entries.push((OsStr::from_bytes(path).to_owned(), Entry { stamp, hash: take(&mut rest)? }));
    }
    Some(entries)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::MetadataExt as _, time::Duration};

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
        cache.remember(&bench.file, Entry { stamp, hash: *blake3::hash(&fs::read(&bench.file)?).as_bytes() });
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

    #[test]
    fn a_damaged_cache_is_empty_and_an_unchanged_one_is_not_written_again() -> Any {
        let bench = bench("AAAA1111")?;
        let cache = believing(&bench)?;
        let place = bench.store.root().join("stat-cache");
        let inode = fs::metadata(&place)?.ino();
        cache.hash_file(&bench.file)?;
        cache.save()?;
        assert_eq!(fs::metadata(&place)?.ino(), inode, "nothing was learned, so nothing is written");
        let good = fs::read(&place)?;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(decode(&bad), None, "byte {at}");
            assert_eq!(decode(&good[..at]), None, "cut at {at}");
        }
        fs::write(&place, &good[..good.len() - 1])?;
        let cache = StatCache::load(&bench.store);
        cache.hash_file(&bench.file)?;
        assert_eq!(cache.contents_read(), 1);
        Ok(())
    }

    #[test]
    fn files_that_are_gone_leave_the_cache() -> Any {
        let bench = bench("AAAA1111")?;
        let cache = believing(&bench)?;
        fs::remove_file(&bench.file)?;
        let other = bench.file.with_file_name("other");
        fs::write(&other, "x")?;
        cache.remember(&other, Entry { stamp: Stamp::of(&fs::metadata(&other)?), hash: [0; 32] });
        cache.save()?;
        assert_eq!(StatCache::load(&bench.store).known.into_keys().collect::<Vec<_>>(), [other.into_os_string()]);
        Ok(())
    }
}
