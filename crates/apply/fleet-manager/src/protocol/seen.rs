//! [`Seen`]: what a manager saw.

use fleet_model::Address;
use fleet_plan::State;
use serde::{Deserialize, Serialize};

use super::{
    OBSERVED,
    sealed::{Key, Refused, open, seal},
};

/// What a manager saw.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Fleet name.
    pub fleet: String,
    /// Environment name.
    pub environment: String,
    /// When: milliseconds since 1970, by the manager's clock.
    pub at: u64,
    /// Version of the manager.
    pub tool: String,
    /// What it looked for: who wants something else must ask.
    pub wanted: Vec<Address>,
    /// Accounts and rooms with their versions; a homeserver that does not answer is in [`State::unseen`].
    pub state: State,
}

impl Seen {
    /// The object's text.
    #[must_use]
    pub fn seal(&self, key: &Key) -> String {
        seal(key, OBSERVED, self)
    }

    /// Opens it.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn open(key: &Key, fleet: &str, environment: &str, bytes: &[u8]) -> Result<Self, Refused> {
        let (seen, _): (Self, String) = open(key, OBSERVED, bytes)?;
        if (seen.fleet.as_str(), seen.environment.as_str()) != (fleet, environment) {
            return Err(Refused::Elsewhere(format!("{}-{}", seen.fleet, seen.environment)));
        }
        Ok(seen)
    }
}
