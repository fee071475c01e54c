//! Roles and what bounds them.

use super::properties;
use crate::{
    iam::{Policy, Statement},
    template::Handle,
    value::Text,
};

properties! {
    /// Somebody to act as.
    Role = "AWS::IAM::Role" {
        role_name: Option<String>,
        path: String,
        description: &'static str,
        assume_role_policy_document: Policy,
        permissions_boundary: Option<Text>,
        max_session_duration: Option<u32>,
        policies: Vec<InlinePolicy>,
        managed_policy_arns: Vec<Text>,
    }
    /// What it may do.
    InlinePolicy { policy_name: &'static str, policy_document: Policy }
    /// Lends a role to an instance.
    InstanceProfile = "AWS::IAM::InstanceProfile" { path: String, roles: Vec<Text> }
    /// A policy of its own.
    ManagedPolicy = "AWS::IAM::ManagedPolicy" {
        managed_policy_name: String,
        description: &'static str,
        policy_document: Policy,
    }
    /// Lets identities of another system act as roles.
    OidcProvider = "AWS::IAM::OIDCProvider" { url: &'static str, client_id_list: Vec<&'static str> }
}

impl Role {
    /// May do one thing more.
    pub fn also(mut self, statement: Statement) -> Self {
        if let Some(own) = self.policies.pop() {
            self.policies.push(InlinePolicy { policy_document: own.policy_document.also(statement), ..own });
        }
        self
    }
}

impl Handle<Role> {
    /// Its ARN.
    pub fn arn(&self) -> Text {
        self.attribute("Arn")
    }
}

impl Handle<OidcProvider> {
    /// Its ARN.
    pub fn arn(&self) -> Text {
        self.attribute("Arn")
    }
}
