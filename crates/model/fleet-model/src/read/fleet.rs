//! `fleet "anycompany" domain="anycompany.corp" tool-version=">=0.1"`.

use crate::{
    TOOL_VERSION, code,
    context::Context,
    diagnostic::Draft,
    model::Fleet,
    read::name,
    reader::{Arguments, Node, Shape},
    text::Place,
    words,
};

const FLEET: Shape =
    Shape { arguments: Arguments::These(&["name"]), properties: Some(&["domain", "tool-version"]), ..Shape::EMPTY };

/// The fleet's name and domain.
pub(crate) fn read(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Fleet> {
    ctx.expect(node, &FLEET);
    if let Some(wanted) = ctx.text(node, "tool-version") {
        tool_version(ctx, wanted);
    }
    let name = name(ctx, node);
    let domain = ctx.needed_text(node, "domain", "\"example.org\"").filter(|given| domain(ctx, *given));
    Some(Fleet { name: name?.0.to_owned(), domain: domain?.0.to_owned(), origin: ctx.origin(node.place()) })
}

fn domain(ctx: &mut Context<'_>, (text, place): (&str, Place)) -> bool {
    let valid = words::is_domain(text);
    if !valid {
        ctx.report(
            Draft::error(code::BAD_DOMAIN, format!("`{}` cannot be a Matrix server name", text.escape_debug()))
                .at(place, "this domain")
                .help("write a DNS name in lower case, such as example.org, without https:// and without a port"),
        );
    }
    valid
}

fn tool_version(ctx: &mut Context<'_>, (text, place): (&str, Place)) {
    let Ok(wanted) = semver::VersionReq::parse(text) else {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("`{}` is not a range of versions", text.escape_debug()))
                .at(place, "this range")
                .help("for instance \">=0.1\" or \"0.1\""),
        );
        return;
    };
    let fits = semver::Version::parse(TOOL_VERSION).is_ok_and(|version| wanted.matches(&version));
    if !fits {
        ctx.report(
            Draft::error(code::TOOL_VERSION, format!("this fleet wants fleetctl {text}, and this is {TOOL_VERSION}"))
                .at(place, "wanted here")
                .help("install a fleetctl of that range, or change the range after reading the changelog"),
        );
    }
}
