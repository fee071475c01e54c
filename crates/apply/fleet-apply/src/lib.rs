//! Effects behind traits: observe, realize, execute. The main types are [`Provider`] and [`Execution`]; [`Retry`] is
//! how every backend asks again.
//!
//! Deliberately absent: planning (an executor cannot re-plan), the parser, and every SDK (those are in `backend/`).

pub mod causes;
pub mod events;
pub mod execute;
pub mod provider;
pub mod retry;

pub use events::{Event, Events, Silent};
pub use execute::{Execution, Recorder, Report, execute};
pub use provider::{Applied, Provider, ProviderError, Ready, Scope, Secrets};
pub use retry::{Clock, Retry, SystemClock};
