//! Generations: what an apply did ([`applied`]), and what one did that was killed before it could say so ([`catch_up`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{SystemTime, UNIX_EPOCH},
};

use fleet_apply::Report;
use fleet_derivation::{Derivation, Hash, Input};
use fleet_model::{Address, Kind};
use fleet_plan::{Action, Entry, Generation, Outcome, Reason, SCHEMA};
use fleet_planner::Known;
use fleet_store::{GenerationError, History, Holder, Store};

use super::{Planned, Prepared, known, unwritable};
use crate::{error::Failure, exit::Exit};

/// Objects and the hashes of what they derive from.
type Objects = BTreeMap<Address, Hash>;

/// Records what stands and no generation knows of: an apply that was killed made it. Without this, `why` could not explain
/// it, `plan --offline` would find it due, and nothing would keep it from `gc`. Nothing is written when all is recorded.
///
/// # Errors
/// A store that cannot be read or written.
pub async fn catch_up(prepared: &Prepared, planned: &Planned, history: &dyn History) -> Result<(), Failure> {
    let (store, instance) = (&prepared.opened.store, &planned.instance);
    let outputs = &planned.state.outputs;
    let last = last_objects(prepared)?;
    let stands = standing(planned, &last, outputs);
    let mut known = known(store, instance, last.values().chain(stands.values()).copied());
    for derivation in instance.graph.iter() {
        let whole = derivation.with_outputs(outputs);
        known.insert(whole.hash(), whole);
    }
    let entries = unrecorded(store, &stands, &last, &known);
    if entries.is_empty() {
        return Ok(());
    }
    store.put_hashed(known.values()).map_err(|error| unwritable(&error))?;
    let number = history.numbers().await.map_err(|error| unrecordable(&error))?.last().map_or(1, |last| last + 1);
    let generation = Generation { number, entries, ..of(prepared, planned, stands, outputs) };
    match history.write(&generation, &news(&generation, &last, &known)).await {
        // Somebody else recorded something this moment; what they did not is caught up with next time.
        Ok(()) | Err(GenerationError::Taken { .. }) => Ok(()),
        Err(error) => Err(unrecordable(&error)),
    }
}

/// Records what an apply did: what was right already, what was done, and of the rest what it was before.
///
/// `planned` is the whole plan, also where only a part of it was carried out. What changed nothing is not recorded.
///
/// # Errors
/// A store that cannot be read or written.
pub async fn applied(
    prepared: &Prepared,
    planned: &Planned,
    report: &Report,
    history: &dyn History,
) -> Result<(), Failure> {
    let last = last_objects(prepared)?;
    let mut objects = standing(planned, &last, &report.outputs);
    for entry in report.entries.iter().filter(|one| matches!(one.outcome, Outcome::Done | Outcome::Unchanged)) {
        match entry.after {
            Some(hash) => objects.insert(entry.address.clone(), hash),
            None => objects.remove(&entry.address),
        };
    }
    if report.count(|outcome| matches!(outcome, Outcome::Done)) == 0 && objects == last {
        return Ok(());
    }
    let generation = Generation { entries: report.entries.clone(), ..of(prepared, planned, objects, &report.outputs) };
    let known = known(&prepared.opened.store, &planned.instance, generation.objects.values().copied());
    let news = news(&generation, &last, &known);
    let appended = fleet_store::append(history, generation, &news).await;
    appended.map(drop).map_err(|error| unrecordable(&error))
}

/// What the objects of a generation derive from and those of the last one did not: whoever reads all generations has all.
fn news(generation: &Generation, last: &Objects, known: &Known) -> Vec<Derivation> {
    let before = closure(last.values().copied(), known);
    let hashes = closure(generation.objects.values().copied(), known);
    hashes.difference(&before).filter_map(|hash| known.get(hash)).map(|known| known.derivation().clone()).collect()
}

/// Hashes with everything that they derive from, as far as that is known.
fn closure(hashes: impl Iterator<Item = Hash>, known: &Known) -> BTreeSet<Hash> {
    let mut waiting: Vec<Hash> = hashes.collect();
    let mut found = BTreeSet::new();
    while let Some(hash) = waiting.pop() {
        if found.insert(hash) {
            waiting.extend(known.get(&hash).into_iter().flat_map(|one| one.inputs.values()).filter_map(|input| {
                match input {
                    Input::Derivation { hash, .. } => Some(*hash),
                    _ => None,
                }
            }));
        }
    }
    found
}

fn last_objects(prepared: &Prepared) -> Result<Objects, Failure> {
    Ok(prepared.last_generation()?.map(|generation| generation.objects).unwrap_or_default())
}

/// What stands without anything of the plan being done. What is due is what it was before.
fn standing(planned: &Planned, last: &Objects, outputs: &BTreeMap<Hash, String>) -> Objects {
    let instance = &planned.instance;
    let due: BTreeMap<&Address, Option<Hash>> =
        planned.plan.changes.iter().map(|change| (&change.address, change.before)).collect();
    let declared = instance.desired.keys().filter_map(|address| {
        let hash = match due.get(address) {
            Some(before) => (*before)?,
            None => instance.graph.get(address)?.with_outputs(outputs).hash(),
        };
        Some((address.clone(), hash))
    });
    let mut stands: Objects = declared.collect();
    // What is declared nowhere stands until it is removed. An account carries no hash: the last generation knows it.
    for (address, before) in due.into_iter().filter(|(address, _)| !instance.desired.contains_key(*address)) {
        stands.extend(before.or_else(|| last.get(address).copied()).map(|hash| (address.clone(), hash)));
    }
    let unseen =
        last.iter().filter(|(address, _)| !instance.desired.contains_key(*address) && !was_seen(planned, address));
    for (address, hash) in unseen {
        stands.entry(address.clone()).or_insert(*hash);
    }
    stands
}

/// Whether this would be in the state if it were there. Rooms and images that nobody declares are nobody's to remove, and
/// are forgotten here.
fn was_seen(planned: &Planned, address: &Address) -> bool {
    forgotten(address) || (planned.whole && planned.state.unseen.is_empty())
}

const fn forgotten(address: &Address) -> bool {
    matches!(address.kind, Kind::Room | Kind::Image)
}

/// What stands and what is gone, beside what the last generation left, as changes that were made.
fn unrecorded(store: &Store, stands: &Objects, last: &Objects, known: &Known) -> Vec<Entry> {
    let made = stands.iter().filter(|(address, hash)| last.get(*address) != Some(*hash)).map(|(address, hash)| {
        let before = last.get(address).copied();
        let (action, reasons) = match (before, address.kind) {
            (None, _) => (Action::Create, first_reasons(store, hash)),
            (Some(before), Kind::Agent | Kind::Service) => (Action::Roll, reasons(&before, hash, known)),
            (Some(before), _) => (Action::Update, reasons(&before, hash, known)),
        };
        Entry { address: address.clone(), action, reasons, before, after: Some(*hash), outcome: Outcome::Done }
    });
    let gone = last.iter().filter(|(address, _)| !stands.contains_key(*address) && !forgotten(address));
    let gone = gone.map(|(address, hash)| Entry {
        address: address.clone(),
        action: Action::Delete,
        reasons: vec![Reason::Unwanted],
        before: Some(*hash),
        after: None,
        outcome: Outcome::Done,
    });
    made.chain(gone).collect()
}

/// An apply from here stores a derivation before anything carries its hash; another checkout's is not in this store.
fn first_reasons(store: &Store, hash: &Hash) -> Vec<Reason> {
    match store.derivation(hash) {
        Ok(Some(_)) => vec![Reason::Missing],
        _ => vec![Reason::Unknown],
    }
}

fn reasons(before: &Hash, after: &Hash, known: &Known) -> Vec<Reason> {
    let found = match (known.get(before), known.get(after)) {
        (Some(before), Some(after)) => fleet_planner::reasons(before, after, known),
        _ => Vec::new(),
    };
    if found.is_empty() { vec![Reason::Unknown] } else { found }
}

/// A generation of these objects, with the outputs that they use.
fn of(prepared: &Prepared, planned: &Planned, objects: Objects, outputs: &BTreeMap<Hash, String>) -> Generation {
    let instance = &planned.instance;
    let derivations = instance.desired.keys().filter_map(|address| instance.graph.get(address));
    let used = derivations.filter_map(|one| Some((one.hash(), outputs.get(&one.hash())?.clone())));
    let by = Holder::this_process(crate::machine::user(), "");
    Generation {
        schema: SCHEMA,
        number: 0, // given by the store
        environment: prepared.scope.environment.clone(),
        finished: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        who: Some(by.who),
        host: Some(by.host),
        objects,
        outputs: used.collect(),
        entries: Vec::new(),
    }
}

fn unrecordable(error: &GenerationError) -> Failure {
    Failure::caused(Exit::Failed, "what was applied cannot be recorded", error)
        .hint("what was made stays made; the next apply records it")
}
