//! [`read_tar`]: an archive somebody else made, into a tree, with bounds.

use std::io::{self, Read};

use tar::EntryType;

use crate::{
    content::ContentSink,
    tree::{Meta, Node, Tree, TreeError},
};

/// No archive of a package or layer that we unpack may have more entries.
pub const MAXIMUM_ENTRIES: usize = 1_000_000;
/// Nor unpack to more bytes: a bomb is refused, not unpacked.
pub const MAXIMUM_UNPACKED: u64 = 16 << 30;

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
        what: String,
    },
    /// More than the declared bounds.
    #[error("the archive has more than {0}")]
    TooLarge(&'static str),
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
    let mut tree = Tree::new();
    let mut archive = tar::Archive::new(reader);
    let mut unpacked = 0;
    for (count, entry) in archive.entries()?.enumerate() {
        let mut entry = entry?;
        if count >= MAXIMUM_ENTRIES {
            return Err(ReadTarError::TooLarge("1,000,000 entries"));
        }
        unpacked += entry.size();
        if unpacked > MAXIMUM_UNPACKED {
            return Err(ReadTarError::TooLarge("16 GiB"));
        }
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            continue;
        }
        check_records(&mut entry)?;
        let path = text(&entry.path_bytes())?;
        let Some(target) = place(&path) else { continue };
        let meta = meta(entry.header(), modes, kind)?;
        let node = match kind {
            EntryType::Directory => Node::Dir(meta),
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                let size = entry.size();
                Node::File(meta, sink.store(&mut entry, size)?)
            }
            EntryType::Symlink => Node::Symlink(link(&entry)?),
            EntryType::Link => {
                let Some(other) = place(&link(&entry)?) else { continue };
                Node::Hardlink(other)
            }
            other => return Err(ReadTarError::Kind { path, what: format!("of type {other:?}") }),
        };
        if matches!(node, Node::Dir(_)) && target.trim_matches(['.', '/']).is_empty() {
            continue;
        }
        tree.insert(&target, node)?;
    }
    Ok(tree)
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

fn link<R: Read>(entry: &tar::Entry<'_, R>) -> Result<String, ReadTarError> {
    text(&entry.link_name_bytes().unwrap_or_default())
}

fn text(bytes: &[u8]) -> Result<String, ReadTarError> {
    String::from_utf8(bytes.to_vec()).map_err(|_| ReadTarError::NotText(String::from_utf8_lossy(bytes).into_owned()))
}
