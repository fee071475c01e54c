//! Where models come from: [`ModelProvider`].

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::origin::Origin;

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

/// `model "p/m" { fallback "p/n" }`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ModelChoice {
    /// `provider/model-id`.
    pub primary: String,
    /// Tried in order when the primary fails.
    pub fallbacks: Vec<String>,
}
