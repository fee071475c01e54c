//! Labels that tell whose a container, volume or network is. Nothing secret, nothing else.

use std::collections::{BTreeMap, HashMap};

use fleet_apply::Scope;
use fleet_derivation::Hash;
use fleet_model::Address;

/// Fleet name.
pub const FLEET: &str = "dev.fleetctl.fleet";
/// Environment name.
pub const ENVIRONMENT: &str = "dev.fleetctl.environment";
/// The address it belongs to.
pub const ADDRESS: &str = "dev.fleetctl.address";
/// The derivation hash that a container was made from.
pub const HASH: &str = "dev.fleetctl.hash";
/// Names of the operator's secrets that a container was made without, because they were not set; separated by commas.
pub const WITHOUT: &str = "dev.fleetctl.without";

/// Labels of an object of this scope.
#[must_use]
pub fn of(scope: &Scope, address: Option<&Address>, hash: Option<Hash>) -> HashMap<String, String> {
    let mut labels =
        HashMap::from([(FLEET.to_owned(), scope.fleet.clone()), (ENVIRONMENT.to_owned(), scope.environment.clone())]);
    labels.extend(address.map(|a| (ADDRESS.to_owned(), a.to_string())));
    labels.extend(hash.map(|h| (HASH.to_owned(), h.to_string())));
    labels
}

/// A filter for list calls: everything of this scope, or of one address in it.
pub(crate) fn filter(scope: &Scope, address: Option<&Address>) -> HashMap<String, Vec<String>> {
    let mut wanted = vec![format!("{FLEET}={}", scope.fleet), format!("{ENVIRONMENT}={}", scope.environment)];
    wanted.extend(address.map(|a| format!("{ADDRESS}={a}")));
    HashMap::from([("label".to_owned(), wanted)])
}

/// Is it of this scope? Every list is checked with this, because Podman's volume list takes several label filters as
/// "any of them": another fleet's memory must never be in a list that is about to be purged.
pub(crate) fn belongs(scope: &Scope, labels: &HashMap<String, String>) -> bool {
    labels.get(FLEET) == Some(&scope.fleet) && labels.get(ENVIRONMENT) == Some(&scope.environment)
}

/// The address among an object's labels.
pub(crate) fn address(labels: &BTreeMap<String, String>) -> Option<Address> {
    labels.get(ADDRESS)?.parse().ok()
}

/// The hash among an object's labels.
pub(crate) fn hash(labels: &BTreeMap<String, String>) -> Option<Hash> {
    labels.get(HASH)?.parse().ok()
}

/// The operator's secrets that a container was made without.
pub(crate) fn without(labels: &BTreeMap<String, String>) -> impl Iterator<Item = &str> {
    labels.get(WITHOUT).into_iter().flat_map(|names| names.split(',')).filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_fleet_or_environment_is_not_ours_even_if_an_engine_lists_it() {
        let scope = |fleet: &str, environment: &str| Scope {
            fleet: fleet.to_owned(),
            environment: environment.to_owned(),
            domain: "d.test".to_owned(),
        };
        let ours = of(&scope("a", "local"), None, None);
        assert!(belongs(&scope("a", "local"), &ours));
        assert!(!belongs(&scope("b", "local"), &ours));
        assert!(!belongs(&scope("a", "test"), &ours));
        assert!(!belongs(&scope("a", "local"), &HashMap::new()));
    }
}
