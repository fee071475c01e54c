//! The layers of an assembled image that come from packages, `fleet-agent` and `fleetctl`; those from files are in
//! [`super::files`].

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    model::{Layer, Unpack},
    origin::Declared,
    read::{files, taken},
    reader::{Arguments, Node, Shape},
    text::Place,
};

/// The nodes that make layers.
pub(crate) const WORDS: &[&str] = &["debian", "node", "npm", "pip", "copy", "tree", "fetch", "fleet-agent", "fleetctl"];

const DEBIAN: Shape = Shape { arguments: Arguments::These(&["suite"]), many: &["packages"], ..Shape::EMPTY };
const NPM: Shape =
    Shape { properties: Some(&["to"]), many: &["package", "unpack", "omit", "allow-scripts"], ..Shape::EMPTY };
const UNPACK: Shape =
    Shape { arguments: Arguments::These(&["package", "version"]), properties: Some(&["at"]), ..Shape::EMPTY };
const PIP: Shape = Shape { properties: Some(&["to", "python"]), many: &["package", "allow-scripts"], ..Shape::EMPTY };
/// `fleet-agent` and `fleetctl`.
const OWN_PROGRAM: Shape = Shape { properties: Some(&["to"]), ..Shape::EMPTY };

/// Reads one node; `None` when it makes no layer.
pub(crate) fn read(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Declared<Layer>> {
    let layer = match node.word() {
        "debian" => debian(ctx, node)?,
        "node" => {
            ctx.expect(node, &Shape::of(Arguments::These(&["version"])));
            let given = ctx.argument(node, 0)?;
            Layer::Node { version: version(ctx, given)? }
        }
        "npm" => npm(ctx, node)?,
        "pip" => pip(ctx, node)?,
        "copy" => files::copy(ctx, node)?,
        "tree" => files::tree(ctx, node)?,
        "fetch" => files::fetch(ctx, node)?,
        "fleet-agent" => {
            ctx.expect(node, &OWN_PROGRAM);
            Layer::FleetAgent { to: destination(ctx, node, "\"/usr/local/bin/fleet-agent\"")? }
        }
        "fleetctl" => {
            ctx.expect(node, &OWN_PROGRAM);
            Layer::Fleetctl { to: destination(ctx, node, "\"/usr/local/bin/fleetctl\"")? }
        }
        _ => return None,
    };
    Some(ctx.declared(layer, node.place()))
}

fn debian(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Layer> {
    ctx.expect(node, &DEBIAN);
    let mut packages = BTreeSet::new();
    for child in node.all("packages") {
        ctx.expect(child, &Shape::of(Arguments::Some("package")));
        for (name, place) in ctx.arguments(child) {
            let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"+-.".contains(&byte);
            if name.len() < 2 || !name.bytes().all(plain) {
                ctx.report(
                    Draft::error(
                        code::BAD_VALUE,
                        format!("`{}` is not the name of a Debian package", name.escape_debug()),
                    )
                    .at(place, "this package")
                    .help("names only, in lower case; versions are pinned in fleet.lock by `fleetctl lock`"),
                );
            }
            packages.insert(name.to_owned());
        }
    }
    if node.one("packages").is_none() {
        ctx.report(
            Draft::error(code::MISSING_NODE, "`debian` needs packages")
                .at(node.place(), "none are named here")
                .help("for instance debian \"bookworm\" { packages \"ca-certificates\" }"),
        );
    }
    let (suite, place) = ctx.argument(node, 0)?;
    if !crate::words::is_name(suite) {
        ctx.report(
            Draft::error(
                code::BAD_VALUE,
                format!("`{}` is not the code name of a Debian release", suite.escape_debug()),
            )
            .at(place, "this suite")
            .help("for instance \"bookworm\""),
        );
        return None;
    }
    Some(Layer::Debian { suite: suite.to_owned(), packages })
}

fn npm(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Layer> {
    ctx.expect(node, &NPM);
    let packages = packages(ctx, node);
    let mut unpack = BTreeMap::new();
    for child in node.all("unpack") {
        ctx.expect(child, &UNPACK);
        let name = ctx.argument(child, 0);
        let exact = ctx.argument(child, 1).and_then(|given| version(ctx, given));
        let at = ctx.needed_text(child, "at", "\"node_modules/x/node_modules/y\"").and_then(|given| below(ctx, given));
        let (Some((name, place)), Some(version), Some(at)) = (name, exact, at) else { continue };
        if unpack.insert(name.to_owned(), Unpack { version, at }).is_some() {
            taken(ctx, "unpacked packages of this layer", name, place, None);
        }
    }
    let mut omit = BTreeSet::new();
    for child in node.all("omit") {
        ctx.expect(child, &Shape::of(Arguments::Some("path")));
        for given in ctx.arguments(child) {
            omit.extend(below(ctx, given));
        }
    }
    let allow_scripts = allow_scripts(ctx, node);
    Some(Layer::Npm { to: destination(ctx, node, "\"/opt/openclaw\"")?, packages, unpack, omit, allow_scripts })
}

/// Names of packages whose install scripts may run.
fn allow_scripts(ctx: &mut Context<'_>, node: Node<'_>) -> BTreeSet<String> {
    let mut allowed = BTreeSet::new();
    for child in node.all("allow-scripts") {
        ctx.expect(child, &Shape::of(Arguments::Some("package")));
        for (name, place) in ctx.arguments(child) {
            if !is_package(name) {
                ctx.report(
                    Draft::error(code::BAD_VALUE, format!("`{}` is not the name of a package", name.escape_debug()))
                        .at(place, "this package")
                        .help("name each package that may run its install script, without a version, for instance allow-scripts \"esbuild\""),
                );
            } else if !allowed.insert(name.to_owned()) {
                taken(ctx, "packages that may run scripts", name, place, None);
            }
        }
    }
    allowed
}

/// A package's name as npm and PyPI have them: `esbuild`, `@scope/name`, `Jinja2`.
fn is_package(text: &str) -> bool {
    let part = |text: &str| {
        text.starts_with(|c: char| c.is_ascii_alphanumeric())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    };
    match text.strip_prefix('@') {
        Some(scoped) => scoped.split_once('/').is_some_and(|(scope, name)| part(scope) && part(name)),
        None => part(text),
    }
}

/// A path below the layer's folder: relative, without `.` and `..`.
fn below(ctx: &mut Context<'_>, (text, place): (&str, Place)) -> Option<String> {
    let clean = !text.is_empty()
        && !text.contains(['\0', '\\', '\n'])
        && !text.split('/').any(|part| matches!(part, "" | "." | ".."));
    if !clean {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("`{}` is not a path below this layer's folder", text.escape_debug()))
                .at(place, "this path")
                .help("write it relative to `to`, without . and .., for instance node_modules/x"),
        );
    }
    clean.then(|| text.to_owned())
}

fn pip(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Layer> {
    ctx.expect(node, &PIP);
    let packages = packages(ctx, node);
    let allow_scripts = allow_scripts(ctx, node);
    if let Some(child) = node.one("allow-scripts") {
        ctx.report(
            Draft::warning(code::NO_SCRIPTS, "a `pip` layer has no install scripts to allow")
                .at(child.place(), "this allows nothing")
                .help("remove it: only wheels are taken, and unpacking a wheel runs nothing"),
        );
    }
    let to = destination(ctx, node, "\"/opt/synapse\"");
    let (python, place) = ctx.needed_text(node, "python", "\"3.11\"")?;
    let minor = python.strip_prefix("3.").is_some_and(|n| !n.is_empty() && n.bytes().all(|b| b.is_ascii_digit()));
    if !minor {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("`{}` is not a Python minor version", python.escape_debug()))
                .at(place, "this version")
                .help("the version of the image's Python, for instance \"3.11\" on bookworm"),
        );
        return None;
    }
    Some(Layer::Pip { to: to?, python: python.to_owned(), packages, allow_scripts })
}

/// `package "name" "version"` children.
fn packages(ctx: &mut Context<'_>, node: Node<'_>) -> BTreeMap<String, String> {
    let mut packages = BTreeMap::new();
    for child in node.all("package") {
        ctx.expect(child, &Shape::of(Arguments::These(&["name", "version"])));
        let name = ctx.argument(child, 0);
        let exact = ctx.argument(child, 1).and_then(|given| version(ctx, given));
        let Some((name, place)) = name else { continue };
        if packages.insert(name.to_owned(), exact.unwrap_or_default()).is_some() {
            taken(ctx, "packages of this layer", name, place, None);
        }
    }
    if node.one("package").is_none() {
        ctx.report(
            Draft::error(code::MISSING_NODE, format!("`{}` needs packages", node.word()))
                .at(node.place(), "none are named here")
                .help("for instance package \"name\" \"1.2.3\""),
        );
    }
    packages
}

/// An exact version: ranges would make an image depend on the day it is built.
fn version(ctx: &mut Context<'_>, (text, place): (&str, Place)) -> Option<String> {
    let exact = text.starts_with(|c: char| c.is_ascii_digit())
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-+!".contains(&byte));
    if !exact {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("`{}` is not an exact version", text.escape_debug()))
                .at(place, "this version")
                .help("write it in full, such as \"24.21.0\": ranges and tags would make the image depend on the day it is built"),
        );
    }
    exact.then(|| text.to_owned())
}

/// The property `to`.
pub(crate) fn destination(ctx: &mut Context<'_>, node: Node<'_>, example: &str) -> Option<String> {
    let given = ctx.needed_text(node, "to", example)?;
    inside(ctx, given)
}

/// An absolute path in the image, without `.` and `..`.
pub(crate) fn inside(ctx: &mut Context<'_>, (text, place): (&str, Place)) -> Option<String> {
    let clean = text.starts_with('/')
        && !text.contains(['\0', '\\', '\n'])
        && !text.split('/').any(|part| part == "." || part == "..");
    if !clean {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("`{}` is not a path in the image", text.escape_debug()))
                .at(place, "this path")
                .help("start with / and write it without . and .."),
        );
    }
    clean.then(|| text.to_owned())
}
