//! Several processes, some of which are killed.
//!
//! The children are this very test program, told by an environment variable to run one of its tests without end; the same
//! tests, run in the ordinary way, do their work once.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use fleet_plan::Generation;
use fleet_store::{Algorithm, BlobId, Holder, Leased, Store};

type Any = Result<(), Box<dyn std::error::Error>>;

const PROJECT: &str = "FLEET_STORE_TEST_PROJECT";

/// The project that a parent gave, or a new one: then `false`, work once.
fn given_project() -> Result<(Option<tempfile::TempDir>, PathBuf, bool), std::io::Error> {
    match std::env::var_os(PROJECT) {
        Some(project) => Ok((None, project.into(), true)),
        None => {
            let folder = tempfile::tempdir()?;
            let path = folder.path().to_owned();
            Ok((Some(folder), path, false))
        }
    }
}

fn child(test: &str, project: &Path) -> std::io::Result<Child> {
    Command::new(std::env::current_exe()?)
        .args([
            "--exact",
            &format!("{}::{test}", module_path!().rsplit("::").next().unwrap_or_default()),
            "--nocapture",
        ])
        .env(PROJECT, project)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
}

fn wait_until(what: &str, mut is: impl FnMut() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < end, "waited 20 s in vain until {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn blobs(project: &Path) -> Vec<PathBuf> {
    let folders = |path: PathBuf| fs::read_dir(path).into_iter().flatten().flatten().map(|e| e.path());
    folders(project.join(".fleet/blobs/sha256")).flat_map(folders).collect()
}

fn contents(round: u64) -> Vec<u8> {
    let seed = round.to_le_bytes();
    seed.iter().copied().cycle().take(200_000 + usize::try_from(round % 1000).unwrap_or(0)).collect()
}

/// Blobs in small pieces, a derivation's output and a generation per round.
#[test]
fn a_writer_leaves_whole_blobs_and_generations() -> Any {
    let (_folder, project, forever) = given_project()?;
    let store = Store::open(&project)?;
    let mut round = 0;
    while round == 0 || forever {
        let mut writer = store.blob_writer(Algorithm::Sha256)?;
        for piece in contents(round).chunks(4096) {
            writer.write_all(piece)?;
        }
        let id = writer.finish(None)?;
        assert_eq!(store.read_blob(&id)?, Some(contents(round)));
        let generation = Generation {
            schema: 1,
            number: 0,
            environment: "local".to_owned(),
            finished: round,
            who: None,
            host: None,
            objects: [].into(),
            outputs: [].into(),
            entries: Vec::new(),
        };
        store.add_generation(generation)?;
        round += 1;
    }
    assert_eq!(store.generation_numbers("local")?, [1]);
    Ok(())
}

#[test]
fn kill_9_at_any_moment_leaves_only_whole_blobs_and_generations() -> Any {
    let project = tempfile::tempdir()?;
    for kill in 0..20_u64 {
        // Two at a time write the same blobs and fight for the same numbers.
        let mut writers = [
            child("a_writer_leaves_whole_blobs_and_generations", project.path())?,
            child("a_writer_leaves_whole_blobs_and_generations", project.path())?,
        ];
        // Each time they get somewhere; how far, is chance.
        let before = blobs(project.path()).len();
        if kill < 4 {
            wait_until("another blob is there", || blobs(project.path()).len() > before);
        }
        std::thread::sleep(Duration::from_millis(15 + kill * 7));
        for writer in &mut writers {
            writer.kill()?;
            writer.wait()?;
        }
        let store = Store::open(project.path())?;
        for path in blobs(project.path()) {
            let name = path.file_name().and_then(|n| n.to_str()).ok_or("no name")?;
            assert!(store.verify_blob(&BlobId::sha256(name)?)?, "{} is torn", path.display());
        }
        for number in store.generation_numbers("local")? {
            assert!(store.generation("local", number)?.is_some(), "generation {number} is torn");
        }
        let torn: Vec<_> = store.take_notes().into_iter().filter(|n| !n.contains("is not a generation")).collect();
        assert_eq!(torn, Vec::<String>::new());
    }
    assert!(blobs(project.path()).len() > 3, "the writers hardly wrote: this test shows nothing");
    let store = Store::open(project.path())?;
    assert!(store.generation_numbers("local")?.len() > 3);
    Ok(())
}

#[test]
fn a_lease_holder_is_named() -> Any {
    let (_folder, project, forever) = given_project()?;
    let store = Store::open(&project)?;
    let me = Holder::this_process("ada", "apply -e local");
    let mut lease = None;
    // Who only looks whether we have it has it for a moment.
    wait_until("nobody else holds it", || {
        lease = match store.lease("local", &me) {
            Ok(Leased::Ours(lease)) => Some(lease),
            _ => None,
        };
        lease.is_some()
    });
    if forever {
        loop {
            std::thread::sleep(Duration::from_secs(1));
        }
    }
    let second = store.lease("local", &Holder::this_process("ben", "apply"))?;
    assert!(matches!(second, Leased::Held(Some(holder)) if holder.who == "ada"));
    Ok(())
}

#[test]
fn a_lease_dies_with_its_process() -> Any {
    let project = tempfile::tempdir()?;
    let store = Store::open(project.path())?;
    let me = Holder::this_process("ben", "apply");
    let mut holder = child("a_lease_holder_is_named", project.path())?;
    let pid = holder.id();
    wait_until(
        "the child holds the lease",
        || matches!(store.lease("local", &me), Ok(Leased::Held(Some(by))) if by.pid == pid && by.what == "apply -e local"),
    );
    holder.kill()?;
    holder.wait()?;
    assert!(matches!(store.lease("local", &me)?, Leased::Ours(_)), "nothing to break after kill -9");
    Ok(())
}
