//! Effects behind traits: observe, realize, execute. The main types are [`Provider`] and [`execute`].
//!
//! Deliberately absent: planning (an executor cannot re-plan), the parser, and every SDK (those are in `backend/`).

pub mod events;
pub mod provider;

pub use events::{Event, Events, Silent};
pub use provider::{Applied, Provider, ProviderError, Ready, Scope, Secrets};
