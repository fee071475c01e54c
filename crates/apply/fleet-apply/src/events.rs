//! [`Event`]: everything that a run tells, as one enum. Terminal, plain and JSON renderers are consumers at the edge.

use fleet_model::Address;
use fleet_plan::Action;
use serde::{Deserialize, Serialize};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A change begins.
    Started {
        /// Of what.
        address: Address,
        /// What.
        action: Action,
    },
    /// A change goes on.
    Progress {
        /// Of what.
        address: Address,
        /// What it does now: `downloading 41 of 330 packages`.
        what: String,
    },
    /// A change ended well.
    Finished {
        /// Of what.
        address: Address,
        /// Whether anything had to be written.
        changed: bool,
        /// How long, milliseconds.
        millis: u64,
    },
    /// A change failed.
    Failed {
        /// Of what.
        address: Address,
        /// Why.
        why: String,
        /// The last lines that a container printed.
        last_lines: Vec<String>,
    },
    /// Something a person should know.
    Notice {
        /// The text.
        text: String,
    },
    /// A write call to an outside system, for `--events` and the tests that count them.
    Call {
        /// `docker`, `matrix`.
        system: String,
        /// `POST /containers/create`, without secrets.
        call: String,
        /// It changes something.
        write: bool,
    },
}

/// Takes events; must not block for long.
pub trait Events: Send + Sync {
    /// Takes one.
    fn emit(&self, event: Event);
}

/// Drops everything: for reads that nobody watches, and for changes of which nothing is to be kept.
pub struct Silent;

impl Events for Silent {
    fn emit(&self, _: Event) {}
}
