//! [`inspect_layer`]: a layer that somebody else made, read through once without unpacking it anywhere.
//!
//! Bases go to an engine as they are, so this refuses only what no honest layer has: names and links that leave the
//! root, more entries or bytes than the declared bounds, a tar or compression that does not end. It is not
//! [`crate::read_tar`], which makes a tree and so must refuse devices and whatever a tree cannot hold.

use std::{
    collections::BTreeMap,
    io::{self, BufRead, Read},
};

use tar::EntryType;

use crate::{
    compress::unpacked,
    digest::{Algorithm, Digest, Hasher},
    fence::{Fence, MAXIMUM_EXTENDED, NextError},
    read_tar::{MAXIMUM_ENTRIES, MAXIMUM_UNPACKED},
};

/// No honest layer unpacks to more than so many times its size: text compresses to a tenth, zeros alone to a
/// thousandth.
pub const MAXIMUM_RATIO: u64 = 200;
/// Layers that unpack to less are not measured: a small file of zeros is no bomb.
pub const MEASURED_FROM: u64 = 256 << 20;

/// More links on the way to one entry are a circle (Linux: `MAXSYMLINKS`).
const MAXIMUM_FOLLOWED: usize = 40;

/// What a layer turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// SHA-256 of the tar inside.
    pub diff_id: Digest,
    /// Its bytes.
    pub uncompressed: u64,
    /// Its entries.
    pub entries: usize,
}

/// Why a layer is refused.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// Truncated, or not what its media type says.
    #[error("it cannot be unpacked: {0}")]
    Io(#[from] io::Error),
    /// A name or link that leaves the root.
    #[error("its entry {path:?} {why}")]
    Path {
        /// The entry.
        path: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// Beyond the declared bounds.
    #[error("it has more than {0}")]
    TooLarge(String),
}

/// Reads a layer of `size` compressed bytes to its end.
///
/// # Errors
/// [`InspectError`].
pub fn inspect_layer(media_type: &str, size: u64, blob: impl BufRead) -> Result<Inspected, InspectError> {
    let bound = size.saturating_mul(MAXIMUM_RATIO).clamp(MEASURED_FROM, MAXIMUM_UNPACKED);
    let mut counted =
        Counted { inner: unpacked(media_type, blob)?, hash: Hasher::new(Algorithm::Sha256), length: 0, bound };
    let entries = match read_entries(&mut counted) {
        Err(_) if counted.length > bound => return Err(too_many_bytes(bound)),
        other => other?,
    };
    // What follows the end of the archive is hashed, too.
    match io::copy(&mut counted, &mut io::sink()) {
        Err(_) if counted.length > bound => return Err(too_many_bytes(bound)),
        other => other?,
    };
    Ok(Inspected { diff_id: counted.hash.finish(), uncompressed: counted.length, entries })
}

fn too_many_bytes(bound: u64) -> InspectError {
    InspectError::TooLarge(format!("{bound} bytes unpacked, which its size does not account for"))
}

fn read_entries(tar: &mut impl Read) -> Result<usize, InspectError> {
    let (fence, gate) = Fence::new(tar);
    let mut archive = tar::Archive::new(fence);
    let mut links = Links::default();
    let mut count = 0;
    let mut entries = archive.entries()?;
    loop {
        let next = gate.next(&mut entries).map_err(|error| match error {
            NextError::TooLong => {
                InspectError::TooLarge(format!("{MAXIMUM_EXTENDED} bytes of headers before one entry"))
            }
            NextError::Io(error) => error.into(),
        });
        let Some(mut entry) = next? else { return Ok(count) };
        count += 1;
        if count > MAXIMUM_ENTRIES {
            return Err(InspectError::TooLarge(format!("{MAXIMUM_ENTRIES} entries")));
        }
        let kind = entry.header().entry_type();
        if kind == EntryType::XGlobalHeader {
            io::copy(&mut entry, &mut io::sink())?;
            continue;
        }
        let path = shown(&entry.path_bytes());
        let refused = |why| InspectError::Path { path: path.clone(), why };
        let clean = relative(&path).map_err(refused)?;
        let place = links.place(&clean).ok_or_else(|| {
            refused("goes through a link of the same layer that leaves the root, or through a circle of them")
        })?;
        let target = entry.link_name_bytes().map(|name| shown(&name)).unwrap_or_default();
        match kind {
            EntryType::Link => {
                let target = relative(&target).ok().and_then(|target| links.place(&target));
                target.ok_or_else(|| refused("is a hard link that leaves the root"))?;
            }
            EntryType::Symlink => drop(links.0.insert(place, target)),
            _ => drop(links.0.remove(&place)),
        }
        // Broken extended headers would be passed over in silence.
        if let Some(mut records) = entry.pax_extensions()?
            && records.any(|record| record.is_err())
        {
            return Err(refused("has extended records that cannot be read"));
        }
        // Contents, so that they do not count as headers.
        io::copy(&mut entry, &mut io::sink())?;
    }
}

fn shown(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

/// The path without `.` and slashes at its end.
fn relative(path: &str) -> Result<String, &'static str> {
    if path.starts_with('/') {
        return Err("is absolute");
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    if parts.contains(&"..") {
        return Err("has `..` in its name");
    }
    if path.contains('\0') {
        return Err("has a NUL in its name");
    }
    Ok(parts.join("/"))
}

/// Symbolic links of a layer so far: where they are, and what they say.
#[derive(Default)]
struct Links(BTreeMap<String, String>);

impl Links {
    /// Where an entry is once the links on the way to it are followed, as whoever unpacks it follows them; `None` when they
    /// climb above the root, or lead in circles. Absolute ones start at the image's own root.
    fn place(&self, path: &str) -> Option<String> {
        let mut folders = path.match_indices('/').map(|(at, _)| &path[..at]);
        if self.0.is_empty() || !folders.any(|folder| self.0.contains_key(folder)) {
            return Some(path.to_owned());
        }
        let mut place = String::new();
        let mut left: Vec<&str> = path.split('/').rev().collect();
        let mut followed = 0;
        while let Some(part) = left.pop() {
            match part {
                "" | "." => {}
                ".." if place.is_empty() => return None,
                ".." => place.truncate(place.rfind('/').unwrap_or(0)),
                name => {
                    let folder = place.len();
                    if folder > 0 {
                        place.push('/');
                    }
                    place.push_str(name);
                    // The entry itself is replaced, not followed.
                    let Some(target) = self.0.get(&place).filter(|_| !left.is_empty()) else { continue };
                    followed += 1;
                    if followed > MAXIMUM_FOLLOWED {
                        return None;
                    }
                    place.truncate(if target.starts_with('/') { 0 } else { folder });
                    left.extend(target.split('/').rev());
                }
            }
        }
        Some(place)
    }
}

/// Hashes and counts what is read, and stops at a bound.
struct Counted<R> {
    inner: R,
    hash: Hasher,
    length: u64,
    bound: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.hash.update(&buffer[..read]);
        self.length += read as u64;
        if self.length > self.bound {
            return Err(io::Error::other("too many bytes"));
        }
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write as _};

    use super::*;
    use crate::{
        compress::Compression,
        layer::write_layer,
        tree::{Node, Tree},
    };

    const TAR: &str = "application/vnd.oci.image.layer.v1.tar";
    const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

    /// A tar whose names are written as they are given.
    fn tar(entries: &[(EntryType, &str, &str)]) -> Vec<u8> {
        let mut builder = tar::Builder::new(Vec::new());
        for (kind, name, link) in entries {
            let mut header = tar::Header::new_gnu();
            header.set_entry_type(*kind);
            let raw = header.as_old_mut();
            raw.name[..name.len()].copy_from_slice(name.as_bytes());
            raw.linkname[..link.len()].copy_from_slice(link.as_bytes());
            header.set_size(0);
            header.set_mode(0o644);
            header.set_cksum();
            builder.append(&header, &b""[..]).unwrap();
        }
        builder.into_inner().unwrap()
    }

    fn inspected(entries: &[(EntryType, &str, &str)]) -> Result<Inspected, String> {
        let bytes = tar(entries);
        inspect_layer(TAR, bytes.len() as u64, &bytes[..]).map_err(|error| error.to_string())
    }

    #[test]
    fn an_honest_layer_is_what_its_maker_says() {
        let mut tree = Tree::new();
        tree.insert("usr/bin/app", Node::file(0o755, "elf")).unwrap();
        tree.insert("bin", Node::Symlink("usr/bin".into())).unwrap();
        for compression in [Compression::Zstd, Compression::Gzip] {
            let (blob, layer) = write_layer(&tree, compression, Vec::new()).unwrap();
            let found = inspect_layer(&layer.media_type, layer.size, &blob[..]).unwrap();
            assert_eq!((found.diff_id, found.uncompressed), (layer.diff_id, layer.uncompressed));
        }
    }

    #[test]
    fn what_real_layers_have_is_let_through() {
        let real = [
            (EntryType::Directory, "./", ""),
            (EntryType::Directory, "./usr/", ""),
            (EntryType::Symlink, "etc/mtab", "/proc/mounts"),
            (EntryType::Symlink, "usr/lib/x", "../../opt/x"),
            (EntryType::Regular, "usr/.wh.old", ""),
            (EntryType::Char, "dev/null", ""),
            (EntryType::Link, "usr/bin/perl", "usr/bin/perl5.36"),
            (EntryType::Symlink, "top", "../etc/passwd"),
        ];
        assert_eq!(inspected(&real).unwrap().entries, real.len());
    }

    #[test]
    fn names_and_links_that_leave_the_root_are_refused() {
        for (bad, word) in [
            (vec![(EntryType::Regular, "../etc/passwd", "")], "`..`"),
            (vec![(EntryType::Regular, "a/../../b", "")], "`..`"),
            (vec![(EntryType::Regular, "/etc/passwd", "")], "absolute"),
            (vec![(EntryType::Link, "a", "../../etc/passwd")], "hard link"),
            (vec![(EntryType::Link, "a", "/etc/passwd")], "hard link"),
            (vec![(EntryType::Symlink, "a", "../.."), (EntryType::Regular, "a/etc/passwd", "")], "through a link"),
            // By way of another.
            (
                vec![
                    (EntryType::Symlink, "b", "../.."),
                    (EntryType::Symlink, "a", "b"),
                    (EntryType::Regular, "a/etc/passwd", ""),
                ],
                "through a link",
            ),
            // Where a folder is a link into a folder, what is written there is elsewhere.
            (
                vec![
                    (EntryType::Symlink, "a", "deep/er"),
                    (EntryType::Symlink, "a/b", "../../.."),
                    (EntryType::Regular, "deep/er/b/x", ""),
                ],
                "through a link",
            ),
            (vec![(EntryType::Symlink, "b", "../.."), (EntryType::Link, "x", "b/etc/passwd")], "hard link"),
            (
                vec![(EntryType::Symlink, "a", "b"), (EntryType::Symlink, "b", "a"), (EntryType::Regular, "a/x", "")],
                "circle",
            ),
        ] {
            let error = inspected(&bad).unwrap_err();
            assert!(error.contains(word) && error.contains(bad[bad.len() - 1].1), "{error}");
        }
    }

    #[test]
    fn links_within_the_root_are_followed() {
        let fine = [
            (EntryType::Symlink, "lib", "usr/lib"),
            (EntryType::Symlink, "usr/lib/x", "../../opt"),
            (EntryType::Regular, "lib/x/app", ""),
            (EntryType::Symlink, "var/run", "/run"),
            (EntryType::Regular, "var/run/app.pid", ""),
            (EntryType::Link, "again", "lib/x/app"),
            // Replaced by a folder, it leads nowhere any more.
            (EntryType::Symlink, "out", "../.."),
            (EntryType::Directory, "out", ""),
            (EntryType::Regular, "out/in", ""),
        ];
        assert_eq!(inspected(&fine).unwrap().entries, fine.len());
    }

    #[test]
    fn names_without_end_are_refused_before_they_fill_memory() {
        let mut name = tar::Header::new_gnu();
        name.set_entry_type(EntryType::GNULongName);
        name.set_size(240 << 20);
        name.set_cksum();
        let layer = [tar(&[(EntryType::Regular, "first", "")])[..512].to_vec(), name.as_bytes().to_vec()].concat();
        let endless = BufReader::new(io::Cursor::new(layer).chain(io::repeat(b'a')));
        let error = inspect_layer(TAR, u64::MAX, endless).unwrap_err();
        assert!(matches!(&error, InspectError::TooLarge(what) if what.contains("headers")), "{error}");
    }

    #[test]
    fn a_bomb_is_refused_before_it_is_unpacked_whole() {
        // A gigabyte of zeros in one entry, as a megabyte of gzip.
        let mut header = tar::Header::new_gnu();
        header.set_path("zeros").unwrap();
        header.set_size(1 << 30);
        header.set_cksum();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
        gzip.write_all(header.as_bytes()).unwrap();
        let zeros = vec![0; 1 << 20];
        (0..1 << 10).for_each(|_| gzip.write_all(&zeros).unwrap());
        let bomb = gzip.finish().unwrap();
        let error = inspect_layer(GZIP, bomb.len() as u64, &bomb[..]).unwrap_err();
        assert!(matches!(error, InspectError::TooLarge(_)), "{error}");
    }

    #[test]
    fn a_million_entries_and_one_are_refused() {
        let one = tar(&[(EntryType::Regular, "a", "")]);
        let entry = one[..512].to_vec();
        let many = Repeated { entry, left: (MAXIMUM_ENTRIES + 1) * 512 };
        let error = inspect_layer(TAR, u64::MAX, BufReader::new(many)).unwrap_err();
        assert!(matches!(&error, InspectError::TooLarge(what) if what.contains("entries")), "{error}");
    }

    /// One entry's header, again and again.
    struct Repeated {
        entry: Vec<u8>,
        left: usize,
    }

    impl Read for Repeated {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let from = (self.entry.len() - self.left % self.entry.len()) % self.entry.len();
            let count = buffer.len().min(self.left).min(self.entry.len() - from);
            buffer[..count].copy_from_slice(&self.entry[from..from + count]);
            self.left -= count;
            Ok(count)
        }
    }

    #[test]
    fn half_a_layer_is_not_one() {
        let mut tree = Tree::new();
        tree.insert("a", Node::file(0o644, vec![7; 100_000])).unwrap();
        let (blob, layer) = write_layer(&tree, Compression::Gzip, Vec::new()).unwrap();
        let half = &blob[..blob.len() / 2];
        assert!(matches!(inspect_layer(&layer.media_type, layer.size, half), Err(InspectError::Io(_))));
    }
}
