//! [`Folder`]: an open directory, and operations on names directly within it that never follow a symbolic link.
//!
//! The agent owns its workspace and may put links in it; this program runs as root. So no path is ever handed to
//! the system as a whole: every step down is one `openat` that refuses links.

use std::{
    fs::File,
    io::{self, Read as _, Write as _},
    os::fd::OwnedFd,
    path::Path,
};

use rustix::{
    fs::{AtFlags, CWD, FileType, Mode, OFlags},
    io::Errno,
    process::{Gid, Uid},
};

/// Larger files are never ours.
const LARGEST: u64 = 16 * 1024 * 1024;

/// User and group that new files get; `None`: whoever runs this program (tests).
pub type Owner = Option<(u32, u32)>;

/// What a name within a folder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Entry {
    /// Nothing.
    Absent,
    /// A regular file.
    File,
    /// A directory.
    Folder,
    /// A link, socket, device.
    Other,
}

/// An open directory.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    owner: Owner,
}

impl Folder {
    /// Opens `path`, made when it is missing, given to `owner` with `mode`. Its parents are trusted.
    ///
    /// # Errors
    /// When it cannot be made or is not a directory (a link is not).
    pub fn ensure(path: &Path, owner: Owner, mode: u32) -> io::Result<Self> {
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)?;
        }
        match rustix::fs::mkdirat(CWD, path, Mode::from_raw_mode(mode)) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error.into()),
        }
        let folder = Self { fd: rustix::fs::openat(CWD, path, directory(), Mode::empty())?, owner };
        folder.take(mode)?;
        Ok(folder)
    }

    fn take(&self, mode: u32) -> io::Result<()> {
        rustix::fs::fchmod(&self.fd, Mode::from_raw_mode(mode))?;
        give(&self.fd, self.owner)
    }

    /// What `name` is.
    ///
    /// # Errors
    /// When it cannot be told.
    pub fn entry(&self, name: &str) -> io::Result<Entry> {
        match rustix::fs::statat(&self.fd, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(match FileType::from_raw_mode(stat.st_mode) {
                FileType::RegularFile => Entry::File,
                FileType::Directory => Entry::Folder,
                _ => Entry::Other,
            }),
            Err(Errno::NOENT) => Ok(Entry::Absent),
            Err(error) => Err(error.into()),
        }
    }

    /// The folder `name` within this one.
    ///
    /// # Errors
    /// When it is not a folder.
    pub fn open(&self, name: &str) -> io::Result<Self> {
        Ok(Self { fd: rustix::fs::openat(&self.fd, name, directory(), Mode::empty())?, owner: self.owner })
    }

    /// Makes the folder `name` and opens it.
    ///
    /// # Errors
    /// When there is something of that name.
    pub fn make(&self, name: &str) -> io::Result<Self> {
        rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755))?;
        let made = self.open(name)?;
        made.take(0o755)?;
        Ok(made)
    }

    /// The contents of the regular file `name`.
    ///
    /// # Errors
    /// When it is a link, too large or cannot be read.
    pub fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.fd, name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        let mut bytes = Vec::new();
        if file.take(LARGEST + 1).read_to_end(&mut bytes)? as u64 > LARGEST {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any generated file"));
        }
        Ok(bytes)
    }

    /// Writes `name` as a whole or not at all: a temporary file, synced, renamed over whatever was there.
    ///
    /// # Errors
    /// When it cannot be written; the former file is then as it was.
    pub fn write(&self, name: &str, bytes: &[u8], mode: u32) -> io::Result<()> {
        let temporary = format!(".fleet-{}.tmp", std::process::id());
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::unlinkat(&self.fd, &temporary, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let mut file = File::from(rustix::fs::openat(&self.fd, &temporary, flags, Mode::from_raw_mode(0o600))?);
        file.write_all(bytes)?;
        give(&file, self.owner)?;
        rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o777))?;
        file.sync_all()?;
        rustix::fs::renameat(&self.fd, &temporary, &self.fd, name)?;
        self.sync()
    }

    /// Renames within this folder. The caller has seen that `to` is absent.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        rustix::fs::renameat(&self.fd, from, &self.fd, to)?;
        self.sync()
    }

    /// Removes the file `name`.
    ///
    /// # Errors
    /// When the system refuses.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        rustix::fs::unlinkat(&self.fd, name, AtFlags::empty())?;
        self.sync()
    }

    /// Removes the folder `name` when it is empty; `false`: it is not.
    ///
    /// # Errors
    /// When the system refuses for another reason.
    pub fn remove_empty(&self, name: &str) -> io::Result<bool> {
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.fd)?)
    }
}

fn directory() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn give(fd: &impl std::os::fd::AsFd, owner: Owner) -> io::Result<()> {
    if let Some((uid, gid)) = owner {
        rustix::fs::fchown(fd, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    Ok(())
}
