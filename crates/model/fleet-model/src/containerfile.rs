//! [`instructions`]: a Containerfile split as BuildKit splits it, and what it takes from elsewhere: [`bases`], which are
//! pinned, and [`unpinned`], which nothing could pin.
//!
//! Source: BuildKit, `frontend/dockerfile/parser` (2026): parser directives, continued lines, here-documents.
//! Deliberately absent: filling in variables, and what any instruction does.

use std::{collections::BTreeSet, ops::Range};

/// One instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Its word, in upper case.
    pub word: String,
    /// What follows the word, continued lines joined; without the text of here-documents.
    pub rest: String,
    /// The bytes of its lines, without the end of the last one.
    pub span: Range<usize>,
    /// The 1-based line at which it starts.
    pub line: usize,
}

/// Every instruction; comments and empty lines gone.
#[must_use]
pub fn instructions(text: &str) -> Vec<Instruction> {
    let escape = if directive(text, "escape").is_some_and(|(_, value)| value == "`") { '`' } else { '\\' };
    let mut found: Vec<Instruction> = Vec::new();
    let mut open: Option<Instruction> = None;
    let mut documents: Vec<Document> = Vec::new();
    let mut at = 0;
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let start = at;
        at += line.len();
        let line = line.trim_end_matches(['\n', '\r']);
        if let Some(document) = documents.first() {
            if document.ends_at(line) {
                documents.remove(0);
            }
            continue;
        }
        let plain = line.trim_start_matches('\u{feff}');
        // Both may also stand between continued lines.
        if plain.trim().is_empty() || plain.trim_start().starts_with('#') {
            continue;
        }
        let empty = || Instruction { word: String::new(), rest: String::new(), span: start..start, line: number + 1 };
        let mut one = open.take().unwrap_or_else(empty);
        one.span.end = start + line.len();
        if let Some(begun) = plain.trim_end_matches([' ', '\t']).strip_suffix(escape) {
            one.rest.push_str(begun);
            open = Some(one);
            continue;
        }
        one.rest.push_str(plain);
        let one = one.split();
        documents = one.documents();
        found.push(one);
    }
    found.extend(open.map(Instruction::split));
    found
}

impl Instruction {
    /// Its first word apart from what follows it.
    fn split(mut self) -> Self {
        let whole = self.rest.trim();
        let word = whole.split_whitespace().next().unwrap_or_default();
        self.word = word.to_ascii_uppercase();
        self.rest = whole[word.len()..].trim().to_owned();
        self
    }

    /// The here-documents that follow it.
    fn documents(&self) -> Vec<Document> {
        if !matches!(self.word.as_str(), "RUN" | "COPY" | "ADD" | "ONBUILD") {
            return Vec::new();
        }
        words(&self.rest).into_iter().filter_map(Document::of_word).collect()
    }

    /// The values of one of its flags: `--from=x`.
    fn flags<'i>(&'i self, name: &'i str) -> impl Iterator<Item = &'i str> {
        let flags = self.rest.split_whitespace().take_while(|word| word.starts_with("--"));
        flags.filter_map(move |flag| flag.strip_prefix("--")?.strip_prefix(name)?.strip_prefix('=')).map(unquoted)
    }
}

/// A here-document: `<<EOF`, `<<-EOF`, `<<"EOF"`.
struct Document {
    name: String,
    /// Its lines may begin with tabs.
    tabs: bool,
}

impl Document {
    fn of_word(word: &str) -> Option<Self> {
        let mark = word.trim_start_matches(|c: char| c.is_ascii_digit()).strip_prefix("<<")?;
        let name = mark.strip_prefix('-').unwrap_or(mark);
        let tabs = name.len() < mark.len();
        let name = unquoted(name);
        (!name.is_empty() && !name.contains('<')).then(|| Self { name: name.to_owned(), tabs })
    }

    fn ends_at(&self, line: &str) -> bool {
        let line = if self.tabs { line.trim_start_matches('\t') } else { line };
        line == self.name
    }
}

/// Words between spaces, but for those within quotes.
fn words(text: &str) -> Vec<&str> {
    let mut words = Vec::new();
    let (mut start, mut quote, mut escaped) = (None, None, false);
    for (at, c) in text.char_indices() {
        if quote.is_none() && !escaped && c.is_whitespace() {
            words.extend(start.take().map(|start: usize| &text[start..at]));
            continue;
        }
        start = start.or(Some(at));
        match c {
            _ if escaped => escaped = false,
            '\\' if quote != Some('\'') => escaped = true,
            '"' | '\'' if quote.is_none() => quote = Some(c),
            _ if quote == Some(c) => quote = None,
            _ => {}
        }
    }
    words.extend(start.map(|start| &text[start..]));
    words
}

fn unquoted(text: &str) -> &str {
    text.trim_matches(['"', '\''])
}

/// A parser directive (`# name=value` at the very top) and its line.
fn directive(text: &str, name: &str) -> Option<(usize, String)> {
    let text = text.trim_start_matches('\u{feff}');
    ["#", "//"].into_iter().find_map(|mark| {
        let lines = text.lines().enumerate().filter(|(at, line)| *at > 0 || !line.starts_with("#!"));
        let mut directives = lines.map_while(|(at, line)| {
            let (key, value) = line.trim().strip_prefix(mark)?.split_once('=')?;
            let key = key.trim();
            let plain = !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_alphanumeric());
            plain.then(|| (key.to_ascii_lowercase(), (at + 1, value.trim().to_owned())))
        });
        directives.find(|(key, _)| key == name).map(|(_, found)| found)
    })
}

/// One `FROM`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct From {
    /// What it names.
    pub reference: String,
    /// `scratch`, or a stage of this file: nothing from elsewhere.
    pub own: bool,
    /// `--platform=…`
    pub flags: Vec<String>,
    /// The name of the stage that it begins, in lower case: such names are compared without regard to case.
    pub stage: Option<String>,
    /// See [`Instruction::span`].
    pub span: Range<usize>,
    /// See [`Instruction::line`].
    pub line: usize,
}

impl From {
    fn of(one: Instruction, stages: &BTreeSet<String>) -> Option<Self> {
        let words: Vec<&str> = one.rest.split_whitespace().collect();
        let (flags, rest) = words.split_at(words.iter().take_while(|word| word.starts_with("--")).count());
        let reference = unquoted(rest.first()?).to_owned();
        let stage = match rest {
            [_, word, name, ..] if word.eq_ignore_ascii_case("as") => Some(name.to_ascii_lowercase()),
            _ => None,
        };
        Some(Self {
            own: reference == "scratch" || stages.contains(&reference.to_ascii_lowercase()),
            reference,
            flags: flags.iter().map(|flag| (*flag).to_owned()).collect(),
            stage,
            span: one.span,
            line: one.line,
        })
    }
}

/// Every `FROM`, in order.
#[must_use]
pub fn froms(text: &str) -> Vec<From> {
    let mut stages = BTreeSet::new();
    let mut found = Vec::new();
    for one in instructions(text).into_iter().filter(|one| one.word == "FROM") {
        let Some(from) = From::of(one, &stages) else { continue };
        stages.extend(from.stage.clone());
        found.push(from);
    }
    found
}

/// What `FROM` names, without stages of the file and `scratch`.
#[must_use]
pub fn bases(text: &str) -> BTreeSet<String> {
    froms(text).into_iter().filter(|from| !from.own).map(|from| from.reference).collect()
}

/// Is it the argument that stands for an image of the fleet?
#[must_use]
pub fn is_base_argument(reference: &str) -> bool {
    matches!(reference, "$BASE" | "${BASE}")
}

/// The text with other references in its `FROM` lines, where `other` knows one.
#[must_use]
pub fn with_bases(text: &str, other: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    for from in froms(text).into_iter().filter(|from| !from.own) {
        let Some(reference) = other(&from.reference) else { continue };
        out.push_str(&text[at..from.span.start]);
        at = from.span.end;
        let stage = from.stage.map(|stage| format!("AS {stage}"));
        let words: Vec<String> =
            ["FROM".to_owned()].into_iter().chain(from.flags).chain([reference]).chain(stage).collect();
        out.push_str(&words.join(" "));
    }
    out.push_str(&text[at..]);
    out
}

/// Something that a build would take from elsewhere, whatever it is that day.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Unpinned {
    /// `FROM` with a variable: only the build knows which image that is.
    Variable(String),
    /// `COPY --from=` or `RUN --mount=…,from=` of an image.
    Taken(String),
    /// `# syntax=`: an image that reads the file in place of the engine.
    Frontend(String),
}

/// What nothing could pin, with the lines.
#[must_use]
pub fn unpinned(text: &str) -> Vec<(usize, Unpinned)> {
    let mut found: Vec<(usize, Unpinned)> = Vec::new();
    found.extend(directive(text, "syntax").map(|(line, image)| (line, Unpinned::Frontend(image))));
    let mut stages: BTreeSet<String> = BTreeSet::new();
    for one in instructions(text) {
        let line = one.line;
        match one.word.as_str() {
            "FROM" => {
                let Some(from) = From::of(one, &stages) else { continue };
                stages.extend(from.stage);
                if from.reference.contains('$') && !is_base_argument(&from.reference) {
                    found.push((line, Unpinned::Variable(from.reference)));
                }
            }
            "COPY" | "RUN" => {
                let mounts = one.flags("mount").flat_map(|mount| mount.split(','));
                let mounts = mounts.filter_map(|part| part.trim().strip_prefix("from=")).map(unquoted);
                let taken = one.flags("from").chain(mounts);
                let is_stage = |name: &str| {
                    stages.contains(&name.to_ascii_lowercase()) || name.bytes().all(|byte| byte.is_ascii_digit())
                };
                found.extend(taken.filter(|name| !is_stage(name)).map(|name| (line, Unpinned::Taken(name.to_owned()))));
            }
            _ => {}
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn stages_and_scratch_are_not_bases() {
        let text = "ARG BASE\nFROM --platform=linux/amd64 debian:12 AS Build\nFROM scratch\nFROM build\nfrom ${BASE} as x\nFROM X\n";
        assert_eq!(bases(text), set(&["debian:12", "${BASE}"]));
    }

    #[test]
    fn a_continued_line_is_one_instruction() {
        let text = "FROM \\\n  # why\n\n  debian:12 \\\n  AS a\nRUN true && \\\n  FROM\nFROM deb\\  \nian:11";
        assert_eq!(bases(text), set(&["debian:12", "debian:11"]));
        let words: Vec<(String, usize)> = instructions(text).into_iter().map(|one| (one.word, one.line)).collect();
        assert_eq!(words, [("FROM".to_owned(), 1), ("RUN".to_owned(), 6), ("FROM".to_owned(), 8)]);
    }

    #[test]
    fn with_another_escape_a_backslash_at_the_end_is_none() {
        assert_eq!(bases("# escape=`\nFROM `\n a:1\nENV X=c:\\\nFROM b:1\n"), set(&["a:1", "b:1"]));
    }

    #[test]
    fn the_text_of_a_here_document_is_no_instruction() {
        let text = "FROM a:1\nRUN <<EOF cat > /x\nFROM b:1\nEOF\nCOPY <<-\"A\" <<B /y/\nFROM c:1\n\tA\nFROM d:1\nB\nFROM e:1\n";
        assert_eq!(bases(text), set(&["a:1", "e:1"]));
        let none =
            "FROM a:1\nRUN [\"sh\", \"-c\", \"cat <<EOF\"]\nRUN cat <<<word && echo $((1<<2))\nENV X=<<EOF\nFROM b:1\n";
        assert_eq!(bases(none), set(&["a:1", "b:1"]));
    }

    #[test]
    fn only_what_a_from_line_names_is_replaced() {
        let text = "ARG V=debian\r\nfrom --platform=$TARGETPLATFORM debian AS debian\r\nRUN echo debian\nFROM debian\nFROM x@sha256:aa \\\n  as y\n";
        let pinned = with_bases(text, |reference| {
            Some(format!("{}@sha256:bb", reference.split('@').next().unwrap_or_default()))
        });
        let expected = "ARG V=debian\r\nFROM --platform=$TARGETPLATFORM debian@sha256:bb AS debian\r\nRUN echo debian\nFROM debian\nFROM x@sha256:bb AS y\n";
        assert_eq!(pinned, expected);
        assert_eq!(with_bases(text, |_| None), text);
    }

    #[test]
    fn what_nothing_can_pin_is_found() {
        let text = "# syntax=docker/dockerfile:1\nARG IMG=a:1\nFROM $IMG AS one\nFROM ${BASE:-b:1}\nFROM ${BASE}\n\
            COPY --chown=1:1 --from=c:1 /x /x\nCOPY --from=ONE /x /x\nCOPY --from=0 /x /x\n\
            RUN --mount=type=cache,target=/c --mount=type=bind,from=d:1,target=/d true\nRUN echo --from=e:1\n";
        let found: Vec<(usize, Unpinned)> = unpinned(text);
        let expected = [
            (1, Unpinned::Frontend("docker/dockerfile:1".to_owned())),
            (3, Unpinned::Variable("$IMG".to_owned())),
            (4, Unpinned::Variable("${BASE:-b:1}".to_owned())),
            (6, Unpinned::Taken("c:1".to_owned())),
            (9, Unpinned::Taken("d:1".to_owned())),
        ];
        assert_eq!(found, expected);
        assert_eq!(unpinned("FROM a:1\n# syntax=late\nCOPY --from=b /x /x\n").len(), 1);
    }

    #[test]
    fn no_text_is_cut_within_a_character() {
        for text in ["", "\\", "é\\\né", "\u{feff}FROM é\\", "RUN <<é\né", "RUN \"é '\\", "# é=é"] {
            assert_eq!(with_bases(text, |_| None), text);
            drop(unpinned(text));
        }
    }
}
