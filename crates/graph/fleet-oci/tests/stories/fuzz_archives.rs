//! Fuzz targets for archives of strangers: tar, Debian packages, npm tarballs, wheels. See `fleet_fuzz::fuzz`.
//!
//! Mutations know the formats: they change one field of a header and put its checksum right again, so that what is
//! behind the checksum is reached.

use std::io::{Cursor, Write as _};

use fleet_fuzz::{Random, fuzz, mutate};
use fleet_oci::{
    Content, MemorySink, Meta, Node, Tree,
    deb::read_deb,
    fence::MAXIMUM_EXTENDED,
    inspect::inspect_layer,
    lock::NpmPin,
    npm,
    read_tar::{Modes, read_tar},
    tree::{clean, stays_within},
    wheel,
    write_tar::write_tar,
};
use tar::EntryType;

use crate::raw_tar::{archive, entry};

/// What the process may grow by: inputs are below 64 KiB, headers are read up to a declared bound, and unpacking needs
/// its windows (xz: 128 MiB at most).
const MEMORY: u64 = (160 << 20) + 16 * MAXIMUM_EXTENDED;

/// Fields of a header: offset, length, and what a liar would put there.
const FIELDS: [(usize, usize, &[&str]); 10] = [
    (0, 100, &["../x", "/etc/passwd", "a/../b", "", "./", "a", "link/x", "\u{1}\u{2}", "a//b/./c"]),
    (100, 8, &["0007777", "9999999", "", "-1", "7777777"]),
    (108, 8, &["0000000", "7777777", "x"]),
    (124, 12, &["00000000000", "00000000001", "77777777777", "-0000000001", "\u{7f}\u{7f}\u{7f}", "00000001000"]),
    (136, 12, &["00000000000", "77777777777"]),
    (156, 1, &["0", "1", "2", "3", "4", "5", "6", "7", "g", "x", "L", "K", "S", "Z"]),
    (157, 100, &["../../x", "/a", "a", "link", "", "a/b"]),
    (257, 8, &["ustar\u{0}00", "ustar  \u{0}", "xxxxxxxx"]),
    (345, 155, &["..", "/", "a/b", ""]),
    (386, 96, &["000000000000000000001000", "77777777777777777777777"]),
];

fn seeds() -> Vec<Vec<u8>> {
    let mut tree = Tree::new();
    let long = format!("{}/{}", "d".repeat(120), "f".repeat(90));
    tree.insert("usr/bin/run", Node::file(0o755, "#!/bin/sh\n")).unwrap();
    tree.insert("usr/bin/walk", Node::Symlink("run".into())).unwrap();
    tree.insert("usr/bin/again", Node::Hardlink("usr/bin/run".into())).unwrap();
    tree.insert(&long, Node::file(0o644, vec![7; 3000])).unwrap();
    tree.insert("ä ö", Node::Dir(Meta { mode: 0o700, uid: u32::MAX, gid: 9 })).unwrap();
    tree.insert("big", Node::File(Meta::root(0o600), Content::bytes(vec![0; 20_000]))).unwrap();
    let mut ours = Vec::new();
    write_tar(&tree, &mut ours).unwrap();
    let foreign = archive(&[
        entry("pax", EntryType::XHeader, "", b"20 path=package/a/b\n26 SCHILY.xattr.user.a=b\n"),
        entry("package/x", EntryType::Regular, "", b"content"),
        entry("././@LongLink", EntryType::GNULongName, "", b"package/a long name\0"),
        entry("package/a", EntryType::Regular, "", b"x"),
        entry("global", EntryType::XGlobalHeader, "", b"20 comment=whatever\n"),
        entry("link", EntryType::Symlink, "package", b""),
        entry("link/under", EntryType::Regular, "", b"y"),
    ]);
    let npm = archive(&[
        entry("package/package.json", EntryType::Regular, "", b"{\"name\":\"a\"}"),
        entry("package/bin/cli.js", EntryType::Regular, "", b"#!/usr/bin/env node"),
    ]);
    vec![ours, foreign, npm]
}

/// One field of one header, or some bytes.
fn mutate_tar(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    if random.below(3) == 0 || bytes.len() < 512 {
        return mutate(random, bytes, other);
    }
    let at = random.below(bytes.len() / 512) * 512;
    let block = &mut bytes[at..at + 512];
    let (offset, length, values) = FIELDS[random.below(FIELDS.len())];
    let value = random.pick(values).as_bytes();
    let field = &mut block[offset..offset + length];
    field.fill(0);
    let taken = value.len().min(length);
    field[..taken].copy_from_slice(&value[..taken]);
    if random.below(4) == 0 {
        field[random.below(length)] = random.next() as u8;
    }
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn mutated_tar(random: &mut Random, seeds: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = random.pick(seeds).clone();
    for _ in 0..=random.below(5) {
        let other = random.pick(seeds);
        mutate_tar(random, &mut bytes, other);
    }
    bytes
}

/// What must hold for every tree that came out of an archive.
fn check(tree: &Tree) {
    for (path, node) in tree.iter() {
        assert_eq!(clean(path).as_deref(), Ok(path), "a path that leaves the root");
        match node {
            Node::Symlink(target) => assert!(stays_within(path, target), "{path} leads out to {target}"),
            Node::Hardlink(target) => assert!(matches!(tree.get(target), Some(Node::File(..))), "{path} dangles"),
            Node::Dir(_) | Node::File(..) => {}
        }
    }
}

#[test]
fn fuzz_tar() {
    let seeds = seeds();
    fuzz("tar archives", Some(MEMORY), |seed| {
        let mut random = Random(seed);
        let bytes = mutated_tar(&mut random, &seeds);
        // As a layer of a base it may have what a tree cannot hold; that it ends, and in bounds, is all that is asked.
        drop(inspect_layer("application/vnd.oci.image.layer.v1.tar", bytes.len() as u64, &bytes[..]));
        let modes = *random.pick(&[Modes::Kept, Modes::FromXBit]);
        let Ok(tree) = read_tar(&bytes[..], modes, &mut MemorySink, |path| Some(path.to_owned())) else { return };
        check(&tree);
        let mut again = Vec::new();
        write_tar(&tree, &mut again).unwrap();
        // What we write, we read; but for the names that no PAX reader of ours takes.
        if !tree
            .iter()
            .any(|(path, node)| path.contains('\n') || matches!(node, Node::Symlink(to) if to.contains('\n')))
        {
            let back = read_tar(&again[..], Modes::Kept, &mut MemorySink, |path| Some(path.to_owned())).unwrap();
            assert!(tree.iter().all(|(path, _)| back.get(path).is_some()));
        }
    });
}

#[test]
fn fuzz_packages() {
    let seeds = seeds();
    let pin = NpmPin {
        path: "node_modules/a".into(),
        bin: [("a".to_owned(), "bin/cli.js".to_owned()), ("b".to_owned(), "../../x".to_owned())].into(),
        ..NpmPin::default()
    };
    let control = archive(&[entry("./control", EntryType::Regular, "", b"Package: a\nVersion: 1\n")]);
    fuzz("packages", Some(MEMORY), |seed| {
        let mut random = Random(seed);
        let tar = mutated_tar(&mut random, &seeds);
        let twice = random.below(2) == 0;
        match random.below(3) {
            0 => {
                let (name, data) = packed(&mut random, tar);
                let members = [("debian-binary", b"2.0\n".to_vec()), ("control.tar", control.clone()), (name, data)];
                let mut builder = ar::Builder::new(Vec::new());
                for (name, bytes) in &members {
                    builder.append(&ar::Header::new(name.as_bytes().to_vec(), bytes.len() as u64), &bytes[..]).unwrap();
                }
                let mut bytes = builder.into_inner().unwrap();
                if twice {
                    mutate(&mut random, &mut bytes, &control);
                }
                if let Ok(deb) = read_deb(&bytes[..], &mut MemorySink) {
                    check(&deb.tree);
                }
            }
            1 => {
                let mut zip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
                zip.write_all(&tar).unwrap();
                let mut bytes = zip.finish().unwrap();
                if twice {
                    mutate(&mut random, &mut bytes, &control);
                }
                if let Ok(tree) = npm::unpack(&bytes[..], "/opt", &pin, &mut MemorySink) {
                    check(&tree);
                    assert!(tree.iter().all(|(path, _)| path.starts_with("opt/node_modules/a")));
                }
            }
            _ => {
                let mut bytes = wheel_seed();
                for _ in 0..=random.below(4) {
                    mutate(&mut random, &mut bytes, &tar);
                }
                if let Ok(tree) = wheel::unpack(Cursor::new(bytes), "/opt/s", "3.11", &mut MemorySink) {
                    check(&tree);
                    assert!(tree.iter().all(|(path, _)| path.starts_with("opt/s/")));
                }
            }
        }
    });
}

fn packed(random: &mut Random, tar: Vec<u8>) -> (&'static str, Vec<u8>) {
    match random.below(4) {
        0 => ("data.tar.zst", zstd::bulk::compress(&tar, 1).unwrap()),
        1 => {
            let mut xz = xz2::write::XzEncoder::new(Vec::new(), 0);
            xz.write_all(&tar).unwrap();
            ("data.tar.xz", xz.finish().unwrap())
        }
        _ => ("data.tar", tar),
    }
}

fn wheel_seed() -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
    let files = [
        ("pkg/__init__.py", "x = 1"),
        ("pkg-1.data/scripts/old", "#!python -E\nprint()"),
        ("pkg-1.dist-info/entry_points.txt", "[console_scripts]\nrun = pkg.main:App.run [x]\n../up = a:b\n"),
    ];
    for (path, text) in files {
        zip.start_file(path, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(text.as_bytes()).unwrap();
    }
    zip.finish().unwrap().into_inner()
}
