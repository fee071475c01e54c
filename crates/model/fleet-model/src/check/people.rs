//! People: rows and nodes become persons; reporting lines are one tree.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    model::{Level, Org, Person, PersonId},
    read::org::PersonPart,
    slug::title_case,
    text::Place,
    words::did_you_mean_or_known,
};

/// Everybody, and where they and their managers are named.
pub(crate) struct People {
    pub all: BTreeMap<PersonId, Person>,
    pub places: Places,
}

/// Where each person is declared, and where their manager is named.
#[derive(Default)]
pub(crate) struct Places {
    pub person: BTreeMap<PersonId, Place>,
    pub manager: BTreeMap<PersonId, Place>,
}

/// Lays nodes over rows of the same id, field by field, and fills what may be left out.
pub(crate) fn finish(
    ctx: &mut Context<'_>,
    nodes: BTreeMap<PersonId, PersonPart>,
    mut rows: BTreeMap<PersonId, PersonPart>,
) -> People {
    let mut people = People { all: BTreeMap::new(), places: Places::default() };
    for (id, node) in nodes {
        let part = match rows.remove(&id) {
            Some(row) => over(node, row),
            None => node,
        };
        rows.insert(id, part);
    }
    for (id, part) in rows {
        people.places.person.insert(id.clone(), part.place);
        if let Some((_, place)) = &part.reports_to {
            people.places.manager.insert(id.clone(), *place);
        } else if part.refused_manager {
            ctx.gaps.managers.insert(id.clone());
        }
        if let Some(person) = person(ctx, &id, part) {
            people.all.insert(id, person);
        } else {
            ctx.gaps.ids.insert(id);
        }
    }
    people
}

fn over(node: PersonPart, row: PersonPart) -> PersonPart {
    // A node that stands in a department says the whole place; the row's team would be one of another department.
    let moved = node.department.is_some() && node.department != row.department;
    PersonPart {
        place: node.place,
        name: node.name.or(row.name),
        title: node.title.or(row.title),
        level: node.level.or(row.level),
        refused: node.refused || row.refused,
        team: node.team.or(row.team.filter(|_| !moved)),
        department: node.department.or(row.department),
        reports_to: node.reports_to.or(row.reports_to),
        refused_manager: node.refused_manager || row.refused_manager,
        human: node.human,
        overrides: node.overrides,
    }
}

fn person(ctx: &mut Context<'_>, id: &str, part: PersonPart) -> Option<Person> {
    let Some(level) = part.level else {
        if part.refused {
            return None;
        }
        ctx.report(
            Draft::error(code::MISSING_PROPERTY, format!("`{id}` has no level"))
                .at(part.place, "level is missing here")
                .help("the levels are `ceo`, `vp`, `director`, `manager`, `ic`"),
        );
        return None;
    };
    Some(Person {
        id: id.to_owned(),
        name: part.name.unwrap_or_else(|| title_case(id)),
        title: part.title.unwrap_or_else(|| title_of(level).to_owned()),
        level,
        department: part.department,
        team: part.team,
        reports_to: part.reports_to.map(|(manager, _)| manager),
        human: part.human,
        overrides: part.overrides,
        origin: ctx.origin(part.place),
    })
}

/// The title of somebody who has none.
fn title_of(level: Level) -> &'static str {
    match level {
        Level::Ceo => "Chief Executive Officer",
        Level::Vp => "Vice President",
        Level::Director => "Director",
        Level::Manager => "Manager",
        Level::Ic => "Individual Contributor",
    }
}

/// One head; everybody else reports to somebody who exists; nobody reports to themselves in the end.
pub(crate) fn check(ctx: &mut Context<'_>, org: &Org, places: &Places) {
    heads(ctx, org, places);
    for person in org.people.values() {
        let place = places.manager.get(&person.id).or_else(|| places.person.get(&person.id)).copied();
        match &person.reports_to {
            Some(manager) if !ctx.gaps.person(manager) && !org.people.contains_key(manager) => {
                let known = org.people.keys().map(String::as_str);
                ctx.report(
                    Draft::error(
                        code::MISSING_MANAGER,
                        format!("`{}` reports to `{manager}`, who does not exist", person.id),
                    )
                    .maybe_at(place, "nobody of that id")
                    .help(did_you_mean_or_known(manager, known, "declare that person")),
                );
            }
            None if person.level != Level::Ceo && !ctx.gaps.managers.contains(&person.id) => ctx.report(
                Draft::error(code::NO_MANAGER, format!("`{}` reports to nobody, and is not the ceo", person.id))
                    .maybe_at(place, "reports-to is missing here")
                    .help("add reports-to=\"…\"; only the head of all, of level ceo, has no manager"),
            ),
            _ => {}
        }
    }
    cycles(ctx, org, places);
}

fn heads(ctx: &mut Context<'_>, org: &Org, places: &Places) {
    let mut heads = org.people.values().filter(|person| person.level == Level::Ceo);
    let Some(first) = heads.next() else { return };
    for other in heads {
        let mut draft =
            Draft::error(code::SECOND_HEAD, format!("there are two heads: `{}` and `{}`", first.id, other.id));
        draft = draft.maybe_at(places.person.get(&other.id).copied(), "of level ceo");
        draft = draft.maybe_at(places.person.get(&first.id).copied(), "also of level ceo");
        ctx.report(draft.help("one person is the ceo; give the other another level and reports-to"));
    }
}

/// Follows every reporting line once; a line that meets itself is a cycle.
fn cycles(ctx: &mut Context<'_>, org: &Org, places: &Places) {
    let mut cleared: BTreeSet<&str> = BTreeSet::new();
    for start in org.people.keys() {
        let mut line: Vec<&str> = Vec::new();
        let mut at = Some(start.as_str());
        while let Some(id) = at {
            if cleared.contains(id) {
                break;
            }
            if let Some(from) = line.iter().position(|seen| *seen == id) {
                report_cycle(ctx, &line[from..], places);
                break;
            }
            line.push(id);
            at = org.people.get(id).and_then(|person| person.reports_to.as_deref());
        }
        cleared.extend(line);
    }
}

fn report_cycle(ctx: &mut Context<'_>, line: &[&str], places: &Places) {
    let chain: Vec<&str> = line.iter().chain(line.first()).copied().collect();
    let mut draft =
        Draft::error(code::REPORTING_CYCLE, format!("people report to each other in a circle: {}", chain.join(" → ")));
    for pair in chain.windows(2).take(8) {
        draft = draft.maybe_at(places.manager.get(pair[0]).copied(), format!("{} reports to {}", pair[0], pair[1]));
    }
    ctx.report(draft.help("one of them must report to somebody outside of the circle"));
}
