//! [`Shape`] and [`Node`]: what a KDL node may hold, and how it is read with every mistake reported.

use std::ops::RangeInclusive;

use kdl::{KdlEntry, KdlNode, KdlValue};
use miette::SourceSpan;

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    text::{Place, count},
    words::{self, did_you_mean},
};

/// The arguments of a node.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Arguments {
    /// None at all.
    None,
    /// Exactly these, named for messages.
    These(&'static [&'static str]),
    /// None or one.
    Optional,
    /// One or more.
    Some(&'static str),
    /// Any number.
    Any,
}

/// What one node may hold. Everything else in it is a mistake.
#[derive(Debug)]
pub(crate) struct Shape {
    pub arguments: Arguments,
    /// Known properties; `None`: any name.
    pub properties: Option<&'static [&'static str]>,
    /// Child nodes that may stand once.
    pub once: &'static [&'static str],
    /// Child nodes that may be repeated.
    pub many: &'static [&'static str],
}

impl Shape {
    /// Nothing at all; the start of every other shape.
    pub const EMPTY: Self = Self { arguments: Arguments::None, properties: Some(&[]), once: &[], many: &[] };

    /// A node with arguments only.
    pub const fn of(arguments: Arguments) -> Self {
        Self { arguments, ..Self::EMPTY }
    }
}

/// One node and the file it stands in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Node<'d> {
    pub kdl: &'d KdlNode,
    pub file: u16,
}

impl<'d> Node<'d> {
    /// The node's name.
    pub fn word(&self) -> &'d str {
        self.kdl.name().value()
    }

    /// Where the node's name stands.
    pub fn place(&self) -> Place {
        self.spot(self.kdl.name().span())
    }

    /// A span of this node's file.
    pub fn spot(&self, span: SourceSpan) -> Place {
        Place { file: self.file, start: count(span.offset()), len: count(span.len()) }
    }

    /// Its child nodes.
    pub fn children(&self) -> impl Iterator<Item = Node<'d>> + use<'d> {
        let file = self.file;
        self.kdl.children().into_iter().flat_map(|doc| doc.nodes()).map(move |kdl| Node { kdl, file })
    }

    /// Its child nodes of one name.
    pub fn all(&self, word: &'static str) -> impl Iterator<Item = Node<'d>> + use<'d> {
        self.children().filter(move |child| child.word() == word)
    }

    /// Its child node of a name that stands once.
    pub fn one(&self, word: &'static str) -> Option<Node<'d>> {
        self.all(word).next()
    }

    /// Its arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &'d KdlEntry> + use<'d> {
        self.kdl.entries().iter().filter(|entry| entry.name().is_none())
    }

    /// Its properties, as name and entry.
    pub fn properties(&self) -> impl Iterator<Item = (&'d str, &'d KdlEntry)> + use<'d> {
        self.kdl.entries().iter().filter_map(|entry| Some((entry.name()?.value(), entry)))
    }

    /// One property; the last of that name, as KDL has it.
    pub fn property(&self, name: &str) -> Option<&'d KdlEntry> {
        self.properties().filter(|(key, _)| *key == name).last().map(|(_, entry)| entry)
    }
}

/// How a value's type is called in messages.
fn kind_of(value: &KdlValue) -> &'static str {
    match value {
        KdlValue::String(_) => "a text",
        KdlValue::Integer(_) => "a whole number",
        KdlValue::Float(_) => "a number with a fraction",
        KdlValue::Bool(_) => "#true or #false",
        KdlValue::Null => "#null",
    }
}

impl Context<'_> {
    /// Reports everything in `node` that its shape does not know, and what it lacks.
    pub fn expect(&mut self, node: Node<'_>, shape: &Shape) {
        self.expect_arguments(node, shape.arguments);
        self.expect_properties(node, shape);
        self.expect_children(node, shape);
    }

    fn expect_arguments(&mut self, node: Node<'_>, arguments: Arguments) {
        let given = node.arguments().count();
        let (most, least): (usize, &[&str]) = match arguments {
            Arguments::None => (0, &[]),
            Arguments::These(names) => (names.len(), names),
            Arguments::Optional => (1, &[]),
            Arguments::Some(name) => (usize::MAX, &[name][..]),
            Arguments::Any => (usize::MAX, &[]),
        };
        if let Some(missing) = least.get(given..).filter(|missing| !missing.is_empty()) {
            let list = missing.join(" and its ");
            let example: Vec<String> = least
                .iter()
                .map(|name| if name.starts_with('#') { "#true".to_owned() } else { format!("\"<{name}>\"") })
                .collect();
            self.report(
                Draft::error(code::MISSING_ARGUMENT, format!("`{}` needs its {list}", node.word()))
                    .at(node.place(), "missing after this")
                    .help(format!("write {} {}", node.word(), example.join(" "))),
            );
        }
        for extra in node.arguments().skip(most) {
            let takes = match most {
                0 => "takes no argument".to_owned(),
                1 => "takes one argument".to_owned(),
                n => format!("takes {n} arguments"),
            };
            self.report(
                Draft::error(code::EXTRA_ARGUMENT, format!("`{}` {takes}", node.word()))
                    .at(node.spot(extra.span()), "this is one too many")
                    .help("remove it, or give it a name: property=value"),
            );
        }
    }

    fn expect_properties(&mut self, node: Node<'_>, shape: &Shape) {
        let mut seen: Vec<(&str, Place)> = Vec::new();
        for (name, entry) in node.properties() {
            let place = node.spot(entry.span());
            if let Some((_, first)) = seen.iter().find(|(other, _)| *other == name) {
                self.report(
                    Draft::error(code::REPEATED, format!("the property `{name}` is set twice"))
                        .at(place, "set again here")
                        .at(*first, "set here first")
                        .help("keep one of the two"),
                );
            }
            seen.push((name, place));
            let Some(known) = shape.properties else { continue };
            if known.contains(&name) {
                continue;
            }
            let help = if shape.once.contains(&name) || shape.many.contains(&name) {
                format!("`{name}` is a node: write it within the braces of `{}`", node.word())
            } else {
                did_you_mean(name, known.iter().copied()).unwrap_or_else(|| holds("properties", known))
            };
            self.report(
                Draft::error(code::UNKNOWN_PROPERTY, format!("`{}` has no property `{name}`", node.word()))
                    .at(place, "not known here")
                    .help(help),
            );
        }
    }

    fn expect_children(&mut self, node: Node<'_>, shape: &Shape) {
        if shape.once.is_empty() && shape.many.is_empty() {
            if let Some(child) = node.children().next() {
                self.report(
                    Draft::error(code::UNKNOWN_NODE, format!("`{}` holds no nodes", node.word()))
                        .at(child.place(), "not known here")
                        .help("remove the braces and what is in them"),
                );
            }
            return;
        }
        let mut first: Vec<Node<'_>> = Vec::new();
        for child in node.children() {
            if shape.many.contains(&child.word()) {
                continue;
            }
            if !shape.once.contains(&child.word()) {
                self.unknown_node(child, &format!("`{}`", node.word()), shape);
            } else if let Some(other) = first.iter().find(|other| other.word() == child.word()) {
                self.report(
                    Draft::error(code::REPEATED, format!("`{}` stands twice in `{}`", child.word(), node.word()))
                        .at(child.place(), "again here")
                        .at(other.place(), "first here")
                        .help("keep one of the two"),
                );
            } else {
                first.push(child);
            }
        }
    }

    /// Reports a node that `holder` cannot hold.
    pub fn unknown_node(&mut self, child: Node<'_>, holder: &str, shape: &Shape) {
        let known: Vec<&str> = shape.once.iter().chain(shape.many).copied().collect();
        let help = if shape.properties.is_some_and(|names| names.contains(&child.word())) {
            format!("`{0}` is a property: write {0}=… before the braces", child.word())
        } else {
            did_you_mean(child.word(), known.iter().copied()).unwrap_or_else(|| holds("nodes", &known))
        };
        self.report(
            Draft::error(code::UNKNOWN_NODE, format!("{holder} cannot hold a node `{}`", child.word()))
                .at(child.place(), "not known here")
                .help(help),
        );
    }

    /// The text of an entry.
    pub fn text_of<'d>(&mut self, node: Node<'d>, entry: &'d KdlEntry) -> Option<(&'d str, Place)> {
        let place = node.spot(entry.span());
        if let Some(text) = entry.value().as_string() {
            return Some((text, place));
        }
        self.wrong_type(entry, place, "a text");
        None
    }

    fn wrong_type(&mut self, entry: &KdlEntry, place: Place, wanted: &str) {
        let help = match wanted {
            "a text" => "put it in quotes",
            "#true or #false" => "write #true or #false, with the # and without quotes",
            _ => "write digits without quotes",
        };
        self.report(
            Draft::error(code::WRONG_TYPE, format!("this must be {wanted}, not {}", kind_of(entry.value())))
                .at(place, format!("{wanted} is expected"))
                .help(help),
        );
    }

    /// The argument at an index, as text.
    pub fn argument<'d>(&mut self, node: Node<'d>, index: usize) -> Option<(&'d str, Place)> {
        let entry = node.arguments().nth(index)?;
        self.text_of(node, entry)
    }

    /// Every argument, as text.
    pub fn arguments<'d>(&mut self, node: Node<'d>) -> Vec<(&'d str, Place)> {
        node.arguments().filter_map(|entry| self.text_of(node, entry)).collect()
    }

    /// A property, as text.
    pub fn text<'d>(&mut self, node: Node<'d>, name: &str) -> Option<(&'d str, Place)> {
        let entry = node.property(name)?;
        self.text_of(node, entry)
    }

    /// A property that must be there, as text.
    pub fn needed_text<'d>(&mut self, node: Node<'d>, name: &str, example: &str) -> Option<(&'d str, Place)> {
        self.needed(node, name, example);
        self.text(node, name)
    }

    /// Reports a property that must be there and is not.
    pub fn needed(&mut self, node: Node<'_>, name: &str, example: &str) {
        if node.property(name).is_none() {
            self.report(
                Draft::error(code::MISSING_PROPERTY, format!("`{}` needs the property `{name}`", node.word()))
                    .at(node.place(), format!("`{name}` is missing here"))
                    .help(format!("for instance {name}={example}")),
            );
        }
    }

    /// A property, as a whole number within a range.
    pub fn number(&mut self, node: Node<'_>, name: &str, range: RangeInclusive<u32>) -> Option<(u32, Place)> {
        let entry = node.property(name)?;
        let place = node.spot(entry.span());
        let Some(number) = entry.value().as_integer() else {
            self.wrong_type(entry, place, "a whole number");
            return None;
        };
        match u32::try_from(number) {
            Ok(number) if range.contains(&number) => Some((number, place)),
            _ => {
                self.report(
                    Draft::error(code::BAD_VALUE, format!("`{name}` cannot be {number}"))
                        .at(place, "out of range")
                        .help(format!("use a number from {} to {}", range.start(), range.end())),
                );
                None
            }
        }
    }

    /// A property, as yes or no.
    pub fn flag(&mut self, node: Node<'_>, name: &str) -> Option<bool> {
        let entry = node.property(name)?;
        self.flag_of(node, entry)
    }

    /// An entry, as yes or no.
    pub fn flag_of(&mut self, node: Node<'_>, entry: &KdlEntry) -> Option<bool> {
        if let Some(flag) = entry.value().as_bool() {
            return Some(flag);
        }
        self.wrong_type(entry, node.spot(entry.span()), "#true or #false");
        None
    }

    /// One of a fixed set of words.
    pub fn word_of<T: Copy>(&mut self, what: &str, (text, place): (&str, Place), known: &[(&str, T)]) -> Option<T> {
        if let Some((_, value)) = known.iter().find(|(word, _)| *word == text) {
            return Some(*value);
        }
        let words: Vec<&str> = known.iter().map(|(word, _)| *word).collect();
        let help =
            did_you_mean(text, words.iter().copied()).unwrap_or_else(|| format!("use one of {}", words::list(&words)));
        self.report(
            Draft::error(code::UNKNOWN_WORD, format!("`{text}` is not a {what}")).at(place, "not known").help(help),
        );
        None
    }

    /// A span of time such as `30s`, `5m`, `12h`, `7d`, in seconds.
    pub fn duration(&mut self, (text, place): (&str, Place)) -> Option<u32> {
        let seconds = words::seconds(text);
        if seconds.is_none() {
            self.report(
                Draft::error(code::BAD_VALUE, format!("`{text}` is not a span of time"))
                    .at(place, "a number and s, m, h or d is expected")
                    .help("for instance \"30s\", \"5m\", \"12h\" or \"7d\""),
            );
        }
        seconds
    }

    /// A property, as a span of time in seconds.
    pub fn duration_property(&mut self, node: Node<'_>, name: &str) -> Option<u32> {
        let given = self.text(node, name)?;
        self.duration(given)
    }
}

fn holds(what: &str, known: &[&str]) -> String {
    if known.is_empty() { format!("it has no {what}") } else { format!("its {what} are {}", words::list(known)) }
}
