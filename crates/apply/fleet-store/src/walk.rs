//! Walking a folder: what is below it, after ignore rules, with links resolved and special files refused.

use std::{
    collections::BTreeMap,
    fs::{self, FileType},
    io,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use crate::ignore::IgnoreRules;

/// Ignore files, read at the root of a folder; the later decides. They are not part of the folder themselves.
const IGNORE_FILES: [&str; 2] = [".dockerignore", ".fleetignore"];
/// Never part of anything, directly below the boundary.
const NEVER_AT_TOP: [&str; 2] = [".fleet", "target"];
/// Never part of anything, anywhere.
const NEVER: &str = ".git";

/// What a walk found at a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// A regular file, and where it really is.
    File(PathBuf),
    /// A folder.
    Folder,
    /// Something that cannot be part of a folder, and why.
    Refused(String),
}

/// Everything below `folder` (a real path within `boundary`, a real path too) by path relative to it.
/// Links are followed as long as they stay within `boundary`.
///
/// # Errors
/// When the folder cannot be read, or an ignore file cannot be understood; for people.
pub(crate) fn walk(boundary: &Path, folder: &Path) -> Result<BTreeMap<String, Found>, String> {
    let mut walker = Walker { boundary, rules: rules_of(folder)?, found: BTreeMap::new() };
    walker.enter(folder, "", &mut vec![folder.to_owned()]).map_err(|error| error.to_string())?;
    Ok(walker.found)
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
    let name = if kind.is_fifo() {
        "a named pipe"
    } else if kind.is_socket() {
        "a socket"
    } else if kind.is_block_device() || kind.is_char_device() {
        "a device"
    } else {
        "a special file"
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
    rules: IgnoreRules,
    found: BTreeMap<String, Found>,
}

impl Walker<'_> {
    /// Adds what is in the real folder `real`, whose name below the root is `name`. `inside` are the real folders that we
    /// are in, so that a link back to one of them is seen.
    fn enter(&mut self, real: &Path, name: &str, inside: &mut Vec<PathBuf>) -> io::Result<()> {
        let at_top = real == self.boundary;
        for entry in fs::read_dir(real)? {
            let entry = entry?;
            let file_name = entry.file_name();
            let shown = file_name.to_string_lossy();
            let below = if name.is_empty() { shown.to_string() } else { format!("{name}/{shown}") };
            let path = real.join(&file_name);
            let never = shown == NEVER || (at_top && NEVER_AT_TOP.contains(&shown.as_ref()));
            if never || (name.is_empty() && IGNORE_FILES.contains(&shown.as_ref())) {
                continue;
            }
            if file_name.to_str().is_none_or(|text| text.contains('\\')) {
                let safe = below.replace('\\', "\u{fffd}");
                self.found.insert(safe, Found::Refused("its name is not plain UTF-8 text".to_owned()));
                continue;
            }
            self.add(path, below, entry.file_type()?, inside);
        }
        Ok(())
    }

    fn add(&mut self, path: PathBuf, name: String, kind: FileType, inside: &mut Vec<PathBuf>) {
        let ignored = self.rules.ignores(&name);
        let (path, kind) = if kind.is_symlink() {
            if ignored && self.rules.prunes(&name) {
                return;
            }
            match resolve(self.boundary, &path).and_then(|real| {
                let kind = fs::metadata(&real).map_err(|error| error.to_string())?.file_type();
                Ok((real, kind))
            }) {
                Ok((real, _)) if never_used(self.boundary, &real) => return,
                Ok(found) => found,
                Err(why) => return self.refuse(name, why, ignored),
            }
        } else {
            (path, kind)
        };
        if kind.is_dir() {
            self.add_folder(&path, name, ignored, inside);
        } else if kind.is_file() {
            if !ignored {
                self.found.insert(name, Found::File(path));
            }
        } else {
            self.refuse(name, special(kind), ignored);
        }
    }

    fn add_folder(&mut self, real: &Path, name: String, ignored: bool, inside: &mut Vec<PathBuf>) {
        if self.rules.prunes(&name) {
            return;
        }
        if inside.iter().any(|folder| folder == real) {
            return self.refuse(name, "it is a link that leads back to a folder it is in".to_owned(), ignored);
        }
        inside.push(real.to_owned());
        let entered = self.enter(real, &name, inside);
        inside.pop();
        match entered {
            Err(error) => self.refuse(name, error.to_string(), ignored),
            Ok(()) if !ignored => drop(self.found.insert(name, Found::Folder)),
            Ok(()) => {}
        }
    }

    fn refuse(&mut self, name: String, why: String, ignored: bool) {
        if !ignored {
            self.found.insert(name, Found::Refused(why));
        }
    }
}
