//! What of a recipe is hashed: [`LayerRecipe::hash_inputs`], [`ImageRecipe::hash_inputs`].

use std::collections::BTreeMap;

use super::{FileEntry, FileWhat, IMAGE_VERSION, ImageRecipe, LayerRecipe, NpmLinks, RECIPE_VERSION};
use crate::{digest::Digest, layer::Packing, write_tar::MTIME};

/// Canonical, ordered `(field, value)` pairs for a derivation hash: fields repeat for lists, in order.
pub type HashInputs = Vec<(String, String)>;

impl LayerRecipe {
    /// Everything that decides the layer's bytes, and nothing else.
    #[must_use]
    pub fn hash_inputs(&self, packing: impl Into<Packing>) -> HashInputs {
        let mut inputs = self.packing_inputs(packing.into());
        self.add_fields(&mut inputs);
        inputs.0
    }

    /// Of these, what does not depend on what is in the layer: for those who name its files in their own way.
    #[must_use]
    pub fn packing_hash_inputs(&self, packing: impl Into<Packing>) -> HashInputs {
        self.packing_inputs(packing.into()).0
    }

    fn packing_inputs(&self, packing: Packing) -> Inputs {
        let mut inputs = Inputs::default();
        inputs.add("recipe", RECIPE_VERSION);
        inputs.add("kind", self.kind());
        if self.is_built_here() {
            inputs.add("compression", packing.compression.recipe());
            if packing.mtime != MTIME {
                inputs.add("mtime", packing.mtime);
            }
        }
        inputs
    }

    fn add_fields(&self, inputs: &mut Inputs) {
        match self {
            Self::Base { reference: _, digest } => inputs.add("digest", digest),
            Self::Image { name: _, output } => inputs.add("output", output),
            Self::Debian { suite, architecture, packages, users } => {
                inputs.add("suite", suite);
                inputs.add("architecture", architecture);
                for pin in packages {
                    inputs.add("package", format!("{} {} {}", pin.name, pin.version, pin.sha256));
                }
                for user in users {
                    inputs.add("user", format!("{}:{}:{}:{}", user.name, user.uid, user.gid, user.home));
                }
            }
            Self::Node { to, package } => {
                inputs.add("to", to);
                inputs.add("package", format!("{} {}", package.name, package.integrity));
            }
            Self::Npm { to, request, packages, omit, links, allow_scripts } => {
                inputs.add("to", to);
                links.add_to(inputs);
                allow_scripts.iter().for_each(|name| inputs.add("allow-scripts", name));
                inputs.add_map("request", request);
                for pin in packages {
                    inputs.add("package", format!("{} {}", pin.path, pin.integrity));
                    inputs.add_map("bin", &pin.bin);
                }
                omit.iter().for_each(|path| inputs.add("omit", path));
            }
            Self::Pip { to, python, packages, environment, allow_scripts } => {
                inputs.add("to", to);
                if !environment {
                    inputs.add("environment", "elsewhere");
                }
                allow_scripts.iter().for_each(|name| inputs.add("allow-scripts", name));
                inputs.add("python", python);
                for pin in packages {
                    inputs.add("package", format!("{} {}", pin.filename, pin.sha256));
                }
            }
            // Not where it is fetched: whatever serves it, it is the same.
            Self::Fetch { url: _, sha256, to, executable, unpack } => {
                inputs.add("sha256", sha256);
                inputs.add("to", to);
                let mode = if *executable { "0755" } else { "0644" };
                inputs.add("mode", if *unpack { "unpack" } else { mode });
            }
            Self::Files { entries } => entries.iter().for_each(|entry| inputs.add("file", entry.fingerprint())),
            Self::FleetAgent { to, source } | Self::Fleetctl { to, source } => {
                inputs.add("to", to);
                inputs.add("source", source);
            }
            Self::Containerfile { path: _, context, args, bases } => {
                inputs.add("context", context);
                inputs.add_map("arg", args);
                inputs.add_map("base", bases);
            }
        }
    }
}

impl NpmLinks {
    fn add_to(&self, inputs: &mut Inputs) {
        match self {
            Self::Own => {}
            Self::Elsewhere => inputs.add("links", "elsewhere"),
            Self::Of(all) => all.iter().for_each(|one| inputs.add_map(&format!("link {}", one.path), &one.bin)),
        }
    }
}

impl ImageRecipe {
    /// Everything that decides the image's bytes when its layers are named by `layer_keys` (their derivation hashes,
    /// bottom to top). The name is not among them: two images of the same content are one.
    #[must_use]
    pub fn hash_inputs(&self, layer_keys: &[String]) -> HashInputs {
        let mut inputs = Inputs::default();
        inputs.add("recipe", IMAGE_VERSION);
        inputs.add("platform", self.platform);
        inputs.add("compression", self.compression.recipe());
        for key in layer_keys {
            inputs.add("layer", key);
        }
        self.config.add_hash_inputs(&mut inputs);
        inputs.0
    }
}

impl FileEntry {
    fn fingerprint(&self) -> String {
        let what = match &self.what {
            FileWhat::Dir => "dir".to_owned(),
            FileWhat::Symlink(target) => format!("link {target}"),
            // Equal bytes hash equally, whether they are carried or referred to.
            FileWhat::Inline(bytes) => Digest::sha256(bytes).to_string(),
            FileWhat::Blob { digest, .. } => digest.to_string(),
            FileWhat::Source { blake3, .. } => format!("blake3:{blake3}"),
        };
        format!("{:04o} {}:{} {} {}", self.mode, self.uid, self.gid, what, self.path)
    }
}

/// Collects hash inputs in order.
#[derive(Default)]
pub(crate) struct Inputs(HashInputs);

impl Inputs {
    pub(crate) fn add(&mut self, field: &str, value: impl ToString) {
        self.0.push((field.to_owned(), value.to_string()));
    }

    pub(crate) fn add_map<V: ToString>(&mut self, field: &str, map: &BTreeMap<String, V>) {
        for (key, value) in map {
            self.add(&format!("{field}.{key}"), value.to_string());
        }
    }
}
