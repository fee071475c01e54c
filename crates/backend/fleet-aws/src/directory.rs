//! [`DirectoryProvider`]: the org directory as one object in the config bucket, which every agent looks at now and then. A
//! hire changes the object and rolls nobody.
//!
//! S3 puts an object as a whole or not at all, so there is no pointer beside it as there is on a volume. Deliberately
//! absent: former versions, which the bucket keeps for a while by itself.

use std::sync::Arc;

use async_trait::async_trait;
use fleet_apply::{Applied, Events, Provider, ProviderError, Ready, Scope};
use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_plan::{Change, Desired, DirectorySpec, Health, Observed, RunState, State, directory};
use object_store::{
    Attribute, Attributes, Error, GetOptions, ObjectStore, ObjectStoreExt as _, PutMode, PutOptions, UpdateVersion,
    path::Path,
};

use crate::account::Account;

/// The object's own word for the derivation that it was made of, without S3's `x-amz-meta-`.
const DERIVATION: &str = "fleet-derivation";

/// The directory of one environment.
pub struct DirectoryProvider {
    account: Account,
    scope: Scope,
}

/// What is there.
struct Found {
    hash: Option<Hash>,
    version: String,
}

impl DirectoryProvider {
    /// Nothing is asked before it is used.
    #[must_use]
    pub fn new(account: Account, scope: Scope) -> Self {
        Self { account, scope }
    }

    /// The config bucket; `None` while the environment's stack does not stand.
    async fn bucket(&self) -> Result<Option<Arc<dyn ObjectStore>>, ProviderError> {
        self.account.config_bucket(&self.scope, &directory::address()).await
    }
}

#[async_trait]
impl Provider for DirectoryProvider {
    fn name(&self) -> &'static str {
        "directory"
    }

    fn owns(&self, address: &Address) -> bool {
        address.kind == Kind::Directory
    }

    async fn observe(&self, _: &[Address]) -> Result<State, ProviderError> {
        let mut state = State::default();
        let Some(bucket) = self.bucket().await? else { return Ok(state) };
        if let Some(Found { hash, version }) = look(&*bucket).await? {
            let observed = Observed {
                hash,
                actual: None,
                run: RunState::Present,
                health: Health::None,
                id: version.clone(),
                version,
                unfinished: None,
            };
            state.objects.insert(directory::address(), observed);
        }
        Ok(state)
    }

    async fn apply(&self, change: &Change, _: &Ready<'_>, _: &dyn Events) -> Result<Applied, ProviderError> {
        let bucket = self.bucket().await?;
        match (&change.desired, change.after, bucket) {
            (None, _, None) => Ok(Applied::Unchanged { output: None }),
            (None, _, Some(bucket)) => remove(&*bucket, change).await,
            (Some(Desired::Directory(spec)), Some(hash), Some(bucket)) => deliver(&*bucket, change, spec, hash).await,
            (Some(_), _, None) => {
                let why = format!("the config bucket of {} is not there", self.scope.whole());
                let help = format!("apply the whole environment: stack/{} has it", self.scope.environment);
                Err(ProviderError::failed(&change.address, why).help(help))
            }
            (Some(_), ..) => Err(failed(&"the plan has no directory for it")),
        }
    }
}

fn failed(why: &dyn std::fmt::Display) -> ProviderError {
    ProviderError::failed(&directory::address(), format!("the config bucket: {why}"))
}

async fn look(bucket: &dyn ObjectStore) -> Result<Option<Found>, ProviderError> {
    let options = GetOptions { head: true, ..GetOptions::default() };
    match bucket.get_opts(&Path::from(directory::OBJECT), options).await {
        Ok(found) => {
            let hash = found.attributes.get(&Attribute::Metadata(DERIVATION.into()));
            let hash = hash.and_then(|text| text.parse().ok());
            Ok(Some(Found { hash, version: found.meta.e_tag.unwrap_or_default() }))
        }
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(failed(&error)),
    }
}

async fn deliver(
    bucket: &dyn ObjectStore,
    change: &Change,
    spec: &DirectorySpec,
    hash: Hash,
) -> Result<Applied, ProviderError> {
    let there = look(bucket).await?;
    if there.as_ref().is_some_and(|there| there.hash == Some(hash)) {
        return Ok(Applied::Unchanged { output: None });
    }
    check_expected(change, there.as_ref())?;
    let mode = match there {
        Some(there) => PutMode::Update(UpdateVersion { e_tag: Some(there.version), version: None }),
        None => PutMode::Create,
    };
    let mut attributes = Attributes::new();
    attributes.insert(Attribute::ContentType, "application/json".into());
    attributes.insert(Attribute::Metadata(DERIVATION.into()), hash.to_string().into());
    let options = PutOptions { mode, attributes, ..PutOptions::default() };
    match bucket.put_opts(&Path::from(directory::OBJECT), spec.document.clone().into(), options).await {
        Ok(_) => Ok(Applied::Changed { output: None }),
        // Somebody else was faster, or our own answer was lost and the retry met what we had written.
        Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => match look(bucket).await? {
            Some(there) if there.hash == Some(hash) => Ok(Applied::Changed { output: None }),
            there => Err(stale(change, there.is_some())),
        },
        Err(error) => Err(failed(&error)),
    }
}

async fn remove(bucket: &dyn ObjectStore, change: &Change) -> Result<Applied, ProviderError> {
    let Some(there) = look(bucket).await? else { return Ok(Applied::Unchanged { output: None }) };
    check_expected(change, Some(&there))?;
    match bucket.delete(&Path::from(directory::OBJECT)).await {
        Ok(()) | Err(Error::NotFound { .. }) => Ok(Applied::Changed { output: None }),
        Err(error) => Err(failed(&error)),
    }
}

fn check_expected(change: &Change, there: Option<&Found>) -> Result<(), ProviderError> {
    match (&change.expect, there) {
        (None, None) => Ok(()),
        (Some(expected), Some(there)) if *expected == there.version => Ok(()),
        _ => Err(stale(change, there.is_some())),
    }
}

fn stale(change: &Change, is_there: bool) -> ProviderError {
    let why = if is_there { "another version of it was delivered" } else { "what was delivered is gone" };
    ProviderError::Stale { address: change.address.clone(), why: why.to_owned() }
}
