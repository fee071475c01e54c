//! [`resolve`]: one environment of a model, with every override applied and every room expanded.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    check::base_of,
    model::{Environment, Level, Model, Overrides, Pairing, Person, PersonId, Size},
    origin::{Declared, Origin},
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
    let rooms = rooms::expand(model, declared);
    let candidates = rooms::candidates(model, declared);
    let direct_messages = pairs(model, &candidates, &agents);
    let accounts = accounts(model, &agents, &rooms, &direct_messages);
    let directory = candidates.iter().map(|person| (person.id.clone(), entry(model, person, &accounts))).collect();
    let images = images(model, declared, &agents);
    Ok(Resolved { environment: environment.to_owned(), agents, accounts, rooms, direct_messages, directory, images })
}

/// The agent's image when nobody names one.
const IMAGE: &str = "agent";
/// The agent's size when nobody says one.
const SIZE: Size = Size { cpu: 1024, memory_mib: 2048 };
const HEARTBEAT_SECONDS: u32 = 300;

/// The declarations that reach a person, the nearest first: environment, person, department, organisation.
///
/// Borrowed: a check looks at ten thousand people and keeps nothing of them.
pub(crate) struct Layers<'m>([Option<&'m Overrides>; 4]);

impl<'m> Layers<'m> {
    pub fn of(model: &'m Model, environment: &'m Environment, person: &'m Person) -> Self {
        let department = person.department.as_ref().and_then(|name| model.org.departments.get(name));
        Self([
            Some(&environment.overrides),
            Some(&person.overrides),
            department.map(|department| &department.defaults),
            Some(&model.org.defaults),
        ])
    }

    /// The nearest declaration of one field.
    pub fn nearest<T>(&self, field: impl Fn(&'m Overrides) -> &'m Option<T>) -> Option<&'m T> {
        self.0.iter().flatten().find_map(|layer| field(layer).as_ref())
    }

    /// The image's name, and where it was declared.
    pub fn image(&self) -> (&'m str, Option<&'m Origin>) {
        let declared = self.nearest(|layer| &layer.image);
        declared.map_or((IMAGE, None), |image| (image.value.as_str(), image.origin.as_ref()))
    }

    /// The size, and where it was declared.
    pub fn size(&self) -> (Size, Option<&'m Origin>) {
        self.nearest(|layer| &layer.size).map_or((SIZE, None), |size| (size.value, size.origin.as_ref()))
    }
}

/// `<templates>/roles/<level>.md`.
pub(crate) fn role_template(model: &Model, level: Level) -> Result<RelPath, BadPath> {
    model.templates.value.join(&format!("roles/{}.md", level.as_str()))
}

fn matrix_id(model: &Model, id: &str) -> String {
    format!("@{id}:{}", model.fleet.domain)
}

fn agent(model: &Model, environment: &Environment, person: &Person) -> Result<Agent, ResolveError> {
    let layers = Layers::of(model, environment, person);
    let ((image, image_origin), (size, size_origin)) = (layers.image(), layers.size());
    Ok(Agent {
        id: person.id.clone(),
        matrix_id: matrix_id(model, &person.id),
        name: person.name.clone(),
        title: person.title.clone(),
        level: person.level,
        department: person.department.clone(),
        team: person.team.clone(),
        reports_to: person.reports_to.clone(),
        image: Declared { value: image.to_owned(), origin: image_origin.cloned() },
        size: Declared { value: size, origin: size_origin.cloned() },
        template: match layers.nearest(|layer| &layer.template) {
            Some(own) => own.clone(),
            None => Declared::built_in(role_template(model, person.level)?),
        },
        model: layers
            .nearest(|layer| &layer.model)
            .cloned()
            .ok_or_else(|| ResolveError::NoModel { agent: person.id.clone() })?,
        skills: or_built_in(layers.nearest(|layer| &layer.skills), BTreeSet::new()),
        heartbeat_seconds: or_built_in(layers.nearest(|layer| &layer.heartbeat_seconds), HEARTBEAT_SECONDS),
        require_mention: or_built_in(layers.nearest(|layer| &layer.require_mention), true),
        origin: person.origin.clone(),
    })
}

fn or_built_in<T: Clone>(declared: Option<&Declared<T>>, built_in: T) -> Declared<T> {
    declared.cloned().unwrap_or_else(|| Declared::built_in(built_in))
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

fn grouped<'p>(people: &[&'p Person], key: impl Fn(&'p Person) -> Option<(&'p str, &'p str)>) -> Vec<Vec<&'p Person>> {
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
    let manager = environment.manager.iter().map(|manager| manager.image.as_str());
    let mut open: Vec<&str> = agents.chain(web).chain(manager).chain([environment.homeserver.image.as_str()]).collect();
    let mut used = BTreeSet::new();
    while let Some(name) = open.pop() {
        if used.insert(name.to_owned()) {
            open.extend(model.images.get(name).and_then(base_of).map(|base| base.value));
        }
    }
    used
}
