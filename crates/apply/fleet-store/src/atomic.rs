//! [`write_atomic`]: the one way to write a file. Readers see the former or the new contents, never a mixture, whatever
//! is killed when.

use std::{
    ffi::OsString,
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

/// A file could not be written. What was there before is still there.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {}: {source}{}", .path.display(), remedy(.source))]
pub struct WriteError {
    /// Which.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl WriteError {
    pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        |source| Self { path, source }
    }
}

/// What to do about the errors that people meet; empty for others.
pub(crate) fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull => "; free some space (`fleetctl gc` removes what nothing needs) and run it again",
        io::ErrorKind::PermissionDenied => "; it belongs to somebody else: run as its owner or change the owner with chown",
        io::ErrorKind::ReadOnlyFilesystem => "; the file system is mounted read-only",
        _ => "",
    }
}

/// Writes a file so that its name shows either the former or the complete new contents, also after a power failure:
/// a temporary file beside it is written, synced and renamed, then the folder is synced.
///
/// `mode` (such as `0o644`) is given to a new file, less the process's umask; a file that exists keeps its own, and its
/// owner where that is possible. A symbolic link is followed: what it points to is replaced. The folder must exist.
///
/// # Errors
/// [`WriteError`]; the former contents are still there then.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let temporary = Temporary::beside(path);
    temporary.fill(bytes, mode).map_err(WriteError::at(path))?;
    if let Ok(former) = fs::metadata(path) {
        let kept = fs::Permissions::from_mode(former.permissions().mode() & 0o7777);
        fs::set_permissions(&temporary.path, kept).map_err(WriteError::at(path))?;
        // Root in somebody's checkout: the file stays theirs. Others cannot give files away and need not.
        let _ = std::os::unix::fs::chown(&temporary.path, Some(former.uid()), Some(former.gid()));
    }
    temporary.rename_to(path).map_err(WriteError::at(path))
}

/// A temporary file's name that is this process's alone; removed when dropped unless it was renamed.
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
}

impl Temporary {
    /// Beside its final place, for files outside the store.
    pub(crate) fn beside(path: &Path) -> Self {
        let mut name = OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(format!(".tmp-{}", unique()));
        Self { path: path.with_file_name(name) }
    }

    /// In a folder of temporary files; the name starts with the owner's process id, see [`owner_of`].
    pub(crate) fn within(folder: &Path) -> Self {
        Self { path: folder.join(unique()) }
    }

    /// Creates it, which must not exist, and opens it for writing.
    pub(crate) fn create(&self, mode: u32) -> io::Result<File> {
        OpenOptions::new().write(true).create_new(true).mode(mode).open(&self.path)
    }

    /// Creates it with these contents, on the disk.
    pub(crate) fn fill(&self, bytes: &[u8], mode: u32) -> io::Result<()> {
        let mut file = self.create(mode)?;
        file.write_all(bytes)?;
        file.sync_all()
    }

    /// Gives it its final name, replacing what has that name, and syncs the folder.
    pub(crate) fn rename_to(self, path: &Path) -> io::Result<()> {
        fs::rename(&self.path, path)?;
        sync_parent(path)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // Renamed or never created in the good cases; in the others there is nobody left to tell.
        let _ = fs::remove_file(&self.path);
    }
}

/// `<pid>-<start>-<n>`: unique among living processes, and two processes with one pid (in two containers that share the
/// folder) differ in when they started.
fn unique() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    format!("{}-{:x}-{}", std::process::id(), now.as_nanos(), COUNT.fetch_add(1, Ordering::Relaxed))
}

/// The process that a temporary file belongs to, by its name.
pub(crate) fn owner_of(name: &str) -> Option<i32> {
    name.split('-').next()?.parse().ok()
}

/// Makes names in the folder of `path` last through a power failure.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_keeps_its_mode_and_leaves_nothing_beside_it() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("fleet.lock");
        fs::write(&path, "old")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
        write_atomic(&path, b"new", 0o644).map_err(io::Error::other)?;
        assert_eq!(fs::read_to_string(&path)?, "new");
        assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_dir(folder.path())?.count(), 1);
        Ok(())
    }

    #[test]
    fn a_link_is_followed_so_that_it_stays_a_link() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old")?;
        std::os::unix::fs::symlink(&real, &link)?;
        write_atomic(&link, b"new", 0o644).map_err(io::Error::other)?;
        assert!(fs::symlink_metadata(&link)?.is_symlink());
        assert_eq!(fs::read_to_string(&real)?, "new");
        Ok(())
    }

    #[test]
    fn a_folder_that_does_not_exist_is_named() {
        let Err(error) = write_atomic(Path::new("/nowhere/at/all"), b"", 0o644) else { panic!("wrote nowhere") };
        assert!(error.to_string().starts_with("cannot write /nowhere/at/all: "), "{error}");
    }
}
