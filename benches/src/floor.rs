//! The floor: what must happen, as straight-line code on the same crates: stat, read, compress with the same codec and
//! blocks, send. No model, no store, no checks, nothing concurrent but the walk and the compressor.
//!
//! It runs as a process of its own, `fleet-benches floor JOB`, as the tools do.

use std::{
    fs::{self, File},
    io::{self, BufReader},
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use fleet_oci::{
    Compression, Content, Digest, Image, ImageConfig, LayerDescriptor, Meta, Node, Platform, Tree,
    attestation::{Subject, artifact},
    content::ByteSource,
    image::{Base, MANIFEST_TYPE, assemble},
    index::INDEX_TYPE,
    layer::write_layer,
    provenance::{Built, PROVENANCE_TYPE, provenance},
    sbom::{SBOM_TYPE, sbom},
};
use serde::{Deserialize, Serialize};

use crate::{http::Connection, stat::walk};

/// One image to build and push.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Job {
    /// `127.0.0.1:5000`
    pub registry: String,
    /// Where the image goes; its tag is `v1`.
    pub repository: String,
    /// Folders and where they go, a layer each.
    pub layers: Vec<(PathBuf, String)>,
    /// What it stands on, and the repository that has its blobs.
    pub base: Option<(String, Base)>,
    /// Settings.
    pub config: ImageConfig,
    /// Codec.
    pub compression: Compression,
    /// Statements are attached to what is pushed.
    pub telling: bool,
    /// What the last run left.
    pub state: PathBuf,
}

/// What a run leaves for the next.
#[derive(Debug, Default, Serialize, Deserialize)]
struct State {
    /// BLAKE3 over every file's path and stamp, for each layer.
    roots: Vec<String>,
    image: Option<Image>,
    /// Blobs of statements that are there.
    said: Vec<String>,
}

/// The image that the last run of a job pushed.
///
/// # Errors
/// When there was none.
pub fn pushed(job: &Job) -> anyhow::Result<Image> {
    let state: State = serde_json::from_slice(&fs::read(&job.state)?)?;
    state.image.context("no image was pushed")
}

/// Does a job, given as a JSON file.
///
/// # Errors
/// When something cannot be read or sent.
pub fn run(job: &Path) -> anyhow::Result<bool> {
    let job: Job = serde_json::from_slice(&fs::read(job)?)?;
    let last: State =
        fs::read(&job.state).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
    let own = |image: &Image| image.layers[image.layers.len() - last.roots.len()..].to_vec();
    let made: Vec<LayerDescriptor> = last.image.as_ref().map(own).unwrap_or_default();

    // Stat everything; a layer whose files are as they were is not made again.
    let mut roots = Vec::new();
    let mut layers = Vec::new();
    let mut fresh = Vec::new();
    for (n, (folder, to)) in job.layers.iter().enumerate() {
        let found = walk(folder)?;
        let mut root = blake3::Hasher::new();
        root.update(found.folders.join("\n").as_bytes());
        for (path, stamp) in &found.files {
            root.update(path.as_bytes());
            for number in [stamp.size, stamp.mtime as u64, stamp.ctime as u64, stamp.inode, stamp.mode.into()] {
                root.update(&number.to_le_bytes());
            }
        }
        let root = root.finalize().to_hex().to_string();
        if last.roots.get(n) == Some(&root) {
            layers.push(made[n].clone());
        } else {
            let (file, layer) = make(folder, to, found.files.keys(), job.compression)?;
            fresh.push((file, layer.clone()));
            layers.push(layer);
        }
        roots.push(root);
    }
    let base = job.base.as_ref().map(|(_, base)| base.clone()).unwrap_or_default();
    let image = assemble(&base, Platform::LinuxAmd64, &job.config, &layers);

    // One HEAD says whether the registry has it already.
    let mut registry = Connection::open(&job.registry)?;
    let manifest = format!("/v2/{}/manifests/v1", job.repository);
    let there = registry.has(&manifest)?;
    if there && last.image.as_ref() == Some(&image) {
        return Ok(true);
    }
    if let (None, Some((from, base))) = (&last.image, &job.base) {
        for layer in &base.layers {
            let mount = format!("/v2/{}/blobs/uploads/?mount={}&from={from}", job.repository, layer.digest);
            let answer = registry.ask("POST", &mount, "text/plain", (0, &mut io::empty()))?;
            ensure!(answer.status == 201, "the registry answers {} to a mount", answer.status);
        }
    }
    for (file, layer) in fresh {
        if !registry.has(&format!("/v2/{}/blobs/{}", job.repository, layer.digest))? {
            registry.upload(&job.repository, &layer.digest, (layer.size, &mut BufReader::new(file)))?;
        }
    }
    let config = (image.config_json.len() as u64, &mut image.config_json.as_bytes() as &mut dyn io::Read);
    registry.upload(&job.repository, &image.config_digest, config)?;
    let mut said = last.said;
    if job.telling {
        tell(&mut registry, &job, &image, &mut said)?;
    }
    let body = (image.manifest_json.len() as u64, &mut image.manifest_json.as_bytes() as &mut dyn io::Read);
    let put = registry.ask("PUT", &manifest, MANIFEST_TYPE, body)?;
    ensure!(put.status == 201, "the registry answers {} to a manifest", put.status);
    fs::write(&job.state, serde_json::to_vec(&State { roots, image: Some(image), said })?)?;
    Ok(true)
}

/// A provenance statement and a bill of packages, and the list of them.
fn tell(registry: &mut Connection, job: &Job, image: &Image, said: &mut Vec<String>) -> anyhow::Result<()> {
    let none = std::collections::BTreeSet::new();
    let built = Built {
        repository: &job.repository,
        image: &job.repository,
        platform: Some(image.platform),
        derivation: image.digest.hex(),
        inputs: [("image".to_owned(), ("sha256", image.digest.hex().to_owned()))].into(),
        materials: &[],
        scripts: &none,
        containerfiles: &none,
        engines: &none,
        revision: None,
        version: "0",
    };
    let texts = [(PROVENANCE_TYPE, provenance(&image.digest, &built)), (SBOM_TYPE, sbom(&job.repository, &[], true))];
    let mut listed = Vec::new();
    for (kind, text) in texts {
        let statement = artifact(kind, text.as_bytes(), &Subject::of_image(image));
        for (_, bytes) in statement.blobs() {
            let digest = Digest::sha256(bytes);
            if !said.contains(&digest.to_string()) {
                registry.upload(&job.repository, &digest, (bytes.len() as u64, &mut &*bytes))?;
                said.push(digest.to_string());
            }
        }
        let manifest =
            (statement.manifest_json.len() as u64, &mut statement.manifest_json.as_bytes() as &mut dyn io::Read);
        let path = format!("/v2/{}/manifests/{}", job.repository, statement.digest);
        let put = registry.ask("PUT", &path, MANIFEST_TYPE, manifest)?;
        ensure!(put.status == 201, "the registry answers {} to a statement", put.status);
        listed.push(serde_json::json!({
            "mediaType": MANIFEST_TYPE, "digest": statement.digest, "size": statement.manifest_json.len(), "artifactType": kind,
        }));
    }
    let tag = format!("/v2/{}/manifests/sha256-{}", job.repository, image.digest.hex());
    let there = registry.ask("GET", &tag, "text/plain", (0, &mut io::empty()))?;
    ensure!(there.status == 404, "nobody has said anything of a new image yet");
    let list = serde_json::json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": listed}).to_string();
    let put = registry.ask("PUT", &tag, INDEX_TYPE, (list.len() as u64, &mut list.as_bytes()))?;
    ensure!(put.status == 201, "the registry answers {} to a list of statements", put.status);
    Ok(())
}

/// One layer, compressed into a file without a name.
fn make<'a>(
    folder: &Path,
    to: &str,
    paths: impl Iterator<Item = &'a String>,
    compression: Compression,
) -> anyhow::Result<(File, LayerDescriptor)> {
    let mut tree = Tree::new();
    for path in paths {
        let file = folder.join(path);
        let length = file.metadata()?.len();
        let content = Content::slice(Arc::new(Opened(file)), 0, length);
        tree.insert(&format!("{}/{path}", to.trim_matches('/')), Node::File(Meta::from_x_bit(false), content))?;
    }
    let (mut file, layer) = write_layer(&tree, compression, tempfile::tempfile()?)?;
    io::Seek::rewind(&mut file)?;
    Ok((file, layer))
}

/// A file that is opened when its turn comes: there are more of them than a process may have open.
struct Opened(PathBuf);

impl ByteSource for Opened {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        File::open(&self.0)?.read_exact_at(buffer, offset)
    }
}
