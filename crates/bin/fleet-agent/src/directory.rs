//! [`Watched`]: the org directory as delivered on a read-only volume, read again when it changes.
//!
//! `current` holds the name of a file `people.<hash>.json` in the same folder; the two are written in that order, so
//! a reader never sees half a directory. When reading fails the last good version stays.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;

use crate::{
    log,
    people::{Directory, Person},
};

/// The file that names the present version.
pub const POINTER: &str = "current";
/// How often the volume is looked at.
const PAUSE: Duration = Duration::from_secs(2);
const SCHEMA: u32 = 1;

/// The directory, shared between the watcher and the tool.
pub type Shared = Arc<Mutex<Watched>>;

/// The last good version.
pub struct Watched {
    folder: PathBuf,
    file: Option<String>,
    directory: Option<Arc<Directory>>,
    problem: Option<String>,
}

#[derive(Deserialize)]
struct Document {
    schema: u32,
    people: Vec<Person>,
}

impl Watched {
    /// Nothing read yet.
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: None, directory: None, problem: None }
    }

    /// The last good version, or why there is none.
    pub fn current(&self) -> Result<Arc<Directory>, String> {
        self.directory.clone().ok_or_else(|| {
            let why = self.problem.as_deref().unwrap_or("it has not been read yet");
            format!("the directory is not there: {why}")
        })
    }

    /// Looks once.
    pub fn refresh(&mut self) {
        match self.load() {
            Ok(None) => self.problem = None,
            Ok(Some((file, directory))) => {
                log::info("directory read", &[("file", &file), ("people", &directory.len())]);
                (self.file, self.directory, self.problem) = (Some(file), Some(Arc::new(directory)), None);
            }
            Err(why) => {
                if self.problem.as_ref() != Some(&why) {
                    log::warn("the directory cannot be read; the last version is kept", &[("why", &why)]);
                    self.problem = Some(why);
                }
            }
        }
    }

    /// `None`: the file that is current was read before.
    fn load(&self) -> Result<Option<(String, Directory)>, String> {
        let pointer = self.folder.join(POINTER);
        let name = fs::read_to_string(&pointer).map_err(|e| format!("{}: {e}", pointer.display()))?;
        let name = name.trim();
        if !is_version(name) {
            return Err(format!("{}: {name:?} is not the name of a directory file", pointer.display()));
        }
        if self.file.as_deref() == Some(name) {
            return Ok(None);
        }
        let path = self.folder.join(name);
        let failed = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
        let text = fs::read_to_string(&path).map_err(|e| failed(&e))?;
        let document: Document = serde_json::from_str(&text).map_err(|e| failed(&e))?;
        if document.schema != SCHEMA {
            return Err(failed(&format!("schema {} is not {SCHEMA}", document.schema)));
        }
        Ok(Some((name.to_owned(), Directory::new(document.people))))
    }
}

fn is_version(name: &str) -> bool {
    name.strip_prefix("people.")
        .and_then(|rest| rest.strip_suffix(".json"))
        .is_some_and(|hash| !hash.is_empty() && hash.chars().all(|c| c.is_ascii_alphanumeric()))
}

/// Watches until the program ends.
pub fn watch(folder: &Path) -> Shared {
    let mut watched = Watched::new(folder);
    watched.refresh();
    let shared = Arc::new(Mutex::new(watched));
    let watcher = Arc::clone(&shared);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(PAUSE).await;
            watcher.lock().unwrap_or_else(PoisonError::into_inner).refresh();
        }
    });
    shared
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deliver(folder: &Path, hash: &str, people: &str) {
        fs::write(folder.join(format!("people.{hash}.json")), people).unwrap();
        fs::write(folder.join("current"), format!("people.{hash}.json\n")).unwrap();
    }

    const ADA: &str = r#"{"schema":1,"people":[{"id":"ada","name":"Ada","title":"T","level":"ic","matrix_id":"@ada:b.c","deployed":true}]}"#;

    #[test]
    fn a_new_version_is_taken_and_a_broken_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let mut watched = Watched::new(folder.path());
        watched.refresh();
        let Err(why) = watched.current() else { panic!("a directory from nowhere") };
        assert!(why.contains("current"), "{why}");
        deliver(folder.path(), "a1", ADA);
        watched.refresh();
        assert_eq!(watched.current().unwrap().len(), 1);
        deliver(folder.path(), "b2", "{\"schema\":1,");
        watched.refresh();
        assert_eq!(watched.current().unwrap().len(), 1, "the last good version is kept");
        deliver(folder.path(), "c3", r#"{"schema":1,"people":[]}"#);
        watched.refresh();
        assert_eq!(watched.current().unwrap().len(), 0);
    }

    #[test]
    fn a_pointer_that_leaves_the_folder_is_refused() {
        for name in ["../people.a.json", "people.json", "people.a/b.json", "people..json", ""] {
            assert!(!is_version(name), "{name}");
        }
        assert!(is_version("people.0af3.json"));
    }
}
