//! `connect`: holds tunnels to the homeserver and the web client of an environment open, until Ctrl-C.

use std::process::Stdio;

use fleet_aws::{Far, Tunnel};
use fleet_model::model::Target;
use serde_json::json;

use crate::{
    cloud,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    tunnels::{self, By},
    ui::{out::tell, table::Table},
};

/// What is asked for.
pub struct Asked {
    /// Whether a browser shows the web client.
    pub open: bool,
    /// In place of the declared port.
    pub homeserver_port: Option<u16>,
    /// In place of the declared port.
    pub web_port: Option<u16>,
    /// Who speaks the protocol.
    pub by: By,
}

/// A tunnel that is wanted.
struct Wanted {
    what: &'static str,
    far: Far,
    port: u16,
}

/// Something that can be reached.
struct Reached {
    what: &'static str,
    url: String,
}

/// `fleetctl connect`: stdout gets an address a line.
///
/// # Errors
/// No credentials, a bastion that is not there, a port that is taken; a tunnel that ended for good.
pub async fn connect(context: &Context, environment: &str, asked: &Asked) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    let declared = prepared.environment()?;
    let wanted = wanted(&prepared, asked)?;
    if matches!(declared.target, Target::Docker) {
        if asked.homeserver_port.is_some() || asked.web_port.is_some() {
            let ports = Failure::new(Exit::Usage, format!("{environment} is on docker, which publishes its own ports"));
            return Err(ports.hint("fleet.kdl has them: homeserver port=…, web port=…"));
        }
        let reached: Vec<Reached> = wanted.iter().map(|wanted| reached(wanted, wanted.port)).collect();
        show(context, environment, &reached);
        tell!("{environment} runs on this machine: its ports are on loopback already, no tunnel is needed");
        browse(asked, &reached);
        return Ok(Exit::Done);
    }
    let (account, _) = cloud::account(context, &prepared).await?;
    let tunnel = tunnels::tunnels(context, &prepared, &account, asked.by);
    context.interrupts.hold();
    let outcome = held(context, &prepared, (&*tunnel, &wanted), asked).await;
    tunnel.close().await;
    if outcome.is_ok() {
        tell!("the tunnels are closed");
    }
    outcome
}

fn wanted(prepared: &Prepared, asked: &Asked) -> Result<Vec<Wanted>, Failure> {
    let declared = prepared.environment()?;
    let port = asked.homeserver_port.unwrap_or(declared.homeserver.port);
    let mut wanted = vec![Wanted { what: "homeserver", far: tunnels::homeserver(prepared), port }];
    match &declared.web {
        Some(web) => {
            let port = asked.web_port.unwrap_or(web.port);
            wanted.push(Wanted { what: "web client", far: tunnels::web(prepared), port });
            if asked.homeserver_port.is_some_and(|port| port != declared.homeserver.port) {
                tell!(
                    "a web client such as Element looks for the homeserver at http://localhost:{}",
                    declared.homeserver.port
                );
            }
        }
        None if asked.open || asked.web_port.is_some() => {
            let none = Failure::new(Exit::Usage, format!("{} has no web client", declared.name));
            return Err(none.hint("declare one: web image=\"element\""));
        }
        None => {}
    }
    Ok(wanted)
}

fn reached(wanted: &Wanted, port: u16) -> Reached {
    Reached { what: wanted.what, url: format!("http://127.0.0.1:{port}") }
}

async fn held(
    context: &Context,
    prepared: &Prepared,
    (tunnel, wanted): (&dyn Tunnel, &[Wanted]),
    asked: &Asked,
) -> Outcome {
    let opened = wanted.iter().map(|wanted| async move {
        let address = tunnel.open(&wanted.far, wanted.port).await;
        address.map(|address| reached(wanted, address.port())).map_err(|error| tunnels::failed(&wanted.far, &error))
    });
    // All of them: what one that failed leaves behind is closed with the others.
    let opened: Result<Vec<Reached>, Failure> = futures::future::join_all(opened).await.into_iter().collect();
    let reached = opened?;
    show(context, &prepared.scope.environment, &reached);
    tell!("open until Ctrl-C");
    browse(asked, &reached);
    tokio::select! {
        () = context.interrupts.asked() => Ok(Exit::Done),
        error = tunnel.over() => Err(Failure::caused(Exit::Unavailable, "a tunnel ended", &error)
            .hint("run the same command again")),
    }
}

fn show(context: &Context, environment: &str, reached: &[Reached]) {
    if context.json() {
        let url = |what| reached.iter().find(|reached| reached.what == what).map(|reached| reached.url.as_str());
        print_json(&json!({
            "schema": 1, "environment": environment, "homeserver": url("homeserver"), "web": url("web client"),
        }));
        return;
    }
    let mut table = Table::default();
    for reached in reached {
        table.row([reached.what, reached.url.as_str()]);
    }
    print_out(&table.text());
}

/// Shows the web client in a browser. That there is none is no reason to close anything.
fn browse(asked: &Asked, reached: &[Reached]) {
    const PROGRAM: &str = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let page = reached.iter().find(|reached| reached.what == "web client");
    let Some(page) = page.filter(|_| asked.open) else { return };
    let mut command = tokio::process::Command::new(PROGRAM);
    command.arg(&page.url).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    // It outlives us, and Ctrl-C here is not meant for it.
    let started = command.process_group(0).spawn();
    if let Err(error) = started {
        tell!("no browser can be started ({PROGRAM}: {error}); open {}", page.url);
    }
}
