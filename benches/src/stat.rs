//! [`walk`]: every file below a folder and what `stat` says of it, as fast as two threads can ask.

use std::{
    collections::BTreeMap,
    os::fd::OwnedFd,
    path::Path,
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, openat, statat};
use serde::{Deserialize, Serialize};

/// What tells one version of a file from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds.
    pub mtime: i64,
    /// Nanoseconds.
    pub ctime: i64,
    /// Inode.
    pub inode: u64,
    /// Permission bits and kind.
    pub mode: u32,
}

/// Files by path relative to the folder.
#[derive(Debug, Default)]
pub struct Found {
    /// Regular files.
    pub files: BTreeMap<String, Stamp>,
    /// Folders, in byte order.
    pub folders: Vec<String>,
}

/// Walks and stats.
///
/// # Errors
/// When a folder cannot be read.
pub fn walk(folder: &Path) -> anyhow::Result<Found> {
    let root = open(CWD, folder.to_str().context("a path that is not UTF-8")?)?;
    let found = Mutex::new((Vec::new(), Vec::new()));
    let failed = Mutex::new(None);
    rayon::scope(|scope| visit(scope, root, String::new(), &found, &failed));
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let (files, mut folders) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    folders.sort_unstable();
    Ok(Found { files: files.into_iter().collect(), folders })
}

type Collected = Mutex<(Vec<(String, Stamp)>, Vec<String>)>;

fn visit<'a>(
    scope: &rayon::Scope<'a>,
    folder: OwnedFd,
    prefix: String,
    found: &'a Collected,
    failed: &'a Mutex<Option<anyhow::Error>>,
) {
    let read = || -> anyhow::Result<()> {
        let (mut files, mut folders) = (Vec::new(), Vec::new());
        for entry in Dir::read_from(&folder)? {
            let entry = entry?;
            let name = entry.file_name().to_str()?;
            if name == "." || name == ".." {
                continue;
            }
            let path = format!("{prefix}{name}");
            if entry.file_type() == FileType::Directory {
                let (below, prefix) = (open(&folder, name)?, format!("{path}/"));
                scope.spawn(move |scope| visit(scope, below, prefix, found, failed));
                folders.push(path);
            } else {
                let stat = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW)?;
                let nanos = |seconds: i64, nanos: u64| seconds * 1_000_000_000 + nanos as i64;
                files.push((
                    path,
                    Stamp {
                        size: stat.st_size as u64,
                        mtime: nanos(stat.st_mtime, stat.st_mtime_nsec),
                        ctime: nanos(stat.st_ctime, stat.st_ctime_nsec),
                        inode: stat.st_ino,
                        mode: stat.st_mode,
                    },
                ));
            }
        }
        let mut all = found.lock().unwrap_or_else(PoisonError::into_inner);
        all.0.append(&mut files);
        all.1.append(&mut folders);
        Ok(())
    };
    if let Err(error) = read() {
        *failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

fn open(at: impl std::os::fd::AsFd, name: &str) -> rustix::io::Result<OwnedFd> {
    openat(at, name, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}
