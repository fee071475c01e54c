//! `npm` and `pip`: what the lock pins, in one layer or shared out over several along package boundaries.

use std::collections::{BTreeMap, BTreeSet};

use fleet_model::model::{BaseRef, Layer, LayeredRecipe, Recipe, Unpack};
use fleet_oci::{
    LayerRecipe, engines,
    lock::{self, NpmLock, NpmPin, PipAsked, PipPin},
    recipe::{NpmCommands, NpmLinks},
};

use super::{Maker, Part, split};
use crate::Problem;

/// Nodes of at most this many packages stay in one layer.
const TOGETHER: usize = 16;
/// The part of a node that holds what was asked for, above those that hold what that depends on.
const ASKED: &str = "asked";

/// What an `npm` node asks for.
pub(super) struct NpmAsked<'a> {
    pub to: &'a str,
    pub packages: &'a BTreeMap<String, String>,
    pub unpack: &'a BTreeMap<String, Unpack>,
    pub omit: &'a BTreeSet<String>,
    pub allow_scripts: &'a BTreeSet<String>,
}

/// What a `pip` node asks for.
pub(super) struct PipNode<'a> {
    pub to: &'a str,
    pub python: &'a str,
    pub packages: &'a BTreeMap<String, String>,
    pub allow_scripts: &'a BTreeSet<String>,
}

impl Maker<'_> {
    pub(super) fn npm(&self, asked: &NpmAsked<'_>, recipe: &LayeredRecipe) -> Result<Vec<Part>, Problem> {
        let platform = self.inputs.platform;
        let unpack = asked
            .unpack
            .iter()
            .map(|(name, u)| (name.clone(), lock::Unpack { version: u.version.clone(), at: u.at.clone() }))
            .collect();
        let entry = self.locked(self.inputs.lock.npm(&self.image.name, asked.to, asked.packages, &unpack))?;
        if let Some(node) = self.node_of(recipe) {
            self.check_engines(node, entry)?;
        }
        let pins = entry.packages_for(platform).map_err(|misfit| {
            self.problem(
                format!("npm package {} {} is not for {platform}", misfit.name, misfit.version),
                "remove the platform from the image, or the package".to_owned(),
            )
        })?;
        self.check_scripts(asked.allow_scripts, &pins)?;
        let parts = npm_layers(asked, &entry.request, pins);
        Ok(parts.into_iter().map(|(name, recipe)| self.part(name, recipe)).collect())
    }

    /// The Node.js of an image: its own, else that of the nearest image that it stands on.
    fn node_of<'r>(&'r self, recipe: &'r LayeredRecipe) -> Option<&'r str> {
        let images = &self.inputs.model.images;
        let mut at = recipe;
        // No chain is longer; fleet-model has refused circles.
        for _ in 0..=images.len() {
            let own = at.layers.iter().find_map(|layer| match &layer.value {
                Layer::Node { version } => Some(version.as_str()),
                _ => None,
            });
            if own.is_some() {
                return own;
            }
            let BaseRef::Image(name) = &at.base.as_ref()?.value else { return None };
            let Recipe::Layers(below) = &images.get(name)?.recipe else { return None };
            at = below;
        }
        None
    }

    /// What the asked-for packages declare to need of Node, held against the Node of the image, before anything is built.
    fn check_engines(&self, node: &str, entry: &NpmLock) -> Result<(), Problem> {
        let asked = entry.packages.iter().filter(|pin| {
            let named = pin.path.strip_prefix("node_modules/").is_some_and(|name| entry.request.contains_key(name));
            named || entry.unpack.get(&pin.name).is_some_and(|unpack| unpack.at == pin.path)
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

    /// An allowed script must be one that there is: a name that allows nothing is a mistake.
    fn check_scripts(&self, allowed: &BTreeSet<String>, pins: &[NpmPin]) -> Result<(), Problem> {
        for name in allowed {
            let mut named = pins.iter().filter(|pin| pin.name == *name).peekable();
            let what = if named.peek().is_none() {
                format!("allow-scripts names {name}, which is not among the packages of {}", self.inputs.platform)
            } else if !named.any(|pin| pin.has_install_script) {
                format!("allow-scripts names {name}, which has no install script")
            } else {
                continue;
            };
            return Err(self.problem(what, "correct the name, or remove it".to_owned()));
        }
        Ok(())
    }

    pub(super) fn pip(&self, asked: &PipNode<'_>) -> Result<Vec<Part>, Problem> {
        let request = asked.packages.iter().map(|(name, version)| format!("{name}=={version}")).collect();
        let question = PipAsked { python: asked.python.to_owned(), request };
        let found = self.inputs.lock.pip(&self.image.name, asked.to, self.inputs.platform, &question);
        let parts = pip_layers(asked, &self.locked(found)?.packages);
        Ok(parts.into_iter().map(|(name, recipe)| self.part(name, recipe)).collect())
    }
}

/// Layers with the names of their parts.
type Named = Vec<(Option<String>, LayerRecipe)>;

fn npm_layers(asked: &NpmAsked<'_>, request: &BTreeMap<String, String>, pins: Vec<NpmPin>) -> Named {
    let layer = |request, packages, omit, links, allow_scripts| LayerRecipe::Npm {
        to: asked.to.to_owned(),
        request,
        packages,
        omit,
        links,
        allow_scripts,
    };
    let allow: Vec<String> = asked.allow_scripts.iter().cloned().collect();
    let mut omit: Vec<String> = asked.omit.iter().cloned().collect();
    if pins.len() <= TOGETHER {
        return vec![(None, layer(request.clone(), pins, omit, NpmLinks::Own, allow))];
    }
    // Scripts see the package that they belong to and what they build, so these are with what was asked.
    let scripted: BTreeSet<&str> =
        pins.iter().filter(|pin| asked.allow_scripts.contains(&pin.name)).filter_map(|pin| top_of(&pin.path)).collect();
    let is_asked = |top: &str| {
        top.strip_prefix("node_modules/").is_some_and(|name| request.contains_key(name)) || scripted.contains(top)
    };
    let mut units: BTreeMap<String, u64> = BTreeMap::new();
    for top in pins.iter().filter_map(|pin| top_of(&pin.path)).filter(|top| !is_asked(top)) {
        *units.entry(top.to_owned()).or_default() += 1;
    }
    let commands = pins.iter().filter(|pin| !pin.bin.is_empty());
    let links = commands.map(|pin| NpmCommands { path: pin.path.clone(), bin: pin.bin.clone() }).collect();
    let mut rest = pins.clone();
    let mut parts: Named = Vec::new();
    for bucket in split::buckets(&units, split::PACKAGES) {
        let names: BTreeSet<&str> = bucket.units.into_iter().collect();
        let inside = |path: &str| top_of(path).is_some_and(|top| names.contains(top));
        let (mine, others) = rest.into_iter().partition(|pin: &NpmPin| inside(&pin.path));
        rest = others;
        let (left_out, other): (Vec<String>, Vec<String>) = omit.into_iter().partition(|path| inside(path));
        omit = other;
        let name = format!("needed{}{}", if bucket.bits.is_empty() { "" } else { "-" }, bucket.bits);
        parts.push((Some(name), layer(BTreeMap::new(), mine, left_out, NpmLinks::Elsewhere, Vec::new())));
    }
    parts.push((Some(ASKED.to_owned()), layer(request.clone(), rest, omit, NpmLinks::Of(links), allow)));
    parts
}

/// The package of the first level that a path is in: `node_modules/@s/n` of `node_modules/@s/n/node_modules/x`.
fn top_of(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("node_modules/")?;
    let slashes = if rest.starts_with('@') { 2 } else { 1 };
    let end = rest.match_indices('/').nth(slashes - 1).map_or(rest.len(), |(at, _)| at);
    Some(&path[..path.len() - rest.len() + end])
}

fn pip_layers(asked: &PipNode<'_>, pins: &[PipPin]) -> Named {
    let layer = |packages, environment, allow_scripts| LayerRecipe::Pip {
        to: asked.to.to_owned(),
        python: asked.python.to_owned(),
        packages,
        environment,
        allow_scripts,
    };
    let allow: Vec<String> = asked.allow_scripts.iter().cloned().collect();
    if pins.len() <= TOGETHER {
        return vec![(None, layer(pins.to_vec(), true, allow))];
    }
    let names: BTreeSet<String> = asked.packages.keys().map(|name| normal(name)).collect();
    let (wanted, needed): (Vec<PipPin>, Vec<PipPin>) = pins.iter().cloned().partition(|pin| names.contains(&pin.name));
    let units: BTreeMap<String, u64> = needed.iter().map(|pin| (pin.name.clone(), 1)).collect();
    let mut parts: Named = Vec::new();
    for bucket in split::buckets(&units, split::PACKAGES) {
        let mine = needed.iter().filter(|pin| bucket.units.contains(&pin.name.as_str())).cloned().collect();
        let name = format!("needed{}{}", if bucket.bits.is_empty() { "" } else { "-" }, bucket.bits);
        parts.push((Some(name), layer(mine, false, Vec::new())));
    }
    parts.push((Some(ASKED.to_owned()), layer(wanted, true, allow)));
    parts
}

/// A project's name as indexes compare them (PEP 503), without extras.
fn normal(name: &str) -> String {
    let name = name.split('[').next().unwrap_or_default().trim();
    let mut normal = String::new();
    for c in name.chars() {
        match c {
            '-' | '_' | '.' if normal.ends_with('-') => {}
            '-' | '_' | '.' => normal.push('-'),
            other => normal.push(other.to_ascii_lowercase()),
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pin(path: &str) -> NpmPin {
        let name = path.rsplit("node_modules/").next().unwrap_or_default().to_owned();
        let bin = BTreeMap::from([(name.clone(), "cli.js".to_owned())]);
        NpmPin { path: path.to_owned(), name, bin, ..NpmPin::default() }
    }

    fn layers(more: &[&str], version: &str) -> Named {
        let request = BTreeMap::from([("app".to_owned(), version.to_owned())]);
        let paths = (0..300).map(|n| format!("node_modules/p{n}"));
        let fixed =
            ["node_modules/app", "node_modules/app/node_modules/p1", "node_modules/@s/n/node_modules/x", "plugins/y"];
        let all = paths.chain(fixed.iter().chain(more).map(|path| (*path).to_owned()));
        let (none, omit) =
            (BTreeSet::new(), BTreeSet::from(["node_modules/p7/test".to_owned(), "node_modules/app/x".to_owned()]));
        let (packages, unpack) = (BTreeMap::new(), BTreeMap::new());
        let asked = NpmAsked { to: "/opt/x", packages: &packages, unpack: &unpack, omit: &omit, allow_scripts: &none };
        npm_layers(&asked, &request, all.map(|path| pin(&path)).collect())
    }

    fn fields(layer: &LayerRecipe) -> (Vec<&str>, &[String], &NpmLinks) {
        match layer {
            LayerRecipe::Npm { packages, omit, links, .. } => {
                (packages.iter().map(|pin| pin.path.as_str()).collect(), omit, links)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_asked_is_above_what_it_needs_with_everything_nested_in_it() {
        let made = layers(&[], "1.0.0");
        let (last, needed) = made.split_last().unwrap();
        let (paths, omit, links) = fields(&last.1);
        assert_eq!(paths, ["node_modules/app", "node_modules/app/node_modules/p1", "plugins/y"]);
        assert_eq!(omit, ["node_modules/app/x"]);
        assert!(matches!(links, NpmLinks::Of(all) if all.len() == 304), "the links of all packages");
        assert!(needed.len() > 1 && needed.len() <= split::MOST);
        let all: Vec<&str> = needed.iter().flat_map(|(_, layer)| fields(layer).0).collect();
        assert_eq!(all.len(), 301);
        assert_eq!(all.iter().collect::<BTreeSet<_>>().len(), 301);
        let omitting: Vec<_> = needed.iter().filter(|(_, layer)| !fields(layer).1.is_empty()).collect();
        assert!(matches!(&omitting[..], [(_, layer)] if fields(layer).0.contains(&"node_modules/p7")));
    }

    #[test]
    fn another_version_of_what_was_asked_leaves_what_it_needs_alone() {
        let (before, after) = (layers(&[], "1.0.0"), layers(&[], "2.0.0"));
        let changed: Vec<_> = before.iter().zip(&after).filter(|(a, b)| a != b).map(|(a, _)| a.0.as_deref()).collect();
        assert_eq!(changed, [Some(ASKED)]);
    }

    #[test]
    fn one_more_dependency_changes_its_bucket_and_the_links() {
        let (before, after) = (layers(&[], "1.0.0"), layers(&["node_modules/new"], "1.0.0"));
        let stayed = before.iter().filter(|part| after.contains(part)).count();
        assert_eq!(stayed, before.len() - 2);
    }

    #[test]
    fn few_packages_are_one_layer_as_ever() {
        let request = BTreeMap::from([("app".to_owned(), "1.0.0".to_owned())]);
        let (none, packages, unpack) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        let asked = NpmAsked { to: "/x", packages: &packages, unpack: &unpack, omit: &none, allow_scripts: &none };
        let made = npm_layers(&asked, &request, vec![pin("node_modules/app"), pin("node_modules/b")]);
        assert!(matches!(&made[..], [(None, LayerRecipe::Npm { links: NpmLinks::Own, .. })]), "{made:?}");
    }

    #[test]
    fn the_names_of_projects_are_compared_as_an_index_does() {
        assert_eq!(normal("Zope.Interface"), "zope-interface");
        assert_eq!(normal("matrix_synapse[redis]"), "matrix-synapse");
    }
}
