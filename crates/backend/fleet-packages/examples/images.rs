//! Locks and builds the two images of the quickstart, and writes each as an archive that an engine loads.
//!
//! `cargo run --release -p fleet-packages --example images -- FOLDER`: the lock, the blobs and the archives go there.
//! A lock that is there already is used as it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::BufWriter,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use anyhow::{Context, Result, anyhow};
use fleet_oci::{
    Compression, Image, ImageConfig, ImageRecipe, LayerRecipe, Lock, Platform,
    export::{self, Named},
    image::{self, Base},
    lock::Unpack,
    recipe::{NpmLinks, User},
    write_tar::MTIME,
};
use fleet_packages::{Event, FolderCache, Workshop, debian, npm, pip, realize_layer, write_archive};

const PLATFORM: Platform = Platform::LinuxAmd64;
const MATRIX_AT: &str = "node_modules/openclaw/dist/extensions/matrix";

#[tokio::main]
async fn main() -> Result<()> {
    let folder = PathBuf::from(std::env::args().nth(1).context("give a folder to work in")?);
    let cache = Arc::new(FolderCache::new(folder.join("blobs")));
    let progress = Arc::new(|event| match event {
        Event::Fetched { .. } => {}
        other => eprintln!("  {other:?}"),
    });
    let workshop = Workshop::new(cache.clone(), progress);
    let path = folder.join("fleet.lock");
    let start = Instant::now();
    let lock = match std::fs::read_to_string(&path) {
        Ok(text) => Lock::parse(&text)?,
        Err(_) => lock(&workshop).await?,
    };
    std::fs::write(&path, lock.to_text())?;
    println!("lock: {:.1?}", start.elapsed());
    for recipe in [homeserver(&lock)?, agent(&lock)?] {
        let image = build(&workshop, &recipe).await?;
        let name = format!("fleet-packages-example/{}:latest", recipe.name);
        let start = Instant::now();
        let archive = folder.join(format!("{}.tar", recipe.name));
        let names = [name];
        let export = export::plan(&[Named { image: &image, names: &names }], &BTreeSet::new());
        write_archive(cache.as_ref(), &export, &mut BufWriter::new(File::create(&archive)?))?;
        println!("{} {} ({:.1?} to write {})", recipe.name, image.digest, start.elapsed(), archive.display());
    }
    Ok(())
}

fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn homeserver_packages() -> Vec<String> {
    texts(&["base-files", "ca-certificates", "coreutils", "dash", "libc6", "python3", "tzdata"])
}

fn agent_packages() -> Vec<String> {
    texts(&[
        "base-files",
        "bash",
        "ca-certificates",
        "coreutils",
        "dash",
        "findutils",
        "grep",
        "libc6",
        "libgcc-s1",
        "libstdc++6",
        "procps",
        "sed",
        "tzdata",
    ])
}

fn unpack() -> BTreeMap<String, Unpack> {
    let matrix = Unpack { version: "2026.9.6".into(), at: MATRIX_AT.into() };
    BTreeMap::from([("@openclaw/matrix".to_owned(), matrix)])
}

async fn lock(workshop: &Workshop) -> Result<Lock> {
    let mut lock = Lock::default();
    for (image, packages) in [("homeserver", homeserver_packages()), ("agent", agent_packages())] {
        let start = Instant::now();
        let request = debian::Request { suite: "bookworm", platform: PLATFORM, packages: &packages };
        let resolved = debian::resolve(workshop, request).await?;
        println!(
            "{image}: {} Debian packages {:?} {:.1?}",
            resolved.lock.packages.len(),
            resolved.notes,
            start.elapsed()
        );
        lock.debian.entry(image.into()).or_default().insert("amd64".into(), resolved.lock);
    }
    let requirements = texts(&["matrix-synapse==1.163.2"]);
    let start = Instant::now();
    let request = pip::Request { python: "3.11", glibc: "2.36", platform: PLATFORM, requirements: &requirements };
    let resolved = pip::resolve(request).await?;
    println!("{} wheels {:?} {:.1?}", resolved.lock.packages.len(), resolved.notes, start.elapsed());
    let folders = lock.pip.entry("homeserver".into()).or_default();
    folders.entry("/opt/synapse".into()).or_default().insert(PLATFORM, resolved.lock);
    lock.node.insert("agent".into(), npm::resolve_node(workshop, "24.21.0", &Platform::ALL).await?);
    let start = Instant::now();
    let request = BTreeMap::from([("openclaw".to_owned(), "2026.9.6".to_owned())]);
    let resolved = npm::resolve(workshop, &request, &unpack()).await?;
    println!("{} npm packages {:.1?}", resolved.packages.len(), start.elapsed());
    lock.npm.entry("agent".into()).or_default().insert("/opt/openclaw".into(), resolved);
    Ok(lock)
}

fn debian_layer(lock: &Lock, image: &str, packages: &[String], user: &str, uid: u32) -> Result<LayerRecipe> {
    let pins = lock.debian(image, "bookworm", PLATFORM.architecture(), packages)?;
    Ok(LayerRecipe::Debian {
        suite: pins.suite.clone(),
        architecture: PLATFORM.architecture().into(),
        packages: pins.packages.clone(),
        users: vec![User { name: user.into(), uid, gid: uid, home: format!("/home/{user}") }],
    })
}

fn config(path: &str) -> ImageConfig {
    ImageConfig { env: BTreeMap::from([("PATH".into(), path.into())]), ..ImageConfig::default() }
}

fn homeserver(lock: &Lock) -> Result<ImageRecipe> {
    let pins = &lock.pip["homeserver"]["/opt/synapse"][&PLATFORM];
    let synapse = LayerRecipe::Pip {
        to: "/opt/synapse".into(),
        python: "3.11".into(),
        packages: pins.packages.clone(),
        environment: true,
        allow_scripts: Vec::new(),
    };
    Ok(ImageRecipe {
        name: "homeserver".into(),
        platform: PLATFORM,
        layers: vec![debian_layer(lock, "homeserver", &homeserver_packages(), "synapse", 991)?, synapse],
        config: config("/opt/synapse/bin:/usr/bin:/bin"),
        compression: Compression::Zstd,
        mtime: MTIME,
    })
}

fn agent(lock: &Lock) -> Result<ImageRecipe> {
    let request = BTreeMap::from([("openclaw".to_owned(), "2026.9.6".to_owned())]);
    let pins = lock.npm("agent", "/opt/openclaw", &request, &unpack())?;
    let packages = pins.packages_for(PLATFORM).map_err(|pin| anyhow!("{} is not for {PLATFORM}", pin.path))?;
    let node = LayerRecipe::Node { to: "/usr/local".into(), package: lock.node("agent", "24.21.0", PLATFORM)?.clone() };
    let openclaw = LayerRecipe::Npm {
        to: "/opt/openclaw".into(),
        request,
        packages,
        omit: texts(&["node_modules/openclaw/.openclaw-lifecycle-pending"]),
        links: NpmLinks::Own,
        allow_scripts: Vec::new(),
    };
    Ok(ImageRecipe {
        name: "agent".into(),
        platform: PLATFORM,
        layers: vec![debian_layer(lock, "agent", &agent_packages(), "agent", 1000)?, node, openclaw],
        config: config("/opt/openclaw/node_modules/.bin:/usr/local/bin:/usr/bin:/bin"),
        compression: Compression::Zstd,
        mtime: MTIME,
    })
}

async fn build(workshop: &Workshop, recipe: &ImageRecipe) -> Result<Image> {
    let mut layers = Vec::new();
    for layer in &recipe.layers {
        let start = Instant::now();
        let made = realize_layer(workshop, &recipe.name, layer, recipe.packing()).await?;
        let megabytes = |bytes: u64| bytes as f64 / 1e6;
        let (size, tar) = (megabytes(made.descriptor.size), megabytes(made.descriptor.uncompressed));
        println!("{} {}: {size:.1} MB of {tar:.1} MB, {:.1?}", recipe.name, layer.kind(), start.elapsed());
        made.notes.iter().for_each(|note| println!("  {note}"));
        layers.push(made.descriptor);
    }
    Ok(image::assemble(&Base::default(), recipe.platform, &recipe.config, &layers))
}
