//! Reading a project: ignore files, links, special files.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::{
        ffi::OsStrExt as _,
        fs::{PermissionsExt, symlink},
    },
    path::Path,
};

use fleet_model::{Links, ListedEntry, Listing, Looked, RelPath, SourceTree};
use fleet_store::{Project, StatCache, Store, combined_hash};

type Any = Result<(), Box<dyn std::error::Error>>;

fn write(root: &Path, files: &[(&str, &str)]) -> std::io::Result<()> {
    for (path, text) in files {
        let path = root.join(path);
        path.parent().map_or(Ok(()), fs::create_dir_all)?;
        fs::write(path, text)?;
    }
    Ok(())
}

fn load(root: &Path, wanted: &[&str]) -> Result<SourceTree, Box<dyn std::error::Error>> {
    let wanted = wanted.iter().map(|path| RelPath::new(path)).collect::<Result<BTreeSet<_>, _>>()?;
    let mut tree = SourceTree::default();
    Project::open(root, StatCache::none())?.load(&wanted, &mut tree);
    Ok(tree)
}

fn files(tree: &SourceTree) -> Vec<&str> {
    tree.iter().filter(|(_, found)| matches!(found, Looked::File(_))).map(|(path, _)| path.as_str()).collect()
}

fn unreadable<'a>(tree: &'a SourceTree, path: &str) -> Result<&'a str, Box<dyn std::error::Error>> {
    match tree.get(&RelPath::new(path)?) {
        Some(Looked::Unreadable(why)) => Ok(why),
        other => Err(format!("{path} is {other:?}").into()),
    }
}

#[test]
fn a_wanted_folder_brings_what_its_ignore_files_leave() -> Any {
    let root = tempfile::tempdir()?;
    write(
        root.path(),
        &[
            ("img/.dockerignore", "*.log\nnode_modules\n!node_modules/keep\n"),
            ("img/.fleetignore", "!important.log\n"),
            ("img/a.log", ""),
            ("img/important.log", ""),
            ("img/node_modules/drop/x.js", ""),
            ("img/node_modules/keep/x.js", ""),
            ("img/src/main.js", "main"),
            ("img/.git/config", ""),
            ("other/file", ""),
        ],
    )?;
    fs::set_permissions(root.path().join("img/src/main.js"), fs::Permissions::from_mode(0o755))?;
    let tree = load(root.path(), &["img"])?;
    assert_eq!(files(&tree), ["img/important.log", "img/node_modules/keep/x.js", "img/src/main.js"]);
    assert_eq!(tree.get(&RelPath::new("img/src")?), Some(&Looked::Folder));
    let main = tree.file(&RelPath::new("img/src/main.js")?).ok_or("main.js is missing")?;
    assert!(main.executable);
    assert_eq!((main.text(), main.hash), (Some("main"), *blake3::hash(b"main").as_bytes()));
    Ok(())
}

#[test]
fn a_file_that_is_wanted_by_name_is_read_though_its_folder_ignores_it() -> Any {
    let root = tempfile::tempdir()?;
    write(root.path(), &[("img/.dockerignore", "*"), ("img/hello", "hello")])?;
    assert_eq!(files(&load(root.path(), &["img", "img/hello"])?), ["img/hello"]);
    Ok(())
}

#[test]
fn links_are_followed_inside_the_project_and_refused_outside() -> Any {
    let (root, outside) = (tempfile::tempdir()?, tempfile::tempdir()?);
    write(root.path(), &[("shared/a", "a"), ("img/b", "b")])?;
    write(outside.path(), &[("secret", "s")])?;
    symlink("../shared", root.path().join("img/shared"))?;
    symlink("../shared/a", root.path().join("img/a"))?;
    symlink(outside.path().join("secret"), root.path().join("img/out"))?;
    symlink("nowhere", root.path().join("img/dangling"))?;
    symlink(".", root.path().join("img/again"))?;
    symlink("loop", root.path().join("img/loop"))?;
    let tree = load(root.path(), &["img", "img/out"])?;
    assert_eq!(files(&tree), ["img/a", "img/b", "img/shared/a"]);
    assert!(unreadable(&tree, "img/out")?.contains("leaves the project"));
    assert!(unreadable(&tree, "img/dangling")?.contains("a link to nowhere, which cannot be followed"));
    assert!(unreadable(&tree, "img/again")?.contains("leads back to a folder it is in"));
    assert!(unreadable(&tree, "img/loop")?.contains("cannot be followed"));
    Ok(())
}

#[test]
fn a_link_to_the_project_brings_neither_git_nor_the_store_nor_build_output() -> Any {
    let root = tempfile::tempdir()?;
    write(
        root.path(),
        &[("fleet.kdl", ""), (".git/config", ""), (".fleet/version", "1"), ("target/x", ""), ("img/target/x", "")],
    )?;
    symlink("..", root.path().join("img/all"))?;
    let tree = load(root.path(), &["img", ".fleet/version"])?;
    assert_eq!(files(&tree), ["img/all/fleet.kdl", "img/target/x"]);
    assert!(unreadable(&tree, ".fleet/version")?.contains("fleetctl's own"));
    Ok(())
}

#[test]
fn build_output_is_named_file_by_file_or_not_at_all() -> Any {
    let root = tempfile::tempdir()?;
    write(root.path(), &[("target/release/tool", "")])?;
    let tree = load(root.path(), &["target/release", "target/release/tool"])?;
    assert_eq!(files(&tree), ["target/release/tool"]);
    assert!(
        unreadable(&tree, "target/release")?.contains("part of no folder"),
        "an empty folder would be a silent loss"
    );
    Ok(())
}

#[test]
fn pipes_and_sockets_are_refused_without_being_opened() -> Any {
    let root = tempfile::tempdir()?;
    write(root.path(), &[("img/a", "")])?;
    let _socket = std::os::unix::net::UnixListener::bind(root.path().join("img/socket"))?;
    let status = std::process::Command::new("mkfifo").arg(root.path().join("img/pipe")).status()?;
    assert!(status.success());
    let tree = load(root.path(), &["img", "img/pipe"])?;
    assert!(unreadable(&tree, "img/socket")?.contains("a socket"));
    assert!(unreadable(&tree, "img/pipe")?.contains("a named pipe"));
    Ok(())
}

#[test]
fn what_is_not_there_is_missing_also_below_a_file() -> Any {
    let root = tempfile::tempdir()?;
    write(root.path(), &[("file", "")])?;
    let tree = load(root.path(), &["nothing", "file/below"])?;
    assert!(tree.iter().all(|(_, found)| *found == Looked::Missing));
    assert_eq!(tree.iter().count(), 2);
    Ok(())
}

#[test]
fn a_name_that_is_no_text_is_refused_unless_it_is_ignored() -> Any {
    let root = tempfile::tempdir()?;
    write(root.path(), &[("img/x", "")])?;
    fs::write(root.path().join("img").join(std::ffi::OsStr::from_bytes(b"caf\xe9.log")), "")?;
    let shown = "img/caf\u{fffd}.log";
    assert!(unreadable(&load(root.path(), &["img"])?, shown)?.contains("not plain UTF-8"));
    write(root.path(), &[("img/.dockerignore", "*.log\n")])?;
    let tree = load(root.path(), &["img"])?;
    assert_eq!((tree.get(&RelPath::new(shown)?), files(&tree)), (None, vec!["img/x"]));
    Ok(())
}

#[test]
fn a_bad_ignore_file_is_named_with_its_line() -> Any {
    let root = tempfile::tempdir()?;
    write(root.path(), &[("img/.dockerignore", "fine\n[a-\n"), ("img/x", "")])?;
    let tree = load(root.path(), &["img"])?;
    let why = unreadable(&tree, "img")?;
    assert!(why.contains(".dockerignore in it, line 2: `[a-` is not a pattern"), "{why}");
    Ok(())
}

#[test]
fn hashing_only_agrees_with_reading_and_sees_names_bits_and_contents() -> Any {
    let root = tempfile::tempdir()?;
    write(root.path(), &[("src/a", "1"), ("src/b/c", "2"), ("src/.dockerignore", "skip"), ("src/skip", "3")])?;
    let project = Project::open(root.path(), StatCache::none())?;
    let hashed = project.hash_only(Path::new("src"))?;
    let tree = load(root.path(), &["src"])?;
    let read: Vec<_> = tree
        .files_below(&RelPath::new("src")?)
        .map(|(path, file)| (path.as_str().trim_start_matches("src/").to_owned(), file.hash))
        .collect();
    let only: Vec<_> = hashed.iter().map(|(path, file)| (path.clone(), *file.hash.as_bytes())).collect();
    assert_eq!(only, read);

    let before = combined_hash(&hashed);
    write(root.path(), &[("src/skip", "changed")])?;
    assert_eq!(combined_hash(&project.hash_only(Path::new("src"))?), before);
    fs::set_permissions(root.path().join("src/a"), fs::Permissions::from_mode(0o755))?;
    let executable = combined_hash(&project.hash_only(Path::new("src"))?);
    fs::rename(root.path().join("src/a"), root.path().join("src/A"))?;
    let renamed = combined_hash(&project.hash_only(Path::new("src"))?);
    assert!(before != executable && executable != renamed);
    Ok(())
}

fn listing(root: &Path, links: Links) -> Result<Vec<(String, ListedEntry)>, Box<dyn std::error::Error>> {
    match Project::open(root, StatCache::none())?.list(&RelPath::new("img")?, links) {
        Listing::Folder(entries) => Ok(entries.into_iter().collect()),
        other => Err(format!("{other:?}").into()),
    }
}

/// What a listing says of each path, in a word.
fn words(root: &Path, links: Links) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let word = |(path, entry)| match entry {
        ListedEntry::File(file) => {
            format!("{path}: {} bytes{}", file.size, if file.executable { ", executable" } else { "" })
        }
        ListedEntry::Folder => format!("{path}/"),
        ListedEntry::Link(target) => format!("{path} -> {target}"),
        ListedEntry::Refused(why) => format!("{path}: {why}"),
    };
    Ok(listing(root, links)?.into_iter().map(word).collect())
}

#[test]
fn a_listed_folder_keeps_its_empty_folders_and_links_that_stay_in_it() -> Any {
    let root = tempfile::tempdir()?;
    write(
        root.path(),
        &[("img/a/run", "#!"), ("img/b/c", "c"), ("img/skipped", ""), ("img/.fleetignore", "skipped\n"), ("out", "")],
    )?;
    fs::set_permissions(root.path().join("img/a/run"), fs::Permissions::from_mode(0o700))?;
    fs::create_dir(root.path().join("img/empty"))?;
    for (target, name) in [
        ("a/run", "file"),
        ("b", "folder"),
        ("folder/c", "through"),
        ("../b/c", "a/up"),
        ("../../out", "a/out"),
        ("../img/a/run", "round"),
        ("/etc/passwd", "absolute"),
        ("nothing", "gone"),
        ("skipped", "ignored"),
        ("loop", "loop"),
    ] {
        symlink(target, root.path().join("img").join(name))?;
    }
    assert_eq!(
        words(root.path(), Links::Kept)?,
        [
            "a/",
            "a/out: it is a link to ../../out, which leaves the folder",
            "a/run: 2 bytes, executable",
            "a/up -> ../b/c",
            "absolute: it is a link to /etc/passwd, which leaves the folder",
            "b/",
            "b/c: 1 bytes",
            "empty/",
            "file -> a/run",
            "folder -> b",
            "gone: it is a link to nothing, which leads to nothing in the folder",
            "ignored: it is a link to skipped, which leads to nothing in the folder",
            "loop: it is a link to loop, which leads in a circle",
            "round: it is a link to ../img/a/run, which leaves the folder",
            "through -> folder/c",
        ]
    );
    Ok(())
}

#[test]
fn a_listing_that_follows_links_says_what_reading_would() -> Any {
    let root = tempfile::tempdir()?;
    write(root.path(), &[("img/a/b", "b"), ("shared/x", "xx")])?;
    symlink("../shared", root.path().join("img/shared"))?;
    symlink("../../shared/x", root.path().join("img/a/x"))?;
    assert_eq!(
        words(root.path(), Links::Followed)?,
        ["a/", "a/b: 1 bytes", "a/x: 2 bytes", "shared/", "shared/x: 2 bytes"]
    );
    let read = load(root.path(), &["img"])?;
    let listed = read.listing(&RelPath::new("img")?, Links::Followed).ok_or("not read")?.into_owned();
    assert_eq!(listed, Listing::Folder(listing(root.path(), Links::Followed)?.into_iter().collect()));
    Ok(())
}

#[test]
fn a_listing_does_not_read_what_it_knows_and_sees_an_edit_of_the_same_size_whose_mtime_was_put_back() -> Any {
    let root = tempfile::tempdir()?;
    write(root.path(), &[("img/a", "AAAA1111"), ("img/b", "b")])?;
    // Old enough to be believed, but for ctime, which nobody can set.
    std::thread::sleep(std::time::Duration::from_millis(2100));
    let list = || -> Result<(Listing, usize), Box<dyn std::error::Error>> {
        let store = Store::open(root.path())?;
        let project = Project::open(root.path(), StatCache::load(&store))?;
        let listing = project.list(&RelPath::new("img")?, Links::Kept);
        project.save_cache()?;
        Ok((listing, project.cache().contents_read()))
    };
    let (first, read) = list()?;
    assert_eq!(read, 2);
    assert_eq!(list()?, (first.clone(), 0));
    let file = root.path().join("img/a");
    let mtime = fs::metadata(&file)?.modified()?;
    fs::write(&file, "BBBB2222")?;
    fs::File::options().write(true).open(&file)?.set_modified(mtime)?;
    let (second, read) = list()?;
    assert_eq!(read, 1);
    assert_ne!(first, second);
    Ok(())
}

#[test]
fn many_folders_are_walked_side_by_side_and_none_is_lost() -> Any {
    let root = tempfile::tempdir()?;
    for folder in 0..40 {
        let files: Vec<String> = (0..40).map(|file| format!("img/d{folder}/e/f{file}")).collect();
        write(root.path(), &files.iter().map(|path| (path.as_str(), path.as_str())).collect::<Vec<_>>())?;
    }
    let found = listing(root.path(), Links::Kept)?;
    assert_eq!(found.iter().filter(|(_, entry)| matches!(entry, ListedEntry::File(_))).count(), 1600);
    assert_eq!(found.len(), 1600 + 80);
    Ok(())
}
