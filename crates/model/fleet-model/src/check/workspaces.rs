//! What agents' workspaces are made of: skills and role templates must be there, and models must be chosen.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    code,
    context::{Context, Reference},
    diagnostic::Draft,
    model::{Environment, Level, Model, Person},
    resolve::{self, Layers},
    source::{Looked, RelPath},
    words::did_you_mean_or_known,
};

/// A skill is a folder below `<templates>/skills/` that holds a SKILL.md.
pub(crate) fn skill(ctx: &Context<'_>, model: &Model, reference: &Reference) -> Option<Draft> {
    let skills = model.templates.value.join("skills").ok()?;
    let name = &reference.name;
    let plain = crate::words::is_name(name);
    let folder = skills.join(name).ok().filter(|_| plain);
    let inside = skills.as_folder();
    let files = ctx.tree.files_below(&skills);
    let files =
        files.filter_map(|(path, _)| path.as_str().strip_prefix(&inside)?.split_once('/').map(|(skill, _)| skill));
    // What cannot be read is reported as that, and not as missing on top.
    let refused =
        ctx.tree.refused_below(&skills).filter_map(|(path, _)| path.as_str().strip_prefix(&inside)?.split('/').next());
    let known: BTreeSet<&str> = files.chain(refused).collect();
    if !known.contains(name.as_str()) {
        let otherwise = format!("create {skills}/{name}/SKILL.md");
        return Some(
            Draft::error(code::UNKNOWN_SKILL, format!("there is no skill `{}`", name.escape_debug()))
                .at(reference.place, format!("no such folder in {skills}"))
                .help(did_you_mean_or_known(name, known.iter().copied(), &otherwise)),
        );
    }
    let folder = folder?;
    let manifest = folder.join("SKILL.md").ok()?;
    let missing = ctx.tree.file(&manifest).is_none() && !refused_at(ctx, &manifest) && !refused_at(ctx, &folder);
    missing.then(|| {
        Draft::error(code::SKILL_WITHOUT_MANIFEST, format!("the skill `{name}` has no SKILL.md"))
            .at(reference.place, "used here")
            .help(format!("write {manifest}: it tells the agent what the skill is for"))
    })
}

fn refused_at(ctx: &Context<'_>, path: &RelPath) -> bool {
    matches!(ctx.tree.get(path), Some(Looked::Unreadable(_)))
}

/// Every deployed agent has a model and a role template.
pub(crate) fn check(ctx: &mut Context<'_>, model: &Model) {
    if ctx.gaps.text {
        return;
    }
    let mut levels: BTreeMap<Level, &Person> = BTreeMap::new();
    for environment in model.environments.values() {
        let mut without_model: Vec<&str> = Vec::new();
        for id in environment.deploy.keys() {
            let Some(person) = model.org.people.get(id) else { continue };
            let layers = Layers::of(model, environment, person);
            if layers.nearest(|layer| &layer.model).is_none() {
                without_model.push(id);
            }
            if layers.nearest(|layer| &layer.template).is_none() {
                levels.entry(person.level).or_insert(person);
            }
        }
        no_model(ctx, environment, &without_model);
    }
    for (level, person) in levels {
        let Ok(path) = resolve::role_template(model, level) else { continue };
        if ctx.tree.file(&path).is_none() && !refused_at(ctx, &path) && !ctx.gaps.templates() {
            let message = format!("there is no template for people of level {}: {path}", level.as_str());
            ctx.report(
                Draft::error(code::MISSING_TEMPLATE, message)
                    .maybe_at(ctx.files.place_of(&person.origin), "deployed with this level")
                    .help("write that file, or give the person a template \"…\" of their own"),
            );
        }
    }
}

fn no_model(ctx: &mut Context<'_>, environment: &Environment, ids: &[&str]) {
    let Some(first) = ids.first() else { return };
    let more = if ids.len() > 1 { format!(" and {} more", ids.len() - 1) } else { String::new() };
    let place = ctx.files.place_of(&environment.origin);
    ctx.report(
        Draft::error(code::NO_MODEL, format!("no model is chosen for `{first}`{more}"))
            .maybe_at(place, "deployed in this environment")
            .help("add model \"provider/model\" to the defaults of org, to their department or to override"),
    );
}
