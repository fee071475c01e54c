//! Images that a container engine has: those that it built from a Containerfile, others of the fleet whose layers are no
//! longer here, and bases that only the engine has (`base "engine:NAME:TAG"`). They are taken out of it into the store, layer
//! by layer, and trusted as little as an archive from anywhere.

use std::collections::BTreeMap;

use fleet_apply::{Event, ProviderError};
use fleet_derivation::{Hash, Input};
use fleet_docker::{Engine, EngineError, save::SaveError};
use fleet_oci::{
    Compression, Digest, Image, ImageConfig, LayerDescriptor, LayerRecipe, Platform,
    image::{self, Base},
};
use fleet_registry::{LocalError, LocalImage};
use fleet_store::{ObjectError, Output, RecordId, Store};
use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::{Assembling, image_record};
use crate::{
    blobs::{blob_id, layer_blobs},
    in_engine::InEngine,
};

/// Who built an image that we did not make.
#[derive(Serialize, Deserialize)]
struct BuiltBy {
    /// `Docker 20.10.24`
    engine: String,
}

/// The engine that built an image from a Containerfile, where that happened here; for what is said about the image.
///
/// # Errors
/// A store that cannot be read.
pub fn built_by(store: &Store, derivation: &Hash) -> Result<Option<String>, ObjectError> {
    Ok(store.get_record::<BuiltBy>(&built_by_record(derivation))?.map(|built| built.engine))
}

fn built_by_record(derivation: &Hash) -> RecordId {
    RecordId { space: "built-by".to_owned(), key: derivation.to_string() }
}

/// What the engine calls a base: `NAME:TAG` of `engine:NAME:TAG`.
#[must_use]
pub fn in_engine(reference: &str) -> Option<&str> {
    reference.strip_prefix("engine:")
}

fn base_record(pinned: &Digest, compression: Compression) -> RecordId {
    RecordId { space: "engine-bases".to_owned(), key: format!("{}-{compression:?}", pinned.hex()).to_lowercase() }
}

/// A base as it was taken out of an engine, where the store has all of it.
///
/// # Errors
/// A store that cannot be read.
pub fn taken_before(store: &Store, pinned: &Digest, compression: Compression) -> Result<Option<Image>, ObjectError> {
    let known = store.get_record::<Image>(&base_record(pinned, compression))?;
    Ok(known.filter(|known| known.layers.iter().all(|layer| is_stored(store, layer))))
}

/// With all its bytes: layers are not synced when they are made.
pub(super) fn is_stored(store: &Store, layer: &LayerDescriptor) -> bool {
    blob_id(&layer.digest).is_some_and(|blob| store.has_whole_blob(&blob, layer.size))
}

/// Why a base was not taken out of the engine.
#[derive(Debug, thiserror::Error)]
pub enum EngineBaseError {
    /// The engine does not have it.
    #[error("the engine has no image {0}; pull, load or build it there first")]
    Absent(String),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Its archive.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The store.
    #[error("the store has no place for the engine's archive: {0}")]
    Scratch(#[from] std::io::Error),
    /// What is in the archive.
    #[error("the engine's archive of {name}: {source}")]
    Archive {
        /// What the engine calls the image.
        name: String,
        /// What is wrong.
        #[source]
        source: LocalError,
    },
}

/// The digest that pins an image of the engine: that of its config, which names every layer. Engines name images in ways of
/// their own, so it is taken out and looked at.
///
/// # Errors
/// [`EngineBaseError`].
pub async fn pin(engine: &Engine, name: &str, platform: Platform, store: &Store) -> Result<Digest, EngineBaseError> {
    let id = engine.inspect_id(name).await?.ok_or_else(|| EngineBaseError::Absent(name.to_owned()))?;
    let archive = archive(engine, &id, store).await?;
    let local = LocalImage::Archive { file: archive.path().to_owned(), name: None };
    local.resolve(platform).map_err(|source| EngineBaseError::Archive { name: name.to_owned(), source })
}

/// An image as the engine writes it out, in a file that goes with the value.
async fn archive(engine: &Engine, id: &str, store: &Store) -> Result<NamedTempFile, EngineBaseError> {
    let mut file = store.scratch_file()?;
    engine.save(id, file.as_file_mut()).await?;
    Ok(file)
}

impl Assembling<'_> {
    /// A base that the engine calls `name`, pinned by its config: as it was taken from an engine before, else out of the one
    /// here.
    pub(super) async fn base_in_engine(&self, name: &str, pinned: &Digest) -> Result<Base, ProviderError> {
        let (store, compression) = (&self.assembler.store, self.spec.recipe.compression);
        if let Some(known) = taken_before(store, pinned, compression).map_err(|error| self.failed(&error))? {
            return Ok(Base::from(&known));
        }
        let Some(engine) = &self.assembler.engine else {
            let why = format!("it stands on engine:{name}, which a container engine has, and none answers here");
            let help = "start Docker or Podman, or name a base that a registry has";
            return Err(ProviderError::failed(self.address, why).help(help));
        };
        let id = engine.inspect_id(name).await.map_err(|error| self.failed(&error))?;
        let id = id.ok_or_else(|| self.failed(&EngineBaseError::Absent(name.to_owned())))?;
        let (found, base) = self.saved(engine, &id, compression).await?;
        if found != *pinned {
            let why =
                format!("engine:{name} is {found}, fleet.lock pins {pinned}; run `fleetctl lock` if that is meant");
            return Err(self.failed_with(&why));
        }
        let image = made_of(&base, self.spec.recipe.platform);
        let blobs = layer_blobs(&image);
        let record = base_record(pinned, compression);
        store.put_record(&record, &image, &blobs).map_err(|error| self.failed(&error))?;
        Ok(base)
    }

    /// An image from a Containerfile: as it was taken from an engine before, else as an engine here has or builds it. Checked
    /// there first, as wherever an engine makes an image.
    pub(super) async fn by_containerfile(&self, path: &str) -> Result<Image, ProviderError> {
        let (store, hash) = (&self.assembler.store, self.derivation.hash());
        let known = store.get_record::<Image>(&image_record(&hash)).map_err(|error| self.failed(&error))?;
        if let Some(known) = known.filter(|known| known.layers.iter().all(|layer| self.is_stored(layer))) {
            return Ok(known);
        }
        let Some(engine) = &self.assembler.engine else {
            let why = format!("a container engine builds it, from {path}, and none answers here");
            let help = format!("start Docker, or declare layers for it in fleet.kdl and drop {path}");
            return Err(ProviderError::failed(self.address, why).help(help));
        };
        let place = InEngine {
            engine,
            assembler: self.assembler,
            spec: self.spec,
            derivation: self.derivation,
            events: self.events,
        };
        let id = match place.find().await? {
            Some(id) => id,
            None => self.build(&place).await?,
        };
        let image = self.taken(engine, &id, self.spec.recipe.compression).await?;
        let by = BuiltBy { engine: format!("{:?} {}", engine.kind, engine.version) };
        store.put_record(&built_by_record(&hash), &by, &[]).map_err(|error| self.failed(&error))?;
        self.keep(&hash, &image)?;
        Ok(image)
    }

    /// Another image of the fleet, of which only the engine here has the layers. The same image comes of it: its config is
    /// ours, and its layers are packed as they were.
    pub(super) async fn other_in_engine(&self, name: &str, hash: &Hash) -> Result<Option<Image>, ProviderError> {
        let Some(engine) = &self.assembler.engine else { return Ok(None) };
        let tag = fleet_docker::images::tag(&self.assembler.fleet, name, *hash);
        let Some(id) = engine.inspect_id(&tag).await.map_err(|error| self.failed(&error))? else { return Ok(None) };
        let image = self.taken(engine, &id, self.spec.recipe.compression).await?;
        self.keep(hash, &image)?;
        Ok(Some(image))
    }

    async fn build(&self, place: &InEngine<'_>) -> Result<String, ProviderError> {
        let base = self.lend_base(place).await?;
        let built = async {
            let id = place.build(base.as_deref()).await?;
            place.keep(&id).await?;
            Ok(id)
        };
        let built = built.await;
        if let Some(name) = base {
            place.untag(&name).await?;
        }
        built
    }

    /// Has the fleet's image that it stands on in the engine, under a name of its own: its tag would say that it was checked
    /// there. `None` where there is no such image, or the engine has it.
    async fn lend_base(&self, place: &InEngine<'_>) -> Result<Option<String>, ProviderError> {
        let Some(Input::Derivation { address, hash, .. }) = self.derivation.inputs.get("base") else { return Ok(None) };
        let tag = fleet_docker::images::tag(&self.assembler.fleet, &address.name, *hash);
        if place.engine.inspect_id(&tag).await.map_err(|error| self.failed(&error))?.is_some() {
            return Ok(None);
        }
        let image = self.other(&address.name).await?;
        let name = format!("{}/{}:base-{}", self.assembler.fleet, address.name, self.derivation.hash().short());
        place.load(&address.name, &image, &name).await?;
        Ok(Some(name))
    }

    /// An image out of the engine; config and manifest ours.
    async fn taken(&self, engine: &Engine, id: &str, compression: Compression) -> Result<Image, ProviderError> {
        let (_, base) = self.saved(engine, id, compression).await?;
        Ok(made_of(&base, self.spec.recipe.platform))
    }

    /// What an image of the engine is made of, with the digest of its config: its layers in the store, their tars as the
    /// engine has them.
    async fn saved(
        &self,
        engine: &Engine,
        id: &str,
        compression: Compression,
    ) -> Result<(Digest, Base), ProviderError> {
        self.progress("taking it out of the engine".to_owned());
        self.events.emit(Event::Call { system: "docker".to_owned(), call: format!("save {id}"), write: false });
        let file = archive(engine, id, &self.assembler.store).await.map_err(|error| self.failed(&error))?;
        let (platform, store) = (self.spec.recipe.platform, self.assembler.store.clone());
        let read = tokio::task::spawn_blocking(move || {
            let archive = LocalImage::Archive { file: file.path().to_owned(), name: None };
            let digest = archive.resolve(platform)?;
            let base = archive.read(&digest, platform, compression, &store)?;
            drop(file);
            Ok((digest, base))
        });
        let read = read.await.map_err(|stopped| self.failed(&stopped))?;
        let (digest, base) =
            read.map_err(|source| self.failed(&EngineBaseError::Archive { name: id.to_owned(), source }))?;
        let known = engine.layers(id).await.map_err(|error| self.failed(&error))?.unwrap_or_default();
        if !base.layers.iter().map(|layer| layer.diff_id.to_string()).eq(known) {
            return Err(
                self.failed_with(&format!("the engine's archive of {id} has other layers than the engine says"))
            );
        }
        Ok((digest, base))
    }

    fn keep(&self, hash: &Hash, image: &Image) -> Result<(), ProviderError> {
        let (store, record) = (&self.assembler.store, image_record(hash));
        let blobs = layer_blobs(image);
        store.put_record(&record, image, &blobs).map_err(|error| self.failed(&error))?;
        // What the engine calls it stays what it is; beside it, what collection must leave.
        let output = store.output(hash).map_err(|error| self.failed(&error))?;
        let mut output = output.unwrap_or_else(|| Output { digest: image.digest.to_string(), ..Output::default() });
        if !output.records.contains(&record) {
            output.records.push(record);
            store.put_output(hash, &output).map_err(|error| self.failed(&error))?;
        }
        Ok(())
    }
}

fn made_of(base: &Base, platform: Platform) -> Image {
    image::assemble(base, platform, &ImageConfig::default(), &[])
}

/// Paths of the Containerfiles that images of a chain are built from.
#[must_use]
pub fn containerfiles<'a>(recipes: impl IntoIterator<Item = &'a fleet_oci::ImageRecipe>) -> Vec<String> {
    let layers = recipes.into_iter().flat_map(|recipe| &recipe.layers);
    let paths = layers.filter_map(|layer| match layer {
        LayerRecipe::Containerfile { path, .. } => Some((path.clone(), ())),
        _ => None,
    });
    paths.collect::<BTreeMap<_, _>>().into_keys().collect()
}
