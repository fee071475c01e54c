//! [`Mirrors`]: other places to pull a registry's images from: pull-through caches, corporate proxies.
//!
//! A mirror is asked before the registry itself, and only for pulls. It need not be trusted: what is pinned is verified
//! whatever served it. Only what a *tag* means is believed of a mirror, as it is of the registry.

use std::{collections::BTreeMap, str::FromStr};

use crate::reference::Place;

/// Mirrors by the registry that they stand for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mirrors(BTreeMap<String, Vec<Mirror>>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Mirror {
    host: String,
    /// What comes before a repository's name there; empty, or without slashes at its ends.
    prefix: String,
}

/// A list of mirrors that cannot be read.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{}: `{entry}` {why}; entries read REGISTRY=HOST[:PORT][/PREFIX], separated by commas, as in docker.io=mirror.example:5000/cache",
    Mirrors::VARIABLE
)]
pub struct MirrorError {
    /// The entry.
    pub entry: String,
    /// What is wrong with it.
    pub why: &'static str,
}

impl Mirrors {
    /// The environment variable that has them.
    pub const VARIABLE: &'static str = "FLEETCTL_REGISTRY_MIRRORS";

    /// Where to ask for what is in `place`, in order; the place itself comes last.
    pub(crate) fn places(&self, place: &Place) -> Vec<Place> {
        let mirrors = self.0.get(&place.registry).into_iter().flatten().map(|mirror| {
            let name = &place.repository;
            let repository = if mirror.prefix.is_empty() { name.clone() } else { format!("{}/{name}", mirror.prefix) };
            Place::new(&mirror.host, &repository)
        });
        mirrors.chain([place.clone()]).collect()
    }
}

impl FromStr for Mirrors {
    type Err = MirrorError;

    /// `docker.io=mirror.example:5000/cache,ghcr.io=other.example`; several of one registry are asked in order.
    fn from_str(text: &str) -> Result<Self, MirrorError> {
        let mut mirrors = Self::default();
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let wrong = |why| MirrorError { entry: entry.to_owned(), why };
            let (registry, place) = entry.split_once('=').ok_or_else(|| wrong("has no `=`"))?;
            if place.contains("://") {
                return Err(wrong("has a scheme; HTTPS is always used, except on loopback"));
            }
            let (host, prefix) = place.split_once('/').unwrap_or((place, ""));
            for name in [registry, host] {
                if !is_host(name) {
                    return Err(wrong("does not name a host on each side"));
                }
            }
            let prefix = prefix.trim_matches('/').to_owned();
            mirrors.0.entry(registry.to_owned()).or_default().push(Mirror { host: host.to_owned(), prefix });
        }
        Ok(mirrors)
    }
}

/// A host with or without a port, and nothing that could make it something else in an address.
fn is_host(text: &str) -> bool {
    let name = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    !text.is_empty() && text.chars().all(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_are_asked_in_order_and_the_registry_last() {
        let mirrors: Mirrors =
            "docker.io=a.example:5000/cache/, docker.io=b.example,ghcr.io=c.example".parse().unwrap();
        let places = mirrors.places(&Place::new("docker.io", "library/debian"));
        let shown: Vec<_> = places.iter().map(|place| format!("{}/{}", place.host, place.repository)).collect();
        let expected =
            ["a.example:5000/cache/library/debian", "b.example/library/debian", "registry-1.docker.io/library/debian"];
        assert_eq!(shown, expected);
        assert_eq!(mirrors.places(&Place::new("quay.io", "a/b")).len(), 1);
    }

    #[test]
    fn what_is_no_mirror_is_named() {
        for bad in
            ["docker.io", "docker.io=https://a.example", "=a.example", "docker.io=", "docker.io=joe:pw@a.example"]
        {
            let error = bad.parse::<Mirrors>().unwrap_err();
            assert_eq!(error.entry, bad);
        }
        assert_eq!("".parse::<Mirrors>(), Ok(Mirrors::default()));
    }
}
