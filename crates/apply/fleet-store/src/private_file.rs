//! Secrets in files that only their owner can read: the fleet secret, access tokens. Never inside `.fleet/`.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
};

use fleet_secret::Secret;

use crate::atomic::{Temporary, sweep_beside, sync_parent};

/// Why a private file could not be read or made. Never holds the value.
#[derive(Debug, thiserror::Error)]
pub enum PrivateFileError {
    /// A file system error.
    #[error("cannot {doing} {}: {source}{}", .path.display(), crate::atomic::remedy(.source))]
    Io {
        /// `read`, `write`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others can read it.
    #[error(
        "{} holds a secret and its mode is {mode:03o}, so others on this machine may have read it: \
         run `chmod 600 {}`, and change the secret if this is a shared machine", .path.display(), .path.display()
    )]
    Open {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It belongs to somebody else, who can change it.
    #[error(
        "{} holds a secret and belongs to user {owner}, but this process runs as user {me}: \
         run `chown {me} {}` and `chmod 600 {}`, or run as user {owner}",
        .path.display(), .path.display(), .path.display()
    )]
    Foreign {
        /// Which file.
        path: PathBuf,
        /// Whose it is.
        owner: u32,
        /// Who we are.
        me: u32,
    },
    /// Others can put files into its folder.
    #[error("{} holds secrets and others can write to it (mode {mode:03o}): run `chmod 700 {}`", .path.display(), .path.display())]
    OpenFolder {
        /// Which folder.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is there and empty.
    #[error("{} is empty; put the secret into it, or remove it so that a new one is made", .path.display())]
    Empty {
        /// Which file.
        path: PathBuf,
    },
}

impl PrivateFileError {
    fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// Reads a secret, without the line end that editors add; `None` when the file is not there.
///
/// # Errors
/// [`PrivateFileError`] when others can read it, it belongs to somebody else, it is empty or unreadable.
pub fn read(path: &Path) -> Result<Option<Secret>, PrivateFileError> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(PrivateFileError::at("read", path)(error)),
    };
    let metadata = file.metadata().map_err(PrivateFileError::at("read", path))?;
    let (mode, owner, me) = (metadata.mode() & 0o777, metadata.uid(), rustix::process::geteuid().as_raw());
    if owner != me {
        return Err(PrivateFileError::Foreign { path: path.to_owned(), owner, me });
    }
    if mode & 0o077 != 0 {
        return Err(PrivateFileError::Open { path: path.to_owned(), mode });
    }
    // Reserved at once: a buffer that grows leaves copies of the secret behind in freed memory.
    let mut value = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or_default() + 1);
    file.read_to_end(&mut value).map_err(PrivateFileError::at("read", path))?;
    while value.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        value.pop();
    }
    if value.is_empty() {
        return Err(PrivateFileError::Empty { path: path.to_owned() });
    }
    Ok(Some(Secret::new(value)))
}

/// Reads the secret at `path`, or makes it there if there is none: exactly once, whoever else tries at the same time, so
/// that all get the same value. Makes the folders that are missing, for the owner only.
///
/// # Errors
/// [`PrivateFileError`]; also when others can write to the folder.
pub fn create_once(path: &Path, make: impl FnOnce() -> Secret) -> Result<Secret, PrivateFileError> {
    // What a kill left here holds a secret, perhaps this one.
    sweep_beside(path);
    if let Some(secret) = read(path)? {
        return Ok(secret);
    }
    let temporary = prepare(path, &make())?;
    let write = PrivateFileError::at("write", path);
    match fs::hard_link(&temporary.path, path) {
        Ok(()) => sync_parent(path).map_err(write)?,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        Err(error) => return Err(write(error)),
    }
    drop(temporary);
    read(path)?.ok_or_else(|| PrivateFileError::at("read", path)(io::ErrorKind::NotFound.into()))
}

/// Writes a secret, replacing what is there: for tokens, which change.
///
/// # Errors
/// [`PrivateFileError`].
pub fn replace(path: &Path, secret: &Secret) -> Result<(), PrivateFileError> {
    sweep_beside(path);
    let temporary = prepare(path, secret)?;
    temporary.rename_to(path).map_err(PrivateFileError::at("write", path))
}

/// Removes a secret's file; no error when it is gone already.
///
/// # Errors
/// [`PrivateFileError::Io`].
pub fn remove(path: &Path) -> Result<(), PrivateFileError> {
    sweep_beside(path);
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(PrivateFileError::at("remove", path)(error)),
        _ => Ok(()),
    }
}

/// A file beside `path` with the secret in it, on the disk.
fn prepare(path: &Path, secret: &Secret) -> Result<Temporary, PrivateFileError> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)
        .map_err(PrivateFileError::at("make the folder of", path))?;
    let mode = fs::metadata(folder).map_err(PrivateFileError::at("read the folder of", path))?.mode() & 0o777;
    if mode & 0o022 != 0 {
        return Err(PrivateFileError::OpenFolder { path: folder.to_owned(), mode });
    }
    let temporary = Temporary::beside(path);
    let written = temporary.create(0o600).and_then(|mut file| {
        file.write_all(secret.expose())?;
        file.write_all(b"\n")?;
        file.sync_all()
    });
    written.map_err(PrivateFileError::at("write", path))?;
    Ok(temporary)
}

#[cfg(test)]
mod tests {
    use std::{os::unix::fs::PermissionsExt, sync::atomic::AtomicUsize};

    use super::*;

    type Any = Result<(), Box<dyn std::error::Error>>;

    #[test]
    fn eight_at_once_get_one_secret_in_a_file_for_its_owner_only() -> Any {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("fleet/config/secret");
        let made = AtomicUsize::new(0);
        let make = || {
            let n = made.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Secret::new(format!("value number {n:020}"))
        };
        let values: Vec<Vec<u8>> = std::thread::scope(|scope| {
            let threads: Vec<_> =
                (0..8).map(|_| scope.spawn(|| create_once(&path, make).map(|s| s.expose().to_vec()))).collect();
            threads.into_iter().flat_map(|t| t.join()).collect::<Result<_, _>>()
        })?;
        assert_eq!(values.len(), 8);
        assert!(values.iter().all(|value| *value == values[0]));
        assert_eq!(fs::metadata(&path)?.mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(path.parent().ok_or("no parent")?)?.mode() & 0o777, 0o700);
        assert_eq!(fs::read_dir(path.parent().ok_or("no parent")?)?.count(), 1, "no temporary file stays");
        Ok(())
    }

    #[test]
    fn a_secret_that_a_killed_process_left_beside_its_place_is_removed() -> Any {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("secret");
        let left = folder.path().join(".secret.tmp-2147483647-18a3f-0");
        let leave = || {
            fs::write(&left, "correct horse battery")?;
            let hour = std::time::Duration::from_secs(60 * 60);
            File::options().write(true).open(&left)?.set_modified(std::time::SystemTime::now() - hour)
        };
        leave()?;
        create_once(&path, || Secret::new("correct horse battery"))?;
        assert!(!left.exists(), "before it made the secret");
        leave()?;
        create_once(&path, || Secret::new("another"))?;
        assert!(!left.exists(), "after it made the secret");
        leave()?;
        replace(&path, &Secret::new("another"))?;
        assert!(!left.exists());
        Ok(())
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_remedy_and_without_its_value() -> Any {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("secret");
        fs::write(&path, "correct horse battery")?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o640))?;
        let Err(error) = read(&path) else { panic!("read a secret that others can read") };
        let text = format!("{error} {error:?}");
        assert!(text.contains(&format!("chmod 600 {}", path.display())), "{text}");
        assert!(!text.contains("horse"), "{text}");
        Ok(())
    }

    #[test]
    fn a_file_of_somebody_else_is_refused() -> Any {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("secret");
        replace(&path, &Secret::new("correct horse battery"))?;
        // Only root can give a file away; elsewhere a file of root stands for somebody else's.
        let foreign = if rustix::process::geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(1), None)?;
            path
        } else {
            PathBuf::from("/etc/hostname")
        };
        assert!(matches!(read(&foreign), Err(PrivateFileError::Foreign { .. })));
        Ok(())
    }

    #[test]
    fn a_replaced_token_comes_back_without_a_line_end() -> Any {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("token");
        replace(&path, &Secret::new("one"))?;
        replace(&path, &Secret::new("two"))?;
        assert_eq!(read(&path)?.map(|s| s.expose().to_vec()), Some(b"two".to_vec()));
        remove(&path)?;
        remove(&path)?;
        assert!(read(&path)?.is_none());
        Ok(())
    }

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() -> Any {
        let folder = tempfile::tempdir()?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777))?;
        let refused = create_once(&folder.path().join("secret"), || Secret::new("correct horse battery"));
        assert!(matches!(refused, Err(PrivateFileError::OpenFolder { .. })));
        Ok(())
    }
}
