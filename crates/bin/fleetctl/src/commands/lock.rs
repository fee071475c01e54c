//! `lock`: the only command that asks registries for versions. It pins everything that images take from elsewhere.

mod forget;

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use fleet_apply::{Event, Events as _, causes::chain};
use fleet_model::{
    Address, Kind, SourceFile, SourceTree, containerfile,
    model::{BaseRef, ContainerfileRecipe, Image, Layer, LayeredRecipe, Model, Recipe},
};
use fleet_oci::{
    Digest, Lock, Platform,
    lock::{BasePin, Unpack},
};
use fleet_packages::{Progress, Workshop, debian, npm, pip};
use fleet_registry::LocalImage;
use fleet_store::{Store, write_atomic};

use crate::{
    assembly,
    blobs::StoreCache,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    project::{FLEET_LOCK, Opened},
    ui::out::tell,
};

/// glibc of Debian releases that images can stand on; wheels must not need a newer one.
const GLIBC: [(&str, &str); 3] = [("bullseye", "2.31"), ("bookworm", "2.36"), ("trixie", "2.41")];

/// `fleetctl lock`: exit code 69 when an image that was named stays without a pin, as nobody could be asked.
///
/// # Errors
/// What cannot be resolved; the lock file is untouched then.
pub async fn lock(context: &Context, only: &[String], check: bool) -> Outcome {
    let opened = Opened::open(&context.global)?;
    let model = opened.model(&context.global)?;
    let old = match opened.read_lock() {
        // All of it is looked up anew: there is nothing in it to keep.
        Err(broken) if broken.replaceable && only.is_empty() && !check => {
            tell!("warning: {}; all of it is pinned anew", broken.diagnostic.message);
            Lock::default()
        }
        Err(_) => opened.lock()?,
        Ok(lock) => lock,
    };
    if check {
        return fits(context, &model, &opened.tree, &old);
    }
    let images = chosen(&model, only)?;
    let progress: Progress = Arc::new(|_| {});
    let workshop = Workshop::new(Arc::new(StoreCache(Arc::clone(&opened.store))), progress);
    let registries = crate::world::registries()?;
    let (store, root) = (Arc::clone(&opened.store), opened.root.clone());
    let mut locking = Locking {
        context,
        workshop,
        registries,
        store,
        root,
        new: old.clone(),
        unreachable: Vec::new(),
        unpinned: false,
    };
    if only.is_empty() {
        forget::absent(&mut locking.new, &model.images, &opened.tree);
    }
    for image in images {
        locking.image(image, &opened.tree).await?;
    }
    let text = locking.new.to_text();
    let path = opened.root.join(FLEET_LOCK);
    let same = text == old.to_text() && opened.read_lock().is_ok();
    if !same {
        write_atomic(&path, text.as_bytes(), 0o644)
            .map_err(|error| Failure::caused(Exit::Failed, format!("{FLEET_LOCK} cannot be written"), &error))?;
    }
    if context.json() {
        print_json(&serde_json::json!({"schema": 1, "written": !same, "unreachable": locking.unreachable}));
    } else {
        print_out(&format!("{FLEET_LOCK} {}\n", if same { "was up to date" } else { "written" }));
    }
    for line in &locking.unreachable {
        tell!("warning: {line}");
    }
    // Of all images one may be in an environment that nobody uses here; who names one wants it pinned.
    Ok(if locking.unpinned && !only.is_empty() { Exit::Unavailable } else { Exit::Done })
}

fn chosen<'m>(model: &'m Model, only: &[String]) -> Result<Vec<&'m Image>, Failure> {
    if only.is_empty() {
        return Ok(model.images.values().collect());
    }
    only.iter()
        .map(|text| {
            let name = match text.parse::<Address>() {
                Ok(address) if address.kind == Kind::Image => address.name,
                _ => text.clone(),
            };
            model.images.get(&name).ok_or_else(|| {
                let known: Vec<String> = model.images.keys().map(|name| format!("image/{name}")).collect();
                Failure::new(Exit::Usage, format!("there is no image `{name}`"))
                    .hint(format!("there are: {}", known.join(", ")))
            })
        })
        .collect()
}

/// Says whether every image is pinned as declared, without asking anybody.
fn fits(context: &Context, model: &Model, sources: &SourceTree, lock: &Lock) -> Outcome {
    let mut problems = Vec::new();
    for image in model.images.values() {
        for platform in platforms(image) {
            match &image.recipe {
                Recipe::Layers(recipe) => problems.extend(missing(image, recipe, platform, lock)),
                Recipe::Containerfile(recipe) => {
                    let found = bases(sources, recipe)
                        .into_iter()
                        .map(|from| lock.base(&image.name, &from, platform).map(drop));
                    problems.extend(found.filter_map(|one| one.err().map(|error| error.to_string())));
                }
            }
        }
    }
    problems.sort();
    problems.dedup();
    let exit = if problems.is_empty() { Exit::Done } else { Exit::Failed };
    if context.json() {
        print_json(&serde_json::json!({"schema": 1, "fits": problems.is_empty(), "problems": problems}));
        return Ok(exit);
    }
    if problems.is_empty() {
        print_out(&format!("{FLEET_LOCK} fits\n"));
    }
    for problem in problems {
        print_out(&format!("{problem}\n"));
    }
    Ok(exit)
}

/// What a containerfile starts from that is pinned: not what stands for an image of the fleet.
fn bases(sources: &SourceTree, recipe: &ContainerfileRecipe) -> Vec<String> {
    let text = sources.file(&recipe.file).and_then(SourceFile::text).unwrap_or_default();
    containerfile::bases(text).into_iter().filter(|from| !containerfile::is_base_argument(from)).collect()
}

fn missing(image: &Image, recipe: &LayeredRecipe, platform: Platform, lock: &Lock) -> Vec<String> {
    let mut found = Vec::new();
    let mut note = |result: Result<(), fleet_oci::lock::LockError>| found.extend(result.err().map(|e| e.to_string()));
    if let Some(base) = &recipe.base
        && let BaseRef::Reference(reference) = &base.value
    {
        note(lock.base(&image.name, reference, platform).map(drop));
    }
    for layer in &recipe.layers {
        note(match &layer.value {
            Layer::Debian { suite, packages } => {
                let request: Vec<String> = packages.iter().cloned().collect();
                lock.debian(&image.name, suite, platform.architecture(), &request).map(drop)
            }
            Layer::Node { version } => lock.node(&image.name, version, platform).map(drop),
            Layer::Npm { to, packages, unpack, .. } => lock.npm(&image.name, to, packages, &unpacked(unpack)).map(drop),
            Layer::Pip { to, python, packages, .. } => {
                let request = requirements(packages);
                let asked = fleet_oci::lock::PipAsked { python: python.clone(), request };
                lock.pip(&image.name, to, platform, &asked).map(drop)
            }
            Layer::Copy { .. }
            | Layer::Tree { .. }
            | Layer::Fetch(_)
            | Layer::FleetAgent { .. }
            | Layer::Fleetctl { .. } => Ok(()),
        });
    }
    found
}

fn unpacked(unpack: &BTreeMap<String, fleet_model::model::Unpack>) -> BTreeMap<String, Unpack> {
    unpack
        .iter()
        .map(|(name, unpack)| (name.clone(), Unpack { version: unpack.version.clone(), at: unpack.at.clone() }))
        .collect()
}

fn requirements(packages: &BTreeMap<String, String>) -> Vec<String> {
    packages.iter().map(|(name, version)| format!("{name}=={version}")).collect()
}

/// Platforms to pin an image for: those declared, else this machine's.
fn platforms(image: &Image) -> Vec<Platform> {
    let declared: Vec<Platform> = image.platforms.iter().filter_map(|platform| platform.parse().ok()).collect();
    if declared.is_empty() { vec![crate::machine::own_platform()] } else { declared }
}

struct Locking<'a> {
    context: &'a Context,
    workshop: Workshop,
    registries: fleet_registry::Client,
    store: Arc<Store>,
    /// The project's folder.
    root: PathBuf,
    new: Lock,
    unreachable: Vec<String>,
    /// Something was out of reach and has no former pin either.
    unpinned: bool,
}

impl Locking<'_> {
    async fn image(&mut self, image: &Image, sources: &SourceTree) -> Result<(), Failure> {
        match &image.recipe {
            Recipe::Layers(recipe) => self.layered(image, recipe).await,
            Recipe::Containerfile(recipe) => {
                for from in bases(sources, recipe) {
                    self.base(image, &from, &platforms(image)).await?;
                }
                Ok(())
            }
        }
    }

    async fn layered(&mut self, image: &Image, recipe: &LayeredRecipe) -> Result<(), Failure> {
        let platforms = platforms(image);
        if let Some(base) = &recipe.base
            && let BaseRef::Reference(reference) = &base.value
        {
            self.base(image, reference, &platforms).await?;
        }
        let suite = recipe.layers.iter().find_map(|layer| match &layer.value {
            Layer::Debian { suite, .. } => Some(suite.as_str()),
            _ => None,
        });
        for layer in &recipe.layers {
            self.layer(image, &layer.value, &platforms, suite).await?;
        }
        Ok(())
    }

    async fn layer(
        &mut self,
        image: &Image,
        layer: &Layer,
        platforms: &[Platform],
        suite: Option<&str>,
    ) -> Result<(), Failure> {
        let name = &image.name;
        match layer {
            Layer::Debian { suite, packages } => {
                let packages: Vec<String> = packages.iter().cloned().collect();
                for platform in platforms {
                    self.tell(image, &format!("debian {suite}, {} packages and what they need", packages.len()));
                    let request = debian::Request { suite, platform: *platform, packages: &packages };
                    let resolved = debian::resolve(&self.workshop, request).await.map_err(|e| unresolved(image, &e))?;
                    self.notes(&resolved.notes);
                    let arches = self.new.debian.entry(name.clone()).or_default();
                    arches.insert(platform.architecture().to_owned(), resolved.lock);
                }
            }
            Layer::Node { version } => {
                self.tell(image, &format!("node {version}"));
                let node = npm::resolve_node(&self.workshop, version, platforms).await;
                self.new.node.insert(name.clone(), node.map_err(|error| unresolved(image, &error))?);
            }
            Layer::Npm { to, packages, unpack, .. } => {
                self.tell(image, &format!("npm packages in {to}"));
                let entry = npm::resolve(&self.workshop, packages, &unpacked(unpack)).await;
                let entry = entry.map_err(|error| unresolved(image, &error))?;
                self.new.npm.entry(name.clone()).or_default().insert(to.clone(), entry);
            }
            Layer::Pip { to, python, packages, .. } => {
                let glibc = GLIBC.iter().find(|(known, _)| suite == Some(known)).map_or("2.31", |(_, glibc)| glibc);
                let requirements = requirements(packages);
                for platform in platforms {
                    self.tell(image, &format!("Python packages in {to}"));
                    let request = pip::Request { python, glibc, platform: *platform, requirements: &requirements };
                    let resolved = pip::resolve(request).await.map_err(|error| unresolved(image, &error))?;
                    self.notes(&resolved.notes);
                    let folder = self.new.pip.entry(name.clone()).or_default().entry(to.clone()).or_default();
                    folder.insert(*platform, resolved.lock);
                }
            }
            Layer::Copy { .. }
            | Layer::Tree { .. }
            | Layer::Fetch(_)
            | Layer::FleetAgent { .. }
            | Layer::Fleetctl { .. } => {}
        }
        Ok(())
    }

    /// A registry or an engine out of reach keeps what is pinned; only an environment that uses the image will miss it.
    async fn base(&mut self, image: &Image, reference: &str, platforms: &[Platform]) -> Result<(), Failure> {
        for platform in platforms {
            self.tell(image, reference);
            if let Some(local) = LocalImage::parse(reference, &self.root) {
                let digest = local.resolve(*platform).map_err(|error| unresolved(image, &error))?;
                self.pin(reference, *platform, digest);
                continue;
            }
            if let Some(name) = assembly::in_engine(reference) {
                match crate::world::engine().await {
                    Ok(engine) => {
                        let pin = assembly::pin(&engine, name, *platform, &self.store).await;
                        self.pin(reference, *platform, pin.map_err(|error| unresolved(image, &error))?);
                    }
                    Err(failure) => self.out_of_reach(image, reference, *platform, &failure.message),
                }
                continue;
            }
            match self.registries.resolve(reference, *platform).await {
                Ok(digest) => self.pin(reference, *platform, digest),
                Err(error) if error.is_unreachable() => {
                    self.out_of_reach(image, reference, *platform, &chain(&error));
                }
                Err(error) => return Err(unresolved(image, &error)),
            }
        }
        Ok(())
    }

    fn out_of_reach(&mut self, image: &Image, reference: &str, platform: Platform, why: &str) {
        let kept = self.new.base(&image.name, reference, platform).is_ok();
        self.unpinned |= !kept;
        let what = if kept { "its former pin is kept" } else { "it stays without a pin" };
        self.unreachable.push(format!("image {}: {why}; {what}", image.name));
    }

    fn pin(&mut self, reference: &str, platform: Platform, digest: Digest) {
        self.new.bases.entry(reference.to_owned()).or_default().insert(platform, BasePin { digest });
    }

    fn tell(&self, image: &Image, what: &str) {
        let address = Address::new(Kind::Image, &image.name);
        self.context.console.emit(Event::Notice { text: format!("{address}: {what}") });
    }

    fn notes(&self, notes: &[String]) {
        for note in notes {
            self.context.console.emit(Event::Notice { text: format!("  {note}") });
        }
    }
}

fn unresolved(image: &Image, error: &dyn std::error::Error) -> Failure {
    Failure::caused(Exit::Failed, format!("image {} cannot be pinned; {FLEET_LOCK} is as it was", image.name), error)
}
