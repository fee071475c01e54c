//! [`Account::survey`]: what there is in an account before anything is made in it, for `verify`. Only reads.
//!
//! A question that is not answered, for want of permission or because AWS is out of reach, is a fact of its own: the others
//! are asked all the same. Deliberately absent: what an answer means (fleet-planner).

mod limits;
mod models;
mod secrets;

use std::collections::{BTreeMap, BTreeSet};

use fleet_apply::{Provider as _, ProviderError, Scope};
use fleet_model::{Address, Kind};
use fleet_plan::verify::{Facts, Questions, Seen, Unseen};
use fleet_stacks::agent_service::{SERVICE_PREFIX, agent_of};

use crate::{account::Account, error::AwsError, roles::Trust, stacks::StackProvider};

impl Account {
    /// Asks everything, side by side.
    pub async fn survey(&self, scope: &Scope, questions: &Questions) -> Facts {
        let names = &questions.workflow_roles;
        let (roles, models, (limits, used), boundary, trusts, secret, parameters, deployed, agents) = tokio::join!(
            futures::future::join_all(names.iter().map(|name| self.has_role(name))),
            self.model_access(&questions.models),
            self.limits(&questions.quotas),
            self.has_policy(&questions.boundary),
            self.trusts_below(&questions.role_path),
            self.secret_state(&questions.secret),
            self.provided(&questions.parameters),
            self.deployed(scope, &questions.stacks),
            self.agents_there(scope),
        );
        Facts {
            limits,
            used,
            models,
            boundary: boundary.map_err(unseen),
            workflow_roles: names.iter().cloned().zip(roles.into_iter().map(|there| there.map_err(unseen))).collect(),
            trusts: trusts
                .map(|all| all.into_iter().map(|Trust { name, document }| (name, document)).collect())
                .map_err(unseen),
            secret: secret.map_err(unseen),
            parameters: parameters.map_err(unseen),
            deployed,
            agents: agents.map_err(unseen),
        }
    }

    async fn deployed(&self, scope: &Scope, stacks: &[String]) -> Seen<BTreeMap<String, String>> {
        let wanted: Vec<Address> = stacks.iter().map(|name| Address::new(Kind::Stack, name)).collect();
        let provider = StackProvider::new(self.clone(), scope.clone(), BTreeSet::new());
        let state =
            provider.observe(&wanted).await.map_err(|error: ProviderError| Unseen { why: error.to_string() })?;
        Ok(state.stacks.into_iter().map(|(address, stack)| (address.name, stack.template)).collect())
    }

    async fn agents_there(&self, scope: &Scope) -> Result<BTreeSet<String>, AwsError> {
        let services = self.services(&scope.whole()).await?;
        let names = services.iter().map(|arn| arn.rsplit('/').next().unwrap_or_default());
        Ok(names.filter_map(|name| name.strip_prefix(SERVICE_PREFIX)).map(agent_of).collect())
    }
}

/// In AWS's words, on one line.
fn unseen(error: AwsError) -> Unseen {
    Unseen { why: error.to_string() }
}
