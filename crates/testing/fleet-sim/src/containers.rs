//! Containers of the fake world: one writer per volume, a former container until the new one is healthy.
//!
//! Written apart from the real provider on purpose: the contract compares two implementations, not one with itself.

use fleet_apply::{Applied, Events, ProviderError, Ready};
use fleet_derivation::Hash;
use fleet_model::Address;
use fleet_plan::{Change, ContainerSpec, Health, Observed, RunState};

use crate::world::{Inner, SimProvider, stale};

/// One fake container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Container {
    pub id: u64,
    pub hash: Hash,
    pub running: bool,
    /// It was started at least once.
    pub started: bool,
    pub healthy: bool,
}

/// What exists of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair {
    pub current: Option<Container>,
    pub former: Option<Container>,
}

impl Pair {
    fn version(&self) -> String {
        let id = |c: &Option<Container>| c.as_ref().map(|c| c.id.to_string()).unwrap_or_default();
        format!("{}+{}", id(&self.current), id(&self.former))
    }

    fn is_right(&self, hash: Hash) -> bool {
        self.former.is_none() && self.current.as_ref().is_some_and(|c| c.hash == hash && c.running && c.healthy)
    }

    pub(crate) fn observed(&self) -> Option<Observed> {
        let shown = self.current.as_ref().or(self.former.as_ref())?;
        let half_done = self.former.is_some() || !shown.started;
        Some(Observed {
            hash: Some(shown.hash),
            actual: None,
            run: if shown.running { RunState::Running } else { RunState::Stopped },
            health: if shown.running && shown.healthy { Health::Healthy } else { Health::Unhealthy },
            id: shown.id.to_string(),
            version: self.version(),
            unfinished: half_done.then(|| "an earlier apply was interrupted here".to_owned()),
        })
    }
}

/// One container change on its way.
struct Turn<'a> {
    provider: &'a SimProvider,
    address: &'a Address,
    events: &'a dyn Events,
}

impl Turn<'_> {
    fn pair(&self) -> Pair {
        self.provider.world.inner().containers.get(self.address).cloned().unwrap_or_default()
    }

    /// One write on the pair. Two containers running on one volume is a mistake in the provider, never in the test.
    async fn write(&self, call: &str, happen: impl FnOnce(&mut Pair)) -> Result<(), ProviderError> {
        let change = |inner: &mut Inner| {
            let pair = inner.containers.entry(self.address.clone()).or_default();
            happen(pair);
            let runs = |c: &Option<Container>| c.as_ref().is_some_and(|c| c.running);
            assert!(!(runs(&pair.current) && runs(&pair.former)), "two containers run on one volume");
        };
        self.provider.world.write(self.events, call, change).await
    }

    /// Leaves no current container that stands in the way of one with this hash.
    async fn clear(&self, hash: Hash) -> Result<(), ProviderError> {
        let pair = self.pair();
        let Some(current) = &pair.current else { return Ok(()) };
        if !current.started {
            return self.write("remove", |pair| pair.current = None).await;
        }
        if current.hash == hash {
            return Ok(());
        }
        if pair.former.is_some() && !(current.running && current.healthy) {
            return self.write("remove", |pair| pair.current = None).await;
        }
        if pair.former.is_some() {
            self.write("drop former", |pair| pair.former = None).await?;
        }
        self.write("stop", |pair| {
            if let Some(current) = &mut pair.current {
                current.running = false;
            }
        })
        .await?;
        self.write("set aside", |pair| pair.former = pair.current.take()).await
    }

    /// Creates what is missing and starts what stands still; true: it was created.
    async fn raise(&self, hash: Hash, healthy: bool) -> Result<bool, ProviderError> {
        let pair = self.pair();
        if pair.current.is_none() && pair.former.as_ref().is_some_and(|f| f.hash == hash) {
            self.write("restore", |pair| pair.current = pair.former.take()).await?;
        }
        let created = self.pair().current.is_none();
        if created {
            let id = self.provider.world.inner().next_id();
            let new = Container { id, hash, running: false, started: false, healthy };
            self.write("create", |pair| pair.current = Some(new)).await?;
        }
        if self.pair().current.is_some_and(|c| !c.running) {
            self.write("start", |pair| start(&mut pair.current)).await?;
        }
        Ok(created)
    }

    async fn back(&self) -> Result<Applied, ProviderError> {
        let (address, why) = (self.address.clone(), "it does not become healthy".to_owned());
        self.write("remove", |pair| pair.current = None).await?;
        if self.pair().former.is_none() {
            self.provider.world.inner().containers.remove(self.address);
            return Err(ProviderError::failed(&address, why));
        }
        self.write("restore", |pair| pair.current = pair.former.take()).await?;
        self.write("start", |pair| start(&mut pair.current)).await?;
        Err(ProviderError::RolledBack { address, why, last_lines: vec!["the last line of a fake".to_owned()] })
    }
}

fn start(container: &mut Option<Container>) {
    if let Some(container) = container {
        container.running = true;
        container.started = true;
    }
}

impl SimProvider {
    pub(crate) async fn converge(
        &self,
        change: &Change,
        spec: &ContainerSpec,
        ready: &Ready<'_>,
        events: &dyn Events,
    ) -> Result<Applied, ProviderError> {
        let turn = Turn { provider: self, address: &change.address, events };
        let hash = change.derivation.as_ref().map(|d| d.with_outputs(ready.outputs).hash()).or(change.after);
        let Some(hash) = hash else { return Err(stale(change, "the plan does not carry its hash")) };
        let pair = turn.pair();
        if pair.is_right(hash) {
            return Ok(Applied::Unchanged { output: None });
        }
        check_expected(change, &pair)?;
        let healthy = !self.world.inner().sick.contains(&spec.image_hash);
        self.world.inner().memories.insert(change.address.clone());
        turn.clear(hash).await?;
        turn.raise(hash, healthy).await?;
        if turn.pair().current.is_some_and(|c| !c.healthy) {
            return turn.back().await;
        }
        if turn.pair().former.is_some() {
            turn.write("drop former", |pair| pair.former = None).await?;
        }
        Ok(Applied::Changed { output: None })
    }

    pub(crate) async fn delete_container(
        &self,
        change: &Change,
        events: &dyn Events,
    ) -> Result<Applied, ProviderError> {
        let turn = Turn { provider: self, address: &change.address, events };
        let pair = turn.pair();
        if pair == Pair::default() {
            return Ok(Applied::Unchanged { output: None });
        }
        check_expected(change, &pair)?;
        turn.write("remove", |pair| *pair = Pair::default()).await?;
        Ok(Applied::Changed { output: None })
    }
}

/// The plan was made against one of the containers that are here.
fn check_expected(change: &Change, pair: &Pair) -> Result<(), ProviderError> {
    let here: Vec<String> = [&pair.current, &pair.former].into_iter().flatten().map(|c| c.id.to_string()).collect();
    let known = |version: &String| version.split('+').any(|id| here.iter().any(|h| h == id));
    match &change.expect {
        None if here.is_empty() => Ok(()),
        Some(version) if known(version) => Ok(()),
        Some(_) => Err(stale(change, "its container was replaced by another one")),
        None => Err(stale(change, "a container exists by now")),
    }
}
