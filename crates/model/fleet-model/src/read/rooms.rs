//! `rooms { room …; each "team" { room … }; direct-messages … }`.

use std::collections::BTreeSet;

use crate::{
    code,
    context::{Context, Refers},
    diagnostic::Draft,
    model::{Each, MemberRule, Pairing, RoomRule, Rooms},
    reader::{Arguments, Node, Shape},
    slug::slug,
    text::Place,
    words,
};

const ROOMS: Shape = Shape { once: &["direct-messages"], many: &["room", "each"], ..Shape::EMPTY };
const EACH: Shape = Shape { arguments: Arguments::These(&["department or team"]), many: &["room"], ..Shape::EMPTY };
const ROOM: Shape = Shape {
    arguments: Arguments::These(&["alias"]),
    properties: Some(&["name", "topic", "public"]),
    once: &[],
    many: &["members", "moderators"],
};
const MEMBERS: Shape =
    Shape { arguments: Arguments::Any, properties: Some(&["level", "in", "department", "team"]), ..Shape::EMPTY };
const SCOPES: [(&str, Each); 2] = [("department", Each::Department), ("team", Each::Team)];
const PAIRINGS: [(&str, Pairing); 3] = [
    ("manager-report", Pairing::ManagerReport),
    ("same-manager", Pairing::SameManager),
    ("same-team", Pairing::SameTeam),
];

/// Adds the rules of one `rooms` node.
pub(crate) fn read(ctx: &mut Context<'_>, node: Node<'_>, rooms: &mut Rooms) {
    ctx.expect(node, &ROOMS);
    for child in node.children() {
        match child.word() {
            "room" => rooms.rules.extend(room(ctx, child, Each::Once)),
            "each" => {
                ctx.expect(child, &EACH);
                let scope =
                    ctx.argument(child, 0).and_then(|given| ctx.word_of("thing to repeat rooms over", given, &SCOPES));
                for inner in child.all("room") {
                    rooms.rules.extend(room(ctx, inner, scope.unwrap_or(Each::Team)).filter(|_| scope.is_some()));
                }
            }
            "direct-messages" => {
                ctx.expect(child, &Shape::of(Arguments::Some("pairing")));
                for given in ctx.arguments(child) {
                    rooms.direct_messages.extend(ctx.word_of("pairing", given, &PAIRINGS));
                }
            }
            _ => {}
        }
    }
}

fn room(ctx: &mut Context<'_>, node: Node<'_>, each: Each) -> Option<RoomRule> {
    ctx.expect(node, &ROOM);
    let name = ctx.text(node, "name");
    let topic = ctx.text(node, "topic");
    for (text, place) in [name, topic].into_iter().flatten() {
        placeholders(ctx, text, place, each);
    }
    let public = ctx.flag(node, "public").unwrap_or(false);
    let members = node.all("members").filter_map(|child| rule(ctx, child, each)).collect();
    let moderators = node.all("moderators").filter_map(|child| rule(ctx, child, each)).collect();
    if node.one("members").is_none() {
        ctx.report(
            Draft::error(code::MISSING_NODE, "a room needs members")
                .at(node.place(), "this room has none")
                .help("write members \"*\" for everybody, or ids and attributes"),
        );
    }
    let (alias, place) = ctx.argument(node, 0)?;
    let fine = placeholders(ctx, alias, place, each);
    let plain = alias.replace("{department}", "d").replace("{team}", "t");
    if fine && !words::is_local_part(&plain) {
        let better = slug(&plain);
        ctx.report(
            Draft::error(code::BAD_ALIAS, format!("`{}` cannot be a room alias", alias.escape_debug()))
                .at(place, "this alias")
                .help(if better.is_empty() || better != slug(alias) {
                    "use lower-case letters, digits and dashes".to_owned()
                } else {
                    format!("for instance `{better}`")
                }),
        );
        return None;
    }
    if fine {
        repeats(ctx, alias, place, each);
    }
    fine.then(|| RoomRule {
        alias: alias.to_owned(),
        name: name.map(|(text, _)| text.to_owned()),
        topic: topic.map(|(text, _)| text.to_owned()),
        each,
        members,
        public,
        moderators,
        origin: ctx.origin(node.place()),
    })
}

/// A room within `each` needs the placeholder in its alias, else all of them have one alias.
fn repeats(ctx: &mut Context<'_>, alias: &str, place: Place, each: Each) {
    let needed = match each {
        Each::Once => return,
        Each::Department => "{department}",
        Each::Team => "{team}",
    };
    if !alias.contains(needed) {
        ctx.report(
            Draft::error(code::BAD_ALIAS, format!("this room repeats, and its alias does not hold {needed}"))
                .at(place, "the same alias every time")
                .help(format!("for instance \"{needed}-{}\"", slug(alias))),
        );
    }
}

/// Reports placeholders that mean nothing here.
fn placeholders(ctx: &mut Context<'_>, text: &str, place: Place, each: Each) -> bool {
    let known: &[&str] = match each {
        Each::Once => &[],
        Each::Department => &["department"],
        Each::Team => &["department", "team"],
    };
    let mut fine = true;
    for part in text.split('{').skip(1) {
        let name = part.split('}').next().unwrap_or_default();
        if known.contains(&name) {
            continue;
        }
        fine = false;
        let help = match each {
            Each::Once => "placeholders work within each \"department\" { … } and each \"team\" { … } only".to_owned(),
            _ => words::did_you_mean_or_known(name, known.iter().copied(), ""),
        };
        ctx.report(
            Draft::error(code::UNKNOWN_PLACEHOLDER, format!("`{{{}}}` stands for nothing here", name.escape_debug()))
                .at(place, "in this text")
                .help(help),
        );
    }
    fine
}

fn rule(ctx: &mut Context<'_>, node: Node<'_>, each: Each) -> Option<MemberRule> {
    ctx.expect(node, &MEMBERS);
    let mut rule = MemberRule::default();
    for given in ctx.arguments(node) {
        match given.0 {
            "*" => rule.everyone = true,
            word if words::level(word).is_some() => {
                rule.ids.insert(word.to_owned());
            }
            id => {
                ctx.refer(Refers::Person, given);
                rule.ids.insert(id.to_owned());
            }
        }
    }
    if let Some(given) = ctx.text(node, "level") {
        rule.levels = levels(ctx, given);
    }
    let department = ctx.text(node, "department");
    if let Some(given) = department {
        ctx.refer(Refers::Department, given);
        rule.department = Some(given.0.to_owned());
    }
    if let Some(given) = ctx.text(node, "team") {
        ctx.refer(Refers::Team(rule.department.clone()), given);
        rule.team = Some(given.0.to_owned());
    }
    if let Some(given) = ctx.text(node, "in") {
        rule.in_scope = scope(ctx, given, each);
    }
    if node.kdl.entries().is_empty() {
        ctx.report(
            Draft::error(code::MISSING_ARGUMENT, format!("`{}` names nobody", node.word()))
                .at(node.place(), "who is meant is missing after this")
                .help(format!("write {0} \"*\", {0} \"maria.silva\" or {0} level=\"vp\"", node.word())),
        );
    }
    Some(rule)
}

/// `in="{department}"` or `in="{team}"`: the thing that `each` is at.
fn scope(ctx: &mut Context<'_>, (text, place): (&str, Place), each: Each) -> bool {
    let wanted = match each {
        Each::Once => None,
        Each::Department => Some("{department}"),
        Each::Team => Some("{team}"),
    };
    if Some(text) == wanted {
        return true;
    }
    let help = wanted.map_or_else(
        || "for one department or team write department=\"…\" or team=\"…\"".to_owned(),
        |wanted| format!("here it can only be in=\"{wanted}\"; for one of them write department=\"…\" or team=\"…\""),
    );
    ctx.report(
        Draft::error(code::UNKNOWN_PLACEHOLDER, format!("`{}` stands for nothing here", text.escape_debug()))
            .at(place, "not the thing that rooms repeat over here")
            .help(help),
    );
    false
}

/// `level="ceo,vp"`.
pub(crate) fn levels(ctx: &mut Context<'_>, (text, place): (&str, Place)) -> BTreeSet<crate::model::Level> {
    text.split(',').filter_map(|word| ctx.word_of("level", (word.trim(), place), &words::LEVELS)).collect()
}
