//! [`reasons`]: why one derivation became another, root causes first, through every derivation in between.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::{Derivation, Hash, Hashed, Input, difference};
use fleet_model::Address;
use fleet_plan::Reason;

/// Derivations by hash: those of the store and those of the present graph.
pub type Known = BTreeMap<Hash, Hashed>;

/// Why `after` differs from `before`: inputs that really have another value first, then which derivations only passed
/// it on. An input derivation that is not in `known` on either side is a cascade without further explanation.
#[must_use]
pub fn reasons(before: &Derivation, after: &Derivation, known: &Known) -> Vec<Reason> {
    let mut walk = Walk { known, roots: Vec::new(), cascades: BTreeSet::new() };
    walk.compare(before, after);
    let mut all = walk.roots;
    all.extend(walk.cascades.into_iter().map(|from| Reason::Cascade { from }));
    all
}

struct Walk<'k> {
    known: &'k Known,
    roots: Vec<Reason>,
    cascades: BTreeSet<Address>,
}

impl Walk<'_> {
    fn compare(&mut self, before: &Derivation, after: &Derivation) {
        for change in difference(before, after).changes {
            match (&change.before, &change.after) {
                (Some(Input::Derivation { hash: old, .. }), Some(Input::Derivation { address, hash: new, .. })) => {
                    let first_visit = self.cascades.insert(address.clone());
                    if !first_visit {
                        continue;
                    }
                    if old == new {
                        // Its inputs are the same and its output is not: the rendering is the tool's own.
                        self.roots.push(Reason::Drift {
                            what: format!(
                                "{address}: another version of fleetctl makes something else of the same inputs"
                            ),
                        });
                    } else if let (Some(old), Some(new)) = (self.known.get(old), self.known.get(new)) {
                        self.compare(old, new);
                    }
                }
                _ => {
                    let reason = Reason::Input {
                        input: change.input,
                        before: change.before,
                        after: change.after,
                        origin: change.origin,
                    };
                    if !self.roots.contains(&reason) {
                        self.roots.push(reason);
                    }
                }
            }
        }
    }
}
