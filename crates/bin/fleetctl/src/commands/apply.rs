//! `apply`: plan, show, ask, do, record.

use std::{
    io::{IsTerminal, Write as _},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use fleet_apply::Report;
use fleet_plan::{Outcome as Ended, Plan, SCHEMA};
use fleet_store::{Holder, Lease, Leased};

use crate::{
    context::{Context, print_json},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::{self, Planned, Prepared},
    ui,
    world::World,
};

/// `fleetctl apply`.
///
/// # Errors
/// Anything that keeps a plan from being made or begun; what happens to single changes is in the exit code.
pub async fn apply(context: &Context, saved: Option<&Path>, environment: &str, approved: bool) -> Outcome {
    let saved = saved.map(read_saved).transpose()?;
    let environment = saved.as_ref().map_or(environment, |plan| plan.environment.as_str());
    let prepared = Prepared::new(context, environment)?;
    let _lease = lease(&prepared, "apply")?;
    let world = World::connect(context, &prepared).await?;
    let planned = pipeline::plan(&prepared, &world).await?;
    let plan = match saved {
        Some(saved) => fitting(saved, &planned)?,
        None => planned.plan.clone(),
    };
    eprint!("{}", ui::plan::text(&plan, ui::style::Style::stderr(context.global.color)));
    if plan.is_empty() {
        world.finish().await;
        finish(context, &plan, &Report::default());
        return Ok(Exit::Done);
    }
    if !approved && !confirm("Apply this plan?")? {
        eprintln!("nothing was changed");
        return Ok(Exit::Done);
    }
    let report = run(&prepared, &world, &plan, &planned).await?;
    Ok(finish(context, &plan, &report))
}

/// Executes a plan with Ctrl-C handled: once finishes what runs, twice stops at once.
///
/// # Errors
/// A store that cannot be written.
pub async fn run(prepared: &Prepared, world: &World, plan: &Plan, planned: &Planned) -> Result<Report, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = tokio::spawn(watch_interrupts(Arc::clone(&stop)));
    let report = pipeline::apply(prepared, world, plan, planned, &stop).await;
    watcher.abort();
    report
}

async fn watch_interrupts(stop: Arc<AtomicBool>) {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).ok();
    let mut exit = Exit::Interrupted;
    loop {
        let terminated = async {
            match &mut terminate {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            result = tokio::signal::ctrl_c() => if result.is_err() { return },
            _ = terminated => exit = Exit::Terminated,
        }
        if stop.swap(true, Ordering::Relaxed) {
            eprintln!("stopped at once; run the same command again to finish");
            std::process::exit(i32::from(exit as u8));
        }
        eprintln!("stopping: what runs is finished first; again to stop at once");
    }
}

/// Takes the environment's lease.
///
/// # Errors
/// Exit code 8 when somebody else has it.
pub fn lease(prepared: &Prepared, what: &str) -> Result<Lease, Failure> {
    let who = std::env::var("USER").or_else(|_| std::env::var("LOGNAME")).unwrap_or_else(|_| "somebody".to_owned());
    let environment = &prepared.scope.environment;
    let holder = Holder::this_process(who, format!("{what} -e {environment}"));
    let leased = prepared
        .opened
        .store
        .lease(environment, &holder)
        .map_err(|error| Failure::caused(Exit::Failed, "the lease cannot be taken", &error))?;
    match leased {
        Leased::Ours(lease) => Ok(lease),
        Leased::Held(holder) => {
            let who = holder.map_or_else(
                || "somebody".to_owned(),
                |holder| format!("{} on {} (process {}, `{}`)", holder.who, holder.host, holder.pid, holder.what),
            );
            Err(Failure::new(Exit::LeaseHeld, format!("{who} is working on {environment}"))
                .hint("wait for it to end; the lease ends with its process, there is nothing to unlock"))
        }
    }
}

fn read_saved(path: &Path) -> Result<Plan, Failure> {
    let failed = |error: &dyn std::error::Error| {
        Failure::caused(Exit::Failed, format!("the plan {} cannot be used", path.display()), error)
            .hint("make it with `fleetctl plan -o FILE`")
    };
    let text = std::fs::read_to_string(path).map_err(|error| failed(&error))?;
    let plan: Plan = serde_json::from_str(&text).map_err(|error| failed(&error))?;
    if plan.schema != SCHEMA {
        return Err(Failure::new(
            Exit::Failed,
            format!("the plan {} has schema {}, this fleetctl knows {SCHEMA}", path.display(), plan.schema),
        ));
    }
    Ok(plan)
}

/// A saved plan, refused for objects that moved since. Nothing outside it is touched.
fn fitting(saved: Plan, planned: &Planned) -> Result<Plan, Failure> {
    let mut moved = Vec::new();
    for change in &saved.changes {
        let now = planned.state.objects.get(&change.address).map(|observed| observed.version.clone());
        let unseen = now.is_none() && !planned.state.unseen.is_empty();
        if now != change.expect && !unseen {
            moved.push(format!("{} is no longer what the plan was made against", change.address));
        } else if let Some(wanted) = &change.derivation {
            let known = planned.instance.graph.get(&change.address);
            let same = known.is_some_and(|derivation| derivation.hash() == wanted.hash() || change.if_changed);
            if !same {
                moved.push(format!("{} is declared differently now", change.address));
            }
        }
    }
    if moved.is_empty() {
        return Ok(saved);
    }
    let mut failure = Failure::new(Exit::Stale, "the saved plan no longer fits; nothing was changed");
    failure.causes = moved;
    Err(failure.hint("make a new one with `fleetctl plan -o FILE` and review it"))
}

/// Asks on a terminal; without one, refuses and names the option.
///
/// # Errors
/// Without a terminal.
pub fn confirm(question: &str) -> Result<bool, Failure> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failure::new(Exit::Usage, "there is no terminal to ask on; nothing was changed")
            .hint("add --auto-approve to go ahead without being asked"));
    }
    eprint!("{question} [y/N] ");
    let _ = std::io::stderr().flush();
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .map_err(|error| Failure::caused(Exit::Failed, "the answer cannot be read", &error))?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// Says how it ended and decides the exit code.
pub fn finish(context: &Context, plan: &Plan, report: &Report) -> Exit {
    let exit = exit_of(report);
    let done = report.count(|outcome| matches!(outcome, Ended::Done));
    let unchanged = report.count(|outcome| matches!(outcome, Ended::Unchanged));
    let skipped = report.count(|outcome| matches!(outcome, Ended::Skipped));
    let failed = report.entries.len() - done - unchanged - skipped;
    let summary = serde_json::json!({
        "schema": SCHEMA, "environment": plan.environment, "done": done, "was_right": unchanged,
        "failed": failed, "not_tried": skipped, "unchanged": plan.unchanged, "exit": exit as u8,
        "entries": report.entries,
    });
    context.console.end(exit as u8, &summary);
    if context.json() {
        print_json(&summary);
    }
    if !plan.is_empty() {
        let mut parts = vec![format!("{done} changed"), format!("{} were right", unchanged + plan.unchanged)];
        if failed > 0 {
            parts.push(format!("{failed} failed"));
        }
        if skipped > 0 {
            parts.push(format!("{skipped} not tried"));
        }
        eprintln!("{}: {}", plan.environment, parts.join(", "));
    }
    if exit != Exit::Done {
        eprintln!("run the same command again to finish: what is done stays done");
    }
    exit
}

fn exit_of(report: &Report) -> Exit {
    let any = |which: fn(&Ended) -> bool| report.count(which) > 0;
    if report.is_complete() {
        Exit::Done
    } else if any(|outcome| matches!(outcome, Ended::RolledBack { .. })) {
        Exit::RolledBack
    } else if any(|outcome| matches!(outcome, Ended::Stale { .. })) {
        Exit::Stale
    } else if report.denied {
        Exit::Denied
    } else if report.unreachable {
        Exit::Unavailable
    } else if any(|outcome| matches!(outcome, Ended::Done)) {
        Exit::PartlyApplied
    } else if report.interrupted {
        Exit::Interrupted
    } else {
        Exit::Failed
    }
}
