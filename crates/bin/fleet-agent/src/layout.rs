//! [`lay_out`]: copies the generated files into the workspace and touches nothing else.
//!
//! OpenClaw reads generated files and the agent's memory from one folder and refuses links that leave it. So exactly
//! the files of the manifest are copied in; one that the agent changed since we wrote it is kept beside the new one
//! as `NAME.edited-1`; one that left the bundle goes only if it is still as we wrote it.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use serde::{Deserialize, Serialize};

use crate::{
    bundle::{Bundle, Generated, sha256},
    folder::{Entry, Folder},
};

/// Name of the record within this program's own folder.
const RECORD: &str = "manifest.json";
/// How many kept edits of one file there may be.
const MOST_EDITS: u32 = 9999;

/// A workspace could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The system refused.
    #[error("the workspace file {path} cannot be laid out: {source}")]
    Io {
        /// Which file.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// Our own record of what we wrote.
    #[error(
        "the record of generated files cannot be used: {0}; remove it to start afresh: every generated file then counts as edited"
    )]
    Record(String),
}

/// What the agent had changed, and where that is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Kept {
    /// The generated file.
    pub path: String,
    /// Where the agent's version is.
    pub kept_as: String,
}

/// What we wrote by path: the hashes that a file may have and still be ours. More than one only while a layout is
/// under way, so that a crash in between does not make our own file look like an edit.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Record {
    schema: u32,
    files: BTreeMap<String, BTreeSet<String>>,
}

impl Record {
    fn read(own: &Folder) -> Result<Self, LayoutError> {
        if own.entry(RECORD).map_err(record_error)? == Entry::Absent {
            return Ok(Self { schema: 1, files: BTreeMap::new() });
        }
        let bytes = own.read(RECORD).map_err(record_error)?;
        serde_json::from_slice(&bytes).map_err(record_error)
    }

    fn write(&self, own: &Folder) -> Result<(), LayoutError> {
        let bytes = serde_json::to_vec_pretty(self).map_err(record_error)?;
        own.write(RECORD, &bytes, 0o600).map_err(record_error)
    }

    fn knows(&self, path: &str, hash: &str) -> bool {
        self.files.get(path).is_some_and(|hashes| hashes.contains(hash))
    }
}

fn record_error(error: impl std::fmt::Display) -> LayoutError {
    LayoutError::Record(error.to_string())
}

/// Makes `workspace` hold the bundle's files. `own`: where the record of what was written is kept.
///
/// # Errors
/// [`LayoutError`]; doing it again continues.
pub fn lay_out(workspace: &Folder, own: &Folder, bundle: &Bundle) -> Result<Vec<Kept>, LayoutError> {
    let mut record = Record::read(own)?;
    for file in &bundle.files {
        record.files.entry(file.path.clone()).or_default().insert(file.sha256.clone());
    }
    record.write(own)?;
    let mut kept = Vec::new();
    let wanted: BTreeSet<&str> = bundle.files.iter().map(|file| file.path.as_str()).collect();
    // What goes, goes first: a file may become a folder of the same name.
    for path in record.files.keys().filter(|path| !wanted.contains(path.as_str())) {
        retire(workspace, path, &record, &mut kept).map_err(|source| LayoutError::Io { path: path.clone(), source })?;
    }
    for file in &bundle.files {
        place(workspace, file, &record, &mut kept)
            .map_err(|source| LayoutError::Io { path: file.path.clone(), source })?;
    }
    let only = |file: &Generated| (file.path.clone(), BTreeSet::from([file.sha256.clone()]));
    Record { schema: 1, files: bundle.files.iter().map(only).collect() }.write(own)?;
    Ok(kept)
}

fn place(workspace: &Folder, file: &Generated, record: &Record, kept: &mut Vec<Kept>) -> io::Result<()> {
    let (parents, name) = split(&file.path);
    let mut opened: Option<Folder> = None;
    let mut walked = String::new();
    for part in parents {
        let here = opened.as_ref().unwrap_or(workspace);
        walked.push_str(part);
        let next = match here.entry(part)? {
            Entry::Folder => here.open(part)?,
            Entry::Absent => here.make(part)?,
            Entry::File | Entry::Other => {
                kept.push(set_aside(here, part, &walked)?);
                here.make(part)?
            }
        };
        walked.push('/');
        opened = Some(next);
    }
    let here = opened.as_ref().unwrap_or(workspace);
    match here.entry(name)? {
        Entry::Absent => {}
        Entry::File => {
            let hash = hash_of(here, name)?;
            if hash.as_deref() == Some(&file.sha256) {
                return Ok(());
            }
            if !hash.is_some_and(|hash| record.knows(&file.path, &hash)) {
                kept.push(set_aside(here, name, &file.path)?);
            }
        }
        Entry::Folder | Entry::Other => kept.push(set_aside(here, name, &file.path)?),
    }
    here.write(name, &file.bytes, file.mode)
}

/// Takes away a file that left the bundle, and the folders that it leaves empty.
fn retire(workspace: &Folder, path: &str, record: &Record, kept: &mut Vec<Kept>) -> io::Result<()> {
    let (parents, name) = split(path);
    let mut chain: Vec<(Folder, &str)> = Vec::new();
    for part in parents {
        let here = chain.last().map_or(workspace, |(folder, _)| folder);
        if here.entry(part)? != Entry::Folder {
            return Ok(());
        }
        chain.push((here.open(part)?, part));
    }
    let here = chain.last().map_or(workspace, |(folder, _)| folder);
    if here.entry(name)? == Entry::File {
        match hash_of(here, name)? {
            Some(hash) if record.knows(path, &hash) => here.remove(name)?,
            _ => kept.push(set_aside(here, name, path)?),
        }
    }
    while let Some((_, name)) = chain.pop() {
        if !chain.last().map_or(workspace, |(folder, _)| folder).remove_empty(name)? {
            break;
        }
    }
    Ok(())
}

/// The hash of a file; `None` when it is too large to be one of ours.
fn hash_of(folder: &Folder, name: &str) -> io::Result<Option<String>> {
    match folder.read(name) {
        Ok(bytes) => Ok(Some(sha256(&bytes))),
        Err(error) if error.kind() == io::ErrorKind::FileTooLarge => Ok(None),
        Err(error) => Err(error),
    }
}

fn set_aside(folder: &Folder, name: &str, path: &str) -> io::Result<Kept> {
    for number in 1..=MOST_EDITS {
        let suffix = format!(".edited-{number}");
        let aside = format!("{name}{suffix}");
        if folder.entry(&aside)? == Entry::Absent {
            folder.rename(name, &aside)?;
            return Ok(Kept { path: path.to_owned(), kept_as: format!("{path}{suffix}") });
        }
    }
    Err(io::Error::other(format!("there are {MOST_EDITS} kept edits of it already")))
}

fn split(path: &str) -> (Vec<&str>, &str) {
    let mut parts: Vec<&str> = path.split('/').collect();
    let name = parts.pop().unwrap_or_default();
    (parts, name)
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink, path::Path};

    use super::*;
    use crate::bundle::tests::bundle;

    struct Volume(tempfile::TempDir);

    impl Volume {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn lay_out(&self, files: &[(&str, &str)]) -> Vec<String> {
            let workspace = Folder::ensure(&self.path("workspace"), None, 0o755).unwrap();
            let own = Folder::ensure(&self.path("fleet"), None, 0o700).unwrap();
            let kept = lay_out(&workspace, &own, &bundle(files)).unwrap();
            kept.into_iter().map(|kept| kept.kept_as).collect()
        }

        fn path(&self, path: &str) -> std::path::PathBuf {
            self.0.path().join(path)
        }

        fn read(&self, path: &str) -> String {
            fs::read_to_string(self.path("workspace").join(path)).unwrap_or_else(|e| format!("({})", e.kind()))
        }

        fn write(&self, path: &str, text: &str) {
            let path = self.path("workspace").join(path);
            fs::create_dir_all(path.parent().unwrap_or(Path::new("/"))).unwrap();
            fs::write(path, text).unwrap();
        }
    }

    #[test]
    fn memory_and_everything_else_of_the_agent_is_never_touched() {
        let volume = Volume::new();
        for path in ["MEMORY.md", "memory/2026-11-21.md", "USER.md", "notes/a.txt", "skills/own/SKILL.md"] {
            volume.write(path, "mine");
        }
        assert_eq!(volume.lay_out(&[("SOUL.md", "one"), ("skills/people/SKILL.md", "look")]), [""; 0]);
        assert_eq!(volume.lay_out(&[("SOUL.md", "two")]), [""; 0]);
        for path in ["MEMORY.md", "memory/2026-11-21.md", "USER.md", "notes/a.txt", "skills/own/SKILL.md"] {
            assert_eq!(volume.read(path), "mine", "{path}");
        }
        assert_eq!(volume.read("SOUL.md"), "two");
        assert_eq!(volume.read("skills/people/SKILL.md"), "(entity not found)");
    }

    #[test]
    fn an_edited_file_is_kept_beside_the_new_one_each_time() {
        let volume = Volume::new();
        volume.lay_out(&[("SOUL.md", "one")]);
        volume.write("SOUL.md", "my soul");
        assert_eq!(volume.lay_out(&[("SOUL.md", "one")]), ["SOUL.md.edited-1"]);
        volume.write("SOUL.md", "my other soul");
        assert_eq!(volume.lay_out(&[("SOUL.md", "two")]), ["SOUL.md.edited-2"]);
        assert_eq!(volume.read("SOUL.md"), "two");
        assert_eq!(volume.read("SOUL.md.edited-1"), "my soul");
        assert_eq!(volume.read("SOUL.md.edited-2"), "my other soul");
    }

    #[test]
    fn a_file_that_was_there_before_us_counts_as_edited() {
        let volume = Volume::new();
        volume.write("SOUL.md", "older than fleetctl");
        assert_eq!(volume.lay_out(&[("SOUL.md", "one")]), ["SOUL.md.edited-1"]);
    }

    #[test]
    fn a_file_that_left_the_bundle_goes_unless_it_was_edited() {
        let volume = Volume::new();
        volume.lay_out(&[("skills/a/SKILL.md", "a"), ("skills/b/SKILL.md", "b")]);
        volume.write("skills/b/SKILL.md", "better");
        assert_eq!(volume.lay_out(&[]), ["skills/b/SKILL.md.edited-1"]);
        assert!(!volume.path("workspace/skills/a").exists());
        assert_eq!(volume.read("skills/b/SKILL.md.edited-1"), "better");
    }

    #[test]
    fn what_is_right_already_is_not_written_again() {
        use std::os::unix::fs::MetadataExt as _;
        let volume = Volume::new();
        volume.lay_out(&[("SOUL.md", "one")]);
        let inode = || fs::metadata(volume.path("workspace/SOUL.md")).unwrap().ino();
        let before = inode();
        volume.lay_out(&[("SOUL.md", "one")]);
        assert_eq!(before, inode());
    }

    #[test]
    fn a_crash_in_the_middle_does_not_make_our_own_file_look_edited() {
        let volume = Volume::new();
        volume.lay_out(&[("SOUL.md", "one")]);
        let finished = fs::read(volume.path("fleet/manifest.json")).unwrap();
        volume.lay_out(&[("SOUL.md", "two")]);
        // As after a crash: the file is new, the record of the attempt holds both hashes.
        let mut record: Record = serde_json::from_slice(&finished).unwrap();
        record.files.entry("SOUL.md".to_owned()).or_default().insert(sha256(b"two"));
        fs::write(volume.path("fleet/manifest.json"), serde_json::to_vec(&record).unwrap()).unwrap();
        assert_eq!(volume.lay_out(&[("SOUL.md", "three")]), [""; 0]);
        assert_eq!(volume.read("SOUL.md"), "three");
    }

    #[test]
    fn links_that_the_agent_made_are_never_followed() {
        let volume = Volume::new();
        fs::create_dir_all(volume.path("workspace")).unwrap();
        fs::create_dir_all(volume.path("outside")).unwrap();
        fs::write(volume.path("outside/SOUL.md"), "untouched").unwrap();
        symlink(volume.path("outside"), volume.path("workspace/skills")).unwrap();
        symlink(volume.path("outside/SOUL.md"), volume.path("workspace/SOUL.md")).unwrap();
        let kept = volume.lay_out(&[("SOUL.md", "one"), ("skills/SOUL.md", "two")]);
        assert_eq!(kept, ["SOUL.md.edited-1", "skills.edited-1"]);
        assert_eq!(fs::read_to_string(volume.path("outside/SOUL.md")).unwrap(), "untouched");
        assert_eq!(fs::read_dir(volume.path("outside")).unwrap().count(), 1);
        assert_eq!((volume.read("SOUL.md"), volume.read("skills/SOUL.md")), ("one".to_owned(), "two".to_owned()));
        // Nor when a file is taken away through a link.
        fs::rename(volume.path("workspace/skills"), volume.path("workspace/away")).unwrap();
        symlink(volume.path("outside"), volume.path("workspace/skills")).unwrap();
        assert_eq!(volume.lay_out(&[("SOUL.md", "one")]), [""; 0]);
        assert_eq!(fs::read_to_string(volume.path("outside/SOUL.md")).unwrap(), "untouched");
    }

    #[test]
    fn a_folder_in_the_place_of_a_file_is_kept_whole() {
        let volume = Volume::new();
        volume.write("SOUL.md/diary.txt", "dear diary");
        assert_eq!(volume.lay_out(&[("SOUL.md", "one")]), ["SOUL.md.edited-1"]);
        assert_eq!(volume.read("SOUL.md.edited-1/diary.txt"), "dear diary");
    }
}
