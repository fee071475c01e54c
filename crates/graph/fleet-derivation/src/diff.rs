//! [`difference`]: why two derivations of one address differ, input by input. `why` and `plan` show it.

use fleet_model::Origin;
use serde::{Deserialize, Serialize};

use crate::{Derivation, Input};

/// How one input differs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InputChange {
    /// The input's name.
    pub input: String,
    /// What it was; `None`: it was not there.
    pub before: Option<Input>,
    /// What it is; `None`: it is gone.
    pub after: Option<Input>,
    /// Where the new one (else the old one) is declared.
    pub origin: Option<Origin>,
}

impl InputChange {
    /// Changed only because another derivation changed, which has reasons of its own.
    #[must_use]
    pub fn cascaded(&self) -> bool {
        matches!(self.after.as_ref().or(self.before.as_ref()), Some(Input::Derivation { .. }))
    }
}

/// Every input that differs, in order of names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The inputs.
    pub changes: Vec<InputChange>,
}

/// Compares two derivations of one address.
#[must_use]
pub fn difference(before: &Derivation, after: &Derivation) -> Difference {
    let names: std::collections::BTreeSet<&String> = before.inputs.keys().chain(after.inputs.keys()).collect();
    let changes = names
        .into_iter()
        .filter_map(|name| {
            let (old, new) = (before.inputs.get(name), after.inputs.get(name));
            if same(old, new) {
                return None;
            }
            Some(InputChange {
                input: name.clone(),
                before: old.cloned(),
                after: new.cloned(),
                origin: after.origins.get(name).or_else(|| before.origins.get(name)).cloned(),
            })
        })
        .collect();
    Difference { changes }
}

/// Equal as far as a hash can tell: two derivations with one known output are the same input.
fn same(old: Option<&Input>, new: Option<&Input>) -> bool {
    match (old, new) {
        (
            Some(Input::Derivation { address: a, output: Some(x), .. }),
            Some(Input::Derivation { address: b, output: Some(y), .. }),
        ) => a == b && x == y,
        _ => old == new,
    }
}
