//! Stacks: what would happen to every resource, from the rendered and the deployed template.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::Derivation;
use fleet_model::Address;
use fleet_plan::{Action, DeployedStack, Reason, ResourceChange, StackParameter, StackSpec};
use fleet_stacks::{Known, Snapshot, compare};
use serde_json::Value;

use crate::{Planning, Verdict};

/// Stands for a value that is known only once something else was made.
const LATER: &str = "known once it is made";

impl Planning<'_> {
    /// What a deployed stack has to go through; `None`: it is as declared.
    pub(crate) fn judge_stack(
        &self,
        address: &Address,
        spec: &StackSpec,
        derivation: &Derivation,
        deployed: &DeployedStack,
    ) -> Option<Verdict> {
        let values = self.values(spec, derivation, deployed);
        let unknown = values.values().any(Option::is_none);
        let resources = resources(spec, deployed, &values);
        let differences = differences(spec, deployed, &values);
        if differences.is_empty() && !unknown {
            let unfinished = self.state.objects.get(address)?.unfinished.clone()?;
            return Some(Verdict::new(Action::Update, vec![Reason::Drift { what: unfinished }]));
        }
        let last = self.last.get(address).copied().filter(|last| *last != derivation.hash());
        let mut reasons = if last.is_some() { self.reasons(last, derivation) } else { Vec::new() };
        if reasons.is_empty() || reasons == [Reason::Unknown] {
            reasons = differences.iter().map(|what| Reason::Drift { what: what.clone() }).collect();
        }
        if reasons.is_empty() {
            reasons.push(Reason::Drift { what: "an image that it runs is not pushed yet".to_owned() });
        }
        let verdict = Verdict { resources, ..Verdict::new(Action::Update, reasons) };
        Some(if differences.is_empty() { verdict.conditional() } else { verdict })
    }

    fn values(
        &self,
        spec: &StackSpec,
        derivation: &Derivation,
        deployed: &DeployedStack,
    ) -> BTreeMap<String, Option<String>> {
        let outputs =
            self.state.stacks.iter().map(|(address, stack)| (address.name.as_str(), &stack.outputs)).collect();
        let machine = spec.parameters.iter().find(|(_, from)| **from == StackParameter::MachineImage);
        let machine_image = machine.and_then(|(id, _)| deployed.parameters.get(id)).map(String::as_str);
        Known { outputs, machine_image }.values(spec, derivation)
    }
}

fn resources(
    spec: &StackSpec,
    deployed: &DeployedStack,
    values: &BTreeMap<String, Option<String>>,
) -> Vec<ResourceChange> {
    let template = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    let (rendered, present) = (template(&spec.template), template(&deployed.template));
    let values: BTreeMap<String, String> =
        values.iter().map(|(id, value)| (id.clone(), value.clone().unwrap_or_else(|| LATER.to_owned()))).collect();
    compare(
        Snapshot { template: &rendered, parameters: &values },
        Snapshot { template: &present, parameters: &deployed.parameters },
    )
}

/// What is otherwise than declared, in words; what is not known yet is left out.
fn differences(spec: &StackSpec, deployed: &DeployedStack, values: &BTreeMap<String, Option<String>>) -> Vec<String> {
    let mut found = Vec::new();
    let template = |text: &str| serde_json::from_str::<Value>(text).ok();
    if template(&spec.template) != template(&deployed.template) {
        found.push("its template is another one".to_owned());
    }
    let ids: BTreeSet<&String> = values.keys().chain(deployed.parameters.keys()).collect();
    for id in ids {
        let (wanted, present) = (values.get(id), deployed.parameters.get(id));
        if matches!(wanted, Some(None)) {
            continue;
        }
        let wanted = wanted.and_then(Option::as_ref);
        if wanted != present {
            let text = |value: Option<&String>| value.cloned().unwrap_or_else(|| "nothing".to_owned());
            found.push(format!("parameter {id}: {} → {}", text(present), text(wanted)));
        }
    }
    if spec.tags.iter().any(|(name, value)| deployed.tags.get(name) != Some(value)) {
        found.push("its tags are others".to_owned());
    }
    found
}
