//! [`Retry`]: how an outside system is asked again. Whoever retries uses this; what is worth it is for the caller to say.
//!
//! Time and chance come from a [`Clock`], so that tests wait for nothing.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;

/// Time and chance.
#[async_trait]
pub trait Clock: Send + Sync {
    /// The time of day.
    fn now(&self) -> SystemTime;

    /// A number in `[0, 1)` that differs between machines and calls.
    fn chance(&self) -> f64;

    /// Waits.
    async fn sleep(&self, pause: Duration);
}

/// The machine's.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> SystemTime {
        SystemTime::now()
    }

    fn chance(&self) -> f64 {
        let nanos = self.now().duration_since(UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
        f64::from(nanos % 1_000_000) / 1_000_000.0
    }

    async fn sleep(&self, pause: Duration) {
        tokio::time::sleep(pause).await;
    }
}

/// Why an attempt failed in a way that may pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Passing {
    /// How long the other side asked us to stay away (`Retry-After`).
    pub after: Option<Duration>,
}

/// Bounds of trying again.
#[derive(Clone, Copy)]
pub struct Retry<'a> {
    /// Attempts in all.
    pub tries: u32,
    /// The first pause; each next one is twice as long.
    pub first: Duration,
    /// No pause is longer. Who asks us to stay away for longer gets no further attempt.
    pub longest: Duration,
    /// Time and chance.
    pub clock: &'a dyn Clock,
}

impl<'a> Retry<'a> {
    /// For servers across a network: five attempts, pauses of 0.4 to 0.8 s, twice as long each time, 30 s at most.
    #[must_use]
    pub fn network(clock: &'a dyn Clock) -> Self {
        Self { tries: 5, first: Duration::from_millis(800), longest: Duration::from_secs(30), clock }
    }

    /// Runs `attempt` until it succeeds, fails for good, or the attempts are used up. `passing` says which failures may
    /// pass, `tell` hears of each with the pause that follows.
    ///
    /// # Errors
    /// The last attempt's.
    pub async fn run<T, E, F: Future<Output = Result<T, E>>>(
        &self,
        mut attempt: impl FnMut() -> F,
        passing: impl Fn(&E) -> Option<Passing>,
        mut tell: impl FnMut(&E, Duration),
    ) -> Result<T, E> {
        let mut failures = 0;
        loop {
            let error = match attempt().await {
                Ok(done) => return Ok(done),
                Err(error) => error,
            };
            failures += 1;
            let pause = passing(&error).and_then(|passing| self.pause(failures, passing.after));
            let Some(pause) = pause.filter(|_| failures < self.tries) else { return Err(error) };
            tell(&error, pause);
            self.clock.sleep(pause).await;
        }
    }

    /// The pause after so many failures: by up to half shorter, so that many clients do not come back together. With
    /// a time that was asked for: never before it, and spread behind it.
    fn pause(&self, failures: u32, asked: Option<Duration>) -> Option<Duration> {
        let full = self.first.saturating_mul(1 << (failures - 1).min(16)).min(self.longest);
        let chance = self.clock.chance().clamp(0.0, 1.0);
        match asked {
            Some(asked) if asked > self.longest => None,
            Some(asked) => Some(asked + full.mul_f64(chance / 2.0)),
            None => Some(full.mul_f64(1.0 - chance / 2.0)),
        }
    }
}

/// What a `Retry-After` header asks for: seconds, or a date (RFC 9110 §10.2.3).
#[must_use]
pub fn retry_after(header: &str, now: SystemTime) -> Option<Duration> {
    let header = header.trim();
    if let Ok(seconds) = header.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(header).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Still {
        chance: f64,
        slept: Mutex<Vec<u64>>,
    }

    #[async_trait]
    impl Clock for Still {
        fn now(&self) -> SystemTime {
            UNIX_EPOCH
        }

        fn chance(&self) -> f64 {
            self.chance
        }

        async fn sleep(&self, pause: Duration) {
            self.slept.lock().unwrap().push(pause.as_millis() as u64);
        }
    }

    /// Pauses between attempts that all fail with this `Retry-After`.
    async fn pauses(chance: f64, after: Option<Duration>) -> Vec<u64> {
        let clock = Still { chance, slept: Mutex::default() };
        let failed: Result<(), u32> =
            Retry::network(&clock).run(|| async { Err(7) }, |_| Some(Passing { after }), |_, _| {}).await;
        assert_eq!(failed, Err(7));
        clock.slept.into_inner().unwrap()
    }

    #[tokio::test]
    async fn pauses_double_and_chance_makes_them_shorter() {
        assert_eq!(pauses(0.0, None).await, [800, 1600, 3200, 6400]);
        assert_eq!(pauses(1.0, None).await, [400, 800, 1600, 3200]);
    }

    #[tokio::test]
    async fn nobody_is_asked_again_before_the_time_they_named() {
        assert_eq!(pauses(0.5, Some(Duration::from_secs(3))).await, [3200, 3400, 3800, 4600]);
        assert_eq!(pauses(0.5, Some(Duration::from_secs(31))).await, [0; 0], "too long: the failure is reported");
    }

    #[tokio::test]
    async fn a_failure_that_does_not_pass_is_final() {
        let clock = Still { chance: 0.0, slept: Mutex::default() };
        let failed: Result<(), u32> = Retry::network(&clock).run(|| async { Err(7) }, |_| None, |_, _| {}).await;
        assert_eq!(failed, Err(7));
        assert!(clock.slept.into_inner().unwrap().is_empty());
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(retry_after("120", at(0)), Some(Duration::from_secs(120)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:01:00 GMT", at(20)), Some(Duration::from_secs(40)));
        assert_eq!(retry_after("Thu, 01 Jan 1970 00:01:00 GMT", at(90)), Some(Duration::ZERO), "past");
        assert_eq!(retry_after("soon", at(0)), None);
    }
}
