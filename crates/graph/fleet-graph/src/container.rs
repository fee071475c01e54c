//! Containers of the platform and of agents: what [`fleet_objects::ContainerSpec`] each one gets, and what it derives from.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleet_derivation::{Derivation, Hash, Input};
use fleet_model::{
    Address, Kind, Origin,
    model::{
        Environment, Homeserver, HomeserverKind, MAX_HEALTHY_WITHIN_SECONDS, Model, ModelProviderKind, Target, Web,
    },
    resolved::Agent,
};
use fleet_objects::{
    ContainerSpec, Content, HealthProbe, PlacedFile, PublishedPort, SECRET_PLACE, SecretUse, VolumeMount,
};
use serde_json::json;

use crate::{image::PlannedImage, openclaw};

/// Name under which other containers reach the homeserver.
pub const HOMESERVER_ALIAS: &str = "homeserver";
/// Port on which every homeserver listens inside the environment's network.
pub const HOMESERVER_PORT: u16 = 6167;
/// The uid and gid under which OpenClaw runs: user `agent` of the image.
pub const AGENT_UID: u32 = 1000;
/// The uid and gid under which the homeserver runs: user `synapse` of the image.
pub const HOMESERVER_UID: u32 = 991;
/// How long a health probe may take. On a busy machine most of it is the engine starting the probe, and what serves must
/// not be rolled for that.
const PROBE_SECONDS: u32 = 15;
/// Where fleet-agent answers health probes, loopback only.
const HEALTH_PORT: u16 = 18791;
/// Where fleet-agent answers the `people` tool, loopback only.
pub(crate) const TOOL_PORT: u16 = 18790;
/// Keys that Synapse takes as files below `/fleet/secrets`; the same labels derive them elsewhere.
pub const SYNAPSE_KEYS: [&str; 3] =
    ["synapse-registration-shared-secret", "synapse-macaroon-secret", "synapse-form-secret"];
/// The key with which accounts are registered on a Conduit, in its configuration.
pub const REGISTRATION_TOKEN: &str = "registration-token";
/// Where a Conduit finds its configuration, in place of the one in its image.
const CONDUIT_CONFIG: &str = "/fleet/conduit.toml";

/// The homeserver as agents of an environment reach it.
#[must_use]
pub fn homeserver_url(environment: &Environment, domain: &str) -> String {
    match environment.target {
        Target::Docker => format!("http://{HOMESERVER_ALIAS}:{HOMESERVER_PORT}"),
        Target::Aws { .. } => fleet_stacks::homeserver_url(domain),
    }
}

fn text_file(path: &str, text: impl Into<Arc<str>>) -> PlacedFile {
    PlacedFile { path: path.to_owned(), mode: 0o444, uid: 0, gid: 0, content: Content::Text { text: text.into() } }
}

fn secret_file(path: String, secret: SecretUse) -> PlacedFile {
    PlacedFile { path, mode: 0o400, uid: 0, gid: 0, content: Content::Secret { secret } }
}

/// What a Synapse of our image is given.
fn synapse_files(model: &Model) -> Vec<PlacedFile> {
    let config = json!({
        "schema": 1,
        "server_name": model.fleet.domain,
        "port": HOMESERVER_PORT,
        "data": "/data",
        "uid": HOMESERVER_UID,
        "gid": HOMESERVER_UID,
    });
    let mut files = vec![text_file("/fleet/homeserver.json", format!("{config:#}\n"))];
    for label in SYNAPSE_KEYS {
        files.push(secret_file(format!("/fleet/secrets/{label}"), SecretUse::Key { label: label.to_owned() }));
    }
    files
}

/// Conduit's whole configuration: it reads one file, so the token with which alone accounts can be registered is in it.
/// An environment variable would show the token to whoever inspects the container.
fn conduit_file(model: &Model) -> PlacedFile {
    let text = format!(
        "[global]\n\
         server_name = {name:?}\n\
         address = \"0.0.0.0\"\n\
         port = {HOMESERVER_PORT}\n\
         database_backend = \"rocksdb\"\n\
         database_path = \"/data/database\"\n\
         max_request_size = 20_000_000\n\
         max_concurrent_requests = 100\n\
         allow_registration = true\n\
         registration_token = \"{SECRET_PLACE}\"\n\
         allow_federation = false\n\
         allow_encryption = false\n\
         allow_check_for_updates = false\n\
         trusted_servers = []\n",
        name = model.fleet.domain,
    );
    let secret = SecretUse::Key { label: REGISTRATION_TOKEN.to_owned() };
    PlacedFile {
        path: CONDUIT_CONFIG.to_owned(),
        mode: 0o400,
        uid: 0,
        gid: 0,
        content: Content::Filled { text, secret },
    }
}

/// The homeserver's container.
#[must_use]
pub fn homeserver(model: &Model, declared: &Homeserver, image: &PlannedImage, output: Option<String>) -> ContainerSpec {
    let (files, env) = match declared.kind {
        HomeserverKind::Synapse => (synapse_files(model), BTreeMap::new()),
        HomeserverKind::Conduit => {
            (vec![conduit_file(model)], BTreeMap::from([("CONDUIT_CONFIG".to_owned(), CONDUIT_CONFIG.to_owned())]))
        }
    };
    ContainerSpec {
        image: Address::new(Kind::Image, &declared.image),
        image_hash: image.hash,
        image_output: output,
        env,
        command: None,
        files,
        volumes: vec![VolumeMount { volume: "homeserver".to_owned(), path: "/data".to_owned(), read_only: false }],
        ports: vec![PublishedPort { host: declared.port, container: HOMESERVER_PORT }],
        size: declared.size,
        health: match declared.kind {
            HomeserverKind::Synapse => Some(HealthProbe {
                command: vec![
                    "/usr/bin/python3".to_owned(),
                    "/opt/homeserver/start.py".to_owned(),
                    "health".to_owned(),
                ],
                interval_seconds: 2,
                timeout_seconds: PROBE_SECONDS,
                start_period_seconds: 90,
                retries: 5,
            }),
            // Conduit's image has no probe of its own; that it keeps running is all that can be seen from inside.
            HomeserverKind::Conduit => None,
        },
        hostname: HOMESERVER_ALIAS.to_owned(),
        aliases: BTreeSet::from([HOMESERVER_ALIAS.to_owned()]),
        host_gateway: false,
        stop_grace_seconds: 30,
        healthy_within_seconds: 180,
        read_only_root: false,
    }
}

/// The web client's container.
#[must_use]
pub fn web(declared: &Web, image: &PlannedImage, output: Option<String>) -> ContainerSpec {
    ContainerSpec {
        image: Address::new(Kind::Image, &declared.image),
        image_hash: image.hash,
        image_output: output,
        env: BTreeMap::new(),
        command: None,
        files: Vec::new(),
        volumes: Vec::new(),
        ports: vec![PublishedPort { host: declared.port, container: 8080 }],
        size: declared.size,
        health: None,
        hostname: "web".to_owned(),
        aliases: BTreeSet::from(["web".to_owned()]),
        host_gateway: false,
        stop_grace_seconds: 10,
        healthy_within_seconds: 60,
        read_only_root: false,
    }
}

/// What an agent's container is made from.
pub struct AgentParts<'a> {
    /// The model.
    pub model: &'a Model,
    /// The environment.
    pub environment: &'a Environment,
    /// The agent.
    pub agent: &'a Agent,
    /// Its rendered files, by path within the bundle.
    pub files: &'a BTreeMap<String, Arc<str>>,
    /// Its image.
    pub image: &'a PlannedImage,
    /// What the image is known to be.
    pub output: Option<String>,
}

/// An agent's container.
#[must_use]
pub fn agent(parts: &AgentParts<'_>) -> ContainerSpec {
    let agent = parts.agent;
    let mut files = vec![text_file("/fleet/agent.json", agent_json(parts))];
    for (path, text) in parts.files {
        files.push(text_file(&format!("/fleet/bundle/{path}"), Arc::clone(text)));
    }
    let password = SecretUse::Password { matrix_id: agent.matrix_id.clone(), epoch: 0 };
    files.push(secret_file("/fleet/secrets/password".to_owned(), password));
    for name in operator_secrets(parts) {
        files.push(secret_file(format!("/fleet/secrets/{name}"), SecretUse::Operator { name }));
    }
    let volume = |volume: String, path: &str, read_only| VolumeMount { volume, path: path.to_owned(), read_only };
    ContainerSpec {
        image: Address::new(Kind::Image, &agent.image.value),
        image_hash: parts.image.hash,
        image_output: parts.output.clone(),
        env: BTreeMap::new(),
        command: None,
        files,
        volumes: vec![
            volume(format!("data-{}", agent.id), "/data", false),
            volume("directory".to_owned(), "/fleet/directory", true),
        ],
        ports: Vec::new(),
        size: agent.size.value,
        health: Some(HealthProbe {
            command: vec!["/usr/local/bin/fleet-agent".to_owned(), "health".to_owned()],
            interval_seconds: 3,
            timeout_seconds: PROBE_SECONDS,
            // Not `healthy-within`: that bounds a roll and is nothing that the container is made of.
            start_period_seconds: MAX_HEALTHY_WITHIN_SECONDS,
            retries: 3,
        }),
        hostname: agent.id.clone(),
        aliases: BTreeSet::from([agent.id.clone()]),
        host_gateway: parts.environment.target == Target::Docker,
        stop_grace_seconds: 30,
        healthy_within_seconds: parts.environment.rollout.healthy_within_seconds,
        read_only_root: false,
    }
}

fn agent_json(parts: &AgentParts<'_>) -> String {
    let agent = parts.agent;
    let probes: Vec<String> = openclaw::used_providers(agent, parts.model)
        .values()
        .filter_map(|provider| match &provider.kind {
            ModelProviderKind::OpenAi { base_url, .. } => Some(openclaw::from_container(base_url)),
            ModelProviderKind::Bedrock { .. } => None,
        })
        .collect();
    let mut document = json!({
        "schema": 1,
        "matrix_id": agent.matrix_id,
        "homeserver": homeserver_url(parts.environment, &parts.model.fleet.domain),
        "device_id": "FLEETAGENT",
        "register": false,
        "rooms": [],
        "command": ["/usr/local/bin/node", "/opt/openclaw/node_modules/openclaw/openclaw.mjs", "gateway", "run"],
        "workspace_dir": "/data/workspace",
        "state_dir": "/data/state",
        "uid": AGENT_UID,
        "gid": AGENT_UID,
        "gateway_port": openclaw::GATEWAY_PORT,
        "health_port": HEALTH_PORT,
        "tool_port": TOOL_PORT,
        "directory": "/fleet/directory",
        "env_secrets": operator_secrets(parts),
        "model_endpoints": probes,
    });
    let regions = openclaw::bedrock_regions(agent, parts.model);
    if bedrock_by_role(parts.environment) && !regions.is_empty() {
        document["bedrock"] = json!({"port": openclaw::BEDROCK_PORT, "regions": regions});
    }
    format!("{document:#}\n")
}

/// On AWS a task has a role that may ask its models; elsewhere a container has nothing but a key.
#[must_use]
pub const fn bedrock_by_role(environment: &Environment) -> bool {
    matches!(environment.target, Target::Aws { .. })
}

/// Names of the operator's secrets that the agent's model providers need.
fn operator_secrets(parts: &AgentParts<'_>) -> BTreeSet<String> {
    let by_role = bedrock_by_role(parts.environment);
    let used = openclaw::used_providers(parts.agent, parts.model).into_values();
    used.filter_map(|provider| Some(openclaw::key(provider, by_role)?.0.clone())).collect()
}

/// The derivation of a container: everything in its specification, each part under a name of its own.
#[must_use]
pub fn derivation(address: Address, spec: &ContainerSpec, origin: Option<&Origin>) -> Derivation {
    let mut made = Derivation::new(address);
    let image =
        Input::Derivation { address: spec.image.clone(), hash: spec.image_hash, output: spec.image_output.clone() };
    made.input("image", image, origin);
    made.value("size.cpu", spec.size.cpu.to_string(), origin);
    made.value("size.memory-mib", spec.size.memory_mib.to_string(), origin);
    made.value("command", json!(spec.command).to_string(), origin);
    made.value("volumes", json!(spec.volumes).to_string(), origin);
    made.value("ports", json!(spec.ports).to_string(), origin);
    made.value("health", json!(spec.health).to_string(), origin);
    made.value("hostname", &spec.hostname, origin);
    made.value("aliases", json!(spec.aliases).to_string(), origin);
    made.value("host-gateway", spec.host_gateway.to_string(), origin);
    made.value("stop-grace", spec.stop_grace_seconds.to_string(), origin);
    made.value("read-only-root", spec.read_only_root.to_string(), origin);
    for (name, value) in &spec.env {
        made.value(format!("env.{name}"), value, origin);
    }
    for file in &spec.files {
        match &file.content {
            // Bundle files are the output of the workspace derivation, added by the caller.
            Content::Text { .. } if file.path.starts_with("/fleet/bundle/") => {}
            Content::Text { text } => {
                made.value(format!("file.{}", file.path), Hash::of(text.as_bytes()).to_string(), origin)
            }
            Content::Secret { secret } => made.input(format!("file.{}", file.path), secret_input(secret), origin),
            Content::Filled { text, secret } => {
                made.value(format!("file.{}", file.path), Hash::of(text.as_bytes()).to_string(), origin);
                made.input(format!("file.{} secret", file.path), secret_input(secret), origin);
            }
        }
    }
    made
}

/// A secret as a derivation knows it: by reference and epoch.
fn secret_input(secret: &SecretUse) -> Input {
    let (name, epoch) = match secret {
        SecretUse::Password { matrix_id, epoch } => (format!("password of {matrix_id}"), *epoch),
        SecretUse::Key { label } => (format!("key {label}"), 0),
        SecretUse::Operator { name } => (name.clone(), 0),
    };
    Input::Secret { name, epoch }
}
