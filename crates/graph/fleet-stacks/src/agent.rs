//! [`agent_role`]: what one agent may do. Agents are not in CloudFormation, so this is a value for IAM's own API.

use std::collections::BTreeSet;

use fleet_derivation::Hash;
use fleet_objects::{AgentRole, directory};

use crate::{
    bedrock,
    iam::{Policy, Statement, trust_for},
    settings::Settings,
    template::json_text,
};

/// Longest name of a role (IAM quotas).
const MAX_NAME: usize = 64;
/// Of which a hash takes this much where a name is too long.
const SHORT_HASH: usize = 13;

/// A model that an agent may think with.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BedrockModel {
    /// Where it is asked.
    pub region: String,
    /// Model or inference profile, for instance `global.anthropic.claude-sonnet-4-5-20250929-v1:0`.
    pub id: String,
}

impl BedrockModel {
    /// The foundation model behind an inference profile; of a foundation model, itself.
    #[must_use]
    pub fn foundation(&self) -> &str {
        bedrock::behind(&self.id).map_or(&self.id, |(_, model)| model)
    }
}

/// What an agent has of its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentAccess<'a> {
    /// Person id.
    pub agent: &'a str,
    /// ARN of the environment's file system.
    pub file_system: &'a str,
    /// ARN of the agent's access point.
    pub access_point: &'a str,
    /// The config bucket; the agent's bundles are below `bundles/<agent>/`, and the directory is one object.
    pub bucket: &'a str,
    /// Models it is declared with, fallbacks included.
    pub models: BTreeSet<BedrockModel>,
}

/// The task role of one agent: its own folder, its own bundles, its own models, the directory, and nothing else.
#[must_use]
pub fn agent_role(settings: &Settings, access: &AgentAccess<'_>) -> AgentRole {
    let object = |key: &str| format!("arn:{}:s3:::{}/{key}", settings.partition(), access.bucket);
    let bundles = object(&format!("bundles/{}/*", access.agent));
    // fleet-agent starts as root: it keeps files of its own beside those of the agent, which runs as another user.
    let own = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientRootAccess", "elasticfilesystem:ClientWrite"];
    let mut statements = vec![
        Statement::allow("OwnMemory", &own, [access.file_system]).when(
            "StringEquals",
            "elasticfilesystem:AccessPointArn",
            access.access_point,
        ),
        Statement::allow("OwnBundles", &["s3:GetObject"], [bundles]),
        Statement::allow("ReadDirectory", &["s3:GetObject"], [object(directory::OBJECT)]),
    ];
    statements.extend(bedrock::statements(settings.partition(), &settings.account, &access.models));
    AgentRole {
        name: role_name(&format!("{}-{}", settings.name(), access.agent)),
        path: settings.role_path(),
        trust: json_text(&trust_for("ecs-tasks.amazonaws.com", &settings.account)),
        policy: json_text(&Policy::of(statements)),
        boundary: settings.boundary(),
    }
}

/// A name that IAM takes. Names of the language are ASCII.
#[must_use]
pub fn role_name(name: &str) -> String {
    match name.get(..MAX_NAME - SHORT_HASH) {
        Some(start) if name.len() > MAX_NAME => format!("{start}-{}", Hash::of(name.as_bytes()).short()),
        _ => name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_names_stay_apart() {
        let (a, b) = (role_name(&format!("{}a", "x".repeat(80))), role_name(&format!("{}b", "x".repeat(80))));
        assert_ne!(a, b);
        assert_eq!(
            (a.len(), role_name("anycompany-dev-aaron.phillips")),
            (64, "anycompany-dev-aaron.phillips".to_owned())
        );
    }
}
