//! [`configuration`]: OpenClaw's `openclaw.json` for one agent, without its access token.
//!
//! Which keys OpenClaw 2026.9 understands is written down in `docs/reference/agent-runtime.md`.
//! Deliberately absent: tokens (fleet-agent adds them at each start), the directory, other agents.

use std::collections::{BTreeMap, BTreeSet};

use fleet_model::{
    model::{Model, ModelProvider, ModelProviderKind, SecretName, ServedModel},
    resolved::Agent,
};
use serde_json::{Map, Value, json};

/// The port of OpenClaw's gateway inside an agent's container; loopback only.
pub const GATEWAY_PORT: u16 = 18789;
/// Where fleet-agent passes questions on to Amazon Bedrock by the task's role, on AWS; loopback only.
pub const BEDROCK_PORT: u16 = 18788;
/// OpenClaw wants a key for every provider. This one is none: fleet-agent drops it.
const NO_KEY: &str = "by-role";
/// What wakes an agent: the instructions are a generated file, so that they are reviewed and hashed like all others.
const HEARTBEAT_PROMPT: &str =
    "This is your heartbeat. Read HEARTBEAT.md in your workspace and follow it. If nothing needs you, reply NO_REPLY.";
/// How a container names the machine that runs the engine.
pub const HOST_GATEWAY: &str = "host.docker.internal";

/// What the configuration depends on beside the agent.
pub struct Surroundings<'a> {
    /// The model, for its providers.
    pub model: &'a Model,
    /// The homeserver as the agent reaches it.
    pub homeserver: &'a str,
    /// The rendered room prompt.
    pub room_prompt: &'a str,
    /// Models of Bedrock are asked by the task's role, through fleet-agent; else with a key.
    pub by_role: bool,
}

/// The configuration as text: keys sorted, two spaces, a line feed at the end. fleet-agent adds the tokens and ids.
#[must_use]
pub fn configuration(agent: &Agent, around: &Surroundings<'_>) -> String {
    let value = json!({
        "gateway": {
            "mode": "local", "bind": "loopback", "port": GATEWAY_PORT,
            "auth": {"mode": "token"}, "controlUi": {"enabled": false},
        },
        "update": {"checkOnStart": false},
        "discovery": {"mdns": {"mode": "off"}},
        "models": {
            "mode": "merge",
            "catalogRefresh": {"enabled": false},
            "providers": providers(agent, around),
        },
        "agents": {"defaults": defaults(agent, around.model)},
        // Without `toolSearch: false` tools hide behind a search tool, and `people` is not offered to the model.
        "tools": {"profile": "coding", "alsoAllow": ["people", "message"], "toolSearch": false},
        // OpenClaw's own skills would crowd the prompt; an empty list would mean no filter.
        "skills": {"allowBundled": ["none"]},
        "plugins": {
            "allow": ["matrix", "fleet-people", "memory-core"],
            "load": {"paths": ["/opt/fleet/plugins/people"]},
            "entries": {
                "matrix": {"enabled": true},
                "fleet-people": {"enabled": true, "config": {
                    "endpoint": format!("http://127.0.0.1:{}/people", crate::container::TOOL_PORT),
                }},
            },
        },
        "messages": {"groupChat": {"visibleReplies": "automatic"}},
        "channels": {"matrix": matrix(agent, around)},
    });
    let mut text = format!("{value:#}");
    text.push('\n');
    text
}

fn defaults(agent: &Agent, model: &Model) -> Value {
    let choice = &agent.model.value;
    let fallbacks: Vec<String> = choice.fallbacks.iter().map(|name| model_name(name, model)).collect();
    json!({
        "model": {"primary": model_name(&choice.primary, model), "fallbacks": fallbacks},
        "workspace": "/data/workspace",
        // The workspace is ours and the agent's: OpenClaw must not seed it.
        "skipBootstrap": true,
        // Without a target the heartbeat goes to an owner whom no agent has, and is skipped; OpenClaw itself no
        // longer reads HEARTBEAT.md, so the prompt does.
        "heartbeat": {
            "every": match agent.heartbeat_seconds.value {
                0 => "0m".to_owned(),
                seconds => format!("{seconds}s"),
            },
            "target": "none",
            "prompt": HEARTBEAT_PROMPT,
        },
        // Lets an agent end a conversation by saying nothing.
        "silentReply": {"group": "allow"},
        "thinkingDefault": "off",
        "verboseDefault": "off",
    })
}

fn matrix(agent: &Agent, around: &Surroundings<'_>) -> Value {
    json!({
        "enabled": true,
        "homeserver": around.homeserver,
        "network": {"dangerouslyAllowPrivateNetwork": true},
        "encryption": false,
        "autoJoin": "always",
        "joinIntro": false,
        "threadReplies": "inbound",
        "groupPolicy": "open",
        "groups": {"*": {"requireMention": agent.require_mention.value, "systemPrompt": around.room_prompt}},
        "dm": {"policy": "open", "allowFrom": ["*"], "sessionScope": "per-room", "threadReplies": "off"},
    })
}

/// The providers that this agent's models name; others would make it roll for nothing.
#[must_use]
pub fn used_providers<'a>(agent: &Agent, model: &'a Model) -> BTreeMap<&'a str, &'a ModelProvider> {
    let choice = &agent.model.value;
    std::iter::once(&choice.primary)
        .chain(&choice.fallbacks)
        .filter_map(|name| name.split_once('/'))
        .filter_map(|(provider, _)| model.providers.get_key_value(provider))
        .map(|(name, provider)| (name.as_str(), provider))
        .collect()
}

/// Regions of Bedrock that this agent's models are asked in.
#[must_use]
pub fn bedrock_regions<'a>(agent: &Agent, model: &'a Model) -> BTreeSet<&'a str> {
    let used = used_providers(agent, model).into_values();
    used.filter_map(|provider| match &provider.kind {
        ModelProviderKind::Bedrock { region, .. } => Some(region.as_str()),
        ModelProviderKind::OpenAi { .. } => None,
    })
    .collect()
}

/// The key that a provider is asked with; none of Bedrock where that is asked by role.
#[must_use]
pub fn key(provider: &ModelProvider, by_role: bool) -> Option<&SecretName> {
    match &provider.kind {
        ModelProviderKind::Bedrock { .. } if by_role => None,
        ModelProviderKind::Bedrock { api_key, .. } | ModelProviderKind::OpenAi { api_key, .. } => api_key.as_ref(),
    }
}

/// A model as OpenClaw names it. Bedrock has two APIs, so it becomes two providers there.
fn model_name(name: &str, model: &Model) -> String {
    match name.split_once('/') {
        Some((provider, id)) => format!("{}/{id}", provider_name(provider, id, model)),
        None => name.to_owned(),
    }
}

fn provider_name(provider: &str, id: &str, model: &Model) -> String {
    // A prefix of our own: where a provider has the name of one of OpenClaw's own plugins (`amazon-bedrock`, `groq`…),
    // the gateway wants to install that plugin and does not start.
    match model.providers.get(provider).map(|declared| &declared.kind) {
        Some(ModelProviderKind::Bedrock { .. }) if !is_anthropic(id) => format!("fleet-{provider}-openai"),
        Some(_) => format!("fleet-{provider}"),
        None => provider.to_owned(),
    }
}

/// `anthropic.claude-…` and inference profiles of it: `global.anthropic.claude-…`.
fn is_anthropic(id: &str) -> bool {
    id.starts_with("anthropic.") || id.contains(".anthropic.")
}

fn providers(agent: &Agent, around: &Surroundings<'_>) -> Value {
    let model = around.model;
    let mut all: Map<String, Value> = Map::new();
    let choice = &agent.model.value;
    for (provider, id) in std::iter::once(&choice.primary).chain(&choice.fallbacks).filter_map(|m| m.split_once('/')) {
        let Some(declared) = model.providers.get(provider) else { continue };
        let name = provider_name(provider, id, model);
        let entry = all.entry(name).or_insert_with(|| match &declared.kind {
            ModelProviderKind::Bedrock { region, .. } => {
                let host = if around.by_role {
                    format!("http://127.0.0.1:{BEDROCK_PORT}/{region}")
                } else {
                    format!("https://bedrock-runtime.{region}.{}", domain(region))
                };
                let none = json!(if around.by_role { NO_KEY } else { "unused" });
                bedrock(&host, key(declared, around.by_role).map_or(none, from_environment), is_anthropic(id))
            }
            ModelProviderKind::OpenAi { base_url, api_key, .. } => open_ai(base_url, api_key.as_ref()),
        });
        let served = match &declared.kind {
            ModelProviderKind::OpenAi { models, .. } => models.get(id).cloned(),
            ModelProviderKind::Bedrock { .. } => None,
        };
        let served = served.unwrap_or(ServedModel { context: 200_000, max_tokens: 8192 });
        if let Some(models) = entry["models"].as_array_mut() {
            models.push(json!({
                "id": id, "name": id, "reasoning": false, "input": ["text"],
                "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
                "contextWindow": served.context, "maxTokens": served.max_tokens,
            }));
        }
    }
    Value::Object(all)
}

fn open_ai(base_url: &str, key: Option<&SecretName>) -> Value {
    json!({
        "baseUrl": from_container(base_url), "api": "openai-completions", "timeoutSeconds": 300,
        "apiKey": key.map_or_else(|| json!("unused"), from_environment), "models": [],
    })
}

/// Bedrock through its Anthropic- and OpenAI-compatible APIs (Amazon Bedrock user guide, "Endpoints supported by Amazon
/// Bedrock"): the endpoint `bedrock-runtime`, which knows inference profiles, as `bedrock-mantle` does not.
fn bedrock(host: &str, key: Value, anthropic: bool) -> Value {
    let (path, api) = if anthropic { ("anthropic", "anthropic-messages") } else { ("openai/v1", "openai-completions") };
    let mut provider = json!({
        "baseUrl": format!("{host}/{path}"), "api": api, "auth": "api-key", "apiKey": key, "models": [],
    });
    if anthropic {
        provider["authHeader"] = json!(true);
    }
    provider
}

/// What hosts of AWS end with in a region.
fn domain(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// A reference that OpenClaw resolves itself: no key is ever in the file.
fn from_environment(name: &SecretName) -> Value {
    json!({"source": "env", "provider": "default", "id": name.0})
}

/// A URL on the operator's loopback as a container reaches it: through the host gateway.
#[must_use]
pub fn from_container(url: &str) -> String {
    for loopback in ["127.0.0.1", "localhost", "[::1]"] {
        for scheme in ["http://", "https://"] {
            if let Some(rest) = url.strip_prefix(scheme).and_then(|rest| rest.strip_prefix(loopback))
                && (rest.is_empty() || rest.starts_with([':', '/']))
            {
                return format!("{scheme}{HOST_GATEWAY}{rest}");
            }
        }
    }
    url.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_server_on_the_operators_loopback_is_reached_through_the_host_gateway() {
        assert_eq!(from_container("http://127.0.0.1:11434/v1"), "http://host.docker.internal:11434/v1");
        assert_eq!(from_container("http://localhost/v1"), "http://host.docker.internal/v1");
        assert_eq!(from_container("http://localhost.example/v1"), "http://localhost.example/v1");
        assert_eq!(from_container("https://models.example/v1"), "https://models.example/v1");
    }
}
