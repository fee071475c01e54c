//! [`Exit`]: every exit code, in one place. `docs/reference/exit-codes.md` is the long story. Never reuse one.

use std::process::{ExitCode, Termination};

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Done, or nothing to do.
    Done = 0,
    /// Failed; nothing was left half-made.
    Failed = 1,
    /// `plan --detailed-exitcode`: changes are present.
    ChangesPresent = 2,
    /// Some changes were made, others were not: run again to resume.
    PartlyApplied = 3,
    /// A change did not become healthy and was undone.
    RolledBack = 4,
    /// The world moved since the plan was made.
    Stale = 5,
    /// A declared limit would be exceeded.
    LimitExceeded = 6,
    /// Somebody else applies to this environment.
    LeaseHeld = 8,
    /// The command line is wrong.
    Usage = 64,
    /// An outside system does not answer.
    Unavailable = 69,
    /// An outside system refuses.
    Denied = 77,
    /// Ctrl-C.
    Interrupted = 130,
    /// SIGTERM.
    Terminated = 143,
}

impl Exit {
    /// The outcome as a word, for the last line of the event stream.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Failed => "failed",
            Self::ChangesPresent => "changes-present",
            Self::PartlyApplied => "partly-applied",
            Self::RolledBack => "rolled-back",
            Self::Stale => "stale",
            Self::LimitExceeded => "limit-exceeded",
            Self::LeaseHeld => "lease-held",
            Self::Usage => "usage",
            Self::Unavailable => "unavailable",
            Self::Denied => "denied",
            Self::Interrupted => "interrupted",
            Self::Terminated => "terminated",
        }
    }
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(self as u8)
    }
}
