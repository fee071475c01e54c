//! Instantiates: Model + sources + lock → derivations and the objects they describe.
//!
//! The entry point is [`instantiate`]; workspaces are rendered in [`workspace`], OpenClaw's configuration in
//! [`openclaw`], stacks in [`stacks`].
//! Deliberately absent: reading files, what exists, and any choice about what to do.

pub mod agent_service;
pub mod container;
pub mod image;
pub mod openclaw;
pub mod stacks;
pub mod template;
pub mod workspace;

use std::collections::BTreeMap;

use fleet_derivation::{Derivation, DerivationGraph, Hash, Input};
use fleet_model::{
    Address, Kind, Origin, SourceTree,
    model::{Environment, Model, Target},
    resolved::{Account, Agent, Resolved, Room},
};
use fleet_objects::{AccountSpec, ContainerSpec, Desired, DirectorySpec, RoomSpec, directory};
use fleet_oci::{Lock, Platform};
use fleet_stacks::Settings;
use rayon::prelude::*;
use serde_json::json;

use crate::{
    container::AgentParts,
    image::PlannedImage,
    workspace::{Workspace, Workspaces},
};

/// Agents that one thread makes before another is worth waking, and that share templates which were parsed once.
const AGENTS_AT_A_TIME: usize = 256;

/// Everything a graph is made from.
#[derive(Clone, Copy)]
pub struct Inputs<'a> {
    /// The checked model.
    pub model: &'a Model,
    /// The environment.
    pub environment: &'a Environment,
    /// What it makes of the model.
    pub resolved: &'a Resolved,
    /// The project's files.
    pub sources: &'a SourceTree,
    /// `fleet.lock`.
    pub lock: &'a Lock,
    /// What the target runs.
    pub platform: Platform,
    /// The agent runtime by platform, where there is one: hash of its sources, lock file, toolchain and flags, or of a
    /// released binary.
    pub agent_binaries: &'a BTreeMap<Platform, Hash>,
    /// The same of this program, for the manager's image.
    pub fleetctl_binaries: &'a BTreeMap<Platform, Hash>,
    /// `SOURCE_DATE_EPOCH`: seconds since 1970 that files in layers bear, where the operator wants others than ours.
    pub source_date_epoch: Option<u64>,
    /// Outputs that are known, by derivation hash.
    pub outputs: &'a BTreeMap<Hash, String>,
}

/// Something that stops instantiation: found after the checks of fleet-model, because it needs templates or the lock.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("{address}: {what}")]
pub struct Problem {
    /// One of [`fleet_model::late`].
    pub code: &'static str,
    /// Of what.
    pub address: Address,
    /// The line to look at.
    pub origin: Option<Origin>,
    /// What is wrong.
    pub what: String,
    /// How to mend it.
    pub help: String,
}

/// The graph and the objects it derives.
#[derive(Clone, Debug, Default)]
pub struct Instance {
    /// Every derivation, inputs of inputs included.
    pub graph: DerivationGraph,
    /// Objects to have, by address; each is also in the graph.
    pub desired: BTreeMap<Address, Desired>,
}

impl Instance {
    fn add(&mut self, derivation: Derivation, desired: Desired) {
        self.desired.insert(derivation.address.clone(), desired);
        self.graph.insert(derivation);
    }
}

/// Makes the graph of one environment.
///
/// # Errors
/// Every problem at once.
pub fn instantiate(inputs: &Inputs<'_>) -> Result<Instance, Vec<Problem>> {
    let mut instance = Instance::default();
    // A mistake in an image hides none in a template.
    let mut problems = Vec::new();
    let images = image::images(inputs).unwrap_or_else(|found| {
        problems.extend(found);
        BTreeMap::new()
    });
    for (name, planned) in &images {
        for derivation in &planned.derivations {
            instance.graph.insert(derivation.clone());
        }
        instance.desired.insert(Address::new(Kind::Image, name), Desired::Image(planned.spec.clone()));
    }
    match inputs.environment.target {
        Target::Docker => add_services(inputs, &images, &mut instance),
        // Homeserver and web client are services of the environment's stack.
        Target::Aws { .. } => problems.extend(stacks::add(inputs, &images, &mut instance).err().into_iter().flatten()),
    }
    add_directory(inputs, &images, &mut instance);
    add_matrix(inputs, &mut instance);
    problems.extend(add_agents(inputs, &images, &mut instance));
    if problems.is_empty() { Ok(instance) } else { Err(problems) }
}

fn output(inputs: &Inputs<'_>, image: &PlannedImage) -> Option<String> {
    inputs.outputs.get(&image.hash).cloned()
}

fn add_services(inputs: &Inputs<'_>, images: &BTreeMap<String, PlannedImage>, instance: &mut Instance) {
    let mut add = |name: &str, spec: ContainerSpec, origin: Option<&Origin>| {
        let derivation = container::derivation(Address::new(Kind::Service, name), &spec, origin);
        instance.add(derivation, Desired::Container(spec));
    };
    let declared = &inputs.environment.homeserver;
    if let Some(image) = images.get(&declared.image) {
        let spec = container::homeserver(inputs.model, declared, image, output(inputs, image));
        add(container::HOMESERVER_ALIAS, spec, declared.origin.as_ref());
    }
    if let Some(declared) = &inputs.environment.web
        && let Some(image) = images.get(&declared.image)
    {
        add("web", container::web(declared, image, output(inputs, image)), Some(&declared.origin));
    }
}

fn add_directory(inputs: &Inputs<'_>, images: &BTreeMap<String, PlannedImage>, instance: &mut Instance) {
    let name = &inputs.environment.homeserver.image;
    let Some(image) = images.get(name) else { return };
    let people: Vec<_> = inputs.resolved.directory.values().collect();
    let document = format!("{:#}\n", json!({"schema": 1, "people": people}));
    let mut derivation = Derivation::new(directory::address());
    for person in people {
        let origin = inputs.model.org.people.get(&person.id).map(|declared| &declared.origin);
        derivation.value(format!("person.{}", person.id), json!(person).to_string(), origin);
    }
    // Not an input: which image lends its container to hold the volume changes nothing that anybody reads.
    let spec = DirectorySpec { document, image: Address::new(Kind::Image, name), image_hash: image.hash };
    instance.add(derivation, Desired::Directory(spec));
}

fn add_matrix(inputs: &Inputs<'_>, instance: &mut Instance) {
    for account in inputs.resolved.accounts.values() {
        instance.add(account_derivation(account), Desired::Account(account_spec(account)));
    }
    let id = |person: &String| format!("@{person}:{}", inputs.model.fleet.domain);
    for room in inputs.resolved.rooms.values() {
        let spec = RoomSpec {
            alias: room.alias.clone(),
            name: room.name.clone(),
            topic: room.topic.clone(),
            members: room.members.iter().map(id).collect(),
            power: room.moderators.iter().map(|person| (id(person), 50)).collect(),
            public: room.public,
            direct: false,
        };
        instance.add(room_derivation(&spec, Some(room)), Desired::Room(spec));
    }
    for (a, b) in &inputs.resolved.direct_messages {
        let spec = RoomSpec {
            alias: format!("dm-{a}-{b}"),
            name: String::new(),
            topic: String::new(),
            members: [id(a), id(b)].into(),
            power: BTreeMap::new(),
            public: false,
            direct: true,
        };
        instance.add(room_derivation(&spec, None), Desired::Room(spec));
    }
}

fn account_spec(account: &Account) -> AccountSpec {
    AccountSpec { matrix_id: account.matrix_id.clone(), display_name: account.display_name.clone(), epoch: 0 }
}

fn account_derivation(account: &Account) -> Derivation {
    let mut made = Derivation::new(Address::new(Kind::Account, &account.id));
    made.value("matrix-id", &account.matrix_id, Some(&account.origin));
    made.value("display-name", &account.display_name, Some(&account.origin));
    made.input("password", Input::Secret { name: format!("password of {}", account.matrix_id), epoch: 0 }, None);
    made
}

fn room_derivation(spec: &RoomSpec, declared: Option<&Room>) -> Derivation {
    let origin = declared.map(|room| &room.origin);
    let mut made = Derivation::new(Address::new(Kind::Room, &spec.alias));
    made.value("name", &spec.name, origin);
    made.value("topic", &spec.topic, origin);
    made.value("public", spec.public.to_string(), origin);
    made.value("direct", spec.direct.to_string(), origin);
    for member in &spec.members {
        made.value(format!("member {member}"), spec.power.get(member).copied().unwrap_or(0).to_string(), origin);
    }
    made
}

fn add_agents(inputs: &Inputs<'_>, images: &BTreeMap<String, PlannedImage>, instance: &mut Instance) -> Vec<Problem> {
    let homeserver = container::homeserver_url(inputs.environment, &inputs.model.fleet.domain);
    let settings = match stacks::settings(inputs.model, inputs.environment) {
        Ok(settings) => settings,
        // Said of the stacks already.
        Err(_) => return Vec::new(),
    };
    let mut workspaces = Workspaces::new(inputs.model, inputs.sources, &homeserver);
    workspaces.bedrock_by_role = container::bedrock_by_role(inputs.environment);
    let mut problems: Vec<Problem> = workspaces.broken_templates();
    let some = |workspaces: &Workspaces<'_>, agents: &[&Agent]| {
        let mut part = (Instance::default(), Vec::new());
        for agent in agents {
            match (workspaces.workspace(agent), images.get(&agent.image.value)) {
                (Err(found), _) => part.1.extend(found),
                (Ok(_), None) => {}
                (Ok(workspace), Some(image)) => {
                    add_agent(inputs, settings.as_ref(), (agent, workspace, image), &mut part.0)
                }
            }
        }
        part
    };
    let agents: Vec<&Agent> = inputs.resolved.agents.values().collect();
    let parts: Vec<(Instance, Vec<Problem>)> = if agents.len() > AGENTS_AT_A_TIME {
        // Templates remember what was read of them: each thread has its own.
        agents.par_chunks(AGENTS_AT_A_TIME).map(|agents| some(&workspaces.again(), agents)).collect()
    } else {
        vec![some(&workspaces, &agents)]
    };
    for (part, found) in parts {
        instance.graph.extend(part.graph);
        instance.desired.extend(part.desired);
        problems.extend(found);
    }
    problems
}

fn add_agent(
    inputs: &Inputs<'_>,
    settings: Option<&Settings>,
    (agent, workspace, image): (&Agent, Workspace, &PlannedImage),
    instance: &mut Instance,
) {
    let derived = instance.graph.insert(workspace.derivation);
    let parts = AgentParts {
        model: inputs.model,
        environment: inputs.environment,
        agent,
        files: &workspace.files,
        image,
        output: output(inputs, image),
    };
    let spec = container::agent(&parts);
    let mut derivation = container::derivation(Address::new(Kind::Agent, &agent.id), &spec, Some(&agent.origin));
    let input = Input::Derivation { address: workspace::address(agent), hash: derived, output: Some(workspace.output) };
    derivation.input("workspace", input, Some(&agent.origin));
    for (name, declared) in
        [("image", &agent.image.origin), ("size.cpu", &agent.size.origin), ("size.memory-mib", &agent.size.origin)]
    {
        if let Some(origin) = declared {
            derivation.origins.insert(name.to_owned(), origin.clone());
        }
    }
    match settings {
        None => instance.add(derivation, Desired::Container(spec)),
        Some(settings) => agent_service::add(settings, &parts, (derivation, spec), instance),
    }
}
