//! `show stack/NAME`: a template as it would be deployed, from the checked model alone.

use fleet_model::{Address, Kind, model::Target};
use fleet_stacks::{BOOTSTRAP, Bootstrap, MAX_BYTES, MAX_INLINE_BYTES, MAX_RESOURCES, Rendered};

use crate::{
    context::{Context, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    ui::table::Table,
};

/// Prints a template on stdout, and on stderr what it holds.
///
/// # Errors
/// An address that names no stack of the environment; a stack that cannot be rendered.
pub fn show(context: &Context, prepared: &Prepared, address: &str, repository: Option<&str>) -> Outcome {
    let environment = prepared.environment()?;
    let asked: Address =
        address.parse().map_err(|error| Failure::caused(Exit::Usage, "there is nothing to show", &error))?;
    let known =
        || stacks(prepared).map(|all| all.into_iter().map(|stack| format!("stack/{}", stack.name)).collect::<Vec<_>>());
    if asked.kind != Kind::Stack {
        return Err(Failure::new(Exit::Usage, format!("{asked} has no page of its own here"))
            .hint(format!("`fleetctl diff --offline -e {}` shows every object in full", environment.name)));
    }
    let rendered = if asked.name == BOOTSTRAP {
        Some(bootstrap(prepared, repository, None)?)
    } else {
        stacks(prepared)?.into_iter().find(|stack| stack.name == asked.name)
    };
    let Some(rendered) = rendered else {
        return Err(match &environment.target {
            Target::Docker => {
                Failure::new(Exit::Usage, format!("environment {} is not on AWS: it has no stacks", environment.name))
            }
            Target::Aws { .. } => Failure::new(Exit::Usage, format!("environment {} has no {asked}", environment.name))
                .hint(format!("it has {} and stack/{BOOTSTRAP}", known()?.join(", "))),
        });
    };
    print_out(&fleet_stacks::pretty(&rendered.body));
    if !context.json() {
        eprintln!("{asked}: {}", size(&rendered));
    }
    Ok(Exit::Done)
}

fn stacks(prepared: &Prepared) -> Result<Vec<Rendered>, Failure> {
    fleet_graph::stacks::render(&prepared.model, prepared.environment()?).map_err(|problems| {
        let mut failure = Failure::new(Exit::Failed, "the stacks cannot be rendered");
        failure.causes.extend(problems.iter().map(ToString::to_string));
        failure.hints.extend(problems.into_iter().map(|problem| problem.help).take(1));
        failure
    })
}

/// A table of the environment's stacks; empty where there are none.
///
/// # Errors
/// A stack that cannot be rendered.
pub fn list(prepared: &Prepared) -> Result<String, Failure> {
    let mut table = Table::default();
    for stack in stacks(prepared)? {
        table.row([format!("stack/{}", stack.name), size(&stack)]);
    }
    Ok(table.text())
}

fn size(stack: &Rendered) -> String {
    let bytes = stack.body.len();
    let limit = if bytes <= MAX_INLINE_BYTES {
        format!("{MAX_INLINE_BYTES} within a request ({MAX_BYTES} through the state bucket)")
    } else {
        format!("{MAX_BYTES} through the state bucket (above {MAX_INLINE_BYTES} within a request)")
    };
    format!(
        "{} of {MAX_RESOURCES} resources, {bytes} bytes of {limit}, template {}",
        stack.resources,
        stack.hash.short()
    )
}

/// `stack/bootstrap`.
#[must_use]
pub fn bootstrap_address() -> Address {
    Address::new(Kind::Stack, BOOTSTRAP)
}

/// For every environment of this account and region. `provider` is the account's own for GitHub, where the stack is not to
/// make one.
///
/// # Errors
/// An environment that is not on AWS; a repository that is none.
pub fn bootstrap(prepared: &Prepared, repository: Option<&str>, provider: Option<String>) -> Result<Rendered, Failure> {
    let (model, environment) = (&prepared.model, prepared.environment()?);
    let Target::Aws { account, region, .. } = &environment.target else {
        return Err(Failure::new(Exit::Usage, format!("environment {} is not on AWS", environment.name)));
    };
    let repository = repository.filter(|name| is_repository(name)).ok_or_else(|| {
        Failure::new(
            Exit::Usage,
            format!("stack/{BOOTSTRAP} trusts the workflows of one repository, and none is named"),
        )
        .hint("add --repository OWNER/NAME, as GitHub writes it")
    })?;
    let here = model.environments.values().filter(|other| {
        matches!(&other.target, Target::Aws { account: there, region: where_, .. } if there == account && where_ == region)
    });
    fleet_stacks::bootstrap(&Bootstrap {
        fleet: model.fleet.name.clone(),
        account: account.clone(),
        region: region.clone(),
        repository: repository.to_owned(),
        environments: here.map(|other| other.name.clone()).collect(),
        provider,
    })
    .map_err(|error| Failure::caused(Exit::Failed, "the stack cannot be rendered", &error))
}

/// Letters, digits, dots, dashes and underscores on both sides of one slash: nothing that a condition would read as a pattern.
fn is_repository(name: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
    name.split_once('/').is_some_and(|(owner, name)| plain(owner) && plain(name))
}
