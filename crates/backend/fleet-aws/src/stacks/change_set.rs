//! One change set: made, compared with the plan, carried out.

use std::collections::BTreeMap;

use aws_sdk_cloudformation::types::{
    Capability, ChangeSetStatus, ChangeSetType, Parameter, ResourceChange, StackStatus, Tag,
};
use fleet_apply::ProviderError;
use fleet_derivation::Hash;

use super::{
    Doing, Sent,
    read::{Standing, Stood},
    verdict,
    wait::{AT_MOST, At},
};
use crate::{error::AwsError, pauses::Pauses};

/// Of the hash of what a change set contains, this much is in its name.
const SHORT: usize = 16;
/// What begins the code of an answer about a change set that was carried out already.
const EXECUTED: [&str; 2] = ["InvalidChangeSetStatus", "ChangeSetNotFound"];
/// What CloudFormation says of a change set without changes.
const NOTHING: [&str; 2] = ["didn't contain changes", "No updates are to be performed"];

impl Doing<'_> {
    /// Makes the stack what it should be; false when it was already.
    ///
    /// # Errors
    /// A change set that does more than the plan shows; a stack that fails.
    pub(super) async fn make(
        &self,
        now: Option<&Stood>,
        values: &BTreeMap<String, String>,
        template: &Sent,
    ) -> Result<bool, ProviderError> {
        let name = self.change_set_name(now, values);
        self.create_change_set(&name, now, (values, template)).await?;
        let Some(changes) = self.contents(&name).await? else {
            self.discard(&name).await?;
            return Ok(false);
        };
        if now.is_some()
            && let Some(why) = verdict::more_than_planned(&changes, &self.change.resources)
        {
            self.discard(&name).await?;
            return Err(self.stale(why));
        }
        self.at.progress(format!("changes {} resources", changes.len()));
        self.execute(&name, now).await?;
        Ok(true)
    }

    /// By what it contains: whoever makes the same one again, after an answer that was lost, finds it.
    fn change_set_name(&self, now: Option<&Stood>, values: &BTreeMap<String, String>) -> String {
        let mut content = self.spec.template.clone();
        for (id, value) in values.iter().chain(&self.spec.tags) {
            content.push_str(&format!("\0{id}\0{value}"));
        }
        content.push_str(now.map_or("", |stood| &stood.version));
        let hash = Hash::of(content.as_bytes()).to_string();
        format!("fleet-{}", &hash[..SHORT.min(hash.len())])
    }

    async fn create_change_set(
        &self,
        name: &str,
        now: Option<&Stood>,
        (values, template): (&BTreeMap<String, String>, &Sent),
    ) -> Result<(), ProviderError> {
        let parameter =
            |(id, value): (&String, &String)| Parameter::builder().parameter_key(id).parameter_value(value).build();
        let tag = |(name, value): (&String, &String)| Tag::builder().key(name).value(value).build();
        let asked = self
            .at
            .account
            .cloudformation
            .create_change_set()
            .stack_name(&self.at.name)
            .change_set_name(name)
            .change_set_type(if now.is_some() { ChangeSetType::Update } else { ChangeSetType::Create })
            .set_parameters(Some(values.iter().map(parameter).collect()))
            .set_tags(Some(self.spec.tags.iter().map(tag).collect()))
            .capabilities(Capability::CapabilityNamedIam)
            .client_token(name);
        let asked = match template {
            Sent::Within(text) => asked.template_body(text),
            Sent::At(address) => asked.template_url(address),
        };
        match asked.send().await.map_err(|error| AwsError::of("CreateChangeSet", error)) {
            Ok(_) => Ok(()),
            // An attempt whose answer was lost has made it.
            Err(error) if error.code().starts_with("AlreadyExists") => Ok(()),
            Err(error) => Err(self.at.aws(error)),
        }
    }

    /// What the change set would do, once CloudFormation has worked that out; `None`: nothing.
    async fn contents(&self, name: &str) -> Result<Option<Vec<ResourceChange>>, ProviderError> {
        let mut pauses = Pauses::within(AT_MOST);
        loop {
            let asked =
                self.at.account.cloudformation.describe_change_set().stack_name(&self.at.name).change_set_name(name);
            let answer = asked.send().await.map_err(|error| self.at.aws(AwsError::of("DescribeChangeSet", error)))?;
            match answer.status() {
                Some(ChangeSetStatus::CreateComplete) => return self.all_changes(name).await.map(Some),
                Some(ChangeSetStatus::Failed) => {
                    let why = answer.status_reason().unwrap_or_default();
                    if NOTHING.iter().any(|words| why.contains(words)) {
                        return Ok(None);
                    }
                    self.discard(name).await?;
                    return Err(self.at.failed(format!("CloudFormation refuses the change set: {why}")));
                }
                _ => {}
            }
            if !pauses.pause().await {
                return Err(self.at.failed("CloudFormation does not finish the change set"));
            }
        }
    }

    async fn all_changes(&self, name: &str) -> Result<Vec<ResourceChange>, ProviderError> {
        let asked =
            self.at.account.cloudformation.describe_change_set().stack_name(&self.at.name).change_set_name(name);
        let mut pages = asked.into_paginator().send();
        let mut found = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| self.at.aws(AwsError::of("DescribeChangeSet", error)))?;
            found.extend(page.changes().iter().filter_map(|change| change.resource_change().cloned()));
        }
        Ok(found)
    }

    async fn discard(&self, name: &str) -> Result<(), ProviderError> {
        let asked = self.at.account.cloudformation.delete_change_set().stack_name(&self.at.name).change_set_name(name);
        match asked.send().await.map_err(|error| AwsError::of("DeleteChangeSet", error)) {
            Ok(_) => Ok(()),
            Err(error) if error.code().starts_with("ChangeSetNotFound") => Ok(()),
            Err(error) => Err(self.at.aws(error)),
        }
    }

    async fn execute(&self, name: &str, now: Option<&Stood>) -> Result<(), ProviderError> {
        let mut told = match now {
            Some(stood) => self.at.told_until_now(&stood.id).await?,
            None => At::told_nothing(),
        };
        let asked = self
            .at
            .account
            .cloudformation
            .execute_change_set()
            .stack_name(&self.at.name)
            .change_set_name(name)
            .client_request_token(name)
            // What is kept when its stack goes is not kept when its making is rolled back: it is empty, and in the way.
            .retain_except_on_create(true);
        let doubtful = match asked.send().await.map_err(|error| AwsError::of("ExecuteChangeSet", error)) {
            Ok(_) => false,
            // An attempt whose answer was lost has begun it; or somebody else has begun another one.
            Err(error) if EXECUTED.iter().any(|code| error.code().starts_with(code)) => true,
            Err(error) => return Err(self.at.aws(error)),
        };
        let status = self.at.watch(&self.at.name, &mut told).await?;
        match status {
            StackStatus::CreateComplete | StackStatus::UpdateComplete if doubtful => self.check().await,
            StackStatus::CreateComplete | StackStatus::UpdateComplete => Ok(()),
            StackStatus::UpdateRollbackComplete => Err(ProviderError::RolledBack {
                address: self.change.address.clone(),
                why: told.why(),
                last_lines: Vec::new(),
            }),
            StackStatus::RollbackComplete => Err(self
                .at
                .failed(format!("it could not be made: {}", told.why()))
                .help("mend the cause and apply again: what is left of it is removed first")),
            other => Err(self
                .at
                .failed(format!("it ended as {}: {}", other.as_str(), told.why()))
                .help("apply again: it is recovered, or what to do is said")),
        }
    }

    /// Is it what it should be, after an answer that does not tell whose doing it is?
    async fn check(&self) -> Result<(), ProviderError> {
        match self.at.look().await? {
            Standing::Stands(stood) if self.has_template(&stood) => Ok(()),
            _ => Err(self.stale("somebody else changed it at the same time".to_owned())),
        }
    }
}
