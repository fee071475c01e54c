//! [`ImageProvider`]: images as a provider on the docker target: assembled in the store (`assembly.rs`), loaded into the
//! engine, checked there, and only then tagged with the derivation's hash (`in_engine.rs`).

use async_trait::async_trait;
use fleet_apply::{Applied, Events, Provider, ProviderError, Ready};
use fleet_derivation::Derivation;
use fleet_docker::Engine;
use fleet_model::{Address, Kind};
use fleet_oci::LayerRecipe;
use fleet_plan::{Change, Desired, State};
use fleet_store::Output;

use crate::{
    assembly::{self, Assembler},
    in_engine::{InEngine, unreachable_engine},
};

/// Makes images for a container engine.
pub struct ImageProvider {
    /// The engine.
    pub engine: Engine,
    /// Makes images into the store.
    pub assembler: Assembler,
}

#[async_trait]
impl Provider for ImageProvider {
    fn name(&self) -> &'static str {
        "images"
    }

    fn owns(&self, address: &Address) -> bool {
        address.kind == Kind::Image
    }

    async fn observe(&self, _: &[Address]) -> Result<State, ProviderError> {
        let images = self.engine.list_fleet_images(&self.assembler.fleet).await.map_err(unreachable_engine)?;
        let outputs = images.into_iter().map(|((_, hash), id)| (hash, id)).collect();
        Ok(State { outputs, ..State::default() })
    }

    async fn apply(&self, change: &Change, _: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        let (Some(Desired::Image(spec)), Some(derivation)) = (&change.desired, &change.derivation) else {
            return Err(ProviderError::failed(&change.address, "the plan has no recipe for it"));
        };
        let making = InEngine { engine: &self.engine, assembler: &self.assembler, spec, derivation, events };
        if let Some(id) = making.find().await? {
            return Ok(Applied::Unchanged { output: Some(id) });
        }
        let id = match spec.recipe.layers.as_slice() {
            [LayerRecipe::Containerfile { .. }] => making.build(None).await?,
            _ => {
                let image = self.assembler.assemble(spec, derivation, events).await?;
                making.load(&spec.name, &image, &making.trial()).await?
            }
        };
        making.keep(&id).await?;
        self.record(derivation, &id)?;
        Ok(Applied::Changed { output: Some(id) })
    }
}

impl ImageProvider {
    fn record(&self, derivation: &Derivation, id: &str) -> Result<(), ProviderError> {
        let layers = assembly::layer_keys(derivation).iter().map(assembly::layer_record).collect();
        let output = Output { digest: id.to_owned(), records: layers, ..Output::default() };
        let recorded = self.assembler.store.put_output(&derivation.hash(), &output);
        recorded.map_err(|error| ProviderError::caused(&derivation.address, &error))
    }
}
