//! Any tree that can be made comes back from tar as it was, whatever its names are (but for line feeds, which the
//! reader refuses).

use std::io::Read;

use fleet_oci::{
    Compression, Content, Digest, LayerDescriptor, MemorySink, Meta, Node, Tree,
    compress::unpacked,
    layer::write_layer,
    read_tar::{Modes, ReadTarError, read_tar},
    write_tar::{MTIME, write_tar, write_tar_at},
};
use proptest::{collection::vec, prelude::*};

fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => "[a-c]{1,2}",
        2 => "[ -.0-~]{1,12}",
        2 => "[^/\\x00\n]{1,10}",
        1 => "[a-z]{90,130}",
    ]
    .prop_filter("`.` and `..` are not names", |name| name != "." && name != "..")
}

fn path() -> impl Strategy<Value = String> {
    prop_oneof![
        6 => vec(name(), 1..5),
        // Longer than what the name and prefix fields of a header hold.
        1 => vec("[a-zä ]{60,130}", 3..6),
    ]
    .prop_map(|names| names.join("/"))
}

fn meta() -> impl Strategy<Value = Meta> {
    (0..=0o7777_u32, prop_oneof![Just(0), any::<u32>()], prop_oneof![Just(0), any::<u32>()])
        .prop_map(|(mode, uid, gid)| Meta { mode, uid, gid })
}

fn node() -> impl Strategy<Value = Node> {
    let content = prop_oneof![
        2 => Just(Vec::new()),
        4 => vec(any::<u8>(), 1..1500),
        // What file systems keep as holes.
        1 => (4096..100_000_usize).prop_map(|zeros| vec![0; zeros]),
    ];
    prop_oneof![
        4 => (meta(), content).prop_map(|(meta, bytes)| Node::File(meta, Content::bytes(bytes))),
        2 => meta().prop_map(Node::Dir),
        1 => "[^\\x00\n]{1,150}".prop_map(Node::Symlink),
        2 => path().prop_map(Node::Hardlink),
    ]
}

/// A tree of whatever of these nodes fits together.
fn tree() -> impl Strategy<Value = Tree> {
    vec((path(), node()), 0..40).prop_map(|nodes| {
        let mut tree = Tree::new();
        for (path, node) in nodes {
            // A blocked path or a dangling link is refused, and the tree stays as it was.
            let _ = tree.insert(&path, node);
        }
        // What a link names may have been replaced since; readers refuse a link to nothing.
        let links = tree.iter().filter(|(path, node)| matches!(node, Node::Hardlink(_)) && file(&tree, path).is_none());
        for path in links.map(|(path, _)| path.to_owned()).collect::<Vec<_>>() {
            tree.prune(&path);
        }
        tree
    })
}

/// What a path holds when it is a file under any of its names.
fn file<'a>(tree: &'a Tree, path: &str) -> Option<(Meta, &'a Content)> {
    match tree.get(path)? {
        Node::File(meta, content) => Some((*meta, content)),
        Node::Hardlink(target) => file(tree, target),
        Node::Dir(_) | Node::Symlink(_) => None,
    }
}

fn tar(tree: &Tree) -> Vec<u8> {
    let mut bytes = Vec::new();
    write_tar(tree, &mut bytes).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(400) })]

    #[test]
    fn a_tree_comes_back_from_tar_as_it_was(tree in tree()) {
        let bytes = tar(&tree);
        prop_assert_eq!(bytes.len() % 512, 0);
        let back = read_tar(&bytes[..], Modes::Kept, &mut MemorySink, |path| Some(path.to_owned())).unwrap();
        for (path, node) in tree.iter() {
            match node {
                Node::File(..) | Node::Hardlink(_) => prop_assert_eq!(file(&back, path), file(&tree, path), "{:?}", path),
                Node::Dir(_) | Node::Symlink(_) => prop_assert_eq!(back.get(path), Some(node), "{:?}", path),
            }
        }
        for (path, node) in back.iter().filter(|(path, _)| tree.get(path).is_none()) {
            prop_assert!(matches!(node, Node::Dir(_)) && tree.below(path).next().is_some(), "{:?} came from nowhere", path);
        }
        // Written again, parents that were implied are declared: the bytes do not change.
        prop_assert!(tar(&back) == bytes);
    }

    /// Entry by entry as another reader sees them, each parent before what it holds and every link after its file.
    #[test]
    fn another_reader_finds_every_entry_as_it_was(tree in tree()) {
        let bytes = tar(&tree);
        let mut seen = std::collections::BTreeSet::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = String::from_utf8(entry.path_bytes().to_vec()).unwrap().trim_end_matches('/').to_owned();
            if let Some((parent, _)) = path.rsplit_once('/') {
                prop_assert!(seen.contains(parent), "{:?} comes before its folder", path);
            }
            let link = entry.link_name_bytes().map(|name| String::from_utf8(name.to_vec()).unwrap());
            let (kind, size) = (entry.header().entry_type(), entry.size());
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            prop_assert_eq!(entry.header().mtime().unwrap(), MTIME);
            let meta = Meta {
                mode: entry.header().mode().unwrap(),
                uid: entry.header().uid().unwrap() as u32,
                gid: entry.header().gid().unwrap() as u32,
            };
            match kind {
                tar::EntryType::Regular => {
                    let expected = file(&tree, &path).map(|(meta, content)| (meta, content.to_vec().unwrap()));
                    prop_assert_eq!(expected, Some((meta, content)), "{:?}", path);
                }
                tar::EntryType::Link => {
                    let first = link.unwrap();
                    prop_assert!(size == 0 && seen.contains(&first), "{:?} comes before its file", path);
                    prop_assert_eq!(file(&tree, &path), file(&tree, &first));
                }
                tar::EntryType::Symlink => prop_assert_eq!(tree.get(&path), Some(&Node::Symlink(link.unwrap()))),
                tar::EntryType::Directory => prop_assert!(tree.get(&path).is_none_or(|node| *node == Node::Dir(meta))),
                other => prop_assert!(false, "{:?} is of type {:?}", path, other),
            }
            prop_assert!(seen.insert(path), "an entry comes twice");
        }
        prop_assert!(tree.iter().all(|(path, _)| seen.contains(path)));
    }

    #[test]
    fn the_order_of_insertion_does_not_change_a_byte(files in proptest::collection::btree_map(path(), meta(), 1..20)) {
        let mut forth = Tree::new();
        for (path, meta) in &files {
            let _ = forth.insert(path, Node::File(*meta, Content::bytes(path.as_bytes())));
        }
        let mut back = Tree::new();
        for (path, node) in forth.iter().collect::<Vec<_>>().into_iter().rev() {
            back.insert(path, node.clone()).unwrap();
        }
        prop_assert!(tar(&forth) == tar(&back));
    }
}

/// GNU tar writes the holes of a file as a map; read back, they are zeros again.
#[test]
fn a_sparse_file_comes_back_whole() {
    let folder = tempfile::tempdir().unwrap();
    let file = std::fs::File::create(folder.path().join("holes")).unwrap();
    file.set_len(9_000_000).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"in the middle", 4_000_000).unwrap();
    let output = std::process::Command::new("tar")
        .args(["--format=gnu", "--sparse", "-cf", "-", "-C"])
        .arg(folder.path())
        .arg("holes")
        .output()
        .unwrap();
    assert!(output.status.success() && output.stdout.len() < 1_000_000, "it was written as sparse");
    let tree = read_tar(&output.stdout[..], Modes::Kept, &mut MemorySink, |path| Some(path.to_owned())).unwrap();
    let (_, content) = tree.resolve_file("holes").unwrap();
    let mut expected = vec![0; 9_000_000];
    expected[4_000_000..4_000_013].copy_from_slice(b"in the middle");
    assert!(content.to_vec().unwrap() == expected);
}

#[test]
fn the_time_of_entries_is_the_one_that_was_asked_for() {
    let mut tree = Tree::new();
    tree.insert("ä/b", Node::file(0o644, "b")).unwrap();
    let mut bytes = Vec::new();
    write_tar_at(&tree, 1_700_000_000, &mut bytes).unwrap();
    let mut archive = tar::Archive::new(&bytes[..]);
    let times: Vec<u64> = archive.entries().unwrap().map(|entry| entry.unwrap().header().mtime().unwrap()).collect();
    assert_eq!(times, [1_700_000_000; 2]);
    assert_ne!(bytes, tar(&tree));
}

/// The tar, its zstd layer, its gzip layer.
const GOLDEN: [&str; 3] = [
    "6c15ff67362aa0746bfc6cd5e97e308a636ff5085654fd4d72764b1c53d34bec",
    "01fd06e3a334f2164c4bb68d33d447395a8ea8c5dd2c0b361c0b81b7b286a46b",
    "a655bb3ccf9d1cc8bf80773f8d7e7dab779d589a80495a15bbf36dadfce630ac",
];

fn fixed_layer(compression: Compression) -> (Vec<u8>, LayerDescriptor) {
    let mut tree = Tree::new();
    tree.insert("usr/bin/run", Node::file(0o755, "#!/bin/sh\n")).unwrap();
    tree.insert("usr/bin/walk", Node::Symlink("run".into())).unwrap();
    tree.insert("home/ä ö", Node::Dir(Meta { mode: 0o700, uid: 1000, gid: 1000 })).unwrap();
    let big: Vec<u8> = (0..3_000_000_u32).map(|i| (i / 7) as u8).collect();
    tree.insert("var/big", Node::File(Meta::root(0o640), Content::bytes(big))).unwrap();
    tree.insert("var/again", Node::Hardlink("var/big".into())).unwrap();
    write_layer(&tree, compression, Vec::new()).unwrap()
}

#[test]
fn a_name_that_would_be_read_wrongly_is_refused() {
    let mut tree = Tree::new();
    tree.insert("link", Node::Symlink(format!("a\nb{}", "c".repeat(120)))).unwrap();
    let refused = read_tar(&tar(&tree)[..], Modes::Kept, &mut MemorySink, |path| Some(path.to_owned()));
    assert!(matches!(refused, Err(ReadTarError::Records(_))), "{refused:?}");
}

/// These digests change only when the tar rules or a compressor change: then every image of every fleet changes, so
/// `RECIPE_VERSION` must grow, and the change must be announced.
#[test]
fn a_fixed_layer_has_the_digests_it_always_had() {
    let (_, zstd) = fixed_layer(Compression::Zstd);
    let (_, gzip) = fixed_layer(Compression::Gzip);
    assert_eq!(zstd.diff_id, gzip.diff_id);
    let digests = [&zstd.diff_id, &zstd.digest, &gzip.digest].map(Digest::hex);
    assert_eq!(digests, GOLDEN);
}

#[test]
fn a_descriptor_says_what_the_blob_is() {
    let (blob, layer) = fixed_layer(Compression::Zstd);
    let mut bytes = Vec::new();
    unpacked(&layer.media_type, &blob[..]).unwrap().read_to_end(&mut bytes).unwrap();
    assert_eq!((layer.size, layer.uncompressed), (blob.len() as u64, bytes.len() as u64));
    assert_eq!(layer.digest, Digest::sha256(&blob));
    assert_eq!(layer.diff_id, Digest::sha256(&bytes));
}
