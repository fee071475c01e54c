//! Policies as types. A statement about every resource can only be made with the reason why AWS leaves no choice, which
//! becomes its `Sid`.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::value::Text;

/// Begins the `Sid` of each statement whose resource is `*`.
pub const NO_CHOICE: &str = "AwsKnowsNoResourceFor";

/// `{"Version": …, "Statement": […]}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Policy {
    version: &'static str,
    statement: Vec<Statement>,
}

impl Policy {
    /// A policy of these statements.
    pub fn of(statement: impl IntoIterator<Item = Statement>) -> Self {
        Self { version: "2012-10-17", statement: statement.into_iter().collect() }
    }

    /// One statement more.
    pub fn also(mut self, statement: Statement) -> Self {
        self.statement.push(statement);
        self
    }
}

/// Operator → key → values.
type Conditions = BTreeMap<&'static str, BTreeMap<String, Vec<Text>>>;

/// One statement.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Statement {
    sid: String,
    effect: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    principal: Option<Principal>,
    action: Vec<&'static str>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource: Vec<Text>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    condition: Conditions,
}

/// Who a resource's policy or a role's trust is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Principal {
    /// `"*"`: only in statements that deny.
    Everybody(&'static str),
    /// A service of AWS.
    Service {
        /// For instance `ecs-tasks.amazonaws.com`.
        #[serde(rename = "Service")]
        service: String,
    },
    /// An identity provider.
    Federated {
        /// Its ARN.
        #[serde(rename = "Federated")]
        provider: Text,
    },
}

impl Statement {
    fn new(sid: impl Into<String>, effect: &'static str, action: &[&'static str], resource: Vec<Text>) -> Self {
        Self { sid: sid.into(), effect, principal: None, action: action.to_vec(), resource, condition: BTreeMap::new() }
    }

    /// Allows actions on these resources; on none when there are none, never on all.
    pub fn allow<T: Into<Text>>(
        sid: impl Into<String>,
        action: &[&'static str],
        on: impl IntoIterator<Item = T>,
    ) -> Self {
        let on = on.into_iter().map(Into::into).filter(|resource: &Text| !resource.is("*")).collect();
        Self::new(sid, "Allow", action, on)
    }

    /// Allows actions that the service authorization reference lists without a resource type. `what` says which, as one
    /// word in capitals and small letters.
    pub fn allow_without_resource(what: &str, action: &[&'static str]) -> Self {
        Self::new(format!("{NO_CHOICE}{what}"), "Allow", action, vec![Text::from("*")])
    }

    /// Denies everybody these actions on a resource, in its own policy. The caller adds when.
    pub fn deny<T: Into<Text>>(
        sid: impl Into<String>,
        action: &[&'static str],
        on: impl IntoIterator<Item = T>,
    ) -> Self {
        let on = on.into_iter().map(Into::into).collect();
        Self { principal: Some(Principal::Everybody("*")), ..Self::new(sid, "Deny", action, on) }
    }

    /// Lets somebody act as the role, or write to the resource, that this is the policy of.
    pub fn by(mut self, principal: Principal) -> Self {
        self.principal = Some(principal);
        self
    }

    /// A condition more.
    pub fn when(mut self, operator: &'static str, key: impl Into<String>, value: impl Into<Text>) -> Self {
        self.condition.entry(operator).or_default().entry(key.into()).or_default().push(value.into());
        self
    }
}

/// The policy that lets a service of AWS act as a role.
pub fn trust(service: &str) -> Policy {
    let principal = Principal::Service { service: service.to_owned() };
    let statement = Statement::new("Assume", "Allow", &["sts:AssumeRole"], Vec::new());
    Policy::of([statement.by(principal)])
}

/// The same, only on behalf of this account: a confused deputy elsewhere is refused.
pub fn trust_for(service: &str, account: &str) -> Policy {
    let mut policy = trust(service);
    policy.statement =
        policy.statement.into_iter().map(|s| s.when("StringEquals", "aws:SourceAccount", account)).collect();
    policy
}
