//! The planner: (graph, desired objects, state, former derivations) → [`Plan`]. Synchronous, total, without effects.
//!
//! Deliberately absent: effects, clocks, choices at execution time, and any knowledge of which target it plans for.

mod drift;
mod stack;
pub mod verify;
mod why;

pub use drift::drift;
pub use why::{Known, reasons};

use std::collections::BTreeMap;

use fleet_derivation::{Derivation, DerivationGraph, Hash, Hashed};
use fleet_model::{Address, Kind};
use fleet_plan::{
    Action, Change, Desired, Health, Note, Observed, Plan, Reason, ResourceChange, RunState, SCHEMA, State,
};
use fleet_stacks::agent_service::{REGISTRATIONS, least_seconds};

/// What takes less than this is not worth a word.
const TELL_SECONDS: u64 = 60;

/// What a plan is made from.
pub struct Planning<'a> {
    /// Fleet name.
    pub fleet: &'a str,
    /// Environment name.
    pub environment: &'a str,
    /// What should be, as derivations.
    pub graph: &'a DerivationGraph,
    /// What should be, as objects; every address is also in the graph.
    pub desired: &'a BTreeMap<Address, Desired>,
    /// What is.
    pub state: &'a State,
    /// Derivations of the store and of the graph, by hash.
    pub known: &'a Known,
    /// What each address derived from at the last generation.
    pub last: &'a BTreeMap<Address, Hash>,
}

/// Makes the plan.
#[must_use]
pub fn plan(planning: &Planning<'_>) -> Plan {
    let mut changes: Vec<Change> = Vec::new();
    let mut unchanged = 0;
    for (address, desired) in planning.desired {
        let Some(derivation) = planning.graph.get(address) else { continue };
        let derivation = derivation.with_outputs(&planning.state.outputs);
        match planning.judge(address, desired, &derivation) {
            None => unchanged += 1,
            Some(verdict) => changes.push(planning.change(address, verdict, Some((desired, derivation)))),
        }
    }
    for (address, observed) in &planning.state.objects {
        // Rooms nobody declares are only listed: what was said in them is not ours to remove.
        if !planning.desired.contains_key(address) && !matches!(address.kind, Kind::Room | Kind::Image) {
            let verdict = Verdict::new(Action::Delete, vec![Reason::Unwanted]);
            changes.push(Change { before: observed.hash, ..planning.change(address, verdict, None) });
        }
    }
    let services = changes.iter().filter(|change| matches!(change.desired, Some(Desired::Agent(_)))).count();
    let notes = planning.notes().into_iter().chain(slow(services as u64)).collect();
    changes.sort_by(|a, b| (a.action == Action::Delete, &a.address).cmp(&(b.action == Action::Delete, &b.address)));
    Plan {
        schema: SCHEMA,
        fleet: planning.fleet.to_owned(),
        environment: planning.environment.to_owned(),
        graph: planning.graph.hash(),
        changes,
        unchanged,
        notes,
    }
}

/// Agents on AWS so many that AWS's rates are felt.
fn slow(agents: u64) -> Option<Note> {
    let seconds = least_seconds(agents);
    (seconds >= TELL_SECONDS).then(|| Note {
        address: None,
        text: format!(
            "{agents} agents take at least {} minutes: AWS registers {} task definitions at once, and then {} a second",
            seconds.div_ceil(60),
            REGISTRATIONS.0,
            REGISTRATIONS.1
        ),
    })
}

struct Verdict {
    action: Action,
    if_changed: bool,
    reasons: Vec<Reason>,
    resources: Vec<ResourceChange>,
}

impl Verdict {
    const fn new(action: Action, reasons: Vec<Reason>) -> Self {
        Self { action, if_changed: false, reasons, resources: Vec::new() }
    }

    const fn conditional(mut self) -> Self {
        self.if_changed = true;
        self
    }
}

impl Planning<'_> {
    fn judge(&self, address: &Address, desired: &Desired, derivation: &Hashed) -> Option<Verdict> {
        let observed = self.state.objects.get(address);
        if let (Desired::Stack(spec), Some(deployed)) = (desired, self.state.stacks.get(address)) {
            return self.judge_stack(address, spec, derivation, deployed);
        }
        match address.kind {
            Kind::Image => self.judge_image(address, derivation),
            Kind::Account | Kind::Room => self.judge_by_value(address, desired, derivation, observed),
            _ => self.judge_by_hash(address, desired, (derivation, observed)),
        }
    }

    fn judge_image(&self, address: &Address, derivation: &Hashed) -> Option<Verdict> {
        if self.state.outputs.contains_key(&derivation.hash()) {
            return None;
        }
        Some(match self.last.get(address) {
            None => Verdict::new(Action::Create, vec![Reason::Missing]),
            Some(before) if *before == derivation.hash() => Verdict::new(
                Action::Create,
                vec![Reason::Drift { what: "it is gone from the container engine".to_owned() }],
            ),
            Some(before) => Verdict::new(Action::Update, self.reasons(Some(*before), derivation)),
        })
    }

    fn judge_by_value(
        &self,
        address: &Address,
        desired: &Desired,
        derivation: &Hashed,
        observed: Option<&Observed>,
    ) -> Option<Verdict> {
        let last = self.last.get(address).copied();
        let Some(observed) = observed else {
            let verdict = match last {
                Some(_) if !self.state.unseen.is_empty() => Verdict::new(
                    Action::Update,
                    vec![Reason::Drift { what: "the homeserver does not answer, so it could not be seen".to_owned() }],
                ),
                Some(_) => Verdict::new(
                    Action::Create,
                    vec![Reason::Drift { what: "it is gone from the homeserver".to_owned() }],
                ),
                None => Verdict::new(Action::Create, vec![Reason::Missing]),
            };
            return Some(if self.state.unseen.is_empty() { verdict } else { verdict.conditional() });
        };
        let mut reasons: Vec<Reason> = Vec::new();
        let differences = match &observed.actual {
            Some(actual) => drift(actual, desired),
            // Known only from the last generation: its hash is all there is to compare.
            None if observed.hash == Some(derivation.hash()) => Vec::new(),
            None => vec!["it derives from other inputs".to_owned()],
        };
        if differences.is_empty() && observed.unfinished.is_none() {
            return None;
        }
        if last.is_some_and(|last| last != derivation.hash()) {
            reasons.extend(self.reasons(last, derivation));
        }
        // Declared changes show up as differences too; they are drift only where nothing was declared.
        if reasons.is_empty() {
            reasons.extend(differences.into_iter().map(|what| Reason::Drift { what }));
        }
        reasons.extend(observed.unfinished.iter().map(|what| Reason::Drift { what: what.clone() }));
        Some(Verdict::new(Action::Update, reasons))
    }

    fn judge_by_hash(
        &self,
        address: &Address,
        desired: &Desired,
        (derivation, observed): (&Hashed, Option<&Observed>),
    ) -> Option<Verdict> {
        let Some(observed) = observed else {
            let reason = match self.last.get(address) {
                Some(_) if matches!(desired, Desired::Container(_)) => {
                    Reason::Drift { what: "it is gone from the container engine".to_owned() }
                }
                Some(_) => Reason::Drift { what: "it is gone".to_owned() },
                None => Reason::Missing,
            };
            return Some(Verdict::new(Action::Create, vec![reason]));
        };
        let in_place = match address.kind {
            Kind::Directory | Kind::Stack => Action::Update,
            _ => Action::Roll,
        };
        if observed.hash != Some(derivation.hash()) {
            let reasons = match (observed.hash, &observed.unfinished) {
                (None, Some(what)) => vec![Reason::Drift { what: what.clone() }],
                (hash, _) => self.reasons(hash, derivation),
            };
            let verdict = Verdict::new(in_place, reasons);
            return Some(if derivation.pending().next().is_some() { verdict.conditional() } else { verdict });
        }
        let what = match (&observed.unfinished, observed.run, observed.health) {
            (Some(unfinished), ..) => return Some(drifted(Action::Update, unfinished)),
            (None, RunState::Stopped, _) => return Some(drifted(Action::Update, "it is stopped")),
            (None, _, Health::Unhealthy) => "it is unhealthy",
            _ => return None,
        };
        Some(drifted(in_place, what))
    }

    fn reasons(&self, before: Option<Hash>, after: &Derivation) -> Vec<Reason> {
        match before.and_then(|hash| self.known.get(&hash)) {
            None => vec![Reason::Unknown],
            Some(before) => {
                let found = reasons(before, after, self.known);
                if found.is_empty() { vec![Reason::Unknown] } else { found }
            }
        }
    }

    fn change(&self, address: &Address, verdict: Verdict, wanted: Option<(&Desired, Hashed)>) -> Change {
        let observed = self.state.objects.get(address);
        let (desired, derivation) = wanted.unzip();
        Change {
            address: address.clone(),
            action: verdict.action,
            if_changed: verdict.if_changed,
            reasons: verdict.reasons,
            before: observed.and_then(|o| o.hash).or_else(|| self.last.get(address).copied()),
            after: derivation.as_ref().map(Hashed::hash),
            expect: observed.map(|o| o.version.clone()),
            desired: desired.cloned(),
            derivation: derivation.map(|derivation| derivation.derivation().clone()),
            resources: verdict.resources,
        }
    }

    fn notes(&self) -> Vec<Note> {
        let unseen = self.state.unseen.iter().map(|text| Note { address: None, text: text.clone() });
        let orphans = self
            .state
            .orphans
            .iter()
            .map(|(address, text)| Note { address: Some(address.clone()), text: text.clone() });
        let rooms = self
            .state
            .objects
            .keys()
            .filter(|address| address.kind == Kind::Room && !self.desired.contains_key(address))
            .map(|address| Note {
                address: Some(address.clone()),
                text: "is declared nowhere any more; its history is kept".to_owned(),
            });
        unseen.chain(orphans).chain(rooms).collect()
    }
}

fn drifted(action: Action, what: &str) -> Verdict {
    Verdict::new(action, vec![Reason::Drift { what: what.to_owned() }])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_awss_rates_take_is_told_of_many_agents_only() {
        assert_eq!(slow(50), None);
        let note = slow(1000).map(|note| note.text).unwrap_or_default();
        assert!(note.starts_with("1000 agents take at least 17 minutes"), "{note}");
    }
}
