//! [`Tunnel`]: a port of this machine that leads to one within the VPC, through the bastion and Session Manager; [`SsmTunnel`],
//! which speaks the protocol itself, and [`PluginTunnel`], which has the official `session-manager-plugin` speak it.
//!
//! `message`, `channel`, `mux` and `handshake` are the protocol: values, without time or sockets. `sessions` asks AWS, `socket` opens
//! a WebSocket, `session` moves bytes between it and each `connection`, and `forward` takes connections. [Decision
//! 27](../../../../docs/decisions/0027-own-session-client.md) has the reasons. Deliberately absent: sessions with a shell,
//! encryption with a key of KMS (the plugin's), ways that do not lead through the bastion.

mod channel;
mod connection;
mod forward;
mod handshake;
mod message;
mod mux;
mod plugin;
mod session;
mod sessions;
mod socket;

use std::{fmt, net::SocketAddr};

use async_trait::async_trait;
use fleet_apply::Scope;
use tokio::net::TcpListener;

pub use forward::SsmTunnel;
pub use plugin::PluginTunnel;

use crate::{account::Account, error::AwsError};

/// The output of an environment's stack that names its bastion.
const BASTION_OUTPUT: &str = "BastionId";

/// Where a tunnel leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Far {
    /// A name that the bastion can resolve.
    pub host: String,
    /// TCP port.
    pub port: u16,
}

impl fmt::Display for Far {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Leads to ports within a network.
#[async_trait]
pub trait Tunnel: Send + Sync {
    /// From now on connections to a port of loopback (0: any that is free) lead there. Returns where it listens.
    ///
    /// # Errors
    /// [`TunnelError`]; nothing is left open then.
    async fn open(&self, far: &Far, local: u16) -> Result<SocketAddr, TunnelError>;

    /// Returns once one that was opened is over and does not come back; never where that cannot be.
    async fn over(&self) -> TunnelError;

    /// Ends all that were opened.
    async fn close(&self);
}

/// Why there is no tunnel.
#[derive(Debug, thiserror::Error)]
pub enum TunnelError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// The environment has no bastion yet.
    #[error("{environment} has no bastion: its stack does not stand; `fleetctl apply -e {environment}` makes it")]
    NoBastion {
        /// Which environment.
        environment: String,
    },
    /// Session Manager does not know the bastion.
    #[error(
        "the bastion {bastion} is not connected to Session Manager ({why}); a new one takes some minutes, a stopped one is started by `aws ec2 start-instances --instance-ids {bastion}`"
    )]
    NotConnected {
        /// Id of the instance.
        bastion: String,
        /// What AWS says.
        why: String,
    },
    /// A port of this machine cannot be listened at.
    #[error("127.0.0.1:{port} cannot be listened at: {why}")]
    Taken {
        /// Which.
        port: u16,
        /// Why.
        why: std::io::Error,
    },
    /// The data channel was refused, or what came through it was not understood.
    #[error("the data channel of Session Manager: {why}")]
    Gateway {
        /// Why.
        why: String,
    },
    /// The account's preferences ask for encryption with a key of KMS.
    #[error(
        "Session Manager's preferences of this account ask for encryption with a key of KMS, which only the official plugin does: --tunnel plugin"
    )]
    Encrypted,
    /// The agent on the bastion is too old.
    #[error(
        "the SSM agent on the bastion ({version}) is too old for several connections at once; replace the bastion, or use --tunnel plugin"
    )]
    OldAgent {
        /// Its version.
        version: String,
    },
    /// The session ended before it began.
    #[error("the session ended: {why}")]
    Over {
        /// Why.
        why: String,
    },
    /// The official plugin.
    #[error("session-manager-plugin: {why}")]
    Plugin {
        /// Why.
        why: String,
    },
}

impl Account {
    /// Id of the instance through which tunnels of an environment lead.
    ///
    /// # Errors
    /// [`TunnelError::NoBastion`]; a call that fails.
    async fn bastion(&self, scope: &Scope) -> Result<String, TunnelError> {
        let mut outputs = self.outputs_of(scope, &scope.environment).await?;
        let none = || TunnelError::NoBastion { environment: scope.environment.clone() };
        outputs.remove(BASTION_OUTPUT).ok_or_else(none)
    }
}

/// Listens at a port of loopback.
async fn listen(port: u16) -> Result<(TcpListener, SocketAddr), TunnelError> {
    let taken = |why| TunnelError::Taken { port, why };
    let listener = TcpListener::bind(("127.0.0.1", port)).await.map_err(taken)?;
    let address = listener.local_addr().map_err(taken)?;
    Ok((listener, address))
}
