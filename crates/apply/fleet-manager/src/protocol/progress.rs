//! [`Line`]s of progress, written in pieces that nobody changes, and the [`End`] of each change.

use std::collections::BTreeMap;

use fleet_apply::{Applied, Event, ProviderError};
use fleet_model::Address;
use serde::{Deserialize, Serialize};

use super::{
    PROGRESS, SCHEMA,
    sealed::{Key, Refused},
};

/// Where the progress of an object of work is.
#[must_use]
pub fn progress_folder(id: &str) -> String {
    format!("{PROGRESS}/{id}")
}

/// Where one piece of it is; pieces are numbered from 1, so that a listing by name has them in order.
#[must_use]
pub fn piece_object(id: &str, number: u32) -> String {
    format!("{PROGRESS}/{id}/{number:06}.ndjson")
}

/// The number of a piece by its file name.
#[must_use]
pub fn piece_number(name: &str) -> Option<u32> {
    name.strip_suffix(".ndjson").filter(|digits| digits.len() == 6)?.parse().ok()
}

/// First line of a piece of progress: vouches for the rest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// [`SCHEMA`].
    pub schema: u32,
    /// Its number.
    pub piece: u32,
    /// Signature of the lines that follow, as this piece of this work.
    pub mac: String,
}

/// One line of progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "line")]
pub enum Line {
    /// A change is about to be made. Written before it is: whoever goes on after a crash knows what it may find half done.
    Begun {
        /// Which.
        address: Address,
    },
    /// Something that the provider told while it was made.
    Told {
        /// What.
        event: Event,
    },
    /// A change ended.
    Ended {
        /// Which.
        address: Address,
        /// How.
        end: End,
    },
    /// Nothing ended for a while; somebody is there.
    Alive {
        /// What is waited for.
        what: String,
    },
    /// It is over: always the last line.
    Summary {
        /// How each change ended.
        ends: BTreeMap<Address, End>,
    },
}

/// How a change ended: what [`fleet_apply::Provider::apply`] returned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "end")]
pub enum End {
    /// Made.
    Done,
    /// It was right.
    Unchanged,
    /// Another one failed before it came to this.
    Skipped,
    /// Not what it was planned against.
    Stale {
        /// What moved.
        why: String,
    },
    /// The homeserver did not answer.
    Unreachable {
        /// Who.
        system: String,
        /// Why.
        why: String,
    },
    /// The homeserver refused.
    Denied {
        /// Who.
        system: String,
        /// Why.
        why: String,
    },
    /// Anything else.
    Failed {
        /// Why.
        why: String,
        /// What to do.
        help: Option<String>,
    },
}

impl End {
    /// From what a provider returned.
    #[must_use]
    pub fn of(result: &Result<Applied, ProviderError>) -> Self {
        match result {
            Ok(Applied::Changed { .. }) => Self::Done,
            Ok(Applied::Unchanged { .. }) => Self::Unchanged,
            Err(ProviderError::Stale { why, .. }) => Self::Stale { why: why.clone() },
            Err(ProviderError::Unreachable { system, why }) => {
                Self::Unreachable { system: system.clone(), why: why.clone() }
            }
            Err(ProviderError::Denied { system, why }) => Self::Denied { system: system.clone(), why: why.clone() },
            Err(ProviderError::Failed { why, help, .. }) => Self::Failed { why: why.clone(), help: help.clone() },
            Err(error @ ProviderError::RolledBack { .. }) => Self::Failed { why: error.explained(), help: None },
        }
    }

    /// Nothing is left to do about it.
    #[must_use]
    pub const fn is_good(&self) -> bool {
        matches!(self, Self::Done | Self::Unchanged)
    }

    /// As a provider returns it.
    ///
    /// # Errors
    /// What went wrong inside.
    pub fn result(self, address: &Address) -> Result<Applied, ProviderError> {
        let address = address.clone();
        Err(match self {
            Self::Done => return Ok(Applied::Changed { output: None }),
            Self::Unchanged => return Ok(Applied::Unchanged { output: None }),
            Self::Stale { why } => ProviderError::Stale { address, why },
            Self::Unreachable { system, why } => ProviderError::Unreachable { system, why },
            Self::Denied { system, why } => ProviderError::Denied { system, why },
            Self::Failed { why, help } => ProviderError::Failed { address, why, help, last_lines: Vec::new() },
            Self::Skipped => {
                ProviderError::failed(&address, "the manager did not come to it: something before it failed")
            }
        })
    }
}

/// A piece of progress as an object's text.
#[must_use]
pub fn seal_piece(key: &Key, id: &str, number: u32, lines: &[Line]) -> String {
    let text: String = lines.iter().filter_map(|line| Some(serde_json::to_string(line).ok()? + "\n")).collect();
    let head = Head { schema: SCHEMA, piece: number, mac: key.sign(&piece_object(id, number), &text) };
    format!("{}\n{text}", serde_json::to_string(&head).unwrap_or_default())
}

/// The lines of a piece.
///
/// # Errors
/// [`Refused`].
pub fn open_piece(key: &Key, id: &str, number: u32, bytes: &[u8]) -> Result<Vec<Line>, Refused> {
    let shape = |error: serde_json::Error| Refused::Shape(error.to_string());
    let text = std::str::from_utf8(bytes).map_err(|error| Refused::Shape(error.to_string()))?;
    let (head, text) = text.split_once('\n').ok_or_else(|| Refused::Shape("it has no lines".to_owned()))?;
    let head: Head = serde_json::from_str(head).map_err(shape)?;
    if head.schema != SCHEMA {
        return Err(Refused::Schema(head.schema));
    }
    if head.piece != number || !key.verifies(&piece_object(id, number), text, &head.mac) {
        return Err(Refused::Signature);
    }
    text.lines().map(|line| serde_json::from_str(line).map_err(shape)).collect()
}

#[cfg(test)]
mod tests {
    use fleet_model::Kind;

    use super::*;
    use crate::protocol::key;

    #[test]
    fn a_piece_of_progress_is_that_piece_of_that_work() {
        let key = key("0123456789abcdef");
        let address = Address::new(Kind::Room, "all");
        let ends = BTreeMap::from([(address.clone(), End::Stale { why: "it is gone".to_owned() })]);
        let event = Event::Progress { address: address.clone(), what: "joins".to_owned() };
        let lines = vec![Line::Begun { address: address.clone() }, Line::Told { event }, Line::Summary { ends }];
        let text = seal_piece(&key, "a", 3, &lines);
        assert_eq!(open_piece(&key, "a", 3, text.as_bytes()), Ok(lines));
        assert_eq!(open_piece(&key, "a", 4, text.as_bytes()), Err(Refused::Signature));
        assert_eq!(open_piece(&key, "b", 3, text.as_bytes()), Err(Refused::Signature));
        assert_eq!(open_piece(&key, "a", 3, text.replace("gone", "done").as_bytes()), Err(Refused::Signature));
        assert_eq!(piece_number("000003.ndjson"), Some(3));
        assert_eq!(piece_number("3.ndjson"), None);
    }

    #[test]
    fn every_error_of_a_provider_arrives_as_it_was() {
        let address = Address::new(Kind::Room, "all");
        let (why, system) = ("why".to_owned(), "matrix".to_owned());
        for error in [
            ProviderError::Stale { address: address.clone(), why: why.clone() },
            ProviderError::Unreachable { system: system.clone(), why: why.clone() },
            ProviderError::Denied { system, why: why.clone() },
            ProviderError::failed(&address, why).help("help"),
        ] {
            let said = error.to_string();
            let end = End::of(&Err(error));
            let json = serde_json::to_string(&end).unwrap();
            let arrived: End = serde_json::from_str(&json).unwrap();
            assert_eq!(arrived.result(&address).unwrap_err().to_string(), said);
        }
    }
}
