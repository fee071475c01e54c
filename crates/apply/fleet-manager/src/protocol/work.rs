//! [`Work`]: what an operator hands over.

use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_plan::{Action, Change, Desired, Plan};
use serde::{Deserialize, Serialize};

use super::{
    WORK,
    sealed::{Key, Refused, open, seal},
};

/// Where an object of work is.
#[must_use]
pub fn work_object(id: &str) -> String {
    format!("{WORK}/{id}.json")
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

#[cfg(test)]
mod tests {
    use fleet_plan::{AccountSpec, State};

    use super::*;
    use crate::protocol::{Seen, key};

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
}
