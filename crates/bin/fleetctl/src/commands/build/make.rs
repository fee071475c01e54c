//! [`make`]: images of an environment for some platforms, in the store and nowhere else.

use std::collections::{BTreeMap, BTreeSet};

use fleet_apply::ProviderError;
use fleet_derivation::{Derivation, Hash};
use fleet_docker::Engine;
use fleet_graph::image::{PlannedImage, needs, repository};
use fleet_model::{Address, Kind};
use fleet_oci::{
    Digest, Image, ImageRecipe, Index, LayerRecipe, Platform, Referrer, Upload,
    attestation::Subject,
    layout::Item,
    materials::{Material, materials},
};
use fleet_plan::ImageSpec;
use fleet_store::{ObjectError, RecordId, Store};
use tokio::sync::OnceCell;

use super::statements::{self, Commit, Facts};
use crate::{
    assembly::{self, Assembler, allowed, containerfiles},
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
    /// Why it cannot be made again byte by byte.
    pub once: Once,
}

/// What keeps an image from being made again byte by byte: programs of others ran when it was made.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Once {
    /// Packages whose install scripts ran.
    pub scripts: BTreeSet<String>,
    /// Containerfiles that an engine built it from, or something that it stands on.
    pub containerfiles: BTreeSet<String>,
    /// The engines that did, where that is known.
    pub engines: BTreeSet<String>,
}

impl Once {
    /// By the recipes of an image and of all that it stands on.
    pub fn of(recipes: &[&ImageRecipe]) -> Self {
        Self {
            scripts: recipes.iter().flat_map(|recipe| allowed(recipe)).collect(),
            containerfiles: containerfiles(recipes.iter().copied()).into_iter().collect(),
            engines: BTreeSet::new(),
        }
    }

    /// With the engines that are known to have built these derivations.
    ///
    /// # Errors
    /// A store that cannot be read.
    pub fn by(mut self, store: &Store, derivations: &[Hash]) -> Result<Self, ObjectError> {
        if !self.containerfiles.is_empty() {
            for hash in derivations {
                self.engines.extend(assembly::built_by(store, hash)?);
            }
        }
        Ok(self)
    }

    /// The same of several images.
    fn all<'a>(several: impl IntoIterator<Item = &'a Self>) -> Self {
        several.into_iter().fold(Self::default(), |mut all, one| {
            all.scripts.extend(one.scripts.iter().cloned());
            all.containerfiles.extend(one.containerfiles.iter().cloned());
            all.engines.extend(one.engines.iter().cloned());
            all
        })
    }

    /// Whether it is the same whenever it is made.
    pub fn is_reproducible(&self) -> bool {
        self.scripts.is_empty() && self.containerfiles.is_empty()
    }

    /// What ran, for people; in the order in which it did.
    pub fn words(&self) -> String {
        let listed = |what: &str, names: &BTreeSet<String>| {
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
        };
        let parts = [
            listed("a container engine builds it from", &self.containerfiles),
            listed("runs install scripts of", &self.scripts),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
    }
}

impl Made {
    /// Digest of what was made.
    pub fn digest(&self) -> &Digest {
        &self.upload.digest
    }

    /// Provenance and packages of each platform's image, and of the index where there are several. Made when they are
    /// first asked for: of what is where it should be already, nobody asks. None where none are wanted.
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

    /// Why it cannot be made again byte by byte, on any platform.
    pub fn once(&self) -> Once {
        Once::all(self.platforms.values().map(|made| &made.once))
    }
}

/// An image for one platform, before it is put together with the others.
struct Part {
    made: MadeImage,
    inputs: BTreeMap<String, (&'static str, String)>,
    materials: Vec<Material>,
}

/// What is to be made.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// Names in `fleet.kdl`.
    pub names: &'a BTreeSet<String>,
    /// For these.
    pub platforms: &'a BTreeSet<Platform>,
    /// They go nowhere else: layers of bases in registries stay there.
    pub only_registries: bool,
    /// With what is said about them.
    pub statements: bool,
}

/// Makes images, with what a person should know of how they were made; those that they stand on are made, too, and not
/// among the images.
///
/// # Errors
/// A platform that an image is not for, a pin that is missing, anything that keeps a layer from being made.
pub async fn make(
    context: &Context,
    prepared: &mut Prepared,
    wanted: Wanted<'_>,
) -> Result<(Vec<Made>, BTreeSet<String>), Failure> {
    let commit = Commit::of(&prepared.opened.root);
    let mut made: BTreeMap<String, BTreeMap<Platform, Part>> = BTreeMap::new();
    let mut all_notes = BTreeSet::new();
    for platform in wanted.platforms {
        prepared.platform = *platform;
        let (parts, notes) = of_platform(context, prepared, wanted, &commit).await?;
        all_notes.extend(notes);
        for (name, image) in parts {
            made.entry(name).or_default().insert(*platform, image);
        }
    }
    let mut all = Vec::new();
    for (name, parts) in made {
        let made = together(prepared, name, parts, commit.clone())?;
        all.push(if wanted.statements { made } else { Made { facts: Vec::new(), ..made } });
    }
    Ok((all, all_notes))
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
        once: part.made.once,
    };
    let images: Vec<Image> = parts.values().map(|part| part.made.image.clone()).collect();
    let mut whole = Vec::new();
    let upload = match images.as_slice() {
        [one] => Upload::of_image(one),
        _ => {
            let failed = |error| Failure::caused(Exit::Failed, format!("image {name} has no index"), &error);
            let index = Index::of(images).map_err(failed)?;
            let materials: BTreeSet<&Material> = parts.values().flat_map(|part| &part.materials).collect();
            whole.push(Facts {
                subject: Subject::of_index(&index),
                image: name.clone(),
                repository: repository.clone(),
                platform: None,
                derivation: hash.to_string(),
                inputs: hashes
                    .iter()
                    .map(|(platform, hash)| (platform.to_string(), ("blake3", hash.to_string())))
                    .collect(),
                materials: materials.into_iter().cloned().collect(),
                once: Once::all(parts.values().map(|part| &part.made.once)),
            });
            Upload::of_index(&index)
        }
    };
    let mut platforms = BTreeMap::new();
    for (platform, part) in parts {
        let made = MadeImage { image: part.made.image.clone(), hash: part.made.hash, once: part.made.once.clone() };
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
    wanted: Wanted<'_>,
    commit: &Commit,
) -> Result<(Vec<(String, Part)>, BTreeSet<String>), Failure> {
    let Wanted { names, only_registries, statements, .. } = wanted;
    let order = with_bases(prepared, names);
    let planned = prepared.images(&order.iter().cloned().collect())?;
    if statements && !planned.values().all(|one| is_made(prepared, one)) {
        // Somebody will want to know what the new image was made from.
        commit.wanted_soon();
    }
    let engine = engine_for(prepared, &planned).await?;
    // What runs in an image here needs its layers here.
    let needed = |name: &String| prepared.model.images.get(name).is_some_and(|image| image.recipe.runs_programs());
    let described = only_registries && !order.iter().any(needed);
    let assembler = Assembler { described, ..prepared.assembler(engine)? };
    let mut made = Vec::new();
    for name in &order {
        let Some((one, derivation)) = planned.get(name).and_then(|one| Some((one, one.derivation()?))) else {
            continue;
        };
        let failed = |error: &dyn std::error::Error| unmade(prepared, name, error);
        prepared.opened.store.put_derivations(&one.derivations).map_err(|error| failed(&error))?;
        let image = assembler.assemble(&one.spec, derivation, &*context.console).await;
        let image = image.map_err(|error| because(failed(&error), error))?;
        if names.contains(name) {
            let recipes = chain(prepared, &planned, name);
            let (inputs, materials) = (statements::inputs(one), materials(recipes.iter().copied()));
            let once = once(prepared, &planned, name)?;
            let made_image = MadeImage { image, hash: one.hash, once };
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
pub fn with_bases(prepared: &Prepared, names: &BTreeSet<String>) -> Vec<String> {
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
pub fn chain<'p>(prepared: &Prepared, planned: &'p BTreeMap<String, PlannedImage>, name: &str) -> Vec<&'p ImageRecipe> {
    let names = with_bases(prepared, &BTreeSet::from([name.to_owned()]));
    names.iter().filter_map(|name| planned.get(name)).map(|one| &one.spec.recipe).collect()
}

/// Why an image cannot be made again, with the engines that are known to have built it or what it stands on.
fn once(prepared: &Prepared, planned: &BTreeMap<String, PlannedImage>, name: &str) -> Result<Once, Failure> {
    let below = with_bases(prepared, &BTreeSet::from([name.to_owned()]));
    let below: Vec<Hash> = below.iter().filter_map(|name| Some(planned.get(name)?.hash)).collect();
    Once::of(&chain(prepared, planned, name)).by(&prepared.opened.store, &below).map_err(|error| unreadable(&error))
}

/// Of these images, those that cannot be made again byte by byte, and why.
///
/// # Errors
/// Every problem of these images.
pub fn made_once(prepared: &Prepared, names: &BTreeSet<String>) -> Result<BTreeMap<String, Once>, Failure> {
    let planned = prepared.images(&with_bases(prepared, names).into_iter().collect())?;
    let all = names.iter().map(|name| (name.clone(), Once::of(&chain(prepared, &planned, name))));
    Ok(all.filter(|(_, once)| !once.is_reproducible()).collect())
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
        let notes = assembly::notes(&prepared.opened.store, derivation).map_err(|error| unreadable(&error))?;
        all.extend(notes.iter().map(|note| format!("{}: {note}", derivation.address)));
    }
    Ok(all)
}

/// The engine, where one of these images needs it: for install scripts, and for what it builds from Containerfiles or has as
/// a base, unless that was taken from it before.
async fn engine_for(prepared: &Prepared, planned: &BTreeMap<String, PlannedImage>) -> Result<Option<Engine>, Failure> {
    if planned.values().any(|one| !allowed(&one.spec.recipe).is_empty()) {
        return Ok(Some(crate::world::engine().await?));
    }
    for one in planned.values() {
        let Some(why) = needs_engine(&prepared.opened.store, &one.spec).map_err(|error| unreadable(&error))? else {
            continue;
        };
        match crate::world::engine().await {
            Ok(found) => return Ok(Some(found)),
            Err(_) if is_made(prepared, one) => {}
            Err(failure) => return Err(failure.hint(why)),
        }
    }
    Ok(None)
}

/// Why an image needs an engine, and what to do instead.
fn needs_engine(store: &Store, spec: &ImageSpec) -> Result<Option<String>, ObjectError> {
    let (name, recipe) = (&spec.name, &spec.recipe);
    let paths = containerfiles([recipe]);
    if !paths.is_empty() {
        let paths = paths.join(", ");
        return Ok(Some(format!(
            "a container engine builds image {name}, from {paths}; layers in fleet.kdl need none"
        )));
    }
    for layer in &recipe.layers {
        let LayerRecipe::Base { reference, digest } = layer else { continue };
        if assembly::in_engine(reference).is_some()
            && assembly::taken_before(store, digest, recipe.compression)?.is_none()
        {
            let why = format!("image {name} stands on {reference}, which an engine has; a registry's base needs none");
            return Ok(Some(why));
        }
    }
    Ok(None)
}

fn unmade(prepared: &Prepared, name: &str, error: &dyn std::error::Error) -> Failure {
    Failure::caused(Exit::Failed, format!("image {name} cannot be made for {}", prepared.platform), error)
}

/// With the lines that a build printed last, and what to do.
fn because(mut failure: Failure, error: ProviderError) -> Failure {
    match error {
        ProviderError::Failed { help, last_lines, .. } => {
            failure.causes.extend(last_lines);
            help.into_iter().fold(failure, Failure::hint)
        }
        ProviderError::Unreachable { .. } => Failure { exit: Exit::Unavailable, ..failure },
        _ => failure,
    }
}

fn unreadable(error: &dyn std::error::Error) -> Failure {
    Failure::caused(Exit::Failed, "the store .fleet/ cannot be read", error)
}
