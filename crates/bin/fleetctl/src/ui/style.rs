//! [`Style`]: colour by meaning. Everything is readable without it.

use std::io::IsTerminal;

use crate::cli::Color;

/// Whether to colour one stream.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    on: bool,
}

impl Style {
    /// For stdout. `NO_COLOR` and `CLICOLOR_FORCE` as their conventions say.
    #[must_use]
    pub fn stdout(color: Color) -> Self {
        Self { on: decide(color, std::io::stdout().is_terminal()) }
    }

    /// For stderr.
    #[must_use]
    pub fn stderr(color: Color) -> Self {
        Self { on: decide(color, std::io::stderr().is_terminal()) }
    }

    /// Never coloured.
    #[must_use]
    pub const fn plain() -> Self {
        Self { on: false }
    }

    /// Whether colour is used.
    #[must_use]
    pub const fn is_on(self) -> bool {
        self.on
    }

    fn paint(self, code: &str, text: &str) -> String {
        if self.on { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// Something appears.
    pub fn good(self, text: &str) -> String {
        self.paint("32", text)
    }

    /// Something changes.
    pub fn change(self, text: &str) -> String {
        self.paint("33", text)
    }

    /// Something goes away or failed.
    pub fn bad(self, text: &str) -> String {
        self.paint("31", text)
    }

    /// Less important.
    pub fn dim(self, text: &str) -> String {
        self.paint("2", text)
    }

    /// A heading.
    pub fn strong(self, text: &str) -> String {
        self.paint("1", text)
    }
}

fn decide(color: Color, terminal: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    match color {
        Color::Always => true,
        Color::Never => false,
        // no-color.org: any value counts, `0` too. bixense.com/clicolors: `0` does not force.
        Color::Auto => {
            set("NO_COLOR").is_none() && (terminal || set("CLICOLOR_FORCE").is_some_and(|value| value != "0"))
        }
    }
}
