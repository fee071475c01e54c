//! [`resolve`]: one environment of a model, with every override applied and every room expanded.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    check::base_of,
    model::{Environment, Level, Model, Overrides, Pairing, Person, PersonId, Size},
    origin::Declared,
    resolved::{Account, Agent, DirectoryEntry, Resolved, Room},
    rooms,
    source::{BadPath, RelPath},
    words,
};

/// Why [`resolve`] could not.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    /// No environment of that name.
    #[error("there is no environment `{name}`; {}", suggestion(.nearest.as_deref(), .known))]
    UnknownEnvironment {
        /// What was asked for.
        name: String,
        /// The declared name that may have been meant.
        nearest: Option<String>,
        /// Every declared name.
        known: Vec<String>,
    },
    /// A model that did not come out of [`crate::check`]: an agent has no model chosen.
    #[error("no model is chosen for `{agent}`; run `fleetctl check`")]
    NoModel {
        /// The agent.
        agent: PersonId,
    },
    /// A model that did not come out of [`crate::check`]: its templates folder cannot be named.
    #[error("the templates folder is not usable: {0}")]
    Templates(#[from] BadPath),
}

fn suggestion(nearest: Option<&str>, known: &[String]) -> String {
    match nearest {
        Some(name) => format!("did you mean `{name}`?"),
        None if known.is_empty() => "fleet.kdl declares none".to_owned(),
        None => format!("fleet.kdl declares {}", words::list(&known.iter().map(String::as_str).collect::<Vec<_>>())),
    }
}

/// Resolves one environment.
///
/// # Errors
/// [`ResolveError::UnknownEnvironment`] when it is not declared. The other variants cannot happen with a model that
/// [`crate::check`] returned.
pub fn resolve(model: &Model, environment: &str) -> Result<Resolved, ResolveError> {
    let Some(declared) = model.environments.get(environment) else {
        let known: Vec<String> = model.environments.keys().cloned().collect();
        let nearest = words::nearest(environment, known.iter().map(String::as_str)).map(str::to_owned);
        return Err(ResolveError::UnknownEnvironment { name: environment.to_owned(), nearest, known });
    };
    let mut agents = BTreeMap::new();
    for id in declared.deploy.keys() {
        if let Some(person) = model.org.people.get(id) {
            agents.insert(id.clone(), agent(model, declared, person)?);
        }
    }
    let rooms = rooms::expand(model, declared).rooms;
    let candidates = rooms::candidates(model, declared);
    let direct_messages = pairs(model, &candidates, &agents);
    let accounts = accounts(model, &agents, &rooms, &direct_messages);
    let directory = candidates.iter().map(|person| (person.id.clone(), entry(model, person, &accounts))).collect();
    let images = images(model, declared, &agents);
    Ok(Resolved { environment: environment.to_owned(), agents, accounts, rooms, direct_messages, directory, images })
}

/// What is set for a person: defaults < department < person < environment, per field.
pub(crate) fn overrides(model: &Model, environment: &Environment, person: &Person) -> Overrides {
    let department = person.department.as_ref().and_then(|name| model.org.departments.get(name));
    let department = department.map(|department| department.defaults.clone()).unwrap_or_default();
    let layers = [department, person.overrides.clone(), environment.overrides.clone()];
    layers.into_iter().fold(model.org.defaults.clone(), Overrides::under)
}

/// The agent's image; `agent` when nobody says otherwise.
pub(crate) fn image(overrides: &Overrides) -> Declared<String> {
    overrides.image.clone().unwrap_or_else(|| Declared::built_in("agent".to_owned()))
}

/// The agent's size; one core and 2 GiB when nobody says otherwise.
pub(crate) fn size(overrides: &Overrides) -> Declared<Size> {
    overrides.size.clone().unwrap_or_else(|| Declared::built_in(Size { cpu: 1024, memory_mib: 2048 }))
}

/// `<templates>/roles/<level>.md`.
pub(crate) fn role_template(model: &Model, level: Level) -> Result<RelPath, BadPath> {
    model.templates.value.join(&format!("roles/{}.md", level.as_str()))
}

fn matrix_id(model: &Model, id: &str) -> String {
    format!("@{id}:{}", model.fleet.domain)
}

fn agent(model: &Model, environment: &Environment, person: &Person) -> Result<Agent, ResolveError> {
    let overrides = overrides(model, environment, person);
    Ok(Agent {
        id: person.id.clone(),
        matrix_id: matrix_id(model, &person.id),
        name: person.name.clone(),
        title: person.title.clone(),
        level: person.level,
        department: person.department.clone(),
        team: person.team.clone(),
        reports_to: person.reports_to.clone(),
        image: image(&overrides),
        size: size(&overrides),
        template: match overrides.template {
            Some(own) => own,
            None => Declared::built_in(role_template(model, person.level)?),
        },
        model: overrides.model.ok_or_else(|| ResolveError::NoModel { agent: person.id.clone() })?,
        skills: overrides.skills.unwrap_or_else(|| Declared::built_in(BTreeSet::new())),
        heartbeat_seconds: overrides.heartbeat_seconds.unwrap_or_else(|| Declared::built_in(300)),
        require_mention: overrides.require_mention.unwrap_or_else(|| Declared::built_in(true)),
        origin: person.origin.clone(),
    })
}

/// The pairs with a direct-message room: each in id order, at least one of them an agent.
fn pairs(model: &Model, candidates: &[&Person], agents: &BTreeMap<PersonId, Agent>) -> BTreeSet<(PersonId, PersonId)> {
    let mut pairs = BTreeSet::new();
    let mut add = |a: &Person, b: &Person| {
        if a.id != b.id && (agents.contains_key(&a.id) || agents.contains_key(&b.id)) {
            let (first, second) = if a.id < b.id { (a, b) } else { (b, a) };
            pairs.insert((first.id.clone(), second.id.clone()));
        }
    };
    let here: BTreeMap<&str, &Person> = candidates.iter().map(|person| (person.id.as_str(), *person)).collect();
    for pairing in &model.rooms.direct_messages {
        let groups: Vec<Vec<&Person>> = match pairing {
            Pairing::ManagerReport => candidates
                .iter()
                .filter_map(|person| Some(vec![*person, *here.get(person.reports_to.as_deref()?)?]))
                .collect(),
            Pairing::SameManager => grouped(candidates, |person| person.reports_to.as_deref().map(|id| (id, ""))),
            Pairing::SameTeam => {
                grouped(candidates, |person| Some((person.department.as_deref()?, person.team.as_deref()?)))
            }
        };
        for group in groups {
            for (at, a) in group.iter().enumerate() {
                group[at + 1..].iter().for_each(|b| add(a, b));
            }
        }
    }
    pairs
}

fn grouped<'p>(
    people: &[&'p Person],
    key: impl Fn(&'p Person) -> Option<(&'p str, &'p str)>,
) -> Vec<Vec<&'p Person>> {
    let mut groups: BTreeMap<(&str, &str), Vec<&Person>> = BTreeMap::new();
    for person in people {
        if let Some(key) = key(person) {
            groups.entry(key).or_default().push(person);
        }
    }
    groups.into_values().collect()
}

/// Every agent, and every human who is in a room or a direct-message room.
fn accounts(
    model: &Model,
    agents: &BTreeMap<PersonId, Agent>,
    rooms: &BTreeMap<String, Room>,
    pairs: &BTreeSet<(PersonId, PersonId)>,
) -> BTreeMap<PersonId, Account> {
    let members = rooms.values().flat_map(|room| &room.members);
    let ids = agents.keys().chain(members).chain(pairs.iter().flat_map(|(a, b)| [a, b]));
    let ids: BTreeSet<&PersonId> = ids.collect();
    ids.into_iter()
        .filter_map(|id| model.org.people.get(id))
        .map(|person| {
            let account = Account {
                id: person.id.clone(),
                matrix_id: matrix_id(model, &person.id),
                display_name: person.name.clone(),
                human: person.human,
                origin: person.origin.clone(),
            };
            (person.id.clone(), account)
        })
        .collect()
}

fn entry(model: &Model, person: &Person, accounts: &BTreeMap<PersonId, Account>) -> DirectoryEntry {
    DirectoryEntry {
        id: person.id.clone(),
        name: person.name.clone(),
        title: person.title.clone(),
        level: person.level,
        department: person.department.clone(),
        team: person.team.clone(),
        reports_to: person.reports_to.clone(),
        matrix_id: matrix_id(model, &person.id),
        deployed: accounts.contains_key(&person.id),
    }
}

/// Images of agents and services, and what they start from.
fn images(model: &Model, environment: &Environment, agents: &BTreeMap<PersonId, Agent>) -> BTreeSet<String> {
    let agents = agents.values().map(|agent| agent.image.value.as_str());
    let web = environment.web.iter().map(|web| web.image.as_str());
    let mut open: Vec<&str> = agents.chain(web).chain([environment.homeserver.image.as_str()]).collect();
    let mut used = BTreeSet::new();
    while let Some(name) = open.pop() {
        if used.insert(name.to_owned()) {
            open.extend(model.images.get(name).and_then(base_of).map(|base| base.value));
        }
    }
    used
}
