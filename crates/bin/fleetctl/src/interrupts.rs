//! [`Interrupts`]: Ctrl-C and SIGTERM. While changes are made the first one stops what was not begun and lets the rest
//! finish, the second one stops at once; while something is held open, or removed, the first one asks for its end; at any other
//! time one is enough. Either way the event stream gets its last line.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::Notify,
};

use crate::{
    exit::Exit,
    ui::{events::Console, out::tell},
};

/// What was asked for so far.
#[derive(Debug, Default)]
pub struct Interrupts {
    /// Changes are being made.
    applying: AtomicBool,
    /// Nothing further may be begun.
    stop: AtomicBool,
    /// It was SIGTERM.
    terminated: AtomicBool,
    /// Somebody else works on the same environment by now.
    overtaken: AtomicBool,
    /// Something is held open, or may be broken off.
    holding: AtomicBool,
    /// Its end was asked for.
    asked: Notify,
}

impl Interrupts {
    /// From now on changes are made: the flag that says to begin no more of them.
    pub fn applying(&self) -> &AtomicBool {
        self.applying.store(true, Ordering::SeqCst);
        &self.stop
    }

    /// All changes are made.
    pub fn applied(&self) {
        self.applying.store(false, Ordering::SeqCst);
    }

    /// Somebody else works on the same environment: nothing further is begun, and what may be broken off is.
    pub fn overtaken(&self) {
        self.overtaken.store(true, Ordering::SeqCst);
        self.stop.store(true, Ordering::SeqCst);
        if self.holding.swap(false, Ordering::SeqCst) {
            self.asked.notify_one();
        }
    }

    /// Does something that may be broken off anywhere, which the first signal does, and whoever overtakes us; `None` then.
    pub async fn unless_asked<T>(&self, doing: impl Future<Output = T>) -> Option<T> {
        self.hold();
        // Before there was anything to break off.
        if self.overtaken.load(Ordering::SeqCst) {
            return None;
        }
        tokio::select! {
            done = doing => {
                self.holding.store(false, Ordering::SeqCst);
                Some(done)
            }
            () = self.asked() => None,
        }
    }

    /// From now on something is held open, and the first signal asks for its end: [`asked`](Self::asked).
    pub fn hold(&self) {
        self.holding.store(true, Ordering::SeqCst);
    }

    /// Returns once the end of what is held open was asked for.
    pub async fn asked(&self) {
        self.asked.notified().await;
    }

    /// The exit code of a run that was interrupted.
    pub fn exit(&self) -> Exit {
        if self.overtaken.load(Ordering::SeqCst) {
            return Exit::LeaseHeld;
        }
        if self.terminated.load(Ordering::SeqCst) { Exit::Terminated } else { Exit::Interrupted }
    }

    /// Waits for signals until the process ends.
    pub async fn watch(self: Arc<Self>, console: Arc<Console>) {
        // Both for good: what arrives while one is dealt with is not lost.
        let listened = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
        let (Ok(mut interrupted), Ok(mut terminated)) = listened else { return };
        loop {
            tokio::select! {
                _ = interrupted.recv() => {}
                _ = terminated.recv() => self.terminated.store(true, Ordering::SeqCst),
            }
            if self.holding.swap(false, Ordering::SeqCst) {
                tell!("stopping; again to stop at once");
                self.asked.notify_one();
                continue;
            }
            let applying = self.applying.load(Ordering::SeqCst);
            if applying && !self.stop.swap(true, Ordering::SeqCst) {
                tell!("stopping: what runs is finished first; again to stop at once");
                continue;
            }
            if applying {
                tell!("stopped at once; run the same command again to finish");
            }
            let exit = self.exit();
            console.end(exit);
            std::process::exit(i32::from(exit as u8));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_may_be_broken_off_is_broken_off_when_somebody_else_took_over_and_not_before() {
        let interrupts = Arc::new(Interrupts::default());
        assert_eq!(interrupts.unless_asked(async { 1 }).await, Some(1));
        let overtaken = {
            let interrupts = Arc::clone(&interrupts);
            async move {
                tokio::task::yield_now().await;
                interrupts.overtaken();
            }
        };
        let (broken_off, ()) = tokio::join!(interrupts.unless_asked(std::future::pending::<()>()), overtaken);
        assert_eq!(broken_off, None);
        assert_eq!(interrupts.exit(), Exit::LeaseHeld);
        assert_eq!(interrupts.unless_asked(std::future::pending::<()>()).await, None, "it is not begun at all");
    }
}
