//! Reading: one module per section of the language, each from KDL nodes to declared parts.

pub(crate) mod containerfile;
pub(crate) mod environment;
pub(crate) mod files;
pub(crate) mod fleet;
pub(crate) mod images;
pub(crate) mod layers;
pub(crate) mod models;
pub(crate) mod org;
pub(crate) mod overrides;
pub(crate) mod rooms;

use std::collections::BTreeMap;

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    model::{Fleet, Image, ModelProvider, Rooms},
    origin::Declared,
    reader::{Arguments, Node, Shape},
    source::RelPath,
    text::Place,
};

/// What may stand at the top of a file.
pub(crate) const TOP: Shape = Shape {
    many: &["include", "org", "models", "images", "rooms", "environment"],
    once: &["fleet", "templates"],
    ..Shape::EMPTY
};

/// What is declared, as far as it could be read; not yet checked against each other.
#[derive(Debug, Default)]
pub(crate) struct Parts {
    pub fleet: Option<(Fleet, Place)>,
    /// There is a `fleet` node, be it a wrong one.
    pub has_fleet: bool,
    pub templates: Option<(Declared<RelPath>, Place)>,
    pub org: org::OrgPart,
    pub providers: BTreeMap<String, ModelProvider>,
    pub images: BTreeMap<String, Image>,
    pub rooms: Rooms,
    pub environments: BTreeMap<String, environment::EnvironmentPart>,
}

impl Parts {
    /// Reads one top-level node. `include` is not read here: the loader has followed it already.
    pub fn read(&mut self, ctx: &mut Context<'_>, node: Node<'_>) {
        match node.word() {
            "include" => {}
            "fleet" => self.read_fleet(ctx, node),
            "templates" => self.read_templates(ctx, node),
            "org" => org::read(ctx, node, &mut self.org),
            "models" => models::read(ctx, node, &mut self.providers),
            "images" => images::read(ctx, node, &mut self.images),
            "rooms" => rooms::read(ctx, node, &mut self.rooms),
            "environment" => environment::read(ctx, node, &mut self.environments),
            _ => ctx.unknown_node(node, "the top of a file", &TOP),
        }
    }

    fn read_fleet(&mut self, ctx: &mut Context<'_>, node: Node<'_>) {
        let fleet = fleet::read(ctx, node);
        self.has_fleet = true;
        if let Some((_, first)) = &self.fleet {
            once(ctx, node, *first);
        } else {
            self.fleet = fleet.map(|fleet| (fleet, node.place()));
        }
    }

    fn read_templates(&mut self, ctx: &mut Context<'_>, node: Node<'_>) {
        ctx.expect(node, &Shape::of(Arguments::These(&["folder"])));
        if let Some((_, first)) = &self.templates {
            once(ctx, node, *first);
            return;
        }
        let given = ctx.argument(node, 0).and_then(|given| Some((ctx.path(given)?, given.1)));
        let Some((path, place)) = given else {
            ctx.gaps.templates = true;
            return;
        };
        ctx.folder(&path, place);
        ctx.readable_below(&path, Some(place));
        self.templates = Some((ctx.declared(path, place), node.place()));
    }
}

/// Reports a node that may stand once in the whole project.
fn once(ctx: &mut Context<'_>, node: Node<'_>, first: Place) {
    ctx.report(
        Draft::error(code::REPEATED, format!("`{}` stands twice", node.word()))
            .at(node.place(), "again here")
            .at(first, "first here")
            .help("keep one of the two"),
    );
}

/// Reports a name that is taken; `place` is the second one's.
pub(crate) fn taken(ctx: &mut Context<'_>, what: &str, name: &str, place: Place, first: Option<Place>) {
    ctx.report(
        Draft::error(code::DUPLICATE, format!("there are two {what} called `{name}`"))
            .at(place, "declared again here")
            .maybe_at(first, "declared here first")
            .help("rename one of them, or remove it"),
    );
}

/// The name in a node's first argument, when it is one that machines accept.
pub(crate) fn name<'d>(ctx: &mut Context<'_>, node: Node<'d>) -> Option<(&'d str, Place)> {
    let Some((text, place)) = ctx.argument(node, 0) else {
        ctx.gaps.nameless.insert(node.word().to_owned());
        return None;
    };
    if crate::words::is_name(text) {
        return Some((text, place));
    }
    ctx.gaps.names.insert(text.to_owned());
    let slug = crate::slug::slug(text);
    let help = if crate::words::is_name(&slug) { format!("for instance `{slug}`: ") } else { String::new() };
    ctx.report(
        Draft::error(code::BAD_NAME, format!("`{}` cannot be the name of this {}", text.escape_debug(), node.word()))
            .at(place, "this name")
            .help(format!("{help}names are lower-case letters, digits and dashes, a letter first, at most 32")),
    );
    None
}
