//! [`Diagnostic`]: one thing that is wrong or doubtful, with its code, place and remedy.

use std::{cmp::Ordering, fmt, sync::Arc};

use miette::{LabeledSpan, NamedSource, Severity};

use crate::{
    origin::Origin,
    source::{RelPath, SourceFile, SourceTree},
    text::{Files, Place, count},
};

/// One thing that is wrong (or doubtful: see [`Diagnostic::severity`]) in the project's files.
///
/// Renders through any [`miette::ReportHandler`]; `fleetctl explain CODE` tells the long story of its code.
#[derive(Clone, Debug)]
pub struct Diagnostic {
    /// `fleet::area::name`; stable, see [`crate::codes`].
    pub code: &'static str,
    /// [`Severity::Error`] keeps the model from being used; the others do not.
    pub severity: Severity,
    /// What is wrong, in one sentence.
    pub message: String,
    /// How to mend it.
    pub help: Option<String>,
    /// File and line of the first place.
    pub origin: Option<Origin>,
    source: Option<NamedSource<Arc<str>>>,
    labels: Vec<LabeledSpan>,
    elsewhere: Vec<Diagnostic>,
}

impl Diagnostic {
    /// What a later stage found: one of [`crate::late`], at a line of a file of the project.
    #[must_use]
    pub fn of_line(
        code: &'static str,
        message: String,
        help: String,
        at: Option<(&Origin, &str)>,
        tree: &SourceTree,
    ) -> Self {
        let mut files = Files::default();
        let mut draft = Draft::error(code, message).help(help);
        if let Some((origin, label)) = at
            && let Some(text) = tree.file(&origin.file).and_then(SourceFile::text)
        {
            let kdl = origin.file.as_str().ends_with(".kdl");
            let _ = if kdl { files.add_kdl(origin.file.clone(), text) } else { files.add(origin.file.clone(), text) };
            draft = draft.maybe_at(files.place_of(origin), label);
        }
        let made = draft.finish(&files);
        Self { origin: at.map(|(origin, _)| origin.clone()), ..made }
    }

    /// What a later stage found at a line and a column (1-based, in bytes, as parsers count) of a text that need not be in
    /// the tree.
    #[must_use]
    pub fn of_text(
        code: &'static str,
        (message, help): (String, String),
        (path, text): (&RelPath, &str),
        (line, column): (usize, usize),
    ) -> Self {
        let mut files = Files::default();
        let file = files.add(path.clone(), text);
        let before: usize = text.split_inclusive('\n').take(line.saturating_sub(1)).map(str::len).sum();
        let start = text.floor_char_boundary((before + column.saturating_sub(1)).min(text.len()));
        let len = text[start..].chars().next().filter(|c| *c != '\n').map_or(0, char::len_utf8);
        let place = Place { file, start: count(start), len: count(len) };
        Draft::error(code, message).help(help).at(place, "here").finish(&files)
    }

    /// Line, column and label of every place in the file of [`Diagnostic::origin`], for programs: both 1-based, columns in
    /// characters.
    #[must_use]
    pub fn places(&self) -> Vec<(usize, usize, String)> {
        let text = self.source.as_ref().map_or("", |source| source.inner());
        let place = |label: &LabeledSpan| {
            let before = text.get(..label.offset()).unwrap_or(text);
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            (line, column, label.label().unwrap_or_default().to_owned())
        };
        self.labels.iter().map(place).collect()
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Diagnostic {}

impl miette::Diagnostic for Diagnostic {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(self.severity)
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        self.help.as_ref().map(|help| Box::new(help) as Box<dyn fmt::Display>)
    }

    fn source_code(&self) -> Option<&dyn miette::SourceCode> {
        self.source.as_ref().map(|source| source as &dyn miette::SourceCode)
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        (!self.labels.is_empty()).then(|| Box::new(self.labels.iter().cloned()) as _)
    }

    fn related<'a>(&'a self) -> Option<Box<dyn Iterator<Item = &'a dyn miette::Diagnostic> + 'a>> {
        (!self.elsewhere.is_empty())
            .then(|| Box::new(self.elsewhere.iter().map(|other| other as &dyn miette::Diagnostic)) as _)
    }
}

/// A diagnostic whose places are still numbers; becomes a [`Diagnostic`] when everything is read.
#[derive(Debug)]
pub(crate) struct Draft {
    code: &'static str,
    severity: Severity,
    message: String,
    help: Option<String>,
    labels: Vec<(Place, String)>,
    /// Where it is, when the text itself must not be shown (it may hold a secret).
    hidden_at: Option<Place>,
}

impl Draft {
    /// Something that must be mended.
    pub fn error(code: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            severity: Severity::Error,
            message: message.into(),
            help: None,
            labels: Vec::new(),
            hidden_at: None,
        }
    }

    /// Something doubtful.
    pub fn warning(code: &'static str, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(code, message) }
    }

    /// Points at a place. The first one decides file and order; places in other files are shown after it.
    pub fn at(mut self, place: Place, label: impl Into<String>) -> Self {
        self.labels.push((place, label.into()));
        self
    }

    /// Points at a place if there is one.
    pub fn maybe_at(self, place: Option<Place>, label: impl Into<String>) -> Self {
        match place {
            Some(place) => self.at(place, label),
            None => self,
        }
    }

    /// Names the line but shows none of it: what stands there may be a secret.
    pub fn hidden_at(mut self, place: Place) -> Self {
        self.hidden_at = Some(place);
        self
    }

    /// How to mend it.
    pub fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    fn first(&self) -> Option<Place> {
        self.labels.first().map(|(place, _)| *place).or(self.hidden_at)
    }

    /// In order of files and places; what has no place comes first.
    pub fn order(&self, other: &Self) -> Ordering {
        (self.first(), self.code, &self.message).cmp(&(other.first(), other.code, &other.message))
    }

    /// Is it the same finding, found twice?
    pub fn repeats(&self, other: &Self) -> bool {
        self.order(other) == Ordering::Equal
    }

    /// Is it one that keeps the model from being used?
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// The finished diagnostic.
    pub fn finish(self, files: &Files) -> Diagnostic {
        let origin = self.first().map(|place| files.origin(place));
        let mut message = self.message;
        if let (Some(_), Some(origin)) = (self.hidden_at, &origin) {
            message = format!("{origin}: {message}");
        }
        let file = self.labels.first().map(|(place, _)| place.file);
        let (here, there): (Vec<_>, Vec<_>) = self.labels.into_iter().partition(|(place, _)| Some(place.file) == file);
        let elsewhere = there
            .into_iter()
            .map(|(place, label)| {
                Self::error(self.code, label).severity(Severity::Advice).at(place, "here").finish(files)
            })
            .collect();
        Diagnostic {
            code: self.code,
            severity: self.severity,
            message,
            help: self.help,
            origin,
            source: file
                .and_then(|file| files.get(file))
                .map(|text| NamedSource::new(text.path.as_str(), Arc::clone(&text.shown))),
            labels: here.into_iter().map(|(place, label)| span(place, label)).collect(),
            elsewhere,
        }
    }

    fn severity(self, severity: Severity) -> Self {
        Self { severity, ..self }
    }
}

fn span(place: Place, label: String) -> LabeledSpan {
    LabeledSpan::new(Some(label), place.start as usize, place.len as usize)
}
