//! What an error stands on, for people: [`chain`] tells all of it, [`innermost`] what really happened.
//!
//! Deliberately absent: deciding anything by such a text.

use std::error::Error;

/// The message of an error and of each one that caused it, outermost first. Wrappers often repeat what they wrap; what has
/// just been said is left out.
#[must_use]
pub fn causes(error: &dyn Error) -> Vec<String> {
    let mut said: Vec<String> = Vec::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.last().is_some_and(|last| last.contains(&text)) {
            said.push(text);
        }
        next = cause.source();
    }
    said
}

/// All of [`causes`] on one line: the outermost alone (`client error (Connect)`) tells nobody anything.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    causes(error).join(": ")
}

/// What stands at the bottom, for errors whose wrappers only say which library failed.
#[must_use]
pub fn innermost(error: &dyn Error) -> String {
    let mut error = error;
    while let Some(cause) = error.source() {
        error = cause;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{0}")]
    struct Outer(&'static str, #[source] std::io::Error);

    #[test]
    fn all_that_caused_it_is_told_once() {
        let refused = || std::io::Error::other("nobody listens");
        assert_eq!(chain(&Outer("cannot send", refused())), "cannot send: nobody listens");
        assert_eq!(chain(&Outer("cannot send: nobody listens", refused())), "cannot send: nobody listens");
        assert_eq!(innermost(&Outer("cannot send", refused())), "nobody listens");
        assert_eq!(innermost(&refused()), "nobody listens");
    }
}
