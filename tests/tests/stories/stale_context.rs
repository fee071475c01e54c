//! What is built is what is on the disk, however little `stat` shows of a change.

use std::{fs, path::Path, thread::sleep, time::Duration};

use fleet_tests::{
    Output,
    run::{self, Running},
};
use tempfile::TempDir;

/// Younger files are read again whatever `stat` says; only older ones are believed.
const SETTLED: Duration = Duration::from_millis(2_500);

const FLEET: &str = r#"
fleet "stale" domain="stale.test"
images {
    image "app" {
        base "scratch"
        tree "app" to="/app"
    }
}
environment "local" {
    target "docker"
    homeserver image="app" kind="synapse" port=16167
}
"#;

fn fleetctl(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = run::command(folder, &folder.join("home"));
    Running::start(command.args(arguments)).wait()
}

/// What the image is derived from, as `build` and `plan` see it.
fn derived(folder: &Path) -> String {
    let output = fleetctl(folder, &["graph"]);
    output.expect(0).says("image/app");
    output.stdout
}

#[test]
fn a_same_size_edit_with_its_mtime_put_back_is_built() {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("app/answer");
    fs::create_dir_all(folder.path().join("app")).expect("a folder");
    fs::write(folder.path().join("fleet.kdl"), FLEET).expect("a file");
    fs::write(&file, "AAAA1111").expect("a file");
    let mtime = fs::metadata(&file).and_then(|metadata| metadata.modified()).expect("an mtime");
    sleep(SETTLED);
    let before = derived(folder.path());
    assert_eq!(derived(folder.path()), before, "nothing changed, and the cache is believed");

    fs::write(&file, "BBBB2222").expect("a file");
    fs::File::options().write(true).open(&file).and_then(|file| file.set_modified(mtime)).expect("an mtime");
    let same = fs::metadata(&file).expect("a file");
    assert_eq!((same.len(), same.modified().expect("an mtime")), (8, mtime), "size and mtime are as they were");
    let edited = derived(folder.path());
    assert_ne!(edited, before, "the old file would be shipped");

    // Another file of the same size and mtime takes its place.
    let other = folder.path().join("other");
    fs::write(&other, "AAAA1111").expect("a file");
    fs::File::options().write(true).open(&other).and_then(|file| file.set_modified(mtime)).expect("an mtime");
    sleep(SETTLED);
    assert_eq!(derived(folder.path()), edited);
    fs::rename(&other, &file).expect("renamed");
    assert_eq!(derived(folder.path()), before, "the bytes of the beginning are back");
}
