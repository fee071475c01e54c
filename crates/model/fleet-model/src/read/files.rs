//! The layers of an assembled image that come from files: `copy`, `tree`, `fetch`.

use crate::{
    code,
    context::{Context, SHOWN, not_shown},
    diagnostic::Draft,
    model::{Fetched, Layer},
    read::layers::destination,
    reader::{Arguments, Node, Shape},
    source::{Links, ListedEntry, Listing, RelPath},
    text::Place,
    words,
};

const COPY: Shape =
    Shape { arguments: Arguments::These(&["file or folder"]), properties: Some(&["to", "render"]), ..Shape::EMPTY };
const TREE: Shape = Shape { arguments: Arguments::These(&["folder"]), properties: Some(&["to"]), ..Shape::EMPTY };
const FETCH: Shape = Shape {
    arguments: Arguments::These(&["url"]),
    properties: Some(&["sha256", "to", "executable", "unpack"]),
    ..Shape::EMPTY
};
pub(crate) fn copy(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Layer> {
    ctx.expect(node, &COPY);
    let render = ctx.flag(node, "render").unwrap_or(false);
    let to = destination(ctx, node, "\"/etc/app/\"");
    let given = ctx.argument(node, 0)?;
    let from = ctx.path(given)?;
    if render {
        ctx.present(&from, given.1)?;
        ctx.readable_below(&from, Some(given.1));
    } else {
        listed(ctx, &from, Links::Followed, given.1)?;
    }
    Some(Layer::Copy { from, to: to?, render })
}

pub(crate) fn tree(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Layer> {
    ctx.expect(node, &TREE);
    let to = destination(ctx, node, "\"/srv/app\"");
    let given = ctx.argument(node, 0)?;
    let from = ctx.path(given)?;
    if matches!(&*listed(ctx, &from, Links::Kept, given.1)?, Listing::File(_)) {
        ctx.report(
            Draft::error(code::FILE_WRONG_KIND, format!("{from} is a file, and a folder is needed"))
                .at(given.1, "named here")
                .help(format!("name the folder that holds it, or write copy \"{from}\"")),
        );
        return None;
    }
    Some(Layer::Tree { from, to: to? })
}

/// What is at a path, without its bytes; reports what cannot be used of it.
fn listed<'t>(
    ctx: &mut Context<'t>,
    from: &RelPath,
    links: Links,
    place: Place,
) -> Option<std::borrow::Cow<'t, Listing>> {
    let listing = ctx.list(from, links, place)?;
    if let Listing::Folder(entries) = &*listing {
        let refused: Vec<(&str, &str)> = entries
            .iter()
            .filter_map(|(path, entry)| match entry {
                ListedEntry::Refused(why) => Some((path.as_str(), why.as_str())),
                _ => None,
            })
            .collect();
        for (path, why) in refused.iter().take(SHOWN) {
            let more = not_shown(refused.len());
            ctx.report(
                Draft::error(
                    code::UNUSABLE_PATH,
                    format!("{from}/{} cannot be part of an image: {why}", path.escape_debug()),
                )
                .at(place, "in this folder")
                .help(format!("remove it, or leave it out with a line in {from}/.fleetignore{more}")),
            );
        }
    }
    Some(listing)
}

pub(crate) fn fetch(ctx: &mut Context<'_>, node: Node<'_>) -> Option<Layer> {
    ctx.expect(node, &FETCH);
    let executable = ctx.flag(node, "executable").unwrap_or(false);
    let unpack = ctx.flag(node, "unpack").unwrap_or(false);
    let to = destination(ctx, node, "\"/usr/local/bin/tool\"");
    let sha256 = ctx.needed_text(node, "sha256", "\"<64 hexadecimal digits>\"").and_then(|given| sha256(ctx, given));
    let url = ctx.argument(node, 0).and_then(|given| url(ctx, given));
    if executable && unpack {
        ctx.report(
            Draft::error(code::BAD_VALUE, "an archive that is unpacked keeps its own execute bits")
                .at(node.place(), "both executable=#true and unpack=#true")
                .help("keep one of the two"),
        );
    }
    if to.as_deref().is_some_and(|to| to.ends_with('/')) && !unpack {
        ctx.report(
            Draft::error(code::BAD_VALUE, "`to` names a folder, and one file is fetched")
                .at(node.place(), "this file needs a name")
                .help("write the whole path of the file, or unpack=#true for an archive"),
        );
        return None;
    }
    Some(Layer::Fetch(Fetched { url: url?, sha256: sha256?, to: to?, executable, unpack }))
}

/// The SHA-256 that decides what is fetched.
fn sha256(ctx: &mut Context<'_>, (text, place): (&str, Place)) -> Option<String> {
    let plain = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
    if !plain {
        ctx.report(
            Draft::error(code::BAD_VALUE, format!("`{}` is not a SHA-256", text.escape_debug()))
                .at(place, "this hash")
                .help("64 hexadecimal digits in lower case, as `sha256sum FILE` prints them"),
        );
    }
    plain.then(|| text.to_owned())
}

/// Where something is fetched. What stands there may hold a token by mistake, so a refused one is not shown.
fn url(ctx: &mut Context<'_>, (text, place): (&str, Place)) -> Option<String> {
    let plain = words::is_download(text);
    if !plain {
        ctx.report(
            Draft::error(code::FETCH_URL, "this is not an address that `fetch` takes")
                .hidden_at(place)
                .help("write https://host/path, without user, password, ? and #; the hash decides what is taken, so a plain address of a mirror will do"),
        );
    }
    plain.then(|| text.to_owned())
}
