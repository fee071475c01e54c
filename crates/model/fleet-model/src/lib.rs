//! The language and the model: KDL text in, a checked [`model::Model`] out, with every mistake found at once.
//!
//! - [`model::Model`]: what is declared. [`resolved::Resolved`]: what one environment makes of it.
//! - [`source::SourceTree`]: the files it is made from, read by the edge.
//! - [`address::Address`]: how one object is named everywhere.
//!
//! Deliberately absent: files, environment variables, clock, async.

pub mod address;
pub mod model;
pub mod origin;
pub mod resolved;
pub mod source;

pub use address::{Address, Kind};
pub use origin::{Declared, Origin};
pub use source::{Looked, RelPath, SourceFile, SourceTree};
