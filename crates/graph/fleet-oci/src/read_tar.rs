//! [`read_tar`]: an archive somebody else made, into a tree, with bounds.
//!
//! What is refused names the entry: paths and links that leave the root, devices, two entries that say different things
//! about one path, and more than the declared bounds. Memory is bounded by [`MAXIMUM_NAMES`] and [`crate::fence::MAXIMUM_EXTENDED`],
//! whatever the archive claims; contents go to the sink.

use std::io::{self, Read};

use tar::EntryType;

use crate::{
    content::ContentSink,
    fence::{Fence, NextError},
    tree::{Meta, Node, Tree, TreeError, clean, stays_within},
};

/// No archive of a package or layer that we unpack may have more entries.
pub const MAXIMUM_ENTRIES: usize = 1_000_000;
/// Nor unpack to more bytes: a bomb is refused, not unpacked.
pub const MAXIMUM_UNPACKED: u64 = 16 << 30;
/// Nor have names and link targets of more bytes together: they are what stays in memory.
pub const MAXIMUM_NAMES: usize = 256 << 20;

/// Which modes survive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Modes {
    /// All twelve bits, owner and group: for Debian packages, whose modes are the maintainer's decision (setuid,
    /// `/tmp`'s sticky bit, 0640 files of a group).
    Kept,
    /// 0755 or 0644 by the owner's x bit, folders 0755, root: for everything else, where the rest of the mode is
    /// somebody's umask.
    FromXBit,
}

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum ReadTarError {
    /// Truncated, or not a tar.
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
    /// A path, link or order that would leave the root or contradict itself.
    #[error("the entry {entry:?} is refused: {source}")]
    Entry {
        /// As the archive names it.
        entry: String,
        /// What is wrong.
        #[source]
        source: TreeError,
    },
    /// A symbolic link that climbs out of the root.
    #[error("the entry {entry:?} is a link to {target:?}, which leads out of the root or is longer than 4096 bytes")]
    Leaves {
        /// The link.
        entry: String,
        /// Where it leads.
        target: String,
    },
    /// A tree made of the archive's entries that does not hold together.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A name that is not UTF-8.
    #[error("the entry {0:?} has a name that is not UTF-8")]
    NotText(String),
    /// Extended header records that are broken or hold a line feed.
    #[error("the entry {0:?} has extended records that cannot be read")]
    Records(String),
    /// A device, socket or something unknown.
    #[error("the entry {path:?} is {what}; only files, folders and links are unpacked")]
    Kind {
        /// The entry.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// More than the declared bounds.
    #[error("the archive has more than {bound} at the entry {entry:?}")]
    TooLarge {
        /// Which bound.
        bound: &'static str,
        /// The first entry beyond it, or the last that was read.
        entry: String,
    },
}

/// Unpacks into a tree; `place` maps an entry's path to where it goes, `None` leaves it out.
///
/// # Errors
/// [`ReadTarError`].
pub fn read_tar(
    reader: impl Read,
    modes: Modes,
    sink: &mut dyn ContentSink,
    mut place: impl FnMut(&str) -> Option<String>,
) -> Result<Tree, ReadTarError> {
    let (fence, gate) = Fence::new(reader);
    let mut archive = tar::Archive::new(fence);
    let mut entries = archive.entries()?;
    let mut unpacking = Unpacking { tree: Tree::new(), modes, sink, bounds: Bounds::default() };
    loop {
        let Some(mut entry) = gate.next(&mut entries).map_err(|error| unpacking.bounds.broken(error))? else {
            return Ok(unpacking.tree);
        };
        unpacking.take(&mut entry, &mut place)?;
        // What was left out is passed over here, so that it does not count as headers.
        io::copy(&mut entry, &mut io::sink())?;
    }
}

/// How much was seen, against the declared bounds.
#[derive(Default)]
struct Bounds {
    entries: usize,
    unpacked: u64,
    names: usize,
    /// The entry that was seen last.
    last: String,
}

impl Bounds {
    fn count(&mut self, path: &str, link: &str, size: u64) -> Result<(), ReadTarError> {
        self.entries += 1;
        self.unpacked = self.unpacked.saturating_add(size);
        self.names = self.names.saturating_add(path.len() + link.len());
        path.clone_into(&mut self.last);
        let bound = if self.entries > MAXIMUM_ENTRIES {
            "1,000,000 entries"
        } else if self.unpacked > MAXIMUM_UNPACKED {
            "16 GiB of files"
        } else if self.names > MAXIMUM_NAMES {
            "256 MiB of names"
        } else {
            return Ok(());
        };
        Err(ReadTarError::TooLarge { bound, entry: path.to_owned() })
    }

    fn broken(&self, error: NextError) -> ReadTarError {
        match error {
            NextError::TooLong => {
                ReadTarError::TooLarge { bound: "1 MiB of headers", entry: format!("after {}", self.last) }
            }
            NextError::Io(error) => ReadTarError::Io(error),
        }
    }
}

struct Unpacking<'a> {
    tree: Tree,
    modes: Modes,
    sink: &'a mut dyn ContentSink,
    bounds: Bounds,
}

impl Unpacking<'_> {
    fn take<R: Read>(
        &mut self,
        entry: &mut tar::Entry<'_, R>,
        place: &mut impl FnMut(&str) -> Option<String>,
    ) -> Result<(), ReadTarError> {
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            return self.bounds.count("a global header", "", entry.size());
        }
        check_records(entry)?;
        let path = text(&entry.path_bytes())?;
        let link = text(&entry.link_name_bytes().unwrap_or_default())?;
        self.bounds.count(&path, &link, entry.size())?;
        let refused = |source| ReadTarError::Entry { entry: path.clone(), source };
        let root = kind == EntryType::Directory && path.trim_matches(['.', '/']).is_empty() && !path.contains("..");
        if root {
            return Ok(());
        }
        // As the archive writes it, also where it goes somewhere else: what tries to leave is not to be trusted.
        clean(&path).map_err(refused)?;
        let Some(target) = place(&path) else { return Ok(()) };
        let node = match kind {
            EntryType::Directory => Node::Dir(meta(entry.header(), self.modes, kind)?),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let meta = meta(entry.header(), self.modes, kind)?;
                let size = entry.size();
                Node::File(meta, self.sink.store(entry, size)?)
            }
            EntryType::Symlink if !stays_within(&target, &link) => {
                return Err(ReadTarError::Leaves { entry: path, target: link });
            }
            EntryType::Symlink => Node::Symlink(link),
            EntryType::Link => {
                clean(&link).map_err(refused)?;
                let Some(other) = place(&link) else { return Ok(()) };
                Node::Hardlink(other)
            }
            other => return Err(ReadTarError::Kind { path, what: described(other) }),
        };
        if matches!(node, Node::Dir(_)) && target.trim_matches(['.', '/']).is_empty() {
            return Ok(());
        }
        self.tree.insert_once(&target, node).map_err(refused)
    }
}

fn described(kind: EntryType) -> &'static str {
    match kind {
        EntryType::Char => "a character device",
        EntryType::Block => "a block device",
        EntryType::Fifo => "a named pipe",
        _ => "of a kind that is not known",
    }
}

/// The `tar` crate passes over PAX records that it cannot read, and takes the truncated name of the header instead:
/// values with a line feed are such. A wrong name is worse than none.
fn check_records<R: Read>(entry: &mut tar::Entry<'_, R>) -> Result<(), ReadTarError> {
    let unreadable = match entry.pax_extensions()? {
        Some(mut records) => records.any(|record| record.is_err()),
        None => false,
    };
    if unreadable {
        return Err(ReadTarError::Records(String::from_utf8_lossy(&entry.path_bytes()).into_owned()));
    }
    Ok(())
}

fn meta(header: &tar::Header, modes: Modes, kind: EntryType) -> io::Result<Meta> {
    let mode = header.mode()?;
    Ok(match modes {
        Modes::Kept => {
            let id = |value: io::Result<u64>| value.map(|id| u32::try_from(id).unwrap_or(0));
            Meta { mode: mode & 0o7777, uid: id(header.uid())?, gid: id(header.gid())? }
        }
        Modes::FromXBit => Meta::from_x_bit(kind == EntryType::Directory || mode & 0o100 != 0),
    })
}

fn text(bytes: &[u8]) -> Result<String, ReadTarError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ReadTarError::NotText(String::from_utf8_lossy(bytes).into_owned()))
}
