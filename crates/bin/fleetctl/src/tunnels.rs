//! Tunnels to what runs within an environment's network, as commands use them.

use std::sync::Arc;

use clap::ValueEnum;
use fleet_apply::Events;
use fleet_aws::{Account, Far, PluginTunnel, SsmTunnel, Tunnel, TunnelError};

use crate::{cloud, context::Context, error::Failure, exit::Exit, pipeline::Prepared, ui::events::Console};

/// Who speaks Session Manager's protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum By {
    /// This program.
    Own,
    /// The official session-manager-plugin, which has to be on PATH.
    Plugin,
}

/// Tunnels to an environment's network; nothing is asked before one is opened.
pub fn tunnels(context: &Context, prepared: &Prepared, account: &Account, by: By) -> Box<dyn Tunnel> {
    let (account, scope) = (account.clone(), prepared.scope.clone());
    let events: Arc<dyn Events> = Arc::<Console>::clone(&context.console);
    match by {
        By::Own => Box::new(SsmTunnel::new(account, scope, events)),
        By::Plugin => Box::new(PluginTunnel::new(account, scope, events)),
    }
}

/// The homeserver within the network.
pub fn homeserver(prepared: &Prepared) -> Far {
    let (host, port) = fleet_stacks::homeserver_host(&prepared.scope.domain);
    Far { host, port }
}

/// The web client within the network.
pub fn web(prepared: &Prepared) -> Far {
    let (host, port) = fleet_stacks::web_host(&prepared.scope.domain);
    Far { host, port }
}

/// Why there is no tunnel, for a person.
pub fn failed(far: &Far, error: &TunnelError) -> Failure {
    let exit = match error {
        TunnelError::Aws(error) => cloud::exit_of(error),
        TunnelError::NotConnected { .. } | TunnelError::Gateway { .. } | TunnelError::Over { .. } => Exit::Unavailable,
        _ => Exit::Failed,
    };
    let failure = Failure::caused(exit, format!("there is no tunnel to {far}"), error);
    match error {
        TunnelError::Taken { .. } => failure
            .hint("another program listens there, perhaps environment local: `fleetctl status`")
            .hint("choose another port: --homeserver-port, --web-port; 0 is any that is free"),
        TunnelError::Aws(_) if exit == Exit::Denied => failure.hint(
            "who opens tunnels needs ssm:StartSession for the bastion and its document, see docs/reference/aws.md",
        ),
        _ => failure,
    }
}
