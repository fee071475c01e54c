//! Waiting for CloudFormation, telling what it does meanwhile; and stacks that an earlier attempt left behind.

use std::{collections::BTreeSet, time::Duration};

use aws_sdk_cloudformation::types::{ResourceStatus, StackEvent, StackStatus};
use fleet_apply::{Event, Events, ProviderError};
use fleet_model::Address;

use super::{
    Doing,
    read::{Standing, Stood},
};
use crate::{account::Account, error::AwsError, pauses::Pauses};

/// No stack of ours takes longer; CloudFormation itself gives up on a service after three hours.
pub(super) const AT_MOST: Duration = Duration::from_secs(4 * 3600);
/// Pages of events that one look reads, of 100 events each.
const PAGES_AT_ONCE: usize = 20;
/// Reasons of failures that are told.
const REASONS: usize = 3;

/// Events of a stack that were told already.
pub(super) struct Told {
    seen: BTreeSet<String>,
    failures: Vec<String>,
}

impl Told {
    /// Why it failed: the first reasons, which later ones only follow from.
    pub(super) fn why(&self) -> String {
        let reasons: Vec<&str> = self.failures.iter().take(REASONS).map(String::as_str).collect();
        if reasons.is_empty() { "CloudFormation gives no reason".to_owned() } else { reasons.join("; ") }
    }
}

/// A stack at rest.
pub(super) struct Settled {
    /// As it stands; `None`: it does not exist.
    pub now: Option<Stood>,
    /// It is not what the plan was made against, and why.
    pub moved: Option<String>,
}

impl Doing<'_> {
    /// The stack, once CloudFormation does nothing with it and what can be recovered is.
    ///
    /// # Errors
    /// A stack that somebody must decide about.
    pub(super) async fn settled(&self) -> Result<Settled, ProviderError> {
        let mut waited = false;
        let mut resumed = false;
        loop {
            match self.at.look().await? {
                // A stack that we had to wait for or to recover has another version than the one planned against; the
                // change set is compared with the plan all the same.
                Standing::Nothing => {
                    let gone = self.change.expect.is_some() && !waited;
                    return Ok(Settled { now: None, moved: gone.then(|| "it is gone".to_owned()) });
                }
                Standing::Stands(stood) => {
                    let same = waited || self.change.expect.as_ref() == Some(&stood.version);
                    let moved = (!same).then(|| format!("it is {} by now", stood.status.as_str()));
                    return Ok(Settled { now: Some(stood), moved });
                }
                Standing::Busy(stood) => {
                    waited = true;
                    self.at.progress(format!("waits: it is {}", stood.status.as_str()));
                    let mut told = self.at.told_until_now(&stood.id).await?;
                    self.at.watch(&stood.id, &mut told).await?;
                }
                Standing::Remains(stood) => {
                    waited = true;
                    self.at.progress("removes what a failed attempt left".to_owned());
                    self.at.delete(&stood.id).await?;
                }
                Standing::Broken(stood) if stood.status == StackStatus::UpdateRollbackFailed && !resumed => {
                    (waited, resumed) = (true, true);
                    self.at.progress("goes on with a rollback that had stopped".to_owned());
                    let mut told = self.at.told_until_now(&stood.id).await?;
                    let asked = self.at.account.cloudformation.continue_update_rollback().stack_name(&stood.id);
                    asked.send().await.map_err(|error| self.at.aws(AwsError::of("ContinueUpdateRollback", error)))?;
                    self.at.watch(&stood.id, &mut told).await?;
                }
                Standing::Broken(stood) => return Err(self.at.explained(&stood)),
            }
        }
    }
}

/// A stack that is spoken of and waited for.
pub(super) struct At<'a> {
    /// As in the plan.
    pub address: &'a Address,
    /// Its name in CloudFormation.
    pub name: String,
    pub events: &'a dyn Events,
    pub account: &'a Account,
    pub fleet: &'a str,
}

impl At<'_> {
    pub(super) async fn look(&self) -> Result<Standing, ProviderError> {
        self.account.stack(&self.name, self.fleet).await.map_err(|error| self.aws(error))
    }

    /// What a person has to do about a stack that cannot be recovered.
    pub(super) fn explained(&self, stood: &Stood) -> ProviderError {
        let (name, region) = (&self.name, &self.account.place.region);
        let status = stood.status.as_str();
        let help = match &stood.status {
            StackStatus::UpdateRollbackFailed => format!(
                "look for the resource that failed: aws cloudformation describe-stack-events --stack-name {name} --region {region}; mend it, or leave it out: aws cloudformation continue-update-rollback --stack-name {name} --region {region} --resources-to-skip RESOURCE"
            ),
            StackStatus::DeleteFailed => format!(
                "run `fleetctl destroy` again, which removes what is left of it; why it failed: aws cloudformation describe-stack-events --stack-name {name} --region {region}"
            ),
            StackStatus::CreateFailed | StackStatus::RollbackFailed => format!(
                "look for the resource that failed: aws cloudformation describe-stack-events --stack-name {name} --region {region}; mend it, then: aws cloudformation delete-stack --stack-name {name} --region {region}"
            ),
            _ => format!("see aws cloudformation describe-stacks --stack-name {name} --region {region}"),
        };
        self.failed(format!("the stack {name} is {status}")).help(help)
    }

    /// Removes what is left of it.
    async fn delete(&self, id: &str) -> Result<(), ProviderError> {
        match self.deleted(id).await? {
            None => Ok(()),
            Some(why) => Err(self.failed(format!("what was left of it could not be removed: {why}"))),
        }
    }

    /// Asks for its removal and waits for the end of it; what kept it from going, if anything did.
    pub(super) async fn deleted(&self, id: &str) -> Result<Option<String>, ProviderError> {
        let mut told = self.told_until_now(id).await?;
        let asked = self.account.cloudformation.delete_stack().stack_name(id);
        asked.send().await.map_err(|error| self.aws(AwsError::of("DeleteStack", error)))?;
        Ok(match self.watch(id, &mut told).await? {
            StackStatus::DeleteComplete => None,
            status => Some(format!("{}: {}", status.as_str(), told.why())),
        })
    }

    /// Waits until CloudFormation is done with a stack, telling every event that is new.
    pub(super) async fn watch(&self, id: &str, told: &mut Told) -> Result<StackStatus, ProviderError> {
        let mut pauses = Pauses::within(AT_MOST);
        loop {
            let status = self.status(id).await?;
            // After the status: what led to it is among them.
            self.tell(id, told).await?;
            if !status.as_str().ends_with("_IN_PROGRESS") {
                return Ok(status);
            }
            if !pauses.pause().await {
                let hours = AT_MOST.as_secs() / 3600;
                let failed = self.failed(format!("it is still {} after {hours} hours", status.as_str()));
                return Err(failed.help("run the same command again: it goes on waiting"));
            }
        }
    }

    async fn status(&self, id: &str) -> Result<StackStatus, ProviderError> {
        let answer = self.account.cloudformation.describe_stacks().stack_name(id).send().await;
        match answer.map_err(|error| AwsError::of("DescribeStacks", error)) {
            Ok(answer) => {
                let status = answer.stacks().first().and_then(|stack| stack.stack_status().cloned());
                Ok(status.unwrap_or(StackStatus::DeleteComplete))
            }
            Err(error) if error.code() == "ValidationError" && error.message().contains("does not exist") => {
                Ok(StackStatus::DeleteComplete)
            }
            Err(error) => Err(self.aws(error)),
        }
    }

    /// The newest events so far, which belong to earlier operations: reading stops where they begin.
    pub(super) async fn told_until_now(&self, id: &str) -> Result<Told, ProviderError> {
        let mut told = Self::told_nothing();
        self.new_events(id, &mut told, 1).await?;
        Ok(told)
    }

    /// Nothing was told yet: of a stack that is new.
    pub(super) const fn told_nothing() -> Told {
        Told { seen: BTreeSet::new(), failures: Vec::new() }
    }

    async fn tell(&self, id: &str, told: &mut Told) -> Result<(), ProviderError> {
        for event in self.new_events(id, told, PAGES_AT_ONCE).await? {
            let resource = event.logical_resource_id().unwrap_or_default();
            let status = event.resource_status().map_or("", ResourceStatus::as_str);
            let reason = event.resource_status_reason().unwrap_or_default();
            let because = if reason.is_empty() { String::new() } else { format!(": {reason}") };
            if status.ends_with("_FAILED") && !reason.contains("cancelled") {
                told.failures.push(format!("{resource}{because}"));
            }
            self.progress(format!("{resource} {status}{because}"));
        }
        Ok(())
    }

    /// Events that were not seen before, oldest first. AWS gives the newest first.
    async fn new_events(&self, id: &str, told: &mut Told, most: usize) -> Result<Vec<StackEvent>, ProviderError> {
        let mut pages = self.account.cloudformation.describe_stack_events().stack_name(id).into_paginator().send();
        let mut found = Vec::new();
        for _ in 0..most {
            let Some(page) = pages.next().await else { break };
            let page = match page.map_err(|error| AwsError::of("DescribeStackEvents", error)) {
                Ok(page) => page,
                Err(error) if error.code() == "ValidationError" => break,
                Err(error) => return Err(self.aws(error)),
            };
            let before = found.len();
            let events = page.stack_events();
            found.extend(
                events.iter().filter(|e| told.seen.insert(e.event_id().unwrap_or_default().to_owned())).cloned(),
            );
            if found.len() - before < events.len() {
                break; // the rest was seen
            }
        }
        found.reverse();
        Ok(found)
    }

    pub(super) fn progress(&self, what: String) {
        self.events.emit(Event::Progress { address: self.address.clone(), what });
    }

    pub(super) fn aws(&self, error: AwsError) -> ProviderError {
        error.about(self.address)
    }

    pub(super) fn failed(&self, why: impl Into<String>) -> ProviderError {
        ProviderError::failed(self.address, why)
    }
}
