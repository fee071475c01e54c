//! Install scripts that are allowed: run in a container of the image so far, what they changed becomes a layer of its own.

use std::{collections::BTreeSet, io, sync::Arc};

use fleet_apply::{Event, ProviderError};
use fleet_derivation::Hash;
use fleet_docker::scripts::Scripts;
use fleet_oci::{
    ImageConfig, ImageRecipe, LayerDescriptor, LayerRecipe,
    export::{self, Named},
    image::{self, Base},
};
use fleet_store::{BlobId, RecordId};

use super::Assembling;
use crate::blobs::{StoreCache, blob_id};

/// Names of the packages of an image whose install scripts run, in order; with any, it cannot be made again byte by byte.
#[must_use]
pub fn allowed(recipe: &ImageRecipe) -> Vec<String> {
    let names: BTreeSet<&String> = recipe.layers.iter().flat_map(names).collect();
    names.into_iter().cloned().collect()
}

fn names(layer: &LayerRecipe) -> &[String] {
    match layer {
        LayerRecipe::Npm { allow_scripts, .. } => allow_scripts,
        _ => &[],
    }
}

impl Assembling<'_> {
    /// The layer that scripts of this layer's packages add, above everything so far; made once and then kept, because it
    /// would not be the same again.
    pub(super) async fn scripts(
        &self,
        layer: &LayerRecipe,
        key: Hash,
        (base, layers): (&Base, &[LayerDescriptor]),
    ) -> Result<Option<LayerDescriptor>, ProviderError> {
        let LayerRecipe::Npm { to, packages, .. } = layer else { return Ok(None) };
        let allowed = names(layer);
        if allowed.is_empty() {
            return Ok(None);
        }
        let store = &self.assembler.store;
        let id = RecordId { space: "script-layers".to_owned(), key: key.to_string() };
        let known = store.get_record::<LayerDescriptor>(&id).map_err(|error| self.failed(&error))?;
        if let Some(known) = known.filter(|known| self.is_stored(known)) {
            return Ok(Some(known));
        }
        let folders: Vec<String> =
            packages.iter().filter(|pin| allowed.contains(&pin.name)).map(|pin| pin.path.clone()).collect();
        // Always said, unlike progress: somebody else's code is about to run.
        let text = format!("{}: running install scripts of {}", self.address, allowed.join(", "));
        self.events.emit(Event::Notice { text });
        let made = self.run_scripts(to, &folders, (base, layers)).await?;
        let blobs: Vec<BlobId> = blob_id(&made.digest).into_iter().collect();
        store.put_record(&id, &made, &blobs).map_err(|error| self.failed(&error))?;
        Ok(Some(made))
    }

    async fn run_scripts(
        &self,
        folder: &str,
        packages: &[String],
        (base, layers): (&Base, &[LayerDescriptor]),
    ) -> Result<LayerDescriptor, ProviderError> {
        let Some(engine) = &self.assembler.engine else {
            return Err(self.failed_with(
                "its install scripts run in a container, and no container engine answers; start Docker or Podman",
            ));
        };
        let recipe = &self.spec.recipe;
        let so_far = image::assemble(base, recipe.platform, &ImageConfig::default(), layers);
        let name = format!("{}/{}:scripts-{}", self.assembler.fleet, self.spec.name, self.derivation.hash().short());
        let names = [name.clone()];
        let export = export::plan(&[Named { image: &so_far, names: &names }], &BTreeSet::new());
        let cache = Arc::new(StoreCache(Arc::clone(&self.assembler.store)));
        let archive = fleet_packages::archive_stream(Arc::<StoreCache>::clone(&cache), export);
        engine.load(archive).await.map_err(|error| self.failed(&error))?;
        let mut file = self.assembler.store.scratch_file().map_err(|error| self.failed(&error))?;
        let ran = engine.run_scripts(&Scripts { image: &name, folder, packages }, file.as_file_mut()).await;
        let untagged = engine.remove_image_tag(&name).await;
        let changes = ran.map_err(|error| self.failed(&error))?;
        untagged.map_err(|error| self.failed(&error))?;
        let packing = recipe.packing();
        let packed = tokio::task::spawn_blocking(move || {
            let archive = file.reopen()?;
            fleet_packages::pack(&*cache, packing, |sink| changes.tree(io::BufReader::new(archive), sink))
        });
        let packed = packed.await.map_err(|stopped| self.failed(&stopped))?;
        packed.map_err(|error| self.failed(&error))
    }
}
