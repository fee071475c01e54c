//! [`Sweep`]: what nobody needs any more of what an environment left in its account, for `gc`: task definitions of agents that
//! no service names and no kept generation made, and templates of the state bucket that no stack of the fleet was made from.

use std::{collections::BTreeSet, time::Duration};

use fleet_apply::{ProviderError, Scope};
use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_stacks::{BOOTSTRAP, TEMPLATE_HASH, agent_service::hash_of};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use object_store::{ObjectMeta, ObjectStore, ObjectStoreExt as _, path::Path};
use serde_json::Value;

use crate::{account::Account, agents::AgentProvider, bundles::TEMPLATES, definitions::Registered, error::AwsError};

/// A younger template may be that of a change set which is being made.
pub const YOUNG: Duration = Duration::from_secs(60 * 60);
/// Templates that are read at once.
const AT_ONCE: usize = 8;

/// What can go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unneeded {
    /// Families of task definitions.
    pub families: Vec<String>,
    /// Objects of the state bucket.
    pub templates: Vec<String>,
}

/// Sweeps one environment.
pub struct Sweep {
    account: Account,
    scope: Scope,
    /// Templates that are not older than this stay.
    young: Duration,
}

impl Sweep {
    /// Of one environment; templates younger than `young` stay, whatever they are. Nothing is asked yet.
    #[must_use]
    pub const fn new(account: Account, scope: Scope, young: Duration) -> Self {
        Self { account, scope, young }
    }

    /// What can go where these derivations of agents are still needed. Only reads.
    ///
    /// # Errors
    /// AWS out of reach.
    pub async fn unneeded(&self, needed: &BTreeSet<Hash>) -> Result<Unneeded, ProviderError> {
        let families = self.families(needed).await.map_err(|error| error.about(&self.about()))?;
        Ok(Unneeded { families, templates: self.templates().await? })
    }

    /// Removes it. What a service names by now, somebody else has made it so: ECS keeps what runs.
    ///
    /// # Errors
    /// A call that fails; what is gone by then is gone, and the next run goes on.
    pub async fn remove(&self, unneeded: &Unneeded) -> Result<(), ProviderError> {
        for family in &unneeded.families {
            self.account.deregister(family).await.map_err(|error| error.about(&self.about()))?;
        }
        if unneeded.templates.is_empty() {
            return Ok(());
        }
        let Some(bucket) = self.account.state_bucket(&self.scope).await? else { return Ok(()) };
        for template in &unneeded.templates {
            match bucket.delete(&Path::from(template.as_str())).await {
                Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed(&error)),
            }
        }
        Ok(())
    }

    async fn families(&self, needed: &BTreeSet<Hash>) -> Result<Vec<String>, AwsError> {
        let agents = AgentProvider::new(self.account.clone(), self.scope.clone());
        let named = agents.definitions_in_use().await?;
        let families = self.account.families(&self.scope, Registered::Active).await?;
        let unneeded =
            |family: &String| hash_of(family).is_some_and(|hash| !needed.contains(&hash) && !named.contains(&hash));
        Ok(families.into_iter().filter(unneeded).collect())
    }

    /// Old templates that no stack of the fleet says it was made from.
    async fn templates(&self) -> Result<Vec<String>, ProviderError> {
        let Some(bucket) = self.account.state_bucket(&self.scope).await? else { return Ok(Vec::new()) };
        let listed: Vec<ObjectMeta> =
            bucket.list(Some(&Path::from(TEMPLATES))).try_collect().await.map_err(|error| self.failed(&error))?;
        let old: Vec<ObjectMeta> = listed.into_iter().filter(|object| is_older(object, self.young)).collect();
        if old.is_empty() {
            return Ok(Vec::new());
        }
        let stands = self.account.template_hashes(&self.scope).await.map_err(|error| error.about(&self.about()))?;
        let read = |object: ObjectMeta| {
            let bucket = &bucket;
            async move {
                let bytes = bucket.get(&object.location).await?.bytes().await?;
                Ok::<_, object_store::Error>((object.location.to_string(), hash_within(&bytes)))
            }
        };
        let read: Vec<(String, Option<String>)> = stream::iter(old.into_iter().map(read))
            .buffered(AT_ONCE)
            .try_collect()
            .await
            .map_err(|error| self.failed(&error))?;
        // What does not look like one of ours is left alone.
        let unneeded =
            |(name, hash): (String, Option<String>)| hash.filter(|hash| !stands.contains(hash)).map(|_| name);
        Ok(read.into_iter().filter_map(unneeded).collect())
    }

    fn failed(&self, error: &object_store::Error) -> ProviderError {
        ProviderError::failed(&self.about(), format!("the state bucket cannot be swept: {error}"))
    }

    fn about(&self) -> Address {
        Address::new(Kind::Stack, BOOTSTRAP)
    }
}

fn is_older(object: &ObjectMeta, young: Duration) -> bool {
    let age = std::time::SystemTime::now().duration_since(object.last_modified.into());
    age.is_ok_and(|age| age > young)
}

/// What a template says of itself in the output that every template of ours has.
fn hash_within(template: &[u8]) -> Option<String> {
    let template: Value = serde_json::from_slice(template).ok()?;
    template["Outputs"][TEMPLATE_HASH]["Value"].as_str().map(str::to_owned)
}
