//! fleetctl: reads one fleet.kdl, shows what would change and why, and makes it so.
//!
//! Start reading at [`pipeline`]. stdout is data, stderr everything else; exit codes are [`exit::Exit`].

mod assembly;
mod blobs;
mod cli;
mod cloud;
mod commands;
mod context;
mod error;
mod exit;
mod images;
mod in_engine;
mod interrupts;
mod machine;
mod meeting;
mod pipeline;
mod programs;
mod project;
mod sharing;
mod tunnels;
mod ui;
mod world;

use std::{path::Path, sync::Arc, time::Duration};

use clap::Parser as _;

use crate::{
    cli::{Cli, Command, Format},
    commands::{apply::Asked, connect, talk::Saying},
    context::{Context, print_json},
    error::{Failure, Outcome},
    exit::Exit,
    ui::out::{self, tell, to_stderr},
};

/// Many small values on several threads, for some milliseconds: docs/decisions/0029-cheap-to-start.md has what it saves.
#[global_allocator]
static MEMORY: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> Exit {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            // clap's own code for mistakes is 2, which means "changes are present" here.
            if error.use_stderr() {
                to_stderr(format_args!("{}", error.render()));
                return Exit::Usage;
            }
            return delivered(error.print().map_or_else(|_| Exit::Done, |()| Exit::Done));
        }
    };
    let json = cli.global.format == Format::Json;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let outcome = match runtime {
        Ok(runtime) => {
            let outcome = runtime.block_on(run(cli));
            // What still runs, nobody waits for: a connection that is kept, work whose outcome is no longer wanted.
            runtime.shutdown_background();
            outcome
        }
        Err(error) => Err(Failure::caused(Exit::Failed, "no threads can be started", &error)),
    };
    delivered(outcome.unwrap_or_else(|failure| {
        to_stderr(format_args!("{}", failure.text()));
        // A program that reads stdout gets one value in any case, and never two.
        if json && !out::begun() {
            print_json(&failure.json());
        }
        failure.exit
    }))
}

/// A command whose output did not arrive has failed, whatever else it did.
fn delivered(exit: Exit) -> Exit {
    match out::lost() {
        Some(why) if exit == Exit::Done => {
            tell!("error: the output could not be written\n  cause: {why}");
            Exit::Failed
        }
        _ => exit,
    }
}

async fn run(cli: Cli) -> Outcome {
    let global = &cli.global;
    fits(&cli)?;
    match &cli.command {
        Command::Init { name, domain } => return commands::files::init(global, name, domain),
        Command::Explain { code } => return commands::inspect::explain(global, code.as_deref()),
        Command::Man { command } => return commands::inspect::man(command.as_deref()),
        Command::Completions { shell } => return commands::inspect::completions(*shell),
        Command::Gc { keep, environment: None, .. } => return commands::gc::gc(global, *keep),
        _ => {}
    }
    let context = Context::new(global)?;
    tokio::spawn(Arc::clone(&context.interrupts).watch(Arc::clone(&context.console)));
    let outcome = dispatch(&context, &cli.command).await;
    if let Err(failure) = &outcome {
        context.console.summarize(serde_json::json!({"error": failure.message, "causes": failure.causes}));
    }
    context.console.end(outcome.as_ref().map_or_else(|failure| failure.exit, |exit| *exit));
    outcome
}

/// Global options that the command cannot follow are refused: one that does nothing is worse than an error.
fn fits(cli: &Cli) -> Result<(), Failure> {
    use Command::{
        Apply, Bootstrap, Build, Check, Connect, Destroy, Diff, Explain, Fmt, Gc, Graph, History, Lock, Org, Plan, Say,
        Show, Status, Verify, Why,
    };
    let refuse = |what: &str| Err(Failure::new(Exit::Usage, what.to_owned()));
    match cli.global.format {
        Format::Text => {}
        Format::Dot if matches!(cli.command, Graph(_)) => {}
        Format::Dot => return refuse("only `graph` has --format dot"),
        Format::Json => match &cli.command {
            Apply { .. }
            | Bootstrap { .. }
            | Build { .. }
            | Check
            | Connect { .. }
            | Destroy { .. }
            | Diff(_)
            | Explain { .. }
            | Fmt { .. }
            | Gc { .. }
            | Graph(_)
            | History(_)
            | Lock { .. }
            | Org { .. }
            | Plan(_)
            | Say { .. }
            | Show { .. }
            | Status(_)
            | Verify(_)
            | Why { .. } => {}
            _ => return refuse("this command has no --format json"),
        },
    }
    if cli.global.format == Format::Json && cli.global.events.as_deref() == Some(Path::new("-")) {
        return refuse("--events - and --format json both want stdout; give --events a file");
    }
    Ok(())
}

async fn dispatch(context: &Context, command: &Command) -> Outcome {
    match command {
        Command::Quickstart { yes } => commands::quickstart::quickstart(context, *yes).await,
        Command::Check => commands::files::check(context),
        Command::Fmt { check } => commands::files::fmt(context, *check),
        Command::Show { address, environment, repository } => {
            let asked = address.as_deref().map(|address| (address, repository.as_deref()));
            commands::inspect::show(context, &environment.environment, asked)
        }
        Command::Lock { only, check } => commands::lock::lock(context, only, *check).await,
        Command::Org { command } => commands::org::org(context, command),
        Command::Graph(environment) => commands::inspect::graph(context, &environment.environment),
        Command::Build(args) => commands::build::build(context, args).await,
        Command::Plan(args) => commands::plan::plan(context, args).await,
        Command::Diff(args) => commands::plan::diff(context, args).await,
        Command::Apply { plan, environment, auto_approve, allow_destroy } => {
            let environment = &environment.environment;
            let asked = Asked { saved: plan.as_deref(), environment, approved: *auto_approve, allow_destroy };
            commands::apply::apply(context, &asked).await
        }
        Command::Manager { health: false } => commands::manager::manager(context).await,
        Command::Manager { health: true } => commands::manager::health(context),
        Command::Bootstrap { environment, repository, auto_approve } => {
            commands::bootstrap::bootstrap(context, environment, repository.as_deref(), *auto_approve).await
        }
        Command::Rehearse { environment, keep } => commands::rehearse::rehearse(context, environment, *keep).await,
        Command::Verify(environment) => commands::verify::verify(context, &environment.environment).await,
        Command::Why { address, environment, generation } => {
            commands::why::why(context, address, &environment.environment, *generation).await
        }
        Command::Status(environment) => commands::status::status(context, &environment.environment).await,
        Command::History(environment) => commands::inspect::history(context, &environment.environment).await,
        Command::Logs { address, environment, follow, tail } => {
            commands::talk::logs(context, &environment.environment, address, *follow, *tail).await
        }
        Command::Connect { environment, open, homeserver_port, web_port, tunnel } => {
            let (homeserver_port, web_port) = (*homeserver_port, *web_port);
            let asked = connect::Asked { open: *open, homeserver_port, web_port, by: *tunnel };
            connect::connect(context, &environment.environment, &asked).await
        }
        Command::Say { room, text, environment, speaker, wait, tunnel } => {
            let (speaker, wait) = (speaker.as_deref(), Duration::from_secs(*wait));
            let saying = Saying { room, text, speaker, wait, by: *tunnel };
            commands::talk::say(context, &environment.environment, &saying).await
        }
        Command::Password { person, environment } => {
            commands::talk::password(context, &environment.environment, person).await
        }
        Command::Gc { keep, environment: Some(environment), auto_approve } => {
            commands::gc::of_account(context, environment, *keep, *auto_approve).await
        }
        Command::Destroy { environment, purge, auto_approve } => {
            commands::destroy::destroy(context, &environment.environment, *purge, *auto_approve).await
        }
        Command::Init { .. }
        | Command::Explain { .. }
        | Command::Man { .. }
        | Command::Completions { .. }
        | Command::Gc { environment: None, .. } => Ok(Exit::Done),
    }
}
