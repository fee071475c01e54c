//! [`format`]: one way to lay out a file, with every comment, every blank line's meaning and the order kept.

use kdl::KdlDocument;

use crate::scan::{Piece, pieces, too_deep};

const INDENT: &str = "    ";

/// Why a text was not formatted.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// It does not parse; `check` says where and why.
    #[error("this is not KDL; run `fleetctl check` to see where")]
    Syntax(#[source] kdl::KdlError),
    /// It nests deeper than anything in the language.
    #[error("this nests too deeply to be formatted; run `fleetctl check` to see where")]
    TooDeep,
    /// The result would mean something else: a mistake of ours, so the text is left as it is.
    #[error("formatting would change what this says, so it is left alone; please report the file")]
    WouldChange,
}

/// Lays out a text: four spaces a level, one space between words, at most one blank line, comments and order kept.
/// Formatting twice is formatting once.
///
/// # Errors
/// [`FormatError`] when the text does not parse.
pub fn format(text: &str) -> Result<String, FormatError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if too_deep(text).is_some() {
        return Err(FormatError::TooDeep);
    }
    let before = KdlDocument::parse(text).map_err(FormatError::Syntax)?;
    let formatted = lay_out(text);
    let after = KdlDocument::parse(&formatted).map_err(|_| FormatError::WouldChange)?;
    if meaning(before) == meaning(after) { Ok(formatted) } else { Err(FormatError::WouldChange) }
}

/// The document without how it is written.
fn meaning(mut document: KdlDocument) -> KdlDocument {
    document.autoformat_no_comments();
    document.clear_format_recursive();
    document
}

/// What stood before a piece on its line.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    /// Nothing yet.
    LineStart,
    /// Something that the next piece follows directly.
    Tight,
    /// Something that a space follows.
    Loose,
}

struct Layout {
    out: String,
    depth: usize,
    before: Before,
    /// Spaces stood between the last piece and this one.
    spaced: bool,
    /// This line goes on from the one before, after `\`.
    continued: bool,
    /// Line ends since the last piece.
    newlines: usize,
    /// Within the parentheses of a type annotation.
    annotation: bool,
    /// The annotation that just closed binds to what follows.
    annotated: bool,
}

fn lay_out(text: &str) -> String {
    let mut layout = Layout {
        out: String::with_capacity(text.len()),
        depth: 0,
        before: Before::LineStart,
        spaced: false,
        continued: false,
        newlines: 0,
        annotation: false,
        annotated: false,
    };
    for (_, piece) in pieces(text) {
        layout.piece(piece);
    }
    let mut out = layout.out;
    out.truncate(out.trim_end_matches([' ', '\n']).len());
    if !out.is_empty() {
        out.push('\n');
    }
    out
}

impl Layout {
    fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Space(_) => self.spaced = true,
            Piece::Newline(_) => self.newline(),
            Piece::Line(comment) => {
                self.word(comment.trim_end());
                self.before = Before::Loose;
            }
            Piece::Block(text) | Piece::Text(text) | Piece::Word(text) => self.word(text),
            Piece::Continues => {
                self.word("\\");
                self.continued = true;
            }
            Piece::Slashdash => {
                self.word("/-");
                self.before = Before::Tight;
            }
            Piece::Sign(sign) => self.sign(sign),
        }
        if !matches!(piece, Piece::Space(_)) {
            self.spaced = false;
        }
    }

    fn newline(&mut self) {
        self.newlines += 1;
        self.before = Before::LineStart;
    }

    /// Ends the line before, if one is open, and starts this one.
    fn start_line(&mut self, depth: usize) {
        let first = self.out.is_empty() || self.out.ends_with('{');
        // After `\` an empty line ends the node: it means something there, and stays.
        let continued = self.continued && self.newlines < 2;
        let blank = self.newlines > 1 && !first;
        if !self.out.is_empty() && !self.out.ends_with('\n') {
            self.out.push('\n');
        }
        if blank {
            self.out.push('\n');
        }
        let depth = if continued { depth + 1 } else { depth };
        (0..depth).for_each(|_| self.out.push_str(INDENT));
        self.newlines = 0;
        self.continued = false;
    }

    fn word(&mut self, text: &str) {
        let annotated = std::mem::take(&mut self.annotated);
        match self.before {
            Before::LineStart => self.start_line(self.depth),
            Before::Loose if !annotated && !self.annotation => self.out.push(' '),
            _ => {}
        }
        self.out.push_str(text);
        self.before = Before::Loose;
    }

    fn sign(&mut self, sign: char) {
        // After `\` a line may start with one of these.
        if self.before == Before::LineStart && matches!(sign, ';' | '=' | ')') {
            self.start_line(self.depth);
        }
        match sign {
            '{' => {
                self.word("{");
                self.depth += 1;
            }
            '}' => {
                self.depth = self.depth.saturating_sub(1);
                match self.before {
                    Before::LineStart => {
                        // No blank line before a closing brace.
                        self.newlines = self.newlines.min(1);
                        self.start_line(self.depth);
                    }
                    _ => self.out.push(' '),
                }
                self.out.push('}');
                self.before = Before::Loose;
            }
            ';' => {
                self.out.push(';');
                self.before = Before::Loose;
            }
            '=' => {
                self.out.push('=');
                self.before = Before::Tight;
            }
            '(' => {
                self.word("(");
                self.annotation = true;
                self.before = Before::Tight;
            }
            _ => {
                self.out.push(sign);
                self.annotation = false;
                self.annotated = true;
            }
        }
    }
}
