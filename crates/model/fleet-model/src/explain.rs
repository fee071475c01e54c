//! [`codes`] and [`explain`]: the long story of every diagnostic.

mod environments;
mod files;
mod images;
mod language;
mod models;
mod names;
mod org;
mod rooms;

use std::sync::LazyLock;

/// The long story of one code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// `fleet::area::name`.
    pub code: &'static str,
    /// What it is, in a few words.
    pub title: &'static str,
    /// What it means, an example that fails, and how to mend it; Markdown.
    pub text: &'static str,
}

static ALL: LazyLock<Vec<Explanation>> = LazyLock::new(|| {
    [language::ALL, files::ALL, names::ALL, org::ALL, models::ALL, images::ALL, rooms::ALL, environments::ALL].concat()
});

/// Every code, in the order of the documentation.
#[must_use]
pub fn codes() -> &'static [Explanation] {
    &ALL
}

/// The story of a code, with or without its `fleet::`.
#[must_use]
pub fn explain(code: &str) -> Option<&'static Explanation> {
    ALL.iter().find(|known| known.code == code || known.code.strip_prefix("fleet::") == Some(code))
}
