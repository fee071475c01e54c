//! Archives that try to leave the root, lie about themselves or have no end are refused, and the entry is named.

use std::io::{Cursor, Read, Write};

use fleet_oci::{
    MemorySink, Node, Tree,
    deb::{DebError, read_deb},
    fence::MAXIMUM_EXTENDED,
    lock::NpmPin,
    npm,
    read_tar::{MAXIMUM_ENTRIES, MAXIMUM_UNPACKED, Modes, ReadTarError, read_tar},
    tree::MAXIMUM_PATH_LENGTH,
    wheel,
};
use tar::EntryType::{self, Block, Char, Directory, Fifo, Link, Regular, Symlink};

use crate::raw_tar::{archive, entry, header};

fn read(bytes: impl Read) -> Result<Tree, ReadTarError> {
    read_tar(bytes, Modes::Kept, &mut MemorySink, |path| Some(path.to_owned()))
}

/// The archive is refused, in words that hold all of these.
#[track_caller]
fn refused(entries: &[Vec<u8>], words: &[&str]) {
    let error = read(&archive(entries)[..]).expect_err("it was unpacked").to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
}

fn file(name: &str, content: &str) -> Vec<u8> {
    entry(name, Regular, "", content.as_bytes())
}

/// An entry whose long name stands in a GNU record before it.
fn long(kind: EntryType, value: &[u8], then: Vec<u8>) -> Vec<u8> {
    let mut gnu = tar::Header::new_gnu();
    gnu.set_size(value.len() as u64);
    gnu.set_entry_type(kind);
    gnu.set_cksum();
    let mut bytes = gnu.as_bytes().to_vec();
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    [bytes, then].concat()
}

#[test]
fn paths_that_leave_the_root_are_refused_by_name() {
    refused(&[file("a", ""), file("/etc/passwd", "x")], &["\"/etc/passwd\"", "absolute"]);
    refused(&[file("a/../../b", "x")], &["\"a/../../b\"", "`..`"]);
    refused(&[entry("../", Directory, "", b"")], &["\"../\"", "`..`"]);
    refused(&[entry("./..", Directory, "", b"")], &["`..`"]);
}

#[test]
fn links_that_leave_the_root_are_refused_by_name() {
    refused(&[entry("a/b", Symlink, "../../etc", b"")], &["\"a/b\"", "\"../../etc\"", "leads out"]);
    refused(&[entry("up", Symlink, "..", b""), file("up/x", "")], &["\"up\"", "leads out"]);
    refused(&[file("a", ""), entry("b", Link, "../a", b"")], &["\"b\"", "`..`"]);
    refused(&[file("a", ""), entry("b", Link, "/a", b"")], &["\"b\"", "absolute"]);
    refused(&[entry("b", Link, "nothing", b"")], &["\"b\"", "nothing", "not a file"]);
    // Absolute targets start at the image's root: /etc/alternatives is full of them.
    let kept = read(&archive(&[entry("bin/awk", Symlink, "/etc/alternatives/awk", b"")])[..]).unwrap();
    assert_eq!(kept.get("bin/awk"), Some(&Node::Symlink("/etc/alternatives/awk".into())));
}

#[test]
fn a_file_written_through_a_link_stays_in_the_root_or_is_refused() {
    refused(&[entry("loop", Symlink, "loop", b""), file("loop/x", "")], &["\"loop/x\"", "circle"]);
    refused(&[file("a", ""), file("a/b", "")], &["\"a/b\"", "is a file"]);
}

#[test]
fn devices_are_refused_by_name() {
    for (kind, words) in [(Char, "character device"), (Block, "block device"), (Fifo, "named pipe")] {
        refused(&[file("a", ""), entry("dev/null", kind, "", b"")], &["\"dev/null\"", words]);
    }
    refused(&[entry("odd", EntryType::new(b'Z'), "", b"")], &["\"odd\"", "not known"]);
}

#[test]
fn two_entries_for_one_path_must_say_the_same() {
    refused(&[file("a", "one"), file("./a", "two")], &["\"./a\"", "twice"]);
    refused(&[file("a", "one"), entry("a", Symlink, "b", b"")], &["\"a\"", "twice"]);
    refused(&[entry("a", Symlink, "b", b""), file("a", "one")], &["\"a\"", "twice"]);
    refused(&[file("a", "one"), entry("a/", Directory, "", b"")], &["\"a/\"", "a file"]);
    refused(&[entry("a/", Directory, "", b""), file("a", "one")], &["\"a\"", "twice"]);
    // Through a link, too: both are usr/lib/x.
    let linked = [entry("lib", Symlink, "usr/lib", b""), file("usr/lib/x", "one"), file("lib/x", "two")];
    refused(&linked, &["\"lib/x\"", "twice"]);
    let tree = read(&archive(&[file("a", "one"), file("a", "one")])[..]).unwrap();
    assert_eq!(tree.len(), 1);
}

#[test]
fn names_and_targets_have_bounds() {
    let path = "a/".repeat(MAXIMUM_PATH_LENGTH / 2) + "b";
    refused(&[long(EntryType::GNULongName, path.as_bytes(), file("x", ""))], &["4096 bytes"]);
    let name = "n".repeat(256);
    refused(&[long(EntryType::GNULongName, name.as_bytes(), file("x", ""))], &["255 bytes"]);
    let target = "t/".repeat(MAXIMUM_PATH_LENGTH / 2) + "b";
    refused(&[long(EntryType::GNULongLink, target.as_bytes(), entry("l", Symlink, "", b""))], &["\"l\"", "4096 bytes"]);
}

#[test]
fn headers_without_end_are_refused_before_they_fill_memory() {
    let mut gnu = tar::Header::new_gnu();
    gnu.set_size(u64::MAX / 2);
    gnu.set_entry_type(EntryType::GNULongName);
    gnu.set_cksum();
    let endless = Cursor::new([file("first", ""), gnu.as_bytes().to_vec()].concat()).chain(std::io::repeat(b'a'));
    let error = read(endless).expect_err("it was unpacked");
    assert!(matches!(&error, ReadTarError::TooLarge { entry, .. } if entry.contains("first")), "{error}");
    // As many as are allowed are read.
    let records = format!("{} comment={}\n", 1_000_000, "c".repeat(1_000_000 - 17));
    assert!((records.len() as u64) < MAXIMUM_EXTENDED);
    let pax = entry("pax", EntryType::XHeader, "", records.as_bytes());
    assert_eq!(read(&archive(&[pax, file("a", "")])[..]).unwrap().len(), 1);
}

#[test]
fn a_size_that_nobody_has_is_refused_before_it_is_unpacked() {
    let mut bomb = tar::Header::new_gnu();
    bomb.set_size(MAXIMUM_UNPACKED + 1);
    bomb.as_gnu_mut().unwrap().name[..4].copy_from_slice(b"bomb");
    bomb.set_cksum();
    let endless = Cursor::new(bomb.as_bytes().to_vec()).chain(std::io::repeat(0));
    let error = read(endless).expect_err("it was unpacked");
    assert!(matches!(&error, ReadTarError::TooLarge { bound: "16 GiB of files", entry } if entry == "bomb"), "{error}");
    // Several whose sum overflows.
    let half = |name: &str| header(name, Regular, "", 0o77_777_777_777);
    let error = read(Cursor::new([half("a"), half("b")].concat())).expect_err("it was unpacked");
    assert!(matches!(error, ReadTarError::Io(_)), "truncated: {error}");
}

/// A tar of empty folders that never ends, 512 bytes at a time.
struct Folders {
    made: usize,
    block: Cursor<Vec<u8>>,
}

impl Read for Folders {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.block.read(buffer)?;
        if read > 0 {
            return Ok(read);
        }
        self.made += 1;
        self.block = Cursor::new(header(&format!("d{}", self.made), Directory, "", 0));
        self.block.read(buffer)
    }
}

#[test]
fn a_million_entries_are_enough() {
    let endless = Folders { made: 0, block: Cursor::new(Vec::new()) };
    let error = read_tar(endless, Modes::Kept, &mut MemorySink, |_| None).expect_err("it was unpacked");
    let beyond = format!("d{}", MAXIMUM_ENTRIES + 1);
    assert!(
        matches!(&error, ReadTarError::TooLarge { bound: "1,000,000 entries", entry } if *entry == beyond),
        "{error}"
    );
}

#[test]
fn an_npm_package_cannot_write_beside_itself() {
    let pin = NpmPin { path: "node_modules/p".into(), ..NpmPin::default() };
    for bad in ["/package/x", "package/../../x", "../x"] {
        let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        zip.write_all(&archive(&[file("package/a", ""), file(bad, "")])).unwrap();
        let error =
            npm::unpack(&zip.finish().unwrap()[..], "/opt", &pin, &mut MemorySink).expect_err("it was unpacked");
        assert!(error.to_string().contains(bad), "{error}");
    }
}

fn deb(members: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let mut builder = ar::Builder::new(Vec::new());
    for (name, bytes) in members {
        builder.append(&ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64), &bytes[..]).unwrap();
    }
    builder.into_inner().unwrap()
}

#[test]
fn a_debian_package_that_contradicts_itself_is_refused() {
    let control = || ("control.tar", archive(&[file("control", "Package: a\n")]));
    let data = |name: &str, content: &str| ("data.tar", archive(&[file(name, content)]));
    let both = deb(&[control(), data("a", "one"), data("a", "two")]);
    assert!(matches!(read_deb(&both[..], &mut MemorySink), Err(DebError::Twice(name)) if name == "data.tar"));
    let error = read_deb(&deb(&[control(), data("/etc/shadow", "")])[..], &mut MemorySink).unwrap_err();
    assert!(error.to_string().contains("/etc/shadow"), "{error}");
    // A member that says it is larger than anything is truncated, not allocated.
    let mut lies = deb(&[("debian-binary", b"2.0\n".to_vec())]);
    lies.extend(format!("{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", "data.tar", 0, 0, 0, 644, 9_999_999_999_u64).bytes());
    assert!(read_deb(&lies[..], &mut MemorySink).is_err());
    let names = format!("!<arch>\n{:<16}{:<12}{:<6}{:<6}{:<8}{:<10}`\n", "//", 0, 0, 0, 0, 9_999_999_999_u64);
    assert!(read_deb(names.as_bytes(), &mut MemorySink).is_err());
}

#[test]
fn xz_that_asks_for_gigabytes_is_refused() {
    let data = archive(&[file("a", "one")]);
    let mut xz = xz2::write::XzEncoder::new(Vec::new(), 0);
    xz.write_all(&data).unwrap();
    let mut xz = xz.finish().unwrap();
    let package =
        |xz: &[u8]| deb(&[("control.tar", archive(&[file("control", "Package: a\n")])), ("data.tar.xz", xz.to_vec())]);
    read_deb(&package(&xz)[..], &mut MemorySink).unwrap();
    // The block's header follows the stream's 12 bytes: its length / 4 - 1, flags, LZMA2, 1 byte, the dictionary's size.
    let end = 12 + (usize::from(xz[12]) + 1) * 4;
    assert_eq!(xz[14..16], [0x21, 1]);
    xz[16] = 38; // 2 GiB
    let mut crc = flate2::Crc::new();
    crc.update(&xz[12..end - 4]);
    xz[end - 4..end].copy_from_slice(&crc.sum().to_le_bytes());
    let error = read_deb(&package(&xz)[..], &mut MemorySink).unwrap_err();
    assert!(error.to_string().contains("memory"), "{error}");
}

#[test]
fn a_wheel_cannot_leave_its_environment() {
    for bad in ["/etc/passwd", "../../x", "pkg/../../../x"] {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        zip.start_file(bad, zip::write::SimpleFileOptions::default()).unwrap();
        let bytes = zip.finish().unwrap().into_inner();
        let error = wheel::unpack(Cursor::new(bytes), "/opt/s", "3.11", &mut MemorySink).expect_err("it was unpacked");
        assert!(error.to_string().contains(bad), "{error}");
    }
}
