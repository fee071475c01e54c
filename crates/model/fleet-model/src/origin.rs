//! [`Origin`]: the place in a file where a value was declared, for diagnostics and for `why`.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::source::RelPath;

/// A file and a line, both as a person counts them. Never part of a hash.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// The file, relative to the project.
    pub file: RelPath,
    /// 1-based line.
    pub line: u32,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// A value together with where it was declared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Declared<T> {
    /// The value.
    pub value: T,
    /// Where it stands; `None` for a built-in default.
    pub origin: Option<Origin>,
}

impl<T> Declared<T> {
    /// A value declared at `origin`.
    pub const fn at(value: T, origin: Origin) -> Self {
        Self { value, origin: Some(origin) }
    }

    /// A built-in default.
    pub const fn built_in(value: T) -> Self {
        Self { value, origin: None }
    }
}
