//! [`Sessions`]: what Session Manager is asked: to begin a session, to take one up again on a new socket, and to end it.
//!
//! [StartSession](https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_StartSession.html) with the document
//! `AWS-StartPortForwardingSessionToRemoteHost`, ResumeSession and TerminateSession of the same reference.

use fleet_secret::Secret;
use serde_json::{Value, json};

use super::{Far, TunnelError};
use crate::{account::Account, error::AwsError};

/// The document that connects an instance to a port of another host.
const DOCUMENT: &str = "AWS-StartPortForwardingSessionToRemoteHost";
/// AWS's code for an instance whose agent does not answer.
const NOT_CONNECTED: &str = "TargetNotConnected";
/// AWS's code for a session that is over.
const GONE: &str = "DoesNotExistException";

/// A session that was begun or taken up, and may be connected to once.
pub(super) struct Ticket {
    pub session: String,
    /// `wss://…`
    pub url: String,
    pub token: Secret,
}

/// Sessions on one instance.
#[derive(Clone)]
pub(super) struct Sessions {
    pub account: Account,
    pub bastion: String,
}

impl Sessions {
    /// What is asked to begin a session; `local` is told to the plugin, which listens there.
    pub(super) fn request(&self, far: &Far, local: u16) -> Value {
        json!({
            "Target": self.bastion,
            "DocumentName": DOCUMENT,
            "Parameters": {
                "host": [far.host],
                "portNumber": [far.port.to_string()],
                "localPortNumber": [local.to_string()],
            },
        })
    }

    /// Begins a session.
    ///
    /// # Errors
    /// [`TunnelError::NotConnected`]; a call that fails.
    pub(super) async fn begin(&self, far: &Far) -> Result<Ticket, TunnelError> {
        const CALL: &str = "StartSession";
        ticket(CALL, &self.ask(CALL, &self.request(far, 0)).await?)
    }

    /// The same as AWS answers it, for the plugin.
    ///
    /// # Errors
    /// As [`begin`](Self::begin).
    pub(super) async fn ask(&self, call: &'static str, body: &Value) -> Result<Value, TunnelError> {
        match self.account.ask_parameters(call, body).await {
            Err(error) if error.code() == NOT_CONNECTED => {
                Err(TunnelError::NotConnected { bastion: self.bastion.clone(), why: error.message().to_owned() })
            }
            Err(error) if error.code() == GONE => Err(TunnelError::Over { why: error.message().to_owned() }),
            answer => Ok(answer?),
        }
    }

    /// Takes a session up again whose socket is gone.
    ///
    /// # Errors
    /// [`TunnelError::Over`] where it has ended; a call that fails.
    pub(super) async fn resume(&self, session: &str) -> Result<Ticket, TunnelError> {
        const CALL: &str = "ResumeSession";
        ticket(CALL, &self.ask(CALL, &json!({"SessionId": session})).await?)
    }

    /// Ends a session; one that has ended is right.
    ///
    /// # Errors
    /// A call that fails.
    pub(super) async fn end(&self, session: &str) -> Result<(), TunnelError> {
        match self.ask("TerminateSession", &json!({"SessionId": session})).await {
            Err(TunnelError::Over { .. }) => Ok(()),
            done => done.map(drop),
        }
    }
}

fn ticket(call: &'static str, answer: &Value) -> Result<Ticket, TunnelError> {
    let field = |name: &str| answer[name].as_str().filter(|text| !text.is_empty()).map(str::to_owned);
    let (Some(session), Some(url), Some(token)) = (field("SessionId"), field("StreamUrl"), field("TokenValue")) else {
        // AWS answers so for a session that has ended.
        let why = "there is no data channel for it any more".to_owned();
        let bad = || AwsError::Refused { call, code: "NoChannel".to_owned(), why: why.clone() };
        return Err(if call == "ResumeSession" { TunnelError::Over { why } } else { bad().into() });
    };
    Ok(Ticket { session, url, token: Secret::new(token) })
}
