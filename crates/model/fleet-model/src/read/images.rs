//! `images { image "agent" platform="linux/amd64" { … } }`.

use std::collections::BTreeMap;

use crate::{
    code,
    containerfile::Unpinned,
    context::{Context, Refers},
    diagnostic::Draft,
    model::{BaseRef, ContainerfileRecipe, Image, LayeredRecipe, Recipe, User},
    read::{containerfile, layers, name, taken},
    reader::{Arguments, Node, Shape},
    source::RelPath,
    text::Place,
    words,
};

const IMAGES: Shape = Shape { many: &["image"], ..Shape::EMPTY };
const IMAGE: Shape = Shape {
    arguments: Arguments::These(&["name"]),
    properties: Some(&["platform"]),
    once: &["base", "containerfile", "entrypoint", "command", "run-as", "workdir"],
    many: &["check", "env", "user", "debian", "node", "npm", "pip", "copy", "tree", "fetch", "fleet-agent", "fleetctl"],
};
const BASE: Shape = Shape { arguments: Arguments::Optional, properties: Some(&["image"]), ..Shape::EMPTY };
const CONTAINERFILE: Shape =
    Shape { arguments: Arguments::These(&["file"]), properties: Some(&["context"]), once: &["base"], many: &["arg"] };
const USER: Shape =
    Shape { arguments: Arguments::These(&["name"]), properties: Some(&["uid", "gid", "home"]), ..Shape::EMPTY };
const VALUES: Shape = Shape { properties: None, ..Shape::EMPTY };
/// Bytes of a user's name that Linux takes (`useradd(8)`).
const USER_NAME_MAX: usize = 32;
const PLATFORMS: [(&str, &str); 2] = [("linux/amd64", "linux/amd64"), ("linux/arm64", "linux/arm64")];

/// Adds the images of one `images` node.
pub(crate) fn read(ctx: &mut Context<'_>, node: Node<'_>, images: &mut BTreeMap<String, Image>) {
    ctx.expect(node, &IMAGES);
    for child in node.all("image") {
        ctx.expect(child, &IMAGE);
        let image = Image {
            name: String::new(),
            platforms: platforms(ctx, child),
            recipe: recipe(ctx, child),
            checks: child.all("check").map(|check| vector(ctx, check)).collect(),
            origin: ctx.origin(child.place()),
        };
        let Some((name, place)) = name(ctx, child) else { continue };
        if let Some(first) = images.get(name) {
            let first = ctx.files.place_of(&first.origin);
            taken(ctx, "images", name, place, first);
        } else {
            images.insert(name.to_owned(), Image { name: name.to_owned(), ..image });
        }
    }
}

fn platforms(ctx: &mut Context<'_>, node: Node<'_>) -> Vec<String> {
    let Some((text, place)) = ctx.text(node, "platform") else { return Vec::new() };
    let words = text.split(',').map(str::trim);
    let known: std::collections::BTreeSet<&str> =
        words.filter_map(|word| ctx.word_of("platform", (word, place), &PLATFORMS)).collect();
    known.into_iter().map(str::to_owned).collect()
}

/// An argument vector.
fn vector(ctx: &mut Context<'_>, node: Node<'_>) -> Vec<String> {
    ctx.expect(node, &Shape::of(Arguments::Some("program")));
    ctx.arguments(node).into_iter().map(|(text, _)| text.to_owned()).collect()
}

fn recipe(ctx: &mut Context<'_>, node: Node<'_>) -> Recipe {
    let assembled: Vec<Node<'_>> =
        node.children().filter(|child| !matches!(child.word(), "check" | "containerfile")).collect();
    let Some(file) = node.one("containerfile") else {
        if node.one("base").is_none() && !assembled.iter().any(|child| layers::WORDS.contains(&child.word())) {
            ctx.report(
                Draft::error(code::EMPTY_IMAGE, "this image is made of nothing")
                    .at(node.place(), "no base, no layers, no containerfile")
                    .help("start with base \"…\", debian \"bookworm\" { packages … } or containerfile \"…\""),
            );
        }
        return Recipe::Layers(layered(ctx, node));
    };
    if let Some(other) = assembled.first() {
        ctx.report(
            Draft::error(code::MIXED_RECIPE, "an image is built by a containerfile or assembled from nodes, not both")
                .at(other.place(), "this would be ignored")
                .at(file.place(), "the containerfile")
                .help("move this into the containerfile, or make a second image with base image=\"…\""),
        );
    }
    containerfile(ctx, file).map_or_else(|| Recipe::Layers(LayeredRecipe::default()), Recipe::Containerfile)
}

fn layered(ctx: &mut Context<'_>, node: Node<'_>) -> LayeredRecipe {
    let mut recipe =
        LayeredRecipe { base: node.one("base").and_then(|base| self::base(ctx, base)), ..Default::default() };
    for child in node.children() {
        match child.word() {
            "env" => recipe.env.extend(values(ctx, child)),
            "entrypoint" => recipe.entrypoint = vector(ctx, child),
            "command" => recipe.command = vector(ctx, child),
            "user" => {} // below, against each other
            "workdir" => {
                ctx.expect(child, &Shape::of(Arguments::These(&["folder"])));
                let given = ctx.argument(child, 0);
                recipe.workdir = given.and_then(|given| layers::inside(ctx, given));
            }
            _ => recipe.layers.extend(layers::read(ctx, child)),
        }
    }
    recipe.users = users(ctx, node);
    if let Some(child) = node.one("run-as") {
        ctx.expect(child, &Shape::of(Arguments::These(&["user"])));
        // One that was refused may be the one that is meant.
        let all_read = recipe.users.len() == node.all("user").count();
        recipe.run_as = ctx.argument(child, 0).map(|given| {
            if all_read {
                run_as(ctx, given, &recipe);
            }
            given.0.to_owned()
        });
    }
    recipe
}

/// A user of the image, or a number. One of a base image may be meant, so this is a mistake only where there is no base.
fn run_as(ctx: &mut Context<'_>, (name, place): (&str, Place), recipe: &LayeredRecipe) {
    let number = name.split(':').all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()));
    let known = recipe.users.iter().any(|user| user.name == name) || name == "root" || number;
    if recipe.base.is_none() && !known {
        let users = recipe.users.iter().map(|user| user.name.as_str());
        let help =
            words::did_you_mean_or_known(name, users, "declare it: user \"…\" uid=1000 gid=1000 home=\"/home/…\"");
        ctx.report(
            Draft::error(code::UNKNOWN_USER, format!("this image has no user `{}`", name.escape_debug()))
                .at(place, "not declared in this image")
                .help(help),
        );
    }
}

/// `NAME="value"` properties.
fn values(ctx: &mut Context<'_>, node: Node<'_>) -> BTreeMap<String, String> {
    ctx.expect(node, &VALUES);
    node.properties()
        .filter_map(|(name, entry)| Some((name.to_owned(), ctx.text_of(node, entry)?.0.to_owned())))
        .collect()
}

/// The users of an image: a `debian` layer writes them into its passwd and group, and nothing else does.
fn users(ctx: &mut Context<'_>, node: Node<'_>) -> Vec<User> {
    let mut users: Vec<(User, Place)> = Vec::new();
    for child in node.all("user") {
        if node.one("debian").is_none() {
            ctx.report(
                Draft::error(
                    code::USER_WITHOUT_DEBIAN,
                    "users are written by a `debian` layer, and this image has none",
                )
                .at(child.place(), "this user would be in no file")
                .help("declare it in the image that has the `debian` layer; a process needs no name: run-as \"1000\""),
            );
        }
        let Some((user, place)) = user(ctx, child) else { continue };
        if let Some((_, first)) = users.iter().find(|(other, _)| other.name == user.name) {
            taken(ctx, "users of this image", &user.name, place, Some(*first));
        }
        users.push((user, place));
    }
    users.into_iter().map(|(user, _)| user).collect()
}

fn user(ctx: &mut Context<'_>, node: Node<'_>) -> Option<(User, Place)> {
    ctx.expect(node, &USER);
    ctx.needed(node, "uid", "1000");
    let uid = ctx.number(node, "uid", 0..=65_533);
    let gid = ctx.number(node, "gid", 0..=65_533).or(uid);
    let home = ctx.text(node, "home").map(|given| self::home(ctx, given));
    let (name, place) = ctx.argument(node, 0).filter(|given| user_name(ctx, *given))?;
    let home = home.unwrap_or_else(|| Some(format!("/home/{name}")))?;
    Some((User { name: name.to_owned(), uid: uid?.0, gid: gid?.0, home }, place))
}

/// A folder that can stand in a line of passwd.
fn home(ctx: &mut Context<'_>, given: (&str, Place)) -> Option<String> {
    let path = layers::inside(ctx, given)?;
    let usable = !path.trim_matches('/').is_empty() && !path.contains(|c: char| c == ':' || c.is_control());
    if !usable {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("`{}` cannot be the home of a user", path.escape_debug()))
                .at(given.1, "this folder")
                .help("name a folder of its own, without colons, for instance home=\"/home/agent\""),
        );
    }
    usable.then_some(path)
}

/// Can this be the name of a user whom an image declares? Reports when not.
fn user_name(ctx: &mut Context<'_>, (name, place): (&str, Place)) -> bool {
    let plain = name.len() <= USER_NAME_MAX
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"_-".contains(&byte));
    let help = match (plain, name) {
        (true, "root") => "every image has it already; run-as \"root\" needs no user",
        (true, _) => return true,
        (false, _) => "use lower-case letters, digits, dashes and underscores, a letter first, at most 32",
    };
    ctx.report(
        Draft::error(code::BAD_NAME, format!("`{}` cannot be the name of a user", name.escape_debug()))
            .at(place, "this name")
            .help(help),
    );
    false
}

fn base(ctx: &mut Context<'_>, node: Node<'_>) -> Option<crate::origin::Declared<BaseRef>> {
    ctx.expect(node, &BASE);
    if let Some(given) = ctx.text(node, "image") {
        ctx.refer(Refers::Image, given);
        if let Some(extra) = node.arguments().next() {
            ctx.report(
                Draft::error(code::EXTRA_ARGUMENT, "an image has one base: a reference or image=, not both")
                    .at(node.spot(extra.span()), "one too many")
                    .help("keep one of the two"),
            );
        }
        return Some(ctx.declared(BaseRef::Image(given.0.to_owned()), node.place()));
    }
    let Some((reference, place)) = ctx.argument(node, 0) else {
        if node.kdl.entries().is_empty() {
            ctx.report(
                Draft::error(code::MISSING_ARGUMENT, "`base` needs what the image starts from")
                    .at(node.place(), "missing after this")
                    .help("write base \"docker.io/library/debian:bookworm\", base \"scratch\" or base image=\"…\""),
            );
        }
        return None;
    };
    if reference == "scratch" {
        return None;
    }
    if !is_reference(reference) {
        ctx.report(
            Draft::error(code::BAD_REFERENCE, format!("`{}` is not a reference to an image", reference.escape_debug()))
                .at(place, "this reference")
                .help("write registry/name:tag in full, for instance docker.io/library/debian:bookworm; a fleet's own image is base image=\"…\""),
        );
    }
    Some(ctx.declared(BaseRef::Reference(reference.to_owned()), node.place()))
}

/// `registry/name:tag` or `registry/name@sha256:…`, with the registry written out; or an image of the project:
/// `oci:folder#name`, `docker-archive:file#name`; or what the container engine calls `name:tag`: `engine:name:tag`.
fn is_reference(text: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/:@".contains(c);
    if let Some(name) = text.strip_prefix("engine:") {
        let tagged = name.rsplit('/').next().and_then(|last| last.split_once([':', '@']));
        return name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && name.chars().all(plain)
            && tagged.is_some_and(|(name, tag)| !name.is_empty() && !tag.is_empty());
    }
    if let Some(local) = text.strip_prefix("oci:").or_else(|| text.strip_prefix("docker-archive:")) {
        let path = local.split_once('#').map_or(local, |(path, _)| path);
        return RelPath::new(path).is_ok();
    }
    let Some((registry, rest)) = text.split_once('/') else { return false };
    let host = registry.contains(['.', ':']) || registry == "localhost";
    let (name, tag) = rest.split_once(['@', ':']).unwrap_or((rest, ""));
    let lower = name.split('/').all(|part| !part.is_empty() && !part.contains(|c: char| c.is_ascii_uppercase()));
    host && lower && !tag.is_empty() && text.chars().all(plain)
}

fn containerfile(ctx: &mut Context<'_>, node: Node<'_>) -> Option<ContainerfileRecipe> {
    ctx.expect(node, &CONTAINERFILE);
    let args = node.all("arg").flat_map(|child| values(ctx, child)).collect();
    let base_image = node.one("base").and_then(|base| match self::base(ctx, base)?.value {
        BaseRef::Image(name) => Some(ctx.declared(name, base.place())),
        BaseRef::Reference(_) => {
            ctx.report(
                Draft::error(code::BAD_REFERENCE, "within a containerfile, base names an image of this fleet")
                    .at(base.place(), "this base")
                    .help("write base image=\"…\"; other bases stand in the file's own FROM lines"),
            );
            None
        }
    });
    let given = ctx.argument(node, 0)?;
    let file = ctx.path(given)?;
    let context = match ctx.text(node, "context") {
        Some(context) => ctx.path(context).map(|path| (path, context.1)),
        None => parent(ctx, &file, given.1).map(|path| (path, given.1)),
    };
    let text = ctx.file(&file, Some(given.1)).and_then(|found| found.text());
    unpinned(ctx, text.unwrap_or_default(), (&file, given.1));
    if let (Some(text), Some((context, _))) = (text.filter(|text| !containerfile::has_run(text)), &context) {
        let help = containerfile::suggestion(text, context).unwrap_or_else(|| {
            "declare it with base, copy, env and entrypoint instead: it is then assembled without one, byte for byte the same everywhere".to_owned()
        });
        ctx.report(
            Draft::warning(
                code::CONTAINERFILE_WITHOUT_RUN,
                format!("{file} has no RUN step, so it needs no container engine"),
            )
            .at(given.1, "built by a container engine")
            .help(help),
        );
    }
    let (context, place) = context?;
    ctx.folder(&context, place);
    ctx.readable_below(&context, Some(place));
    Some(ContainerfileRecipe { file, context, args, base_image })
}

/// Everything that an image is made of is pinned, so what nothing can pin is refused.
fn unpinned(ctx: &mut Context<'_>, text: &str, (file, place): (&RelPath, Place)) {
    for (line, what) in crate::containerfile::unpinned(text) {
        let (message, help) = match what {
            Unpinned::Variable(reference) => (
                format!("FROM {reference} names its image by a variable, so that nothing pins it"),
                "write the reference in full, or FROM ${BASE} with base image=\"…\" for an image of this fleet"
                    .to_owned(),
            ),
            Unpinned::Taken(name) => (
                format!("--from={name} takes an image that nothing pins"),
                format!(
                    "begin a stage with it, FROM {name} AS tools, and write --from=tools: what FROM names is pinned"
                ),
            ),
            Unpinned::Frontend(image) => (
                format!("# syntax={image} has the file read by an image that nothing pins"),
                "remove the line: the engine reads the file itself".to_owned(),
            ),
        };
        let message = format!("{file}:{line}: {message}");
        ctx.report(Draft::error(code::UNPINNED, message).at(place, "this file").help(help));
    }
}

fn parent(ctx: &mut Context<'_>, file: &RelPath, place: Place) -> Option<RelPath> {
    let parent = file.as_str().rsplit_once('/').and_then(|(folder, _)| RelPath::new(folder).ok());
    if parent.is_none() {
        ctx.report(
            Draft::error(code::FILE_BAD_PATH, format!("{file} would make the whole project its build context"))
                .at(place, "at the top of the project")
                .help("move it into a folder of its own, such as images/<name>/Containerfile"),
        );
    }
    parent
}
