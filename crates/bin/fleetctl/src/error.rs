//! [`Failure`]: what a person sees when a command fails: a message, its causes, hints, and one exit code.

use std::fmt::Write as _;

use fleet_apply::causes::causes;

use crate::exit::Exit;

/// A command failed.
#[derive(Debug)]
pub struct Failure {
    /// Exit code.
    pub exit: Exit,
    /// What happened, one sentence.
    pub message: String,
    /// Why, outermost first.
    pub causes: Vec<String>,
    /// What to do.
    pub hints: Vec<String>,
}

/// What commands return.
pub type Outcome = Result<Exit, Failure>;

impl Failure {
    /// A failure without more to say.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), causes: Vec::new(), hints: Vec::new() }
    }

    /// A failure caused by an error, with the errors that caused that.
    pub fn caused(exit: Exit, message: impl Into<String>, error: &dyn std::error::Error) -> Self {
        Self { causes: causes(error), ..Self::new(exit, message) }
    }

    /// Adds what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The same for programs: what stands on stdout in place of data.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({"schema": 1, "error": {
            "exit": self.exit as u8, "outcome": self.exit.word(),
            "message": self.message, "causes": self.causes, "hints": self.hints,
        }})
    }

    /// The whole text, as it goes to stderr.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = format!("error: {}\n", self.message);
        for cause in &self.causes {
            let _ = writeln!(text, "  cause: {cause}");
        }
        for hint in &self.hints {
            let _ = writeln!(text, "  help:  {hint}");
        }
        text
    }
}
