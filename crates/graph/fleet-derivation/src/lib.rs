//! Derivations: one task and all of its inputs, named by a hash of exactly those inputs.
//!
//! The main types are [`Derivation`] and [`DerivationGraph`]. A derivation's [`Hash`] is BLAKE3 over a
//! canonical, length-prefixed, domain-separated encoding ([`encoding`]); what may and may not be part of it is
//! listed in `docs/concepts/derivations.md`.
//!
//! Deliberately absent: how inputs are found (fleet-graph), what exists (fleet-plan's `State`), files, clock.

pub mod diff;
pub mod encoding;
mod graph;
mod hash;

pub use diff::{Difference, InputChange, difference};
pub use graph::{Cycle, DerivationGraph, Hashed};
pub use hash::{Hash, NotAHash};

use std::collections::BTreeMap;

use fleet_model::{Address, Origin, RelPath};
use serde::{Deserialize, Serialize};

/// One input of a derivation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "input")]
pub enum Input {
    /// A value: a model name, a rendered configuration's hash, a size.
    Value {
        /// The value as text, as a person would write it.
        text: String,
    },
    /// A file of the project.
    File {
        /// Where.
        path: RelPath,
        /// BLAKE3 of the bytes.
        hash: Hash,
        /// The execute bit.
        executable: bool,
    },
    /// Another derivation.
    Derivation {
        /// Which.
        address: Address,
        /// Its own hash.
        hash: Hash,
        /// What it is known to produce. Where known, this and not `hash` enters the hash of the derivation
        /// that has this input: early cutoff.
        output: Option<String>,
    },
    /// A secret by name and epoch; never its value.
    Secret {
        /// Name of the secret.
        name: String,
        /// Grows when the value changes.
        epoch: u32,
    },
}

/// One task and all of its inputs, by input name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Derivation {
    /// What this derives.
    pub address: Address,
    /// Every input that can change the result, by a name that a person understands: `model`, `env.NODE_ENV`.
    pub inputs: BTreeMap<String, Input>,
    /// Where inputs were declared; explains, and is not part of the hash.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub origins: BTreeMap<String, Origin>,
}

impl Derivation {
    /// A derivation without inputs yet.
    #[must_use]
    pub const fn new(address: Address) -> Self {
        Self { address, inputs: BTreeMap::new(), origins: BTreeMap::new() }
    }

    /// Adds a value.
    pub fn value(&mut self, name: impl Into<String>, text: impl Into<String>, origin: Option<&Origin>) {
        self.input(name, Input::Value { text: text.into() }, origin);
    }

    /// Adds any input.
    pub fn input(&mut self, name: impl Into<String>, input: Input, origin: Option<&Origin>) {
        let name = name.into();
        if let Some(origin) = origin {
            self.origins.insert(name.clone(), origin.clone());
        }
        self.inputs.insert(name, input);
    }

    /// The hash of this derivation: of its address and inputs, never of origins.
    #[must_use]
    pub fn hash(&self) -> Hash {
        encoding::hash(self)
    }

    /// Inputs whose output is not known yet: until it is, this derivation's hash is provisional.
    pub fn pending(&self) -> impl Iterator<Item = &Address> {
        self.inputs.values().filter_map(|input| match input {
            Input::Derivation { address, output: None, .. } if address.kind == fleet_model::Kind::Image => {
                Some(address)
            }
            _ => None,
        })
    }

    /// This derivation with the outputs of its inputs filled in where `outputs` knows them (by derivation hash).
    /// An image keeps naming what it stands on by derivation: its tag must be known before anything is built.
    #[must_use]
    pub fn with_outputs(&self, outputs: &BTreeMap<Hash, String>) -> Self {
        let mut known = self.clone();
        if !self.learns(outputs) {
            return known;
        }
        for input in known.inputs.values_mut() {
            if let Input::Derivation { hash, output: output @ None, .. } = input {
                *output = outputs.get(hash).cloned();
            }
        }
        known
    }

    /// Whether any of these outputs is one that it does not know yet.
    fn learns(&self, outputs: &BTreeMap<Hash, String>) -> bool {
        self.address.kind != fleet_model::Kind::Image
            && self.inputs.values().any(
                |input| matches!(input, Input::Derivation { hash, output: None, .. } if outputs.contains_key(hash)),
            )
    }
}
