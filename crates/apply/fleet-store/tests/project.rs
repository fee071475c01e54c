//! Reading a project: ignore files, links, special files.

use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use fleet_model::{Looked, RelPath, SourceTree};
use fleet_store::{Project, StatCache, combined_hash};

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
    assert!(unreadable(&tree, "target/release")?.contains("part of no folder"), "an empty folder would be a silent loss");
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
