//! [`decide`]: what to do after OpenClaw stopped by itself. Pure: time and chance are arguments.

use std::time::Duration;

/// A gateway that ran at least this long did not fail fast: the count starts again.
pub const STEADY: Duration = Duration::from_secs(120);
/// After so many fast failures in a row the container ends, so that the engine and the rollout see it.
pub const FAST_FAILURES: u32 = 5;
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// Start again after a pause; so many failures in a row by now.
    Restart {
        /// How long to wait.
        after: Duration,
        /// Failures in a row, this one included.
        failures: u32,
    },
    /// Too many fast failures.
    GiveUp,
}

/// Decides after the gateway ran for `ran`, with `failures` fast failures before. `chance` in `[0, 1)` spreads the
/// pauses of many agents that fail together over half to the whole of each pause.
#[must_use]
pub fn decide(failures: u32, ran: Duration, chance: f64) -> Decision {
    let failures = if ran >= STEADY { 1 } else { failures + 1 };
    if failures >= FAST_FAILURES {
        return Decision::GiveUp;
    }
    let pause = FIRST_PAUSE.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(LONGEST_PAUSE);
    Decision::Restart { after: pause.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0), failures }
}

/// The pause before the `attempt`-th try (from 0) to reach another service: 0.25 s doubling to `longest`, spread.
#[must_use]
pub fn retry(attempt: u32, longest: Duration, chance: f64) -> Duration {
    let pause = Duration::from_millis(250).saturating_mul(1 << attempt.min(16)).min(longest);
    pause.mul_f64(0.5 + chance.clamp(0.0, 1.0) / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_five_fast_failures_end_the_container() {
        let mut failures = 0;
        let mut pauses = Vec::new();
        let given_up = loop {
            match decide(failures, Duration::from_secs(3), 0.999_999) {
                Decision::Restart { after, failures: now } => {
                    pauses.push(after.as_secs_f64().round() as u64);
                    failures = now;
                }
                Decision::GiveUp => break failures + 1,
            }
        };
        assert_eq!((pauses, given_up), (vec![1, 2, 4, 8], FAST_FAILURES));
    }

    #[test]
    fn a_gateway_that_ran_well_starts_the_count_again() {
        let Decision::Restart { failures, .. } = decide(4, STEADY, 0.0) else { panic!("gave up") };
        assert_eq!(failures, 1);
    }

    #[test]
    fn chance_spreads_a_pause_over_its_upper_half() {
        assert_eq!(retry(0, Duration::from_secs(5), 0.0), Duration::from_millis(125));
        assert_eq!(retry(30, Duration::from_secs(5), 0.0), Duration::from_millis(2500));
        assert!(retry(30, Duration::from_secs(5), 0.99) <= Duration::from_secs(5));
    }
}
