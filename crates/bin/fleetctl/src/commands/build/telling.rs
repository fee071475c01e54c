//! [`Tellings`]: what will be said about the images of an environment once they are made: for who pushes them elsewhere than
//! `build` does.

use std::{collections::BTreeMap, sync::Arc};

use fleet_derivation::Hash;
use fleet_oci::{
    Image, Upload,
    attestation::Subject,
    materials::{Material, materials},
};
use fleet_store::{ObjectError, Store};

use super::{
    make::{Once, chain, with_bases},
    statements::{self, Commit, Facts},
};
use crate::{error::Failure, pipeline::Prepared};

/// Of every image of an environment, for the platform of its target.
pub struct Tellings {
    store: Arc<Store>,
    commit: Commit,
    known: BTreeMap<String, Known>,
}

/// What is known of an image before it is made.
struct Known {
    repository: String,
    hash: Hash,
    /// Hashes of those that it stands on.
    below: Vec<Hash>,
    inputs: BTreeMap<String, (&'static str, String)>,
    materials: Vec<Material>,
    once: Once,
}

impl Tellings {
    /// What is known now.
    ///
    /// # Errors
    /// Every problem of these images.
    pub fn of(prepared: &Prepared) -> Result<Self, Failure> {
        let planned = prepared.images(&prepared.resolved.images)?;
        let mut known = BTreeMap::new();
        for (name, one) in &planned {
            let recipes = chain(prepared, &planned, name);
            let below = with_bases(prepared, &[name.clone()].into());
            known.insert(
                name.clone(),
                Known {
                    repository: fleet_graph::image::repository(&prepared.scope.fleet, name),
                    hash: one.hash,
                    below: below.iter().filter_map(|name| Some(planned.get(name)?.hash)).collect(),
                    inputs: statements::inputs(one),
                    materials: materials(recipes.iter().copied()),
                    once: Once::of(&recipes),
                },
            );
        }
        let (store, commit) = (Arc::clone(&prepared.opened.store), Commit::of(&prepared.opened.root));
        Ok(Self { store, commit, known })
    }

    /// What is said about an image, now that it is made; nothing about one that was not known.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub async fn about(&self, name: &str, image: &Image) -> Result<Vec<Upload>, ObjectError> {
        let Some(known) = self.known.get(name) else { return Ok(Vec::new()) };
        let facts = Facts {
            subject: Subject::of_image(image),
            image: name.to_owned(),
            repository: known.repository.clone(),
            platform: Some(image.platform),
            derivation: known.hash.to_string(),
            inputs: known.inputs.clone(),
            materials: known.materials.clone(),
            once: known.once.clone().by(&self.store, &known.below)?,
        };
        let revision = self.commit.get().await;
        Ok(facts.statements(revision.as_ref()).iter().map(Upload::of_referrer).collect())
    }
}
