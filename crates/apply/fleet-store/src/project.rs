//! [`Project`]: reads the files of a project into a `SourceTree`, so that the pure stages need not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use fleet_model::source::{Links, ListedEntry, ListedFile, Listing, Looked, RelPath, SourceTree};

use crate::{
    HashError, HashedFile, StatCache, WriteError,
    side_by_side::side_by_side,
    stamp::Stamp,
    walk::{self, Found},
};

/// Files that one thread looks up in the cache before another is worth waking.
const HASHED_AT_A_TIME: usize = 16;
/// Bytes that one thread reads, should nothing be in the cache, before another is worth waking.
const READ_AT_A_TIME: u64 = 1 << 20;

/// A project's folder and the cache of its hashes.
///
/// A wanted file is read whole. A wanted folder brings every file below it that the ignore files at *its* root leave
/// (`.dockerignore`, then `.fleetignore`; the ignore files are not part of the folder). Links are followed where they stay
/// in the project. `.git`, and the project's own `.fleet` and `target`, are part of no folder.
#[derive(Debug)]
pub struct Project {
    root: PathBuf,
    cache: StatCache,
}

/// The project's folder cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read the project's folder {}: {source}", .path.display())]
pub struct ProjectError {
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Project {
    /// Opens the project in the folder `root`, the one that holds `fleet.kdl`.
    ///
    /// # Errors
    /// [`ProjectError`].
    pub fn open(root: &Path, cache: StatCache) -> Result<Self, ProjectError> {
        let failed = |source| ProjectError { path: root.to_owned(), source };
        let real = fs::canonicalize(root).map_err(failed)?;
        fs::read_dir(&real).map_err(failed)?;
        Ok(Self { root: real, cache })
    }

    /// The project's folder, absolute and without links.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The cache that this reads through.
    #[must_use]
    pub const fn cache(&self) -> &StatCache {
        &self.cache
    }

    /// What is at a path; a folder without what is below it.
    #[must_use]
    pub fn look(&self, path: &RelPath) -> Looked {
        match self.find(path) {
            Ok(Place::Missing) => Looked::Missing,
            Ok(Place::Folder(_)) => Looked::Folder,
            Ok(Place::File(real)) => self.read(&real),
            Err(why) => Looked::Unreadable(why),
        }
    }

    /// Adds the wanted paths that the tree does not know yet, folders with all that is below them.
    pub fn load(&self, wanted: &BTreeSet<RelPath>, tree: &mut SourceTree) {
        let mut files: Vec<(RelPath, PathBuf)> = Vec::new();
        for path in wanted.iter().filter(|path| !tree.knows(path)).collect::<Vec<_>>() {
            match self.find(path) {
                Ok(Place::Missing) => tree.insert(path.clone(), Looked::Missing),
                Ok(Place::File(real)) => files.push((path.clone(), real)),
                Ok(Place::Folder(real)) => match walk::walk(&self.root, &real, Links::Followed, self.cache.folders()) {
                    Ok(found) => add_folder(path, found, tree, &mut files),
                    Err(why) => tree.insert(path.clone(), Looked::Unreadable(why)),
                },
                Err(why) => tree.insert(path.clone(), Looked::Unreadable(why)),
            }
        }
        for (path, found) in side_by_side(files, 1, |(path, real)| (path, self.read(&real))) {
            tree.insert(path, found);
        }
    }

    /// What a path lists, without the bytes of files: unchanged ones are not read.
    ///
    /// The ignore files and the bounds of links are those of [`Self::load`]; with [`Links::Kept`] links stay, and must lead
    /// to something within the folder.
    #[must_use]
    pub fn list(&self, path: &RelPath, links: Links) -> Listing {
        let listed = |real: &Path, stamp: Option<Stamp>| {
            let hashed = match stamp {
                Some(stamp) => self.cache.hash_stamped(real, stamp),
                None => self.cache.hash_file(real),
            };
            hashed
                .map(|file| ListedFile { hash: *file.hash.as_bytes(), size: file.size, executable: file.executable })
                .map_err(|error| error.why)
        };
        let found = self.find(path).and_then(|place| match place {
            Place::Missing => Ok(Listing::Missing),
            Place::File(real) => listed(&real, None).map(Listing::File),
            Place::Folder(real) => walk::walk(&self.root, &real, links, self.cache.folders()).map(|found| {
                let size: u64 = found.iter().map(|(_, found)| found.size()).fold(0, u64::saturating_add);
                let at_a_time = if size > READ_AT_A_TIME { 1 } else { HASHED_AT_A_TIME };
                let entries = side_by_side(found, at_a_time, |(name, found)| {
                    let entry = match found {
                        Found::File(real, stamp) => match listed(&real, Some(stamp)) {
                            Ok(file) => ListedEntry::File(file),
                            Err(why) => ListedEntry::Refused(why),
                        },
                        Found::Folder => ListedEntry::Folder,
                        Found::Link(target) => ListedEntry::Link(target),
                        Found::Refused(why) => ListedEntry::Refused(why),
                    };
                    (name, entry)
                });
                Listing::Folder(entries.into_iter().collect())
            }),
        });
        found.unwrap_or_else(Listing::Unreadable)
    }

    /// Adds the wanted listings that the tree does not know yet.
    pub fn load_listings(&self, wanted: &BTreeSet<(RelPath, Links)>, tree: &mut SourceTree) {
        for (path, links) in wanted {
            if tree.listing(path, *links).is_none() {
                let listing = self.list(path, *links);
                tree.insert_listing(path.clone(), *links, listing);
            }
        }
    }

    /// Hashes of a file or of every file below a folder, by path relative to it, without reading what is unchanged:
    /// for large inputs whose bytes are not needed. `path` is relative to the project's folder, or absolute.
    ///
    /// # Errors
    /// [`HashError`].
    pub fn hash_only(&self, path: &Path) -> Result<BTreeMap<String, HashedFile>, HashError> {
        self.cache.hash_path(&self.root.join(path))
    }

    /// Writes the cache, when it changed.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn save_cache(&self) -> Result<(), WriteError> {
        self.cache.save()
    }

    fn find(&self, path: &RelPath) -> Result<Place, String> {
        let there = self.root.join(path.as_str());
        match fs::symlink_metadata(&there) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(Place::Missing);
            }
            Err(error) => return Err(error.to_string()),
        }
        let real = walk::resolve(&self.root, &there)?;
        if real.starts_with(self.root.join(crate::DIRECTORY)) {
            return Err(format!("it is in {}, which is fleetctl's own", crate::DIRECTORY));
        }
        let metadata = fs::metadata(&real).map_err(|error| error.to_string())?;
        match metadata.file_type() {
            kind if kind.is_file() => Ok(Place::File(real)),
            kind if kind.is_dir() && walk::never_used(&self.root, &real) => Err(
                "`.git` and the project's `target` are part of no folder; put what is needed into a folder of its own"
                    .to_owned(),
            ),
            kind if kind.is_dir() => Ok(Place::Folder(real)),
            _ => Err(walk::special(rustix::fs::FileType::from_raw_mode(metadata.mode()))),
        }
    }

    fn read(&self, real: &Path) -> Looked {
        match self.cache.read_file(real) {
            Ok(file) => Looked::File(file),
            Err(error) => Looked::Unreadable(error.why),
        }
    }
}

enum Place {
    Missing,
    File(PathBuf),
    Folder(PathBuf),
}

fn add_folder(path: &RelPath, found: Vec<(String, Found)>, tree: &mut SourceTree, files: &mut Vec<(RelPath, PathBuf)>) {
    tree.insert(path.clone(), Looked::Folder);
    for (name, found) in found {
        let below = match path.join(&name) {
            Ok(below) => below,
            Err(why) => {
                tree.insert(path.clone(), Looked::Unreadable(format!("{name:?} in it: {why}")));
                continue;
            }
        };
        match found {
            Found::File(real, _) => files.push((below, real)),
            Found::Folder => tree.insert(below, Looked::Folder),
            // Links were followed.
            Found::Link(_) => {}
            Found::Refused(why) => tree.insert(below, Looked::Unreadable(why)),
        }
    }
}
