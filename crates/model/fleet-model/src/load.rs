//! Loading: the root file and what it includes, parsed; then every section read.

use std::collections::BTreeSet;

use kdl::KdlDocument;

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    read::{Parts, org},
    reader::{Arguments, Node, Shape},
    scan,
    source::RelPath,
    text::{Place, count},
};

/// Parses `root` and everything it includes, in the order of inclusion.
fn documents(ctx: &mut Context<'_>, root: &RelPath) -> Loader {
    let mut loader = Loader { stack: Vec::new(), files: BTreeSet::new(), done: Vec::new() };
    loader.file(ctx, root, None);
    loader
}

/// `root` and everything it includes, as far as it is there; also what does not parse.
pub(crate) fn files(ctx: &mut Context<'_>, root: &RelPath) -> BTreeSet<RelPath> {
    documents(ctx, root).files
}

/// Reads everything that the project declares.
pub(crate) fn parts(ctx: &mut Context<'_>, root: &RelPath) -> Parts {
    let documents = documents(ctx, root).done;
    let nodes =
        || documents.iter().flat_map(|(file, document)| document.nodes().iter().map(|kdl| Node { kdl, file: *file }));
    let mut parts = Parts::default();
    for node in nodes() {
        parts.read(ctx, node);
    }
    for node in nodes().filter(|node| node.word() == "org") {
        org::read_directories(ctx, node, &mut parts.org);
    }
    parts
}

struct Loader {
    /// Files being included, outermost first.
    stack: Vec<RelPath>,
    /// Every file that was found.
    files: BTreeSet<RelPath>,
    done: Vec<(u16, KdlDocument)>,
}

impl Loader {
    fn file(&mut self, ctx: &mut Context<'_>, path: &RelPath, place: Option<Place>) {
        let Some(file) = ctx.file(path, place) else {
            ctx.gaps.text = true;
            return;
        };
        self.files.insert(path.clone());
        let Some(text) = file.text() else {
            ctx.gaps.text = true;
            ctx.report(
                Draft::error(code::FILE_NOT_TEXT, format!("{path} is not UTF-8 text"))
                    .maybe_at(place, "named here")
                    .help("save it as UTF-8"),
            );
            return;
        };
        let number = ctx.files.add_kdl(path.clone(), text);
        let Some(document) = parse(ctx, number, text) else { return };
        self.stack.push(path.clone());
        for kdl in document.nodes() {
            let node = Node { kdl, file: number };
            if node.word() == "include" {
                self.include(ctx, node);
            }
        }
        self.stack.pop();
        self.done.push((number, document));
    }

    fn include(&mut self, ctx: &mut Context<'_>, node: Node<'_>) {
        ctx.expect(node, &Shape::of(Arguments::These(&["file"])));
        let given = ctx.argument(node, 0).and_then(|given| Some((ctx.path(given)?, given.1)));
        let Some((path, place)) = given else {
            ctx.gaps.text = true;
            return;
        };
        if let Some(at) = self.stack.iter().position(|open| *open == path) {
            let chain: Vec<&str> = self.stack[at..].iter().chain([&path]).map(RelPath::as_str).collect();
            ctx.report(
                Draft::error(code::INCLUDE_CYCLE, format!("files include each other: {}", chain.join(" → ")))
                    .at(place, "this closes the circle")
                    .help("remove one of the includes; what both files need belongs into a third"),
            );
            return;
        }
        // Included twice without a circle: the first time counts.
        if ctx.files.find(&path).is_none() {
            self.file(ctx, &path, Some(place));
        }
    }
}

/// Parses one text. With syntax errors, what stands around them is still read, so that other mistakes show too.
fn parse(ctx: &mut Context<'_>, file: u16, text: &str) -> Option<KdlDocument> {
    if let Some(at) = scan::too_deep(text) {
        ctx.gaps.text = true;
        ctx.report(
            Draft::error(code::SYNTAX, "nested too deeply")
                .at(Place { file, start: count(at), len: 1 }, "from here")
                .help(format!(
                    "nothing in fleet.kdl nests deeper than {} levels: is a brace missing?",
                    scan::DEPTH_MAX
                )),
        );
        return None;
    }
    let error = match KdlDocument::parse(text) {
        Ok(document) => return Some(document),
        Err(error) => error,
    };
    ctx.gaps.text = true;
    for one in &error.diagnostics {
        let place = clamp(file, text, one.span.offset(), one.span.len());
        let found = text.get(place.start as usize..(place.start + place.len) as usize).unwrap_or_default();
        if matches!(found, "true" | "false" | "null") {
            ctx.report(
                Draft::error(code::SYNTAX, format!("`{found}` is not a value in KDL 2"))
                    .at(place, "a # is missing here")
                    .help(format!("write #{found}, or \"{found}\" if the text is meant")),
            );
            continue;
        }
        let message = one.message.clone().unwrap_or_else(|| "this is not KDL".to_owned());
        let label = one.label.clone().unwrap_or_else(|| "here".to_owned());
        let help = one.help.clone().unwrap_or_else(|| "see https://kdl.dev for the syntax".to_owned());
        ctx.report(Draft::error(code::SYNTAX, message).at(place, label).help(help));
    }
    let broken: Vec<usize> = error.diagnostics.iter().map(|one| one.span.offset()).collect();
    KdlDocument::parse(&scan::without_lines(text, &broken)).ok()
}

/// A span that lies within the text, on character boundaries.
fn clamp(file: u16, text: &str, offset: usize, len: usize) -> Place {
    let start = text.floor_char_boundary(offset.min(text.len()));
    let end = text.ceil_char_boundary((offset + len).min(text.len())).max(start);
    // One label of many lines hides more than it shows.
    let line = text[start..end].split('\n').next().unwrap_or_default();
    Place { file, start: count(start), len: count(line.len()) }
}
