//! [`FolderCache`]: the names in folders by what `stat` says of the folder, so that one in which nothing was made, removed
//! or renamed is not read again: opening and reading folders is half of what it costs to see that nothing changed.
//!
//! It is believed as the cache of hashes is: only where size, mtime, ctime, inode and device are all as they were, and long
//! enough ago. And only on file systems that are known to give a folder another time with each change of its names.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    ops::Range,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use rustix::fs::{FileType, RawMode};

use crate::{
    WriteError,
    atomic::{Temporary, write_unsynced},
    stamp::{Stamp, seal, take, unseal},
};

/// First bytes of the file; another format has another number and is ignored.
const MAGIC: &[u8] = b"fleetctl folder cache 1\n";
/// Where its kind stands in a file's mode.
const KIND_BITS: u32 = 12;

/// ext2 to ext4, XFS, Btrfs, tmpfs, F2FS, ZFS: by `statfs(2)`. Network, overlay and FUSE file systems are as good as what
/// is behind them, which nobody can see from here.
#[cfg(target_os = "linux")]
const KNOWN_FILE_SYSTEMS: [i128; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x2fc1_2fc1];

/// Names by folder. Shared by threads.
#[derive(Debug, Default)]
pub(crate) struct FolderCache {
    file: Option<PathBuf>,
    /// The file as it was read.
    bytes: Vec<u8>,
    /// What is in it, by path.
    known: Vec<Known>,
    learned: Mutex<BTreeMap<Vec<u8>, Listed>>,
    read: AtomicUsize,
}

/// A folder of the file.
#[derive(Debug)]
struct Known {
    path: Range<usize>,
    stamp: Stamp,
    names: Range<usize>,
    /// It was there in this run.
    seen: AtomicBool,
}

/// A folder that was read.
#[derive(Debug)]
struct Listed {
    stamp: Stamp,
    names: Names,
}

/// Names in a folder with their kinds, as the file has them: kind (1 byte), length (2 bytes), bytes.
#[derive(Debug, Default)]
pub(crate) struct Names(Vec<u8>);

impl Names {
    /// Adds one. A name that is too long for any file system makes the whole useless.
    pub fn push(&mut self, kind: FileType, name: &[u8]) {
        let mode = if kind == FileType::Unknown { 0 } else { kind.as_raw_mode() };
        self.0.push(u8::try_from(mode >> KIND_BITS).unwrap_or_default());
        self.0.extend(u16::try_from(name.len()).unwrap_or(u16::MAX).to_le_bytes());
        self.0.extend(name);
    }
}

/// Reads names back; ends early where they are cut off, which the file's sum rules out.
struct Read<'a>(&'a [u8]);

impl<'a> Iterator for Read<'a> {
    type Item = (FileType, &'a OsStr);

    fn next(&mut self) -> Option<Self::Item> {
        let [kind] = take::<1>(&mut self.0)?;
        let length = usize::from(u16::from_le_bytes(take(&mut self.0)?));
        let (name, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some((FileType::from_raw_mode(RawMode::from(kind) << KIND_BITS), OsStr::from_bytes(name)))
    }
}

impl FolderCache {
    /// The one in a store's folder. One that is missing, damaged or of another version is empty.
    pub fn load(store: &Path) -> Self {
        let cache = Self::distrusting(store);
        let bytes = cache.file.as_ref().and_then(|file| fs::read(file).ok()).unwrap_or_default();
        match decode(&bytes) {
            Some(known) => Self { bytes, known, ..cache },
            None => cache,
        }
    }

    /// One that believes nothing, and keeps what it learns.
    pub fn distrusting(store: &Path) -> Self {
        Self { file: Some(store.join("folder-cache")), ..Self::default() }
    }

    /// How many folders were read, since nothing was known of them.
    pub fn read(&self) -> usize {
        self.read.load(Ordering::Relaxed)
    }

    /// The device of a folder on a file system whose folders can be believed.
    pub fn device(folder: &Path) -> Option<u64> {
        #[cfg(target_os = "linux")]
        {
            let kind = i128::from(rustix::fs::statfs(folder).ok()?.f_type);
            let stat = rustix::fs::stat(folder).ok()?;
            KNOWN_FILE_SYSTEMS.contains(&kind).then(|| Stamp::of_stat(&stat).device)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = folder;
            None
        }
    }

    /// Whether there is any use in asking for a folder's stamp.
    pub fn knows(&self, folder: &Path) -> bool {
        self.find(folder).is_some()
    }

    /// The names in a real folder that has this stamp now.
    pub fn names(&self, folder: &Path, stamp: &Stamp) -> Option<impl Iterator<Item = (FileType, &OsStr)>> {
        let known = self.find(folder).filter(|known| known.stamp == *stamp)?;
        known.seen.store(true, Ordering::Relaxed);
        Some(Read(self.bytes.get(known.names.clone())?))
    }

    /// Takes note of the names in a real folder, read while it had this stamp; `None`: of no use later.
    pub fn note(&self, folder: &Path, listed: Option<(Stamp, Names)>) {
        self.read.fetch_add(1, Ordering::Relaxed);
        if let (Some((stamp, names)), Some(_)) = (listed, &self.file) {
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            learned.insert(folder.as_os_str().as_bytes().to_owned(), Listed { stamp, names });
        }
    }

    /// Writes what was learned, when anything was.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn save(&self) -> Result<(), WriteError> {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(file) = self.file.as_ref().filter(|_| !learned.is_empty()) else { return Ok(()) };
        let mut all: BTreeMap<&[u8], (&Stamp, &[u8])> = learned
            .iter()
            .map(|(path, listed)| (path.as_slice(), (&listed.stamp, listed.names.0.as_slice())))
            .collect();
        for known in &self.known {
            let (path, names) = (&self.bytes[known.path.clone()], &self.bytes[known.names.clone()]);
            // Folders that nobody asked for this time stay; those that are gone do not.
            let there = || known.seen.load(Ordering::Relaxed) || Path::new(OsStr::from_bytes(path)).is_dir();
            if !all.contains_key(path) && there() {
                all.insert(path, (&known.stamp, names));
            }
        }
        // Damaged by a power failure, it is empty.
        let temporary = Temporary::within(&file.with_file_name("tmp"));
        write_unsynced(file, &temporary, &encode(&all), 0o600)
    }

    fn find(&self, folder: &Path) -> Option<&Known> {
        let path = folder.as_os_str().as_bytes();
        let at = self.known.binary_search_by(|known| self.bytes[known.path.clone()].cmp(path)).ok()?;
        self.known.get(at)
    }
}

/// [`MAGIC`], the folders in byte order of their paths, and BLAKE3 of all before it. A folder is the path's length (4 bytes)
/// and bytes, its stamp, and the names' length (4 bytes) and bytes; numbers are little endian.
fn encode(folders: &BTreeMap<&[u8], (&Stamp, &[u8])>) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    for (path, (stamp, names)) in folders {
        let (Ok(path_length), Ok(names_length)) = (u32::try_from(path.len()), u32::try_from(names.len())) else {
            continue;
        };
        bytes.extend(path_length.to_le_bytes());
        bytes.extend(*path);
        stamp.encode(&mut bytes);
        bytes.extend(names_length.to_le_bytes());
        bytes.extend(*names);
    }
    seal(bytes)
}

fn decode(bytes: &[u8]) -> Option<Vec<Known>> {
    let mut rest = unseal(bytes, MAGIC)?;
    let mut known = Vec::new();
    let end = MAGIC.len() + rest.len();
    // Takes a length and so many bytes; gives where they are.
    let piece = |rest: &mut &[u8]| {
        let length = usize::try_from(u32::from_le_bytes(take(rest)?)).ok()?;
        let start = end - rest.len();
        *rest = rest.split_at_checked(length)?.1;
        Some(start..start + length)
    };
    while !rest.is_empty() {
        let path = piece(&mut rest)?;
        let stamp = Stamp::decode(&mut rest)?;
        known.push(Known { path, stamp, names: piece(&mut rest)?, seen: AtomicBool::new(false) });
    }
    Some(known)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::symlink, time::Duration};

    use fleet_model::source::{Links, Listing, RelPath};

    use super::*;
    use crate::{Project, StatCache, Store};

    type Any = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn names_come_back_as_they_were_and_a_damaged_cache_is_empty() -> Any {
        let store = tempfile::tempdir()?;
        fs::create_dir(store.path().join("tmp"))?;
        let stamp = Stamp::of(&fs::metadata(store.path())?);
        let cache = FolderCache::load(store.path());
        let mut names = Names::default();
        for (kind, name) in [(FileType::RegularFile, "a b"), (FileType::Symlink, "ö"), (FileType::Unknown, "")] {
            names.push(kind, name.as_bytes());
        }
        cache.note(store.path(), Some((stamp, names)));
        cache.note(Path::new("/nowhere"), Some((stamp, Names::default())));
        cache.save()?;
        let again = FolderCache::load(store.path());
        let found: Vec<_> = again.names(store.path(), &stamp).ok_or("unknown")?.collect();
        assert_eq!(
            found,
            [
                (FileType::RegularFile, OsStr::new("a b")),
                (FileType::Symlink, OsStr::new("ö")),
                (FileType::Unknown, OsStr::new(""))
            ]
        );
        let other = Stamp::of(&fs::metadata("/")?);
        assert!(again.names(store.path(), &other).is_none(), "it is another folder now");
        again.note(Path::new("/elsewhere"), Some((stamp, Names::default())));
        again.save()?;
        let third = FolderCache::load(store.path());
        assert!(third.knows(store.path()) && third.knows(Path::new("/elsewhere")));
        assert!(!third.knows(Path::new("/nowhere")), "what is gone is forgotten");
        let good = fs::read(store.path().join("folder-cache"))?;
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_none(), "byte {at}");
            assert!(decode(&good[..at]).is_none(), "cut at {at}");
        }
        Ok(())
    }

    /// What is listed through what earlier listings learned, and how many folders were read for it.
    fn listed(root: &Path) -> Result<(Listing, usize), Box<dyn std::error::Error>> {
        let project = Project::open(root, StatCache::load(&Store::open(root)?))?;
        let listing = project.list(&RelPath::new("img")?, Links::Followed);
        project.save_cache()?;
        Ok((listing, project.cache().folders_read()))
    }

    /// One of the ways in which the names in a folder change.
    fn change(random: &mut fastrand::Rng, folders: &[PathBuf], fresh: &str) -> std::io::Result<()> {
        let folder = &folders[random.usize(..folders.len())];
        let Ok(names) = fs::read_dir(folder) else { return fs::create_dir_all(folder) };
        let names: Vec<PathBuf> = names.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
        let Some(old) = names.get(random.usize(..names.len().max(1))) else { return fs::write(folder.join(fresh), "") };
        let remove = || if old.is_dir() && !old.is_symlink() { fs::remove_dir_all(old) } else { fs::remove_file(old) };
        match random.u8(..6) {
            0 => fs::write(folder.join(fresh), fresh),
            1 => remove(),
            2 => fs::rename(old, folder.join(fresh)),
            3 => remove().and_then(|()| fs::create_dir(old)),
            4 => remove().and_then(|()| symlink("/etc/hostname", old)),
            _ => remove().and_then(|()| fs::write(old, fresh)),
        }
    }

    #[test]
    fn whatever_changes_in_a_folder_is_seen_though_folders_are_not_read_again() -> Any {
        let root = tempfile::tempdir()?;
        let folders: Vec<PathBuf> = (0..12).map(|n| root.path().join(format!("img/d{}/e{n}", n % 4))).collect();
        for folder in &folders {
            fs::create_dir_all(folder)?;
            for name in ["a", "b", "c"] {
                fs::write(folder.join(name), name)?;
            }
        }
        assert_eq!(listed(root.path())?.1, 17);
        assert_eq!(listed(root.path())?.1, 17, "what changed a moment ago could change again within the clock's tick");
        std::thread::sleep(Duration::from_millis(2100));
        listed(root.path())?;
        let read = if FolderCache::device(root.path()).is_some() { 0 } else { 17 };
        assert_eq!(listed(root.path())?.1, read);
        let mut random = fastrand::Rng::with_seed(7);
        for round in 0..200 {
            change(&mut random, &folders, &format!("n{round}"))?;
            let fresh = Project::open(root.path(), StatCache::none())?.list(&RelPath::new("img")?, Links::Followed);
            assert_eq!(listed(root.path())?.0, fresh, "after change {round}");
        }
        Ok(())
    }
}
