//! [`VolumeLock`]: one agent at a time on one volume. The engine may start a replacement while the former container
//! still stops; whoever comes second waits.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{Read as _, Seek as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
    time::Duration,
};

use crate::log;

/// How often a waiting agent tries again.
const PAUSE: Duration = Duration::from_millis(500);

/// Holds the volume until dropped, or until the process ends however it ends.
#[derive(Debug)]
pub struct VolumeLock(#[expect(dead_code, reason = "held, never read")] File);

/// What an attempt found.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Held(VolumeLock),
    /// Somebody else has it: who, in their own words.
    Taken(String),
}

/// Tries once. The lock is `flock` on an open file: it cannot stay behind when its holder dies.
///
/// # Errors
/// When the file cannot be opened or written.
pub fn attempt(path: &Path, holder: &str) -> std::io::Result<Attempt> {
    let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => {
            file.set_len(0)?;
            file.rewind()?;
            file.write_all(holder.as_bytes())?;
            file.sync_data()?;
            Ok(Attempt::Held(VolumeLock(file)))
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.take(300).read_to_string(&mut text)?;
            Ok(Attempt::Taken(text.trim().to_owned()))
        }
        Err(TryLockError::Error(error)) => Err(error),
    }
}

/// Waits until the volume is ours; `waiting` hears who has it, each time that changes.
///
/// # Errors
/// As [`attempt`].
pub async fn wait(path: &Path, mut waiting: impl FnMut(&str)) -> std::io::Result<VolumeLock> {
    let holder = format!("{} pid {}", hostname(), std::process::id());
    let mut last = None;
    loop {
        match attempt(path, &holder)? {
            Attempt::Held(lock) => return Ok(lock),
            Attempt::Taken(by) => {
                if last.as_ref() != Some(&by) {
                    log::warn("another container runs this agent on the same volume; waiting", &[("holder", &by)]);
                    waiting(&by);
                    last = Some(by);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// This container's host name.
pub fn hostname() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or_else(|_| "unknown".to_owned(), |name| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_hears_who_is_first_and_gets_the_volume_when_they_leave() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lock");
        let Attempt::Held(first) = attempt(&path, "box-1 pid 7").unwrap() else { panic!("a free lock is taken") };
        let Attempt::Taken(by) = attempt(&path, "box-2 pid 9").unwrap() else { panic!("two holders") };
        assert_eq!(by, "box-1 pid 7");
        drop(first);
        assert!(matches!(attempt(&path, "box-2 pid 9").unwrap(), Attempt::Held(_)));
        assert_eq!(fs::read_to_string(&path).unwrap(), "box-2 pid 9");
    }
}
