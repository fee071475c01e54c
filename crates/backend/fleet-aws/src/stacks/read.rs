//! [`Standing`]: what is there under a stack's name.

use std::collections::BTreeMap;

use aws_sdk_cloudformation::types::{Stack, StackStatus, TemplateStage};
use fleet_apply::Scope;
use fleet_plan::{DeployedStack, Health, Observed, RunState};

use crate::{account::Account, error::AwsError};

/// The tag that says whose a stack is.
pub(super) const FLEET_TAG: &str = "fleet:name";

/// What is there under a stack's name.
#[derive(Clone, Debug)]
pub(super) enum Standing {
    /// Nothing, or a stack that was never made: only a change set was.
    Nothing,
    /// A stack whose making failed; everything of it was removed again. It can only be deleted.
    Remains(Stood),
    /// A stack that stands as it was last made.
    Stands(Stood),
    /// CloudFormation is at work on it.
    Busy(Stood),
    /// It failed in a way that needs a decision.
    Broken(Stood),
}

/// A stack.
#[derive(Clone, Debug)]
pub(super) struct Stood {
    /// CloudFormation's word.
    pub status: StackStatus,
    /// Its ARN: another one after it was deleted and made again.
    pub id: String,
    /// Changes whenever the stack does.
    pub version: String,
    /// What it was made from. Without template where it does not stand.
    pub stack: DeployedStack,
}

impl Standing {
    /// As the planner sees it.
    pub(super) fn observed(&self) -> Option<Observed> {
        let (stood, unfinished) = match self {
            Self::Nothing => return None,
            Self::Stands(stood) => (stood, None),
            Self::Remains(stood) => {
                (stood, Some("its making failed before: what is left is removed, then it is made".to_owned()))
            }
            Self::Busy(stood) => (stood, Some(format!("CloudFormation is at work on it: {}", stood.status.as_str()))),
            Self::Broken(stood) => (stood, Some(format!("it is {}", stood.status.as_str()))),
        };
        Some(Observed {
            hash: None,
            actual: None,
            run: RunState::Present,
            health: Health::None,
            // Of the ARN, what tells it from one of the same name that was made later.
            id: stood.id.rsplit('/').next().unwrap_or_default().to_owned(),
            version: stood.version.clone(),
            unfinished,
        })
    }
}

/// A stack's name in CloudFormation.
pub(super) fn stack_name(scope: &Scope, name: &str) -> String {
    format!("{}-{name}", scope.fleet)
}

impl Account {
    /// Outputs of a stack, by its name in addresses; none where there is no such stack.
    ///
    /// # Errors
    /// A call that fails; a stack of that name which is another fleet's.
    pub async fn outputs_of(&self, scope: &Scope, name: &str) -> Result<BTreeMap<String, String>, AwsError> {
        Ok(match self.look_at(&stack_name(scope, name), &scope.fleet, false).await? {
            Standing::Nothing | Standing::Remains(_) => BTreeMap::new(),
            Standing::Stands(stood) | Standing::Busy(stood) | Standing::Broken(stood) => stood.stack.outputs,
        })
    }

    /// What is there under a name.
    ///
    /// # Errors
    /// A call that fails; a stack of that name which is not this fleet's.
    pub(super) async fn stack(&self, name: &str, fleet: &str) -> Result<Standing, AwsError> {
        self.look_at(name, fleet, true).await
    }

    pub(super) async fn look_at(&self, name: &str, fleet: &str, with_template: bool) -> Result<Standing, AwsError> {
        const CALL: &str = "DescribeStacks";
        let answer = self.cloudformation.describe_stacks().stack_name(name).send().await;
        let answer = match answer.map_err(|error| AwsError::of(CALL, error)) {
            Ok(answer) => answer,
            Err(error) if error.code() == "ValidationError" && error.message().contains("does not exist") => {
                return Ok(Standing::Nothing);
            }
            Err(error) => return Err(error),
        };
        let Some(stack) = answer.stacks().first() else { return Ok(Standing::Nothing) };
        let mut stood = stood(stack);
        if stood.stack.tags.get(FLEET_TAG).is_some_and(|owner| owner != fleet) {
            let why = format!("the stack {name} is of another fleet; rename this one");
            return Err(AwsError::Refused { call: CALL, code: "NotOurs".to_owned(), why });
        }
        let standing = by_status(stood.status.clone());
        if with_template && matches!(standing, Class::Stands) {
            stood.stack.template = self.template(name).await?;
        }
        Ok(match standing {
            Class::Nothing => Standing::Nothing,
            Class::Remains => Standing::Remains(stood),
            Class::Stands => Standing::Stands(stood),
            Class::Busy => Standing::Busy(stood),
            Class::Broken => Standing::Broken(stood),
        })
    }

    async fn template(&self, name: &str) -> Result<String, AwsError> {
        let asked = self.cloudformation.get_template().stack_name(name).template_stage(TemplateStage::Original);
        let answer = asked.send().await.map_err(|error| AwsError::of("GetTemplate", error))?;
        Ok(answer.template_body().unwrap_or_default().to_owned())
    }
}

enum Class {
    Nothing,
    Remains,
    Stands,
    Busy,
    Broken,
}

fn by_status(status: StackStatus) -> Class {
    match status {
        StackStatus::DeleteComplete | StackStatus::ReviewInProgress => Class::Nothing,
        StackStatus::RollbackComplete => Class::Remains,
        StackStatus::CreateComplete
        | StackStatus::UpdateComplete
        | StackStatus::UpdateRollbackComplete
        | StackStatus::ImportComplete
        | StackStatus::ImportRollbackComplete => Class::Stands,
        other if other.as_str().ends_with("_IN_PROGRESS") => Class::Busy,
        _ => Class::Broken,
    }
}

fn stood(stack: &Stack) -> Stood {
    let time = |time: Option<&aws_smithy_types::DateTime>| time.map(|at| at.as_nanos().to_string()).unwrap_or_default();
    let status = stack.stack_status().cloned().unwrap_or(StackStatus::CreateFailed);
    let id = stack.stack_id().unwrap_or_default().to_owned();
    let version =
        format!("{id} {} {} {}", time(stack.creation_time()), time(stack.last_updated_time()), status.as_str());
    let pairs = |pairs: Vec<(Option<&str>, Option<&str>)>| -> BTreeMap<String, String> {
        pairs.into_iter().filter_map(|(name, value)| Some((name?.to_owned(), value?.to_owned()))).collect()
    };
    let deployed = DeployedStack {
        template: String::new(),
        parameters: pairs(stack.parameters().iter().map(|p| (p.parameter_key(), p.parameter_value())).collect()),
        outputs: pairs(stack.outputs().iter().map(|o| (o.output_key(), o.output_value())).collect()),
        tags: pairs(stack.tags().iter().map(|tag| (tag.key(), tag.value())).collect()),
    };
    Stood { status, id, version, stack: deployed }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_of_a_stack_is_one_that_we_know_what_to_do_about() {
        let class = |status: &str| match by_status(StackStatus::from(status)) {
            Class::Nothing => "nothing",
            Class::Remains => "remains",
            Class::Stands => "stands",
            Class::Busy => "busy",
            Class::Broken => "broken",
        };
        for (status, expected) in [
            ("REVIEW_IN_PROGRESS", "nothing"),
            ("DELETE_COMPLETE", "nothing"),
            ("ROLLBACK_COMPLETE", "remains"),
            ("UPDATE_ROLLBACK_COMPLETE", "stands"),
            ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", "busy"),
            ("ROLLBACK_IN_PROGRESS", "busy"),
            ("UPDATE_ROLLBACK_FAILED", "broken"),
            ("DELETE_FAILED", "broken"),
            ("A_WORD_OF_TOMORROW", "broken"),
        ] {
            assert_eq!(class(status), expected, "{status}");
        }
    }
}
