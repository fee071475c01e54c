//! [`SpillSink`]: unpacked contents in one nameless temporary file, so that no tree has to fit into memory.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use fleet_oci::{Content, ContentSink, MemorySink, content::ByteSource};

/// Files of at most this many bytes stay in memory: a round trip costs more than they do.
const SMALL: u64 = 512;
const CHUNK: u64 = 256 * 1024;

/// Clones write into the same file, at places that do not overlap, so threads can unpack side by side.
#[derive(Clone)]
pub struct SpillSink {
    spill: Arc<Spill>,
}

struct Spill {
    file: File,
    end: AtomicU64,
}

impl ByteSource for Spill {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }
}

impl SpillSink {
    /// Spills into a file that nobody else writes; it may have been unlinked already.
    pub fn new(file: File) -> Self {
        Self { spill: Arc::new(Spill { file, end: AtomicU64::new(0) }) }
    }
}

impl SpillSink {
    /// All of a file that is there already.
    pub fn whole(&self, length: u64) -> Content {
        Content::slice(self.spill.clone(), 0, length)
    }
}

impl ContentSink for SpillSink {
    fn store(&mut self, reader: &mut dyn Read, length: u64) -> io::Result<Content> {
        if length <= SMALL {
            return MemorySink.store(reader, length);
        }
        let start = self.spill.end.fetch_add(length, Ordering::Relaxed);
        let mut buffer = vec![0; length.min(CHUNK) as usize];
        let mut done = 0;
        while done < length {
            let part = &mut buffer[..(length - done).min(CHUNK) as usize];
            reader.read_exact(part)?;
            self.spill.file.write_all_at(part, start + done)?;
            done += part.len() as u64;
        }
        Ok(Content::slice(self.spill.clone(), start, length))
    }
}
