//! [`FolderCache`]: the names in folders by what `stat` says of the folder, so that one in which nothing was made, removed
//! or renamed is not read again: opening and reading folders is half of what it costs to see that nothing changed.
//!
//! It is believed as the cache of hashes is: only where size, mtime, ctime, inode and device are all as they were, and long
//! enough ago. And only on file systems that are known to give a folder another time with each change of its names.

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    sync::atomic::{AtomicUsize, Ordering},
};

use rustix::fs::{FileType, RawMode};

use crate::{
    WriteError,
    remembered::Remembered,
    stamp::{Stamp, take},
};

/// Its file in a store's folder.
const FILE: &str = "folder-cache";
/// First bytes of the file; another format has another number and is ignored.
const MAGIC: &[u8] = b"fleetctl folder cache 2\n";
/// Where its kind stands in a file's mode.
const KIND_BITS: u32 = 12;

/// ext2 to ext4, XFS, Btrfs, tmpfs, F2FS, ZFS: by `statfs(2)`. Network, overlay and FUSE file systems are as good as what
/// is behind them, which nobody can see from here.
#[cfg(target_os = "linux")]
const KNOWN_FILE_SYSTEMS: [i128; 6] = [0xef53, 0x5846_5342, 0x9123_683e, 0x0102_1994, 0xf2f5_2010, 0x2fc1_2fc1];

/// Names by folder. Shared by threads.
#[derive(Debug, Default)]
pub(crate) struct FolderCache {
    remembered: Remembered,
    read: AtomicUsize,
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
        Self { remembered: Remembered::load(store.join(FILE), MAGIC), ..Self::default() }
    }

    /// One that believes nothing, and keeps what it learns.
    pub fn distrusting(store: &Path) -> Self {
        Self { remembered: Remembered::distrusting(store.join(FILE), MAGIC), ..Self::default() }
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
        self.remembered.knows(folder)
    }

    /// The names in a real folder that has this stamp now.
    pub fn names(&self, folder: &Path, stamp: &Stamp) -> Option<impl Iterator<Item = (FileType, &OsStr)>> {
        self.remembered.get(folder, stamp).map(Read)
    }

    /// Takes note of the names in a real folder, read while it had this stamp; `None`: of no use later.
    pub fn note(&self, folder: &Path, listed: Option<(Stamp, Names)>) {
        self.read.fetch_add(1, Ordering::Relaxed);
        if let Some((stamp, names)) = listed {
            self.remembered.learn(folder, &stamp, &names.0);
        }
    }

    /// Writes what was learned, when anything was.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn save(&self) -> Result<(), WriteError> {
        self.remembered.save()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::PathBuf, time::Duration};

    use fleet_model::source::{Links, Listing, RelPath};

    use super::*;
    use crate::{Project, StatCache, Store};

    type Any = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn names_come_back_as_they_were() -> Any {
        let store = tempfile::tempdir()?;
        fs::create_dir(store.path().join("tmp"))?;
        let stamp = Stamp::of(&fs::metadata(store.path())?);
        let cache = FolderCache::load(store.path());
        let mut names = Names::default();
        for (kind, name) in [(FileType::RegularFile, "a b"), (FileType::Symlink, "ö"), (FileType::Unknown, "")] {
            names.push(kind, name.as_bytes());
        }
        cache.note(store.path(), Some((stamp, names)));
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
