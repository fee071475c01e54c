//! [`AgentSpec`]: an agent as a service of its own on AWS.
//!
//! Ids that only a deployed stack knows are placeholders, `{{ClusterName}}`: they are filled in when the agent is made and
//! are in no hash. Deliberately absent: how the texts are rendered (fleet-stacks).

use std::collections::BTreeMap;

use fleet_derivation::Hash;
use serde::{Deserialize, Serialize};

use crate::{ContainerSpec, Content, SecretUse};

/// Version of [`AgentSpec::bundle`], which fleet-agent checks.
const BUNDLE_SCHEMA: u32 = 1;
/// Below this folder are all files of an agent's container.
const FILES: &str = "/fleet/";

/// An agent's service on AWS, and what is made for it alone.
///
/// Beside names of outputs of the environment's stacks, its texts have these placeholders: `{{Image}}`, `{{Family}}`,
/// `{{TaskDefinition}}`, `{{AccessPoint}}`, `{{AccessPointArn}}`, `{{FileSystemArn}}`, `{{BundleKey}}`, `{{BundleHash}}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentSpec {
    /// The container that it runs, as on any target.
    pub container: ContainerSpec,
    /// The environment's stack and its data stack, by their names in addresses: where placeholders get their values.
    pub stacks: Vec<String>,
    /// Input of ECS `RegisterTaskDefinition`, as JSON.
    pub task: String,
    /// Input of ECS `CreateService`, as JSON.
    pub service: String,
    /// Folder of its own on the file system: `/agents/aaron.phillips`.
    pub folder: String,
    /// Tags of everything that is made for it.
    pub tags: BTreeMap<String, String>,
    /// The role that its task has.
    pub role: AgentRole,
    /// Parameters that ECS reads for its container: names, and what they hold.
    pub parameters: BTreeMap<String, SecretUse>,
}

/// A role as IAM's `CreateRole` and `PutRolePolicy` take it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentRole {
    /// Its name; unique in the account.
    pub name: String,
    /// Its path.
    pub path: String,
    /// Who may act as it, as JSON.
    pub trust: String,
    /// What it may do, as JSON.
    pub policy: String,
    /// ARN of the policy that bounds it.
    pub boundary: String,
}

/// Everything that a container is given as text, in one document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// JSON: `{"files":{"agent.json":"…","bundle/manifest.json":"…"},"schema":1}`; paths are below `/fleet/`.
    pub text: String,
    /// BLAKE3 of the text: what the task definition names, and fleet-agent checks.
    pub hash: Hash,
}

impl Bundle {
    /// Of a container. The same files give the same bytes.
    #[must_use]
    pub fn of(container: &ContainerSpec) -> Self {
        let files: BTreeMap<&str, &str> = container
            .files
            .iter()
            .filter_map(|file| match &file.content {
                Content::Text { text } => Some((file.path.strip_prefix(FILES)?, &**text)),
                Content::Secret { .. } | Content::Filled { .. } => None,
            })
            .collect();
        let text = serde_json::json!({"schema": BUNDLE_SCHEMA, "files": files}).to_string();
        Self { hash: Hash::of(text.as_bytes()), text }
    }

    /// Its key in the config bucket: `bundles/aaron.phillips/<hash>.json`.
    #[must_use]
    pub fn key(&self, agent: &str) -> String {
        format!("bundles/{agent}/{}.json", self.hash)
    }
}
