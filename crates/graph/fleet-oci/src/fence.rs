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

/// Says what is read from a [`Fence`]: headers or contents.
#[derive(Clone, Default)]
pub struct Gate(Rc<Cell<Option<u64>>>);

impl<R> Fence<R> {
    /// Around a reader; everything passes until the gate says otherwise.
    pub fn new(reader: R) -> (Self, Gate) {
        let gate = Gate::default();
        (Self { reader, gate: gate.clone() }, gate)
    }
}

impl Gate {
    /// From now on headers are read.
    pub fn headers(&self) {
        self.0.set(Some(MAXIMUM_EXTENDED));
    }

    /// From now on contents are. True when the headers before used up what they may: what then went wrong is that.
    pub fn contents(&self) -> bool {
        self.0.replace(None) == Some(0)
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
