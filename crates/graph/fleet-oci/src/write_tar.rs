//! [`write_tar`]: a tree as tar bytes that are the same everywhere.
//!
//! Ustar headers, PAX records only where a value does not fit (long or non-ASCII names, large sizes and ids).
//! Entries in byte order of their path; every parent is emitted once, before what it holds.

use std::{
    collections::BTreeMap,
    io::{self, Write},
};

use crate::{
    content::Content,
    tree::{Meta, Node, Tree},
};

/// Seconds since 1970 of every entry when nobody says otherwise. Not 0: some programs take 0 for "unknown" and fail.
pub const MTIME: u64 = 1;

/// Parents that nobody declared get these modes, else 0755: emitting `tmp/` as 0755 in an upper layer would break
/// the lower layer's sticky bit.
const KNOWN_PARENTS: [(&str, u32); 4] = [("tmp", 0o1777), ("var/tmp", 0o1777), ("root", 0o700), ("run/lock", 0o1777)];

const BLOCK: usize = 512;
const LARGEST_OCTAL_SIZE: u64 = 0o77_777_777_777;
/// The latest time that a header holds, in the year 2242.
pub const LATEST_MTIME: u64 = LARGEST_OCTAL_SIZE;
const LARGEST_OCTAL_ID: u64 = 0o7_777_777;

/// Writes the whole archive, with its two closing blocks, every entry at [`MTIME`].
///
/// # Errors
/// When a content cannot be read or the writer refuses.
pub fn write_tar(tree: &Tree, out: &mut dyn Write) -> io::Result<()> {
    write_tar_at(tree, MTIME, out)
}

/// The same with every entry at `mtime`, seconds since 1970 and at most [`LATEST_MTIME`].
///
/// # Errors
/// When a content cannot be read or the writer refuses.
pub fn write_tar_at(tree: &Tree, mtime: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut out = Archive { out, mtime: mtime.min(LATEST_MTIME) };
    let links = HardlinkGroups::of(tree);
    let parents = implied_parents(tree);
    let mut parents = parents.iter().map(|(path, node)| (*path, node)).peekable();
    for (path, node) in tree.iter() {
        while let Some((parent, folder)) = parents.next_if(|(parent, _)| *parent < path) {
            out.node(parent, folder)?;
        }
        match links.role(path, node) {
            Role::Plain => out.node(path, node)?,
            Role::Lead(meta, content) => out.file(path, meta, content)?,
            Role::Follows(first) => {
                out.entry(&Entry { path, kind: b'1', meta: Meta::root(0o644), size: 0, link: first })?;
            }
        }
    }
    out.out.write_all(&[0; 2 * BLOCK])
}

/// Of several names of one file, the first in byte order carries the bytes, whichever the tree calls the target:
/// a reader must have seen the file before a link to it.
struct HardlinkGroups<'a> {
    /// target → its first name
    first: BTreeMap<&'a str, &'a str>,
    /// target → what it holds
    files: BTreeMap<&'a str, (Meta, &'a Content)>,
}

enum Role<'a> {
    Plain,
    Lead(Meta, &'a Content),
    Follows(&'a str),
}

impl<'a> HardlinkGroups<'a> {
    fn of(tree: &'a Tree) -> Self {
        let mut groups = Self { first: BTreeMap::new(), files: BTreeMap::new() };
        for (path, node) in tree.iter() {
            let Node::Hardlink(target) = node else { continue };
            let Some(Node::File(meta, content)) = tree.get(target) else { continue };
            groups.files.insert(target, (*meta, content));
            let first = groups.first.entry(target).or_insert(target.as_str().min(path));
            *first = (*first).min(path);
        }
        groups
    }

    fn role(&self, path: &str, node: &'a Node) -> Role<'a>
    where
        Self: 'a,
    {
        let target = if let Node::Hardlink(target) = node { target.as_str() } else { path };
        match (self.first.get(target), self.files.get(target)) {
            (Some(first), Some((meta, content))) if *first == path => Role::Lead(*meta, content),
            (Some(first), Some(_)) => Role::Follows(first),
            _ => Role::Plain,
        }
    }
}

/// Parents that nobody declared. All sort before what they hold, so a merge in byte order has them in time.
fn implied_parents(tree: &Tree) -> BTreeMap<&str, Node> {
    let mut parents = BTreeMap::new();
    for (path, _) in tree.iter() {
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            if !parents.contains_key(parent) && tree.get(parent).is_none() {
                let known = KNOWN_PARENTS.iter().find(|(known, _)| *known == parent);
                parents.insert(parent, Node::Dir(Meta::root(known.map_or(0o755, |(_, mode)| *mode))));
            }
        }
    }
    parents
}

/// An archive that is being written.
struct Archive<'a> {
    out: &'a mut dyn Write,
    mtime: u64,
}

impl Archive<'_> {
    fn node(&mut self, path: &str, node: &Node) -> io::Result<()> {
        match node {
            Node::Dir(meta) => {
                let path = format!("{path}/");
                self.entry(&Entry { path: &path, kind: b'5', meta: *meta, size: 0, link: "" })
            }
            Node::File(meta, content) => self.file(path, *meta, content),
            Node::Symlink(target) => {
                self.entry(&Entry { path, kind: b'2', meta: Meta::root(0o777), size: 0, link: target })
            }
            // A hard link to a symbolic link: tar has no such thing that every reader knows.
            Node::Hardlink(target) => {
                self.entry(&Entry { path, kind: b'1', meta: Meta::root(0o644), size: 0, link: target })
            }
        }
    }

    fn file(&mut self, path: &str, meta: Meta, content: &Content) -> io::Result<()> {
        self.entry(&Entry { path, kind: b'0', meta, size: content.len(), link: "" })?;
        content.copy_to(self.out)?;
        self.out.write_all(&member_end(content.len()))
    }

    fn entry(&mut self, entry: &Entry<'_>) -> io::Result<()> {
        let name = ustar_name(entry.path);
        let records = records(entry, name.is_none());
        if !records.is_empty() {
            let pax = Entry { path: "", kind: b'x', meta: Meta::root(0o644), size: records.len() as u64, link: "" };
            self.out.write_all(&header(&pax, ("././@PaxHeader", ""), self.mtime))?;
            self.out.write_all(&records)?;
            self.out.write_all(&member_end(records.len() as u64))?;
        }
        self.out.write_all(&header(entry, name.unwrap_or((truncate(entry.path), "")), self.mtime))
    }
}

/// The header of a plain file in a stream that the caller puts together (paths of at most 100 ASCII bytes).
pub(crate) fn member_start(path: &str, size: u64) -> Vec<u8> {
    header(&Entry { path, kind: b'0', meta: Meta::root(0o644), size, link: "" }, (path, ""), MTIME).to_vec()
}

/// What follows the `size` bytes of such a file.
pub(crate) fn member_end(size: u64) -> Vec<u8> {
    vec![0; (size.next_multiple_of(BLOCK as u64) - size) as usize]
}

struct Entry<'a> {
    path: &'a str,
    kind: u8,
    meta: Meta,
    size: u64,
    link: &'a str,
}

/// PAX records for what does not fit into the header.
fn records(entry: &Entry<'_>, path: bool) -> Vec<u8> {
    let mut records = Vec::new();
    if path {
        pax_record(&mut records, "path", entry.path);
    }
    if entry.link.len() > 100 || !entry.link.is_ascii() {
        pax_record(&mut records, "linkpath", entry.link);
    }
    for (key, value) in [("uid", entry.meta.uid), ("gid", entry.meta.gid)] {
        if u64::from(value) > LARGEST_OCTAL_ID {
            pax_record(&mut records, key, &value.to_string());
        }
    }
    if entry.size > LARGEST_OCTAL_SIZE {
        pax_record(&mut records, "size", &entry.size.to_string());
    }
    records
}

/// Name and prefix fields, when the path is ASCII and fits into them.
fn ustar_name(path: &str) -> Option<(&str, &str)> {
    if !path.is_ascii() {
        return None;
    }
    if path.len() <= 100 {
        return Some((path, ""));
    }
    path.match_indices('/')
        .map(|(at, _)| (&path[at + 1..], &path[..at]))
        .find(|(name, prefix)| !name.is_empty() && name.len() <= 100 && prefix.len() <= 155)
}

/// What old readers see of a name that stands in a PAX record.
fn truncate(path: &str) -> &str {
    let mut end = path.len().min(100);
    while !path.is_char_boundary(end) {
        end -= 1;
    }
    &path[..end]
}

fn pax_record(records: &mut Vec<u8>, key: &str, value: &str) {
    // The length counts its own digits.
    let body = key.len() + value.len() + 3;
    let mut length = body + 1;
    while length != body + length.to_string().len() {
        length = body + length.to_string().len();
    }
    records.extend_from_slice(format!("{length} {key}={value}\n").as_bytes());
}

fn header(entry: &Entry<'_>, (name, prefix): (&str, &str), mtime: u64) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, name.as_bytes());
    put(100, format!("{:07o}\0", entry.meta.mode & 0o7777).as_bytes());
    for (at, id) in [(108, entry.meta.uid), (116, entry.meta.gid)] {
        let id = u64::from(id);
        put(at, format!("{:07o}\0", if id > LARGEST_OCTAL_ID { 0 } else { id }).as_bytes());
    }
    let size = if entry.size > LARGEST_OCTAL_SIZE { 0 } else { entry.size };
    put(124, format!("{size:011o}\0").as_bytes());
    put(136, format!("{mtime:011o}\0").as_bytes());
    put(148, b"        ");
    put(156, &[entry.kind]);
    put(157, truncate(entry.link).as_bytes());
    put(257, b"ustar\x0000");
    put(345, prefix.as_bytes());
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}
