//! [`check`]: everything a project declares, checked against each other.

mod environments;
mod images;
mod people;
mod references;
mod rooms;
mod sizes;
mod workspaces;

use std::collections::{BTreeMap, BTreeSet};

pub(crate) use images::base_of;

use crate::{
    code,
    context::Context,
    diagnostic::{Diagnostic, Draft},
    load,
    model::{Fleet, Model, Org},
    origin::{Declared, Origin},
    read::Parts,
    source::{RelPath, SourceTree, Wanted},
};

/// What [`check`] found.
#[derive(Clone, Debug)]
pub struct Checked {
    /// The model, when nothing of severity error was found.
    pub model: Option<Model>,
    /// Everything found, in order of files and places.
    pub diagnostics: Vec<Diagnostic>,
}

/// The paths that must be looked up before [`check`] can judge: the root, includes, directory files, the templates
/// folder, copy sources, containerfiles and their contexts.
///
/// Look them up (a folder with every file below it; what images only copy, without bytes), insert what was found into `tree`, and ask again until nothing
/// is wanted: an include that was just read may want more.
#[must_use]
pub fn wanted(root: &RelPath, tree: &SourceTree) -> Wanted {
    let mut ctx = Context::new(tree);
    let parts = load::parts(&mut ctx, root);
    let templates = templates(&parts, root);
    ctx.look(&templates.value);
    ctx.wants
}

/// The files that are written in the language: the root and what it includes, whatever their names end in, as far as they
/// are in the tree; also those that do not parse.
#[must_use]
pub fn language_files(root: &RelPath, tree: &SourceTree) -> BTreeSet<RelPath> {
    load::files(&mut Context::new(tree), root)
}

/// Reads and checks a project. Every mistake is found in one run; none hides another unless it makes the other
/// unknowable. A path that nobody looked up counts as missing: see [`wanted`].
#[must_use]
pub fn check(root: &RelPath, tree: &SourceTree) -> Checked {
    let mut ctx = Context::new(tree);
    let parts = load::parts(&mut ctx, root);
    let model = model(&mut ctx, root, parts);
    let Context { files, mut found, .. } = ctx;
    found.sort_by(Draft::order);
    found.dedup_by(|a, b| a.repeats(b));
    let sound = !found.iter().any(Draft::is_error);
    let diagnostics = found.into_iter().map(|draft| draft.finish(&files)).collect();
    Checked { model: model.filter(|_| sound), diagnostics }
}

fn templates(parts: &Parts, root: &RelPath) -> Declared<RelPath> {
    let built_in = || RelPath::new("templates").unwrap_or_else(|_| root.clone());
    parts.templates.as_ref().map_or_else(|| Declared::built_in(built_in()), |(declared, _)| declared.clone())
}

fn model(ctx: &mut Context<'_>, root: &RelPath, parts: Parts) -> Option<Model> {
    if !parts.has_fleet && !ctx.gaps.text {
        ctx.report(
            Draft::error(code::MISSING_NODE, format!("{root} declares no fleet"))
                .help("start it with fleet \"<name>\" domain=\"<Matrix server name>\""),
        );
    }
    let templates = templates(&parts, root);
    if parts.templates.is_none() && !ctx.gaps.templates() {
        ctx.readable_templates(&templates.value);
    }
    let people = people::finish(ctx, parts.org.nodes, parts.org.rows);
    let org = Org { defaults: parts.org.defaults, departments: parts.org.departments, people: people.all };
    people::check(ctx, &org, &people.places);
    let fleet = parts.fleet.map(|(fleet, _)| fleet);
    let complete = fleet.is_some();
    let mut model = Model {
        fleet: fleet.unwrap_or_else(|| nobody(root)),
        templates,
        org,
        providers: parts.providers,
        images: parts.images,
        rooms: parts.rooms,
        environments: BTreeMap::new(),
    };
    model.environments = environments::finish(ctx, &model, parts.environments);
    references::check(ctx, &model);
    images::check(ctx, &model);
    workspaces::check(ctx, &model);
    rooms::check(ctx, &model);
    rooms::check_mentions(ctx, &model);
    sizes::check(ctx, &model);
    complete.then_some(model)
}

/// Stands in for a fleet that could not be read, so that everything else is still checked.
fn nobody(root: &RelPath) -> Fleet {
    Fleet { name: String::new(), domain: String::new(), origin: Origin { file: root.clone(), line: 1 } }
}
