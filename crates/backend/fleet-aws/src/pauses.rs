//! [`Pauses`]: between two looks at something that takes its time; they grow, and come to an end.

use std::time::Duration;

use tokio::time::{Instant, sleep};

/// The first pause between two looks; each next one is half as long again.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// No pause is longer.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Pauses that grow.
pub(crate) struct Pauses {
    next: Duration,
    until: Instant,
}

impl Pauses {
    /// As long as this in all.
    pub(crate) fn within(at_most: Duration) -> Self {
        Self { next: FIRST_PAUSE, until: Instant::now() + at_most }
    }

    /// Waits; false when that was long enough.
    pub(crate) async fn pause(&mut self) -> bool {
        sleep(self.next).await;
        self.next = self.next.mul_f32(1.5).min(LONGEST_PAUSE);
        Instant::now() < self.until
    }
}
