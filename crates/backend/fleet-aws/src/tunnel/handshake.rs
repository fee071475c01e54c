//! What an agent asks before a stream begins, and what we answer.
//!
//! Payloads are JSON (`handshakemessage.go` of session-manager-plugin). Deliberately absent: encryption with a key of KMS, which
//! an account's Session Manager preferences may ask for; we say so, and the official plugin can do it.

use serde::Deserialize;
use serde_json::{Value, json};

use super::TunnelError;

/// As which version of the official client we answer. Of a client from 1.1.70 on the agent has many connections in one session
/// (`port.go` of amazon-ssm-agent), and from 1.2.331 on it sends no frames of its own that would keep an idle session.
pub(super) const CLIENT_VERSION: &str = "1.2.650.0";
/// Later agents have many connections in one session (`config.go` of session-manager-plugin).
const OLDEST_AGENT: [u32; 4] = [3, 0, 196, 0];
/// The action that asks for a kind of session, and the one that asks for encryption.
const SESSION_TYPE: &str = "SessionType";
const ENCRYPTION: &str = "KMSEncryption";
/// The kind of session that we ask for.
const PORT: &str = "Port";
/// How an action went.
const SUCCEEDED: u32 = 1;
const FAILED: u32 = 2;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Request {
    #[serde(default)]
    agent_version: String,
    #[serde(default)]
    requested_client_actions: Vec<Action>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Action {
    action_type: String,
    #[serde(default)]
    action_parameters: Value,
}

/// The answer to a request, and why there will be no stream, where there will be none.
pub(super) fn answer(request: &[u8]) -> (Value, Result<(), TunnelError>) {
    let Ok(request) = serde_json::from_slice::<Request>(request) else {
        let why = "the agent's first words are not understood".to_owned();
        return (answered(&[], std::slice::from_ref(&why)), Err(TunnelError::Gateway { why }));
    };
    let (mut actions, mut errors, mut outcome) = (Vec::new(), Vec::new(), Ok(()));
    for action in &request.requested_client_actions {
        let refused = refusal(action);
        let mut done = json!({
            "ActionType": action.action_type, "ActionStatus": SUCCEEDED, "ActionResult": null, "Error": "",
        });
        if let Some(error) = refused {
            let why = error.to_string();
            done["ActionStatus"] = FAILED.into();
            done["Error"] = why.clone().into();
            errors.push(why);
            outcome = Err(error);
        }
        actions.push(done);
    }
    if outcome.is_ok() && version(&request.agent_version) <= OLDEST_AGENT {
        outcome = Err(TunnelError::OldAgent { version: request.agent_version });
    }
    (answered(&actions, &errors), outcome)
}

fn refusal(action: &Action) -> Option<TunnelError> {
    match action.action_type.as_str() {
        SESSION_TYPE if action.action_parameters["SessionType"] == PORT => None,
        SESSION_TYPE => {
            let kind = action.action_parameters["SessionType"].as_str().unwrap_or("without a name");
            Some(TunnelError::Gateway {
                why: format!("the agent opened a session of the kind {kind} in place of {PORT}"),
            })
        }
        ENCRYPTION => Some(TunnelError::Encrypted),
        other => Some(TunnelError::Gateway { why: format!("the agent asks for {other}, which is not known here") }),
    }
}

fn answered(actions: &[Value], errors: &[String]) -> Value {
    json!({"ClientVersion": CLIENT_VERSION, "ProcessedClientActions": actions, "Errors": errors})
}

/// Four numbers; what is none counts as 0.
fn version(text: &str) -> [u32; 4] {
    let mut numbers = text.split('.').map(|part| part.parse().unwrap_or(0));
    std::array::from_fn(|_| numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(version: &str, action: &str, parameters: &Value) -> Vec<u8> {
        json!({"AgentVersion": version, "RequestedClientActions": [
            {"ActionType": action, "ActionParameters": parameters},
        ]})
        .to_string()
        .into_bytes()
    }

    #[test]
    fn a_forwarded_port_is_agreed_to_and_anything_else_is_refused_with_what_to_do() {
        let port = json!({"SessionType": "Port", "Properties": {"portNumber": "6167", "type": "LocalPortForwarding"}});
        let (said, outcome) = answer(&asked("3.3.1611.0", SESSION_TYPE, &port));
        assert!(outcome.is_ok());
        assert_eq!(said["ProcessedClientActions"][0]["ActionStatus"], SUCCEEDED);
        assert_eq!(said["Errors"], json!([]));

        let (said, outcome) = answer(&asked("3.3.1611.0", ENCRYPTION, &json!({"KMSKeyId": "key"})));
        assert!(outcome.unwrap_err().to_string().contains("--tunnel plugin"));
        assert_eq!(said["ProcessedClientActions"][0]["ActionStatus"], FAILED);

        assert!(answer(&asked("3.3.1611.0", SESSION_TYPE, &json!({"SessionType": "Standard_Stream"}))).1.is_err());
        assert!(answer(&asked("3.3.1611.0", "Dance", &json!({}))).1.is_err());
        assert!(answer(b"{").1.is_err());
        for (version, old) in
            [("3.0.196.0", true), ("2.3.722.0", true), ("", true), ("3.0.197.0", false), ("3.1", false)]
        {
            assert_eq!(answer(&asked(version, SESSION_TYPE, &port)).1.is_err(), old, "{version}");
        }
    }
}
