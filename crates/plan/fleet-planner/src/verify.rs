//! [`verify`]: facts of an account → findings: what an `apply` of the environment would fail for, before it begins.
//!
//! Deliberately absent: what `check` and `plan` find in files, and calls to AWS.

mod quotas;

use std::collections::{BTreeMap, BTreeSet};

use fleet_plan::{
    AgentSpec, SecretUse,
    verify::{Access, Facts, Finding, Provided, SecretState, Seen, Unseen, Verdict},
};
use fleet_stacks::{demand::Demand, quota::Quota};
use serde_json::Value;

/// What an environment needs of its account.
pub struct Needs<'a> {
    /// Environment name.
    pub environment: &'a str,
    /// For instance `us-east-1`.
    pub region: &'a str,
    /// Templates as rendered, by the stacks' names in addresses.
    pub templates: BTreeMap<&'a str, &'a str>,
    /// Agents by name.
    pub agents: BTreeMap<&'a str, &'a AgentSpec>,
    /// What tasks run on: `linux/amd64`.
    pub platform: &'a str,
    /// Images of tasks, with the platforms that they are declared for; none: the target's own.
    pub images: BTreeMap<&'a str, &'a [String]>,
    /// Variables of the operator that are set.
    pub given: BTreeSet<&'a str>,
}

impl Needs<'_> {
    /// What it takes of the account's quotas.
    #[must_use]
    pub fn demand(&self) -> Demand {
        Demand::of(self.templates.values().copied(), self.agents.iter().map(|(name, agent)| (*name, *agent)))
    }

    /// Quotas that it takes something of.
    #[must_use]
    pub fn quotas(&self) -> BTreeSet<Quota> {
        self.demand().counts.into_keys().collect()
    }

    /// Parameters that hold what an operator provides, with the variable that it is of.
    #[must_use]
    pub fn provided(&self) -> BTreeMap<&str, &str> {
        let all = self.agents.values().flat_map(|agent| &agent.parameters);
        all.filter_map(|(parameter, secret)| match secret {
            SecretUse::Operator { name } => Some((parameter.as_str(), name.as_str())),
            SecretUse::Password { .. } | SecretUse::Key { .. } => None,
        })
        .collect()
    }
}

/// Every finding, in the order in which an `apply` would meet them.
#[must_use]
pub fn verify(needs: &Needs<'_>, facts: &Facts) -> Vec<Finding> {
    let mut found = vec![boundary(facts)];
    found.extend(facts.workflow_roles.iter().map(|(role, there)| workflow_role(role, there)));
    found.push(trusts(needs, facts));
    found.push(secret(needs, facts));
    found.extend(needs.provided().into_iter().map(|(parameter, variable)| provided(needs, facts, parameter, variable)));
    found.extend(needs.images.iter().map(|(image, declared)| platform(needs, image, declared)));
    found.extend(
        facts
            .models
            .iter()
            .map(|(model, access)| model_access(&format!("model {} in {}", model.id, model.region), access)),
    );
    found.extend(quotas::judge(needs, facts));
    found
}

fn unseen(what: impl Into<String>, Unseen { why }: &Unseen) -> Finding {
    Finding::new(Verdict::Unseen, what, format!("could not be looked at: {why}"))
}

fn boundary(facts: &Facts) -> Finding {
    let what = "boundary of roles";
    match &facts.boundary {
        Err(why) => unseen(what, why),
        Ok(true) => Finding::new(Verdict::Ok, what, "is there"),
        Ok(false) => Finding::new(Verdict::Failed, what, "is not there: no role of the fleet can be made")
            .remedy("the account's administrator runs `fleetctl bootstrap` once"),
    }
}

fn workflow_role(role: &str, there: &Seen<bool>) -> Finding {
    let what = format!("role {role}");
    match there {
        Err(why) => unseen(what, why),
        Ok(true) => Finding::new(Verdict::Ok, what, "is there"),
        Ok(false) => Finding::new(Verdict::Warning, what, "is not there: workflows of the repository cannot act as it")
            .remedy("the account's administrator runs `fleetctl bootstrap`; who deploys from a machine needs none"),
    }
}

/// Can tasks of agents act as the roles that are there? A role that is not there is made, right.
fn trusts(needs: &Needs<'_>, facts: &Facts) -> Finding {
    let what = "roles of agents";
    let there = match &facts.trusts {
        Err(why) => return unseen(what, why),
        Ok(there) => there,
    };
    let document = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let known: Vec<_> = needs.agents.values().filter_map(|agent| Some((agent, there.get(&agent.role.name)?))).collect();
    let wrong: Vec<&str> = known
        .iter()
        .filter(|(agent, trust)| document(trust) != document(&agent.role.trust))
        .map(|(agent, _)| agent.role.name.as_str())
        .collect();
    if wrong.is_empty() {
        let found = format!(
            "{} are there and tasks can act as them, {} are to be made",
            known.len(),
            needs.agents.len() - known.len()
        );
        return Finding::new(Verdict::Ok, what, found);
    }
    Finding::new(Verdict::Failed, what, format!("somebody changed who may act as {}", wrong.join(", ")))
        .needs("tasks of ECS in this account")
        .remedy("remove these roles: `fleetctl apply` makes them again when it rolls their agents")
}

fn secret(needs: &Needs<'_>, facts: &Facts) -> Finding {
    let what = "fleet secret";
    let state = match &facts.secret {
        Err(why) => return unseen(what, why),
        Ok(state) => state,
    };
    let data = format!("{}-data", needs.environment);
    let stands = facts.deployed.as_ref().map(|stacks| stacks.contains_key(data.as_str()));
    let taken = |found: &str| {
        Finding::new(Verdict::Failed, what, format!("{found}, and stack/{data}, which makes it, is not")).remedy(
            "it is left from elsewhere: remove it for good with `aws secretsmanager delete-secret --force-delete-without-recovery`, unless it is still needed",
        )
    };
    let failed = |found: String| {
        Finding::new(Verdict::Failed, what, found)
            .needs("JSON {\"secret\": …} with at least 16 characters")
            .remedy("restore its former value: `aws secretsmanager list-secret-version-ids`, then `update-secret-version-stage`")
    };
    match (state, stands) {
        (SecretState::Absent, Ok(true)) => {
            Finding::new(Verdict::Failed, what, format!("is gone, and stack/{data} stands"))
                .remedy("make it again under the same name with its former value: every password is derived from it")
        }
        (SecretState::Absent, Ok(false)) => Finding::new(Verdict::Ok, what, format!("is made with stack/{data}")),
        (SecretState::Absent, Err(_)) => Finding::new(Verdict::Ok, what, "is not there yet"),
        (SecretState::Leaving, Ok(true)) => {
            Finding::new(Verdict::Failed, what, "is about to be removed").remedy("`aws secretsmanager restore-secret`")
        }
        (SecretState::Leaving, _) => taken("is about to be removed and keeps its name until then"),
        (_, Ok(false)) => taken("is there"),
        (SecretState::Closed(why), _) => {
            Finding::new(Verdict::Unseen, what, format!("is there; what is in it could not be looked at: {why}"))
        }
        (SecretState::Shapeless, _) => failed("is no JSON object".to_owned()),
        (SecretState::NoField(fields), _) => {
            let fields = if fields.is_empty() { "none".to_owned() } else { fields.join(", ") };
            failed(format!("has no field `secret`; its fields: {fields}"))
        }
        (SecretState::TooShort, _) => failed("its field `secret` is no text of at least 16 characters".to_owned()),
        (SecretState::Right, _) => Finding::new(Verdict::Ok, what, "is there, with its field `secret`"),
    }
}

fn provided(needs: &Needs<'_>, facts: &Facts, parameter: &str, variable: &str) -> Finding {
    let what = format!("key {variable}");
    if needs.given.contains(variable) {
        return Finding::new(Verdict::Ok, what, "is set here; `apply` gives it to agents");
    }
    match facts.parameters.as_ref().map(|all| all.get(parameter)) {
        Err(why) => unseen(what, why),
        Ok(Some(Provided::Given)) => Finding::new(
            Verdict::Ok,
            what,
            format!("is not set here; agents have the one of an earlier apply, {parameter}"),
        ),
        Ok(_) => {
            Finding::new(Verdict::Warning, what, "is set neither here nor in the account: agents run and cannot think")
                .remedy(format!("set {variable} to a key of its provider before `fleetctl apply`"))
        }
    }
}

fn platform(needs: &Needs<'_>, image: &str, declared: &[String]) -> Finding {
    let (what, tasks) = (format!("image/{image}"), needs.platform);
    if declared.is_empty() || declared.iter().any(|one| one == tasks) {
        return Finding::new(Verdict::Ok, what, format!("is for {tasks}, as tasks are"));
    }
    Finding::new(Verdict::Failed, what, format!("is declared for {}", declared.join(", ")))
        .needs(tasks)
        .remedy(format!("add {tasks} to its `platform`; what tasks run on goes by the homeserver's image"))
}

fn model_access(what: &str, access: &Seen<Access>) -> Finding {
    let ask = "an administrator opens the model catalog of Amazon Bedrock in that region and asks for access; for models of Anthropic with the form about the use case";
    let refused = |found: String, remedy: &str| Finding::new(Verdict::Failed, what, found).remedy(remedy);
    match access {
        Err(why) => unseen(what, why),
        Ok(Access::Ready) => Finding::new(Verdict::Ok, what, "can be asked"),
        Ok(Access::Absent) => refused("there is none".to_owned(), "mend its name or the provider's region in fleet.kdl"),
        Ok(Access::Inactive(word)) => {
            refused(format!("its inference profile is {word}"), "declare another model or inference profile")
        }
        Ok(Access::Refused(why)) => refused(format!("the account may not use it: {why}"), ask),
        Ok(Access::NoAgreement(word)) => Finding::new(
            Verdict::Warning,
            what,
            format!("its agreement is {word}: whoever asks first accepts it and must be allowed to subscribe, which agents are not"),
        )
        .remedy(ask),
    }
}
