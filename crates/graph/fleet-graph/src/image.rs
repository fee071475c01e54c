//! [`images`]: declared images → recipes with every byte pinned, and their derivations, layer by layer.
//!
//! A declared layer becomes one layer, or several where it is large: from packages in `packages`, from files in `files`,
//! shared out by `split`.

mod files;
mod packages;
mod split;

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::{Derivation, Hash, Input};
use fleet_model::{
    Address, Kind, Links, RelPath, SourceFile, containerfile, late,
    model::{BaseRef, ContainerfileRecipe, Image, Layer, LayerCompression, LayeredRecipe, Recipe},
};
use fleet_objects::ImageSpec;
use fleet_oci::{
    Compression, Digest, ImageConfig, ImageRecipe, LayerRecipe, Lock, Packing, Platform,
    lock::LockError,
    recipe::{HashInputs, User},
    write_tar::{LATEST_MTIME, MTIME},
};
use serde_json::json;

use self::packages::{NpmAsked, PipNode};
use crate::{Inputs, Problem};

/// One image ready to be planned.
#[derive(Clone, Debug)]
pub struct PlannedImage {
    /// The object.
    pub spec: ImageSpec,
    /// Its derivation and those of its layers.
    pub derivations: Vec<Derivation>,
    /// Its own hash.
    pub hash: Hash,
}

impl PlannedImage {
    /// The image's own derivation.
    #[must_use]
    pub fn derivation(&self) -> Option<&Derivation> {
        self.derivations.last()
    }
}

/// Every image that the environment uses, those that others stand on first, for the platform of `inputs`.
///
/// # Errors
/// Every problem of every image.
pub fn images(inputs: &Inputs<'_>) -> Result<BTreeMap<String, PlannedImage>, Vec<Problem>> {
    made(inputs, inputs.resolved.images.iter().map(String::as_str).collect())
}

/// One image for one of its platforms, with what it stands on made for that platform too: what an index of several
/// platforms is put together from. The image need not be one that the environment uses.
///
/// # Errors
/// Every problem: no such image, a platform that it is not declared for, a layer that there is not for it (nothing in
/// the lock, a package for others, no agent runtime).
pub fn image_for(inputs: &Inputs<'_>, name: &str, platform: Platform) -> Result<PlannedImage, Vec<Problem>> {
    let inputs = Inputs { platform, ..*inputs };
    let mut names: BTreeSet<&str> = BTreeSet::new();
    let mut next = Some(name);
    // A circle ends it; fleet-model has reported that.
    while let Some(name) = next.filter(|name| names.insert(name)) {
        next = inputs.model.images.get(name).and_then(needs);
    }
    made(&inputs, names)?.remove(name).ok_or_else(|| {
        let known: Vec<&str> = inputs.model.images.keys().map(String::as_str).collect();
        let help = format!("known: {}", known.join(", "));
        let (address, what) = (Address::new(Kind::Image, name), "it is not declared".to_owned());
        vec![Problem { code: late::DOES_NOT_FIT, address, origin: None, what, help }]
    })
}

/// The platforms that an image is declared for; without any, the one that `inputs` names.
#[must_use]
pub fn platforms(inputs: &Inputs<'_>, image: &Image) -> Vec<Platform> {
    if image.platforms.is_empty() {
        return vec![inputs.platform];
    }
    let all = [Platform::LinuxAmd64, Platform::LinuxArm64];
    all.into_iter().filter(|platform| image.platforms.contains(&platform.to_string())).collect()
}

fn made(inputs: &Inputs<'_>, mut waiting: BTreeSet<&str>) -> Result<BTreeMap<String, PlannedImage>, Vec<Problem>> {
    let mut done: BTreeMap<String, PlannedImage> = BTreeMap::new();
    let mut problems = Vec::new();
    while !waiting.is_empty() {
        let ready: Vec<&str> = waiting
            .iter()
            .copied()
            .filter(|name| inputs.model.images.get(*name).is_none_or(|i| needs(i).is_none_or(|n| !waiting.contains(n))))
            .collect();
        if ready.is_empty() {
            break; // a cycle, which fleet-model has reported
        }
        for name in ready {
            waiting.remove(name);
            if let Some(image) = inputs.model.images.get(name) {
                match (Maker { inputs, image, done: &done }).make() {
                    Ok(planned) => drop(done.insert(name.to_owned(), planned)),
                    Err(problem) => problems.push(problem),
                }
            }
        }
    }
    if problems.is_empty() { Ok(done) } else { Err(problems) }
}

/// The fleet image that an image stands on.
#[must_use]
pub fn needs(image: &Image) -> Option<&str> {
    match &image.recipe {
        Recipe::Layers(LayeredRecipe { base: Some(base), .. }) => match &base.value {
            BaseRef::Image(name) => Some(name),
            BaseRef::Reference(_) => None,
        },
        Recipe::Layers(_) => None,
        Recipe::Containerfile(recipe) => recipe.base_image.as_ref().map(|base| base.value.as_str()),
    }
}

/// One layer of a declared node.
struct Part {
    /// Which part of the node it is; `None`: all of it.
    name: Option<String>,
    recipe: LayerRecipe,
    inputs: Vec<(String, Input)>,
    /// It is made by running something on what lies below it, which is then part of what it is made of.
    needs_below: bool,
}

struct Maker<'a> {
    inputs: &'a Inputs<'a>,
    image: &'a Image,
    done: &'a BTreeMap<String, PlannedImage>,
}

impl Maker<'_> {
    fn make(&self) -> Result<PlannedImage, Problem> {
        let platform = self.platform()?;
        let mut derivation = Derivation::new(Address::new(Kind::Image, &self.image.name));
        let mut layers = Vec::new();
        let mut derivations = Vec::new();
        let config = match &self.image.recipe {
            Recipe::Layers(recipe) => {
                self.base(recipe, platform, &mut layers, &mut derivation)?;
                self.layers(recipe, &mut layers, &mut derivations, &mut derivation)?;
                config(recipe)
            }
            Recipe::Containerfile(recipe) => {
                layers.push(self.containerfile(recipe, &mut derivation)?);
                ImageConfig::default()
            }
        };
        let Packing { compression, mtime } = self.packing();
        let recipe = ImageRecipe { name: self.image.name.clone(), platform, layers, config, compression, mtime };
        for (name, value) in unique(recipe.hash_inputs(&[])) {
            derivation.value(name, value, Some(&self.image.origin));
        }
        derivation.value("checks", json!(self.image.checks).to_string(), Some(&self.image.origin));
        let hash = derivation.hash();
        derivations.push(derivation);
        let spec = ImageSpec { name: self.image.name.clone(), recipe, checks: self.image.checks.clone() };
        Ok(PlannedImage { spec, derivations, hash })
    }

    fn layers(
        &self,
        recipe: &LayeredRecipe,
        layers: &mut Vec<LayerRecipe>,
        derivations: &mut Vec<Derivation>,
        image: &mut Derivation,
    ) -> Result<(), Problem> {
        for (index, declared) in recipe.layers.iter().enumerate() {
            for part in self.parts(&declared.value, recipe)? {
                let name = part.name.as_ref().map(|name| format!(".{name}")).unwrap_or_default();
                let address = format!("{}.{index}.{}{name}", self.image.name, part.recipe.kind());
                let mut made = Derivation::new(Address::new(Kind::Layer, address));
                for (name, input) in part.inputs {
                    made.input(name, input, declared.origin.as_ref());
                }
                if part.needs_below {
                    let below = image.inputs.iter().filter(|(name, _)| *name == "base" || name.starts_with("layer."));
                    below.for_each(|(name, input)| made.input(format!("below.{name}"), input.clone(), None));
                }
                // Keyed by place, not by part: whoever makes the image takes its layers in this order.
                image.input(
                    format!("layer.{}.{}{name}", derivations.len(), part.recipe.kind()),
                    Input::Derivation { address: made.address.clone(), hash: made.hash(), output: None },
                    declared.origin.as_ref(),
                );
                derivations.push(made);
                layers.push(part.recipe);
            }
        }
        Ok(())
    }

    /// How its layers are written.
    fn packing(&self) -> Packing {
        let compression = match self.inputs.environment.compression {
            LayerCompression::Zstd => Compression::Zstd,
            LayerCompression::Gzip => Compression::Gzip,
        };
        Packing { compression, mtime: self.inputs.source_date_epoch.map_or(MTIME, |time| time.min(LATEST_MTIME)) }
    }

    /// A layer whose derivation's inputs are those of its recipe.
    fn part(&self, name: Option<String>, recipe: LayerRecipe) -> Part {
        let inputs = value_inputs(recipe.hash_inputs(self.packing()));
        let needs_below = matches!(&recipe, LayerRecipe::Npm { allow_scripts, .. } if !allow_scripts.is_empty());
        Part { name, recipe, inputs, needs_below }
    }

    /// The target's own platform where the image allows it.
    fn platform(&self) -> Result<Platform, Problem> {
        let target = self.inputs.platform.to_string();
        if self.image.platforms.is_empty() || self.image.platforms.contains(&target) {
            return Ok(self.inputs.platform);
        }
        Err(self.problem(
            format!("it is declared for {}, and {target} is wanted", self.image.platforms.join(", ")),
            format!("add {target} to its platform= or remove the property"),
        ))
    }

    fn base(
        &self,
        recipe: &LayeredRecipe,
        platform: Platform,
        layers: &mut Vec<LayerRecipe>,
        derivation: &mut Derivation,
    ) -> Result<(), Problem> {
        let Some(base) = &recipe.base else { return Ok(()) };
        match &base.value {
            BaseRef::Reference(reference) => {
                let pin = self.locked(self.inputs.lock.base(&self.image.name, reference, platform))?;
                derivation.value("base", format!("{reference}@{}", pin.digest), base.origin.as_ref());
                layers.push(LayerRecipe::Base { reference: reference.clone(), digest: pin.digest.clone() });
            }
            BaseRef::Image(name) => {
                let other = self.other(name)?;
                let output = self.inputs.outputs.get(&other.hash).cloned();
                let input = Input::Derivation {
                    address: Address::new(Kind::Image, name),
                    hash: other.hash,
                    // Not cut off early: which layers it has is part of what this image is made of.
                    output: None,
                };
                derivation.input("base", input, base.origin.as_ref());
                let output = output.unwrap_or_else(|| other.hash.to_string());
                layers.push(LayerRecipe::Image { name: name.clone(), output });
            }
        }
        Ok(())
    }

    /// The layers of one declared node.
    fn parts(&self, layer: &Layer, recipe: &LayeredRecipe) -> Result<Vec<Part>, Problem> {
        let (lock, image): (&Lock, &str) = (self.inputs.lock, &self.image.name);
        let platform = self.inputs.platform;
        let made = match layer {
            Layer::Debian { suite, packages } => {
                let request: Vec<String> = packages.iter().cloned().collect();
                let pins = self.locked(lock.debian(image, suite, platform.architecture(), &request))?;
                let users = recipe
                    .users
                    .iter()
                    .map(|u| User { name: u.name.clone(), uid: u.uid, gid: u.gid, home: u.home.clone() })
                    .collect();
                LayerRecipe::Debian {
                    suite: suite.clone(),
                    architecture: platform.architecture().to_owned(),
                    packages: pins.packages.clone(),
                    users,
                }
            }
            Layer::Node { version } => {
                let package = self.locked(lock.node(image, version, platform))?.clone();
                LayerRecipe::Node { to: "/usr/local".to_owned(), package }
            }
            Layer::Npm { to, packages, unpack, omit, allow_scripts } => {
                return self.npm(&NpmAsked { to, packages, unpack, omit, allow_scripts }, recipe);
            }
            Layer::Pip { to, python, packages, allow_scripts } => {
                return self.pip(&PipNode { to, python, packages, allow_scripts });
            }
            Layer::FleetAgent { to } => self.fleet_agent(to)?,
            Layer::Fleetctl { to } => self.fleetctl(to)?,
            Layer::Fetch(fetched) => LayerRecipe::Fetch {
                url: fetched.url.clone(),
                sha256: Digest::from_sha256_hex(&fetched.sha256)
                    .map_err(|error| self.problem(error.to_string(), "write 64 hexadecimal digits".to_owned()))?,
                to: fetched.to.clone(),
                executable: fetched.executable,
                unpack: fetched.unpack,
            },
            Layer::Copy { from, to, render: true } => return self.rendered(from, to),
            Layer::Copy { from, to, render: false } => return self.listed(from, to, Links::Followed),
            Layer::Tree { from, to } => return self.listed(from, to, Links::Kept),
        };
        Ok(vec![self.part(None, made)])
    }

    fn fleet_agent(&self, to: &str) -> Result<LayerRecipe, Problem> {
        let platform = self.inputs.platform;
        let source = self.inputs.agent_binaries.get(&platform).ok_or_else(|| {
            self.problem(
                format!("there is no agent runtime for {platform}, which its fleet-agent layer needs"),
                format!(
                    "put a released fleet-agent for {platform} beside fleetctl, or remove the platform from the image"
                ),
            )
        })?;
        Ok(LayerRecipe::FleetAgent { to: to.to_owned(), source: source.to_string() })
    }

    fn fleetctl(&self, to: &str) -> Result<LayerRecipe, Problem> {
        let platform = self.inputs.platform;
        let source = self.inputs.fleetctl_binaries.get(&platform).ok_or_else(|| {
            let name = platform.to_string().replace('/', "-");
            self.problem(
                format!("there is no fleetctl for {platform}, which its fleetctl layer needs"),
                format!("put a released fleetctl-{name} beside fleetctl, or remove the platform from the image"),
            )
        })?;
        Ok(LayerRecipe::Fleetctl { to: to.to_owned(), source: source.to_string() })
    }

    fn containerfile(&self, recipe: &ContainerfileRecipe, derivation: &mut Derivation) -> Result<LayerRecipe, Problem> {
        let mut context = Derivation::new(Address::new(Kind::Source, &self.image.name));
        let folder = recipe.context.as_folder();
        let file_input = |path: &RelPath, file: &SourceFile| Input::File {
            path: path.clone(),
            hash: Hash::from_bytes(file.hash),
            executable: file.executable,
        };
        for (path, file) in self.inputs.sources.files_below(&recipe.context) {
            let inside = path.as_str().strip_prefix(&folder).unwrap_or(path.as_str());
            context.input(inside, file_input(path, file), None);
            derivation.input(format!("{CONTEXT}{inside}"), file_input(path, file), None);
        }
        if let Some(file) = self.inputs.sources.file(&recipe.file) {
            derivation.input("containerfile", file_input(&recipe.file, file), Some(&self.image.origin));
        }
        let text = self.inputs.sources.file(&recipe.file).and_then(SourceFile::text).ok_or_else(|| {
            self.problem(format!("{} cannot be read as text", recipe.file), "name the Containerfile".to_owned())
        })?;
        let mut args = recipe.args.clone();
        let mut bases = BTreeMap::new();
        for from in containerfile::bases(text) {
            if containerfile::is_base_argument(&from) {
                let declared = recipe.base_image.as_ref().ok_or_else(|| {
                    self.problem(
                        format!("{} starts FROM ${{BASE}}, which nothing names", recipe.file),
                        "declare `base image=\"…\"` within the containerfile node".to_owned(),
                    )
                })?;
                let hash = self.other(&declared.value)?.hash;
                let address = Address::new(Kind::Image, &declared.value);
                derivation.input("base", Input::Derivation { address, hash, output: None }, declared.origin.as_ref());
                args.insert("BASE".to_owned(), format!("{}:d-{hash}", self.repository(&declared.value)));
            } else {
                let pin = self.locked(self.inputs.lock.base(&self.image.name, &from, self.inputs.platform))?;
                derivation.value(format!("from.{from}"), pin.digest.to_string(), None);
                bases.insert(from, pin.digest.clone());
            }
        }
        for (name, value) in &recipe.args {
            derivation.value(format!("arg.{name}"), value, Some(&self.image.origin));
        }
        Ok(LayerRecipe::Containerfile {
            path: recipe.file.to_string(),
            context: context.hash().to_string(),
            args,
            bases,
        })
    }

    fn repository(&self, image: &str) -> String {
        repository(&self.inputs.model.fleet.name, image)
    }

    fn other(&self, name: &str) -> Result<&PlannedImage, Problem> {
        self.done.get(name).ok_or_else(|| {
            self.problem(
                format!("it stands on image {name}, which has a problem of its own"),
                "mend that first".to_owned(),
            )
        })
    }

    fn locked<T>(&self, found: Result<T, LockError>) -> Result<T, Problem> {
        found.map_err(|error| Problem {
            code: late::NOT_LOCKED,
            ..self.problem(error.to_string(), format!("run fleetctl lock --only image/{}", self.image.name))
        })
    }

    fn problem(&self, what: String, help: String) -> Problem {
        let address = Address::new(Kind::Image, &self.image.name);
        Problem { code: late::DOES_NOT_FIT, address, origin: Some(self.image.origin.clone()), what, help }
    }
}

/// Before the names of inputs that are files of a build context; the rest is the path within it.
pub const CONTEXT: &str = "context/";

/// `<fleet>/<image>`: the repository of an image at every target.
#[must_use]
pub fn repository(fleet: &str, image: &str) -> String {
    format!("{fleet}/{image}")
}

fn config(recipe: &LayeredRecipe) -> ImageConfig {
    ImageConfig {
        env: recipe.env.clone(),
        entrypoint: recipe.entrypoint.clone(),
        cmd: recipe.command.clone(),
        user: recipe.run_as.clone(),
        working_dir: recipe.workdir.clone(),
        ..ImageConfig::default()
    }
}

/// Fields that repeat without an order: each value is an input of its own, named after its first word, so that a
/// package that changes is one changed input and not a shift of all that follow.
const SETS: [&str; 2] = ["package", "user"];

/// Hash inputs as inputs of a derivation.
fn value_inputs(inputs: HashInputs) -> Vec<(String, Input)> {
    unique(inputs).into_iter().map(|(name, text)| (name, Input::Value { text })).collect()
}

/// Hash inputs as uniquely named values. What repeats in an order (`entrypoint`) becomes one JSON list.
fn unique(inputs: HashInputs) -> BTreeMap<String, String> {
    let mut named = BTreeMap::new();
    let mut lists: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (field, value) in inputs {
        if !SETS.contains(&field.as_str()) {
            lists.entry(field).or_default().push(value);
            continue;
        }
        let (first, rest) = value.split_once(' ').unwrap_or((&value, ""));
        let mut name = format!("{field} {first}");
        while named.contains_key(&name) {
            name.push('\'');
        }
        named.insert(name, rest.to_owned());
    }
    for (field, mut values) in lists {
        let value = if values.len() == 1 { values.swap_remove(0) } else { json!(values).to_string() };
        named.insert(field, value);
    }
    named
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_changed_package_is_one_changed_input() {
        let pairs = |openssl: &str| {
            unique(vec![
                ("kind".into(), "debian".into()),
                ("package".into(), "libc6 2.36 aa".into()),
                ("package".into(), format!("openssl {openssl} bb")),
            ])
        };
        let (a, b) = (pairs("3.0"), pairs("3.1"));
        let changed: Vec<_> = a.iter().filter(|(name, value)| b.get(*name) != Some(value)).collect();
        assert_eq!(changed.len(), 1);
        assert_eq!(changed[0].0, "package openssl");
    }

    #[test]
    fn the_order_of_an_entry_point_is_part_of_the_hash() {
        let words = |a: &str, b: &str| unique(vec![("entrypoint".into(), a.into()), ("entrypoint".into(), b.into())]);
        assert_ne!(words("python3", "start.py"), words("start.py", "python3"));
    }
}
