//! [`claims`] and [`expand`]: the rooms that an environment's rules really make.

use std::collections::{BTreeMap, BTreeSet, btree_map::Entry};

use crate::{
    model::{Each, Environment, Level, MemberRule, Model, Person, PersonId, RoomRule},
    origin::Origin,
    resolved::Room,
    slug::title_case,
};

/// Who wants which alias, and the pairs who want the same.
pub(crate) struct Claims<'m> {
    pub claims: BTreeMap<String, Claim<'m>>,
    pub collisions: Vec<(Claim<'m>, Claim<'m>)>,
}

/// Who wants an alias.
#[derive(Clone)]
pub(crate) struct Claim<'m> {
    pub alias: String,
    /// For messages: ``team `Platform` of Product``.
    pub of: String,
    /// The department, the team, or the rule itself.
    pub origin: Origin,
    rule: &'m RoomRule,
    scope: Scope<'m>,
    /// The people of the scope.
    own: Vec<&'m Person>,
}

/// What one repetition of a rule is at.
#[derive(Clone, Copy)]
struct Scope<'m> {
    department: Option<&'m str>,
    team: Option<&'m str>,
    aliases: (&'m str, &'m str),
    origin: &'m Origin,
}

/// Everybody who can be in a room: deployed agents and humans.
pub(crate) fn candidates<'m>(model: &'m Model, environment: &Environment) -> Vec<&'m Person> {
    let in_it = |person: &&Person| person.human || environment.deploy.contains_key(&person.id);
    model.org.people.values().filter(in_it).collect()
}

/// The rooms that the rules make, without their members. A room exists when at least one deployed agent of its scope
/// is a member by its rule.
pub(crate) fn claims<'m>(model: &'m Model, environment: &Environment) -> Claims<'m> {
    let candidates = candidates(model, environment);
    let mut found = Claims { claims: BTreeMap::new(), collisions: Vec::new() };
    for rule in &model.rooms.rules {
        for (scope, own) in scopes(model, rule, &candidates) {
            if !own.iter().any(|person| !person.human && matches(&rule.members, person, &scope)) {
                continue;
            }
            let alias = fill(&rule.alias, scope.aliases);
            let claim = Claim {
                alias: alias.clone(),
                of: describe(rule, &scope),
                origin: scope.origin.clone(),
                rule,
                scope,
                own,
            };
            match found.claims.entry(alias) {
                Entry::Occupied(first) => found.collisions.push((first.get().clone(), claim)),
                Entry::Vacant(free) => drop(free.insert(claim)),
            }
        }
    }
    found
}

/// The rooms of an environment with their members, by alias.
pub(crate) fn expand(model: &Model, environment: &Environment) -> BTreeMap<String, Room> {
    let candidates = candidates(model, environment);
    let heads: Vec<&Person> = candidates.iter().copied().filter(|person| person.level == Level::Ceo).collect();
    let claims = claims(model, environment).claims;
    claims.into_iter().map(|(alias, claim)| (alias, room(claim, &candidates, &heads))).collect()
}

fn room(claim: Claim<'_>, candidates: &[&Person], heads: &[&Person]) -> Room {
    let Claim { alias, rule, scope, own, .. } = claim;
    let ids = |rules: &[MemberRule]| -> BTreeSet<PersonId> {
        // A rule that is bound to its scope and names nobody else is answered by the scope's people and the heads.
        let local = rules.iter().all(|rule| {
            let names_only_heads = rule.ids.iter().all(|id| id == Level::Ceo.as_str());
            !rule.everyone
                && names_only_heads
                && (rule.in_scope || rule.levels.iter().all(|level| *level == Level::Ceo))
                && (rule.in_scope || (rule.department.is_none() && rule.team.is_none()))
        });
        let asked: Vec<&Person> = if local { own.iter().chain(heads).copied().collect() } else { candidates.to_vec() };
        asked.into_iter().filter(|person| matches(rules, person, &scope)).map(|person| person.id.clone()).collect()
    };
    let names = (scope.department.unwrap_or_default(), scope.team.unwrap_or_default());
    let members = ids(&rule.members);
    Room {
        name: rule.name.as_deref().map_or_else(|| title_case(&alias), |name| fill(name, names)),
        topic: rule.topic.as_deref().map_or_else(String::new, |topic| fill(topic, names)),
        moderators: ids(&rule.moderators).intersection(&members).cloned().collect(),
        members,
        public: rule.public,
        origin: rule.origin.clone(),
        alias,
    }
}

/// Every repetition of a rule, with the people who belong to it.
fn scopes<'m>(model: &'m Model, rule: &'m RoomRule, candidates: &[&'m Person]) -> Vec<(Scope<'m>, Vec<&'m Person>)> {
    if rule.each == Each::Once {
        let scope = Scope { department: None, team: None, aliases: ("", ""), origin: &rule.origin };
        return vec![(scope, candidates.to_vec())];
    }
    let mut groups: BTreeMap<(&str, Option<&str>), Vec<&Person>> = BTreeMap::new();
    for person in candidates {
        let team = person.team.as_deref();
        let group = match (rule.each, person.department.as_deref(), team) {
            (Each::Department, Some(department), _) => (department, None),
            (Each::Team, Some(department), Some(_)) => (department, team),
            _ => continue,
        };
        groups.entry(group).or_default().push(person);
    }
    groups
        .into_iter()
        .filter_map(|((department, team), people)| Some((scope(model, department, team)?, people)))
        .collect()
}

fn scope<'m>(model: &'m Model, department: &'m str, team: Option<&'m str>) -> Option<Scope<'m>> {
    let declared = model.org.departments.get(department)?;
    let Some(name) = team else {
        let aliases = (declared.alias.as_str(), "");
        return Some(Scope { department: Some(department), team: None, aliases, origin: &declared.origin });
    };
    let team = declared.teams.get(name)?;
    let aliases = (declared.alias.as_str(), team.alias.as_str());
    Some(Scope { department: Some(department), team: Some(name), aliases, origin: &team.origin })
}

fn describe(rule: &RoomRule, scope: &Scope<'_>) -> String {
    match (scope.department, scope.team) {
        (Some(department), Some(team)) => format!("team `{team}` of {department}"),
        (Some(department), None) => format!("department `{department}`"),
        _ => format!("room \"{}\"", rule.alias),
    }
}

fn fill(text: &str, (department, team): (&str, &str)) -> String {
    text.replace("{department}", department).replace("{team}", team)
}

fn matches(rules: &[MemberRule], person: &Person, scope: &Scope<'_>) -> bool {
    rules.iter().any(|rule| {
        rule.everyone
            || rule.ids.contains(&person.id)
            || rule.ids.contains(person.level.as_str())
            || by_attributes(rule, person, scope)
    })
}

/// All attributes that are given must apply; a rule without any names nobody this way.
fn by_attributes(rule: &MemberRule, person: &Person, scope: &Scope<'_>) -> bool {
    let given = rule.in_scope || !rule.levels.is_empty() || rule.department.is_some() || rule.team.is_some();
    let head = person.level == Level::Ceo;
    let inside = scope.department.is_none_or(|name| person.department.as_deref() == Some(name))
        && scope.team.is_none_or(|name| person.team.as_deref() == Some(name));
    // The head of all belongs to every department, but is not a member of each team: only where a level names them.
    let at_home = inside || (head && rule.levels.contains(&Level::Ceo));
    given
        && (!rule.in_scope || at_home)
        && (rule.levels.is_empty() || rule.levels.contains(&person.level))
        && (rule.department.is_none() || rule.department == person.department)
        && (rule.team.is_none() || rule.team == person.team)
}
