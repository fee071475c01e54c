//! [`images`]: declared images → recipes with every byte pinned, and their derivations, layer by layer.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::{Derivation, Hash, Input};
use fleet_model::{
    Address, Kind, Looked, Origin, RelPath, SourceFile,
    model::{BaseRef, ContainerfileRecipe, Image, Layer, LayeredRecipe, Recipe, Unpack},
};
use fleet_oci::{
    Compression, ImageConfig, ImageRecipe, LayerRecipe, Lock, Platform,
    engines,
    lock::{self, LockError, NpmLock, PipAsked},
    recipe::{FileEntry, FileWhat, HashInputs, User},
};
use fleet_objects::ImageSpec;
use serde_json::json;

use crate::{Inputs, Problem, template};

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

/// Every image that the environment uses, those that others stand on first.
///
/// # Errors
/// Every problem of every image.
pub fn images(inputs: &Inputs<'_>) -> Result<BTreeMap<String, PlannedImage>, Vec<Problem>> {
    let mut done: BTreeMap<String, PlannedImage> = BTreeMap::new();
    let mut problems = Vec::new();
    let mut waiting: BTreeSet<&str> = inputs.resolved.images.iter().map(String::as_str).collect();
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
fn needs(image: &Image) -> Option<&str> {
    match &image.recipe {
        Recipe::Layers(LayeredRecipe { base: Some(base), .. }) => match &base.value {
            BaseRef::Image(name) => Some(name),
            BaseRef::Reference(_) => None,
        },
        Recipe::Layers(_) => None,
        Recipe::Containerfile(recipe) => recipe.base_image.as_ref().map(|base| base.value.as_str()),
    }
}

/// What an `npm` node asks for.
struct NpmAsked<'a> {
    to: &'a str,
    packages: &'a BTreeMap<String, String>,
    unpack: &'a BTreeMap<String, Unpack>,
    omit: &'a BTreeSet<String>,
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
                for declared in &recipe.layers {
                    let (layer, inputs) = self.layer(&declared.value, recipe, platform)?;
                    let made = self.layer_derivation(derivations.len(), &layer, inputs, declared.origin.as_ref());
                    derivation.input(
                        format!("layer.{}.{}", derivations.len(), layer.kind()),
                        Input::Derivation { address: made.address.clone(), hash: made.hash(), output: None },
                        declared.origin.as_ref(),
                    );
                    derivations.push(made);
                    layers.push(layer);
                }
                config(recipe)
            }
            Recipe::Containerfile(recipe) => {
                layers.push(self.containerfile(recipe, &mut derivation)?);
                ImageConfig::default()
            }
        };
        let recipe = ImageRecipe { name: self.image.name.clone(), platform, layers, config, compression: Compression::Zstd };
        for (name, value) in unique(recipe.hash_inputs(&[])) {
            derivation.value(name, value, Some(&self.image.origin));
        }
        derivation.value("checks", json!(self.image.checks).to_string(), Some(&self.image.origin));
        let hash = derivation.hash();
        derivations.push(derivation);
        let spec = ImageSpec { name: self.image.name.clone(), recipe, checks: self.image.checks.clone() };
        Ok(PlannedImage { spec, derivations, hash })
    }

    /// The target's own platform where the image allows it.
    fn platform(&self) -> Result<Platform, Problem> {
        let target = self.inputs.platform.to_string();
        if self.image.platforms.is_empty() || self.image.platforms.contains(&target) {
            return Ok(self.inputs.platform);
        }
        Err(self.problem(
            format!("it is declared for {} and the target runs {target}", self.image.platforms.join(", ")),
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

    fn layer(
        &self,
        layer: &Layer,
        recipe: &LayeredRecipe,
        platform: Platform,
    ) -> Result<(LayerRecipe, Vec<(String, Input)>), Problem> {
        let (lock, image): (&Lock, &str) = (self.inputs.lock, &self.image.name);
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
            Layer::Npm { to, packages, unpack, omit } => {
                let asked = NpmAsked { to, packages, unpack, omit };
                self.npm(&asked, platform, recipe)?
            }
            Layer::Pip { to, python, packages } => {
                let request = packages.iter().map(|(name, version)| format!("{name}=={version}")).collect();
                let asked = PipAsked { python: python.clone(), request };
                let pins = self.locked(lock.pip(image, to, platform, &asked))?;
                LayerRecipe::Pip { to: to.clone(), python: python.clone(), packages: pins.packages.clone() }
            }
            Layer::FleetAgent { to } => {
                LayerRecipe::FleetAgent { to: to.clone(), source: self.inputs.agent_binary.to_string() }
            }
            Layer::Copy { from, to, render } => return self.copy(from, to, *render),
        };
        let inputs = unique(made.hash_inputs(Compression::Zstd))
            .into_iter()
            .map(|(name, text)| (name, Input::Value { text }))
            .collect();
        Ok((made, inputs))
    }

    fn npm(&self, asked: &NpmAsked<'_>, platform: Platform, recipe: &LayeredRecipe) -> Result<LayerRecipe, Problem> {
        let unpack = asked
            .unpack
            .iter()
            .map(|(name, u)| (name.clone(), lock::Unpack { version: u.version.clone(), at: u.at.clone() }))
            .collect();
        let entry = self.locked(self.inputs.lock.npm(&self.image.name, asked.to, asked.packages, &unpack))?;
        let node = recipe.layers.iter().find_map(|layer| match &layer.value {
            Layer::Node { version } => Some(version.as_str()),
            _ => None,
        });
        if let Some(node) = node {
            self.check_engines(node, entry)?;
        }
        let packages = entry.packages_for(platform).map_err(|misfit| {
            self.problem(
                format!("npm package {} {} is not for {platform}", misfit.name, misfit.version),
                "remove the platform from the image, or the package".to_owned(),
            )
        })?;
        Ok(LayerRecipe::Npm {
            to: asked.to.to_owned(),
            request: entry.request.clone(),
            packages,
            omit: asked.omit.iter().cloned().collect(),
        })
    }

    /// What the asked-for packages declare to need of Node, held against the Node of the image, before anything is built.
    fn check_engines(&self, node: &str, entry: &NpmLock) -> Result<(), Problem> {
        let asked = entry.packages.iter().filter(|pin| {
            pin.path.strip_prefix("node_modules/").is_some_and(|name| entry.request.contains_key(name))
        });
        for pin in asked {
            let Some(range) = pin.engines.get("node") else { continue };
            let help = || "change the version of the `node` layer, or of the package".to_owned();
            let fits = engines::satisfies(node, range).map_err(|error| self.problem(error.to_string(), help()))?;
            if !fits {
                let what = format!("{} {} needs Node {range}, the image has {node}", pin.name, pin.version);
                return Err(self.problem(what, help()));
            }
        }
        Ok(())
    }

    fn copy(&self, from: &RelPath, to: &str, render: bool) -> Result<(LayerRecipe, Vec<(String, Input)>), Problem> {
        let mut entries = Vec::new();
        let mut inputs = vec![("to".to_owned(), Input::Value { text: to.to_owned() })];
        let single = matches!(self.inputs.sources.get(from), Some(Looked::File(_)));
        for (path, file) in self.inputs.sources.files_below(from) {
            let inside = path.as_str().strip_prefix(&from.as_folder());
            let target = match inside {
                Some(inside) if !single => format!("{}/{inside}", to.trim_end_matches('/')),
                _ => to.to_owned(),
            };
            let bytes = if render { self.render(path, file)?.into_bytes() } else { file.bytes.to_vec() };
            let hash = Hash::from_bytes(file.hash);
            inputs.push((path.to_string(), Input::File { path: path.clone(), hash, executable: file.executable }));
            if render {
                inputs.push((format!("{path} rendered"), Input::Value { text: Hash::of(&bytes).to_string() }));
            }
            let mode = if file.executable { 0o755 } else { 0o644 };
            entries.push(FileEntry { path: target, mode, uid: 0, gid: 0, what: FileWhat::Inline(bytes) });
        }
        if entries.is_empty() {
            return Err(self.problem(format!("{from} has no files"), "an empty copy is never meant".to_owned()));
        }
        entries.sort();
        Ok((LayerRecipe::Files { entries }, inputs))
    }

    fn render(&self, path: &RelPath, file: &SourceFile) -> Result<String, Problem> {
        let environment = self.inputs.environment;
        let context = json!({
            "fleet": {"name": self.inputs.model.fleet.name, "domain": self.inputs.model.fleet.domain},
            "environment": {
                "name": environment.name,
                "homeserver": {"port": environment.homeserver.port},
                "web": environment.web.as_ref().map(|web| json!({"port": web.port})),
            },
        });
        let text = file.text().ok_or_else(|| {
            self.problem(format!("{path} is to be rendered and is not text"), "drop render=#true".to_owned())
        })?;
        template::render_text(path, text, &context)
            .map_err(|e| self.problem(e.to_string(), "it may use fleet.* and environment.*".to_owned()))
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
        for from in froms(text) {
            if from == "${BASE}" || from == "$BASE" {
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
            self.problem(format!("it stands on image {name}, which has a problem of its own"), "mend that first".to_owned())
        })
    }

    fn layer_derivation(
        &self,
        index: usize,
        layer: &LayerRecipe,
        inputs: Vec<(String, Input)>,
        origin: Option<&Origin>,
    ) -> Derivation {
        let name = format!("{}.{index}.{}", self.image.name, layer.kind());
        let mut made = Derivation::new(Address::new(Kind::Layer, name));
        for (name, input) in inputs {
            made.input(name, input, origin);
        }
        made
    }

    fn locked<T>(&self, found: Result<T, LockError>) -> Result<T, Problem> {
        found.map_err(|error| {
            self.problem(error.to_string(), format!("fleetctl lock --only image/{}", self.image.name))
        })
    }

    fn problem(&self, what: String, help: String) -> Problem {
        Problem { address: Address::new(Kind::Image, &self.image.name), what, help }
    }
}

/// Before the names of inputs that are files of a build context; the rest is the path within it.
pub const CONTEXT: &str = "context/";

/// `<fleet>/<image>`: the repository of an image at every target.
#[must_use]
pub fn repository(fleet: &str, image: &str) -> String {
    format!("{fleet}/{image}")
}

/// What `FROM` lines name, without those that name an earlier stage.
#[must_use]
pub fn froms(containerfile: &str) -> BTreeSet<String> {
    let mut stages: BTreeSet<String> = BTreeSet::new();
    let mut found = BTreeSet::new();
    for line in containerfile.lines() {
        let mut words = line.split_whitespace().filter(|word| !word.starts_with("--"));
        if !words.next().is_some_and(|word| word.eq_ignore_ascii_case("from")) {
            continue;
        }
        if let Some(name) = words.next()
            && name != "scratch"
            && !stages.contains(name)
        {
            found.insert(name.to_owned());
        }
        if words.next().is_some_and(|word| word.eq_ignore_ascii_case("as")) {
            stages.extend(words.next().map(str::to_owned));
        }
    }
    found
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
    fn stages_and_scratch_are_not_bases() {
        let text = "ARG BASE\nFROM --platform=linux/amd64 debian:12 AS build\nFROM scratch\nFROM build\nfrom ${BASE} as x\nFROM x\n";
        assert_eq!(froms(text), BTreeSet::from(["debian:12".to_owned(), "${BASE}".to_owned()]));
    }

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
