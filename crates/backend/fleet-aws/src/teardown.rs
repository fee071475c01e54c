//! [`Teardown`]: an environment removed, for `destroy`; with its data when it is asked for.
//!
//! A run may end at any call, and the next one goes on: everything is found again by what is left of it. So agents go before
//! the stack that they run in, and data before the stack that says which data it is.

use fleet_apply::{Event, Events, ProviderError, Scope};
use fleet_model::{Address, Kind};
use fleet_plan::Action;
use fleet_stacks::{BOOTSTRAP, SHARED, data_stack, parameters_below, role_path};
use futures::future::try_join_all;

use crate::{
    account::Account, agents::AgentProvider, bucket::BUCKET_OUTPUT, definitions::Registered, error::AwsError,
    secrets::SECRET_OUTPUT,
};

/// Outputs of the data stack that name its file system and its vault.
const FILE_SYSTEM: &str = "FileSystemId";
const VAULT: &str = "BackupVaultName";

/// Something that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Thing {
    /// What it is: `agent`, `stack`, `bucket`, `parameters`, `role`, `task-definitions`, `file-system`, `vault`, `secret`
    /// or `repository`.
    pub kind: &'static str,
    /// Which.
    pub name: String,
}

/// Something that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What.
    pub what: String,
    /// Why, or what removes it.
    pub why: String,
}

/// Removes one environment.
pub struct Teardown {
    account: Account,
    scope: Scope,
    agents: AgentProvider,
    /// Its data, too.
    purge: bool,
}

impl Teardown {
    /// Of one environment; with `purge` everything it remembers goes, too. Nothing is asked yet.
    #[must_use]
    pub fn new(account: Account, scope: Scope, purge: bool) -> Self {
        Self { agents: AgentProvider::new(account.clone(), scope.clone()), account, scope, purge }
    }

    /// What [`Self::remove`] would remove; nothing when nothing is there. Only reads.
    ///
    /// # Errors
    /// AWS out of reach; a stack of that name which is another fleet's.
    pub async fn survey(&self) -> Result<Vec<Thing>, ProviderError> {
        let mut found = Vec::new();
        let agents = self.agents.present().await.map_err(|error| error.about(&self.about()))?;
        found.extend(agents.into_keys().map(|address| thing("agent", address.name)));
        self.found(&mut found).await.map_err(|error| error.about(&self.about()))?;
        Ok(found)
    }

    async fn found(&self, found: &mut Vec<Thing>) -> Result<(), AwsError> {
        let environment = &self.scope.environment;
        if let Some(outputs) = self.account.outputs_if_ours(&self.scope, environment).await? {
            found.push(thing("stack", environment.clone()));
            found.extend(outputs.get(BUCKET_OUTPUT).map(|bucket| thing("bucket", bucket.clone())));
        } else {
            // As long as it stands, roles are those of agents above, or go with it.
            let roles = self.account.roles_below(&self.roles()).await?;
            found.extend(roles.into_iter().map(|role| thing("role", role)));
        }
        let parameters = self.account.parameters_below(&self.parameters()).await?.len();
        if parameters > 0 {
            found.push(thing("parameters", format!("{parameters} below {}", self.parameters())));
        }
        if !self.purge {
            return Ok(());
        }
        let families = self.definitions().await?;
        if families > 0 {
            found.push(thing("task-definitions", format!("{families} families {}-…", self.scope.whole())));
        }
        if let Some(data) = self.account.outputs_if_ours(&self.scope, &self.data()).await? {
            if let Some(files) = data.get(FILE_SYSTEM) {
                let folders = self.account.access_points(files).await?.len();
                found.push(thing("file-system", format!("{files}, with {folders} access points")));
            }
            if let Some(vault) = data.get(VAULT)
                && let Some(points) = self.account.recovery_points(vault).await?
            {
                found.push(thing("vault", format!("{vault}, with {} recovery points", points.len())));
            }
            found.extend(data.get(SECRET_OUTPUT).map(|secret| thing("secret", secret.clone())));
            found.push(thing("stack", self.data()));
        }
        if self.has(SHARED).await? && self.others().await?.is_empty() {
            found.extend(self.repositories().await?.into_iter().map(|name| thing("repository", name)));
            found.push(thing("stack", SHARED.to_owned()));
        }
        Ok(())
    }

    /// Removes it: agents, the stack, what is in neither; then, where that is asked for, data and what only it used.
    ///
    /// # Errors
    /// What could not be removed, and why. What was removed until then is gone; the next run goes on.
    pub async fn remove(&self, events: &dyn Events) -> Result<(), ProviderError> {
        self.agents.remove_all(events).await?;
        self.account.remove_stack(&self.scope, &self.scope.environment, events).await?;
        let about = self.about();
        let failed = |error: AwsError| error.about(&about);
        // What a run left that was cut while it made an agent; and what services of the stack have read.
        self.account.remove_parameters_below(&self.parameters()).await.map_err(failed)?;
        for role in self.account.roles_below(&self.roles()).await.map_err(failed)? {
            self.account.remove_role(&role).await.map_err(failed)?;
        }
        if !self.purge {
            return Ok(());
        }
        let definitions = self.account.remove_definitions(&self.scope).await.map_err(failed)?;
        events
            .emit(Event::Progress { address: about.clone(), what: format!("removed {definitions} task definitions") });
        self.remove_data(events).await?;
        self.remove_shared(events).await
    }

    /// Everything that the data stack holds, then the stack: AWS keeps what it holds when it goes.
    async fn remove_data(&self, events: &dyn Events) -> Result<(), ProviderError> {
        let address = Address::new(Kind::Stack, self.data());
        let failed = |error: AwsError| error.about(&address);
        let progress = |what: String| events.emit(Event::Progress { address: address.clone(), what });
        let data = self.account.outputs_if_ours(&self.scope, &address.name).await.map_err(failed)?;
        let Some(data) = data else { return Ok(()) };
        if let Some(vault) = data.get(VAULT) {
            let points = self.account.remove_vault(vault).await.map_err(failed)?;
            progress(format!("removed backup vault {vault} with {points} recovery points"));
        }
        if let Some(files) = data.get(FILE_SYSTEM) {
            for point in self.account.access_points(files).await.map_err(failed)? {
                self.account.remove_access_point(&point.id).await.map_err(failed)?;
            }
            self.account.remove_file_system(files).await.map_err(failed)?;
            progress(format!("removed file system {files}"));
        }
        if let Some(secret) = data.get(SECRET_OUTPUT) {
            self.account.remove_secret(secret).await.map_err(failed)?;
            progress("removed the fleet secret".to_owned());
        }
        self.account.remove_stack(&self.scope, &address.name, events).await.map(drop)
    }

    /// Images, where no other environment uses them.
    async fn remove_shared(&self, events: &dyn Events) -> Result<(), ProviderError> {
        let address = Address::new(Kind::Stack, SHARED);
        let failed = |error: AwsError| error.about(&address);
        if !self.has(SHARED).await.map_err(failed)? || !self.others().await.map_err(failed)?.is_empty() {
            return Ok(());
        }
        let repositories = self.repositories().await.map_err(failed)?;
        let removed = repositories.iter().map(|name| self.account.remove_repository(name));
        try_join_all(removed).await.map_err(failed)?;
        self.account.remove_stack(&self.scope, SHARED, events).await.map(drop)
    }

    /// What is still there of this environment and its fleet, and why. Only reads.
    ///
    /// # Errors
    /// AWS out of reach.
    pub async fn kept(&self) -> Result<Vec<Kept>, ProviderError> {
        self.left().await.map_err(|error| error.about(&self.about()))
    }

    async fn left(&self) -> Result<Vec<Kept>, AwsError> {
        let (environment, whole) = (&self.scope.environment, self.scope.whole());
        let mut left = Vec::new();
        if let Some(data) = self.account.outputs_if_ours(&self.scope, &self.data()).await? {
            let named = |output: &str| data.get(output).cloned().unwrap_or_default();
            let folders = match data.get(FILE_SYSTEM) {
                Some(files) => self.account.access_points(files).await?,
                None => Vec::new(),
            };
            let folders = folders.iter().filter(|point| point.tag("fleet:agent").is_some()).count();
            let (files, vault) = (named(FILE_SYSTEM), named(VAULT));
            left.push(kept(
                format!(
                    "stack/{} with file system {files} (memory of {folders} agents, rooms), the fleet secret and backup vault {vault}",
                    self.data()
                ),
                format!("a later apply finds it again; `fleetctl destroy --purge -e {environment}` removes it"),
            ));
        }
        if self.has(SHARED).await? {
            let others = self.others().await?;
            let why = if others.is_empty() {
                format!("`fleetctl destroy --purge -e {environment}` removes it")
            } else {
                format!("environments of this fleet use them: {}", others.join(", "))
            };
            left.push(kept(
                format!("stack/{SHARED} with {} repositories of images", self.repositories().await?.len()),
                why,
            ));
        }
        if self.has(BOOTSTRAP).await? {
            left.push(kept(format!("stack/{BOOTSTRAP}"), "it is the administrator's, who deployed it".to_owned()));
        }
        for prefix in ["/aws/ecs/containerinsights/", "/ecs/", "/fleet/"] {
            for group in self.account.log_groups(&format!("{prefix}{whole}/")).await? {
                left.push(kept(format!("log group {group}"), "AWS writes there by itself".to_owned()));
            }
        }
        let families = self.definitions().await?;
        if families > 0 {
            left.push(kept(
                format!("registered task definitions {whole}-…, {families} families"),
                format!(
                    "they cost nothing and hold no secret; `fleetctl destroy --purge -e {environment}` removes them"
                ),
            ));
        }
        Ok(left)
    }

    /// Families of task definitions that ECS lists.
    async fn definitions(&self) -> Result<usize, AwsError> {
        let active = self.account.families(&self.scope, Registered::Active).await?.len();
        Ok(active + self.account.families(&self.scope, Registered::Inactive).await?.len())
    }

    async fn has(&self, stack: &str) -> Result<bool, AwsError> {
        Ok(self.account.outputs_if_ours(&self.scope, stack).await?.is_some())
    }

    async fn others(&self) -> Result<Vec<String>, AwsError> {
        self.account.other_environments(&self.scope).await
    }

    async fn repositories(&self) -> Result<Vec<String>, AwsError> {
        let all = self.account.resources_of(&self.scope, SHARED).await?;
        Ok(all.into_iter().filter(|(kind, _)| kind == "AWS::ECR::Repository").map(|(_, name)| name).collect())
    }

    fn about(&self) -> Address {
        Address::new(Kind::Stack, &self.scope.environment)
    }

    /// The data stack's name in addresses.
    fn data(&self) -> String {
        data_stack(&self.scope.environment)
    }

    /// Below which the environment's parameters are.
    fn parameters(&self) -> String {
        parameters_below(&self.scope.fleet, &self.scope.environment)
    }

    /// Below which the environment's roles are.
    fn roles(&self) -> String {
        role_path(&self.scope.fleet, &self.scope.environment)
    }
}

const fn thing(kind: &'static str, name: String) -> Thing {
    Thing { kind, name }
}

const fn kept(what: String, why: String) -> Kept {
    Kept { what, why }
}

/// Tells that something is removed, and how that ended.
///
/// # Errors
/// Those of the work.
pub(crate) async fn told(
    events: &dyn Events,
    address: &Address,
    work: impl Future<Output = Result<bool, ProviderError>>,
) -> Result<bool, ProviderError> {
    let began = std::time::Instant::now();
    events.emit(Event::Started { address: address.clone(), action: Action::Delete });
    let done = work.await;
    let address = address.clone();
    events.emit(match &done {
        Ok(changed) => {
            let millis = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
            Event::Finished { address, changed: *changed, millis }
        }
        Err(error) => Event::Failed { address, why: error.to_string(), last_lines: error.last_lines().to_vec() },
    });
    done
}
