//! [`read_deb`]: a Debian package as a tree, with what its scripts would have done left undone and listed.

use std::{
    collections::BTreeMap,
    io::{self, Read},
};

use crate::{
    content::{ContentSink, MemorySink},
    read_tar::{Modes, ReadTarError, read_tar},
    tree::{Node, Tree},
};

/// Left out of every package: documentation that no container reads. Copyright files stay: licences ask for it.
const LEFT_OUT: [&str; 6] = [
    "usr/share/man/",
    "usr/share/info/",
    "usr/share/doc-base/",
    "usr/share/lintian/",
    "usr/share/linda/",
    "usr/share/locale/",
];
/// What maintainer scripts are called.
const SCRIPTS: [&str; 5] = ["config", "postinst", "postrm", "preinst", "prerm"];
/// A control archive is text; this bounds what a hostile one may hold.
const MAXIMUM_CONTROL: u64 = 32 << 20;
/// What unpacking xz may take: `xz -9` needs 65 MiB, a header may ask for 4 GiB.
const MAXIMUM_XZ_MEMORY: u64 = 128 << 20;
/// First bytes of a package, and of every member's header its last two.
const AR_MAGIC: &[u8; 8] = b"!<arch>\n";
const AR_END: &[u8; 2] = b"`\n";

/// A package that was taken apart.
#[derive(Clone, Debug)]
pub struct Deb {
    /// The `control` paragraph as the package has it, with a line feed at its end.
    pub control: String,
    /// Value of `Package`.
    pub name: String,
    /// Maintainer scripts that were not run, by name.
    pub scripts: Vec<String>,
    /// Its configuration files, absolute as listed.
    pub conffiles: Vec<String>,
    /// Its files.
    pub tree: Tree,
}

/// Why a package is refused.
#[derive(Debug, thiserror::Error)]
pub enum DebError {
    /// The outer archive is broken.
    #[error("the package cannot be read: {0}")]
    Io(#[from] io::Error),
    /// One of the inner archives is.
    #[error("{member}: {source}")]
    Member {
        /// `data.tar.xz`…
        member: String,
        /// What is wrong.
        #[source]
        source: ReadTarError,
    },
    /// A compression nobody has used in Debian.
    #[error("{0} is compressed in a way that is not known (xz, zst, gz and none are)")]
    Compression(String),
    /// Not a Debian package.
    #[error("the package has no {0}")]
    Missing(&'static str),
    /// Two members of one kind: readers would disagree on which counts.
    #[error("the package has a second {0}")]
    Twice(String),
}

/// Takes a `.deb` apart.
///
/// # Errors
/// [`DebError`].
pub fn read_deb(reader: impl Read, sink: &mut dyn ContentSink) -> Result<Deb, DebError> {
    let mut outer = reader;
    let mut magic = [0; AR_MAGIC.len()];
    outer.read_exact(&mut magic)?;
    if &magic != AR_MAGIC {
        return Err(DebError::Missing("first line of an ar archive"));
    }
    let mut control = None;
    let mut tree = None;
    while let Some((name, size)) = next_member(&mut outer)? {
        let mut member = Read::take(&mut outer, size);
        let read = if name.starts_with("control.tar") {
            let whole = |path: &str| Some(path.to_owned());
            let reader = decompressed(&name, &mut member)?.take(MAXIMUM_CONTROL);
            read_tar(reader, Modes::FromXBit, &mut MemorySink, whole).map(|files| control.replace(files))
        } else if name.starts_with("data.tar") {
            read_tar(decompressed(&name, &mut member)?, Modes::Kept, sink, keep).map(|files| tree.replace(files))
        } else {
            Ok(None)
        };
        if read.map_err(|source| DebError::Member { member: name.clone(), source })?.is_some() {
            return Err(DebError::Twice(name));
        }
        io::copy(&mut member, &mut io::sink())?;
        if member.limit() > 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        // Members start at even offsets; the last one's padding may be missing.
        io::copy(&mut Read::take(&mut outer, size % 2), &mut io::sink())?;
    }
    let files = control_files(&control.ok_or(DebError::Missing("control.tar"))?)?;
    let mut control = files.get("control").cloned().ok_or(DebError::Missing("control file"))?;
    control.truncate(control.trim_end().len());
    control.push('\n');
    let name = control.lines().find_map(|line| line.strip_prefix("Package:")).unwrap_or_default().trim().to_owned();
    let lines = |file: &str| files.get(file).map(|text| text.lines().map(str::to_owned).collect());
    Ok(Deb {
        name,
        scripts: SCRIPTS.iter().filter(|script| files.contains_key(**script)).map(|s| (*s).to_owned()).collect(),
        conffiles: lines("conffiles").unwrap_or_default(),
        control,
        tree: tree.ok_or(DebError::Missing("data.tar"))?,
    })
}

/// Name and length of the next member; `None` at the end. Names stand in the header itself (deb(5)): the long names of
/// other ar archives would have to be read into memory, however long they say they are.
fn next_member(outer: &mut impl Read) -> Result<Option<(String, u64)>, DebError> {
    let mut header = Vec::with_capacity(60);
    Read::take(&mut *outer, 60).read_to_end(&mut header)?;
    if header.is_empty() {
        return Ok(None);
    }
    let broken = || io::Error::new(io::ErrorKind::InvalidData, "a member's header is broken");
    if header.len() != 60 || &header[58..] != AR_END {
        return Err(broken().into());
    }
    let field = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let size = field(&header[48..58]).parse().map_err(|_| broken())?;
    Ok(Some((field(&header[..16]).trim_end_matches('/').to_owned(), size)))
}

fn decompressed<'a>(name: &str, reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>, DebError> {
    Ok(match name.rsplit_once(".tar").map(|(_, extension)| extension) {
        Some(".xz") => {
            let stream = xz2::stream::Stream::new_stream_decoder(MAXIMUM_XZ_MEMORY, xz2::stream::CONCATENATED);
            Box::new(xz2::read::XzDecoder::new_stream(reader, stream.map_err(io::Error::from)?))
        }
        Some(".zst") => Box::new(zstd::Decoder::new(reader)?),
        Some(".gz") => Box::new(flate2::read::MultiGzDecoder::new(reader)),
        Some("") => Box::new(reader),
        _ => return Err(DebError::Compression(name.to_owned())),
    })
}

fn control_files(tree: &Tree) -> Result<BTreeMap<String, String>, DebError> {
    let mut files = BTreeMap::new();
    for (path, node) in tree.iter() {
        if let Node::File(_, content) = node {
            files.insert(path.to_owned(), String::from_utf8_lossy(&content.to_vec()?).into_owned());
        }
    }
    Ok(files)
}

/// Where a file of a package goes: as it says, unless it is documentation.
fn keep(path: &str) -> Option<String> {
    let relative = path.trim_start_matches("./");
    let documentation = relative
        .strip_prefix("usr/share/doc/")
        .and_then(|rest| rest.split_once('/'))
        .is_some_and(|(_, file)| !file.is_empty() && file != "copyright");
    let out = documentation || LEFT_OUT.iter().any(|prefix| relative.starts_with(prefix) && relative != *prefix);
    (!out).then(|| relative.to_owned()).filter(|path| !path.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{tree::Meta, write_tar::write_tar};

    fn tar(files: &[(&str, &str)]) -> Vec<u8> {
        let mut tree = Tree::new();
        for (path, text) in files {
            tree.insert(path, Node::File(Meta::root(0o4755), crate::Content::bytes(text.as_bytes()))).unwrap();
        }
        let mut bytes = Vec::new();
        write_tar(&tree, &mut bytes).unwrap();
        bytes
    }

    fn package(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut builder = ar::Builder::new(Vec::new());
        for (name, bytes) in members {
            builder.append(&ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64), &bytes[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    #[test]
    fn a_package_keeps_its_modes_and_tells_which_scripts_were_not_run() {
        let control = tar(&[("control", "Package: sudo\nVersion: 1\n\n"), ("postinst", "#!/bin/sh"), ("md5sums", "")]);
        let data = tar(&[
            ("usr/bin/sudo", "elf"),
            ("usr/share/doc/sudo/copyright", "free"),
            ("usr/share/doc/sudo/NEWS.gz", "long"),
            ("usr/share/man/man8/sudo.8.gz", "long"),
        ]);
        let data = zstd::encode_all(&data[..], 3).unwrap();
        let bytes = package(&[("debian-binary", b"2.0\n".to_vec()), ("control.tar", control), ("data.tar.zst", data)]);
        let deb = read_deb(&bytes[..], &mut MemorySink).unwrap();
        assert_eq!((deb.name.as_str(), deb.control.as_str()), ("sudo", "Package: sudo\nVersion: 1\n"));
        assert_eq!(deb.scripts, ["postinst"]);
        assert!(matches!(deb.tree.get("usr/bin/sudo"), Some(Node::File(Meta { mode: 0o4755, .. }, _))));
        let files: Vec<_> =
            deb.tree.iter().filter(|(_, node)| matches!(node, Node::File(..))).map(|(path, _)| path).collect();
        assert_eq!(files, ["usr/bin/sudo", "usr/share/doc/sudo/copyright"]);
    }

    #[test]
    fn half_a_package_is_refused() {
        let bytes = package(&[("control.tar", tar(&[("control", "Package: a\n")])), ("data.tar", tar(&[("a", "b")]))]);
        for cut in [20, 700, bytes.len() - 1300] {
            assert!(read_deb(&bytes[..cut], &mut MemorySink).is_err(), "cut at {cut}");
        }
    }
}
