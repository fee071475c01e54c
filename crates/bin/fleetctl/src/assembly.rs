//! [`Assembler`]: images made of layers, into the store. Layers come from packages, files and bases; what was made before
//! is taken from the store. An engine is asked only where install scripts are allowed, and for what it builds from a
//! Containerfile.

mod from_engine;
mod scripts;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use fleet_apply::{Event, Events, ProviderError};
use fleet_derivation::{Derivation, Hash};
use fleet_docker::Engine;
use fleet_model::{Address, SourceTree};
use fleet_oci::{
    Image, LayerDescriptor, LayerRecipe,
    image::{self, Base},
    recipe::{FileEntry, FileWhat},
};
use fleet_packages::Workshop;
use fleet_plan::ImageSpec;
use fleet_registry::{Client as Registries, LocalImage};
use fleet_store::{BlobId, ObjectError, RecordId, Store};
use serde::{Deserialize, Serialize};

use crate::{
    blobs::{StoreCache, blob_id, layer_blobs},
    programs::Programs,
};

pub use from_engine::{built_by, containerfiles, in_engine, pin, taken_before};
pub use scripts::allowed;

/// Makes images into a store.
#[derive(Clone)]
pub struct Assembler {
    /// Fleet name: the first part of repositories.
    pub fleet: String,
    /// Where install scripts run and Containerfiles are built; `None` where there is none, which only matters to images
    /// that have some.
    pub engine: Option<Engine>,
    /// Layers, packages, records.
    pub store: Arc<Store>,
    /// The agent runtime.
    pub agent: Programs,
    /// This program, for the manager.
    pub fleetctl: Programs,
    /// The project's folder: layers of its files are read from there when they are made.
    pub project: PathBuf,
    /// Registries, as this user of this machine.
    pub registries: Registries,
    /// Files for the contexts of Containerfiles.
    pub sources: Arc<SourceTree>,
    /// Bases in registries are only described: nobody here needs their layers, which go from registry to registry.
    pub described: bool,
    /// Where the fleet's images are kept beside the store: a registry, `host[:port][/prefix]`, and who speaks to it.
    pub kept: Option<(Registries, String)>,
}

/// What is known of a layer, by its derivation's hash.
#[derive(Serialize, Deserialize)]
struct LayerRecord {
    #[serde(flatten)]
    descriptor: LayerDescriptor,
    /// What a person should know of how it was made. `None` where a `fleetctl` that kept none made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    notes: Option<Vec<String>>,
}

impl Assembler {
    /// Makes an image: its layers are in the store afterwards. Another image that it stands on was made before.
    ///
    /// # Errors
    /// [`ProviderError::Failed`].
    pub async fn assemble(
        &self,
        spec: &ImageSpec,
        derivation: &Derivation,
        events: &dyn Events,
    ) -> Result<Image, ProviderError> {
        Assembling { assembler: self, address: &derivation.address, spec, derivation, events }.assemble().await
    }
}

struct Assembling<'a> {
    assembler: &'a Assembler,
    address: &'a Address,
    spec: &'a ImageSpec,
    derivation: &'a Derivation,
    events: &'a dyn Events,
}

impl Assembling<'_> {
    async fn assemble(&self) -> Result<Image, ProviderError> {
        let recipe = &self.spec.recipe;
        if let [LayerRecipe::Containerfile { path, .. }] = recipe.layers.as_slice() {
            return self.by_containerfile(path).await;
        }
        let mut base = Base::default();
        let mut layers = Vec::new();
        let mut keys = layer_keys(self.derivation).into_iter();
        for layer in &recipe.layers {
            match layer {
                LayerRecipe::Image { name, .. } => base = Base::from(&self.other(name).await?),
                LayerRecipe::Base { reference, digest } => {
                    self.progress(format!("reading {reference}"));
                    base = self.pull(reference, digest).await?;
                }
                _ => {
                    let key = keys.next().ok_or_else(|| self.failed_with("its derivation does not name its layers"))?;
                    layers.push(self.layer(layer, key).await?);
                    layers.extend(self.scripts(layer, key, (&base, &layers)).await?);
                }
            }
        }
        let image = image::assemble(&base, recipe.platform, &recipe.config, &layers);
        let (store, whole) = (&self.assembler.store, image_record(&self.derivation.hash()));
        let known = store.get_record::<Image>(&whole).map_err(|error| self.failed(&error))?;
        if known.as_ref() != Some(&image) {
            let blobs = layer_blobs(&image);
            store.put_record(&whole, &image, &blobs).map_err(|error| self.failed(&error))?;
        }
        Ok(image)
    }

    /// One layer made here: from the store when it was made before.
    async fn layer(&self, recipe: &LayerRecipe, key: Hash) -> Result<LayerDescriptor, ProviderError> {
        let store = &self.assembler.store;
        let id = layer_record(&key);
        let known = store.get_record::<LayerRecord>(&id).map_err(|error| self.failed(&error))?;
        let complete = |known: &LayerRecord| known.notes.is_some() || !may_have_notes(recipe);
        if let Some(known) = known.filter(|known| complete(known) && self.is_stored(&known.descriptor)) {
            return Ok(known.descriptor);
        }
        let replaced = match recipe {
            LayerRecipe::FleetAgent { to, .. } => {
                self.progress("compiling the agent runtime".to_owned());
                Some(self.program(&self.assembler.agent, to).await?)
            }
            LayerRecipe::Fleetctl { to, .. } => Some(self.program(&self.assembler.fleetctl, to).await?),
            _ => None,
        };
        let recipe = replaced.as_ref().unwrap_or(recipe);
        self.progress(format!("making the {} layer", recipe.kind()));
        let made = {
            let (sender, mut told) = tokio::sync::mpsc::unbounded_channel();
            let progress: fleet_packages::Progress = Arc::new(move |event| drop(sender.send(event)));
            let mut workshop = Workshop::new(Arc::new(StoreCache(Arc::clone(store))), progress);
            workshop.project = Some(self.assembler.project.clone());
            let making = fleet_packages::realize_layer(&workshop, &self.spec.name, recipe, self.spec.recipe.packing());
            self.watch(making, &mut told).await.map_err(|error| self.failed(&error))?
        };
        for note in &made.notes {
            self.progress(note.clone());
        }
        let blobs: Vec<BlobId> = blob_id(&made.descriptor.digest).into_iter().collect();
        let record = LayerRecord { descriptor: made.descriptor, notes: Some(made.notes) };
        store.put_record(&id, &record, &blobs).map_err(|error| self.failed(&error))?;
        Ok(record.descriptor)
    }

    fn is_stored(&self, layer: &LayerDescriptor) -> bool {
        from_engine::is_stored(&self.assembler.store, layer)
    }

    /// Waits for a layer and passes on what is told meanwhile.
    async fn watch<T>(
        &self,
        making: impl Future<Output = T>,
        told: &mut tokio::sync::mpsc::UnboundedReceiver<fleet_packages::Event>,
    ) -> T {
        let mut making = std::pin::pin!(making);
        let (mut fetched, mut wanted) = (0_usize, 0_usize);
        loop {
            let done = tokio::time::timeout(Duration::from_millis(200), &mut making).await;
            while let Ok(event) = told.try_recv() {
                match event {
                    fleet_packages::Event::Started { blobs, .. } => wanted = blobs,
                    fleet_packages::Event::Fetched { .. } => {
                        fetched += 1;
                        self.progress(format!("downloaded {fetched} of {wanted} packages"));
                    }
                    fleet_packages::Event::Retrying { name, why } => self.progress(format!("{name}: {why}; again")),
                    fleet_packages::Event::Packing { name } => self.progress(format!("packing {name}")),
                }
            }
            if let Ok(done) = done {
                return done;
            }
        }
    }

    /// A program of ours as a file.
    async fn program(&self, program: &Programs, to: &str) -> Result<LayerRecipe, ProviderError> {
        let built = program.build(&self.assembler.store, self.spec.recipe.platform).await;
        let built = built.map_err(|error| self.failed(&error))?;
        let what = FileWhat::Blob { digest: built.digest, size: built.size };
        let entry = FileEntry { path: to.to_owned(), mode: 0o755, uid: 0, gid: 0, what };
        Ok(LayerRecipe::Files { entries: vec![entry] })
    }

    /// Another image of the fleet, made earlier in this run or an earlier one; taken from the engine or the registry that has
    /// it where the store has not.
    async fn other(&self, name: &str) -> Result<Image, ProviderError> {
        let hash = match self.derivation.inputs.get("base") {
            Some(fleet_derivation::Input::Derivation { hash, .. }) => *hash,
            _ => return Err(self.failed_with("its derivation does not name its base")),
        };
        let known =
            self.assembler.store.get_record::<Image>(&image_record(&hash)).map_err(|error| self.failed(&error))?;
        let whole = |layer: &LayerDescriptor| layer.uncompressed > 0 && self.is_stored(layer);
        let here = |known: &Image| self.assembler.described || known.layers.iter().all(whole);
        if let Some(known) = known.filter(here) {
            return Ok(known);
        }
        if let Some(image) = self.other_in_engine(name, &hash).await? {
            return Ok(image);
        }
        let image = self.other_kept(name, &hash).await?;
        image.ok_or_else(|| {
            self.failed_with(&format!(
                "the layers of image {name} are not in .fleet/; run `fleetctl build {name} --to oci:DIR`"
            ))
        })
    }

    /// Another image of the fleet, out of the registry that its images are kept in.
    async fn other_kept(&self, name: &str, hash: &Hash) -> Result<Option<Image>, ProviderError> {
        let Some((client, registry)) = &self.assembler.kept else { return Ok(None) };
        let repository = format!("{registry}/{}", fleet_graph::image::repository(&self.assembler.fleet, name));
        let found = client.exists(&repository, &format!("d-{hash}")).await.map_err(|error| self.failed(&error))?;
        let Some(digest) = found else { return Ok(None) };
        self.progress(format!("reading {repository}@{digest}"));
        let platform = self.spec.recipe.platform;
        let pulled = client.pull(&repository, &digest, platform, Arc::clone(&self.assembler.store)).await;
        let base = pulled.map_err(|error| self.failed(&error))?;
        let image = image::assemble(&base, platform, &fleet_oci::ImageConfig::default(), &[]);
        let blobs = layer_blobs(&image);
        self.assembler.store.put_record(&image_record(hash), &image, &blobs).map_err(|error| self.failed(&error))?;
        Ok(Some(image))
    }

    async fn pull(&self, reference: &str, digest: &fleet_oci::Digest) -> Result<Base, ProviderError> {
        if let Some(name) = in_engine(reference) {
            return self.base_in_engine(name, digest).await;
        }
        let store = Arc::clone(&self.assembler.store);
        if let Some(local) = LocalImage::parse(reference, &self.assembler.project) {
            let (digest, platform, compression) =
                (digest.clone(), self.spec.recipe.platform, self.spec.recipe.compression);
            let read = tokio::task::spawn_blocking(move || local.read(&digest, platform, compression, &store));
            let read = read.await.map_err(|stopped| self.failed(&stopped))?;
            return read.map_err(|error| self.failed(&error));
        }
        let (registries, platform) = (&self.assembler.registries, self.spec.recipe.platform);
        let base = if self.assembler.described {
            registries.describe(reference, digest, platform, &store).await
        } else {
            registries.pull(reference, digest, platform, store).await
        };
        base.map_err(|error| self.failed(&error))
    }

    fn progress(&self, what: String) {
        self.events.emit(Event::Progress { address: self.address.clone(), what });
    }

    fn failed(&self, error: &dyn std::error::Error) -> ProviderError {
        ProviderError::caused(self.address, error)
    }

    fn failed_with(&self, why: &str) -> ProviderError {
        ProviderError::failed(self.address, why)
    }
}

/// Keys of the layers made here: the hashes of their derivations, in order.
#[must_use]
pub fn layer_keys(derivation: &Derivation) -> Vec<Hash> {
    let mut keys: BTreeMap<usize, Hash> = BTreeMap::new();
    for (name, input) in &derivation.inputs {
        let index = name.strip_prefix("layer.").and_then(|rest| rest.split('.').next()?.parse().ok());
        if let (Some(index), fleet_derivation::Input::Derivation { hash, .. }) = (index, input) {
            keys.insert(index, *hash);
        }
    }
    keys.into_values().collect()
}

/// The record of a layer.
#[must_use]
pub fn layer_record(key: &Hash) -> RecordId {
    RecordId { space: "layers".to_owned(), key: key.to_string() }
}

/// What a person should know of how an image's own layers were made, whenever that was: scripts of packages that were not
/// run, say. Of layers that are not in this store nothing is known.
///
/// # Errors
/// A store that cannot be read.
pub fn notes(store: &Store, derivation: &Derivation) -> Result<Vec<String>, ObjectError> {
    let mut all = Vec::new();
    for key in layer_keys(derivation) {
        let record = store.get_record::<LayerRecord>(&layer_record(&key))?;
        all.extend(record.and_then(|record| record.notes).into_iter().flatten());
    }
    Ok(all)
}

/// Only packages bring scripts.
const fn may_have_notes(recipe: &LayerRecipe) -> bool {
    matches!(recipe, LayerRecipe::Debian { .. } | LayerRecipe::Npm { .. })
}

/// The record of an image.
#[must_use]
pub fn image_record(hash: &Hash) -> RecordId {
    RecordId { space: "images".to_owned(), key: hash.to_string() }
}
