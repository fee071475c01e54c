//! How images are made: [`Image`] and its [`Layer`]s.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    origin::{Declared, Origin},
    source::RelPath,
};

/// `image "agent" platform="linux/amd64" { … }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// Name in addresses and repositories.
    pub name: String,
    /// `linux/amd64`, `linux/arm64`; in order, without repeats. Empty: the target's own.
    pub platforms: Vec<String>,
    /// What it is made of.
    pub recipe: Recipe,
    /// `check "openclaw" "--version"`: argument vectors that must succeed in the image before anything rolls.
    pub checks: Vec<Vec<String>>,
    /// Where.
    pub origin: Origin,
}

/// How an image is made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Recipe {
    /// Assembled from layers, without a daemon.
    Layers(LayeredRecipe),
    /// Built by a container engine, for what needs RUN.
    Containerfile(ContainerfileRecipe),
}

impl Recipe {
    /// Whether programs run in it while it is made, an engine's steps or install scripts: then its layers are needed where it
    /// is made, and another machine may make other bytes.
    #[must_use]
    pub fn runs_programs(&self) -> bool {
        match self {
            Self::Containerfile(_) => true,
            Self::Layers(recipe) => recipe
                .layers
                .iter()
                .any(|layer| matches!(&layer.value, Layer::Npm { allow_scripts, .. } if !allow_scripts.is_empty())),
        }
    }
}

/// An image assembled by us.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LayeredRecipe {
    /// Where it starts; `None` is `base "scratch"` or a `debian` layer as the bottom.
    pub base: Option<Declared<BaseRef>>,
    /// Layers in the order declared.
    pub layers: Vec<Declared<Layer>>,
    /// `env NAME="value"`.
    pub env: BTreeMap<String, String>,
    /// `entrypoint "a" "b"`.
    pub entrypoint: Vec<String>,
    /// `command "a" "b"`.
    pub command: Vec<String>,
    /// `user "name" uid=1000 gid=1000 home="/home/name"`; written to passwd and group.
    pub users: Vec<User>,
    /// `run-as "name"`: the user of the image's process; `None` is root.
    pub run_as: Option<String>,
    /// `workdir "/x"`.
    pub workdir: Option<String>,
}

/// What an image starts from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum BaseRef {
    /// `base "docker.io/x/y:tag"`, pinned in `fleet.lock`.
    Reference(String),
    /// `base image="other"`.
    Image(String),
}

/// A user of an image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct User {
    /// Login name.
    pub name: String,
    /// Numeric user id.
    pub uid: u32,
    /// Numeric group id.
    pub gid: u32,
    /// Home folder.
    pub home: String,
}

/// One layer of an assembled image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Layer {
    /// `debian "bookworm" { packages "a" "b" }`.
    Debian {
        /// Release code name.
        suite: String,
        /// What is asked for; dependencies are resolved by `fleetctl lock`.
        packages: BTreeSet<String>,
    },
    /// `node "24.21.0"`: the Node.js binary at `/usr/local/bin/node`.
    Node {
        /// Exact version.
        version: String,
    },
    /// `npm to="/opt/x" { package "x" "1.0.0"; unpack "y" "1.0.0" at="node_modules/x/y"; omit "node_modules/x/z" }`.
    Npm {
        /// Folder that gets `node_modules`.
        to: String,
        /// Exact versions by package; their dependencies come too.
        packages: BTreeMap<String, String>,
        /// Packages whose archive alone is put at a place below `to`, for plugins that bring their dependencies.
        #[serde(default)]
        unpack: BTreeMap<String, Unpack>,
        /// Paths below `to` that are left out.
        #[serde(default)]
        omit: BTreeSet<String>,
        /// `allow-scripts "esbuild"`: packages, asked for or not, whose install scripts run.
        #[serde(default)]
        allow_scripts: BTreeSet<String>,
    },
    /// `pip to="/opt/synapse" python="3.11" { package "matrix-synapse" "1.163.2" }`.
    Pip {
        /// Folder that gets `lib/python3.11/site-packages` and `bin`.
        to: String,
        /// Python's minor version.
        python: String,
        /// Exact versions by project.
        packages: BTreeMap<String, String>,
        /// `allow-scripts`; there is nothing to run in wheels, and `check` says so.
        #[serde(default)]
        allow_scripts: BTreeSet<String>,
    },
    /// `copy "from" to="/x" [render=#true]`; links are followed.
    Copy {
        /// File or folder in the project.
        from: RelPath,
        /// Absolute path in the image; a folder's content lands below it.
        to: String,
        /// Render as a template with the fleet's and the environment's values.
        render: bool,
    },
    /// `tree "folder" to="/x"`: a folder as it is, with its empty folders and with links that stay within it.
    Tree {
        /// Folder in the project.
        from: RelPath,
        /// Absolute folder in the image that gets its content.
        to: String,
    },
    /// `fetch "https://…" sha256="…" to="/x"`.
    Fetch(Fetched),
    /// `fleet-agent to="/usr/local/bin/fleet-agent"`: our agent runtime for the image's platform.
    FleetAgent {
        /// Absolute path in the image.
        to: String,
    },
    /// `fleetctl to="/usr/local/bin/fleetctl"`: this program for the image's platform, as the fleet's manager.
    Fleetctl {
        /// Absolute path in the image.
        to: String,
    },
}

/// `fetch "https://…" sha256="…" to="/x" [executable=#true] [unpack=#true]`: one file, known by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetched {
    /// Where it can be had; not part of what the layer is.
    pub url: String,
    /// 64 lower-case hexadecimal digits.
    pub sha256: String,
    /// Absolute path of the file, or the folder that an archive is unpacked into.
    pub to: String,
    /// Mode 0755 and not 0644.
    pub executable: bool,
    /// It is a tar archive (plain, gzip, xz, zstd) or a zip, and its content is wanted.
    pub unpack: bool,
}

/// One npm package that is only unpacked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unpack {
    /// Exact version.
    pub version: String,
    /// Where, below the layer's `to`.
    pub at: String,
}

/// `containerfile "images/x/Containerfile" context="images/x" { arg NAME="v"; base image="y" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ContainerfileRecipe {
    /// The file.
    pub file: RelPath,
    /// The build context: its folder unless said otherwise.
    pub context: RelPath,
    /// Build arguments.
    pub args: BTreeMap<String, String>,
    /// `base image="y"`: the fleet image that `ARG BASE` names.
    pub base_image: Option<Declared<String>>,
}
