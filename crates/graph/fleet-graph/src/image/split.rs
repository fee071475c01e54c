//! [`buckets`]: how the packages or files of one node are shared out over several layers.
//!
//! Which bucket a unit (a package, a folder, a file) is in is decided by the bits of its name's hash, as many of them as
//! it takes until no bucket weighs too much. So a unit that comes, goes or grows changes the bucket it is in, or divides
//! that one in two; all others stay as they are, byte for byte. Sizes, names and numbers of layers depend on the units
//! alone, not on their order or on what was there before. See docs/decisions/0016-large-layers-are-split.md.

use std::collections::BTreeMap;

use fleet_derivation::Hash;

/// No bucket should weigh more bytes: it is what one changed file moves.
pub(crate) const BYTES: u64 = 32 << 20;
/// Packages in a bucket where only their number is known. Measured at the agent's image: see the decision.
pub(crate) const PACKAGES: u64 = 128;
/// Buckets of one node. More layers cost every push and pull a request each, and engines take 127 at most.
pub(crate) const MOST: usize = 10;
/// Bits of a name's hash that tell units apart.
const BITS: usize = 32;

/// Some of a node's units.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Bucket<'a> {
    /// The bits that its units' hashes begin with; empty when it holds all of them.
    pub bits: String,
    /// Names of its units.
    pub units: Vec<&'a str>,
}

/// Shares out units (name → weight) over buckets of at most `target`; a unit that weighs more has one of its own. Where
/// that would be too many, the target doubles.
pub(crate) fn buckets(units: &BTreeMap<String, u64>, target: u64) -> Vec<Bucket<'_>> {
    let hashed: Vec<Unit<'_>> = units
        .iter()
        .map(|(name, weight)| {
            let hash = Hash::of(name.as_bytes());
            let [a, b, c, d, ..] = *hash.as_bytes();
            Unit { name, weight: *weight, bits: u32::from_be_bytes([a, b, c, d]) }
        })
        .collect();
    let mut target = target;
    loop {
        let mut found = Vec::new();
        divide(hashed.clone(), String::new(), target, &mut found);
        if found.len() <= MOST {
            return found;
        }
        target = target.saturating_mul(2);
    }
}

#[derive(Clone, Copy)]
struct Unit<'a> {
    name: &'a str,
    weight: u64,
    bits: u32,
}

fn divide<'a>(units: Vec<Unit<'a>>, bits: String, target: u64, found: &mut Vec<Bucket<'a>>) {
    let weight: u64 = units.iter().map(|unit| unit.weight).fold(0, u64::saturating_add);
    if weight <= target || units.len() <= 1 || bits.len() == BITS {
        if !units.is_empty() {
            found.push(Bucket { bits, units: units.iter().map(|unit| unit.name).collect() });
        }
        return;
    }
    let at = bits.len();
    let (ones, zeros): (Vec<Unit<'_>>, Vec<Unit<'_>>) =
        units.into_iter().partition(|unit| (unit.bits >> (BITS - 1 - at)) & 1 == 1);
    divide(zeros, format!("{bits}0"), target, found);
    divide(ones, format!("{bits}1"), target, found);
}

/// The units of a folder (path → bytes): folders of its first level, and within those that weigh more than `target`
/// their own folders and files, and so on.
pub(crate) fn folder_units(files: &[(&str, u64)], target: u64) -> BTreeMap<String, u64> {
    let mut units = BTreeMap::new();
    add_units(files, "", target, &mut units);
    units
}

/// `files` are all below `prefix`, which ends in a slash or is empty.
fn add_units(files: &[(&str, u64)], prefix: &str, target: u64, units: &mut BTreeMap<String, u64>) {
    let mut groups: BTreeMap<&str, Vec<(&str, u64)>> = BTreeMap::new();
    for (path, size) in files {
        let first = path[prefix.len()..].split('/').next().unwrap_or_default();
        groups.entry(&path[..prefix.len() + first.len()]).or_default().push((path, *size));
    }
    for (name, files) in groups {
        let weight: u64 = files.iter().map(|(_, size)| *size).fold(0, u64::saturating_add);
        let is_folder = files.iter().any(|(path, _)| path.len() > name.len());
        if weight > target && is_folder {
            add_units(&files, &format!("{name}/"), target, units);
        } else {
            units.insert(name.to_owned(), weight);
        }
    }
}

/// The unit that a path is in: itself or the folder of it that is one.
pub(crate) fn unit_of(path: &str, is_unit: impl Fn(&str) -> bool) -> Option<&str> {
    let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
    ends.map(|end| &path[..end]).find(|name| is_unit(name))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn units(names: impl IntoIterator<Item = usize>) -> BTreeMap<String, u64> {
        names.into_iter().map(|n| (format!("node_modules/p{n}"), 1)).collect()
    }

    fn shape(units: &BTreeMap<String, u64>, target: u64) -> BTreeMap<String, BTreeSet<String>> {
        let found = buckets(units, target);
        found.into_iter().map(|b| (b.bits, b.units.into_iter().map(str::to_owned).collect())).collect()
    }

    #[test]
    fn every_unit_is_in_one_bucket_and_none_weighs_too_much() {
        let all = units(0..356);
        let found = shape(&all, 128);
        assert!((3..=MOST).contains(&found.len()), "{}", found.len());
        assert_eq!(found.values().flatten().collect::<BTreeSet<_>>(), all.keys().collect());
        assert_eq!(found.values().map(BTreeSet::len).sum::<usize>(), all.len());
        assert!(found.values().all(|units| units.len() <= 128));
    }

    #[test]
    fn a_unit_that_comes_changes_one_bucket_or_divides_it() {
        for new in 1000..1100 {
            let (before, after) = (shape(&units(0..300), 64), shape(&units((0..300).chain([new])), 64));
            let gone: Vec<_> = before.iter().filter(|(bits, units)| after.get(*bits) != Some(units)).collect();
            assert_eq!(gone.len(), 1, "p{new} changed {gone:?}");
            let moved = after.iter().filter(|(bits, units)| before.get(*bits) != Some(units));
            assert!(moved.clone().all(|(bits, _)| bits.starts_with(gone[0].0.as_str())), "p{new}");
            assert!(moved.count() <= 2, "p{new}");
        }
    }

    #[test]
    fn few_light_units_stay_together_and_many_heavy_ones_make_no_crowd() {
        assert_eq!(buckets(&units(0..5), 128)[0].bits, "");
        assert!(buckets(&units(0..100_000), 128).len() <= MOST);
        assert!(buckets(&BTreeMap::new(), 128).is_empty());
        let huge = BTreeMap::from([("a".to_owned(), u64::MAX), ("b".to_owned(), u64::MAX)]);
        assert_eq!(buckets(&huge, 1).len(), 2);
    }

    #[test]
    fn a_heavy_folder_is_taken_apart_and_a_light_one_is_not() {
        let files = [("a/x/1", 6), ("a/x/2", 5), ("a/y", 2), ("b/1", 3), ("b/2", 3), ("c", 99), ("d", 0)];
        let found = folder_units(&files, 10);
        let names: Vec<&str> = found.keys().map(String::as_str).collect();
        assert_eq!(names, ["a/x/1", "a/x/2", "a/y", "b", "c", "d"]);
        assert_eq!(unit_of("a/x/2", |name| found.contains_key(name)), Some("a/x/2"));
        assert_eq!(unit_of("b/2", |name| found.contains_key(name)), Some("b"));
    }
}
