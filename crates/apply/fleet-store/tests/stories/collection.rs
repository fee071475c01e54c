//! Collection: what generations and pins need stays, the rest goes, nobody is disturbed.

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use fleet_derivation::{Derivation, Hash, Input};
use fleet_model::{Address, Kind, RelPath};
use fleet_plan::Generation;
use fleet_store::{Algorithm, BlobId, GcError, Output, Pin, RecordId, Store};

type Any = Result<(), Box<dyn std::error::Error>>;

/// An agent on an image of one layer, with everything the store keeps of them.
struct Kept {
    agent: Derivation,
    image: Derivation,
    source: BlobId,
    layer: BlobId,
    record: RecordId,
}

fn store_fleet(store: &Store, name: &str) -> Result<Kept, Box<dyn std::error::Error>> {
    let source = store.put_blob(Algorithm::Blake3, format!("source of {name}").as_bytes())?;
    let layer = store.put_blob(Algorithm::Sha256, format!("layer of {name}").as_bytes())?;
    let record = RecordId { space: "layers".to_owned(), key: format!("key-of-{name}") };
    store.put_record(&record, &"descriptor", std::slice::from_ref(&layer))?;
    let mut image = Derivation::new(Address::new(Kind::Image, name));
    let file = Input::File { path: RelPath::new("images/x")?, hash: source.hex().parse()?, executable: false };
    image.input("file", file, None);
    let mut agent = Derivation::new(Address::new(Kind::Agent, name));
    agent.input(
        "image",
        Input::Derivation { address: image.address.clone(), hash: image.hash(), output: Some("sha256:1".to_owned()) },
        None,
    );
    store.put_derivations([&agent, &image])?;
    let output = Output { digest: "sha256:1".to_owned(), records: vec![record.clone()], ..Output::default() };
    store.put_output(&image.hash(), &output)?;
    Ok(Kept { agent, image, source, layer, record })
}

fn apply(store: &Store, kept: &Kept) -> Any {
    store.add_generation(Generation {
        schema: 1,
        number: 0,
        environment: "local".to_owned(),
        finished: 0,
        who: None,
        host: None,
        objects: [(kept.agent.address.clone(), kept.agent.hash())].into(),
        outputs: [].into(),
        entries: Vec::new(),
    })?;
    Ok(())
}

/// Makes everything older than the hour for which collection leaves files alone.
fn age(folder: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            age(&path)?;
        } else {
            File::options().write(true).open(&path)?.set_modified(SystemTime::now() - Duration::from_secs(3 * 3600))?;
        }
    }
    Ok(())
}

fn complete(store: &Store, kept: &Kept) -> Result<bool, Box<dyn std::error::Error>> {
    Ok(store.derivation(&kept.agent.hash())?.is_some()
        && store.derivation(&kept.image.hash())?.is_some()
        && store.output(&kept.image.hash())?.is_some()
        && store.get_record::<String>(&kept.record)?.is_some()
        && store.verify_blob(&kept.layer)?
        && store.verify_blob(&kept.source)?)
}

fn any_left(store: &Store, kept: &Kept) -> Result<bool, Box<dyn std::error::Error>> {
    Ok(store.derivation(&kept.agent.hash())?.is_some()
        || store.derivation(&kept.image.hash())?.is_some()
        || store.output(&kept.image.hash())?.is_some()
        || store.get_record::<String>(&kept.record)?.is_some()
        || store.blob_path(&kept.layer).is_some()
        || store.blob_path(&kept.source).is_some())
}

#[test]
fn the_last_generations_and_pins_keep_all_they_need_and_nothing_else_stays() -> Any {
    let project = tempfile::tempdir()?;
    let store = Store::open(project.path())?;
    let (first, second, pinned, loose) = (
        store_fleet(&store, "first")?,
        store_fleet(&store, "second")?,
        store_fleet(&store, "pinned")?,
        store_fleet(&store, "loose")?,
    );
    let package = store.put_blob(Algorithm::Sha256, b"a package of fleet.lock")?;
    apply(&store, &first)?;
    apply(&store, &second)?;
    store.pin("fleet.lock", &[Pin::Blob(package.clone()), Pin::Derivation(pinned.agent.hash())])?;
    age(store.root())?;

    let both = store.gc(2)?;
    assert!(both.generations.is_empty() && !any_left(&store, &loose)?);
    assert!(complete(&store, &first)? && complete(&store, &second)? && complete(&store, &pinned)?);
    assert_eq!((both.removed, both.kept), (6, 19));

    let one = store.gc(1)?;
    assert_eq!(one.generations.len(), 1);
    assert!(!any_left(&store, &first)? && complete(&store, &second)? && store.verify_blob(&package)?);
    assert_eq!(store.generation_numbers("local")?, [2]);

    store.pin("fleet.lock", &[])?;
    store.gc(1)?;
    assert!(!any_left(&store, &pinned)? && store.blob_path(&package).is_none());
    assert_eq!(store.take_notes(), Vec::<String>::new());
    Ok(())
}

#[test]
fn what_was_written_within_the_hour_stays() -> Any {
    let project = tempfile::tempdir()?;
    let store = Store::open(project.path())?;
    let loose = store_fleet(&store, "loose")?;
    assert_eq!(store.gc(1)?.removed, 0);
    age(store.root())?;
    store.put_blob(Algorithm::Sha256, b"layer of loose")?;
    store.gc(1)?;
    assert!(store.verify_blob(&loose.layer)?, "putting a blob again counts as writing it");
    assert_eq!(store.blob_path(&loose.source), None);
    Ok(())
}

#[test]
fn what_a_fresh_output_needs_stays_though_it_is_old() -> Any {
    let project = tempfile::tempdir()?;
    let store = Store::open(project.path())?;
    let old = store_fleet(&store, "old")?;
    age(store.root())?;
    // An apply that reuses an old layer writes its output, and dies before it writes a generation.
    let output = Output { digest: "sha256:2".to_owned(), records: vec![old.record.clone()], ..Output::default() };
    store.put_output(&Hash::of(b"a new image"), &output)?;
    store.gc(1)?;
    assert_eq!(store.get_record::<String>(&old.record)?.as_deref(), Some("descriptor"));
    assert!(store.verify_blob(&old.layer)?);
    assert_eq!(store.blob_path(&old.source), None);
    Ok(())
}

#[test]
fn collection_refuses_while_another_process_uses_the_store_and_works_afterwards() -> Any {
    let project = tempfile::tempdir()?;
    let (store, other) = (Store::open(project.path())?, Store::open(project.path())?);
    let loose = store_fleet(&other, "loose")?;
    age(store.root())?;
    let Err(error) = store.gc(1) else { panic!("collected under a running process") };
    assert!(matches!(error, GcError::InUse { .. }));
    assert!(complete(&other, &loose)?);
    drop(other);
    assert!(store.gc(1)?.removed > 0);
    assert!(Store::open(project.path()).is_ok(), "the exclusive lock is given back");
    Ok(())
}

#[test]
fn a_generation_that_cannot_be_read_stops_collection_and_is_named_unless_newer_ones_fill_the_number() -> Any {
    let project = tempfile::tempdir()?;
    let store = Store::open(project.path())?;
    let (first, second) = (store_fleet(&store, "first")?, store_fleet(&store, "second")?);
    apply(&store, &first)?;
    apply(&store, &second)?;
    let torn = store.root().join("generations/local/00000002.json.zst");
    fs::write(&torn, b"(torn")?;
    age(store.root())?;
    let Err(error) = store.gc(1) else { panic!("collected without knowing what is needed") };
    assert!(error.to_string().contains(&torn.display().to_string()), "{error}");
    assert!(complete(&store, &first)? && complete(&store, &second)?);

    apply(&store, &second)?;
    store.gc(1)?;
    assert!(!any_left(&store, &first)? && complete(&store, &second)?);
    assert_eq!(store.generation_numbers("local")?, [3]);
    Ok(())
}

#[test]
fn a_generation_that_names_a_derivation_nobody_has_does_not_stop_collection() -> Any {
    let project = tempfile::tempdir()?;
    let store = Store::open(project.path())?;
    let kept = store_fleet(&store, "kept")?;
    apply(&store, &kept)?;
    store.pin("gone", &[Pin::Derivation(Hash::of(b"nobody has this"))])?;
    age(store.root())?;
    assert_eq!(store.gc(1)?.removed, 0);
    assert!(complete(&store, &kept)?);
    Ok(())
}
