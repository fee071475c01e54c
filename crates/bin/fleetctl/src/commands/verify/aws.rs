//! `verify` of an environment on AWS: what it needs, from the graph; what there is, from the account.

use std::collections::{BTreeMap, BTreeSet};

use fleet_graph::agent_service::bedrock;
use fleet_model::Kind;
use fleet_plan::{
    Desired,
    verify::{Finding, Questions},
};
use fleet_planner::verify::{Needs, verify};
use fleet_stacks::{Settings, agent::BedrockModel};

use super::{identity, images};
use crate::{cloud, context::Context, error::Failure, exit::Exit, pipeline::Prepared};

/// What was found.
///
/// # Errors
/// Mistakes in files; no credentials, those of another account, AWS out of reach.
pub async fn findings(context: &Context, prepared: &Prepared) -> Result<Vec<Finding>, Failure> {
    let instance = prepared.instance(&BTreeMap::new())?;
    let settings = settings(prepared)?;
    let given = context.machine.operator_secrets(&prepared.model)?.operator;
    let platform = prepared.platform.to_string();
    let mut needs = Needs {
        environment: &settings.environment,
        region: &settings.region,
        templates: BTreeMap::new(),
        agents: BTreeMap::new(),
        platform: &platform,
        images: images(prepared)?.into_iter().collect(),
        given: given.keys().map(String::as_str).collect(),
    };
    for (address, desired) in &instance.desired {
        match desired {
            Desired::Stack(stack) => {
                needs.templates.insert(&address.name, &stack.template);
            }
            Desired::Agent(agent) if address.kind == Kind::Agent => {
                needs.agents.insert(&address.name, agent);
            }
            _ => {}
        }
    }
    let questions = questions(prepared, &settings, &needs);
    let (account, who) = cloud::account(context, prepared).await?;
    let facts = account.survey(&prepared.scope, &questions).await;
    let us = format!("account {}, as fleet.kdl has it; {}", account.place.account, who.arn);
    Ok([identity("credentials", us)].into_iter().chain(verify(&needs, &facts)).collect())
}

fn settings(prepared: &Prepared) -> Result<Settings, Failure> {
    let environment = prepared.environment()?;
    let made = fleet_graph::stacks::settings(&prepared.model, environment);
    made.ok()
        .flatten()
        .ok_or_else(|| Failure::new(Exit::Usage, format!("environment {} is not on aws", environment.name)))
}

fn questions(prepared: &Prepared, settings: &Settings, needs: &Needs<'_>) -> Questions {
    Questions {
        quotas: needs.quotas(),
        models: models(prepared),
        boundary: settings.boundary(),
        workflow_roles: fleet_stacks::workflow_roles(&settings.fleet).into(),
        role_path: settings.role_path(),
        secret: fleet_stacks::secret_name(settings),
        parameters: needs.provided().into_keys().map(str::to_owned).collect(),
        stacks: needs.templates.keys().map(|name| (*name).to_owned()).collect(),
    }
}

fn models(prepared: &Prepared) -> BTreeSet<BedrockModel> {
    prepared.resolved.agents.values().flat_map(|agent| bedrock(&prepared.model, agent)).collect()
}
