//! [`Fence`]: between a tar and the crate that reads it. Long names and extended records are read into memory whole, so
//! before each entry only so many bytes of them are let through.
//!
//! Deliberately absent: bounds on contents, which go by piece and belong to who takes them.

use std::{
    cell::Cell,
    io::{self, Read, Seek, SeekFrom},
    rc::Rc,
};

/// No archive may have more bytes of headers before one entry.
pub const MAXIMUM_EXTENDED: u64 = 1 << 20;

/// A reader that ends early where headers go on too long.
pub struct Fence<R> {
    reader: R,
    gate: Gate,
}

/// Says what is read from a [`Fence`]: headers, as long as the next entry is looked for, or contents.
#[derive(Clone, Default)]
pub struct Gate(Rc<Cell<Option<u64>>>);

impl<R> Fence<R> {
    /// Around a reader; everything passes but while its gate looks for an entry.
    pub fn new(reader: R) -> (Self, Gate) {
        let gate = Gate::default();
        (Self { reader, gate: gate.clone() }, gate)
    }
}

/// Why there is no next entry.
#[derive(Debug, thiserror::Error)]
pub enum NextError {
    /// Truncated, or not a tar.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Its headers do not end.
    #[error("it has more than {MAXIMUM_EXTENDED} bytes of headers before one entry")]
    TooLong,
}

impl Gate {
    /// The next entry of an archive behind the fence; `None` at its end. What is left of the entry before counts as headers:
    /// read it first, or seek.
    ///
    /// # Errors
    /// [`NextError`].
    pub fn next<'a, R: Read>(
        &self,
        entries: &mut tar::Entries<'a, Fence<R>>,
    ) -> Result<Option<tar::Entry<'a, Fence<R>>>, NextError> {
        self.0.set(Some(MAXIMUM_EXTENDED));
        let next = entries.next().transpose();
        let spent = self.0.replace(None) == Some(0);
        // Headers that end where the fence stands are too long, not truncated.
        next.map_err(|error| if spent { NextError::TooLong } else { error.into() })
    }
}

impl<R: Read> Read for Fence<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Some(left) = self.gate.0.get() else { return self.reader.read(buffer) };
        let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
        let read = self.reader.read(&mut buffer[..most])?;
        self.gate.0.set(Some(left - read as u64));
        Ok(read)
    }
}

impl<R: Seek> Seek for Fence<R> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.reader.seek(to)
    }
}
