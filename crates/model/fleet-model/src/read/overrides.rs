//! What `defaults`, `person` and `override` set: model, skills, heartbeat, require-mention, size, template, image.

use crate::{
    code,
    context::{Context, Refers},
    diagnostic::Draft,
    model::{ModelChoice, Overrides, Size},
    reader::{Arguments, Node, Shape},
    text::Place,
};

/// The nodes that set them.
pub(crate) const WORDS: &[&str] = &["model", "skills", "heartbeat", "require-mention", "size", "template", "image"];

/// A node that holds nothing else.
pub(crate) const HOLDER: Shape = Shape { once: WORDS, ..Shape::EMPTY };

const MODEL: Shape = Shape { arguments: Arguments::These(&["model"]), many: &["fallback"], ..Shape::EMPTY };
const SIZE: Shape = Shape { properties: Some(&["cpu", "memory-mib"]), ..Shape::EMPTY };

/// Reads the children of `node` that set something. A model or an image that was refused stands without a name: it is
/// one mistake, and not one more for everybody to whom it would apply.
pub(crate) fn read(ctx: &mut Context<'_>, node: Node<'_>) -> Overrides {
    Overrides {
        model: node.one("model").map(|child| model(ctx, child)),
        skills: node.one("skills").map(|child| {
            ctx.expect(child, &Shape::of(Arguments::Any));
            let names = ctx.arguments(child);
            names.iter().for_each(|given| ctx.refer(Refers::Skill, *given));
            ctx.declared(names.iter().map(|(name, _)| (*name).to_owned()).collect(), child.place())
        }),
        heartbeat_seconds: node.one("heartbeat").and_then(|child| {
            ctx.expect(child, &Shape::of(Arguments::These(&["span"])));
            let given = ctx.argument(child, 0)?;
            let seconds = if given.0 == "off" { 0 } else { ctx.duration(given)? };
            Some(ctx.declared(seconds, child.place()))
        }),
        require_mention: node.one("require-mention").and_then(|child| require_mention(ctx, child)),
        size: node.one("size").and_then(|child| size(ctx, child)).map(|(size, place)| ctx.declared(size, place)),
        template: node.one("template").and_then(|child| {
            ctx.expect(child, &Shape::of(Arguments::These(&["file"])));
            let given = ctx.argument(child, 0)?;
            let path = ctx.path(given)?;
            ctx.file(&path, Some(given.1))?;
            Some(ctx.declared(path, child.place()))
        }),
        image: node.one("image").map(|child| {
            ctx.expect(child, &Shape::of(Arguments::These(&["image"])));
            let given = ctx.argument(child, 0);
            given.into_iter().for_each(|given| ctx.refer(Refers::Image, given));
            ctx.declared(given.map_or("", |(name, _)| name).to_owned(), child.place())
        }),
    }
}

fn model(ctx: &mut Context<'_>, node: Node<'_>) -> crate::origin::Declared<ModelChoice> {
    ctx.expect(node, &MODEL);
    let mut fallbacks = Vec::new();
    for child in node.all("fallback") {
        ctx.expect(child, &Shape::of(Arguments::Some("model")));
        for given in ctx.arguments(child) {
            ctx.refer(Refers::Model, given);
            fallbacks.push(given.0.to_owned());
        }
    }
    let primary = ctx.argument(node, 0);
    primary.into_iter().for_each(|given| ctx.refer(Refers::Model, given));
    let primary = primary.map_or("", |(name, _)| name).to_owned();
    ctx.declared(ModelChoice { primary, fallbacks }, node.place())
}

fn require_mention(ctx: &mut Context<'_>, node: Node<'_>) -> Option<crate::origin::Declared<bool>> {
    ctx.expect(node, &Shape::of(Arguments::These(&["#true or #false"])));
    let entry = node.arguments().next()?;
    let flag = ctx.flag_of(node, entry)?;
    if !flag {
        ctx.report(
            Draft::warning(
                code::ANSWERS_EVERYTHING,
                "agents that answer without being mentioned answer each other, for ever",
            )
            .at(node.place(), "switched off here")
            .help("leave require-mention on; if one agent must read along, set this on that person alone"),
        );
    }
    Some(ctx.declared(flag, node.place()))
}

/// `size cpu=1024 memory-mib=2048`; whether the pair exists depends on the target and is checked there.
pub(crate) fn size(ctx: &mut Context<'_>, node: Node<'_>) -> Option<(Size, Place)> {
    ctx.expect(node, &SIZE);
    ctx.needed(node, "cpu", "1024");
    ctx.needed(node, "memory-mib", "2048");
    let cpu = ctx.number(node, "cpu", 64..=262_144);
    let memory = ctx.number(node, "memory-mib", 128..=4_194_304);
    Some((Size { cpu: cpu?.0, memory_mib: memory?.0 }, node.place()))
}
