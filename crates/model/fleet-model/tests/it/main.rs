//! The crate from outside: golden diagnostics, resolved environments, formatting, and what never happens.

mod anycompany;
mod diagnostics;
mod documents;
mod format;
mod project;
mod resolve;
mod robust;
