//! [`DerivationGraph`]: every derivation of one environment by address, each with its hash ([`Hashed`]).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Deref,
    sync::Arc,
};

use fleet_model::Address;

use crate::{Derivation, Hash, Input};

/// A derivation that does not change any more, and its hash. Cheap to clone: fleets have tens of thousands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hashed {
    derivation: Arc<Derivation>,
    hash: Hash,
}

impl Hashed {
    /// The hash that it was given when it was made.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        self.hash
    }

    /// It without its hash.
    #[must_use]
    pub fn derivation(&self) -> &Derivation {
        &self.derivation
    }

    /// As [`Derivation::with_outputs`]; the same one where nothing becomes known.
    #[must_use]
    pub fn with_outputs(&self, outputs: &BTreeMap<Hash, String>) -> Self {
        if self.derivation.learns(outputs) { self.derivation.with_outputs(outputs).into() } else { self.clone() }
    }
}

impl From<Derivation> for Hashed {
    fn from(derivation: Derivation) -> Self {
        Self { hash: derivation.hash(), derivation: Arc::new(derivation) }
    }
}

impl Deref for Hashed {
    type Target = Derivation;

    fn deref(&self) -> &Derivation {
        &self.derivation
    }
}

/// Derivations by address. An input may name an address that is not in the graph (a base image, say).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DerivationGraph {
    nodes: BTreeMap<Address, Hashed>,
}

/// Derivations that need each other.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
#[error("these derivations need each other: {}", .members.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))]
pub struct Cycle {
    /// Those that are part of a cycle or need one that is.
    pub members: Vec<Address>,
}

impl DerivationGraph {
    /// Adds or replaces a derivation and returns its hash.
    pub fn insert(&mut self, derivation: impl Into<Hashed>) -> Hash {
        let hashed = derivation.into();
        let hash = hashed.hash();
        self.nodes.insert(hashed.address.clone(), hashed);
        hash
    }

    /// Adds or replaces all that another graph has.
    pub fn extend(&mut self, other: Self) {
        self.nodes.extend(other.nodes);
    }

    /// The derivation at an address.
    #[must_use]
    pub fn get(&self, address: &Address) -> Option<&Hashed> {
        self.nodes.get(address)
    }

    /// Every derivation in address order.
    pub fn iter(&self) -> impl Iterator<Item = &Hashed> {
        self.nodes.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// None at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One hash over all: two graphs with the same hash derive the same fleet.
    #[must_use]
    pub fn hash(&self) -> Hash {
        let mut hasher = blake3::Hasher::new_derive_key("fleetctl graph 1");
        for node in self.nodes.values() {
            hasher.update(node.hash().as_bytes());
        }
        Hash::from_bytes(*hasher.finalize().as_bytes())
    }

    /// The addresses that `address` takes as inputs, within the graph.
    pub fn inputs_of<'a>(&'a self, address: &Address) -> impl Iterator<Item = &'a Address> {
        self.nodes.get(address).into_iter().flat_map(|node| node.inputs.values()).filter_map(|input| match input {
            Input::Derivation { address, .. } if self.nodes.contains_key(address) => Some(address),
            _ => None,
        })
    }

    /// Inputs before what needs them; among equals, address order.
    ///
    /// # Errors
    /// [`Cycle`] when there is none.
    pub fn topological(&self) -> Result<Vec<&Hashed>, Cycle> {
        let mut waiting: BTreeMap<&Address, BTreeSet<&Address>> =
            self.nodes.keys().map(|a| (a, self.inputs_of(a).collect())).collect();
        let mut users: BTreeMap<&Address, Vec<&Address>> = BTreeMap::new();
        for (address, inputs) in &waiting {
            for input in inputs {
                users.entry(input).or_default().push(address);
            }
        }
        let mut ready: BTreeSet<&Address> = waiting.iter().filter(|(_, i)| i.is_empty()).map(|(a, _)| *a).collect();
        let mut order = Vec::with_capacity(self.nodes.len());
        while let Some(address) = ready.pop_first() {
            waiting.remove(address);
            order.extend(self.nodes.get(address));
            for user in users.get(address).into_iter().flatten() {
                if let Some(inputs) = waiting.get_mut(user) {
                    inputs.remove(address);
                    if inputs.is_empty() {
                        ready.insert(user);
                    }
                }
            }
        }
        if waiting.is_empty() {
            Ok(order)
        } else {
            Err(Cycle { members: waiting.keys().map(|a| (*a).clone()).collect() })
        }
    }
}
