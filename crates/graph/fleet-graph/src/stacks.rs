//! Stacks of an environment on AWS: what the model says, as [`fleet_stacks::Settings`], rendered and derived.
//!
//! A stack derives from its template and from what its parameters mean. The template is the known output of a source
//! that has every setting with its place: a setting that changes no byte of the template changes no stack.

use std::collections::BTreeMap;

use fleet_derivation::{Derivation, Input};
use fleet_model::{
    Address, Kind, Origin,
    aws::Network,
    late,
    model::{Environment, Layer, Model, Recipe, Target},
};
use fleet_objects::{Desired, StackParameter, StackSpec};
use fleet_oci::Platform;
use fleet_stacks::{Homeserver, Manager, Rendered, Settings, Web, data, environment, shared};

use crate::{Inputs, Instance, Problem, image::PlannedImage};

/// Renders every stack of an environment; none when it is not on AWS. Needs no image, no lock and no file.
///
/// # Errors
/// Every stack that cannot be rendered.
pub fn render(model: &Model, declared: &Environment) -> Result<Vec<Rendered>, Vec<Problem>> {
    let Some(settings) = settings(model, declared)? else { return Ok(Vec::new()) };
    let mut rendered = Vec::new();
    let mut problems = Vec::new();
    for stack in [shared, data, environment] {
        match stack(&settings) {
            Ok(stack) => rendered.push(stack),
            Err(error) => problems.push(problem(declared, &error)),
        }
    }
    if problems.is_empty() { Ok(rendered) } else { Err(problems) }
}

fn problem(declared: &Environment, error: &dyn std::error::Error) -> Problem {
    Problem {
        code: late::NO_STACK,
        address: Address::new(Kind::Stack, &declared.name),
        origin: Some(declared.origin.clone()),
        what: error.to_string(),
        help: "see network, limits and deploy of the environment".to_owned(),
    }
}

/// What the stacks are rendered from; `None` when the environment is not on AWS.
///
/// # Errors
/// A network that is none.
pub fn settings(model: &Model, declared: &Environment) -> Result<Option<Settings>, Vec<Problem>> {
    let Target::Aws { account, region, .. } = &declared.target else { return Ok(None) };
    let Network { cidr, azs, nat_gateways, .. } = &declared.network;
    let cidr = cidr.parse().map_err(|error: fleet_stacks::cidr::NotACidr| vec![problem(declared, &error)])?;
    Ok(Some(Settings {
        fleet: model.fleet.name.clone(),
        environment: declared.name.clone(),
        domain: model.fleet.domain.clone(),
        account: account.clone(),
        region: region.clone(),
        images: model.images.keys().cloned().collect(),
        cidr,
        zones: *azs,
        nat_gateways: *nat_gateways,
        agents: agents(declared),
        arm: on_arm(model, declared),
        homeserver: Homeserver {
            image: declared.homeserver.image.clone(),
            kind: declared.homeserver.kind,
            size: declared.homeserver.size,
        },
        web: declared.web.as_ref().map(|web| Web { image: web.image.clone(), size: web.size }),
        manager: declared.manager.as_ref().map(|manager| Manager {
            image: manager.image.clone(),
            program: program(model, &manager.image),
            size: manager.size,
        }),
        agents_get_fleet_secret: declared.agents_get_fleet_secret.as_ref().is_some_and(|shared| shared.value),
        log_days: declared.log_days.value,
        backup_days: declared.backup_days.as_ref().map(|days| days.value),
    }))
}

/// Where this program is in an image.
fn program(model: &Model, image: &str) -> Option<String> {
    let Recipe::Layers(recipe) = &model.images.get(image)?.recipe else { return None };
    recipe.layers.iter().find_map(|layer| match &layer.value {
        Layer::Fleetctl { to } => Some(to.clone()),
        _ => None,
    })
}

/// Room is made for as many as the limit allows: a hire must not replace subnets.
fn agents(declared: &Environment) -> u32 {
    let deployed = u32::try_from(declared.deploy.len()).unwrap_or(u32::MAX);
    declared.agent_limit.as_ref().map_or(deployed, |limit| limit.value.max(deployed))
}

/// What tasks of an environment on AWS run on; `None` when it is not there.
#[must_use]
pub fn platform(model: &Model, declared: &Environment) -> Option<Platform> {
    let Target::Aws { .. } = declared.target else { return None };
    Some(if on_arm(model, declared) { Platform::LinuxArm64 } else { Platform::LinuxAmd64 })
}

/// By what the homeserver's image is declared for, never by the machine that asks.
fn on_arm(model: &Model, declared: &Environment) -> bool {
    let image = model.images.get(&declared.homeserver.image);
    image.is_some_and(|image| !image.platforms.is_empty() && !image.platforms.iter().any(|name| name == "linux/amd64"))
}

/// Adds the stacks with their derivations.
///
/// # Errors
/// See [`render`].
pub(crate) fn add(
    inputs: &Inputs<'_>,
    images: &BTreeMap<String, PlannedImage>,
    instance: &mut Instance,
) -> Result<(), Vec<Problem>> {
    for rendered in render(inputs.model, inputs.environment)? {
        let source = source(inputs, &rendered.name);
        let mut made = Derivation::new(Address::new(Kind::Stack, &rendered.name));
        let template = Input::Derivation {
            address: source.address.clone(),
            hash: source.hash(),
            output: Some(rendered.hash.to_string()),
        };
        made.input("template", template, None);
        for (id, parameter) in &rendered.parameters {
            made.input(format!("parameter.{id}"), meaning(inputs, images, parameter), None);
        }
        instance.graph.insert(source);
        let Rendered { body, parameters, tags, keys, .. } = rendered;
        let spec = StackSpec { template: body, parameters, tags, keys };
        instance.add(made, Desired::Stack(spec));
    }
    Ok(())
}

fn meaning(inputs: &Inputs<'_>, images: &BTreeMap<String, PlannedImage>, parameter: &StackParameter) -> Input {
    match parameter {
        StackParameter::Image { image } => match images.get(image) {
            Some(planned) => Input::Derivation {
                address: Address::new(Kind::Image, image),
                hash: planned.hash,
                output: crate::output(inputs, planned),
            },
            None => Input::Value { text: format!("image/{image}") },
        },
        StackParameter::Output { stack, output } => Input::Value { text: format!("output {output} of stack/{stack}") },
        StackParameter::MachineImage => Input::Value { text: "machine image".to_owned() },
    }
}

/// What a template is rendered from, each setting with the line that says it.
fn source(inputs: &Inputs<'_>, stack: &str) -> Derivation {
    let (model, declared) = (inputs.model, inputs.environment);
    let mut made = Derivation::new(Address::new(Kind::Source, format!("template.{stack}")));
    let fleet = Some(&model.fleet.origin);
    made.value("fleet", &model.fleet.name, fleet);
    if let Target::Aws { account, region, .. } = &declared.target {
        made.value("target.account", account, Some(&declared.origin));
        made.value("target.region", region, Some(&declared.origin));
    }
    if stack == fleet_stacks::SHARED {
        for (name, image) in &model.images {
            made.value(format!("image.{name}"), "has a repository", Some(&image.origin));
        }
        return made;
    }
    made.value("environment", &declared.name, Some(&declared.origin));
    if stack == declared.name {
        made.value("domain", &model.fleet.domain, fleet);
        from_environment(model, declared, &mut made);
    }
    made
}

fn from_environment(model: &Model, declared: &Environment, made: &mut Derivation) {
    let network = &declared.network;
    let at = network.origin.as_ref();
    made.value("network.cidr", &network.cidr, at);
    made.value("network.azs", network.azs.to_string(), at);
    made.value("network.nat-gateways", network.nat_gateways.to_string(), at);
    let limit = declared.agent_limit.as_ref().and_then(|limit| limit.origin.as_ref());
    made.value("limits.agents", agents(declared).to_string(), limit.or(Some(&declared.origin)));
    made.value("logs.retention", format!("{}d", declared.log_days.value), declared.log_days.origin.as_ref());
    if let Some(days) = &declared.backup_days {
        made.value("backup.retention", format!("{}d", days.value), days.origin.as_ref());
    }
    if let Some(shared) = declared.agents_get_fleet_secret.as_ref().filter(|shared| shared.value) {
        made.value("credentials", "fleet-secret", shared.origin.as_ref());
    }
    for (name, image) in &model.images {
        made.value(format!("image.{name}"), "may be an agent's", Some(&image.origin));
    }
    let homeserver = &declared.homeserver;
    let service = |made: &mut Derivation, name: &str, size: fleet_model::model::Size, origin: Option<&Origin>| {
        made.value(format!("{name}.size.cpu"), size.cpu.to_string(), origin);
        made.value(format!("{name}.size.memory-mib"), size.memory_mib.to_string(), origin);
    };
    made.value("homeserver.image", &homeserver.image, homeserver.origin.as_ref());
    made.value("homeserver.kind", format!("{:?}", homeserver.kind).to_lowercase(), homeserver.origin.as_ref());
    made.value("homeserver.arm", on_arm(model, declared).to_string(), homeserver.origin.as_ref());
    service(made, "homeserver", homeserver.size, homeserver.origin.as_ref());
    if let Some(web) = &declared.web {
        made.value("web.image", &web.image, Some(&web.origin));
        service(made, "web", web.size, Some(&web.origin));
    }
    if let Some(manager) = &declared.manager {
        made.value("manager.image", &manager.image, Some(&manager.origin));
        made.value("manager.program", program(model, &manager.image).unwrap_or_default(), Some(&manager.origin));
        service(made, "manager", manager.size, Some(&manager.origin));
    }
}
