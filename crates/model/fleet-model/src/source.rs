//! [`SourceTree`]: the files of a project as a value. The edge reads them; pure stages only look at them.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

/// A path inside the project: relative, `/`-separated, no `.`/`..`, never empty.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RelPath(String);

/// Why a text is not a path inside the project.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum BadPath {
    /// Nothing was given.
    #[error("the path is empty")]
    Empty,
    /// It starts at the file system's root.
    #[error("the path is absolute; paths are relative to the folder of fleet.kdl")]
    Absolute,
    /// It climbs out with `..`.
    #[error("the path leaves the project")]
    Leaves,
    /// It holds a NUL byte or a backslash.
    #[error("the path holds a character that paths in fleet.kdl cannot have")]
    Character,
}

impl RelPath {
    /// Normalises (`./a//b/` → `a/b`, `a/../b` → `b`) and checks a path.
    ///
    /// # Errors
    /// [`BadPath`] when it would leave the project.
    pub fn new(text: &str) -> Result<Self, BadPath> {
        if text.contains(['\0', '\\']) {
            return Err(BadPath::Character);
        }
        if text.starts_with('/') {
            return Err(BadPath::Absolute);
        }
        let mut parts: Vec<&str> = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop().ok_or(BadPath::Leaves)?;
                }
                other => parts.push(other),
            }
        }
        if parts.is_empty() { Err(BadPath::Empty) } else { Ok(Self(parts.join("/"))) }
    }

    /// The path as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// This path followed by another part.
    ///
    /// # Errors
    /// [`BadPath`] when the result would leave the project.
    pub fn join(&self, more: &str) -> Result<Self, BadPath> {
        let joined = [&self.0, "/", more].concat();
        // What stands for itself already, as every name of a listing does, is not taken apart.
        let plain = |part: &str| !matches!(part, "" | "." | "..") && !part.contains(['\0', '\\']);
        if more.split('/').all(plain) { Ok(Self(joined)) } else { Self::new(&joined) }
    }

    /// Everything below this folder starts with this text.
    #[must_use]
    pub fn as_folder(&self) -> String {
        format!("{}/", self.0)
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for RelPath {
    type Error = BadPath;
    fn try_from(text: String) -> Result<Self, BadPath> {
        Self::new(&text)
    }
}

impl From<RelPath> for String {
    fn from(path: RelPath) -> Self {
        path.0
    }
}

/// One file: its bytes' hash, whether it is executable, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceFile {
    /// BLAKE3 of the bytes.
    pub hash: [u8; 32],
    /// The owner's execute bit; the only part of a mode that counts.
    pub executable: bool,
    /// The bytes.
    pub bytes: Arc<[u8]>,
}

impl SourceFile {
    /// A file from its bytes.
    #[must_use]
    pub fn new(bytes: impl Into<Arc<[u8]>>, executable: bool) -> Self {
        let bytes = bytes.into();
        Self { hash: *blake3::hash(&bytes).as_bytes(), executable, bytes }
    }

    /// The file without its bytes.
    #[must_use]
    pub fn listed(&self) -> ListedFile {
        ListedFile { hash: self.hash, size: self.bytes.len() as u64, executable: self.executable }
    }

    /// The bytes as text, where they are text.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        std::str::from_utf8(&self.bytes).ok()
    }
}

/// How links below a listed folder are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Links {
    /// What they lead to stands in their place, as long as it is within the project.
    Followed,
    /// They stay links, as long as they lead to something within the folder.
    Kept,
}

/// A file without its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ListedFile {
    /// BLAKE3 of the bytes.
    pub hash: [u8; 32],
    /// Bytes.
    pub size: u64,
    /// The owner's execute bit.
    pub executable: bool,
}

/// One path of a listed folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListedEntry {
    /// A regular file.
    File(ListedFile),
    /// A folder.
    Folder,
    /// A link with its target as written; only with [`Links::Kept`].
    Link(String),
    /// Something that cannot be part of an image, and why.
    Refused(String),
}

/// What is at a path whose bytes nobody needs before a layer is made of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listing {
    /// A regular file.
    File(ListedFile),
    /// Everything below a folder that its ignore files leave, by path relative to it.
    Folder(BTreeMap<String, ListedEntry>),
    /// Nothing there.
    Missing,
    /// There, but not readable; the text says why.
    Unreadable(String),
}

/// What pure stages want the edge to look up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Files with their bytes, and folders with the bytes of every file below.
    pub contents: BTreeSet<RelPath>,
    /// Files and folders without their bytes.
    pub listings: BTreeSet<(RelPath, Links)>,
}

impl Wanted {
    /// Is everything known?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.contents.is_empty() && self.listings.is_empty()
    }
}

/// What the edge found at a path it was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Looked {
    /// A regular file.
    File(SourceFile),
    /// A folder; its files are entries of their own.
    Folder,
    /// Nothing there.
    Missing,
    /// There, but not readable, or a link that leaves the project; the text says which.
    Unreadable(String),
}

/// The files of a project that the pure stages have asked for so far, by path.
///
/// Loading is demand driven: a pure stage says which paths it wants
/// ([`crate::wanted`]), the edge looks them up and asks again until nothing is wanted.
/// A wanted folder brings every file below it that the ignore rules leave. What images only copy is listed without its
/// bytes ([`SourceTree::listing`]): it may be larger than memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceTree {
    entries: BTreeMap<RelPath, Looked>,
    listings: BTreeMap<(RelPath, Links), Listing>,
}

impl SourceTree {
    /// Records what was found at `path`.
    pub fn insert(&mut self, path: RelPath, found: Looked) {
        self.entries.insert(path, found);
    }

    /// Was this path looked up already?
    #[must_use]
    pub fn knows(&self, path: &RelPath) -> bool {
        self.entries.contains_key(path)
    }

    /// What was found at `path`; `None` when nobody looked yet.
    #[must_use]
    pub fn get(&self, path: &RelPath) -> Option<&Looked> {
        self.entries.get(path)
    }

    /// The regular file at `path`.
    #[must_use]
    pub fn file(&self, path: &RelPath) -> Option<&SourceFile> {
        match self.entries.get(path) {
            Some(Looked::File(file)) => Some(file),
            _ => None,
        }
    }

    /// The regular files at or below `path`, in byte order of their paths.
    pub fn files_below<'a>(&'a self, path: &RelPath) -> impl Iterator<Item = (&'a RelPath, &'a SourceFile)> {
        let folder = path.as_folder();
        let exact = path.clone();
        self.entries
            .range(path.clone()..)
            .take_while(move |(p, _)| p.as_str().starts_with(exact.as_str()))
            .filter(move |(p, _)| p.as_str().starts_with(&folder) || p.as_str().len() + 1 == folder.len())
            .filter_map(|(p, found)| match found {
                Looked::File(file) => Some((p, file)),
                _ => None,
            })
    }

    /// What stands below `path` and cannot be read, with the reason, in byte order of the paths.
    pub fn refused_below<'a>(&'a self, path: &RelPath) -> impl Iterator<Item = (&'a RelPath, &'a str)> + use<'a> {
        let folder = path.as_folder();
        let start = RelPath(folder.clone());
        let below = self.entries.range(start..).take_while(move |(at, _)| at.as_str().starts_with(&folder));
        below.filter_map(|(at, found)| match found {
            Looked::Unreadable(why) => Some((at, why.as_str())),
            _ => None,
        })
    }

    /// Records what a path lists.
    pub fn insert_listing(&mut self, path: RelPath, links: Links, listing: Listing) {
        self.listings.insert((path, links), listing);
    }

    /// What a path lists; `None` when nobody looked yet. Where the bytes were read already and links are followed, the
    /// listing is made of them.
    #[must_use]
    pub fn listing(&self, path: &RelPath, links: Links) -> Option<Cow<'_, Listing>> {
        if let Some(listing) = self.listings.get(&(path.clone(), links)) {
            return Some(Cow::Borrowed(listing));
        }
        match self.entries.get(path).filter(|_| links == Links::Followed)? {
            Looked::File(file) => Some(Cow::Owned(Listing::File(file.listed()))),
            Looked::Folder => Some(Cow::Owned(self.listed_below(path))),
            Looked::Missing => Some(Cow::Owned(Listing::Missing)),
            Looked::Unreadable(why) => Some(Cow::Owned(Listing::Unreadable(why.clone()))),
        }
    }

    fn listed_below(&self, path: &RelPath) -> Listing {
        let folder = path.as_folder();
        let start = RelPath(folder.clone());
        let below = self.entries.range(start..).take_while(|(at, _)| at.as_str().starts_with(&folder));
        let entries = below.filter_map(|(at, found)| {
            let entry = match found {
                Looked::File(file) => ListedEntry::File(file.listed()),
                Looked::Folder => ListedEntry::Folder,
                Looked::Unreadable(why) => ListedEntry::Refused(why.clone()),
                Looked::Missing => return None,
            };
            Some((at.as_str()[folder.len()..].to_owned(), entry))
        });
        Listing::Folder(entries.collect())
    }

    /// Everything that was listed without its bytes, in order.
    pub fn listings(&self) -> impl Iterator<Item = (&RelPath, &Listing)> {
        self.listings.iter().map(|((path, _), listing)| (path, listing))
    }

    /// Every entry in order.
    pub fn iter(&self) -> impl Iterator<Item = (&RelPath, &Looked)> {
        self.entries.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_leaves_the_project_is_refused() {
        assert_eq!(RelPath::new("../x"), Err(BadPath::Leaves));
        assert_eq!(RelPath::new("a/../../x"), Err(BadPath::Leaves));
        assert_eq!(RelPath::new("/etc/passwd"), Err(BadPath::Absolute));
        assert_eq!(RelPath::new("./."), Err(BadPath::Empty));
    }

    #[test]
    fn what_was_read_with_its_bytes_is_listed_without_being_asked_for_again() -> Result<(), BadPath> {
        let mut tree = SourceTree::default();
        let (folder, file) = (RelPath::new("a")?, SourceFile::new(*b"1", true));
        tree.insert(folder.clone(), Looked::Folder);
        tree.insert(RelPath::new("a/b")?, Looked::Folder);
        tree.insert(RelPath::new("a/b/c")?, Looked::File(file.clone()));
        tree.insert(RelPath::new("a-b")?, Looked::Folder);
        let entries = [("b".to_owned(), ListedEntry::Folder), ("b/c".to_owned(), ListedEntry::File(file.listed()))];
        assert_eq!(
            tree.listing(&folder, Links::Followed).map(Cow::into_owned),
            Some(Listing::Folder(BTreeMap::from(entries)))
        );
        assert_eq!(tree.listing(&folder, Links::Kept), None, "reading bytes follows links");
        Ok(())
    }

    #[test]
    fn files_below_a_folder_exclude_neighbours_with_the_same_prefix() -> Result<(), BadPath> {
        let mut tree = SourceTree::default();
        for path in ["a/x", "a/y/z", "ab", "a-b/c"] {
            tree.insert(RelPath::new(path)?, Looked::File(SourceFile::new(*b"1", false)));
        }
        let found: Vec<&str> = tree.files_below(&RelPath::new("a")?).map(|(p, _)| p.as_str()).collect();
        assert_eq!(found, ["a/x", "a/y/z"]);
        Ok(())
    }
}
