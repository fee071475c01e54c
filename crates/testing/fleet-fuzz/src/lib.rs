//! [`fuzz`]: runs one seed after another for FLEET_FUZZ_SECONDS (5 when not said) and fails on the first panic, hang or
//! memory that grows beyond a bound, with the seed that shows it again (FLEET_FUZZ_SEED=<seed> runs that one).
//!
//! Targets are ordinary tests, so that they run with the stable toolchain. Each knows its format: it starts from whole
//! inputs and changes what its reader trusts. Deliberately absent: coverage feedback, corpora on disk.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::{Duration, Instant},
};

/// Longer than this for one input is a hang, even on a busy machine.
const HANG: Duration = Duration::from_secs(20);

/// SplitMix64: one number is the whole state, so one number shows a failure again.
pub struct Random(pub u64);

impl Random {
    /// The next number.
    #[expect(clippy::should_implement_trait, reason = "an iterator that never ends helps nobody")]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`; 0 when `n` is 0.
    pub fn below(&mut self, n: usize) -> usize {
        (self.next() % n.max(1) as u64) as usize
    }

    /// One of these.
    ///
    /// # Panics
    /// When there are none.
    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// Changes some bytes as storage, networks and liars do: flips, overwrites, cuts, repeats, or splices in a piece of
/// another input.
pub fn mutate(random: &mut Random, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.below(bytes.len() + 1);
    let end = (at + random.below(64)).min(bytes.len());
    match random.below(8) {
        0 | 1 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
        2 => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte = *random.pick(&[0, 1, 0x7f, 0x80, 0xff, b'0', b'7', b'/', b'.', b'-', b'"', b'{']);
            }
        }
        3 => {
            bytes.drain(at..end);
        }
        4 => {
            let piece = bytes[at..end].to_vec();
            bytes.splice(at..at, piece);
        }
        5 => {
            let from = random.below(other.len() + 1);
            let piece = other[from..(from + random.below(1024)).min(other.len())].to_vec();
            let until = (at + if random.below(2) == 0 { piece.len() } else { 0 }).min(bytes.len());
            bytes.splice(at..until, piece);
        }
        6 => bytes.truncate(at),
        _ => {
            let byte = random.next() as u8;
            bytes[at..end].fill(byte);
        }
    }
}

/// One of the whole inputs with one to five changes: words put in where they do not belong, or bytes damaged.
pub fn scrambled(random: &mut Random, seeds: &[Vec<u8>], words: &[&str]) -> Vec<u8> {
    let mut bytes = random.pick(seeds).clone();
    for _ in 0..=random.below(5) {
        let other = random.pick(seeds);
        if random.below(2) == 0 {
            let at = random.below(bytes.len() + 1);
            let word = random.pick(words);
            bytes.splice(at..at, word.bytes());
        } else {
            mutate(random, &mut bytes, other);
        }
    }
    bytes
}

/// Runs `one` with seeds 1, 2, … until the time is up. `memory` is how many bytes the process may grow by, whatever the
/// inputs claim of themselves; `None` does not look.
///
/// # Panics
/// On the first seed that panics, hangs or takes more memory.
pub fn fuzz(what: &str, memory: Option<u64>, mut one: impl FnMut(u64)) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seconds = number("FLEET_FUZZ_SECONDS").unwrap_or(5);
    let single = number("FLEET_FUZZ_SEED");
    let bound = memory.map(|growth| peak_memory() + growth);
    let start = Instant::now();
    let mut runs = 0_u64;
    let mut seed = single.unwrap_or(1);
    while start.elapsed() < Duration::from_secs(seconds) {
        let began = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| one(seed)));
        assert!(result.is_ok(), "FLEET_FUZZ_SEED={seed} shows the failure above again");
        assert!(began.elapsed() < HANG, "FLEET_FUZZ_SEED={seed} took {:?}", began.elapsed());
        if let Some(bound) = bound {
            let peak = peak_memory();
            assert!(
                peak <= bound,
                "FLEET_FUZZ_SEED={seed} took memory to {} MiB, bound {} MiB",
                peak >> 20,
                bound >> 20
            );
        }
        runs += 1;
        if single.is_some() {
            break;
        }
        seed += 1;
    }
    println!("{runs} {what} in {} s, seeds 1 to {}", start.elapsed().as_secs(), seed.saturating_sub(1).max(1));
    assert!(runs > 0);
}

/// The most memory that this process had so far, in bytes (`VmHWM`); 0 where there is no /proc.
#[must_use]
pub fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_number_is_the_whole_state() {
        let run = |seed| {
            let mut random = Random(seed);
            let mut bytes = b"some input that is long enough to be changed".to_vec();
            for _ in 0..20 {
                mutate(&mut random, &mut bytes, b"another");
            }
            bytes
        };
        assert_eq!(run(7), run(7));
        assert_ne!(run(7), run(8));
    }

    #[test]
    fn memory_is_measured() {
        let before = peak_memory();
        let big = vec![1_u8; 64 << 20];
        assert!(peak_memory() >= before + (60 << 20), "{} bytes were touched", big.len());
    }
}
