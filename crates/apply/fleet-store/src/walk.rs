//! Walking a folder: what is below it and what `stat` says of it, after ignore rules, with links resolved or kept and
//! special files refused. Folders are read side by side, files looked at by name within their open folder: on a warm
//! cache that is all that a run costs where nothing changed.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    mem::MaybeUninit,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

use fleet_model::source::Links;
use rayon::prelude::*;
use rustix::{
    fd::{AsFd, BorrowedFd, OwnedFd},
    fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, Stat},
    path::Arg,
};

use crate::{
    folder_cache::{FolderCache, Names},
    ignore::IgnoreRules,
    side_by_side::side_by_side,
    stamp::{Stamp, now},
};

/// Ignore files, read at the root of a folder; the later decides. They are not part of the folder themselves.
const IGNORE_FILES: [&str; 2] = [".dockerignore", ".fleetignore"];
/// Never part of anything, directly below the boundary.
const NEVER_AT_TOP: [&str; 2] = [".fleet", "target"];
/// Never part of anything, anywhere.
const NEVER: &str = ".git";

/// What a walk found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A regular file, where it really is, and how it stands there now.
    File(PathBuf, Stamp),
    /// A folder.
    Folder,
    /// A link that stays one, with its target as written.
    Link(String),
    /// Something that cannot be part of a folder, and why.
    Refused(String),
}

impl Found {
    /// Bytes of a file's contents.
    pub(crate) const fn size(&self) -> u64 {
        if let Self::File(_, stamp) = self { stamp.size } else { 0 }
    }
}

/// Folders within folders that are entered; deeper is a mistake, or somebody's joke.
const DEPTH_MAX: usize = 128;
/// Files that one thread looks at before another is worth waking.
const FILES_AT_A_TIME: usize = 64;
/// Names read from a folder at a time, in bytes.
const NAMES: usize = 32 << 10;

/// Everything below `folder` (a real path within `boundary`, a real path too) by path relative to it, in byte order.
/// Links are followed as long as they stay within `boundary`, or kept as long as they lead to something that was found.
///
/// # Errors
/// When the folder cannot be read, or an ignore file cannot be understood; for people.
pub(crate) fn walk(
    boundary: &Path,
    folder: &Path,
    links: Links,
    folders: &FolderCache,
) -> Result<Vec<(String, Found)>, String> {
    let (rules, device) = (rules_of(folder)?, FolderCache::device(folder));
    let handle = open_folder(CWD, folder).map_err(|error| error.to_string())?;
    let walker = Walker { boundary, root: folder, handle, links, rules, folders, device };
    let at = Inside { real: folder, outer: None, depth: 1 };
    let mut found = walker.enter((None, folder.as_os_str()), "", &at).map_err(|error| error.to_string())?;
    let by_name = |(one, _): &(String, Found), (other, _): &(String, Found)| one.cmp(other);
    if found.len() > FILES_AT_A_TIME {
        found.par_sort_unstable_by(by_name);
    } else {
        found.sort_unstable_by(by_name);
    }
    if found.iter().any(|(_, found)| matches!(found, Found::Link(_))) {
        let mut all: BTreeMap<String, Found> = found.into_iter().collect();
        refuse_bad_links(&mut all);
        return Ok(all.into_iter().collect());
    }
    Ok(found)
}

/// Opens a folder to read its names; `path` is relative to `folder` unless it is absolute.
fn open_folder(folder: impl AsFd, path: impl Arg) -> io::Result<OwnedFd> {
    Ok(rustix::fs::openat(folder, path, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Kept links must lead to what is kept: the image has nothing else of the folder.
fn refuse_bad_links(found: &mut BTreeMap<String, Found>) {
    let mut bad = Vec::new();
    for (name, entry) in &*found {
        let Found::Link(target) = entry else { continue };
        if let Err(why) = leads_to(found, name, target) {
            bad.push((name.clone(), format!("it is a link to {target}, which {why}")));
        }
    }
    for (name, why) in bad {
        found.insert(name, Found::Refused(why));
    }
}

/// Follows a link among what was found, as a kernel would that had nothing but this folder.
fn leads_to(found: &BTreeMap<String, Found>, name: &str, target: &str) -> Result<(), &'static str> {
    const LEAVES: &str = "leaves the folder";
    let mut at: Vec<String> = name.split('/').map(str::to_owned).collect();
    at.pop();
    let parts = |target: &str| target.split('/').rev().map(str::to_owned).collect::<Vec<_>>();
    let mut ahead = if target.starts_with('/') { return Err(LEAVES) } else { parts(target) };
    let mut followed = 0;
    while let Some(part) = ahead.pop() {
        match part.as_str() {
            "" | "." => continue,
            ".." => {
                at.pop().ok_or(LEAVES)?;
                continue;
            }
            _ => at.push(part),
        }
        match found.get(&at.join("/")) {
            Some(Found::Folder) => {}
            Some(Found::File(..)) if ahead.iter().all(String::is_empty) => {}
            Some(Found::Link(next)) if !next.starts_with('/') => {
                followed += 1;
                if followed > 40 {
                    return Err("leads in a circle");
                }
                at.pop();
                ahead.extend(parts(next));
            }
            Some(Found::Link(_)) => return Err(LEAVES),
            _ => return Err("leads to nothing in the folder"),
        }
    }
    Ok(())
}

/// Where `path` really is, or why it cannot be used: a link that leaves `boundary` or leads nowhere.
///
/// # Errors
/// A sentence for people.
pub(crate) fn resolve(boundary: &Path, path: &Path) -> Result<PathBuf, String> {
    let real = fs::canonicalize(path).map_err(|error| match fs::read_link(path) {
        Ok(target) => format!("it is a link to {}, which cannot be followed: {error}", target.display()),
        Err(_) => error.to_string(),
    })?;
    if real.starts_with(boundary) { Ok(real) } else { Err("it is a link that leaves the project".to_owned()) }
}

/// Why a file that is neither regular nor a folder is refused.
pub(crate) fn special(kind: FileType) -> String {
    let name = match kind {
        FileType::Fifo => "a named pipe",
        FileType::Socket => "a socket",
        FileType::BlockDevice | FileType::CharacterDevice => "a device",
        _ => "a special file",
    };
    format!("it is {name}; only regular files, folders and links to them can be used")
}

/// Is this real path fleetctl's own, git's, or cargo's output?
pub(crate) fn never_used(boundary: &Path, real: &Path) -> bool {
    let Ok(inside) = real.strip_prefix(boundary) else { return false };
    let mut parts = inside.components().map(|part| part.as_os_str());
    let first = parts.clone().next();
    NEVER_AT_TOP.iter().any(|name| first == Some(name.as_ref())) || parts.any(|part| part == NEVER)
}

fn rules_of(folder: &Path) -> Result<IgnoreRules, String> {
    let mut rules = IgnoreRules::default();
    for name in IGNORE_FILES {
        let text = match fs::read_to_string(folder.join(name)) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(format!("{name} in it cannot be read: {error}")),
        };
        rules = rules.then(IgnoreRules::parse(&text).map_err(|error| format!("{name} in it, {error}"))?);
    }
    Ok(rules)
}

struct Walker<'a> {
    boundary: &'a Path,
    root: &'a Path,
    /// The root, opened.
    handle: OwnedFd,
    links: Links,
    rules: IgnoreRules,
    folders: &'a FolderCache,
    /// Whose folders can be believed.
    device: Option<u64>,
}

/// What a walk found, by name.
type All = Vec<(String, Found)>;

/// A name in a folder.
struct Name {
    file: OsString,
    /// From the root of the walk.
    below: String,
    kind: FileType,
}

/// A folder whose names are known.
struct Open<'a> {
    /// None when it did not have to be opened.
    handle: Option<OwnedFd>,
    at: &'a Inside<'a>,
}

/// A real folder, and those that we came through, so that a link back to one of them is seen.
struct Inside<'a> {
    real: &'a Path,
    outer: Option<&'a Self>,
    depth: usize,
}

impl Inside<'_> {
    fn holds(&self, real: &Path) -> bool {
        self.real == real || self.outer.is_some_and(|outer| outer.holds(real))
    }
}

impl Walker<'_> {
    /// Where a name in a folder is found: from that folder where it is open, or else from the root, which is less to look
    /// up for each file than a whole path.
    fn place<'p>(&'p self, open: &'p Open<'_>, name: &'p OsStr, path: &'p Path) -> (BorrowedFd<'p>, &'p OsStr) {
        match &open.handle {
            Some(handle) => (handle.as_fd(), name),
            None => self.below_root(path),
        }
    }

    /// A real path, from the root where it is below it; a link may have led elsewhere.
    fn below_root<'p>(&'p self, path: &'p Path) -> (BorrowedFd<'p>, &'p OsStr) {
        let (path, root) = (path.as_os_str(), self.root.as_os_str().as_bytes());
        match path.as_bytes().strip_prefix(root).and_then(|below| below.strip_prefix(b"/")) {
            Some(below) => (self.handle.as_fd(), OsStr::from_bytes(below)),
            None => (CWD, path),
        }
    }

    /// What is in the folder `at`, which is found by this name from the other one, and whose name below the root is `name`.
    fn enter(&self, found_as: (Option<&Open<'_>>, &OsStr), name: &str, at: &Inside<'_>) -> io::Result<All> {
        let mut found = Vec::new();
        let (open, names) = self.names(found_as, name, at, &mut found)?;
        let (folders, files): (Vec<Name>, Vec<Name>) =
            names.into_iter().partition(|name| matches!(name.kind, FileType::Directory | FileType::Symlink));
        let add = |name| self.add(&open, name);
        let (below, here) = if folders.is_empty() {
            (Vec::new(), side_by_side(files, FILES_AT_A_TIME, add))
        } else {
            rayon::join(|| side_by_side(folders, 1, add), || side_by_side(files, FILES_AT_A_TIME, add))
        };
        found.extend(here.into_iter().chain(below).flatten());
        Ok(found)
    }

    /// The names in a folder that can be part of anything; those that are refused for their name go to `found`. Where
    /// nothing was made, removed or renamed in it since, it is not opened.
    fn names<'a>(
        &self,
        (from, found_as): (Option<&Open<'_>>, &OsStr),
        name: &str,
        at: &'a Inside<'a>,
        found: &mut All,
    ) -> io::Result<(Open<'a>, Vec<Name>)> {
        let (folder, path) = from.map_or((CWD, found_as), |from| self.place(from, found_as, at.real));
        let mut names = Vec::new();
        if self.device.is_some() && self.folders.knows(at.real) {
            let stat = look((folder, path))?;
            if let Some(listed) = self.folders.names(at.real, &Stamp::of_stat(&stat)) {
                listed.for_each(|(kind, file)| names.extend(self.name((kind, file), name, at, found)));
                return Ok((Open { handle: None, at }, names));
            }
        }
        let handle = open_folder(folder, path)?;
        let stamp = || rustix::fs::fstat(&handle).ok().map(|stat| Stamp::of_stat(&stat));
        let (now, before) = (now(), stamp());
        let mut buffer = [MaybeUninit::uninit(); NAMES];
        let mut entries = RawDir::new(&handle, &mut buffer);
        let mut all = Names::default();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let file = OsStr::from_bytes(entry.file_name().to_bytes());
            if file == "." || file == ".." {
                continue;
            }
            all.push(entry.file_type(), file.as_bytes());
            names.extend(self.name((entry.file_type(), file), name, at, found));
        }
        let settled = |stamp: &Stamp| stamp.settled(now) && Some(stamp.device) == self.device;
        self.folders.note(
            at.real,
            before.filter(|before| settled(before) && stamp() == Some(*before)).map(|stamp| (stamp, all)),
        );
        Ok((Open { handle: Some(handle), at }, names))
    }

    /// A name in the folder `at`, unless it can be part of nothing; one that is refused goes to `found`.
    fn name(&self, (kind, file): (FileType, &OsStr), name: &str, at: &Inside<'_>, found: &mut All) -> Option<Name> {
        let shown = file.to_string_lossy();
        let never = shown == NEVER || (at.real == self.boundary && NEVER_AT_TOP.contains(&shown.as_ref()));
        if never || (name.is_empty() && IGNORE_FILES.contains(&shown.as_ref())) {
            return None;
        }
        let below = if name.is_empty() { shown.to_string() } else { format!("{name}/{shown}") };
        if file.to_str().is_none_or(|text| text.contains('\\')) {
            let safe = below.replace('\\', "\u{fffd}");
            if !self.rules.ignores(&safe) {
                found.push((safe, Found::Refused("its name is not plain UTF-8 text".to_owned())));
            }
            return None;
        }
        Some(Name { file: file.to_owned(), below, kind })
    }

    /// What stands at one name, with all that is below it.
    fn add(&self, open: &Open<'_>, name: Name) -> All {
        let ignored = self.rules.ignores(&name.below);
        // A folder that is ignored may hold something that is not.
        if ignored && (name.kind == FileType::RegularFile || self.rules.prunes(&name.below)) {
            return Vec::new();
        }
        let path = open.at.real.join(&name.file);
        let found = match name.kind {
            FileType::Directory => return self.add_folder((open, &name.file), &path, name.below, ignored),
            FileType::Symlink => match self.links {
                Links::Kept => keep(self.place(open, &name.file, &path)),
                Links::Followed => match self.follow(&path) {
                    Ok(Some((real, FileType::Directory, _))) => {
                        return self.add_folder((open, real.as_os_str()), &real, name.below, ignored);
                    }
                    Ok(Some((real, kind, stamp))) => here(real, kind, stamp),
                    Ok(None) => return Vec::new(),
                    Err(why) => Found::Refused(why),
                },
            },
            _ => match look(self.place(open, &name.file, &path)) {
                Ok(stat) => match FileType::from_raw_mode(stat.st_mode) {
                    // Some file systems do not tell kinds with names.
                    kind @ (FileType::Directory | FileType::Symlink) if name.kind == FileType::Unknown => {
                        return self.add(open, Name { kind, ..name });
                    }
                    kind => here(path, kind, Stamp::of_stat(&stat)),
                },
                Err(error) => Found::Refused(io::Error::from(error).to_string()),
            },
        };
        if ignored { Vec::new() } else { vec![(name.below, found)] }
    }

    /// Where a link leads, and what is there; `None` for what is part of nothing.
    fn follow(&self, path: &Path) -> Result<Option<(PathBuf, FileType, Stamp)>, String> {
        let real = resolve(self.boundary, path)?;
        if never_used(self.boundary, &real) {
            return Ok(None);
        }
        let stat: Stat = rustix::fs::stat(&real).map_err(|error| io::Error::from(error).to_string())?;
        Ok(Some((real, FileType::from_raw_mode(stat.st_mode), Stamp::of_stat(&stat))))
    }

    /// The folder `real`, which is found by this name from the open one.
    fn add_folder(&self, (open, found_as): (&Open<'_>, &OsStr), real: &Path, name: String, ignored: bool) -> All {
        if self.rules.prunes(&name) {
            return Vec::new();
        }
        let why = if open.at.holds(real) {
            "it is a link that leads back to a folder it is in".to_owned()
        } else if open.at.depth > DEPTH_MAX {
            format!("it is more than {DEPTH_MAX} folders below {}", self.root.display())
        } else {
            let at = Inside { real, outer: Some(open.at), depth: open.at.depth + 1 };
            match self.enter((Some(open), found_as), &name, &at) {
                Ok(mut found) => {
                    if !ignored {
                        found.push((name, Found::Folder));
                    }
                    return found;
                }
                Err(error) => error.to_string(),
            }
        };
        if ignored { Vec::new() } else { vec![(name, Found::Refused(why))] }
    }
}

/// What `stat` says of what stands at a name itself.
fn look((folder, path): (BorrowedFd<'_>, &OsStr)) -> rustix::io::Result<Stat> {
    rustix::fs::statat(folder, path, AtFlags::SYMLINK_NOFOLLOW)
}

/// A link as it is. Whether it leads anywhere is seen when everything was found.
fn keep((folder, path): (BorrowedFd<'_>, &OsStr)) -> Found {
    match rustix::fs::readlinkat(folder, path, Vec::new()) {
        Ok(target) => match OsString::from_vec(target.into_bytes()).into_string() {
            Ok(target) => Found::Link(target),
            Err(_) => Found::Refused("it is a link to a name that is not plain UTF-8 text".to_owned()),
        },
        Err(error) => Found::Refused(io::Error::from(error).to_string()),
    }
}

fn here(path: PathBuf, kind: FileType, stamp: Stamp) -> Found {
    if kind == FileType::RegularFile { Found::File(path, stamp) } else { Found::Refused(special(kind)) }
}
