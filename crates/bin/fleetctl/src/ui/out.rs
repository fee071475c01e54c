//! What is written to stdout and stderr. Neither may end a run: a reader that goes away in the middle of an apply is no
//! reason to leave it half done. What stdout did not take is remembered, and [`lost`] makes it the run's failure.
//!
//! Deliberately absent: colour and layout, which belong to whoever makes the text.

use std::{
    fmt,
    io::{ErrorKind, Write as _},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

/// Set when stdout carries the event stream: data then goes to stderr.
static STDOUT_IS_TAKEN: AtomicBool = AtomicBool::new(false);
/// The first thing that went wrong with stdout, unless its reader just went away.
static LOST: OnceLock<String> = OnceLock::new();
/// Set once nobody reads stdout any more.
static UNREAD: AtomicBool = AtomicBool::new(false);
/// Set once data went to stdout.
static BEGUN: AtomicBool = AtomicBool::new(false);

/// A line for people, on stderr.
macro_rules! tell {
    ($($text:tt)*) => {
        $crate::ui::out::to_stderr(format_args!("{}\n", format_args!($($text)*)))
    };
}
pub(crate) use tell;

/// Text for people, on stderr, as it is. Use [`tell!`] for a line.
pub fn to_stderr(text: fmt::Arguments<'_>) {
    // Nobody is left to be told that nobody can be told.
    let _ = std::io::stderr().write_fmt(text);
}

/// Data, on stdout.
pub fn to_stdout(text: &str) {
    if STDOUT_IS_TAKEN.load(Ordering::Relaxed) {
        to_stderr(format_args!("{text}"));
        return;
    }
    BEGUN.store(true, Ordering::Relaxed);
    let mut stdout = std::io::stdout();
    if let Err(error) = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        // `| head -1` has what it wanted; a full disk has not.
        if error.kind() == ErrorKind::BrokenPipe {
            UNREAD.store(true, Ordering::Relaxed);
        } else {
            let _ = LOST.set(error.to_string());
        }
    }
}

/// From now on stdout carries the event stream.
pub fn take_stdout() {
    STDOUT_IS_TAKEN.store(true, Ordering::Relaxed);
}

/// Did any data go to stdout?
#[must_use]
pub fn begun() -> bool {
    BEGUN.load(Ordering::Relaxed)
}

/// Has the reader of stdout gone away? Who would write for ever ends then.
#[must_use]
pub fn unread() -> bool {
    UNREAD.load(Ordering::Relaxed)
}

/// Why a part of the output did not arrive, if so.
#[must_use]
pub fn lost() -> Option<&'static str> {
    LOST.get().map(String::as_str)
}
