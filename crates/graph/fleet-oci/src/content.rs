//! [`Content`]: the bytes of a file in a tree, cheap to clone, in memory or somewhere the caller put them.
//!
//! Trees of hundreds of megabytes must not sit in memory, and this crate may not open files. So contents go through
//! a [`ContentSink`] when an archive is unpacked, and come back through a [`ByteSource`] when a tar is written.

use std::{
    borrow::Cow,
    fmt,
    io::{self, Read as _},
    sync::Arc,
};

/// Where bytes that are not in memory can be read again.
pub trait ByteSource: Send + Sync {
    /// Fills `buffer` with the bytes that start at `offset`.
    ///
    /// # Errors
    /// When the source cannot be read or ends before the buffer is full.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;
}

/// A file that is opened when its bytes are wanted and closed after: of a large folder only one is open at a time.
pub trait FileSource: Send + Sync {
    /// Writes all bytes.
    ///
    /// # Errors
    /// When the file cannot be read, is not the one that was meant any more, or the writer refuses.
    fn copy_to(&self, writer: &mut dyn io::Write) -> io::Result<()>;
}

/// The bytes of one file.
#[derive(Clone)]
pub struct Content(Inner);

#[derive(Clone)]
enum Inner {
    Bytes(Arc<[u8]>),
    Slice { source: Arc<dyn ByteSource>, offset: u64, length: u64 },
    File { source: Arc<dyn FileSource>, length: u64 },
}

impl Content {
    /// Bytes held in memory.
    #[must_use]
    pub fn bytes(bytes: impl Into<Arc<[u8]>>) -> Self {
        Self(Inner::Bytes(bytes.into()))
    }

    /// `length` bytes of `source` from `offset`.
    #[must_use]
    pub fn slice(source: Arc<dyn ByteSource>, offset: u64, length: u64) -> Self {
        Self(Inner::Slice { source, offset, length })
    }

    /// A file of `length` bytes.
    #[must_use]
    pub fn file(source: Arc<dyn FileSource>, length: u64) -> Self {
        Self(Inner::File { source, length })
    }

    /// How many bytes.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.0 {
            Inner::Bytes(bytes) => bytes.len() as u64,
            Inner::Slice { length, .. } | Inner::File { length, .. } => *length,
        }
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All bytes in memory; for small files that have to be looked into.
    ///
    /// # Errors
    /// When the source cannot be read.
    pub fn to_vec(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.copy_to(&mut bytes)?;
        Ok(bytes)
    }

    /// Writes all bytes, a chunk at a time.
    ///
    /// # Errors
    /// When the source cannot be read or the writer refuses.
    pub fn copy_to(&self, writer: &mut dyn io::Write) -> io::Result<()> {
        match &self.0 {
            Inner::Bytes(bytes) => writer.write_all(bytes),
            Inner::File { source, .. } => source.copy_to(writer),
            Inner::Slice { source, offset, length } => {
                let mut buffer = vec![0; (*length).min(CHUNK) as usize];
                let mut done = 0;
                while done < *length {
                    let part = &mut buffer[..(*length - done).min(CHUNK) as usize];
                    source.read_exact_at(part, offset + done)?;
                    writer.write_all(part)?;
                    done += part.len() as u64;
                }
                Ok(())
            }
        }
    }
}

/// How much of a content is in memory while it is copied or compared.
const CHUNK: u64 = 256 * 1024;

impl Content {
    /// The bytes that start at `offset`, as many as there are, at most a chunk.
    fn chunk(&self, offset: u64) -> io::Result<Cow<'_, [u8]>> {
        let length = (self.len() - offset).min(CHUNK);
        match &self.0 {
            Inner::Bytes(bytes) => Ok(Cow::Borrowed(&bytes[offset as usize..(offset + length) as usize])),
            Inner::Slice { source, offset: start, .. } => {
                let mut buffer = vec![0; length as usize];
                source.read_exact_at(&mut buffer, start + offset)?;
                Ok(Cow::Owned(buffer))
            }
            // From its start each time: such files are written out, and compared by nobody but tests.
            Inner::File { .. } => {
                let whole = self.to_vec()?;
                let part = whole.get(offset as usize..(offset + length) as usize);
                part.map(|part| Cow::Owned(part.to_vec())).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
            }
        }
    }
}

impl fmt::Debug for Content {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Content({} bytes)", self.len())
    }
}

impl PartialEq for Content {
    /// Compares the bytes; a source that cannot be read equals nothing.
    fn eq(&self, other: &Self) -> bool {
        let same = |at| matches!((self.chunk(at), other.chunk(at)), (Ok(left), Ok(right)) if left == right);
        self.len() == other.len() && (0..self.len()).step_by(CHUNK as usize).all(same)
    }
}

/// Takes the contents of an archive while it is unpacked.
pub trait ContentSink {
    /// Reads exactly `length` bytes and keeps them.
    ///
    /// # Errors
    /// When the reader ends early or the sink cannot keep them.
    fn store(&mut self, reader: &mut dyn io::Read, length: u64) -> io::Result<Content>;
}

/// Keeps contents in memory.
#[derive(Debug, Default)]
pub struct MemorySink;

impl ContentSink for MemorySink {
    fn store(&mut self, reader: &mut dyn io::Read, length: u64) -> io::Result<Content> {
        let mut bytes = Vec::new();
        let got = io::Read::take(reader, length).read_to_end(&mut bytes)? as u64;
        if got != length {
            return Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                format!("a file of {length} bytes ends after {got}"),
            ));
        }
        Ok(Content::bytes(bytes))
    }
}
