//! The language and the model: KDL text in, a checked [`model::Model`] out, with every mistake found at once.
//!
//! - [`model::Model`]: what is declared. [`resolved::Resolved`]: what one environment makes of it.
//! - [`source::SourceTree`]: the files it is made from, read by the edge.
//! - [`address::Address`]: how one object is named everywhere.
//!
//! Deliberately absent: files, environment variables, clock, async.

mod check;
mod code;
mod context;
mod diagnostic;
mod directory;
mod explain;
mod format;
mod load;
mod read;
mod reader;
mod resolve;
mod rooms;
mod scan;
mod text;
mod words;

pub mod address;
pub mod aws;
pub mod containerfile;
pub mod model;
pub mod origin;
pub mod resolved;
pub mod slug;
pub mod source;

pub use address::{Address, Kind};
pub use check::{Checked, check, language_files, wanted};
pub use diagnostic::Diagnostic;
pub use explain::{Explanation, codes, explain, nearest_code};
pub use format::{FormatError, format};
pub use miette::Severity;
pub use origin::{Declared, Origin};
pub use resolve::{ResolveError, resolve};
pub use source::{Links, ListedEntry, ListedFile, Listing, Looked, RelPath, SourceFile, SourceTree, Wanted};

/// Codes of what later stages find; see [`Diagnostic::of_line`].
pub mod late {
    pub use crate::code::{DOES_NOT_FIT, LOCK_SYNTAX, NO_STACK, NOT_LOCKED, SKILL_NOT_TEXT, TEMPLATE};

    /// All of them.
    pub const ALL: [&str; 6] = [DOES_NOT_FIT, LOCK_SYNTAX, NO_STACK, NOT_LOCKED, SKILL_NOT_TEXT, TEMPLATE];
}

/// The version that `tool-version` of the `fleet` node is compared with.
pub const TOOL_VERSION: &str = env!("CARGO_PKG_VERSION");
