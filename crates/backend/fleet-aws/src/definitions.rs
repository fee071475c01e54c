//! Task definitions of one environment: found by their families, deregistered, and deleted for good.
//!
//! Families are found by how they begin; an environment or a fleet whose name begins with ours has families that do so, too, so
//! that where a family may be of either its tags decide.

use std::collections::BTreeSet;

use fleet_apply::Scope;
use fleet_stacks::agent_service::hash_of;
use serde_json::{Value, json};

use crate::{
    account::Account,
    error::AwsError,
    rates::Rate,
    services::{ECS, texts},
};

/// Task definitions that one DeleteTaskDefinitions takes (API reference).
const DELETED_AT_ONCE: usize = 10;
/// Families of services of the stack.
const OF_STACK: [&str; 3] = ["homeserver", "manager", "web"];

/// Whether a task can be started from a task definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Registered {
    /// It can.
    Active,
    /// It was deregistered.
    Inactive,
}

impl Registered {
    /// ECS's word.
    const fn word(self) -> &'static str {
        match self {
            Self::Active => "ACTIVE",
            Self::Inactive => "INACTIVE",
        }
    }
}

impl Account {
    /// Families of an environment that have a task definition in this state: of [`Registered::Inactive`], those that have no
    /// other.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn families(&self, scope: &Scope, state: Registered) -> Result<Vec<String>, AwsError> {
        let begin = format!("{}-", scope.whole());
        let body = json!({"familyPrefix": begin, "status": state.word()});
        let mut ours = Vec::new();
        for family in self.pages("ListTaskDefinitionFamilies", body, "families").await? {
            let is_ours = match owner(&family, &begin) {
                Owner::Us => true,
                Owner::Others => false,
                Owner::Perhaps => self.is_tagged(&family, state, scope).await?,
            };
            if is_ours {
                ours.push(family);
            }
        }
        Ok(ours)
    }

    /// ARNs of the task definitions of a family that are in this state.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn revisions(&self, family: &str, state: Registered) -> Result<Vec<String>, AwsError> {
        let body = json!({"familyPrefix": family, "status": state.word()});
        let mut found = self.pages("ListTaskDefinitions", body, "taskDefinitionArns").await?;
        let whole = format!("task-definition/{family}:");
        found.retain(|arn| arn.contains(&whole));
        Ok(found)
    }

    async fn pages(&self, call: &'static str, mut body: Value, list: &str) -> Result<Vec<String>, AwsError> {
        let mut found = Vec::new();
        body["maxResults"] = json!(100);
        loop {
            let answer = self.signed.json(ECS, (call, Rate::TaskDefinitionReads), &body).await?;
            found.extend(texts(&answer[list]));
            body["nextToken"] = answer["nextToken"].clone();
            if !body["nextToken"].is_string() {
                return Ok(found);
            }
        }
    }

    async fn is_tagged(&self, family: &str, state: Registered, scope: &Scope) -> Result<bool, AwsError> {
        let Some(arn) = self.revisions(family, state).await?.pop() else { return Ok(false) };
        let body = json!({"taskDefinition": arn, "include": ["TAGS"]});
        let answer = self.signed.json(ECS, ("DescribeTaskDefinition", Rate::TaskDefinitionReads), &body).await?;
        let has = |key: &str, value: &str| {
            answer["tags"].as_array().into_iter().flatten().any(|tag| tag["key"] == key && tag["value"] == value)
        };
        Ok(has("fleet:name", &scope.fleet) && has("fleet:environment", &scope.environment))
    }

    /// Deregisters all task definitions of a family; returns their ARNs. What runs from one goes on.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn deregister(&self, family: &str) -> Result<Vec<String>, AwsError> {
        let arns = self.revisions(family, Registered::Active).await?;
        for arn in &arns {
            let body = json!({"taskDefinition": arn});
            self.signed.json(ECS, ("DeregisterTaskDefinition", Rate::TaskDefinitionWrites), &body).await?;
        }
        Ok(arns)
    }

    /// Removes every task definition of an environment for good; returns how many there were.
    ///
    /// # Errors
    /// A call that fails; one that ECS does not delete.
    pub(crate) async fn remove_definitions(&self, scope: &Scope) -> Result<usize, AwsError> {
        const CALL: &str = "DeleteTaskDefinitions";
        let mut all = BTreeSet::new();
        for family in self.families(scope, Registered::Active).await? {
            all.extend(self.deregister(&family).await?);
            all.extend(self.revisions(&family, Registered::Inactive).await?);
        }
        for family in self.families(scope, Registered::Inactive).await? {
            all.extend(self.revisions(&family, Registered::Inactive).await?);
        }
        let all: Vec<String> = all.into_iter().collect();
        for some in all.chunks(DELETED_AT_ONCE) {
            let body = json!({"taskDefinitions": some});
            // Its rate is not documented; that of the other writes is taken.
            let answer = self.signed.json(ECS, (CALL, Rate::TaskDefinitionWrites), &body).await?;
            for failure in answer["failures"].as_array().into_iter().flatten() {
                let said = |name: &str| failure[name].as_str().unwrap_or_default().to_owned();
                // Of one whose first answer was lost, a second one tells as of a failure.
                if !self.is_deleted(&said("arn")).await? {
                    let why = format!("{}: {}", said("arn"), said("detail"));
                    return Err(AwsError::by_code(CALL, said("reason"), why));
                }
            }
        }
        Ok(all.len())
    }

    /// Whether it is gone, or about to be.
    async fn is_deleted(&self, arn: &str) -> Result<bool, AwsError> {
        let body = json!({"taskDefinition": arn});
        match self.signed.json(ECS, ("DescribeTaskDefinition", Rate::TaskDefinitionReads), &body).await {
            Ok(answer) => Ok(answer["taskDefinition"]["status"] == "DELETE_IN_PROGRESS"),
            // There is no code of its own for what is not there.
            Err(error) if error.code() == "ClientException" => Ok(true),
            Err(error) => Err(error),
        }
    }
}

/// Whose a family is, as far as its name tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owner {
    Us,
    Others,
    Perhaps,
}

/// `anycompany-dev-` begins families of agents of `dev`, and all those of an environment `dev-2`. Whatever follows there has one
/// dash more.
fn owner(family: &str, begin: &str) -> Owner {
    let Some(rest) = family.strip_prefix(begin) else { return Owner::Others };
    match rest.rsplit_once('-') {
        _ if OF_STACK.contains(&rest) => Owner::Us,
        Some((agent, _)) if hash_of(family).is_some() => {
            if agent.contains('-') {
                Owner::Perhaps
            } else {
                Owner::Us
            }
        }
        _ => Owner::Others,
    }
}

#[cfg(test)]
mod tests {
    use fleet_derivation::Hash;

    use super::*;

    #[test]
    fn a_family_tells_whose_it_is_unless_an_environment_may_be_called_so() {
        let hash = Hash::of(b"made");
        for (rest, expected) in [
            ("homeserver".to_owned(), Owner::Us),
            (format!("ann_lee-{hash}"), Owner::Us),
            (format!("2-ann_lee-{hash}"), Owner::Perhaps),
            ("2-homeserver".to_owned(), Owner::Others),
            ("backup".to_owned(), Owner::Others),
        ] {
            assert_eq!(owner(&format!("any-dev-{rest}"), "any-dev-"), expected, "{rest}");
        }
        assert_eq!(owner(&format!("any-prod-ann_lee-{hash}"), "any-dev-"), Owner::Others);
    }
}
