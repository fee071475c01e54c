//! [`Stamp`]: what `stat` says of a file or a folder, as caches compare it and keep it.

use std::{
    fs::Metadata,
    os::unix::fs::MetadataExt,
    time::{SystemTime, UNIX_EPOCH},
};

/// Twice the coarsest file times in use (FAT and HFS+: 2 s and 1 s; kernel clocks: 10 ms).
const GRANULARITY: i128 = 2_000_000_000;

/// What `stat` says that tells one version of a file, or of the names in a folder, from another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    mtime: i128,
    /// Nanoseconds since 1970.
    ctime: i128,
    inode: u64,
    /// Of the file system.
    pub device: u64,
    /// The owner's execute bit.
    pub executable: bool,
}

impl Stamp {
    pub fn of(metadata: &Metadata) -> Self {
        let nanos = |seconds: i64, nanos: i64| i128::from(seconds) * 1_000_000_000 + i128::from(nanos);
        Self {
            size: metadata.size(),
            mtime: nanos(metadata.mtime(), metadata.mtime_nsec()),
            ctime: nanos(metadata.ctime(), metadata.ctime_nsec()),
            inode: metadata.ino(),
            device: metadata.dev(),
            executable: metadata.mode() & 0o100 != 0,
        }
    }

    /// The same, of what a walk looked at.
    pub fn of_stat(stat: &rustix::fs::Stat) -> Self {
        // The numbers' types differ between machines.
        let number = |number: i128| u64::try_from(number).unwrap_or_default();
        let nanos = |seconds: i128, nanos: i128| seconds * 1_000_000_000 + nanos;
        Self {
            size: number(stat.st_size.into()),
            mtime: nanos(stat.st_mtime.into(), stat.st_mtime_nsec.into()),
            ctime: nanos(stat.st_ctime.into(), stat.st_ctime_nsec.into()),
            inode: number(stat.st_ino.into()),
            device: number(stat.st_dev.into()),
            executable: stat.st_mode & 0o100 != 0,
        }
    }

    /// Would any change after `now` give it other times?
    pub const fn settled(&self, now: i128) -> bool {
        let latest = if self.mtime > self.ctime { self.mtime } else { self.ctime };
        latest + GRANULARITY < now
    }

    /// Appends it as numbers of fixed length, little endian.
    pub fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.size.to_le_bytes());
        bytes.extend(self.mtime.to_le_bytes());
        bytes.extend(self.ctime.to_le_bytes());
        bytes.extend(self.inode.to_le_bytes());
        bytes.extend(self.device.to_le_bytes());
        bytes.push(u8::from(self.executable));
    }

    /// Takes one from the front; `None` where there is less than one.
    pub fn decode(rest: &mut &[u8]) -> Option<Self> {
        Some(Self {
            size: u64::from_le_bytes(take(rest)?),
            mtime: i128::from_le_bytes(take(rest)?),
            ctime: i128::from_le_bytes(take(rest)?),
            inode: u64::from_le_bytes(take(rest)?),
            device: u64::from_le_bytes(take(rest)?),
            executable: take::<1>(rest)? == [1],
        })
    }
}

/// Nanoseconds since 1970, by the clock that file systems write times by.
pub(crate) fn now() -> i128 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| i128::try_from(d.as_nanos()).unwrap_or(0))
}

/// Takes so many bytes from the front.
pub(crate) fn take<const N: usize>(rest: &mut &[u8]) -> Option<[u8; N]> {
    let (first, after) = rest.split_first_chunk::<N>()?;
    *rest = after;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_remembered_once_its_times_lie_back_far_enough() {
        let stamp = |mtime, ctime| Stamp { size: 1, mtime, ctime, inode: 1, device: 1, executable: false };
        let now = 10 * GRANULARITY;
        assert!(stamp(now - GRANULARITY - 1, 0).settled(now));
        assert!(!stamp(now - GRANULARITY, 0).settled(now));
        assert!(!stamp(0, now - GRANULARITY).settled(now), "ctime counts as well");
        assert!(!stamp(now + 1, 0).settled(now), "times in the future are never believed");
    }
}
