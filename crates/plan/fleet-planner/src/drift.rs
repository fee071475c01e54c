//! [`drift`]: how an account or a room differs from what is declared, field by field, in words.

use std::collections::BTreeSet;

use fleet_plan::{AccountSpec, Desired, RoomSpec};

/// Every difference, as a person would say it; empty when the two are the same.
#[must_use]
pub fn drift(actual: &Desired, desired: &Desired) -> Vec<String> {
    match (actual, desired) {
        (Desired::Room(is), Desired::Room(should)) => room(is, should),
        (Desired::Account(is), Desired::Account(should)) => account(is, should),
        (is, should) if is == should => Vec::new(),
        _ => vec!["it is of another kind".to_owned()],
    }
}

fn account(is: &AccountSpec, should: &AccountSpec) -> Vec<String> {
    let mut found = Vec::new();
    text(&mut found, "display name", &is.display_name, &should.display_name);
    if is.epoch != should.epoch {
        found.push(format!("password epoch is {}, should be {}", is.epoch, should.epoch));
    }
    found
}

fn room(is: &RoomSpec, should: &RoomSpec) -> Vec<String> {
    let mut found = Vec::new();
    text(&mut found, "name", &is.name, &should.name);
    text(&mut found, "topic", &is.topic, &should.topic);
    members(&mut found, "missing", &should.members, &is.members);
    members(&mut found, "not wanted", &is.members, &should.members);
    for id in is.power.keys().chain(should.power.keys()).collect::<BTreeSet<_>>() {
        let level = |levels: &std::collections::BTreeMap<String, i64>| levels.get(id).copied().unwrap_or(0);
        if level(&is.power) != level(&should.power) {
            found.push(format!("power of {id} is {}, should be {}", level(&is.power), level(&should.power)));
        }
    }
    if is.public != should.public {
        let word = |public| if public { "public" } else { "invite-only" };
        found.push(format!("it is {}, should be {}", word(is.public), word(should.public)));
    }
    found
}

fn text(found: &mut Vec<String>, what: &str, is: &str, should: &str) {
    if is != should {
        found.push(format!("{what} is {is:?}, should be {should:?}"));
    }
}

fn members(found: &mut Vec<String>, what: &str, these: &BTreeSet<String>, without: &BTreeSet<String>) {
    let missing: Vec<&str> = these.difference(without).map(String::as_str).collect();
    if !missing.is_empty() {
        found.push(format!("{what}: {}", missing.join(", ")));
    }
}
