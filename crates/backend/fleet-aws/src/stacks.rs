//! [`StackProvider`]: CloudFormation stacks, each made what the plan says through one change set.
//!
//! A run may end at any call: change sets are named by what they contain, so that the next run finds the one that was made
//! and lost, and a stack that is being worked on is waited for before anything is decided.

mod change_set;
mod read;
mod remove;
mod verdict;
mod wait;

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use fleet_apply::{Applied, Events, Provider, ProviderError, Ready, Scope};
use fleet_model::{Address, Kind};
use fleet_plan::{Change, Desired, StackParameter, StackSpec, State};
use fleet_stacks::{Known, MAX_INLINE_BYTES, SHARED};
use futures::future::{join_all, try_join_all};

use self::{
    read::{Standing, Stood, stack_name},
    wait::{At, Settled},
};
use crate::{
    account::Account,
    error::AwsError,
    secrets::{SECRET_OUTPUT, SecretError},
};

/// What goes with what it is of, without being asked for: the plan says that it does.
const LOGS: &str = "AWS::Logs::LogGroup";

/// Stacks of one environment, and the one that all environments share.
pub struct StackProvider {
    account: Account,
    scope: Scope,
    allowed: BTreeSet<String>,
}

impl StackProvider {
    /// For one environment. `allowed` are resources that hold data and may be replaced or removed, as
    /// `stack/NAME/RESOURCE`.
    #[must_use]
    pub const fn new(account: Account, scope: Scope, allowed: BTreeSet<String>) -> Self {
        Self { account, scope, allowed }
    }

    async fn values(
        &self,
        doing: &Doing<'_>,
        ready: &Ready<'_>,
        now: Option<&Stood>,
    ) -> Result<BTreeMap<String, String>, ProviderError> {
        let derivation = doing.change.derivation.as_ref().map(|made| made.with_outputs(ready.outputs));
        let derivation = derivation.ok_or_else(|| doing.at.failed("the plan has no derivation for it"))?;
        let outputs = self.outputs(doing).await?;
        let machine = doing.spec.parameters.iter().find(|(_, from)| **from == StackParameter::MachineImage);
        let machine_image = match machine {
            // The one that runs is kept: another one would replace the machine.
            Some((id, _)) => match now.and_then(|stood| stood.stack.parameters.get(id)) {
                Some(deployed) => Some(deployed.clone()),
                None => Some(self.account.newest_machine_image().await.map_err(|error| doing.at.aws(error))?),
            },
            None => None,
        };
        let known = Known {
            outputs: outputs.iter().map(|(name, outputs)| (name.as_str(), outputs)).collect(),
            machine_image: machine_image.as_deref(),
        };
        let values = known.values(doing.spec, &derivation);
        let unknown: Vec<&str> = values.iter().filter(|(_, v)| v.is_none()).map(|(id, _)| id.as_str()).collect();
        if !unknown.is_empty() {
            let why = format!("nothing gives a value to {}", unknown.join(", "));
            return Err(doing
                .at
                .failed(why)
                .help("apply the whole environment: stacks and images that it takes them from"));
        }
        Ok(values.into_iter().filter_map(|(id, value)| Some((id, value?))).collect())
    }

    /// Outputs of the stacks that parameters come from.
    async fn outputs(&self, doing: &Doing<'_>) -> Result<BTreeMap<String, BTreeMap<String, String>>, ProviderError> {
        let names: BTreeSet<&str> = doing.spec.parameters.values().filter_map(source).collect();
        let read = names.into_iter().map(|name| async move {
            Ok::<_, AwsError>((name.to_owned(), self.account.outputs_of(&self.scope, name).await?))
        });
        Ok(try_join_all(read).await.map_err(|error| doing.at.aws(error))?.into_iter().collect())
    }

    /// The template as a request carries it: within, or as an address in the state bucket.
    async fn template(&self, doing: &Doing<'_>) -> Result<Sent, ProviderError> {
        let (text, size) = (&doing.spec.template, doing.spec.template.len());
        if size <= MAX_INLINE_BYTES {
            return Ok(Sent::Within(text.clone()));
        }
        let Some(bucket) = self.account.state_bucket_name(&self.scope, &doing.change.address).await? else {
            let why = format!(
                "its template has {size} bytes; one above {MAX_INLINE_BYTES} goes through the state bucket, and the account has none"
            );
            let help = format!(
                "prepare the account: fleetctl bootstrap -e {} --repository OWNER/NAME",
                self.scope.environment
            );
            return Err(doing.at.failed(why).help(help));
        };
        let sent = self.account.ensure_template(&bucket, text).await;
        let address = sent.map_err(|error| {
            doing.at.failed(format!("its template of {size} bytes could not be put into {bucket}: {error}"))
        })?;
        doing.at.progress(format!("its template of {size} bytes goes through {bucket}"));
        Ok(Sent::At(address))
    }

    /// Writes what the stack's services read and is not there yet.
    async fn keys(&self, doing: &Doing<'_>) -> Result<bool, ProviderError> {
        if doing.spec.keys.is_empty() {
            return Ok(false);
        }
        let outputs = self.outputs(doing).await?;
        let secret = outputs.values().find_map(|outputs| outputs.get(SECRET_OUTPUT));
        let Some(secret) = secret else {
            let why = "the fleet secret is not there: no stack that it takes parameters from has one";
            return Err(doing.at.failed(why));
        };
        let written = self.account.ensure_keys(&doing.spec.keys, secret).await.map_err(|error| match error {
            SecretError::Aws(error) => doing.at.aws(error),
            error @ (SecretError::Shape(_) | SecretError::NoText(_)) => doing.at.failed(error.to_string()),
        })?;
        if written > 0 {
            doing.at.progress(format!("wrote {written} of {} parameters", doing.spec.keys.len()));
        }
        Ok(written > 0)
    }

    /// Refuses what would lose or leave behind data without leave, before anything is asked of AWS.
    fn allow(&self, doing: &Doing<'_>) -> Result<(), ProviderError> {
        let stack = &doing.change.address;
        let resource = |id: &str| format!("{stack}/{id}");
        let touched = doing.change.resources.iter().filter(|change| change.touches_data() && change.kind != LOGS);
        let refused: Vec<String> =
            touched.map(|change| resource(&change.id)).filter(|id| !self.allowed.contains(id)).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let flags: Vec<String> = refused.iter().map(|id| format!("--allow-destroy {id}")).collect();
        let why = format!("what {} holds would be lost or left behind; nothing was changed", refused.join(", "));
        Err(doing.at.failed(why).help(format!("if that is meant: {}", flags.join(" "))))
    }
}

fn source(parameter: &StackParameter) -> Option<&str> {
    match parameter {
        StackParameter::Output { stack, .. } => Some(stack),
        StackParameter::Image { .. } => Some(SHARED),
        StackParameter::MachineImage => None,
    }
}

#[async_trait]
impl Provider for StackProvider {
    fn name(&self) -> &'static str {
        "stacks"
    }

    fn owns(&self, address: &Address) -> bool {
        address.kind == Kind::Stack
    }

    async fn observe(&self, wanted: &[Address]) -> Result<State, ProviderError> {
        let stacks = wanted.iter().filter(|address| self.owns(address));
        let read = stacks.map(|address| async move {
            let standing = self.account.stack(&stack_name(&self.scope, &address.name), &self.scope.fleet).await;
            (address, standing)
        });
        let mut state = State::default();
        for (address, standing) in join_all(read).await {
            let standing = standing.map_err(|error| error.about(address))?;
            if let Some(observed) = standing.observed() {
                state.objects.insert(address.clone(), observed);
            }
            if let Standing::Stands(stood) = standing {
                state.stacks.insert(address.clone(), stood.stack);
            }
        }
        Ok(state)
    }

    async fn apply(&self, change: &Change, ready: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        let Some(Desired::Stack(spec)) = &change.desired else {
            return Err(ProviderError::failed(&change.address, "stacks are removed by `destroy` alone"));
        };
        let name = stack_name(&self.scope, &change.address.name);
        let at = At { address: &change.address, name, events, account: &self.account, fleet: &self.scope.fleet };
        let doing = Doing { change, spec, at };
        self.allow(&doing)?;
        let Settled { now, moved } = doing.settled().await?;
        let values = self.values(&doing, ready, now.as_ref()).await?;
        if let Some(why) = moved {
            // Somebody else made it, and the same: then that is all.
            return match doing.is_right(now.as_ref(), &values) {
                true => Ok(Applied::Unchanged { output: None }),
                false => Err(doing.stale(why)),
            };
        }
        let template = self.template(&doing).await?;
        let wrote = self.keys(&doing).await?;
        let changed = doing.make(now.as_ref(), &values, &template).await?;
        Ok(if changed || wrote { Applied::Changed { output: None } } else { Applied::Unchanged { output: None } })
    }
}

/// How CloudFormation is given a template.
enum Sent {
    /// In the request.
    Within(String),
    /// By the address of an object.
    At(String),
}

/// One change of one stack.
struct Doing<'a> {
    change: &'a Change,
    spec: &'a StackSpec,
    at: At<'a>,
}

impl Doing<'_> {
    /// Does the stack stand as it should?
    fn is_right(&self, now: Option<&Stood>, values: &BTreeMap<String, String>) -> bool {
        now.is_some_and(|stood| self.has_template(stood) && stood.stack.parameters == *values)
    }

    fn has_template(&self, stood: &Stood) -> bool {
        let template = |text: &str| serde_json::from_str::<serde_json::Value>(text).ok();
        template(&stood.stack.template) == template(&self.spec.template)
    }

    fn stale(&self, why: String) -> ProviderError {
        ProviderError::Stale { address: self.change.address.clone(), why }
    }
}
