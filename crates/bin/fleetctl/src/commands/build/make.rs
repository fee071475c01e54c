//! [`make`]: images of an environment for some platforms, in the store and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::{Derivation, Hash};
use fleet_graph::image::{PlannedImage, needs, repository};
use fleet_model::{Address, Kind};
use fleet_oci::{
    Digest, Image, ImageRecipe, Index, LayerRecipe, Platform, Referrer, Upload,
    attestation::Subject,
    layout::Item,
    materials::{Material, materials},
};
use fleet_store::RecordId;
use tokio::sync::OnceCell;

use super::statements::{self, Commit, Facts};
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
    /// What has to be somewhere for it to be there: the image, or an index where there are several.
    pub upload: Upload,
    facts: Vec<Facts>,
    commit: Commit,
    said: OnceCell<Vec<Referrer>>,
}

/// One image for one platform.
pub struct MadeImage {
    /// It.
    pub image: Image,
    /// Of its derivation.
    pub hash: Hash,
    /// Packages whose install scripts ran: it cannot be made again byte by byte.
    pub scripts: Vec<String>,
}

impl Made {
    /// Digest of what was made.
    pub fn digest(&self) -> &Digest {
        &self.upload.digest
    }

    /// Provenance and packages of each platform's image, and of the index where there are several. Made when they are
    /// first asked for: of what is where it should be already, nobody asks.
    pub async fn statements(&self) -> &[Referrer] {
        let say = || async {
            let revision = self.commit.get().await;
            self.facts.iter().flat_map(|facts| facts.statements(revision.as_ref())).collect()
        };
        self.said.get_or_init(say).await
    }

    /// It with its statements, for a layout.
    pub async fn item(&self) -> Item {
        let statements = self.statements().await.iter().map(Upload::of_referrer).collect();
        let full_name = format!("{}:{}", self.repository, self.tag);
        Item { name: self.name.clone(), full_name, image: self.upload.clone(), statements }
    }

    /// Packages whose install scripts ran, on any platform.
    pub fn scripts(&self) -> BTreeSet<&str> {
        self.platforms.values().flat_map(|made| &made.scripts).map(String::as_str).collect()
    }
}

/// An image for one platform, before it is put together with the others.
struct Part {
    made: MadeImage,
    inputs: BTreeMap<String, (&'static str, String)>,
    materials: Vec<Material>,
}

/// Makes images, with what a person should know of how they were made; those that they stand on are made, too, and not
/// among the images.
///
/// # Errors
/// A platform that an image is not for, a pin that is missing, anything that keeps a layer from being made.
pub async fn make(
    context: &Context,
    prepared: &mut Prepared,
    names: &BTreeSet<String>,
    platforms: &BTreeSet<Platform>,
) -> Result<(Vec<Made>, BTreeSet<String>), Failure> {
    let commit = Commit::of(&prepared.opened.root);
    let mut made: BTreeMap<String, BTreeMap<Platform, Part>> = BTreeMap::new();
    let mut all_notes = BTreeSet::new();
    for platform in platforms {
        prepared.platform = *platform;
        let (parts, notes) = of_platform(context, prepared, names, &commit).await?;
        all_notes.extend(notes);
        for (name, image) in parts {
            made.entry(name).or_default().insert(*platform, image);
        }
    }
    let made: Result<Vec<Made>, Failure> =
        made.into_iter().map(|(name, parts)| together(prepared, name, parts, commit.clone())).collect();
    Ok((made?, all_notes))
}

/// Images of one name for several platforms, with what is to be said about each and about their index.
fn together(
    prepared: &Prepared,
    name: String,
    parts: BTreeMap<Platform, Part>,
    commit: Commit,
) -> Result<Made, Failure> {
    let repository = repository(&prepared.scope.fleet, &name);
    let hashes = parts.iter().map(|(platform, part)| (*platform, part.made.hash)).collect();
    let hash = hash(&name, &hashes);
    let facts = |subject, platform, hash: Hash, part: Part| Facts {
        subject,
        image: name.clone(),
        repository: repository.clone(),
        platform,
        derivation: hash.to_string(),
        inputs: part.inputs,
        materials: part.materials,
        scripts: part.made.scripts,
    };
    let images: Vec<Image> = parts.values().map(|part| part.made.image.clone()).collect();
    let mut whole = Vec::new();
    let upload = match images.as_slice() {
        [one] => Upload::of_image(one),
        _ => {
            let failed = |error| Failure::caused(Exit::Failed, format!("image {name} has no index"), &error);
            let index = Index::of(images).map_err(failed)?;
            let materials: BTreeSet<&Material> = parts.values().flat_map(|part| &part.materials).collect();
            let scripts: BTreeSet<&String> = parts.values().flat_map(|part| &part.made.scripts).collect();
            whole.push(Facts {
                subject: Subject::of_index(&index),
                image: name.clone(),
                repository: repository.clone(),
                platform: None,
                derivation: hash.to_string(),
                inputs: hashes.iter().map(|(platform, hash)| (platform.to_string(), ("blake3", hash.to_string()))).collect(),
                materials: materials.into_iter().cloned().collect(),
                scripts: scripts.into_iter().cloned().collect(),
            });
            Upload::of_index(&index)
        }
    };
    let mut platforms = BTreeMap::new();
    for (platform, part) in parts {
        let made = MadeImage { image: part.made.image.clone(), hash: part.made.hash, scripts: part.made.scripts.clone() };
        whole.push(facts(Subject::of_image(&made.image), Some(platform), made.hash, part));
        platforms.insert(platform, made);
    }
    let tag = format!("d-{hash}");
    Ok(Made { name, repository, tag, platforms, upload, facts: whole, commit, said: OnceCell::new() })
}

/// The hash that the tag names: the derivation's, or that of all platforms' derivations.
fn hash(name: &str, platforms: &BTreeMap<Platform, Hash>) -> Hash {
    let mut all = Derivation::new(Address::new(Kind::Image, name));
    for (platform, hash) in platforms {
        all.value(platform.to_string(), hash.to_string(), None);
    }
    match platforms.values().next() {
        Some(only) if platforms.len() == 1 => *only,
        _ => all.hash(),
    }
}

async fn of_platform(
    context: &Context,
    prepared: &Prepared,
    names: &BTreeSet<String>,
    commit: &Commit,
) -> Result<(Vec<(String, Part)>, BTreeSet<String>), Failure> {
    let order = with_bases(prepared, names);
    let planned = prepared.images(&order.iter().cloned().collect())?;
    if !planned.values().all(|one| is_made(prepared, one)) {
        // Somebody will want to know what the new image was made from.
        commit.wanted_soon();
    }
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
            let (inputs, materials) = (statements::inputs(one), materials(recipes.iter().copied()));
            let made_image = MadeImage { image, hash: one.hash, scripts: scripts(&recipes) };
            made.push((name.clone(), Part { made: made_image, inputs, materials }));
        }
    }
    let notes = notes_of(prepared, &planned)?;
    // As in `build`: nobody needs its memory any more, and taking it apart takes longer than the end of the process.
    std::mem::forget(planned);
    Ok((made, notes))
}

/// Whether an image was made here before.
fn is_made(prepared: &Prepared, one: &PlannedImage) -> bool {
    let record: RecordId = assembly::image_record(&one.hash);
    matches!(prepared.opened.store.get_record::<Image>(&record), Ok(Some(_)))
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
        all.extend(notes_of(prepared, &prepared.images(&with_bases(prepared, names).into_iter().collect())?)?);
    }
    Ok(all)
}

fn notes_of(prepared: &Prepared, planned: &BTreeMap<String, PlannedImage>) -> Result<BTreeSet<String>, Failure> {
    let mut all = BTreeSet::new();
    for derivation in planned.values().filter_map(PlannedImage::derivation) {
        let notes = assembly::notes(&prepared.opened.store, derivation)
            .map_err(|error| Failure::caused(Exit::Failed, "the store .fleet/ cannot be read", &error))?;
        all.extend(notes.iter().map(|note| format!("{}: {note}", derivation.address)));
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
