//! [`Bucket`]: how often AWS may be asked, by its own documented rates; [`Pace`] waits for it.
//!
//! The rates are per account and region and shared with every other tool there: what is throttled all the same is asked
//! again (see `signed`).

use std::{
    sync::{Mutex, PoisonError},
    time::Duration,
};

use fleet_stacks::agent_service::{REGISTRATIONS, SERVICE_WRITES};
use tokio::time::Instant;

/// A token bucket. Time is an argument: seconds since whatever moment the caller likes, never going back.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Bucket {
    burst: f64,
    per_second: f64,
    tokens: f64,
    at: Duration,
}

impl Bucket {
    /// Full: so many at once, then so many a second.
    pub(crate) fn new(burst: u32, per_second: u32) -> Self {
        Self { burst: burst.into(), per_second: per_second.into(), tokens: burst.into(), at: Duration::ZERO }
    }

    /// Takes a token; how long to wait until it is there. Whoever comes next waits behind.
    pub(crate) fn take(&mut self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = passed.mul_add(self.per_second, self.tokens).min(self.burst) - 1.0;
        if self.tokens >= 0.0 { Duration::ZERO } else { Duration::from_secs_f64(-self.tokens / self.per_second) }
    }
}

/// What has a bucket of its own ("Request throttling for the Amazon ECS API").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rate {
    /// Register and DeregisterTaskDefinition; and DeleteTaskDefinitions, of which nothing is documented.
    TaskDefinitionWrites,
    /// Describe and ListTaskDefinitions.
    TaskDefinitionReads,
    /// Create, Update and DeleteService.
    ServiceWrites,
    /// Describe and ListServices.
    ServiceReads,
    /// Describe and ListTasks.
    TaskReads,
    /// Nothing is documented.
    Unknown,
}

impl Rate {
    fn bucket(self) -> Option<Bucket> {
        Some(match self {
            Self::TaskDefinitionWrites => Bucket::new(REGISTRATIONS.0, REGISTRATIONS.1),
            Self::TaskDefinitionReads => Bucket::new(50, 20),
            Self::ServiceWrites => Bucket::new(SERVICE_WRITES.0, SERVICE_WRITES.1),
            Self::ServiceReads | Self::TaskReads => Bucket::new(100, 20),
            Self::Unknown => return None,
        })
    }
}

/// The buckets of one account and region.
#[derive(Debug)]
pub(crate) struct Pace {
    began: Instant,
    buckets: Vec<(Rate, Mutex<Bucket>)>,
}

impl Pace {
    /// All full.
    pub(crate) fn new() -> Self {
        let all = [
            Rate::TaskDefinitionWrites,
            Rate::TaskDefinitionReads,
            Rate::ServiceWrites,
            Rate::ServiceReads,
            Rate::TaskReads,
        ];
        let buckets = all.into_iter().filter_map(|rate| Some((rate, Mutex::new(rate.bucket()?)))).collect();
        Self { began: Instant::now(), buckets }
    }

    /// Waits until a call is due.
    pub(crate) async fn wait(&self, rate: Rate) {
        let Some((_, bucket)) = self.buckets.iter().find(|(of, _)| *of == rate) else { return };
        let pause = bucket.lock().unwrap_or_else(PoisonError::into_inner).take(self.began.elapsed());
        if !pause.is_zero() {
            tokio::time::sleep(pause).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_burst_is_free_and_the_rest_goes_by_the_rate() {
        let mut bucket = Bucket::new(20, 1);
        let waits: Vec<u64> = (0..23).map(|_| bucket.take(at(0)).as_secs()).collect();
        assert_eq!(waits[..20], [0; 20]);
        assert_eq!(waits[20..], [1, 2, 3]);
        assert_eq!(bucket.take(at(3)), at(1), "who came before goes first");
    }

    #[test]
    fn what_nobody_takes_comes_back_but_never_more_than_the_burst() {
        let mut bucket = Bucket::new(2, 5);
        bucket.take(at(0));
        bucket.take(at(0));
        assert_eq!(bucket.take(at(1000)), at(0));
        assert_eq!(bucket.take(at(1000)), at(0));
        assert_eq!(bucket.take(at(1000)).as_millis(), 200);
        assert!(bucket.take(at(900)) > at(0), "a clock that goes back gives nothing");
    }

    #[test]
    fn a_thousand_services_take_what_aws_allows_and_no_longer() {
        let Some(mut bucket) = Rate::ServiceWrites.bucket() else { panic!("it is documented") };
        let last = (0..1000).map(|_| bucket.take(at(0))).max();
        assert_eq!(last, Some(at(190)));
    }
}
