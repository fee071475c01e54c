//! [`unpack`]: an archive of any common kind below a folder: tar, plain or with gzip, xz or zstd, or zip.
//!
//! What it is tells its first bytes, not its name: where it was fetched is no part of what it is.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

use crate::{
    content::ContentSink,
    npm::relative,
    read_tar::{MAXIMUM_ENTRIES, MAXIMUM_UNPACKED, Modes, ReadTarError, read_tar},
    tree::{Meta, Node, Tree, clean, stays_within},
};

/// The longest target of a symbolic link in a zip, in bytes (`PATH_MAX`).
const MAXIMUM_LINK: u64 = 4096;

/// Why an archive is refused.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// None of the kinds that are known.
    #[error("it is neither a tar (plain, gzip, xz, zstd) nor a zip; drop unpack=#true to keep it as a file")]
    Kind,
    /// What a tar holds, or a zip: refused for the same reasons.
    #[error(transparent)]
    Tar(#[from] ReadTarError),
    /// A zip.
    #[error("the zip cannot be read: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// A content cannot be read or kept.
    #[error("the archive cannot be read: {0}")]
    Io(#[from] io::Error),
}

/// Unpacks below the folder `to`; of modes only the execute bit is kept.
///
/// # Errors
/// [`UnpackError`].
pub fn unpack(mut archive: impl Read + Seek, to: &str, sink: &mut dyn ContentSink) -> Result<Tree, UnpackError> {
    let mut start = Vec::new();
    archive.by_ref().take(512).read_to_end(&mut start)?;
    archive.seek(SeekFrom::Start(0))?;
    let archive = BufReader::new(archive);
    let tar: Box<dyn Read> = match start.as_slice() {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(archive)),
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => Box::new(xz2::bufread::XzDecoder::new_multi_decoder(archive)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::Decoder::with_buffer(archive)?),
        [b'P', b'K', 3, 4, ..] => return unzip(archive, to, sink),
        plain if plain.get(257..262) == Some(b"ustar") => Box::new(archive),
        _ => return Err(UnpackError::Kind),
    };
    Ok(read_tar(tar, Modes::FromXBit, sink, |path| Some(format!("{}/{path}", relative(to))))?)
}

fn unzip(archive: impl Read + Seek, to: &str, sink: &mut dyn ContentSink) -> Result<Tree, UnpackError> {
    let mut archive = zip::ZipArchive::new(archive)?;
    if archive.len() > MAXIMUM_ENTRIES {
        return Err(ReadTarError::TooLarge { bound: "1,000,000 entries", entry: String::new() }.into());
    }
    let mut tree = Tree::new();
    let mut unpacked = 0;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        unpacked += entry.size();
        let name = entry.name()?.into_owned();
        if unpacked > MAXIMUM_UNPACKED {
            return Err(ReadTarError::TooLarge { bound: "16 GiB", entry: name }.into());
        }
        let refused = |source| ReadTarError::Entry { entry: name.clone(), source };
        let path = format!("{}/{}", relative(to), clean(&name).map_err(refused)?);
        let node = if entry.is_dir() {
            Node::Dir(Meta::from_x_bit(true))
        } else if entry.is_symlink() {
            let mut target = String::new();
            entry.by_ref().take(MAXIMUM_LINK).read_to_string(&mut target)?;
            if !stays_within(&path, &target) {
                return Err(ReadTarError::Leaves { entry: name, target }.into());
            }
            Node::Symlink(target)
        } else {
            let size = entry.size();
            let executable = entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
            Node::File(Meta::from_x_bit(executable), sink.store(&mut entry, size)?)
        };
        tree.insert_once(&path, node).map_err(refused)?;
    }
    Ok(tree)
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;
    use crate::{MemorySink, write_tar::write_tar};

    fn sample() -> Vec<u8> {
        let mut tree = Tree::new();
        tree.insert("tool-1/bin/tool", Node::file(0o775, "elf")).unwrap();
        tree.insert("tool-1/latest", Node::Symlink("bin/tool".into())).unwrap();
        let mut tar = Vec::new();
        write_tar(&tree, &mut tar).unwrap();
        tar
    }

    fn zipped() -> Vec<u8> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default();
        zip.start_file("tool-1/bin/tool", options.unix_permissions(0o775)).unwrap();
        zip.write_all(b"elf").unwrap();
        zip.add_symlink("tool-1/latest", "bin/tool", options).unwrap();
        zip.finish().unwrap().into_inner()
    }

    #[test]
    fn every_kind_of_archive_gives_the_same_files() {
        let tar = sample();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        gzip.write_all(&tar).unwrap();
        let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
        xz.write_all(&tar).unwrap();
        let zstd = zstd::bulk::compress(&tar, 1).unwrap();
        for archive in [tar, gzip.finish().unwrap(), xz.finish().unwrap(), zstd, zipped()] {
            let tree = unpack(Cursor::new(archive), "/opt/tools", &mut MemorySink).unwrap();
            assert_eq!(tree.get("opt/tools/tool-1/bin/tool"), Some(&Node::file(0o755, "elf")));
            assert_eq!(tree.get("opt/tools/tool-1/latest"), Some(&Node::Symlink("bin/tool".into())));
        }
    }

    #[test]
    fn what_is_no_archive_or_climbs_out_is_refused() {
        let refused = |bytes: &[u8]| unpack(Cursor::new(bytes.to_vec()), "/opt", &mut MemorySink);
        assert!(matches!(refused(b"#!/bin/sh\n"), Err(UnpackError::Kind)));
        assert!(matches!(refused(b""), Err(UnpackError::Kind)));
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file("../../etc/passwd", zip::write::SimpleFileOptions::default()).unwrap();
        let zip = zip.finish().unwrap().into_inner();
        assert!(matches!(refused(&zip), Err(UnpackError::Tar(ReadTarError::Entry { .. }))));
        assert!(refused(&sample()[..600]).is_err(), "cut short");
    }
}
