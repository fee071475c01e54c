//! [`World`]: everything outside `fleetctl`, in memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use fleet_apply::{Applied, Event, Events, Provider, ProviderError, Ready};
use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_plan::{Action, Change, Desired, Health, Observed, RoomSpec, RunState, State};

use crate::{Faults, containers::Pair};

/// A shared fake world; clones see the same one.
#[derive(Clone, Default)]
pub struct World(Arc<Mutex<Inner>>);

#[derive(Default)]
pub(crate) struct Inner {
    pub containers: BTreeMap<Address, Pair>,
    /// Volumes by owner: they outlive containers.
    pub memories: BTreeSet<Address>,
    /// Image hashes whose containers never become healthy.
    pub sick: BTreeSet<Hash>,
    values: BTreeMap<Address, Value>,
    outputs: BTreeMap<Hash, String>,
    ids: u64,
    writes: u64,
    faults: Faults,
}

/// An object that is compared by value or by hash and has nothing to run.
struct Value {
    desired: Desired,
    hash: Option<Hash>,
    /// Grows with every change: the compare-and-set token.
    edition: u64,
}

impl Inner {
    pub(crate) fn next_id(&mut self) -> u64 {
        self.ids += 1;
        self.ids
    }
}

impl World {
    /// Sets which writes fail from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.inner().faults = faults;
    }

    /// Containers of this image never become healthy.
    pub fn break_image(&self, image: Hash) {
        self.inner().sick.insert(image);
    }

    /// Somebody removes an object behind our back.
    pub fn vanish(&self, address: &Address) {
        let mut inner = self.inner();
        inner.containers.remove(address);
        inner.values.remove(address);
    }

    /// Somebody stops a container behind our back.
    pub fn stop(&self, address: &Address) {
        if let Some(current) = self.inner().containers.get_mut(address).and_then(|pair| pair.current.as_mut()) {
            current.running = false;
        }
    }

    /// Whose memory is kept.
    #[must_use]
    pub fn memories(&self) -> BTreeSet<Address> {
        self.inner().memories.clone()
    }

    /// How many writes the world has taken.
    #[must_use]
    pub fn writes(&self) -> u64 {
        self.inner().writes
    }

    /// A provider for all kinds of this world.
    #[must_use]
    pub fn provider(&self) -> SimProvider {
        SimProvider { world: self.clone() }
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One write: told first (a killed run dies there), then it may fail, then it happens.
    pub(crate) async fn write<T>(
        &self,
        events: &dyn Events,
        call: &str,
        happen: impl FnOnce(&mut Inner) -> T,
    ) -> Result<T, ProviderError> {
        events.emit(Event::Call { system: "sim".to_owned(), call: call.to_owned(), write: true });
        // Others get their turn between any two writes.
        tokio::task::yield_now().await;
        let mut inner = self.inner();
        let number = inner.writes;
        inner.writes += 1;
        if inner.faults.hits(number) {
            let why = format!("write {number} ({call}) fails, as the test wants");
            return Err(ProviderError::Unreachable { system: "sim".to_owned(), why });
        }
        Ok(happen(&mut inner))
    }
}

/// A [`Provider`] of one [`World`].
pub struct SimProvider {
    pub(crate) world: World,
}

#[async_trait]
impl Provider for SimProvider {
    fn name(&self) -> &'static str {
        "sim"
    }

    fn owns(&self, _: &Address) -> bool {
        true
    }

    async fn observe(&self, wanted: &[Address]) -> Result<State, ProviderError> {
        let inner = self.world.inner();
        let mut state = State { outputs: inner.outputs.clone(), ..State::default() };
        for (address, pair) in &inner.containers {
            state.objects.extend(pair.observed().map(|observed| (address.clone(), observed)));
        }
        for (address, value) in &inner.values {
            state.objects.insert(address.clone(), value.observed());
        }
        for owner in inner.memories.iter().filter(|owner| !wanted.contains(owner)) {
            state.orphans.insert(owner.clone(), format!("the memory of {owner} is kept"));
        }
        Ok(state)
    }

    async fn apply(&self, change: &Change, ready: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        match (&change.desired, change.address.kind) {
            (None, Kind::Service | Kind::Agent) if change.action == Action::Delete => {
                self.delete_container(change, events).await
            }
            (None, _) if change.action == Action::Delete => self.delete_value(change, events).await,
            (Some(Desired::Container(spec)), _) => self.converge(change, spec, ready, events).await,
            (Some(Desired::Image(_)), _) => self.build(change, events).await,
            (Some(Desired::Room(room)), _) => self.room(change, room, events).await,
            (Some(Desired::Account(_) | Desired::Agent(_) | Desired::Directory(_) | Desired::Stack(_)), _) => {
                self.value(change, events).await
            }
            (None, _) => Err(ProviderError::failed(&change.address, "the plan does not say what it should be")),
        }
    }
}

impl Value {
    fn observed(&self) -> Observed {
        let by_value = self.hash.is_none();
        Observed {
            hash: self.hash,
            actual: by_value.then(|| self.desired.clone()),
            run: RunState::Present,
            health: Health::None,
            id: self.edition.to_string(),
            version: self.edition.to_string(),
            unfinished: None,
        }
    }
}

/// Compare and set against what the plan saw.
pub(crate) fn stale(change: &Change, why: &str) -> ProviderError {
    ProviderError::Stale { address: change.address.clone(), why: why.to_owned() }
}

impl SimProvider {
    /// An image is there when its tag is: loading first, tagging last.
    async fn build(&self, change: &Change, events: &dyn Events) -> Result<Applied, ProviderError> {
        let recipe = serde_json::to_vec(&change.desired).unwrap_or_default();
        let output = format!("sim:{}", Hash::of(&recipe));
        let Some(hash) = change.after else { return Err(stale(change, "the plan does not carry its hash")) };
        if self.world.inner().outputs.get(&hash) == Some(&output) {
            return Ok(Applied::Unchanged { output: Some(output) });
        }
        self.world.write(events, "load", |_| ()).await?;
        self.world.write(events, "tag", |inner| inner.outputs.insert(hash, output.clone())).await?;
        Ok(Applied::Changed { output: Some(output) })
    }

    /// Compare and set: what is there is what the plan saw.
    fn expected(&self, change: &Change) -> Result<(), ProviderError> {
        let edition = self.world.inner().values.get(&change.address).map(|value| value.edition);
        match (&change.expect, edition) {
            (None, None) => Ok(()),
            (Some(expected), Some(edition)) if *expected == edition.to_string() => Ok(()),
            _ => Err(stale(change, "another version is there by now, or none")),
        }
    }

    async fn value(&self, change: &Change, events: &dyn Events) -> Result<Applied, ProviderError> {
        let Some(desired) = change.desired.clone() else { return Err(stale(change, "nothing is desired")) };
        if self.world.inner().values.get(&change.address).is_some_and(|value| value.desired == desired) {
            return Ok(Applied::Unchanged { output: None });
        }
        self.expected(change)?;
        self.put(change, desired, events, "put").await?;
        Ok(Applied::Changed { output: None })
    }

    async fn put(
        &self,
        change: &Change,
        desired: Desired,
        events: &dyn Events,
        call: &str,
    ) -> Result<(), ProviderError> {
        let hash = change.after.filter(|_| change.address.kind == Kind::Directory);
        let put = |inner: &mut Inner| {
            let edition = inner.next_id();
            inner.values.insert(change.address.clone(), Value { desired, hash, edition });
        };
        self.world.write(events, call, put).await
    }

    /// A room is created with its settings, then members come one by one: a killed run leaves some outside.
    async fn room(&self, change: &Change, wanted: &RoomSpec, events: &dyn Events) -> Result<Applied, ProviderError> {
        let is = self.world.inner().values.get(&change.address).map(|value| value.desired.clone());
        if is == change.desired {
            return Ok(Applied::Unchanged { output: None });
        }
        self.expected(change)?;
        let mut room = match is {
            Some(Desired::Room(room)) => RoomSpec { members: room.members, ..wanted.clone() },
            _ => RoomSpec { members: BTreeSet::new(), ..wanted.clone() },
        };
        room.members.retain(|member| wanted.members.contains(member));
        self.put(change, Desired::Room(room.clone()), events, "settings").await?;
        for member in &wanted.members {
            if room.members.insert(member.clone()) {
                self.put(change, Desired::Room(room.clone()), events, "join").await?;
            }
        }
        Ok(Applied::Changed { output: None })
    }

    async fn delete_value(&self, change: &Change, events: &dyn Events) -> Result<Applied, ProviderError> {
        if !self.world.inner().values.contains_key(&change.address) {
            return Ok(Applied::Unchanged { output: None });
        }
        self.expected(change)?;
        self.world.write(events, "delete", |inner| inner.values.remove(&change.address)).await?;
        Ok(Applied::Changed { output: None })
    }
}
