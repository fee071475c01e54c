//! The `bootstrap` stack: what a fleet needs in an account before anything else, made once by an administrator. The
//! state bucket, who a repository's workflows may act as, and what bounds every role of the fleet.

mod permissions;

use std::collections::BTreeSet;

use crate::{
    iam::{Policy, Principal, Statement},
    resource::{
        iam::{InlinePolicy, ManagedPolicy, OidcProvider, Role},
        storage::{only_by_tls, private_bucket},
    },
    settings::{boundary_name, partition},
    template::{RenderError, Rendered, Template, fleet_tags},
    value::{Text, text},
};

/// The stack's name, in addresses.
pub const BOOTSTRAP: &str = "bootstrap";
/// GitHub's issuer of identities (GitHub documentation, "OpenID Connect").
const ISSUER: &str = "token.actions.githubusercontent.com";
/// The resource that is the account's provider for it.
const PROVIDER: &str = "GitHub";
const AUDIENCE: &str = "sts.amazonaws.com";
/// Seconds for which one set of credentials is good.
const SESSION_SECONDS: u32 = 3600;

/// What the stack is rendered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bootstrap {
    /// Fleet name.
    pub fleet: String,
    /// 12 digits.
    pub account: String,
    /// Where the state is.
    pub region: String,
    /// `owner/name` on GitHub.
    pub repository: String,
    /// Environments of the repository whose workflows may apply.
    pub environments: BTreeSet<String>,
    /// ARN of the account's provider for GitHub, where there is one: an account can have only one.
    pub provider: Option<String>,
}

impl Bootstrap {
    fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{resource}", partition(&self.region), self.region, self.account)
    }

    fn iam(&self, resource: &str) -> String {
        format!("arn:{}:iam::{}:{resource}", partition(&self.region), self.account)
    }

    /// `<fleet>-state-<account>-<region>`.
    fn state_bucket(&self) -> String {
        format!("{}-state-{}-{}", self.fleet, self.account, self.region)
    }

    fn bucket_arn(&self, rest: &str) -> String {
        format!("arn:{}:s3:::{rest}", partition(&self.region))
    }
}

/// Names of the roles that workflows act as, to plan and to apply.
#[must_use]
pub fn workflow_roles(fleet: &str) -> [String; 2] {
    ["plan", "apply"].map(|what| role_name(fleet, what))
}

fn role_name(fleet: &str, what: &str) -> String {
    format!("{fleet}-{what}")
}

/// Renders it.
///
/// # Errors
/// [`RenderError`].
pub fn bootstrap(settings: &Bootstrap) -> Result<Rendered, RenderError> {
    let description = format!("What the fleet {} needs in this account", settings.fleet);
    let mut template = Template::new(BOOTSTRAP, description, fleet_tags(&settings.fleet));
    let bucket = template.keep("StateBucket", private_bucket(Some(settings.state_bucket())));
    template.add("StateBucketPolicy", only_by_tls(&bucket));
    template.add(
        "Boundary",
        ManagedPolicy {
            managed_policy_name: boundary_name(&settings.fleet),
            description: "The most that any role of the fleet can do",
            policy_document: permissions::boundary(settings),
        },
    );
    let provider = match &settings.provider {
        Some(existing) => Text::from(existing.as_str()),
        None => template.add(PROVIDER, provider()).arn(),
    };
    let repository = &settings.repository;
    let requests = BTreeSet::from([format!("repo:{repository}:pull_request")]);
    let plan = role(settings, "plan", trust(&provider, &requests), permissions::plan(settings));
    let environments =
        settings.environments.iter().map(|name| format!("repo:{repository}:environment:{name}")).collect();
    let apply = role(settings, "apply", trust(&provider, &environments), permissions::apply(settings));
    for (id, role) in [("PlanRole", plan), ("ApplyRole", apply)] {
        let role = template.add(id, role);
        template.output(&format!("{id}Arn"), role.arn());
    }
    template.output("StateBucket", bucket.reference());
    template.finish()
}

/// Does a deployed template have the account's provider for GitHub? Then it stays there.
#[must_use]
pub fn makes_provider(template: &str) -> bool {
    let template: serde_json::Value = serde_json::from_str(template).unwrap_or_default();
    !template["Resources"][PROVIDER].is_null()
}

fn provider() -> OidcProvider {
    OidcProvider { url: "https://token.actions.githubusercontent.com", client_id_list: vec![AUDIENCE] }
}

/// Pins who asks and for what: without `sub` every repository of GitHub could act as the role.
fn trust(provider: &Text, subjects: &BTreeSet<String>) -> Policy {
    let any: [&str; 0] = [];
    let assume = Statement::allow("Assume", &["sts:AssumeRoleWithWebIdentity"], any)
        .by(Principal::Federated { provider: provider.clone() })
        .when("StringEquals", format!("{ISSUER}:aud"), AUDIENCE);
    let pinned = subjects
        .iter()
        .fold(assume, |assume, subject| assume.when("StringEquals", format!("{ISSUER}:sub"), subject.as_str()));
    Policy::of([pinned])
}

fn role(settings: &Bootstrap, what: &'static str, trust: Policy, policy: Policy) -> Role {
    let description = if what == "plan" { "Reads, for pull requests" } else { "Deploys, from protected environments" };
    Role {
        role_name: Some(role_name(&settings.fleet, what)),
        path: "/".to_owned(),
        description,
        assume_role_policy_document: trust,
        permissions_boundary: None,
        max_session_duration: Some(SESSION_SECONDS),
        policies: vec![InlinePolicy { policy_name: "own", policy_document: policy }],
        managed_policy_arns: Vec::new(),
    }
}

/// ARNs below a stack's or a resource's own name.
fn named(settings: &Bootstrap, service: &str, kinds: &[&str]) -> Vec<Text> {
    kinds.iter().map(|kind| text![settings.arn(service, &kind.replace("{fleet}", &settings.fleet))]).collect()
}
