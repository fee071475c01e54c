//! [`execute`]: makes a plan true, stage by stage. It makes no choices: every object is complete in the plan; here it
//! only turns out that a change is no longer needed, no longer possible, or failed.
//!
//! Order: stacks that need nothing, images, stacks that run images or take from other stacks, services, directory, accounts,
//! rooms, agents in waves, then deletions in reverse. After a stage with a failure nothing further is tried. Deliberately absent: planning, rendering of progress, secrets in any message.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use fleet_derivation::{Derivation, Hash};
use fleet_model::{Address, Kind, model::Rollout};
use fleet_objects::Desired;
use fleet_oci::LayerRecipe;
use fleet_plan::{Action, Change, Entry, Outcome, Plan, StackParameter};
use futures::{StreamExt, stream};

use crate::{
    events::{Event, Events, Silent},
    provider::{Applied, Provider, ProviderError, Ready, Secrets},
};

/// How many stacks are worked on at once.
const STACK_CONCURRENCY: usize = 8;
/// How many accounts or rooms are worked on at once.
const MATRIX_CONCURRENCY: usize = 8;

/// Keeps what must survive a crash; called before the change that needs it.
pub trait Recorder: Send + Sync {
    /// A derivation whose hash is about to be put on something.
    fn derivation(&self, derivation: &Derivation);
    /// What a derivation produced.
    fn output(&self, derivation: &Hash, output: &str);
}

impl Recorder for Silent {
    fn derivation(&self, _: &Derivation) {}
    fn output(&self, _: &Hash, _: &str) {}
}

/// Everything an execution needs.
pub struct Execution<'a> {
    /// The plan.
    pub plan: &'a Plan,
    /// Who looks after what.
    pub providers: &'a [&'a dyn Provider],
    /// Secrets.
    pub secrets: &'a Secrets,
    /// How agents roll.
    pub rollout: Rollout,
    /// Takes events.
    pub events: &'a dyn Events,
    /// Takes records.
    pub recorder: &'a dyn Recorder,
    /// Set to stop before the next change; what runs is finished.
    pub stop: &'a AtomicBool,
}

/// What an execution did.
#[derive(Debug, Default)]
#[must_use = "a report that nobody reads looks like success"]
pub struct Report {
    /// One entry per change of the plan, in the plan's order.
    pub entries: Vec<Entry>,
    /// Outputs learnt, by derivation hash.
    pub outputs: BTreeMap<Hash, String>,
    /// Outside systems that did not answer.
    pub unreachable: bool,
    /// An outside system refused.
    pub denied: bool,
    /// It was asked to stop.
    pub interrupted: bool,
}

impl Report {
    /// How many entries ended so.
    pub fn count(&self, which: impl Fn(&Outcome) -> bool) -> usize {
        self.entries.iter().filter(|entry| which(&entry.outcome)).count()
    }

    /// Everything was done or turned out to be unnecessary.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.count(|outcome| !matches!(outcome, Outcome::Done | Outcome::Unchanged)) == 0
    }
}

/// Runs a plan to its end or to the first stage with a failure.
pub async fn execute(execution: &Execution<'_>, known_outputs: BTreeMap<Hash, String>) -> Report {
    let run = Run { execution, outputs: Mutex::new(known_outputs), ended: Mutex::new(BTreeMap::new()) };
    for provider in execution.providers {
        let own: Vec<&Change> = execution.plan.changes.iter().filter(|change| provider.owns(&change.address)).collect();
        provider.begin(&own);
    }
    for stage in stages(execution.plan) {
        if !run.stage(&stage).await {
            break;
        }
    }
    run.report()
}

/// Changes that may run side by side, after those of the stages before.
struct Stage<'p> {
    changes: Vec<&'p Change>,
    width: usize,
    agents: bool,
}

fn stages(plan: &Plan) -> Vec<Stage<'_>> {
    let of = |kind: Kind| plan.changes.iter().filter(move |c| c.address.kind == kind && c.action != Action::Delete);
    let mut stages: Vec<Stage<'_>> = Vec::new();
    // Repositories are there before images are pushed.
    let (first, later): (Vec<&Change>, Vec<&Change>) = of(Kind::Stack).partition(|change| needs(change).is_empty());
    stages.push(Stage { changes: first, width: STACK_CONCURRENCY, agents: false });
    for image in images_in_order(of(Kind::Image).collect()) {
        stages.push(Stage { changes: vec![image], width: 1, agents: false });
    }
    for changes in stacks_in_order(later) {
        stages.push(Stage { changes, width: STACK_CONCURRENCY, agents: false });
    }
    for (kind, width) in [
        (Kind::Service, 1),
        (Kind::Directory, 1),
        (Kind::Account, MATRIX_CONCURRENCY),
        (Kind::Room, MATRIX_CONCURRENCY),
        (Kind::Agent, 0),
    ] {
        stages.push(Stage { changes: of(kind).collect(), width, agents: kind == Kind::Agent });
    }
    // What is removed goes in the opposite order: an agent before its account.
    for kind in [Kind::Agent, Kind::Room, Kind::Account, Kind::Directory, Kind::Service] {
        let gone = plan.changes.iter().filter(|c| c.address.kind == kind && c.action == Action::Delete);
        stages.push(Stage { changes: gone.collect(), width: MATRIX_CONCURRENCY, agents: false });
    }
    stages.retain(|stage| !stage.changes.is_empty());
    stages
}

/// What a stack takes values from: names of other stacks, and of images with `image/` before them.
fn needs(change: &Change) -> BTreeSet<String> {
    let Some(Desired::Stack(spec)) = &change.desired else { return BTreeSet::new() };
    let source = |parameter: &StackParameter| match parameter {
        StackParameter::Image { image } => Some(format!("image/{image}")),
        StackParameter::Output { stack, .. } => Some(stack.clone()),
        StackParameter::MachineImage => None,
    };
    spec.parameters.values().filter_map(source).collect()
}

/// Stacks in groups, each after those that it takes from.
fn stacks_in_order(mut waiting: Vec<&Change>) -> Vec<Vec<&Change>> {
    let mut groups = Vec::new();
    while !waiting.is_empty() {
        let names: BTreeSet<String> = waiting.iter().map(|change| change.address.name.clone()).collect();
        let (ready, rest): (Vec<&Change>, Vec<&Change>) =
            waiting.iter().partition(|change| needs(change).is_disjoint(&names));
        if ready.is_empty() {
            groups.push(rest); // a circle, which rendering cannot make; let the provider say what is missing
            break;
        }
        groups.push(ready);
        waiting = rest;
    }
    groups
}

/// Images that others stand on first.
fn images_in_order(mut waiting: Vec<&Change>) -> Vec<&Change> {
    let mut order = Vec::with_capacity(waiting.len());
    while !waiting.is_empty() {
        let names: BTreeSet<&str> = waiting.iter().map(|change| change.address.name.as_str()).collect();
        let (ready, rest): (Vec<&Change>, Vec<&Change>) =
            waiting.iter().partition(|change| !stands_on(change).is_some_and(|name| names.contains(name.as_str())));
        if ready.is_empty() {
            order.extend(rest); // a cycle, which the checks refuse; let the provider say so
            break;
        }
        order.extend(ready);
        waiting = rest;
    }
    order
}

fn stands_on(change: &Change) -> Option<String> {
    let Some(Desired::Image(spec)) = &change.desired else { return None };
    spec.recipe.layers.iter().find_map(|layer| match layer {
        LayerRecipe::Image { name, .. } => Some(name.clone()),
        LayerRecipe::Containerfile { args, .. } => {
            let tag = args.get("BASE")?;
            let repository = tag.split_once(":d-")?.0;
            Some(repository.rsplit('/').next().unwrap_or(repository).to_owned())
        }
        _ => None,
    })
}

struct Run<'e, 'p> {
    execution: &'e Execution<'p>,
    outputs: Mutex<BTreeMap<Hash, String>>,
    ended: Mutex<BTreeMap<Address, Ended>>,
}

struct Ended {
    outcome: Outcome,
    after: Option<Hash>,
    unreachable: bool,
    denied: bool,
}

impl Run<'_, '_> {
    /// Runs one stage; false when nothing further may be tried.
    async fn stage(&self, stage: &Stage<'_>) -> bool {
        let rollout = self.execution.rollout;
        let wave = if stage.agents { rollout.wave.max(1) as usize } else { stage.changes.len().max(1) };
        let mut failures: u32 = 0;
        for (index, changes) in stage.changes.chunks(wave).enumerate() {
            if index > 0 && rollout.pause_seconds > 0 && stage.agents {
                tokio::time::sleep(Duration::from_secs(rollout.pause_seconds.into())).await;
            }
            let width = if stage.width == 0 { changes.len() } else { stage.width };
            let ended: Vec<bool> =
                stream::iter(changes.iter().map(|change| self.one(change))).buffer_unordered(width).collect().await;
            failures += u32::try_from(ended.iter().filter(|good| !**good).count()).unwrap_or(u32::MAX);
            let limit = if stage.agents { rollout.max_failures.max(1) } else { 1 };
            if failures >= limit || self.stopped() {
                return false;
            }
        }
        failures == 0
    }

    fn stopped(&self) -> bool {
        self.execution.stop.load(Ordering::Relaxed)
    }

    /// Makes one change; true when it is done or was not needed.
    async fn one(&self, change: &Change) -> bool {
        if self.stopped() {
            return true; // it stays without an entry, which the report calls skipped
        }
        let events = self.execution.events;
        let started = Instant::now();
        events.emit(Event::Started { address: change.address.clone(), action: change.action });
        let outputs = self.outputs.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let derivation = change.derivation.as_ref().map(|derivation| derivation.with_outputs(&outputs));
        if let Some(derivation) = &derivation {
            self.execution.recorder.derivation(derivation);
        }
        let after = derivation.as_ref().map(Derivation::hash);
        let ready = Ready { outputs: &outputs, secrets: self.execution.secrets };
        let result = match self.execution.providers.iter().find(|provider| provider.owns(&change.address)) {
            Some(provider) => provider.apply(change, &ready, events).await,
            None => Err(ProviderError::failed(&change.address, "this target cannot have it")),
        };
        let ended = self.judge(change, after, result, started);
        let good = matches!(ended.outcome, Outcome::Done | Outcome::Unchanged);
        self.ended.lock().unwrap_or_else(PoisonError::into_inner).insert(change.address.clone(), ended);
        good
    }

    fn judge(
        &self,
        change: &Change,
        after: Option<Hash>,
        result: Result<Applied, ProviderError>,
        started: Instant,
    ) -> Ended {
        let mut ended = Ended { outcome: Outcome::Done, after, unreachable: false, denied: false };
        match result {
            Ok(applied) => {
                let (changed, output) = match applied {
                    Applied::Changed { output } => (true, output),
                    Applied::Unchanged { output } => (false, output),
                };
                if let (Some(hash), Some(output)) = (after, output) {
                    self.execution.recorder.output(&hash, &output);
                    self.outputs.lock().unwrap_or_else(PoisonError::into_inner).insert(hash, output);
                }
                ended.outcome = if changed { Outcome::Done } else { Outcome::Unchanged };
                let millis = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                self.execution.events.emit(Event::Finished { address: change.address.clone(), changed, millis });
            }
            Err(error) => {
                let why = error.to_string();
                let last_lines = error.last_lines().to_vec();
                let address = change.address.clone();
                self.execution.events.emit(Event::Failed { address, why: error.explained(), last_lines });
                ended.unreachable = matches!(error, ProviderError::Unreachable { .. });
                ended.denied = matches!(error, ProviderError::Denied { .. });
                ended.outcome = match error {
                    ProviderError::RolledBack { .. } => Outcome::RolledBack { why },
                    ProviderError::Stale { .. } => Outcome::Stale { why },
                    _ => Outcome::Failed { why },
                };
            }
        }
        ended
    }

    fn report(self) -> Report {
        let mut ended = self.ended.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut report = Report {
            outputs: self.outputs.into_inner().unwrap_or_else(PoisonError::into_inner),
            interrupted: self.execution.stop.load(Ordering::Relaxed),
            ..Report::default()
        };
        for change in &self.execution.plan.changes {
            let end = ended.remove(&change.address).unwrap_or(Ended {
                outcome: Outcome::Skipped,
                after: change.after,
                unreachable: false,
                denied: false,
            });
            report.unreachable |= end.unreachable;
            report.denied |= end.denied;
            report.entries.push(Entry {
                address: change.address.clone(),
                action: change.action,
                reasons: change.reasons.clone(),
                before: change.before,
                after: end.after,
                outcome: end.outcome,
            });
        }
        report
    }
}
