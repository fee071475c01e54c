//! [`IgnoreRules`]: the documented rules of `.dockerignore`.
//!
//! One pattern per line, rooted at the folder that holds the file; `#` starts a comment line; `*`, `?` and `[a-z]` do not
//! cross `/`, `**` does; a pattern that matches a folder covers all below it; `!` includes again, also below a folder that
//! is left out; the last pattern that matches decides.

use globset::{GlobBuilder, GlobMatcher};

/// The patterns of one folder, in order.
#[derive(Clone, Debug, Default)]
pub struct IgnoreRules {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    matcher: GlobMatcher,
    include: bool,
}

/// A line that is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: `{pattern}` is not a pattern: {why}")]
pub struct BadPattern {
    /// Counted from 1.
    pub line: usize,
    /// The line's text.
    pub pattern: String,
    /// What is wrong with it.
    pub why: String,
}

impl IgnoreRules {
    /// Reads the text of an ignore file.
    ///
    /// # Errors
    /// [`BadPattern`]: the first line that is none.
    pub fn parse(text: &str) -> Result<Self, BadPattern> {
        let mut rules = Self::default();
        for (at, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
            if line.starts_with('#') {
                continue;
            }
            let line = line.trim();
            let (include, pattern) = match line.strip_prefix('!') {
                Some(rest) => (true, rest.trim()),
                None => (false, line),
            };
            let bad = |why: String| BadPattern { line: at + 1, pattern: line.to_owned(), why };
            if include && pattern.is_empty() {
                return Err(bad("nothing follows the `!`".into()));
            }
            let cleaned = clean(pattern);
            if cleaned.is_empty() {
                continue;
            }
            let matcher = GlobBuilder::new(&without_braces(&cleaned))
                .literal_separator(true)
                .backslash_escape(true)
                .build()
                .map_err(|error| bad(error.kind().to_string()))?
                .compile_matcher();
            rules.patterns.push(Pattern { matcher, include });
        }
        Ok(rules)
    }

    /// These rules, then `more`, which decide where both match.
    #[must_use]
    pub fn then(mut self, more: Self) -> Self {
        self.patterns.extend(more.patterns);
        self
    }

    /// Is the file at this path, relative to the folder, left out?
    #[must_use]
    pub fn ignores(&self, path: &str) -> bool {
        let decides = self.patterns.iter().rev().find(|p| self_and_folders(path).any(|part| p.matcher.is_match(part)));
        decides.is_some_and(|pattern| !pattern.include)
    }

    /// Is everything below this folder left out, so that it need not be looked at?
    #[must_use]
    pub fn prunes(&self, folder: &str) -> bool {
        self.ignores(folder) && !self.patterns.iter().any(|pattern| pattern.include)
    }
}

/// `a/b/c`, `a/b`, `a`.
fn self_and_folders(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |part| part.rsplit_once('/').map(|(folder, _)| folder))
}

/// Without leading, trailing and double slashes, `.` and `..`, as Go's `filepath.Clean` does, which the rules refer to.
fn clean(pattern: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in pattern.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            other => parts.push(other),
        }
    }
    parts.join("/")
}

/// Braces are letters in these rules and alternatives in globset's.
fn without_braces(pattern: &str) -> String {
    let mut escaped = String::with_capacity(pattern.len());
    let (mut literal, mut class) = (false, false);
    for letter in pattern.chars() {
        if !literal && !class && matches!(letter, '{' | '}') {
            escaped.push('\\');
        }
        class = !literal && (letter == '[' || (class && letter != ']'));
        literal = !literal && letter == '\\';
        escaped.push(letter);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rules(text: &str) -> IgnoreRules {
        IgnoreRules::parse(text).unwrap_or_else(|error| panic!("{error}"))
    }

    #[test]
    fn the_documented_examples_hold() {
        let text = "# comment\n*/temp*\n*/*/temp*\ntemp?\n";
        for (path, ignored) in [
            ("somedir/temporary.txt", true),
            ("somedir/temp/x", true),
            ("somedir/subdir/temporary.txt", true),
            ("tempa", true),
            ("temp", false),
            ("a/b/c/temp", false),
            ("# comment", false),
        ] {
            assert_eq!(rules(text).ignores(path), ignored, "{path}");
        }
    }

    #[test]
    fn the_last_match_decides_as_the_documentation_says() {
        let first = rules("*.md\n!README*.md\nREADME-secret.md");
        assert!(first.ignores("a.md") && first.ignores("README-secret.md") && !first.ignores("README.md"));
        let second = rules("*.md\nREADME-secret.md\n!README*.md");
        assert!(!second.ignores("README-secret.md"));
    }

    #[test]
    fn two_stars_cross_folders_and_one_does_not() {
        assert!(rules("**/*.go").ignores("a.go") && rules("**/*.go").ignores("x/y/a.go"));
        assert!(rules("*.go").ignores("a.go") && !rules("*.go").ignores("x/a.go"));
        assert!(rules("docs/**").ignores("docs/a/b"));
    }

    #[test]
    fn a_file_below_a_folder_that_is_left_out_can_be_included_again() {
        let rules = rules("node_modules\n!node_modules/keep/index.js\n");
        assert!(rules.ignores("node_modules/drop/index.js"));
        assert!(!rules.ignores("node_modules/keep/index.js"));
        assert!(!rules.prunes("node_modules"), "it must be walked into");
    }

    #[test]
    fn slashes_dots_and_blanks_around_a_pattern_do_not_matter() {
        for text in ["/foo/bar", "foo/bar/", "  ./foo//bar  ", "foo/x/../bar", "\u{feff}foo/bar"] {
            assert!(rules(text).ignores("foo/bar/baz"), "{text}");
        }
        assert!(!rules(".\n/\n\n").ignores("foo"));
    }

    #[test]
    fn braces_are_letters() {
        assert!(rules("{a,b}").ignores("{a,b}") && !rules("{a,b}").ignores("a"));
    }

    #[test]
    fn a_bad_pattern_is_named_with_its_line() {
        let Err(error) = IgnoreRules::parse("fine\n[z") else { panic!("accepted") };
        assert_eq!((error.line, error.pattern.as_str()), (2, "[z"));
        assert!(IgnoreRules::parse("!").is_err());
    }

    /// The rules once more, as simply as they can be said: no globset, one path part at a time.
    fn reference(patterns: &[String], path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let mut ignored = false;
        for pattern in patterns {
            let (include, body) = pattern.strip_prefix('!').map_or((false, pattern.as_str()), |body| (true, body));
            let wanted: Vec<&str> = body.split('/').collect();
            if (1..=parts.len()).any(|end| parts_match(&wanted, &parts[..end])) {
                ignored = !include;
            }
        }
        ignored
    }

    fn parts_match(wanted: &[&str], parts: &[&str]) -> bool {
        match (wanted, parts) {
            ([], []) => true,
            // At the end `**` stands for at least one more part; elsewhere for any number.
            (["**"], rest) => !rest.is_empty(),
            (["**", rest @ ..], _) => (0..=parts.len()).any(|skip| parts_match(rest, &parts[skip..])),
            ([first, rest @ ..], [part, more @ ..]) => {
                let (first, part): (Vec<char>, Vec<char>) = (first.chars().collect(), part.chars().collect());
                part_matches(&first, &part) && parts_match(rest, more)
            }
            _ => false,
        }
    }

    fn part_matches(wanted: &[char], part: &[char]) -> bool {
        match (wanted, part) {
            ([], []) => true,
            (['*', rest @ ..], _) => (0..=part.len()).any(|skip| part_matches(rest, &part[skip..])),
            (['?', rest @ ..], [_, more @ ..]) => part_matches(rest, more),
            ([a, rest @ ..], [b, more @ ..]) => a == b && part_matches(rest, more),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn every_path_is_decided_as_the_plain_reading_of_the_rules_does(
            patterns in prop::collection::vec("!?([ab*?]{1,2}|\\*\\*)(/([ab*?]{1,2}|\\*\\*)){0,2}", 1..5),
            path in "[ab]{1,2}(/[ab]{1,2}){0,3}",
        ) {
            let text = patterns.join("\n");
            prop_assert_eq!(rules(&text).ignores(&path), reference(&patterns, &path), "{} on {}", text, path);
        }
    }
}
