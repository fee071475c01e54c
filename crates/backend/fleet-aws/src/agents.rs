//! [`AgentProvider`]: agents on AWS, each an ECS service of its own with its own role, folder, parameters and bundle.
//!
//! A run may end at any call: everything is found again by its name, its tags or what it holds, and the service is what says
//! that an agent is there, so that it is made last and removed last. The family of its task definition carries the hash of
//! the agent's derivation: naming another one in the service is the one step that changes an agent.

mod make;
mod observe;
mod remove;
mod wait;

use std::{collections::BTreeMap, time::Duration};

use async_trait::async_trait;
use fleet_apply::{Applied, Event, Events, Provider, ProviderError, Ready, Scope};
use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_plan::{Action, Change, Desired, State};
use fleet_secret::{FleetSecret, Secret};
use fleet_stacks::agent_service::{SERVICE_PREFIX, ecs_id};
use futures::{StreamExt as _, stream};
use tokio::sync::OnceCell;

use crate::{
    account::Account,
    error::AwsError,
    pauses::Pauses,
    secrets::{SECRET_OUTPUT, SecretError},
    services::Running,
    teardown::told,
};

/// Agents that are removed at once.
const REMOVED_AT_ONCE: usize = 16;
/// A service without tasks is gone within moments.
const DRAINED_WITHIN: Duration = Duration::from_secs(300);

/// Agents of one environment.
pub struct AgentProvider {
    account: Account,
    scope: Scope,
    /// Read once per run, when the first agent is made: all stacks are in place by then.
    outputs: OnceCell<Outputs>,
    secret: OnceCell<FleetSecret>,
}

/// Outputs of the environment's stacks, and of the one with the repositories.
type Outputs = BTreeMap<String, String>;

impl AgentProvider {
    /// For one environment.
    #[must_use]
    pub const fn new(account: Account, scope: Scope) -> Self {
        Self { account, scope, outputs: OnceCell::const_new(), secret: OnceCell::const_new() }
    }

    /// Removes every agent that has a service, many at once, and waits until their services are gone. Folders stay.
    ///
    /// # Errors
    /// The first that could not be removed; the others are tried all the same.
    pub(crate) async fn remove_all(&self, events: &dyn Events) -> Result<(), ProviderError> {
        let about = Address::new(Kind::Agent, "*");
        let present = self.present().await.map_err(|error| error.about(&about))?;
        let removed = stream::iter(present.iter().map(|(address, seen)| async move {
            let change = removal(address.clone(), seen.version.clone());
            let (known, given) = (BTreeMap::new(), BTreeMap::new());
            let doing = self.doing(&change, (&known, &given), events);
            let removed = async {
                let applied = doing.remove().await?;
                until_drained(address, async || Ok(doing.look().await?.is_none())).await?;
                Ok(matches!(applied, Applied::Changed { .. }))
            };
            told(events, address, removed).await.map(drop)
        }));
        let ends: Vec<Result<(), ProviderError>> = removed.buffer_unordered(REMOVED_AT_ONCE).collect().await;
        ends.into_iter().collect::<Result<(), _>>()?;
        // And those that an interrupted run removed.
        let none = async || Ok(self.services().await.map_err(|error| error.about(&about))?.is_empty());
        until_drained(&about, none).await
    }

    fn doing<'a>(
        &'a self,
        change: &'a Change,
        (known, given): (&'a BTreeMap<Hash, String>, &'a BTreeMap<String, Secret>),
        events: &'a dyn Events,
    ) -> Doing<'a> {
        let service = format!("{SERVICE_PREFIX}{}", ecs_id(&change.address.name));
        Doing { provider: self, change, known, given, events, cluster: self.scope.whole(), service }
    }

    /// What the stacks say of where agents go.
    async fn read_outputs(&self) -> Result<Outputs, AwsError> {
        let environment = &self.scope.environment;
        let mut all = Outputs::new();
        for stack in [fleet_stacks::SHARED, &fleet_stacks::data_stack(environment), environment] {
            all.extend(self.account.outputs_of(&self.scope, stack).await?);
        }
        Ok(all)
    }
}

#[async_trait]
impl Provider for AgentProvider {
    fn name(&self) -> &'static str {
        "agents"
    }

    fn owns(&self, address: &Address) -> bool {
        address.kind == Kind::Agent
    }

    async fn observe(&self, wanted: &[Address]) -> Result<State, ProviderError> {
        self.look_around(wanted).await.map_err(|error| error.about(&Address::new(Kind::Agent, "*")))
    }

    async fn apply(&self, change: &Change, ready: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        let doing = self.doing(change, (ready.outputs, &ready.secrets.operator), events);
        match &change.desired {
            Some(Desired::Agent(spec)) => doing.make(spec).await,
            None => doing.remove().await,
            Some(_) => Err(doing.failed("the plan has something else than an agent for it")),
        }
    }
}

/// Waits until a service is gone for good: as long as one is there, its cluster cannot be removed.
async fn until_drained(
    about: &Address,
    gone: impl AsyncFn() -> Result<bool, ProviderError>,
) -> Result<(), ProviderError> {
    let mut pauses = Pauses::within(DRAINED_WITHIN);
    while !gone().await? {
        if !pauses.pause().await {
            let failed = ProviderError::failed(about, "its service is still being removed");
            return Err(failed.help("run the same command again"));
        }
    }
    Ok(())
}

fn removal(address: Address, expect: String) -> Change {
    Change {
        address,
        action: Action::Delete,
        if_changed: false,
        reasons: Vec::new(),
        before: None,
        after: None,
        expect: Some(expect),
        desired: None,
        derivation: None,
        resources: Vec::new(),
    }
}

/// One change of one agent.
struct Doing<'a> {
    provider: &'a AgentProvider,
    change: &'a Change,
    /// What derivations are known to give.
    known: &'a BTreeMap<Hash, String>,
    /// Secrets that the operator gives.
    given: &'a BTreeMap<String, Secret>,
    events: &'a dyn Events,
    cluster: String,
    service: String,
}

impl Doing<'_> {
    const fn account(&self) -> &Account {
        &self.provider.account
    }

    fn agent(&self) -> &str {
        &self.change.address.name
    }

    async fn outputs(&self) -> Result<&Outputs, ProviderError> {
        let read = self.provider.outputs.get_or_try_init(|| self.provider.read_outputs()).await;
        read.map_err(|error| self.aws(error))
    }

    async fn fleet_secret(&self) -> Result<&FleetSecret, ProviderError> {
        let Some(arn) = self.outputs().await?.get(SECRET_OUTPUT) else {
            return Err(self
                .failed("the fleet secret is not there")
                .help("apply the whole environment: its data stack has it"));
        };
        let read = self.provider.secret.get_or_try_init(|| self.account().fleet_secret(arn)).await;
        read.map_err(|error| self.secret_error(error))
    }

    /// The service as it is.
    async fn look(&self) -> Result<Option<Running>, ProviderError> {
        let found = self.account().describe(&self.cluster, std::slice::from_ref(&self.service)).await;
        Ok(found.map_err(|error| self.aws(error))?.into_iter().next())
    }

    fn progress(&self, what: impl Into<String>) {
        self.events.emit(Event::Progress { address: self.change.address.clone(), what: what.into() });
    }

    fn aws(&self, error: AwsError) -> ProviderError {
        error.about(&self.change.address)
    }

    fn secret_error(&self, error: SecretError) -> ProviderError {
        match error {
            SecretError::Aws(error) => self.aws(error),
            error => self.failed(error.to_string()),
        }
    }

    fn failed(&self, why: impl Into<String>) -> ProviderError {
        ProviderError::failed(&self.change.address, why)
    }

    fn stale(&self, why: &str) -> ProviderError {
        ProviderError::Stale { address: self.change.address.clone(), why: why.to_owned() }
    }
}
