//! [`write_atomic`]: the way to write a file. Readers see the former or the new contents, never a mixture, whatever
//! is killed when.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::store::{is_alive, older_than};

/// A temporary file beside its final place is there for moments; at this age, and without its process, it was left by a kill.
const ABANDONED: Duration = Duration::from_secs(10 * 60);

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
        io::ErrorKind::PermissionDenied => {
            "; it belongs to somebody else: run as its owner or change the owner with chown"
        }
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
    sweep_beside(path);
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

/// The same without syncing anything, through a temporary file of the caller's: for what can be made again and tells
/// itself whether it is whole. After a power failure the file may be torn.
pub(crate) fn write_unsynced(path: &Path, temporary: &Temporary, bytes: &[u8], mode: u32) -> Result<(), WriteError> {
    let written = temporary.create(mode).and_then(|mut file| file.write_all(bytes));
    written.and_then(|()| fs::rename(&temporary.path, path)).map_err(WriteError::at(path))
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

/// Removes what processes that were killed left beside `path` on the way to it. Best effort: the next write tries again.
pub(crate) fn sweep_beside(path: &Path) {
    if let Some(name) = path.file_name().and_then(OsStr::to_str) {
        sweep_folder(folder_of(path), |target| target == name);
    }
}

/// The same for every file of a folder (not below it) whose name is `wanted`.
pub(crate) fn sweep_folder(folder: &Path, wanted: impl Fn(&str) -> bool) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let Some((target, pid)) = name.to_str().and_then(target_of) else { continue };
        let old = || entry.metadata().is_ok_and(|found| found.is_file() && older_than(&found, ABANDONED));
        if wanted(target) && !is_alive(pid) && old() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// What a file from [`Temporary::beside`] was to become, and its process; `None` for every other name.
fn target_of(name: &str) -> Option<(&str, i32)> {
    let (target, unique) = name.strip_prefix('.')?.rsplit_once(".tmp-")?;
    let mut parts = unique.splitn(3, '-');
    let (pid, start, count) = (parts.next()?, parts.next()?, parts.next()?);
    let ours = u128::from_str_radix(start, 16).is_ok() && count.parse::<u64>().is_ok();
    ours.then_some(())?;
    Some((target, pid.parse().ok()?))
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Makes names in the folder of `path` last through a power failure.
pub(crate) fn sync_parent(path: &Path) -> io::Result<()> {
    File::open(folder_of(path))?.sync_all()
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
    fn what_a_killed_process_left_beside_a_file_goes_when_that_file_is_written_again() -> io::Result<()> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("fleet.lock");
        let (dead, alive) = (i32::MAX, std::process::id());
        let left = |name: String, old: bool| {
            let file = File::create(folder.path().join(name))?;
            let age = if old { 2 * ABANDONED } else { Duration::ZERO };
            file.set_modified(std::time::SystemTime::now() - age)
        };
        left(format!(".fleet.lock.tmp-{dead}-18a3f-0"), true)?;
        let stay = [
            (format!(".fleet.lock.tmp-{dead}-18a3f-1"), false),
            (format!(".fleet.lock.tmp-{alive}-18a3f-0"), true),
            (format!(".fleet.kdl.tmp-{dead}-18a3f-0"), true),
            (format!(".fleet.lock.tmp-{dead}-notes"), true),
            (format!("fleet.lock.tmp-{dead}-18a3f-0"), true),
        ];
        for (name, old) in &stay {
            left(name.clone(), *old)?;
        }
        write_atomic(&path, b"new", 0o644).map_err(io::Error::other)?;
        let mut found: Vec<_> = fs::read_dir(folder.path())?.flatten().map(|entry| entry.file_name()).collect();
        let mut wanted: Vec<OsString> = stay.iter().map(|(name, _)| OsString::from(name)).collect();
        wanted.push(OsString::from("fleet.lock"));
        found.sort();
        wanted.sort();
        assert_eq!(found, wanted);
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
