//! The workspace's own sources and manifests as values, for the rules of `tests/architecture.rs`.
//!
//! [`Source::code`] is a file with comments and the contents of literals blanked out, so that a rule finds code only;
//! [`Source::shipped`] also lacks test modules. Lines stay where they are. Deliberately absent: a real parser; the
//! sources are formatted by rustfmt and compile, which a lexer can rely on.

use std::{
    collections::BTreeSet,
    fs, io,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};
use serde::Deserialize;

/// One Rust file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Relative to the workspace, `/`-separated.
    pub path: String,
    /// As written.
    pub text: String,
    /// Without comments and the contents of string and character literals.
    pub code: String,
    /// `code` without items under `#[cfg(test)]`; empty for a file that is one itself.
    pub shipped: String,
}

impl Source {
    /// From a file's path and text.
    #[must_use]
    pub fn new(path: &str, text: &str) -> Self {
        let code = blanked(text);
        let shipped = without_test_items(&code);
        Self { path: path.to_owned(), text: text.to_owned(), code, shipped }
    }

    /// The stage of the crate it is in: `model` of `crates/model/…`; `tests` for the tests package.
    #[must_use]
    pub fn stage(&self) -> &str {
        stage_of(&self.path)
    }

    /// Is it part of a crate's library or program, rather than of its tests?
    #[must_use]
    pub fn ships(&self) -> bool {
        self.path.starts_with("crates/") && self.path.split('/').nth(3) == Some("src") && self.stage() != "testing"
    }
}

fn stage_of(path: &str) -> &str {
    path.strip_prefix("crates/").map_or("tests", |rest| rest.split('/').next().unwrap_or(rest))
}

/// One crate's manifest, as cargo understands it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Package name.
    pub name: String,
    /// As [`Source::stage`].
    pub stage: String,
    /// What it depends on.
    pub dependencies: Vec<Dependency>,
}

/// One dependency.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Dependency {
    /// Package name.
    pub name: String,
    /// `dev`, `build`, or nothing for an ordinary one.
    pub kind: Option<String>,
}

impl Dependency {
    /// Needed by tests only.
    #[must_use]
    pub fn only_tests(&self) -> bool {
        self.kind.as_deref() == Some("dev")
    }
}

/// The workspace's folder.
#[must_use]
pub fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Every Rust file of `crates/`, `tests/` and `benches/`, in order of paths.
///
/// # Errors
/// When one cannot be read.
pub fn sources() -> anyhow::Result<Vec<Source>> {
    let root = workspace();
    let mut paths = BTreeSet::new();
    for folder in ["crates", "tests", "benches"] {
        rust_files(&root.join(folder), &mut paths)?;
    }
    ensure!(paths.len() > 20, "found only {} Rust files below {}", paths.len(), root.display());
    let mut sources = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let relative = path.strip_prefix(&root)?.to_str().context("a path is not UTF-8")?;
        sources.push(Source::new(relative, &text));
    }
    mark_test_files(&mut sources);
    Ok(sources)
}

fn rust_files(folder: &Path, found: &mut BTreeSet<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let (path, kind) = entry.map(|e| (e.path(), e.file_type()))?;
        if kind?.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                rust_files(&path, found)?;
            }
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            found.insert(path);
        }
    }
    Ok(())
}

/// A file that another names as `#[cfg(test)] mod name;` ships nothing, nor do files below it.
pub fn mark_test_files(sources: &mut [Source]) {
    let mut tests: Vec<String> = Vec::new();
    for source in sources.iter() {
        let stem = source.path.trim_end_matches(".rs");
        let is_root = matches!(stem.rsplit('/').next(), Some("lib" | "main"));
        let folder = if is_root { stem.rsplit_once('/').map_or("", |(folder, _)| folder) } else { stem };
        let mut rest = source.code.as_str();
        while let Some(at) = rest.find(TEST) {
            rest = &rest[at + TEST.len()..];
            if let Some(name) = rest.trim_start().strip_prefix("mod ").and_then(|m| m.split_once([';', '{'])) {
                tests.push(format!("{folder}/{}", name.0.trim()));
            }
        }
    }
    for source in sources {
        let stem = source.path.trim_end_matches(".rs");
        if tests.iter().any(|test| stem == test || stem.starts_with(&format!("{test}/"))) {
            source.shipped = String::new();
        }
    }
}

/// The manifests of every member, by asking cargo.
///
/// # Errors
/// When cargo cannot be run or answers something else.
pub fn manifests() -> anyhow::Result<Vec<Manifest>> {
    #[derive(Deserialize)]
    struct Metadata {
        packages: Vec<Package>,
    }
    #[derive(Deserialize)]
    struct Package {
        name: String,
        manifest_path: PathBuf,
        dependencies: Vec<Dependency>,
    }
    let root = workspace();
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--offline", "--no-deps", "--format-version", "1"])
        .current_dir(&root)
        .output()
        .context("cannot run cargo metadata")?;
    ensure!(output.status.success(), "cargo metadata failed: {}", String::from_utf8_lossy(&output.stderr));
    let metadata: Metadata = serde_json::from_slice(&output.stdout)?;
    let mut manifests = Vec::new();
    for package in metadata.packages {
        let relative = package.manifest_path.strip_prefix(&root)?.to_string_lossy().into_owned();
        let stage = stage_of(&relative).to_owned();
        manifests.push(Manifest { name: package.name, stage, dependencies: package.dependencies });
    }
    ensure!(manifests.len() > 10, "cargo knows only {} packages", manifests.len());
    Ok(manifests)
}

/// Replaces comments and the contents of literals by blanks; line ends stay.
#[must_use]
pub fn blanked(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut code = String::with_capacity(text.len());
    let mut at = 0;
    while at < letters.len() {
        let end = literal_or_comment_end(&letters, at);
        if end == at {
            code.push(letters[at]);
            at += 1;
            continue;
        }
        // The quotes of a literal stay, so that `f("x")` still reads as a call with something in it.
        let quotes = |i: usize| (i == at || i + 1 == end) && matches!(letters[i], '"' | '\'');
        code.extend((at..end).map(|i| if letters[i] == '\n' || quotes(i) { letters[i] } else { ' ' }));
        at = end;
    }
    code
}

/// The end of the comment or literal that starts at `at`; `at` when none does.
fn literal_or_comment_end(letters: &[char], at: usize) -> usize {
    let rest = &letters[at..];
    let after_word = at > 0 && (letters[at - 1].is_alphanumeric() || letters[at - 1] == '_');
    let length = match rest {
        ['/', '/', ..] => rest.iter().position(|c| *c == '\n').unwrap_or(rest.len()),
        ['/', '*', ..] => block_comment(rest),
        ['"', ..] => string(rest, 1),
        ['r' | 'b' | 'c', ..] if !after_word => prefixed_literal(rest),
        ['\'', '\\', ..] => string_until(rest, 2, '\''),
        ['\'', _, '\'', ..] => 3,
        _ => 0,
    };
    at + length
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut at) = (0_usize, 0);
    while at < rest.len() {
        match &rest[at..] {
            ['/', '*', ..] => (depth, at) = (depth + 1, at + 2),
            ['*', '/', ..] => (depth, at) = (depth.saturating_sub(1), at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn string(rest: &[char], from: usize) -> usize {
    let mut at = from;
    while at < rest.len() {
        match rest[at] {
            '\\' => at += 2,
            '"' => return at + 1,
            _ => at += 1,
        }
    }
    rest.len()
}

fn string_until(rest: &[char], from: usize, end: char) -> usize {
    rest.iter().skip(from + 1).position(|c| *c == end).map_or(rest.len(), |p| p + from + 2)
}

/// `b"…"`, `b'…'`, `r"…"`, `br#"…"#` and the like; 0 when it is only a word.
fn prefixed_literal(rest: &[char]) -> usize {
    let prefix = rest.iter().take_while(|c| matches!(c, 'r' | 'b' | 'c')).count();
    let raw = rest[..prefix].contains(&'r');
    let hashes = rest[prefix..].iter().take_while(|c| **c == '#').count();
    match rest.get(prefix + hashes) {
        Some('"') if raw => {
            let close: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
            let body = &rest[prefix + hashes + 1..];
            let end = body.windows(close.len()).position(|window| window == close);
            end.map_or(rest.len(), |end| prefix + hashes + 1 + end + close.len())
        }
        Some('"') if hashes == 0 => string(rest, prefix + 1),
        Some('\'') if hashes == 0 && prefix == 1 => string_until(rest, if rest[2] == '\\' { 3 } else { 2 }, '\''),
        _ => 0,
    }
}

const TEST: &str = "#[cfg(test)]";

/// Blanks the items that stand under `#[cfg(test)]`.
fn without_test_items(code: &str) -> String {
    let mut shipped = String::with_capacity(code.len());
    let mut rest = code;
    while let Some(at) = rest.find(TEST) {
        shipped.push_str(&rest[..at]);
        let item = &rest[at..];
        let end = item_end(item);
        shipped.extend(item[..end].chars().filter(|c| *c == '\n'));
        rest = &item[end..];
    }
    shipped.push_str(rest);
    shipped
}

/// Where the item that `code` starts with ends: after its `;` or its closing brace.
fn item_end(code: &str) -> usize {
    let mut depth = 0_usize;
    for (at, letter) in code.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return at + 1;
                }
            }
            ';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

/// Functions with a body: name, first line (from 1) and number of lines.
#[must_use]
pub fn functions(code: &str) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let starts_word = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        let name: String = code[at + 3..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        if !starts_word || name.is_empty() {
            continue;
        }
        let body = &code[at..at + item_end(&code[at..])];
        if body.ends_with('}') {
            found.push((name, code[..at].matches('\n').count() + 1, body.lines().count()));
        }
    }
    found
}

/// Words of code: `std::fs` is `std`, `fs`.
pub fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty())
}

/// Full paths that `use` declarations bring in: `use std::{fs, io::Read};` is `std::fs` and `std::io::Read`.
#[must_use]
pub fn used_paths(code: &str) -> Vec<String> {
    let mut paths = Vec::new();
    for (at, _) in code.match_indices("use ") {
        let starts_word = code[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_');
        if let Some(end) = code[at..].find(';').filter(|_| starts_word) {
            let tree: String = code[at + 4..at + end].split_whitespace().collect();
            flatten("", &tree, &mut paths);
        }
    }
    paths
}

fn flatten(prefix: &str, tree: &str, paths: &mut Vec<String>) {
    let (mut depth, mut start) = (0_usize, 0);
    let mut parts = Vec::new();
    for (at, letter) in tree.char_indices() {
        match letter {
            '{' => depth += 1,
            '}' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&tree[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tree[start..]);
    for part in parts.into_iter().filter(|part| !part.is_empty()) {
        match part.split_once('{') {
            Some((head, inner)) => {
                let inner = inner.strip_suffix('}').unwrap_or(inner);
                flatten(&format!("{prefix}{head}"), inner, paths);
            }
            None => paths.push(format!("{prefix}{part}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_no_code_and_lines_stay() {
        let text = "a /* x /* y */\n z */ b // unwrap()\n\"un\\\"wrap()\" r#\"to\"do!\"# b'\\'' 'x' '\\n' &'a str br\"q\"\nrun";
        let code = blanked(text);
        assert_eq!(code.lines().count(), text.lines().count());
        assert_eq!(code.chars().count(), text.chars().count());
        for gone in ["x", "y", "z", "wrap", "to", "do", "q"] {
            assert!(!words(&code).any(|word| word == gone), "{gone} in {code}");
        }
        assert_eq!(words(&code).collect::<Vec<_>>(), ["a", "b", "a", "str", "run"]);
    }

    #[test]
    fn items_under_cfg_test_are_not_shipped_but_what_follows_is() {
        let source = Source::new(
            "crates/model/m/src/lib.rs",
            "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { \"}\"; } }\nfn c() {}\n#[cfg(test)]\nmod more;\nfn d() {}",
        );
        let names: Vec<String> = functions(&source.shipped).into_iter().map(|(name, ..)| name).collect();
        assert_eq!(names, ["a", "c", "d"]);
        assert_eq!(source.shipped.lines().count(), source.text.lines().count());
    }

    #[test]
    fn a_file_named_as_a_test_module_ships_nothing() {
        let mut sources = [
            Source::new("crates/model/m/src/lib.rs", "#[cfg(test)]\nmod cases;\nmod real;"),
            Source::new("crates/model/m/src/cases.rs", "fn a() {}"),
            Source::new("crates/model/m/src/cases/deep.rs", "fn a() {}"),
            Source::new("crates/model/m/src/real.rs", "fn a() {}\n#[cfg(test)]\nmod tests;"),
            Source::new("crates/model/m/src/real/tests.rs", "fn a() {}"),
        ];
        mark_test_files(&mut sources);
        let shipping: Vec<&str> = sources.iter().filter(|s| s.shipped.contains("fn a")).map(|s| &*s.path).collect();
        assert_eq!(shipping, ["crates/model/m/src/real.rs"]);
    }

    #[test]
    fn functions_are_measured_from_their_first_line_to_their_brace() {
        let code = "struct S;\nfn one(a: fn(u8) -> u8) {\n    {\n    }\n}\ntrait T {\n    fn none(&self);\n    fn two() {}\n}\n";
        assert_eq!(functions(code), [("one".to_owned(), 2, 4), ("two".to_owned(), 8, 1)]);
    }

    #[test]
    fn grouped_uses_are_taken_apart() {
        let paths =
            used_paths("pub use std::{fs::{self, File}, io, collections::{BTreeMap,\n HashMap as M}};\nuse kdl::*;");
        let expected = [
            "std::fs::self",
            "std::fs::File",
            "std::io",
            "std::collections::BTreeMap",
            "std::collections::HashMapasM",
            "kdl::*",
        ];
        assert_eq!(paths, expected);
    }
}
