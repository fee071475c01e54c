//! Scanning KDL text into pieces without parsing it: for formatting, and for what the parser should not be given.

use crate::words;

/// One piece of a KDL text; together they are the whole text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Piece<'t> {
    /// Spaces and tabs.
    Space(&'t str),
    /// One line end.
    Newline(&'t str),
    /// `// …` to the end of the line.
    Line(&'t str),
    /// `/* … */`.
    Block(&'t str),
    /// A quoted, raw or multi-line string, quotes included.
    Text(&'t str),
    /// `\` at the end of a line.
    Continues,
    /// `/-`.
    Slashdash,
    /// One of `{ } ( ) ; =`.
    Sign(char),
    /// A bare word, number or keyword.
    Word(&'t str),
}

/// Levels of braces, comments and parentheses that are accepted; the language itself needs six.
pub(crate) const DEPTH_MAX: usize = 64;

fn is_newline(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{b}' | '\u{c}' | '\u{2028}' | '\u{2029}')
}

fn is_space(c: char) -> bool {
    (c.is_whitespace() && !is_newline(c)) || c == '\u{feff}'
}

/// The piece at the start of a text that is not empty.
fn piece(text: &str) -> (Piece<'_>, usize) {
    let first = text.chars().next().unwrap_or('\n');
    if is_newline(first) {
        let len = if text.starts_with("\r\n") { 2 } else { first.len_utf8() };
        return (Piece::Newline(&text[..len]), len);
    }
    let up_to = |stop: fn(char) -> bool| text.find(stop).unwrap_or(text.len());
    if is_space(first) {
        let len = up_to(|c| !is_space(c));
        return (Piece::Space(&text[..len]), len);
    }
    if text.starts_with("//") {
        let len = up_to(is_newline);
        return (Piece::Line(&text[..len]), len);
    }
    if text.starts_with("/*") {
        let len = block(text);
        return (Piece::Block(&text[..len]), len);
    }
    if text.starts_with("/-") {
        return (Piece::Slashdash, 2);
    }
    if let Some(len) = string(text) {
        return (Piece::Text(&text[..len]), len);
    }
    match first {
        '\\' => (Piece::Continues, 1),
        '{' | '}' | '(' | ')' | ';' | '=' => (Piece::Sign(first), 1),
        _ => {
            // A slash ends a word too: what follows may be a comment, and in KDL no word has one.
            let ends = |c: char| is_newline(c) || is_space(c) || "\\{}();=\"/".contains(c);
            let rest = &text[first.len_utf8()..];
            let len = first.len_utf8() + rest.find(ends).unwrap_or(rest.len());
            (Piece::Word(&text[..len]), len)
        }
    }
}

/// Bytes of a block comment; they nest.
fn block(text: &str) -> usize {
    let mut depth = 0_usize;
    let mut at = 0;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if rest.starts_with(b"/*") {
            depth += 1;
            at += 2;
        } else if rest.starts_with(b"*/") {
            depth -= 1;
            at += 2;
            if depth == 0 {
                return at;
            }
        } else {
            at += 1;
        }
    }
    text.len()
}

/// Bytes of the string at the start of the text; `None` when there is none.
fn string(text: &str) -> Option<usize> {
    let hashes = text.bytes().take_while(|byte| *byte == b'#').count();
    let quotes = match &text[hashes..] {
        rest if rest.starts_with("\"\"\"") => 3,
        rest if rest.starts_with('"') => 1,
        _ => return None,
    };
    let open = hashes + quotes;
    let close = format!("{}{}", &"\"\"\""[..quotes], "#".repeat(hashes));
    let mut at = open;
    while at < text.len() {
        let rest = &text.as_bytes()[at..];
        if hashes == 0 && rest[0] == b'\\' {
            at += 1 + text[at + 1..].chars().next().map_or(0, char::len_utf8);
        } else if rest.starts_with(close.as_bytes()) {
            return Some(at + close.len());
        } else {
            at += 1;
        }
    }
    Some(text.len())
}

/// Every piece of a text, each with the offset at which it starts.
pub(crate) fn pieces(text: &str) -> impl Iterator<Item = (usize, Piece<'_>)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let rest = text.get(at..).filter(|rest| !rest.is_empty())?;
        let (piece, len) = piece(rest);
        let start = at;
        at += len;
        Some((start, piece))
    })
}

/// Where the text nests deeper than [`DEPTH_MAX`]: the parser recurses, and must not be given that.
pub(crate) fn too_deep(text: &str) -> Option<usize> {
    let mut depth = 0_usize;
    for (at, piece) in pieces(text) {
        match piece {
            Piece::Sign('{' | '(') => depth += 1,
            Piece::Sign('}' | ')') => depth = depth.saturating_sub(1),
            Piece::Block(comment) if comment.matches("/*").count() > DEPTH_MAX => return Some(at),
            _ => {}
        }
        if depth > DEPTH_MAX {
            return Some(at);
        }
    }
    None
}

/// The contents of texts that may be secrets by mistake: an `api-key` that is no variable's name, a `base-url`, `fetch` or
/// `registry` with credentials. Found without parsing, so that a line which does not parse is no way around it.
pub(crate) fn secrets(text: &str) -> Vec<std::ops::Range<usize>> {
    let mut found = Vec::new();
    let mut property = None;
    let mut assigned = false;
    for (at, piece) in pieces(text) {
        match piece {
            Piece::Word(word @ ("api-key" | "base-url")) => (property, assigned) = (Some(word), false),
            // Their address is an argument.
            Piece::Word(word @ ("fetch" | "registry")) => (property, assigned) = (Some(word), true),
            Piece::Sign('=') => assigned = true,
            Piece::Space(_) | Piece::Block(_) | Piece::Continues | Piece::Newline(_)
                if assigned || property.is_some() => {}
            Piece::Text(_) | Piece::Word(_) if assigned => {
                let value = match piece {
                    Piece::Text(value) => value,
                    // Without quotes an address is a word and a comment; a person means all of it.
                    _ => text[at..].split(|c| is_newline(c) || is_space(c)).next().unwrap_or_default(),
                };
                let plain = value.trim_matches(['"', '#']);
                let harmless = match property {
                    Some("api-key") => words::is_variable(plain),
                    Some(_) => words::is_base_url(plain) || !plain.contains(['@', '?']),
                    None => true,
                };
                if !harmless {
                    found.push(at..at + value.len());
                }
                (property, assigned) = (None, false);
            }
            _ => (property, assigned) = (None, false),
        }
    }
    found
}

/// What must stay of a broken line so that braces still pair: nothing, or the opening of a node that is left out.
/// `None` when the line cannot be left out.
fn left_of(line: &str) -> Option<&'static str> {
    const OPENING: &str = "/-_{";
    let code = line.split("//").next().unwrap_or_default();
    let depth = code.chars().fold(0_i32, |depth, c| match c {
        '{' => depth + 1,
        '}' => depth - 1,
        _ => depth,
    });
    match depth {
        0 => Some(""),
        1 if line.len() >= OPENING.len() => Some(OPENING),
        _ => None,
    }
}

/// The text with the lines at these offsets blanked, byte for byte, so that all other offsets stay.
pub(crate) fn without_lines(text: &str, offsets: &[usize]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut start = 0;
    for line in text.split_inclusive('\n') {
        let end = start + line.len();
        let body = line.trim_end_matches(['\n', '\r']);
        let broken = offsets.iter().any(|at| (start..end).contains(at));
        match left_of(body).filter(|_| broken) {
            Some(rest) => {
                out.extend(std::iter::repeat_n(' ', body.len() - rest.len()));
                out.push_str(rest);
                out.push_str(&line[body.len()..]);
            }
            None => out.push_str(line),
        }
        start = end;
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pieces_of_a_text_are_the_whole_text() {
        let text = "a \"b\\\"}\" c=#\"\"\"x\n\"{\"\"\"# /* /* } */ */ { // }\n d;/-e 1.5 \\\n}";
        let starts: Vec<usize> = pieces(text).map(|(at, _)| at).collect();
        let whole: String =
            starts.iter().zip(starts.iter().skip(1).chain([&text.len()])).map(|(a, b)| &text[*a..*b]).collect();
        assert_eq!(whole, text);
        assert!(pieces(text).any(|(_, piece)| piece == Piece::Text("\"b\\\"}\"")));
        assert!(pieces(text).any(|(_, piece)| piece == Piece::Text("#\"\"\"x\n\"{\"\"\"#")));
    }

    #[test]
    fn what_may_be_a_secret_is_found_even_where_nothing_parses() {
        let text = "provider \"x\" api-key=\"sk-1\" }} api-key = sk-2\nbase-url=\"http://a:b@c\" api-key=\"FINE\" base-url=\"http://c/v1\" name=\"n\" api-key \"x\" base-url=http://d:e@f";
        let found: Vec<&str> = secrets(text).into_iter().map(|range| &text[range]).collect();
        assert_eq!(found, ["\"sk-1\"", "sk-2", "\"http://a:b@c\"", "http://d:e@f"]);
    }

    #[test]
    fn a_word_ends_where_a_comment_begins() {
        let found: Vec<Piece<'_>> = pieces("node x://y \"z\n1/* 2 */").map(|(_, piece)| piece).collect();
        let expected = [
            Piece::Word("node"),
            Piece::Space(" "),
            Piece::Word("x:"),
            Piece::Line("//y \"z"),
            Piece::Newline("\n"),
            Piece::Word("1"),
            Piece::Block("/* 2 */"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn depth_is_judged_outside_of_strings_and_comments() {
        assert_eq!(too_deep(&"a {".repeat(DEPTH_MAX)), None);
        assert!(too_deep(&"a {".repeat(DEPTH_MAX + 1)).is_some());
        assert_eq!(too_deep(&format!("a \"{}\"", "{".repeat(1000))), None);
        assert!(too_deep(&"/*".repeat(1000)).is_some());
    }
}
