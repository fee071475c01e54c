//! [`Model`]: everything `fleet.kdl` and its includes declare, checked, with the place of each declaration.
//!
//! Deliberately absent: what an environment makes of it (see [`crate::resolved`]), hashes, and anything read
//! from a machine.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    aws::Network,
    origin::{Declared, Origin},
    source::RelPath,
};

/// A person's name in addresses and Matrix local parts: `aaron.phillips`.
pub type PersonId = String;

/// A whole project.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Model {
    /// The `fleet` node.
    pub fleet: Fleet,
    /// Folder of templates and skills; `templates "templates"`.
    pub templates: Declared<RelPath>,
    /// The `org` node.
    pub org: Org,
    /// `models { provider … }` by provider name.
    pub providers: BTreeMap<String, ModelProvider>,
    /// `images { image … }` by name.
    pub images: BTreeMap<String, Image>,
    /// The `rooms` node.
    pub rooms: Rooms,
    /// `environment` nodes by name, `extends` already applied.
    pub environments: BTreeMap<String, Environment>,
}

/// `fleet "anycompany" domain="anycompany.corp" tool-version=">=0.1"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fleet {
    /// Name in container, stack and task-family names: lower case, digits, dashes.
    pub name: String,
    /// The Matrix server name.
    pub domain: String,
    /// Where.
    pub origin: Origin,
}

/// Rank of a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Level {
    /// The head.
    Ceo,
    /// Heads a department.
    Vp,
    /// Heads a team.
    Director,
    /// Leads people in a team.
    Manager,
    /// Individual contributor.
    Ic,
}

impl Level {
    /// Every level, highest first.
    pub const ALL: [Self; 5] = [Self::Ceo, Self::Vp, Self::Director, Self::Manager, Self::Ic];

    /// The word in `fleet.kdl` and in template file names.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ceo => "ceo",
            Self::Vp => "vp",
            Self::Director => "director",
            Self::Manager => "manager",
            Self::Ic => "ic",
        }
    }
}

/// People, departments and teams.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Org {
    /// Overrides that apply to everybody.
    pub defaults: Overrides,
    /// By name.
    pub departments: BTreeMap<String, Department>,
    /// Everybody, humans included, by id.
    pub people: BTreeMap<PersonId, Person>,
}

/// One department.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Department {
    /// As people write it: `FP&A`.
    pub name: String,
    /// Slug used in room aliases; `alias=` or derived from the name.
    pub alias: String,
    /// Overrides for its people.
    pub defaults: Overrides,
    /// Its teams by name.
    pub teams: BTreeMap<String, Team>,
    /// Where.
    pub origin: Origin,
}

/// One team.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Team {
    /// As people write it.
    pub name: String,
    /// Slug used in room aliases; `alias=` or derived from the name.
    pub alias: String,
    /// Where.
    pub origin: Origin,
}

/// One person, human or agent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Matrix local part.
    pub id: PersonId,
    /// Full name.
    pub name: String,
    /// Job title.
    pub title: String,
    /// Rank.
    pub level: Level,
    /// Department, except for the head of all.
    pub department: Option<String>,
    /// Team within the department.
    pub team: Option<String>,
    /// Who they report to.
    pub reports_to: Option<PersonId>,
    /// A real person: has an account, never an agent.
    pub human: bool,
    /// What differs from department and defaults.
    pub overrides: Overrides,
    /// Where (a line of `fleet.kdl` or of the directory file).
    pub origin: Origin,
}

/// What can be set for everybody, a department or a person; the nearest wins, per field.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Primary model and fallbacks, each `provider/model-id`.
    pub model: Option<Declared<ModelChoice>>,
    /// Names of skills, each a folder below `<templates>/skills/`.
    pub skills: Option<Declared<BTreeSet<String>>>,
    /// Seconds between heartbeats; 0 switches them off.
    pub heartbeat_seconds: Option<Declared<u32>>,
    /// Answer in rooms only when mentioned.
    pub require_mention: Option<Declared<bool>>,
    /// CPU and memory.
    pub size: Option<Declared<Size>>,
    /// A template of the role in place of `roles/<level>.md`.
    pub template: Option<Declared<RelPath>>,
    /// The image that the agent runs.
    pub image: Option<Declared<String>>,
}

/// `model "p/m" { fallback "p/n" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelChoice {
    /// `provider/model-id`.
    pub primary: String,
    /// Tried in order when the primary fails.
    pub fallbacks: Vec<String>,
}

/// `size cpu=1024 memory-mib=2048`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Size {
    /// CPU units, 1024 to a core.
    pub cpu: u32,
    /// Mebibytes.
    pub memory_mib: u32,
}

/// Where models come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelProvider {
    /// The part before `/` in model names.
    pub name: String,
    /// How to talk to it.
    pub kind: ModelProviderKind,
    /// Where.
    pub origin: Origin,
}

/// How to talk to a model provider.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ModelProviderKind {
    /// Amazon Bedrock. Outside AWS it needs a Bedrock API key in the named environment variable of the operator.
    Bedrock {
        /// AWS region.
        region: String,
        /// Name of the secret that holds a Bedrock API key; `None`: the task role.
        api_key: Option<SecretName>,
    },
    /// Any endpoint that speaks OpenAI's chat completions: Ollama, vLLM, a gateway.
    OpenAi {
        /// For instance `http://127.0.0.1:11434/v1`; loopback means the host that runs the containers.
        base_url: String,
        /// Name of the secret that holds its key; `None`: no key.
        api_key: Option<SecretName>,
        /// Models it serves, by id.
        models: BTreeMap<String, ServedModel>,
    },
}

/// A secret that the operator provides in an environment variable of this name. Never its value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct SecretName(pub String);

/// What OpenClaw must know of a served model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServedModel {
    /// Context window in tokens.
    pub context: u32,
    /// Longest answer in tokens.
    pub max_tokens: u32,
}

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

/// The `rooms` node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rooms {
    /// Rules in the order declared.
    pub rules: Vec<RoomRule>,
    /// Which pairs get a direct-message room.
    pub direct_messages: BTreeSet<Pairing>,
}

/// Who gets a direct-message room with whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pairing {
    /// A person and whom they report to.
    ManagerReport,
    /// Two people with the same manager.
    SameManager,
    /// Two people of the same team of the same department.
    SameTeam,
}

/// One `room` node, alone or within `each "department"` / `each "team"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRule {
    /// Alias local part; may hold `{department}` or `{team}` within `each`.
    pub alias: String,
    /// Display name; `None` derives one from the alias.
    pub name: Option<String>,
    /// Topic.
    pub topic: Option<String>,
    /// What it repeats over.
    pub each: Each,
    /// Who is in it.
    pub members: Vec<MemberRule>,
    /// Anybody may join.
    pub public: bool,
    /// Who may moderate: level 50.
    pub moderators: Vec<MemberRule>,
    /// Where.
    pub origin: Origin,
}

/// What a room rule repeats over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Each {
    /// One room.
    Once,
    /// One per department that has deployed members by the rule.
    Department,
    /// One per team that has a deployed person.
    Team,
}

/// `members "aaron.phillips" level="ceo,vp" in="{department}"`: ids, or attributes that must all match.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberRule {
    /// Everybody: `"*"`.
    pub everyone: bool,
    /// Named people; `ceo` and other level words name everybody of that level.
    pub ids: BTreeSet<PersonId>,
    /// Levels; empty: any.
    pub levels: BTreeSet<Level>,
    /// Only people of the department or team that `each` is at (the head of all is never excluded by it).
    pub in_scope: bool,
    /// Only people of this department.
    pub department: Option<String>,
    /// Only people of this team.
    pub team: Option<String>,
}

/// One `environment` node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Environment {
    /// Name.
    pub name: String,
    /// Where it runs.
    pub target: Target,
    /// `target … compression="gzip"`: how layers of its images are compressed.
    #[serde(default)]
    pub compression: LayerCompression,
    /// `registry "host:5000/prefix"`: where its images are pushed.
    #[serde(default)]
    pub registry: Option<Declared<RegistryPlace>>,
    /// Which homeserver.
    pub homeserver: Homeserver,
    /// Web client's image, when there is one.
    pub web: Option<Web>,
    /// The fleet's manager, for AWS: it makes accounts and rooms from inside the network.
    pub manager: Option<Manager>,
    /// Ids of the people who are deployed as agents, selectors already resolved.
    pub deploy: BTreeMap<PersonId, Option<Origin>>,
    /// `override { model … }`: what this environment imposes on every agent: defaults < department < person < environment.
    /// It exists because a laptop has other models and less memory than the cloud.
    pub overrides: Overrides,
    /// `limits agents=50`.
    pub agent_limit: Option<Declared<u32>>,
    /// `network …`, for AWS.
    pub network: Network,
    /// `logs retention="7d"`, in days, for AWS: one of [`crate::aws::LOG_DAYS`].
    pub log_days: Declared<u32>,
    /// `backup retention="7d"`, in days, for AWS; `None`: no backups.
    pub backup_days: Option<Declared<u32>>,
    /// `compute "fargate-spot"`, for AWS: agents run on spare capacity, which AWS takes back with two minutes' notice.
    pub agents_on_spot: Option<Declared<bool>>,
    /// `credentials "fleet-secret"`, for AWS: agents get the fleet secret and derive their password from it. Else each gets
    /// its own password only.
    pub agents_get_fleet_secret: Option<Declared<bool>>,
    /// `rollout wave=10 pause="30s" max-failures=1`.
    pub rollout: Rollout,
    /// Where.
    pub origin: Origin,
}

/// Where an environment runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "target")]
pub enum Target {
    /// A container engine.
    Docker,
    /// Amazon Web Services.
    Aws {
        /// 12 digits.
        account: String,
        /// Region.
        region: String,
        /// `endpoint-url`: in place of AWS's own addresses, an emulator. Part of no derivation.
        #[serde(default)]
        endpoint: Option<String>,
    },
}

/// How layers are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LayerCompression {
    /// For every engine and registry of today.
    #[default]
    Zstd,
    /// For tools that know nothing else.
    Gzip,
}

/// A registry and where in it a fleet's repositories are.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RegistryPlace {
    /// Host in lower case.
    pub host: String,
    /// Port, where it is not that of the scheme.
    pub port: Option<u16>,
    /// Before each repository, without slashes at its ends; empty for none.
    pub prefix: String,
}

impl std::fmt::Display for RegistryPlace {
    /// `host[:port][/prefix]`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.host)?;
        if let Some(port) = self.port {
            write!(f, ":{port}")?;
        }
        if self.prefix.is_empty() { Ok(()) } else { write!(f, "/{}", self.prefix) }
    }
}

/// Which homeserver implementation an image holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HomeserverKind {
    /// Element's Synapse.
    Synapse,
    /// Conduit.
    Conduit,
}

/// `homeserver image="homeserver" kind="synapse" port=6167`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Homeserver {
    /// Image name.
    pub image: String,
    /// Implementation.
    pub kind: HomeserverKind,
    /// Operator port on 127.0.0.1.
    pub port: u16,
    /// CPU and memory.
    pub size: Size,
    /// Where.
    pub origin: Option<Origin>,
}

/// `web image="element" port=8080`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Web {
    /// Image name.
    pub image: String,
    /// Operator port on 127.0.0.1.
    pub port: u16,
    /// CPU and memory.
    pub size: Size,
    /// Where.
    pub origin: Origin,
}

/// `manager image="manager"`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manager {
    /// Image name.
    pub image: String,
    /// CPU and memory.
    pub size: Size,
    /// Where.
    pub origin: Origin,
}

/// The longest time an agent may be given to become healthy: half an hour.
pub const MAX_HEALTHY_WITHIN_SECONDS: u32 = 1_800;

/// How agents roll.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rollout {
    /// Agents rolled at once.
    pub wave: u32,
    /// Seconds between waves.
    pub pause_seconds: u32,
    /// Failures after which the rollout stops.
    pub max_failures: u32,
    /// Seconds an agent has to become healthy.
    pub healthy_within_seconds: u32,
}

impl Default for Rollout {
    fn default() -> Self {
        Self { wave: 10, pause_seconds: 0, max_failures: 1, healthy_within_seconds: 180 }
    }
}
