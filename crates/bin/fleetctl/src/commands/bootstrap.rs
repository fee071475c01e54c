//! `bootstrap`: `stack/bootstrap` of an AWS account, which an administrator makes once and brings up to date with `fleetctl`:
//! the state bucket, what workflows of the repository may act as, and what bounds every role of the fleet.

use std::collections::{BTreeMap, BTreeSet};

use fleet_apply::{Execution, Provider as _, Report, Secrets, Silent, execute};
use fleet_aws::{Account, StackProvider};
use fleet_derivation::{Derivation, DerivationGraph};
use fleet_model::Address;
use fleet_plan::{Desired, Plan, StackSpec, State};
use fleet_planner::Planning;
use fleet_stacks::{BOOTSTRAP, Rendered};
use serde_json::json;

use crate::{
    cloud,
    commands::{apply, stack},
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    ui::{
        self,
        out::{tell, to_stderr},
        table::Table,
    },
    world::unobservable,
};

/// `fleetctl bootstrap`.
///
/// # Errors
/// An environment that is not on AWS; credentials of another account; a repository that is none. What CloudFormation refuses
/// is in the exit code.
pub async fn bootstrap(context: &Context, environment: &str, repository: Option<&str>, approved: bool) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    match prepare(context, &prepared, repository, approved).await? {
        Ended::Stands(account) => tell_outputs(context, &account, &prepared).await.map(|()| Exit::Done),
        Ended::Otherwise(exit) => Ok(exit),
    }
}

/// How it ended.
pub enum Ended {
    /// The stack is as it should be.
    Stands(Box<Account>),
    /// It failed, which was told; or nobody wanted it.
    Otherwise(Exit),
}

/// Makes the stack what it should be, without telling what came of it.
///
/// # Errors
/// See [`bootstrap`].
pub async fn prepare(
    context: &Context,
    prepared: &Prepared,
    repository: Option<&str>,
    approved: bool,
) -> Result<Ended, Failure> {
    // What needs no account is refused first.
    let fresh = stack::bootstrap(prepared, repository, None)?;
    let (account, _) = cloud::account(context, prepared).await?;
    let stacks = StackProvider::new(account.clone(), prepared.scope.clone(), BTreeSet::new());
    let address = stack::bootstrap_address();
    let state = stacks.observe(std::slice::from_ref(&address)).await.map_err(unobservable)?;
    let rendered = match adopted(&account, &state, &address).await? {
        Some(provider) => stack::bootstrap(prepared, repository, Some(provider))?,
        None => fresh,
    };
    let plan = planned(prepared, &address, rendered, &state);
    to_stderr(format_args!("{}", ui::plan::text(&plan, ui::style::Style::stderr(context.global.color))));
    if !plan.is_empty() && !approved && !apply::confirm(&format!("Change account {}?", account.place.account))? {
        tell!("nothing was changed");
        return Ok(Ended::Otherwise(Exit::Done));
    }
    let report = if plan.is_empty() { Report::default() } else { carry_out(context, prepared, &stacks, &plan).await? };
    if !plan.is_empty() {
        let (exit, _) = apply::conclude(context, &plan, &report, &[]);
        if exit != Exit::Done {
            return Ok(Ended::Otherwise(exit));
        }
    }
    Ok(Ended::Stands(Box::new(account)))
}

/// The account's own provider for GitHub, where the stack did not make it: an account can have only one.
async fn adopted(account: &Account, state: &State, address: &Address) -> Result<Option<String>, Failure> {
    if state.stacks.get(address).is_some_and(|deployed| fleet_stacks::makes_provider(&deployed.template)) {
        return Ok(None);
    }
    let found = account.github_provider().await;
    found.map_err(|error| Failure::caused(Exit::Failed, "the account's identity providers cannot be read", &error))
}

fn planned(prepared: &Prepared, address: &Address, rendered: Rendered, state: &State) -> Plan {
    let mut derivation = Derivation::new(address.clone());
    derivation.value("template", rendered.hash.to_string(), None);
    let mut graph = DerivationGraph::default();
    graph.insert(derivation);
    let Rendered { body, parameters, tags, keys, .. } = rendered;
    let desired = Desired::Stack(StackSpec { template: body, parameters, tags, keys });
    fleet_planner::plan(&Planning {
        fleet: &prepared.scope.fleet,
        environment: &prepared.scope.environment,
        graph: &graph,
        desired: &BTreeMap::from([(address.clone(), desired)]),
        state,
        known: &BTreeMap::new(),
        last: &BTreeMap::new(),
    })
}

async fn carry_out(
    context: &Context,
    prepared: &Prepared,
    stacks: &StackProvider,
    plan: &Plan,
) -> Result<Report, Failure> {
    let secrets: Secrets = context.machine.operator_secrets(&prepared.model)?;
    let execution = Execution {
        plan,
        providers: &[stacks],
        secrets: &secrets,
        rollout: prepared.environment()?.rollout,
        events: &*context.console,
        // No environment has it, so no generation does.
        recorder: &Silent,
        stop: context.interrupts.applying(),
    };
    let report = execute(&execution, BTreeMap::new()).await;
    context.interrupts.applied();
    Ok(report)
}

/// What a repository's settings are told, on stdout.
async fn tell_outputs(context: &Context, account: &Account, prepared: &Prepared) -> Result<(), Failure> {
    let outputs = account.outputs_of(&prepared.scope, BOOTSTRAP).await;
    let outputs = outputs.map_err(|error| Failure::caused(Exit::Failed, "what was made cannot be read", &error))?;
    if context.json() {
        print_json(&json!({"schema": 1, "account": account.place.account, "outputs": outputs}));
        return Ok(());
    }
    let mut table = Table::default();
    for (name, what) in [
        ("StateBucket", "state bucket"),
        ("PlanRoleArn", "role of pull requests"),
        ("ApplyRoleArn", "role of deployments"),
    ] {
        if let Some(value) = outputs.get(name) {
            table.row([what.to_owned(), value.clone()]);
        }
    }
    print_out(&table.text());
    Ok(())
}
