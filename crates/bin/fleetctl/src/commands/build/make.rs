//! [`make`]: images of an environment for some platforms, with statements about them, in the store and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::{Derivation, Hash};
use fleet_graph::image::{PlannedImage, needs, repository};
use fleet_model::{Address, Kind};
use fleet_oci::{
    Digest, Image, ImageRecipe, Index, LayerRecipe, Platform, Referrer, Upload, layout::Item, provenance::Revision,
};

use super::statements::{self, About};
use crate::{
    assembly::{self, allowed},
    context::Context,
    error::Failure,
    exit::Exit,
    pipeline::Prepared,
};

/// One image, for every platform that was asked for.
pub struct Made {
    /// Name in `fleet.kdl`.
    pub name: String,
    /// `<fleet>/<name>`
    pub repository: String,
    /// `d-<hash>`
    pub tag: String,
    /// By platform.
    pub platforms: BTreeMap<Platform, MadeImage>,
}

/// One image for one platform.
pub struct MadeImage {
    /// It.
    pub image: Image,
    /// Of its derivation.
    pub hash: Hash,
    /// Provenance and packages.
    pub statements: Vec<Referrer>,
    /// Packages whose install scripts ran: it cannot be made again byte by byte.
    pub scripts: Vec<String>,
}

impl Made {
    /// What has to be somewhere for it to be there: the image, or an index where there are several.
    ///
    /// # Errors
    /// Never for what [`make`] made: it has at least one platform and each once.
    pub fn upload(&self) -> Result<Upload, Failure> {
        match self.platforms.values().collect::<Vec<_>>().as_slice() {
            [one] => Ok(Upload::of_image(&one.image)),
            several => {
                let index = Index::of(several.iter().map(|made| made.image.clone()));
                let failed = |error| Failure::caused(Exit::Failed, format!("image {} has no index", self.name), &error);
                Ok(Upload::of_index(&index.map_err(failed)?))
            }
        }
    }

    /// Digest of [`Self::upload`].
    ///
    /// # Errors
    /// As there.
    pub fn digest(&self) -> Result<Digest, Failure> {
        self.upload().map(|upload| upload.digest)
    }

    /// It with its statements, for a layout.
    ///
    /// # Errors
    /// As [`Self::upload`].
    pub fn item(&self) -> Result<Item, Failure> {
        let statements = self.platforms.values().flat_map(|made| &made.statements).map(Upload::of_referrer).collect();
        let full_name = format!("{}:{}", self.repository, self.tag);
        Ok(Item { name: self.name.clone(), full_name, image: self.upload()?, statements })
    }

    /// Packages whose install scripts ran, on any platform.
    pub fn scripts(&self) -> BTreeSet<&str> {
        self.platforms.values().flat_map(|made| &made.scripts).map(String::as_str).collect()
    }
}

/// Makes images; those that they stand on are made, too, and not among the results.
///
/// # Errors
/// A platform that an image is not for, a pin that is missing, anything that keeps a layer from being made.
pub async fn make(
    context: &Context,
    prepared: &mut Prepared,
    names: &BTreeSet<String>,
    platforms: &BTreeSet<Platform>,
) -> Result<Vec<Made>, Failure> {
    let revision = statements::revision(&prepared.opened.root).await;
    let mut made: BTreeMap<String, BTreeMap<Platform, MadeImage>> = BTreeMap::new();
    for platform in platforms {
        prepared.platform = *platform;
        for (name, image) in of_platform(context, prepared, names, revision.as_ref()).await? {
            made.entry(name).or_default().insert(*platform, image);
        }
    }
    let of_name = |(name, platforms): (String, BTreeMap<Platform, MadeImage>)| {
        let repository = repository(&prepared.scope.fleet, &name);
        Made { tag: format!("d-{}", hash(&name, &platforms)), name, repository, platforms }
    };
    Ok(made.into_iter().map(of_name).collect())
}

/// The hash that the tag names: the derivation's, or that of all platforms' derivations.
fn hash(name: &str, platforms: &BTreeMap<Platform, MadeImage>) -> Hash {
    let mut all = Derivation::new(Address::new(Kind::Image, name));
    for (platform, made) in platforms {
        all.value(platform.to_string(), made.hash.to_string(), None);
    }
    match platforms.values().next() {
        Some(only) if platforms.len() == 1 => only.hash,
        _ => all.hash(),
    }
}

async fn of_platform(
    context: &Context,
    prepared: &Prepared,
    names: &BTreeSet<String>,
    revision: Option<&Revision>,
) -> Result<Vec<(String, MadeImage)>, Failure> {
    let order = with_bases(prepared, names);
    let planned = prepared.images(&order.iter().cloned().collect())?;
    let scripted = planned.values().any(|one| !allowed(&one.spec.recipe).is_empty());
    let engine = if scripted { Some(crate::world::engine().await?) } else { None };
    let assembler = prepared.assembler(engine)?;
    let mut made = Vec::new();
    for name in &order {
        let Some((one, derivation)) = planned.get(name).and_then(|one| Some((one, one.derivation()?))) else { continue };
        refuse_containerfile(one)?;
        let failed = |error: &dyn std::error::Error| {
            Failure::caused(Exit::Failed, format!("image {name} cannot be made for {}", prepared.platform), error)
        };
        prepared.opened.store.put_derivations(&one.derivations).map_err(|error| failed(&error))?;
        let image = assembler.assemble(&one.spec, derivation, &*context.console).await.map_err(|error| failed(&error))?;
        if names.contains(name) {
            let recipes = chain(prepared, &planned, name);
            let scripts = scripts(&recipes);
            let about = About { fleet: &prepared.scope.fleet, planned: one, recipes: &recipes, scripts: &scripts, revision };
            let statements = statements::about(&about, &image);
            made.push((name.clone(), MadeImage { image, hash: one.hash, statements, scripts }));
        }
    }
    Ok(made)
}

/// The images and all that they stand on, those first.
fn with_bases(prepared: &Prepared, names: &BTreeSet<String>) -> Vec<String> {
    let mut order: Vec<String> = Vec::new();
    for name in names {
        let mut chain = vec![name.as_str()];
        // fleet-model refused cycles.
        while let Some(base) = chain.last().and_then(|last| needs(prepared.model.images.get(*last)?)) {
            chain.push(base);
        }
        for name in chain.into_iter().rev() {
            if !order.iter().any(|known| known == name) {
                order.push(name.to_owned());
            }
        }
    }
    order
}

/// Recipes of an image and of all that it stands on.
fn chain<'p>(prepared: &Prepared, planned: &'p BTreeMap<String, PlannedImage>, name: &str) -> Vec<&'p ImageRecipe> {
    let names = with_bases(prepared, &BTreeSet::from([name.to_owned()]));
    names.iter().filter_map(|name| planned.get(name)).map(|one| &one.spec.recipe).collect()
}

/// Packages whose install scripts ran for an image, by the recipes of it and of all that it stands on.
fn scripts(recipes: &[&ImageRecipe]) -> Vec<String> {
    let names: BTreeSet<String> = recipes.iter().flat_map(|recipe| allowed(recipe)).collect();
    names.into_iter().collect()
}

/// Of these images, those for which install scripts run, with the packages.
///
/// # Errors
/// Every problem of these images.
pub fn scripted(prepared: &Prepared, names: &BTreeSet<String>) -> Result<BTreeMap<String, Vec<String>>, Failure> {
    let planned = prepared.images(&with_bases(prepared, names).into_iter().collect())?;
    let all = names.iter().map(|name| (name.clone(), scripts(&chain(prepared, &planned, name))));
    Ok(all.filter(|(_, scripts)| !scripts.is_empty()).collect())
}

/// What a person should know of how these images and those that they stand on were made, now or earlier: scripts of packages
/// that were not run, say.
///
/// # Errors
/// Every problem of these images; a store that cannot be read.
pub fn notes(
    prepared: &mut Prepared,
    names: &BTreeSet<String>,
    platforms: &BTreeSet<Platform>,
) -> Result<BTreeSet<String>, Failure> {
    let mut all = BTreeSet::new();
    for platform in platforms {
        prepared.platform = *platform;
        let planned = prepared.images(&with_bases(prepared, names).into_iter().collect())?;
        for derivation in planned.values().filter_map(PlannedImage::derivation) {
            let notes = assembly::notes(&prepared.opened.store, derivation)
                .map_err(|error| Failure::caused(Exit::Failed, "the store .fleet/ cannot be read", &error))?;
            all.extend(notes.iter().map(|note| format!("{}: {note}", derivation.address)));
        }
    }
    Ok(all)
}

fn refuse_containerfile(one: &PlannedImage) -> Result<(), Failure> {
    match one.spec.recipe.layers.as_slice() {
        [LayerRecipe::Containerfile { path, .. }] => {
            let name = &one.spec.name;
            Err(Failure::new(Exit::Failed, format!("image {name} is built by a container engine, from {path}"))
                .hint(format!("leave it there (`--to engine`), or declare layers for it in fleet.kdl and drop {path}")))
        }
        _ => Ok(()),
    }
}
