//! `gc`: the store without what nobody needs, and an account without what an environment left there.

use std::collections::BTreeSet;

use fleet_apply::ProviderError;
use fleet_aws::{Account, Sweep, Unneeded, YOUNG};
use fleet_derivation::Hash;
use fleet_model::{Kind, model::Target};
use fleet_plan::Generation;
use fleet_store::{Collected, Depth, SharedHistory, Surplus};
use serde_json::{Value, json};

use crate::{
    cli::{Format, Global},
    cloud,
    commands::apply,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::{self, Prepared},
    project::Opened,
    sharing::Sharing,
    ui::out::{tell, to_stderr},
    world::{exit_of, unobservable},
};

/// `fleetctl gc`: the store of this checkout.
///
/// # Errors
/// A `fleet.lock` that cannot be read: what it pins is unknown then. A store that cannot be collected.
pub fn gc(global: &Global, keep: usize) -> Outcome {
    let opened = Opened::open(global)?;
    let collected = collect(&opened, keep)?;
    match global.format {
        Format::Json => print_json(&document(&collected)),
        _ => print_out(&said(&collected)),
    }
    Ok(Exit::Done)
}

fn collect(opened: &Opened, keep: usize) -> Result<Collected, Failure> {
    // `lock` has fetched what no generation needs yet.
    pipeline::pin(&opened.store, &opened.lock()?, opened.checked().model.as_ref())?;
    opened.store.gc(keep).map_err(|error| Failure::caused(Exit::Failed, "nothing was collected", &error))
}

fn document(collected: &Collected) -> Value {
    json!({"schema": 1, "removed": collected.removed, "bytes": collected.bytes, "kept": collected.kept})
}

fn said(collected: &Collected) -> String {
    let Collected { removed, bytes, kept, .. } = collected;
    format!("removed {removed} files, {} MB; kept {kept} files\n", bytes >> 20)
}

/// `fleetctl gc -e ENV`: what an environment left in its account, then the store of this checkout.
///
/// # Errors
/// An environment elsewhere; an account that cannot be used, or has no state bucket; somebody else at work; without a terminal,
/// a missing `--auto-approve`.
pub async fn of_account(context: &Context, environment: &str, keep: usize, approved: bool) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    if prepared.environment()?.target == Target::Docker {
        return Err(Failure::new(
            Exit::Usage,
            format!("environment {environment} is not on aws: nothing of it is in an account"),
        )
        .hint("leave out -e: fleetctl gc collects what is in .fleet/"));
    }
    let lease = apply::lease(&prepared, "gc")?;
    let (account, _) = cloud::account(context, &prepared).await?;
    let sharing = Sharing::open(&account, &prepared, Depth::Newest).await?;
    sharing.may_change().await?;
    let found = Found::look(&account, &sharing, &prepared, keep).await?;
    to_stderr(format_args!("{}", found.list()));
    if !found.is_empty()
        && !approved
        && !apply::confirm("Remove these? Nothing that is deployed, or kept, needs them.")?
    {
        tell!("nothing was removed");
        return Ok(Exit::Done);
    }
    let found = if found.is_empty() { found } else { remove(context, &prepared, (&account, &sharing), keep).await? };
    drop(lease);
    let collected = collect(&prepared.opened, keep)?;
    if context.json() {
        let mut told = document(&collected);
        told["account"] = found.document();
        print_json(&told);
    } else {
        print_out(&format!("{environment}: {}\n{}", found.counted(), said(&collected)));
    }
    Ok(Exit::Done)
}

/// Looks again once nobody else can change anything, and removes what there is then.
async fn remove(
    context: &Context,
    prepared: &Prepared,
    (account, sharing): (&Account, &Sharing),
    keep: usize,
) -> Result<Found, Failure> {
    let removed = async {
        let found = Found::look(account, sharing, prepared, keep).await?;
        let unremoved =
            |error: &dyn std::error::Error, exit| Failure::caused(exit, "not everything was removed", error);
        // Generations last: as long as one is there, what it needs is.
        found.sweep.remove(&found.unneeded).await.map_err(|error: ProviderError| unremoved(&error, exit_of(&error)))?;
        if let Some(shared) = sharing.shared() {
            shared.prune(&found.surplus).await.map_err(|error| unremoved(&error, Exit::Failed))?;
        }
        Ok(found)
    };
    sharing.alone(context, "gc", removed).await
}

/// What can go.
struct Found {
    surplus: Surplus,
    unneeded: Unneeded,
    sweep: Sweep,
}

impl Found {
    async fn look(account: &Account, sharing: &Sharing, prepared: &Prepared, keep: usize) -> Result<Self, Failure> {
        let unread = |error| Failure::caused(Exit::Failed, "nothing was removed", &error);
        let shared: &SharedHistory =
            sharing.shared().ok_or_else(|| Failure::new(Exit::Failed, "there is no state bucket"))?;
        let surplus = shared.surplus(keep).await.map_err(unread)?;
        let sweep = Sweep::new(account.clone(), prepared.scope.clone(), YOUNG);
        let unneeded = sweep.unneeded(&needed(&surplus.kept)).await.map_err(unobservable)?;
        Ok(Self { surplus, unneeded, sweep })
    }

    fn is_empty(&self) -> bool {
        self.surplus.numbers.is_empty() && self.unneeded == Unneeded::default()
    }

    fn list(&self) -> String {
        let mut text = String::new();
        let mut add = |what: &str, name: &str| text.push_str(&format!("  - {what:16} {name}\n"));
        if let (Some(first), Some(last)) = (self.surplus.numbers.first(), self.surplus.numbers.last()) {
            add("generations", &if first == last { first.to_string() } else { format!("{first} to {last}") });
        }
        for family in &self.unneeded.families {
            add("task-definition", family);
        }
        for template in &self.unneeded.templates {
            add("template", template);
        }
        text
    }

    fn counted(&self) -> String {
        let (generations, Unneeded { families, templates }) = (self.surplus.numbers.len(), &self.unneeded);
        format!(
            "generations removed: {generations}, task definitions: {}, templates: {}",
            families.len(),
            templates.len()
        )
    }

    fn document(&self) -> Value {
        let Unneeded { families, templates } = &self.unneeded;
        json!({"generations": self.surplus.numbers, "task_definitions": families, "templates": templates})
    }
}

/// Derivations of agents in these generations, by which their task definitions are named.
fn needed(kept: &[Generation]) -> BTreeSet<Hash> {
    let objects = kept.iter().flat_map(|generation| &generation.objects).map(|(address, hash)| (address, Some(*hash)));
    let entries = kept.iter().flat_map(|generation| &generation.entries);
    // What was there before is the former generation's.
    let entries = entries.map(|entry| (&entry.address, entry.after));
    let agents = objects.chain(entries).filter(|(address, _)| address.kind == Kind::Agent);
    agents.filter_map(|(_, hash)| hash).collect()
}
