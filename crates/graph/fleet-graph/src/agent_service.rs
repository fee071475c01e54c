//! An agent on AWS: what `container` makes for any target, as a service of its own.

use std::collections::BTreeSet;

use fleet_derivation::{Derivation, Hash};
use fleet_model::{
    model::{Model, ModelProviderKind},
    resolved::Agent,
};
use fleet_objects::{ContainerSpec, Desired};
use fleet_stacks::{
    Settings,
    agent::BedrockModel,
    agent_service::{AgentPlan, agent_service},
};
use serde_json::Value;

use crate::{Instance, container::AgentParts};

/// Adds it. Beside its container, an agent derives from its task definition, its service and its role.
pub(crate) fn add(
    settings: &Settings,
    parts: &AgentParts<'_>,
    (mut derivation, container): (Derivation, ContainerSpec),
    instance: &mut Instance,
) {
    let on_spot = parts.environment.agents_on_spot.as_ref();
    let spot = on_spot.is_some_and(|spot| spot.value);
    let plan = AgentPlan { agent: &parts.agent.id, container, spot, models: bedrock(parts.model, parts.agent) };
    let spec = agent_service(settings, plan);
    let own = Some(&parts.agent.origin);
    let compute = if spot { "fargate-spot" } else { "fargate" };
    derivation.value("compute", compute, on_spot.and_then(|spot| spot.origin.as_ref()).or(own));
    // Only where it is declared: who gets its own password derives as before.
    if let Some(shared) = parts.environment.agents_get_fleet_secret.as_ref().filter(|shared| shared.value) {
        derivation.value("credentials", "fleet-secret", shared.origin.as_ref().or(own));
    }
    let task = without_size(&spec.task);
    let by_model = parts.agent.model.origin.as_ref().or(own);
    for (name, text, origin) in [
        ("role.policy", spec.role.policy.as_str(), by_model),
        ("role.trust", &spec.role.trust, own),
        ("service", &spec.service, own),
        ("task", &task, own),
    ] {
        derivation.value(name, Hash::of(text.as_bytes()).to_string(), origin);
    }
    instance.add(derivation, Desired::Agent(Box::new(spec)));
}

/// A task definition without its size, of which other inputs tell.
fn without_size(task: &str) -> String {
    let mut task: Value = serde_json::from_str(task).unwrap_or_default();
    for field in ["cpu", "memory"] {
        task.as_object_mut().and_then(|fields| fields.remove(field));
    }
    task.to_string()
}

/// Models of Bedrock that an agent is declared with, and that its role is allowed.
#[must_use]
pub fn bedrock(model: &Model, agent: &Agent) -> BTreeSet<BedrockModel> {
    let choice = &agent.model.value;
    std::iter::once(&choice.primary)
        .chain(&choice.fallbacks)
        .filter_map(|name| name.split_once('/'))
        .filter_map(|(provider, id)| match &model.providers.get(provider)?.kind {
            ModelProviderKind::Bedrock { region, .. } => {
                Some(BedrockModel { region: region.clone(), id: id.to_owned() })
            }
            ModelProviderKind::OpenAi { .. } => None,
        })
        .collect()
}
