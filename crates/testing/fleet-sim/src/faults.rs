//! [`Faults`]: which writes fail, decided by number or by seed, never by chance.

use std::collections::BTreeSet;

/// Which writes of a world fail. Writes are counted from 0 over the life of the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    numbers: BTreeSet<u64>,
    seeded: Option<(u64, u64)>,
}

impl Faults {
    /// Nothing fails.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Exactly these writes fail.
    #[must_use]
    pub fn writes(numbers: impl IntoIterator<Item = u64>) -> Self {
        Self { numbers: numbers.into_iter().collect(), seeded: None }
    }

    /// About `per_mille` of 1000 writes fail, always the same ones for one seed.
    #[must_use]
    pub const fn seeded(seed: u64, per_mille: u64) -> Self {
        Self { numbers: BTreeSet::new(), seeded: Some((seed, per_mille)) }
    }

    /// Does write number `n` fail?
    #[must_use]
    pub fn hits(&self, n: u64) -> bool {
        self.numbers.contains(&n) || self.seeded.is_some_and(|(seed, per_mille)| mixed(seed, n) % 1000 < per_mille)
    }
}

/// SplitMix64's finaliser over seed and number: neighbouring numbers get unrelated values.
fn mixed(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_seed_is_one_story_and_its_rate_is_about_what_was_asked_for() {
        let hits = |seed| (0..10_000).filter(|n| Faults::seeded(seed, 100).hits(*n)).collect::<Vec<_>>();
        assert_eq!(hits(7), hits(7));
        assert_ne!(hits(7), hits(8));
        assert!((800..1200).contains(&hits(7).len()), "{}", hits(7).len());
        assert!(Faults::writes([3]).hits(3) && !Faults::writes([3]).hits(4));
    }
}
