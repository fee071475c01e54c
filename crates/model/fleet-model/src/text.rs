//! [`Files`]: the texts that were read, so that a [`Place`] can be shown and turned into an [`Origin`].

use std::sync::Arc;

use crate::{origin::Origin, scan, source::RelPath};

/// A range of bytes of one of the texts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Index into [`Files`].
    pub file: u16,
    /// First byte.
    pub start: u32,
    /// Bytes.
    pub len: u32,
}

/// One text.
#[derive(Debug)]
pub(crate) struct Text {
    /// Where it comes from.
    pub path: RelPath,
    /// All of it, as diagnostics may show it: what may be a secret is starred out, byte for byte.
    pub shown: Arc<str>,
    /// Byte offsets at which lines start.
    lines: Vec<u32>,
}

impl Text {
    /// The 1-based line that holds a byte.
    fn line(&self, offset: u32) -> u32 {
        count(self.lines.partition_point(|start| *start <= offset)).max(1)
    }
}

/// All texts of one run, in the order they were read.
#[derive(Debug, Default)]
pub(crate) struct Files {
    texts: Vec<Text>,
}

impl Files {
    /// Adds a KDL text and says under which number. What may be a secret in it will not be shown.
    pub fn add_kdl(&mut self, path: RelPath, text: &str) -> u16 {
        let mut shown = text.to_owned();
        for secret in scan::secrets(text) {
            shown.replace_range(secret.clone(), &"*".repeat(secret.len()));
        }
        self.add(path, &shown)
    }

    /// Adds a text and says under which number.
    pub fn add(&mut self, path: RelPath, text: &str) -> u16 {
        let starts = text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| count(at + 1));
        let lines = std::iter::once(0).chain(starts).collect();
        self.texts.push(Text { path, shown: Arc::from(text), lines });
        u16::try_from(self.texts.len() - 1).unwrap_or(u16::MAX)
    }

    /// A text by number.
    pub fn get(&self, file: u16) -> Option<&Text> {
        self.texts.get(usize::from(file))
    }

    /// A text's number by path.
    pub fn find(&self, path: &RelPath) -> Option<u16> {
        self.texts.iter().position(|text| text.path == *path).and_then(|at| u16::try_from(at).ok())
    }

    /// File and line of a place.
    pub fn origin(&self, place: Place) -> Origin {
        let text = &self.texts[usize::from(place.file)];
        Origin { file: text.path.clone(), line: text.line(place.start) }
    }

    /// The line that an origin names, without its indentation.
    pub fn place_of(&self, origin: &Origin) -> Option<Place> {
        let file = self.find(&origin.file)?;
        let text = self.get(file)?;
        let start = *text.lines.get(origin.line.checked_sub(1)? as usize)?;
        let line = text.shown.get(start as usize..)?.lines().next()?;
        let indent = line.len() - line.trim_start().len();
        Some(Place { file, start: start + count(indent), len: count(line.trim().len()) })
    }
}

/// Files of four gigabytes do not exist here.
pub(crate) fn count(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
