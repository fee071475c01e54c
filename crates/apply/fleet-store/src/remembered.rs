//! [`Remembered`]: what earlier runs found out about paths, in a file that is read whole and looked up where it lies.
//!
//! An entry is believed only where `stat` says of its path what it said then ([`Stamp`]). What is remembered is bytes; what
//! they mean is the business of the caches that stand on this, as is when something may be remembered.

use std::{
    collections::BTreeMap,
    ffi::OsStr,
    fs,
    ops::Range,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::{
    WriteError,
    atomic::{Temporary, write_unsynced},
    stamp::{Stamp, take},
};

/// Bytes of a sum at the end of a file.
const SUM: usize = blake3::OUT_LEN;

/// Bytes by path, for as long as the path's stamp stays. Shared by threads.
#[derive(Debug, Default)]
pub(crate) struct Remembered {
    /// Its file and first bytes; none where nothing outlives the run.
    kept: Option<(PathBuf, &'static [u8])>,
    /// The file as it was read.
    bytes: Vec<u8>,
    /// What is in it, in byte order of paths.
    known: Vec<Known>,
    /// What was found out in this run: stamps and what is remembered, by path.
    learned: Mutex<BTreeMap<Vec<u8>, Vec<u8>>>,
}

/// An entry of the file, by where its parts are.
#[derive(Debug)]
struct Known {
    path: Range<usize>,
    /// The stamp and what is remembered.
    rest: Range<usize>,
    /// Its path was there in this run.
    seen: AtomicBool,
}

impl Remembered {
    /// What is in a file that begins with these bytes. One that is missing, damaged or begins otherwise holds nothing.
    pub fn load(file: PathBuf, magic: &'static [u8]) -> Self {
        let bytes = fs::read(&file).unwrap_or_default();
        let empty = Self::distrusting(file, magic);
        match decode(&bytes, magic) {
            Some(known) => Self { bytes, known, ..empty },
            None => empty,
        }
    }

    /// One that believes nothing, and keeps what it learns.
    pub fn distrusting(file: PathBuf, magic: &'static [u8]) -> Self {
        Self { kept: Some((file, magic)), ..Self::default() }
    }

    /// Whether there is any use in asking for a path's stamp.
    pub fn knows(&self, path: &Path) -> bool {
        self.find(path.as_os_str().as_bytes()).is_some()
    }

    /// What is remembered of a path that has this stamp now.
    pub fn get(&self, path: &Path, stamp: &Stamp) -> Option<&[u8]> {
        let known = self.find(path.as_os_str().as_bytes())?;
        let mut rest = self.bytes.get(known.rest.clone())?;
        if Stamp::decode(&mut rest)? != *stamp {
            return None;
        }
        known.seen.store(true, Ordering::Relaxed);
        Some(rest)
    }

    /// Takes note of something about a path, found out while it had this stamp.
    pub fn learn(&self, path: &Path, stamp: &Stamp, what: &[u8]) {
        if self.kept.is_some() {
            let mut rest = Vec::new();
            stamp.encode(&mut rest);
            rest.extend(what);
            let mut learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
            learned.insert(path.as_os_str().as_bytes().to_owned(), rest);
        }
    }

    /// Writes what was learned, when anything was. Concurrent runs overwrite each other's, which costs time only.
    ///
    /// # Errors
    /// [`WriteError`].
    pub fn save(&self) -> Result<(), WriteError> {
        let learned = self.learned.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((file, magic)) = &self.kept else { return Ok(()) };
        let is_known = |(path, rest): (&Vec<u8>, &Vec<u8>)| {
            self.find(path).is_some_and(|known| self.bytes[known.rest.clone()] == **rest)
        };
        if learned.iter().all(is_known) {
            return Ok(());
        }
        let mut all: BTreeMap<&[u8], &[u8]> =
            learned.iter().map(|(path, rest)| (path.as_slice(), rest.as_slice())).collect();
        for known in &self.known {
            let path = &self.bytes[known.path.clone()];
            // Paths that nobody asked for this time stay; those that are gone do not, or the file would only grow.
            let there = || known.seen.load(Ordering::Relaxed) || Path::new(OsStr::from_bytes(path)).exists();
            if !all.contains_key(path) && there() {
                all.insert(path, &self.bytes[known.rest.clone()]);
            }
        }
        // Damaged by a power failure, it is empty.
        let temporary = Temporary::within(&file.with_file_name("tmp"));
        write_unsynced(file, &temporary, &encode(&all, magic), 0o600)
    }

    fn find(&self, path: &[u8]) -> Option<&Known> {
        let at = self.known.binary_search_by(|known| self.bytes[known.path.clone()].cmp(path)).ok()?;
        self.known.get(at)
    }
}

/// The first bytes, the entries in byte order of their paths, and BLAKE3 of all before it. An entry is a path, and a stamp with
/// what is remembered, each with its length before it (4 bytes); numbers are little endian.
fn encode(entries: &BTreeMap<&[u8], &[u8]>, magic: &[u8]) -> Vec<u8> {
    let mut bytes = magic.to_vec();
    for (path, rest) in entries {
        let (Ok(path_length), Ok(rest_length)) = (u32::try_from(path.len()), u32::try_from(rest.len())) else {
            continue;
        };
        bytes.extend(path_length.to_le_bytes());
        bytes.extend(*path);
        bytes.extend(rest_length.to_le_bytes());
        bytes.extend(*rest);
    }
    let sum = blake3::hash(&bytes);
    bytes.extend(sum.as_bytes());
    bytes
}

/// `None` where it is damaged, or begins otherwise.
fn decode(bytes: &[u8], magic: &[u8]) -> Option<Vec<Known>> {
    let (body, sum) = bytes.split_last_chunk::<SUM>()?;
    let mut rest = body.strip_prefix(magic).filter(|_| blake3::hash(body).as_bytes() == sum)?;
    let piece = |rest: &mut &[u8]| {
        let length = usize::try_from(u32::from_le_bytes(take(rest)?)).ok()?;
        let start = body.len() - rest.len();
        *rest = rest.split_at_checked(length)?.1;
        Some(start..start + length)
    };
    let mut known = Vec::new();
    while !rest.is_empty() {
        known.push(Known { path: piece(&mut rest)?, rest: piece(&mut rest)?, seen: AtomicBool::new(false) });
    }
    Some(known)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    type Any = Result<(), Box<dyn std::error::Error>>;

    const MAGIC: &[u8] = b"remembered 1\n";

    /// A store's folder with a file for it, and what `stat` says of the folder.
    fn place() -> Result<(tempfile::TempDir, PathBuf, Stamp), Box<dyn std::error::Error>> {
        let store = tempfile::tempdir()?;
        fs::create_dir(store.path().join("tmp"))?;
        let (file, stamp) = (store.path().join("file"), Stamp::of(&fs::metadata(store.path())?));
        Ok((store, file, stamp))
    }

    #[test]
    fn what_was_learned_is_there_next_time_until_the_stamp_changes_or_the_path_is_gone() -> Any {
        let (store, file, stamp) = place()?;
        let first = Remembered::load(file.clone(), MAGIC);
        first.learn(store.path(), &stamp, b"what");
        first.learn(Path::new("/nowhere"), &stamp, b"");
        first.save()?;
        let second = Remembered::load(file.clone(), MAGIC);
        assert_eq!(second.get(store.path(), &stamp), Some(b"what".as_slice()));
        assert_eq!(second.get(Path::new("/nowhere"), &stamp), Some(b"".as_slice()));
        let other = Stamp::of(&fs::metadata("/")?);
        assert_eq!(second.get(store.path(), &other), None, "it is another one now");
        second.learn(Path::new("/"), &other, b"root");
        second.save()?;
        let third = Remembered::load(file, MAGIC);
        assert!(third.knows(store.path()) && third.knows(Path::new("/")));
        assert!(third.knows(Path::new("/nowhere")), "somebody saw it in that run");
        third.learn(Path::new("/"), &stamp, b"changed");
        third.save()?;
        let fourth = Remembered::load(third.kept.ok_or("no file")?.0, MAGIC);
        assert_eq!(fourth.get(Path::new("/"), &stamp), Some(b"changed".as_slice()));
        assert!(!fourth.knows(Path::new("/nowhere")), "what is gone is forgotten");
        Ok(())
    }

    #[test]
    fn what_is_known_already_is_not_written_again() -> Any {
        let (store, file, stamp) = place()?;
        let learn = || {
            let remembered = Remembered::load(file.clone(), MAGIC);
            remembered.learn(store.path(), &stamp, b"what");
            remembered.save()
        };
        learn()?;
        let inode = fs::metadata(&file)?.ino();
        learn()?;
        assert_eq!(fs::metadata(&file)?.ino(), inode);
        Ok(())
    }

    #[test]
    fn a_damaged_file_or_one_of_another_kind_holds_nothing() -> Any {
        let (store, file, stamp) = place()?;
        let remembered = Remembered::load(file.clone(), MAGIC);
        remembered.learn(store.path(), &stamp, b"what");
        remembered.save()?;
        let good = fs::read(&file)?;
        assert!(decode(&good, MAGIC).is_some() && decode(&good, b"remembered 2\n").is_none());
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad, MAGIC).is_none(), "byte {at}");
            assert!(decode(&good[..at], MAGIC).is_none(), "cut at {at}");
        }
        fs::write(&file, &good[1..])?;
        assert!(!Remembered::load(file, MAGIC).knows(store.path()));
        Ok(())
    }
}
