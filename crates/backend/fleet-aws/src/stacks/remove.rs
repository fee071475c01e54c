//! Stacks removed, for `destroy`: only those whose tags say that they are this environment's.
//!
//! A run may end at any call: a stack that is being removed is waited for, one that could not be removed is removed again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use aws_sdk_cloudformation::types::Stack;
use fleet_apply::{Events, ProviderError, Scope};
use fleet_model::{Address, Kind};
use fleet_stacks::{BOOTSTRAP, SHARED, TEMPLATE_HASH};

use super::{
    read::{FLEET_TAG, Standing, Stood, stack_name},
    wait::At,
};
use crate::{account::Account, error::AwsError, teardown::told};

/// The tag that says which environment's a stack is; the one that all share has none.
const ENVIRONMENT_TAG: &str = "fleet:environment";
/// How often a stack is removed that does not go.
const TRIES: usize = 3;
/// How often is looked whether something was put into a bucket that is about to go: the manager writes as long as it runs.
const REFILLED: Duration = Duration::from_secs(5);

/// What a stack tells of itself.
pub(crate) type Outputs = BTreeMap<String, String>;
/// What a stack has, by type and by the id that AWS gave it.
pub(crate) type Resources = Vec<(String, String)>;

fn tag<'s>(stack: &'s Stack, name: &str) -> Option<&'s str> {
    stack.tags().iter().find(|tag| tag.key() == Some(name)).and_then(|tag| tag.value())
}

impl Account {
    /// Outputs of a stack of this environment; `None` where there is nothing of it. `name` is its name in addresses.
    ///
    /// # Errors
    /// A call that fails; a stack of that name which is not this environment's.
    pub(crate) async fn outputs_if_ours(&self, scope: &Scope, name: &str) -> Result<Option<Outputs>, AwsError> {
        Ok(self.our_stack(scope, name).await?.map(|(stood, _)| stood.stack.outputs))
    }

    async fn our_stack(&self, scope: &Scope, name: &str) -> Result<Option<(Stood, bool)>, AwsError> {
        let full = stack_name(scope, name);
        let (stood, busy) = match self.look_at(&full, &scope.fleet, false).await? {
            Standing::Nothing => return Ok(None),
            Standing::Busy(stood) => (stood, true),
            Standing::Stands(stood) | Standing::Remains(stood) | Standing::Broken(stood) => (stood, false),
        };
        let tag = |name: &str| stood.stack.tags.get(name).map(String::as_str);
        let environment = (![SHARED, BOOTSTRAP].contains(&name)).then_some(scope.environment.as_str());
        if tag(FLEET_TAG) == Some(scope.fleet.as_str()) && tag(ENVIRONMENT_TAG) == environment {
            return Ok(Some((stood, busy)));
        }
        let why = format!("the stack {full} has not the tags of stack/{name} of {}: it is left alone", scope.fleet);
        Err(AwsError::Refused { call: "DescribeStacks", code: "NotOurs".to_owned(), why })
    }

    /// Resources of a stack, by type; none where there is no such stack.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn resources_of(&self, scope: &Scope, name: &str) -> Result<Resources, AwsError> {
        let asked = self.cloudformation.list_stack_resources().stack_name(stack_name(scope, name));
        let mut pages = asked.into_paginator().items().send();
        let mut found = Resources::new();
        while let Some(one) = pages.next().await {
            match one.map_err(|error| AwsError::of("ListStackResources", error)) {
                Ok(one) => {
                    let id = one.physical_resource_id().unwrap_or_default().to_owned();
                    found.push((one.resource_type().unwrap_or_default().to_owned(), id));
                }
                Err(error) if error.code() == "ValidationError" => break,
                Err(error) => return Err(error),
            }
        }
        Ok(found)
    }

    /// Names of environments of a fleet, other than this one, that have any stack in this account and region.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn other_environments(&self, scope: &Scope) -> Result<Vec<String>, AwsError> {
        let stacks = self.stacks_of(scope).await?;
        let mut found: Vec<String> =
            stacks.iter().filter_map(|stack| tag(stack, ENVIRONMENT_TAG)).map(str::to_owned).collect();
        found.retain(|other| *other != scope.environment);
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    /// What the stacks of a fleet in this account and region say of the templates that they were made from.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn template_hashes(&self, scope: &Scope) -> Result<BTreeSet<String>, AwsError> {
        let stacks = self.stacks_of(scope).await?;
        let outputs = stacks.iter().flat_map(Stack::outputs);
        let hashes = outputs.filter(|output| output.output_key() == Some(TEMPLATE_HASH));
        Ok(hashes.filter_map(|output| output.output_value()).map(str::to_owned).collect())
    }

    /// Stacks that are the fleet's.
    async fn stacks_of(&self, scope: &Scope) -> Result<Vec<Stack>, AwsError> {
        let begin = format!("{}-", scope.fleet);
        let mut pages = self.cloudformation.list_stacks().into_paginator().items().send();
        let mut names = BTreeSet::new();
        while let Some(one) = pages.next().await {
            let one = one.map_err(|error| AwsError::of("ListStacks", error))?;
            let gone = one.stack_status().is_some_and(|status| status.as_str() == "DELETE_COMPLETE");
            names.extend(one.stack_name().filter(|name| !gone && name.starts_with(&begin)).map(str::to_owned));
        }
        let mut found = Vec::new();
        for name in names {
            let answer = self.cloudformation.describe_stacks().stack_name(&name).send().await;
            let answer = match answer.map_err(|error| AwsError::of("DescribeStacks", error)) {
                Ok(answer) => answer,
                // It went meanwhile. Of any other answer nobody knows whether it uses what is shared.
                Err(error) if error.code() == "ValidationError" && error.message().contains("does not exist") => {
                    continue;
                }
                Err(error) => return Err(error),
            };
            let ours = |stack: &&Stack| tag(stack, FLEET_TAG) == Some(scope.fleet.as_str());
            found.extend(answer.stacks().first().filter(ours).cloned());
        }
        Ok(found)
    }

    /// Removes a stack and waits until it is gone, telling what CloudFormation does. Its buckets are emptied first, since
    /// CloudFormation removes none that holds anything. Returns whether there was one.
    ///
    /// # Errors
    /// A call that fails; a stack that does not go, or is not this environment's.
    pub(crate) async fn remove_stack(
        &self,
        scope: &Scope,
        name: &str,
        events: &dyn Events,
    ) -> Result<bool, ProviderError> {
        let address = Address::new(Kind::Stack, name);
        let at = At { address: &address, name: stack_name(scope, name), events, account: self, fleet: &scope.fleet };
        let Some(found) = self.our_stack(scope, name).await.map_err(|error| at.aws(error))? else { return Ok(false) };
        told(events, &address, async { self.until_gone(scope, &at, found).await.map(|()| true) }).await
    }

    async fn until_gone(&self, scope: &Scope, at: &At<'_>, first: (Stood, bool)) -> Result<(), ProviderError> {
        let name = &at.address.name;
        let (mut next, mut why) = (Some(first), String::new());
        for _ in 0..TRIES {
            let Some((stood, busy)) = next else { return Ok(()) };
            let resources = self.resources_of(scope, name).await.map_err(|error| at.aws(error))?;
            // The one bucket that outlives its stack is of `bootstrap`.
            let is_bucket = |(kind, id): &(String, String)| kind == "AWS::S3::Bucket" && !id.is_empty();
            let buckets: Vec<String> = resources.into_iter().filter(is_bucket).map(|(_, id)| id).collect();
            if busy {
                why = format!("it is {}", stood.status.as_str());
                at.progress(format!("waits: {why}"));
                let mut told = at.told_until_now(&stood.id).await?;
                self.keeping_empty(&buckets, at.watch(&stood.id, &mut told)).await?;
            } else {
                for bucket in &buckets {
                    let gone = self.empty_bucket(bucket).await.map_err(|error| at.aws(error))?;
                    at.progress(format!("emptied bucket {bucket}: {gone} versions of objects"));
                }
                match self.keeping_empty(&buckets, at.deleted(&stood.id)).await? {
                    None => return Ok(()),
                    Some(reason) => why = reason,
                }
            }
            next = self.our_stack(scope, name).await.map_err(|error| at.aws(error))?;
        }
        if next.is_none() {
            return Ok(());
        }
        let help = "mend the cause, then run the same command again: it goes on where this ended";
        Err(at.failed(format!("the stack {} could not be removed: {why}", at.name)).help(help))
    }

    /// Waits for something while buckets are kept empty. What cannot be emptied is no error here: whoever removes the bucket
    /// says so.
    async fn keeping_empty<T>(&self, buckets: &[String], wait: impl Future<Output = T>) -> T {
        let mut wait = std::pin::pin!(wait);
        loop {
            if let Ok(done) = tokio::time::timeout(REFILLED, &mut wait).await {
                return done;
            }
            for bucket in buckets {
                let _ = self.empty_bucket(bucket).await;
            }
        }
    }
}
