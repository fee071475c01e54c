//! `org { … }`: people, departments, teams, the directory file.

use std::collections::BTreeMap;

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    directory,
    model::{Department, Level, Overrides, PersonId, Team},
    read::{overrides, taken},
    reader::{Arguments, Node, Shape},
    slug::slug,
    text::Place,
    words,
};

/// The org as declared; ids are unique, nothing else is checked.
#[derive(Debug, Default)]
pub(crate) struct OrgPart {
    pub defaults: Overrides,
    pub departments: BTreeMap<String, Department>,
    /// Where departments (with an empty second part) and teams are declared by nodes.
    pub places: BTreeMap<(String, String), Place>,
    /// From `person` and `human` nodes.
    pub nodes: BTreeMap<PersonId, PersonPart>,
    /// From directory files.
    pub rows: BTreeMap<PersonId, PersonPart>,
}

/// A person as one node or one row declares them: what is `None` was not said.
#[derive(Debug)]
pub(crate) struct PersonPart {
    pub place: Place,
    pub name: Option<String>,
    pub title: Option<String>,
    pub level: Option<Level>,
    /// A level was given and refused; that it is missing is then not worth saying.
    pub refused: bool,
    pub department: Option<String>,
    pub team: Option<String>,
    pub reports_to: Option<(PersonId, Place)>,
    /// A manager was given and refused.
    pub refused_manager: bool,
    pub human: bool,
    pub overrides: Overrides,
}

const ORG: Shape = Shape { once: &["defaults"], many: &["human", "person", "department", "directory"], ..Shape::EMPTY };
const DEPARTMENT: Shape = Shape {
    arguments: Arguments::These(&["name"]),
    properties: Some(&["alias"]),
    once: &["defaults"],
    many: &["human", "person", "team"],
};
const TEAM: Shape = Shape {
    arguments: Arguments::These(&["name"]),
    properties: Some(&["alias"]),
    once: &[],
    many: &["human", "person"],
};
/// Directly in `org` a person may say where they belong; within a department the place says it.
const PERSON_ANYWHERE: Shape = Shape {
    arguments: Arguments::These(&["id"]),
    properties: Some(&["name", "title", "level", "reports-to", "department", "team"]),
    once: overrides::WORDS,
    many: &[],
};
const PERSON: Shape = Shape { properties: Some(&["name", "title", "level", "reports-to"]), ..PERSON_ANYWHERE };
const HUMAN_ANYWHERE: Shape = Shape { once: &[], ..PERSON_ANYWHERE };
const HUMAN: Shape = Shape { once: &[], ..PERSON };

/// Adds what one `org` node declares, but for its directory files.
pub(crate) fn read(ctx: &mut Context<'_>, node: Node<'_>, org: &mut OrgPart) {
    ctx.expect(node, &ORG);
    for child in node.children() {
        match child.word() {
            "defaults" => {
                ctx.expect(child, &overrides::HOLDER);
                let more = overrides::read(ctx, child);
                org.defaults = std::mem::take(&mut org.defaults).under(more);
            }
            "human" | "person" => person(ctx, child, (None, None), org),
            "department" => department(ctx, child, org),
            _ => {}
        }
    }
}

/// Adds the rows of the directory files of one `org` node; after every declared department, since rows may
/// introduce those that are not.
pub(crate) fn read_directories(ctx: &mut Context<'_>, node: Node<'_>, org: &mut OrgPart) {
    for child in node.all("directory") {
        directory::read(ctx, child, org);
    }
}

fn department(ctx: &mut Context<'_>, node: Node<'_>, org: &mut OrgPart) {
    ctx.expect(node, &DEPARTMENT);
    let defaults = node.one("defaults").map(|child| {
        ctx.expect(child, &overrides::HOLDER);
        overrides::read(ctx, child)
    });
    let named = ctx.argument(node, 0);
    let name = named.map(|(name, _)| name);
    if let Some((name, place)) = named {
        if let Some(first) = org.places.insert((name.to_owned(), String::new()), place) {
            taken(ctx, "departments", name, place, Some(first));
        } else {
            let department = Department {
                name: name.to_owned(),
                alias: alias(ctx, node, (name, place)),
                defaults: defaults.unwrap_or_default(),
                teams: BTreeMap::new(),
                origin: ctx.origin(place),
            };
            org.departments.insert(name.to_owned(), department);
        }
    } else {
        ctx.gaps.departments = true;
    }
    for child in node.children() {
        match child.word() {
            "human" | "person" => person(ctx, child, (name, None), org),
            "team" => team(ctx, child, name, org),
            _ => {}
        }
    }
}

fn team(ctx: &mut Context<'_>, node: Node<'_>, department: Option<&str>, org: &mut OrgPart) {
    ctx.expect(node, &TEAM);
    let named = ctx.argument(node, 0);
    if let Some((name, place)) = named {
        let team = Team { name: name.to_owned(), alias: alias(ctx, node, (name, place)), origin: ctx.origin(place) };
        if let Some(home) = department.and_then(|department| org.departments.get_mut(department)) {
            let first = org.places.insert((home.name.clone(), name.to_owned()), place);
            home.teams.entry(name.to_owned()).or_insert(team);
            if first.is_some() {
                taken(ctx, "teams of this department", name, place, first);
            }
        }
    } else {
        ctx.gaps.departments = true;
    }
    for child in node.all("human").chain(node.all("person")) {
        person(ctx, child, (department, named.map(|(name, _)| name)), org);
    }
}

/// The declared alias, else the slug of the name; reports a name of which no slug is left.
pub(crate) fn alias(ctx: &mut Context<'_>, node: Node<'_>, (name, place): (&str, Place)) -> String {
    if let Some((alias, at)) = ctx.text(node, "alias") {
        if words::is_local_part(alias) {
            return alias.to_owned();
        }
        let help = match slug(alias) {
            empty if empty.is_empty() => "use lower-case letters, digits and dashes".to_owned(),
            slug => format!("for instance alias=\"{slug}\""),
        };
        ctx.report(
            Draft::error(code::BAD_ALIAS, format!("`{}` cannot be part of a room alias", alias.escape_debug()))
                .at(at, "this alias")
                .help(help),
        );
        return slug(name);
    }
    let slug = slug(name);
    if slug.is_empty() {
        empty_slug(ctx, name, place, "add alias=\"…\" with lower-case letters, digits and dashes");
    }
    slug
}

/// Reports a name of which no slug is left.
pub(crate) fn empty_slug(ctx: &mut Context<'_>, name: &str, place: Place, help: &str) {
    ctx.report(
        Draft::error(code::EMPTY_SLUG, format!("no room alias can be made of `{}`", name.escape_debug()))
            .at(place, "no letter or digit of this is left")
            .help(help),
    );
}

fn person(ctx: &mut Context<'_>, node: Node<'_>, (department, team): (Option<&str>, Option<&str>), org: &mut OrgPart) {
    let human = node.word() == "human";
    let shape = match (human, department.is_none()) {
        (true, true) => &HUMAN_ANYWHERE,
        (true, false) => &HUMAN,
        (false, true) => &PERSON_ANYWHERE,
        (false, false) => &PERSON,
    };
    ctx.expect(node, shape);
    let level = ctx.text(node, "level");
    let known = level.and_then(|given| ctx.word_of("level", given, &words::LEVELS));
    let manager = ctx.text(node, "reports-to").map(|(id, place)| (id.to_owned(), place));
    let own = |ctx: &mut Context<'_>, key: &str| ctx.text(node, key).map(|(text, _)| text.to_owned());
    let mut part = PersonPart {
        place: node.place(),
        name: own(ctx, "name"),
        title: own(ctx, "title"),
        level: known,
        refused: node.property("level").is_some() && known.is_none(),
        department: department.map(str::to_owned),
        team: team.map(str::to_owned),
        refused_manager: node.property("reports-to").is_some() && manager.is_none(),
        reports_to: manager,
        human,
        overrides: if human { Overrides::default() } else { overrides::read(ctx, node) },
    };
    if department.is_none() {
        belongs(ctx, node, &mut part);
    }
    let Some((id, place)) = ctx.argument(node, 0) else {
        ctx.gaps.nameless.insert("person".to_owned());
        return;
    };
    if !person_id(ctx, (id, place)) {
        ctx.gaps.ids.insert(id.to_owned());
        return;
    }
    part.place = place;
    if let Some(first) = org.nodes.get(id) {
        let first = first.place;
        taken(ctx, "people", id, place, Some(first));
    } else {
        org.nodes.insert(id.to_owned(), part);
    }
}

/// `department=` and `team=` of a person directly in `org`.
fn belongs(ctx: &mut Context<'_>, node: Node<'_>, part: &mut PersonPart) {
    use crate::context::Refers;
    if let Some(given) = ctx.text(node, "department") {
        ctx.refer(Refers::Department, given);
        part.department = Some(given.0.to_owned());
    }
    if let Some(given) = ctx.text(node, "team") {
        ctx.refer(Refers::Team(part.department.clone()), given);
        part.team = Some(given.0.to_owned());
    }
}

/// Can this be a person's id? Reports when not.
pub(crate) fn person_id(ctx: &mut Context<'_>, (id, place): (&str, Place)) -> bool {
    let level = words::level(id).is_some();
    let valid = words::is_local_part(id) && !level;
    if !valid {
        let help = if level {
            "level words name everybody of that level; use the person's name, such as maria.silva".to_owned()
        } else {
            let better: Vec<String> = id.split(['.', '_', ' ']).map(slug).filter(|part| !part.is_empty()).collect();
            let example = if better.is_empty() { "maria.silva".to_owned() } else { better.join(".") };
            format!("use lower-case letters, digits, dots, dashes and underscores, for instance `{example}`")
        };
        ctx.report(
            Draft::error(
                code::BAD_MATRIX_ID,
                format!("`{}` cannot be the local part of a Matrix id", id.escape_debug()),
            )
            .at(place, "this id")
            .help(help),
        );
    }
    valid
}

impl Overrides {
    /// These, with everything that `nearer` sets in their place.
    #[must_use]
    pub fn under(self, nearer: Self) -> Self {
        Self {
            model: nearer.model.or(self.model),
            skills: nearer.skills.or(self.skills),
            heartbeat_seconds: nearer.heartbeat_seconds.or(self.heartbeat_seconds),
            require_mention: nearer.require_mention.or(self.require_mention),
            size: nearer.size.or(self.size),
            template: nearer.template.or(self.template),
            image: nearer.image.or(self.image),
        }
    }
}
