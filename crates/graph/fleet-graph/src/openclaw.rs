//! [`configuration`]: OpenClaw's `openclaw.json` for one agent, without its access token.
//!
//! Which keys OpenClaw 2026.9 understands is written down in `docs/reference/agent-runtime.md`.
//! Deliberately absent: tokens (fleet-agent adds them at each start), the directory, other agents.

use std::collections::BTreeMap;

use fleet_model::{
    model::{Model, ModelProvider, ModelProviderKind},
    resolved::Agent,
};
use serde_json::{Map, Value, json};

/// The port of OpenClaw's gateway inside an agent's container; loopback only.
pub const GATEWAY_PORT: u16 = 20206;
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
}

/// The configuration as text: keys sorted, two spaces, a line feed at the end.
#[must_use]
pub fn configuration(agent: &Agent, around: &Surroundings<'_>) -> String {
    let value = json!({
        "gateway": {"mode": "local", "bind": "loopback", "port": GATEWAY_PORT},
        "models": {"mode": "merge", "providers": providers(agent, around.model)},
        "agents": {"defaults": {
            "model": {"primary": agent.model.value.primary, "fallbacks": agent.model.value.fallbacks},
            "heartbeat": {"every": format!("{}s", agent.heartbeat_seconds.value)},
            "thinkingDefault": "off",
            "verboseDefault": "off",
        }},
        "session": {"agentToAgent": {"maxPingPongTurns": 0}},
        "tools": {"profile": "full", "alsoAllow": ["people"]},
        "plugins": {
            "allow": ["matrix", "people"],
            "entries": {"matrix": {"enabled": true}, "people": {"enabled": true}},
        },
        "channels": {"matrix": matrix(agent, around)},
    });
    let mut text = format!("{value:#}");
    text.push('\n');
    text
}

fn matrix(agent: &Agent, around: &Surroundings<'_>) -> Value {
    json!({
        "enabled": true,
        "homeserver": around.homeserver,
        "network": {"dangerouslyAllowPrivateNetwork": true},
        "userId": agent.matrix_id,
        "encryption": false,
        "autoJoin": "always",
        "joinIntro": false,
        "threadReplies": "always",
        "replyToMode": "all",
        "groupPolicy": "open",
        "groups": {"*": {"requireMention": agent.require_mention.value, "systemPrompt": around.room_prompt}},
        "dm": {"policy": "open", "allowFrom": ["*"]},
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

fn providers(agent: &Agent, model: &Model) -> Value {
    let mut all = Map::new();
    for (name, provider) in used_providers(agent, model) {
        if let ModelProviderKind::OpenAi { base_url, api_key, models } = &provider.kind {
            let key = api_key.as_ref().map_or_else(|| json!("none"), |secret| json!(format!("${{{}}}", secret.0)));
            let served: Vec<Value> = models
                .iter()
                .map(|(id, served)| {
                    json!({
                        "id": id, "name": id, "reasoning": false, "input": ["text"],
                        "cost": {"input": 0, "output": 0, "cacheRead": 0, "cacheWrite": 0},
                        "contextWindow": served.context, "maxTokens": served.max_tokens,
                    })
                })
                .collect();
            let reached = from_container(base_url);
            all.insert(
                name.to_owned(),
                json!({"baseUrl": reached, "apiKey": key, "api": "openai-completions", "models": served}),
            );
        }
    }
    Value::Object(all)
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
