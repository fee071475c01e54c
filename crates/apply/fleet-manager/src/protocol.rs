//! What operator and manager write into the config bucket: [`Work`], [`Line`]s of progress, and what was [`Seen`]. All
//! values, pure; each object is vouched for with a [`Key`] (docs/decisions, the manager by signed objects).
//!
//! | object | written by | holds |
//! |---|---|---|
//! | `manager/work/<id>.json` | operator, once | a sealed [`Work`]; the id is the hash of its text |
//! | `manager/progress/<id>/000001.ndjson`, … | manager, each once | a [`Head`], then [`Line`]s; the last of all is a summary |
//! | `manager/observed.json` | manager, again and again | a sealed [`Seen`] |

use std::collections::BTreeMap;

use fleet_apply::{Applied, Event, ProviderError};
use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
pub use fleet_plan::manager::{OBSERVED, PROGRESS, WORK};
use fleet_plan::{Action, Change, Desired, Plan, State};
use fleet_secret::FleetSecret;
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

/// Version of every object.
pub const SCHEMA: u32 = 1;
/// What the key is derived for.
pub const KEY_LABEL: &str = "manager-work";

/// Vouches for objects: whoever has the fleet secret of the environment has it.
#[derive(Clone)]
pub struct Key(fleet_secret::Secret);

impl Key {
    /// The key of an environment.
    #[must_use]
    pub fn of(secret: &FleetSecret) -> Self {
        Self(secret.key_for(KEY_LABEL))
    }

    /// HMAC-SHA256 over what an object is for and its text, as hex.
    fn sign(&self, purpose: &str, text: &str) -> String {
        self.mac(purpose, text).map(|mac| hex::encode(mac.finalize().into_bytes())).unwrap_or_default()
    }

    /// In constant time.
    fn verifies(&self, purpose: &str, text: &str, signature: &str) -> bool {
        let (Some(mac), Ok(signature)) = (self.mac(purpose, text), hex::decode(signature)) else { return false };
        mac.verify_slice(&signature).is_ok()
    }

    fn mac(&self, purpose: &str, text: &str) -> Option<Hmac<Sha256>> {
        // HMAC takes a key of any length (RFC 2104 §2), so there always is one.
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose()).ok()?;
        mac.update(format!("fleetctl/manager/v{SCHEMA}\n{purpose}\n").as_bytes());
        mac.update(text.as_bytes());
        Some(mac)
    }
}

/// Why an object is not taken for what it says it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not an object of this protocol.
    #[error("it is not of this protocol: {0}")]
    Shape(String),
    /// Of another version.
    #[error("it has schema {0}, and this version knows {SCHEMA}")]
    Schema(u32),
    /// Nobody vouches for it.
    #[error("its signature is not that of this environment's fleet secret: somebody else wrote it, or it was altered")]
    Signature,
    /// Signed, and not for here.
    #[error("it is meant for {0}")]
    Elsewhere(String),
}

/// Text with a signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sealed {
    schema: u32,
    text: String,
    mac: String,
}

/// Seals a value for a purpose.
fn seal<T: Serialize>(key: &Key, purpose: &str, value: &T) -> String {
    // Plain data with string keys: it always has a JSON form.
    let text = serde_json::to_string(value).unwrap_or_default();
    let mac = key.sign(purpose, &text);
    serde_json::to_string(&Sealed { schema: SCHEMA, text, mac }).unwrap_or_default()
}

/// Opens what [`seal`] made for the same purpose; with the text that was signed.
fn open<T: for<'d> Deserialize<'d>>(key: &Key, purpose: &str, bytes: &[u8]) -> Result<(T, String), Refused> {
    let shape = |error: serde_json::Error| Refused::Shape(error.to_string());
    let sealed: Sealed = serde_json::from_slice(bytes).map_err(shape)?;
    if sealed.schema != SCHEMA {
        return Err(Refused::Schema(sealed.schema));
    }
    // Before anything in it is looked at.
    if !key.verifies(purpose, &sealed.text, &sealed.mac) {
        return Err(Refused::Signature);
    }
    Ok((serde_json::from_str(&sealed.text).map_err(shape)?, sealed.text))
}

/// What an operator hands over: changes to make, or none, to have a look.
///
/// Whoever hands over the same changes of the same plan, made from the same observation, hands over the same object: it
/// is done once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Fleet name.
    pub fleet: String,
    /// Environment name.
    pub environment: String,
    /// When the observation was made that the changes stand on, else when they were handed over: milliseconds since 1970.
    pub base: u64,
    /// Changes of accounts and rooms.
    pub changes: Vec<Due>,
    /// Every account and room that is declared.
    pub wanted: Vec<Address>,
}

/// One change, without what only a person needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Of what.
    pub address: Address,
    /// What happens.
    pub action: Action,
    /// It may turn out that nothing is to do.
    pub if_changed: bool,
    /// The version that it was planned against; `None`: it must not exist.
    pub expect: Option<String>,
    /// As it should be; `None` for a deletion.
    pub desired: Option<Desired>,
}

impl Due {
    /// What a manager needs of a change.
    #[must_use]
    pub fn of(change: &Change) -> Self {
        Self {
            address: change.address.clone(),
            action: change.action,
            if_changed: change.if_changed,
            expect: change.expect.clone(),
            desired: change.desired.clone(),
        }
    }

    fn change(self) -> Change {
        Change {
            address: self.address,
            action: self.action,
            if_changed: self.if_changed,
            reasons: Vec::new(),
            before: None,
            after: None,
            expect: self.expect,
            desired: self.desired,
            derivation: None,
            resources: Vec::new(),
        }
    }
}

impl Work {
    /// The object's text, and its id.
    #[must_use]
    pub fn seal(&self, key: &Key) -> (String, String) {
        let text = serde_json::to_string(self).unwrap_or_default();
        (Hash::of(text.as_bytes()).to_string(), seal(key, WORK, self))
    }

    /// Opens the object with this id.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn open(key: &Key, id: &str, bytes: &[u8]) -> Result<Self, Refused> {
        let (work, text): (Self, String) = open(key, WORK, bytes)?;
        if Hash::of(text.as_bytes()).to_string() != id {
            return Err(Refused::Shape("its name is not the hash of what it holds".to_owned()));
        }
        match work.changes.iter().find(|due| !is_ours(&due.address)) {
            Some(due) => Err(Refused::Shape(format!("{} is neither an account nor a room", due.address))),
            None => Ok(work),
        }
    }

    /// Is it for this environment?
    ///
    /// # Errors
    /// [`Refused::Elsewhere`].
    pub fn check_scope(&self, fleet: &str, environment: &str) -> Result<(), Refused> {
        if (self.fleet.as_str(), self.environment.as_str()) == (fleet, environment) {
            return Ok(());
        }
        Err(Refused::Elsewhere(format!("{}-{}", self.fleet, self.environment)))
    }

    /// These changes as the executor takes them.
    #[must_use]
    pub fn plan(&self, changes: Vec<Due>) -> Plan {
        Plan {
            schema: fleet_plan::SCHEMA,
            fleet: self.fleet.clone(),
            environment: self.environment.clone(),
            graph: Hash::of(b""),
            changes: changes.into_iter().map(Due::change).collect(),
            unchanged: 0,
            notes: Vec::new(),
        }
    }
}

/// What a manager looks after.
#[must_use]
pub const fn is_ours(address: &Address) -> bool {
    matches!(address.kind, Kind::Account | Kind::Room)
}

/// Where an object of work is.
#[must_use]
pub fn work_object(id: &str) -> String {
    format!("{WORK}/{id}.json")
}

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
        let last_lines = Vec::new();
        Err(match self {
            Self::Done => return Ok(Applied::Changed { output: None }),
            Self::Unchanged => return Ok(Applied::Unchanged { output: None }),
            Self::Stale { why } => ProviderError::Stale { address, why },
            Self::Unreachable { system, why } => ProviderError::Unreachable { system, why },
            Self::Denied { system, why } => ProviderError::Denied { system, why },
            Self::Failed { why, help } => ProviderError::Failed { address, why, help, last_lines },
            Self::Skipped => {
                let why = "the manager did not come to it: something before it failed".to_owned();
                ProviderError::failed(&address, why).last_words(last_lines)
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

#[cfg(test)]
mod tests {
    use fleet_plan::AccountSpec;
    use fleet_secret::Secret;

    use super::*;

    fn key(secret: &str) -> Key {
        Key::of(&FleetSecret::new(Secret::new(secret)).unwrap())
    }

    fn work() -> Work {
        let spec = AccountSpec { matrix_id: "@ann:a.b".to_owned(), display_name: "Ann".to_owned(), epoch: 0 };
        let address = Address::new(Kind::Account, "ann");
        let due = Due {
            address: address.clone(),
            action: Action::Create,
            if_changed: false,
            expect: None,
            desired: Some(Desired::Account(spec)),
        };
        let (fleet, environment) = ("acme".to_owned(), "dev".to_owned());
        Work { fleet, environment, base: 7, changes: vec![due], wanted: vec![address] }
    }

    #[test]
    fn work_comes_back_from_its_object_and_its_id_is_its_content() {
        let key = key("0123456789abcdef");
        let (id, text) = work().seal(&key);
        assert_eq!(Work::open(&key, &id, text.as_bytes()), Ok(work()));
        assert_eq!(work().seal(&key).0, id);
        assert_ne!(Work { base: 8, ..work() }.seal(&key).0, id);
        let elsewhere = work().check_scope("acme", "production");
        assert_eq!(elsewhere, Err(Refused::Elsewhere("acme-dev".to_owned())));
    }

    #[test]
    fn forged_altered_or_misplaced_work_is_refused() {
        let ours = key("0123456789abcdef");
        let (id, text) = work().seal(&ours);
        assert_eq!(Work::open(&key("another secret, as long"), &id, text.as_bytes()), Err(Refused::Signature));
        let altered = text.replace("Ann", "Eve");
        assert_ne!(altered, text);
        assert_eq!(Work::open(&ours, &id, altered.as_bytes()), Err(Refused::Signature));
        // The same words, signed for another purpose.
        let seen = Seen {
            fleet: "acme".to_owned(),
            environment: "dev".to_owned(),
            at: 7,
            tool: "0".to_owned(),
            wanted: Vec::new(),
            state: State::default(),
        };
        assert_eq!(Work::open(&ours, &id, seen.seal(&ours).as_bytes()), Err(Refused::Signature));
        assert!(matches!(Work::open(&ours, "another id", text.as_bytes()), Err(Refused::Shape(_))));
        assert!(matches!(Work::open(&ours, &id, b"{}"), Err(Refused::Shape(_))));
        let mut foreign = work();
        foreign.changes[0].address = Address::new(Kind::Agent, "ann");
        let (id, text) = foreign.seal(&ours);
        assert!(matches!(Work::open(&ours, &id, text.as_bytes()), Err(Refused::Shape(_))));
    }

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
