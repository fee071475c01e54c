//! [`CallLog`]: takes events, counts writes, and can die before one: `kill -9` as a provider sees it.

use std::{
    any::Any,
    future::Future,
    panic::AssertUnwindSafe,
    sync::{Mutex, PoisonError},
};

use fleet_apply::{Event, Events};
use futures::FutureExt;

/// What a killed run panics with.
pub const KILLED: &str = "killed, as the test wants";

/// Calls in order.
#[derive(Default)]
pub struct CallLog {
    calls: Mutex<Vec<(String, bool)>>,
    dies_before: Option<usize>,
}

impl CallLog {
    /// A log whose run dies before write number `n` (from 0). A provider tells of a write before it makes it.
    #[must_use]
    pub fn dying_before(n: usize) -> Self {
        Self { dies_before: Some(n), ..Self::default() }
    }

    /// The writes so far, as the provider told them.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|(_, write)| *write).map(|(call, _)| call.clone()).collect()
    }

    /// The reads so far.
    #[must_use]
    pub fn reads(&self) -> usize {
        let calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        calls.iter().filter(|(_, write)| !*write).count()
    }
}

impl Events for CallLog {
    fn emit(&self, event: Event) {
        let Event::Call { call, write, .. } = event else { return };
        if write && self.dies_before == Some(self.writes().len()) {
            std::panic::panic_any(KILLED);
        }
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push((call, write));
    }
}

/// Runs something until it ends or is killed by a [`CallLog`]; `None`: killed. Every other panic goes on.
pub async fn killed<T>(run: impl Future<Output = T>) -> Option<T> {
    match AssertUnwindSafe(run).catch_unwind().await {
        Ok(value) => Some(value),
        Err(cause) if is_ours(&*cause) => None,
        Err(cause) => std::panic::resume_unwind(cause),
    }
}

fn is_ours(cause: &(dyn Any + Send)) -> bool {
    cause.downcast_ref::<&str>() == Some(&KILLED)
}
