//! [`codes`] and [`explain`]: the long story of every diagnostic.

mod environments;
mod files;
mod images;
mod language;
mod late;
mod models;
mod names;
mod org;
mod rooms;

use std::sync::LazyLock;

use crate::words;

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
    [
        language::ALL,
        files::ALL,
        names::ALL,
        org::ALL,
        models::ALL,
        images::ALL,
        rooms::ALL,
        environments::ALL,
        late::ALL,
    ]
    .concat()
});

/// Every code, in the order of the documentation.
#[must_use]
pub fn codes() -> &'static [Explanation] {
    &ALL
}

/// The story of a code, with or without its `fleet::` or its area, where its last part is that of no other.
#[must_use]
pub fn explain(code: &str) -> Option<&'static Explanation> {
    let exact = ALL.iter().find(|known| known.code == code || known.code.strip_prefix("fleet::") == Some(code));
    exact.or_else(|| {
        let mut ending = ALL.iter().filter(|known| known.code.rsplit("::").next() == Some(code));
        ending.next().filter(|_| ending.next().is_none())
    })
}

/// The code that somebody may have meant.
#[must_use]
pub fn nearest_code(text: &str) -> Option<&'static str> {
    let whole = words::nearest(text, ALL.iter().map(|known| known.code));
    let part = |code: &'static str| code.rsplit("::").next().unwrap_or(code);
    whole.or_else(|| {
        let meant = words::nearest(text.rsplit("::").next().unwrap_or(text), ALL.iter().map(|known| part(known.code)))?;
        ALL.iter().map(|known| known.code).find(|code| part(code) == meant)
    })
}
