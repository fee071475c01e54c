//! [`DockerProvider`]: services, agents and the directory on one container engine.

use std::collections::BTreeSet;

use async_trait::async_trait;
use fleet_apply::{Applied, Events, Provider, ProviderError, Ready, Scope, Silent};
use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_plan::{Action, Change, ContainerSpec, Desired, State};

use crate::{
    Engine,
    calls::Calls,
    directory, labels, observe,
    recover::{Pair, steps},
    roll::Roll,
};

/// Containers, volumes and the network of one fleet and environment.
pub struct DockerProvider {
    pub(crate) engine: Engine,
    pub(crate) scope: Scope,
    /// Names of the operator's secrets that are set.
    given: BTreeSet<String>,
    /// One at a time looks for the network and makes it: an engine may allow two of one name.
    network: tokio::sync::Mutex<()>,
}

impl DockerProvider {
    /// A provider for one scope.
    #[must_use]
    pub fn new(engine: Engine, scope: Scope) -> Self {
        Self { engine, scope, given: BTreeSet::new(), network: tokio::sync::Mutex::new(()) }
    }

    /// The same, knowing the names of the operator's secrets that are set: what was made without one of them is made anew.
    #[must_use]
    pub fn with_given(mut self, names: BTreeSet<String>) -> Self {
        self.given = names;
        self
    }

    /// Names of the operator's secrets that containers of the scope were made without; `None` where there is no container
    /// to tell. Read-only, one call.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn made_without(&self) -> Result<Option<BTreeSet<String>>, ProviderError> {
        let list = self.calls(&Silent).list(&self.scope, None).await.map_err(crate::EngineError::anywhere)?;
        let all = list.iter().map(|container| observe::sorted(container.labels.as_ref()));
        let agents: Vec<_> =
            all.filter(|all| labels::address(all).is_some_and(|address| address.kind == Kind::Agent)).collect();
        let names = agents.iter().flat_map(labels::without).map(str::to_owned).collect();
        Ok((!agents.is_empty()).then_some(names))
    }

    /// The engine it works on.
    #[must_use]
    pub const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The name of an address's container.
    #[must_use]
    pub fn container_name(&self, address: &Address) -> String {
        observe::container_name(&self.scope, address)
    }

    pub(crate) fn calls<'a>(&'a self, events: &'a dyn Events) -> Calls<'a> {
        Calls { engine: &self.engine, events }
    }

    async fn ensure_network(&self, calls: Calls<'_>, address: &Address) -> Result<(), ProviderError> {
        let _one_at_a_time = self.network.lock().await;
        calls.ensure_network(&self.scope).await.map_err(|e| e.at(address))
    }

    /// The containers of one address as they are now.
    async fn pair(&self, calls: Calls<'_>, address: &Address) -> Result<Pair, ProviderError> {
        let list = calls.list(&self.scope, Some(address)).await.map_err(|e| e.at(address))?;
        Ok(observe::pairs(&self.scope, &list, &self.given).remove(address).unwrap_or_default())
    }

    async fn converge(
        &self,
        change: &Change,
        spec: &ContainerSpec,
        ready: &Ready<'_>,
        events: &dyn Events,
    ) -> Result<Applied, ProviderError> {
        let address = &change.address;
        let calls = self.calls(events);
        let hash = final_hash(change, ready)?;
        let pair = self.pair(calls, address).await?;
        let steps = steps(&pair, hash);
        if !steps.iter().any(|s| s.writes()) && pair.current.as_ref().is_some_and(crate::recover::Present::serves) {
            return Ok(Applied::Unchanged { output: None });
        }
        let mut image_id = None;
        if steps.iter().any(|s| s.writes()) {
            check_expected(change, &pair)?;
            // Resolved before anything is stopped: a missing image must not cost a running container.
            image_id = Some(self.image_id(calls, address, (&spec.image, spec.image_hash)).await?);
            self.ensure_network(calls, address).await?;
        }
        let roll = Roll {
            calls,
            scope: &self.scope,
            address,
            spec,
            hash,
            image_id,
            ready,
            name: self.container_name(address),
            current: None,
            former: None,
            made: false,
        };
        roll.run(pair, &steps).await
    }

    /// The id of an image of the fleet, by its address and derivation hash.
    pub(crate) async fn image_id(
        &self,
        calls: Calls<'_>,
        address: &Address,
        (image, hash): (&Address, Hash),
    ) -> Result<String, ProviderError> {
        let tag = crate::images::tag(&self.scope.fleet, &image.name, hash);
        calls.note("GET /images/{tag}/json", false);
        let id = self.engine.inspect_id(&tag).await.map_err(|e| e.at(address))?;
        id.ok_or_else(|| {
            let help =
                format!("`fleetctl build {image}` makes it; `apply` does so by itself when the plan has {image}");
            ProviderError::failed(address, format!("its image {tag} is not on the engine")).help(help)
        })
    }

    async fn delete(&self, change: &Change, events: &dyn Events) -> Result<Applied, ProviderError> {
        let calls = self.calls(events);
        let pair = self.pair(calls, &change.address).await?;
        if pair == Pair::default() {
            return Ok(Applied::Unchanged { output: None });
        }
        check_expected(change, &pair)?;
        for container in [pair.current, pair.former].into_iter().flatten() {
            calls.stop(&container.id, None).await.map_err(|e| e.at(&change.address))?;
            calls.remove(&container.id).await.map_err(|e| e.at(&change.address))?;
        }
        Ok(Applied::Changed { output: None })
    }
}

#[async_trait]
impl Provider for DockerProvider {
    fn name(&self) -> &'static str {
        "docker"
    }

    fn owns(&self, address: &Address) -> bool {
        matches!(address.kind, Kind::Service | Kind::Agent | Kind::Directory)
    }

    async fn observe(&self, wanted: &[Address]) -> Result<State, ProviderError> {
        let calls = self.calls(&Silent);
        let containers = calls.list(&self.scope, None).await.map_err(crate::EngineError::anywhere)?;
        let volumes = calls.volumes(&self.scope).await.map_err(crate::EngineError::anywhere)?;
        let seen = observe::Seen { scope: &self.scope, containers: &containers, volumes: &volumes, given: &self.given };
        Ok(observe::state(&seen, wanted))
    }

    async fn apply(&self, change: &Change, ready: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        match (change.address.kind, &change.desired) {
            (Kind::Service | Kind::Agent, None) if change.action == Action::Delete => self.delete(change, events).await,
            (Kind::Service | Kind::Agent, Some(Desired::Container(spec))) => {
                self.converge(change, spec, ready, events).await
            }
            (Kind::Directory, None) if change.action == Action::Delete => {
                directory::remove(&self.scope, self.calls(events), change).await
            }
            (Kind::Directory, Some(Desired::Directory(spec))) => {
                let hash = final_hash(change, ready)?;
                let calls = self.calls(events);
                let image = self.image_id(calls, &change.address, (&spec.image, spec.image_hash));
                directory::deliver(&self.scope, calls, (change, spec, hash), image).await
            }
            _ => {
                let why = format!(
                    "the docker provider cannot {} this: the plan does not say what it should be",
                    change.action
                );
                let help = "this is a mistake in fleetctl: please report it with the plan";
                Err(ProviderError::failed(&change.address, why).help(help))
            }
        }
    }
}

/// The hash that the container will carry: the planned one, or, where an image's output was unknown then, the one
/// that follows from the output that is known now.
fn final_hash(change: &Change, ready: &Ready<'_>) -> Result<Hash, ProviderError> {
    let failed = |why: String| ProviderError::failed(&change.address, why);
    if let Some(derivation) = change.derivation.as_ref().filter(|d| d.pending().next().is_some()) {
        let known = derivation.with_outputs(ready.outputs);
        return match known.pending().next() {
            None => Ok(known.hash()),
            Some(image) => Err(failed(format!("{image}, which it runs, has not been built"))),
        };
    }
    change.after.ok_or_else(|| failed("the plan does not carry its hash".to_owned()))
}

/// Compare and set: the plan must have been made against one of the containers that are here now. An interrupted roll
/// moves the planned one from current to former, so both count.
pub(crate) fn check_expected(change: &Change, pair: &Pair) -> Result<(), ProviderError> {
    let stale = |why: &str| Err(ProviderError::Stale { address: change.address.clone(), why: why.to_owned() });
    let here: Vec<&str> = [&pair.current, &pair.former].into_iter().flatten().map(|p| p.id.as_str()).collect();
    match &change.expect {
        None if here.is_empty() => Ok(()),
        None => stale("a container exists by now"),
        Some(_) if here.is_empty() => stale("its container is gone"),
        Some(version) if version.split('+').any(|id| !id.is_empty() && here.contains(&id)) => Ok(()),
        Some(_) => stale("its container was replaced by another one"),
    }
}
