//! [`Store`]: opening `.fleet/`.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use crate::{
    atomic::{Temporary, owner_of, sweep_folder, write_atomic},
    objects::files_of,
};

/// Name of the store's folder beside `fleet.kdl`.
pub const DIRECTORY: &str = ".fleet";

/// The layout that this code reads and writes.
const LAYOUT: u32 = 1;

/// Temporary files of dead processes are removed at this age.
const STALE: Duration = Duration::from_secs(24 * 60 * 60);

/// An open store. Hold it for as long as anything in it is used: that is what keeps collection away.
#[derive(Debug)]
pub struct Store {
    root: PathBuf,
    pub(crate) lock: File,
    notes: Mutex<Vec<String>>,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file system error.
    #[error("cannot open the store {}: {source}{}", .path.display(), crate::atomic::remedy(.source))]
    Io {
        /// Of what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A later `fleetctl` wrote it.
    #[error(
        "{} has layout {found}, written by {writer}; this fleetctl {} knows layouts up to {LAYOUT}: \
         use that version or a later one, or remove the folder (its history is lost, nothing that runs is)",
        .path.display(), env!("CARGO_PKG_VERSION")
    )]
    Newer {
        /// The store.
        path: PathBuf,
        /// Its layout.
        found: u32,
        /// What wrote it.
        writer: String,
    },
    /// Something else has the folder's name.
    #[error("{} is a file, and the store's folder is to be there; move it away and run again", .path.display())]
    NotAFolder {
        /// The file.
        path: PathBuf,
    },
    /// The version file says nothing that we understand.
    #[error("{} is not a store: its `version` file reads {text:?}; move the folder away and run again", .path.display())]
    NotAStore {
        /// The folder.
        path: PathBuf,
        /// What the file holds (its first 40 characters).
        text: String,
    },
}

impl Store {
    /// Opens the store of the project in `project` (the folder that holds `fleet.kdl`): `project/.fleet`, made when it
    /// is not there. Waits while another process collects garbage.
    ///
    /// Where nothing may be written, what is there can still be read: looking at a project changes nothing. A note says so.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(project: &Path) -> Result<Self, OpenError> {
        let refused = |error: &OpenError| {
            let OpenError::Io { source, .. } = error else { return false };
            matches!(source.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
        };
        match Self::open_to_write(project) {
            Err(error) if refused(&error) => Self::open_to_read(project)?.ok_or(error),
            opened => opened,
        }
    }

    /// The store as it is; `None` when not even that may be seen. Without a store, the project's folder stands for its lock.
    fn open_to_read(project: &Path) -> Result<Option<Self>, OpenError> {
        let root = project.join(DIRECTORY);
        if root.is_dir() && fs::read_dir(&root).is_err() {
            return Ok(None);
        }
        if root.join("version").exists() {
            check_version(&root)?;
        }
        let Ok(lock) = File::open(root.join("lock")).or_else(|_| File::open(project)) else { return Ok(None) };
        lock.lock_shared().map_err(|source| OpenError::Io { path: root.clone(), source })?;
        let store = Self { root, lock, notes: Mutex::default() };
        store.note("it cannot be written here, so nothing is remembered".to_owned());
        Ok(Some(store))
    }

    fn open_to_write(project: &Path) -> Result<Self, OpenError> {
        let root = project.join(DIRECTORY);
        let io = |source| OpenError::Io { path: root.clone(), source };
        if root.is_file() {
            return Err(OpenError::NotAFolder { path: root });
        }
        DirBuilder::new().recursive(true).mode(0o700).create(&root).map_err(io)?;
        check_version(&root)?;
        if fs::metadata(&root).map_err(io)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(&root, fs::Permissions::from_mode(0o700)).map_err(io)?;
        }
        let lock = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(root.join("lock"))
            .map_err(io)?;
        lock.lock_shared().map_err(io)?;
        for folder in ["tmp", "blobs", "derivations", "outputs", "records", "generations", "pins", "leases"] {
            DirBuilder::new().recursive(true).mode(0o700).create(root.join(folder)).map_err(io)?;
        }
        let ignore = root.join(".gitignore");
        // One that is empty was left by a kill.
        if !fs::metadata(&ignore).is_ok_and(|found| found.len() > 0) {
            write_atomic(&ignore, b"*\n", 0o600).map_err(|e| OpenError::Io { path: e.path, source: e.source })?;
        }
        let store = Self { root, lock, notes: Mutex::default() };
        store.sweep_temporary();
        // What is written outside `tmp/` is renamed from beside its place: the version, the stat cache, `fleet.lock`.
        sweep_folder(&store.root, |_| true);
        sweep_folder(project, |_| true);
        Ok(store)
    }

    /// The store's folder.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// What was found damaged or unknown since the last call, in sentences for people. It was treated as missing.
    #[must_use]
    pub fn take_notes(&self) -> Vec<String> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn note(&self, text: String) {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner).push(text);
    }

    /// A new temporary file's name on the store's file system.
    pub(crate) fn temporary(&self) -> Temporary {
        Temporary::within(&self.root.join("tmp"))
    }

    /// A folder for files that the caller needs for a while, on the store's file system (a memory-backed `/tmp` may be
    /// small). Removed when dropped, or a day after its process was killed.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn scratch(&self) -> io::Result<tempfile::TempDir> {
        let prefix = format!("{}-scratch-", std::process::id());
        tempfile::Builder::new().prefix(&prefix).tempdir_in(self.root.join("tmp"))
    }

    /// An empty file on the store's file system, for [`Store::adopt_blob`]; removed as [`Store::scratch`] is.
    ///
    /// # Errors
    /// When the file cannot be made.
    pub fn scratch_file(&self) -> io::Result<tempfile::NamedTempFile> {
        let prefix = format!("{}-scratch-", std::process::id());
        tempfile::Builder::new().prefix(&prefix).tempfile_in(self.root.join("tmp"))
    }

    /// Removes what processes that are gone left in `tmp/`. Best effort: the next process tries again.
    fn sweep_temporary(&self) {
        let Ok(entries) = fs::read_dir(self.root.join("tmp")) else { return };
        for entry in entries.flatten() {
            let old = entry.metadata().is_ok_and(|m| older_than(&m, STALE));
            let gone = entry.file_name().to_str().and_then(owner_of).is_none_or(|pid| !is_alive(pid));
            if old && gone {
                let path = entry.path();
                let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
            }
        }
        // The object store stages beside the final name, as `<name>#<n>`, without a process id: age alone decides.
        for path in files_of(&self.root.join("generations")).iter().flat_map(|folder| files_of(folder)) {
            let staged = path.file_name().is_some_and(|name| name.to_string_lossy().contains(".zst#"));
            if staged && fs::metadata(&path).is_ok_and(|m| older_than(&m, STALE)) {
                let _ = fs::remove_file(path);
            }
        }
    }
}

/// Last written longer ago than `age`. A time in the future counts as fresh.
pub(crate) fn older_than(metadata: &fs::Metadata, age: Duration) -> bool {
    let written = metadata.modified().unwrap_or_else(|_| SystemTime::now());
    SystemTime::now().duration_since(written).is_ok_and(|passed| passed > age)
}

/// Is there such a process? When that cannot be told, yes.
pub(crate) fn is_alive(pid: i32) -> bool {
    rustix::process::Pid::from_raw(pid)
        .is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH))
}

fn check_version(root: &Path) -> Result<(), OpenError> {
    let path = root.join("version");
    let text = match fs::read(&path) {
        Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = format!("{LAYOUT} fleetctl {}\n", env!("CARGO_PKG_VERSION"));
            return write_atomic(&path, text.as_bytes(), 0o600)
                .map_err(|e| OpenError::Io { path: e.path, source: e.source });
        }
        Err(source) => return Err(OpenError::Io { path, source }),
    };
    let (layout, writer) = text.trim().split_once(' ').unwrap_or((text.trim(), "an unknown tool"));
    match layout.parse::<u32>() {
        Ok(found) if found > LAYOUT => {
            Err(OpenError::Newer { path: root.to_owned(), found, writer: writer.to_owned() })
        }
        Ok(_) => Ok(()),
        Err(_) => Err(OpenError::NotAStore { path: root.to_owned(), text: text.chars().take(40).collect() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Any = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn a_new_store_is_private_and_ignored_by_git() -> Any {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        assert_eq!(fs::metadata(store.root())?.permissions().mode() & 0o777, 0o700);
        assert_eq!(fs::read_to_string(store.root().join(".gitignore"))?, "*\n");
        Ok(())
    }

    #[test]
    fn a_store_of_a_later_version_is_refused_and_its_writer_named() -> Any {
        let project = tempfile::tempdir()?;
        drop(Store::open(project.path())?);
        fs::write(project.path().join(".fleet/version"), "7 fleetctl 9.1.0\n")?;
        let Err(error) = Store::open(project.path()) else { panic!("opened a store of the future") };
        let text = error.to_string();
        assert!(text.contains("layout 7, written by fleetctl 9.1.0"), "{text}");
        Ok(())
    }

    #[test]
    fn a_folder_that_is_something_else_is_refused() -> Any {
        let project = tempfile::tempdir()?;
        fs::create_dir(project.path().join(".fleet"))?;
        fs::write(project.path().join(".fleet/version"), "hello")?;
        assert!(matches!(Store::open(project.path()), Err(OpenError::NotAStore { .. })));
        fs::write(project.path().join(".fleet/version"), b"\xff\xfe\x00torn")?;
        assert!(matches!(Store::open(project.path()), Err(OpenError::NotAStore { .. })));
        fs::remove_dir_all(project.path().join(".fleet"))?;
        fs::write(project.path().join(".fleet"), "a file")?;
        assert!(matches!(Store::open(project.path()), Err(OpenError::NotAFolder { .. })));
        Ok(())
    }

    #[test]
    fn what_the_object_store_staged_for_a_killed_process_is_swept() -> Any {
        let project = tempfile::tempdir()?;
        let folder = Store::open(project.path())?.root().join("generations/local");
        fs::create_dir(&folder)?;
        File::create(folder.join("00000001.json.zst#1"))?.set_modified(SystemTime::now() - 2 * STALE)?;
        File::create(folder.join("00000001.json.zst#2"))?;
        let store = Store::open(project.path())?;
        let left: Vec<_> = fs::read_dir(&folder)?.flatten().map(|e| e.file_name()).collect();
        assert_eq!(left, ["00000001.json.zst#2"]);
        assert_eq!(store.generation_numbers("local")?, Vec::<u64>::new(), "a staged file is no generation");
        Ok(())
    }

    #[test]
    fn what_a_kill_left_in_the_store_and_the_project_is_put_right() -> Any {
        let project = tempfile::tempdir()?;
        let root = Store::open(project.path())?.root().to_owned();
        let left = [
            root.join(".stat-cache.tmp-2147483647-18a3f-0"),
            project.path().join(".fleet.lock.tmp-2147483647-18a3f-7"),
        ];
        for path in &left {
            File::create(path)?.set_modified(SystemTime::now() - STALE)?;
        }
        File::create(root.join(".gitignore"))?;
        drop(Store::open(project.path())?);
        assert!(left.iter().all(|path| !path.exists()));
        assert_eq!(fs::read_to_string(root.join(".gitignore"))?, "*\n");
        Ok(())
    }

    #[test]
    fn only_old_files_of_dead_processes_are_swept() -> Any {
        let project = tempfile::tempdir()?;
        let tmp = Store::open(project.path())?.root().join("tmp");
        let long_ago = SystemTime::now() - STALE - Duration::from_secs(60);
        let dead = i32::MAX;
        let alive = std::process::id();
        for (name, old) in [(format!("{dead}-a"), true), (format!("{dead}-b"), false), (format!("{alive}-c"), true)] {
            let file = File::create(tmp.join(name))?;
            if old {
                file.set_modified(long_ago)?;
            }
        }
        drop(Store::open(project.path())?);
        let mut left: Vec<_> = fs::read_dir(&tmp)?.flatten().map(|e| e.file_name()).collect();
        left.sort();
        let mut expected: Vec<std::ffi::OsString> = vec![format!("{dead}-b").into(), format!("{alive}-c").into()];
        expected.sort();
        assert_eq!(left, expected);
        Ok(())
    }
}
