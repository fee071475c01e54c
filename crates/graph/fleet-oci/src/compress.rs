//! [`BlockWriter`]: compression in fixed-size independent frames, in parallel, with bytes that do not depend on the
//! number of threads.
//!
//! The block size and level are part of the recipe ([`Compression`]): the compressor's version is pinned by
//! `Cargo.lock`, and a golden digest in the tests tells when it changes the bytes.

use std::{
    collections::VecDeque,
    io::{self, BufRead, Read, Write},
    sync::mpsc,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::digest::{Algorithm, Digest, Hasher};

/// How a layer is compressed; part of its hash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// zstd level 3 in 1 MiB frames: for engines and registries that take it (all current ones do).
    #[default]
    Zstd,
    /// gzip level 6 in 1 MiB members: for tools that know nothing else.
    Gzip,
}

impl Compression {
    /// Bytes of tar in one frame.
    pub const BLOCK: usize = 1 << 20;
    const ZSTD_LEVEL: i32 = 3;
    const GZIP_LEVEL: u32 = 6;

    /// Everything that decides the bytes, for derivation hashes.
    #[must_use]
    pub fn recipe(self) -> String {
        match self {
            Self::Zstd => format!("zstd level={} block={}", Self::ZSTD_LEVEL, Self::BLOCK),
            Self::Gzip => format!("gzip zlib-rs level={} block={}", Self::GZIP_LEVEL, Self::BLOCK),
        }
    }

    /// The OCI media type of a layer compressed this way.
    #[must_use]
    pub fn media_type(self) -> &'static str {
        match self {
            Self::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
            Self::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        }
    }

    fn frame(self, block: &[u8]) -> io::Result<Vec<u8>> {
        match self {
            Self::Zstd => zstd::bulk::compress(block, Self::ZSTD_LEVEL),
            Self::Gzip => {
                let level = flate2::Compression::new(Self::GZIP_LEVEL);
                // mtime 0, no name, operating system 255 "unknown": nothing of this machine.
                let mut member = flate2::GzBuilder::new().mtime(0).operating_system(255).write(Vec::new(), level);
                member.write_all(block)?;
                member.finish()
            }
        }
    }
}

/// The tar inside a layer's blob, by the layer's media type (OCI's and Docker's names).
///
/// # Errors
/// When the decompressor cannot start, or the type is none of theirs.
pub fn unpacked<'a>(media_type: &str, blob: impl BufRead + 'a) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match media_type.rsplit(['.', '+']).next() {
        Some("zstd") => Box::new(zstd::Decoder::with_buffer(blob)?),
        Some("gzip") => Box::new(flate2::bufread::MultiGzDecoder::new(blob)),
        Some("tar") => Box::new(blob),
        _ => {
            let why = format!("layers of type {media_type} cannot be unpacked");
            return Err(io::Error::new(io::ErrorKind::Unsupported, why));
        }
    })
}

/// What came out of a [`BlockWriter`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compressed {
    /// SHA-256 of the compressed bytes.
    pub digest: Digest,
    /// SHA-256 of the bytes that went in.
    pub diff_id: Digest,
    /// Compressed bytes.
    pub size: u64,
    /// Bytes that went in.
    pub uncompressed: u64,
}

/// Compresses what is written to it and hashes both sides. Holds a few blocks and their frames, whatever it is given.
///
/// Blocks are compressed by rayon's threads while the next ones are being read, hashed and filled here; their frames are
/// written in order.
pub struct BlockWriter<W> {
    out: W,
    compression: Compression,
    pending: Vec<u8>,
    /// Blocks whose frames are not written yet, the oldest first.
    working: VecDeque<mpsc::Receiver<Framed>>,
    /// A buffer that came back.
    spare: Vec<Vec<u8>>,
    in_flight: usize,
    diff: Hasher,
    compressed: Hasher,
    size: u64,
    uncompressed: u64,
}

/// A frame, and the buffer that its block was in.
type Framed = (io::Result<Vec<u8>>, Vec<u8>);

/// How long a thread waits for a frame before it looks again whether there is something else to do.
const PATIENCE: Duration = Duration::from_millis(1);

/// How many blocks are on their way at a time, at most; it bounds memory and does not change the bytes.
const IN_FLIGHT: usize = 16;

/// The same for this machine: as many as keep its threads busy while the next ones are filled.
fn in_flight() -> usize {
    (2 * rayon::current_num_threads() + 2).min(IN_FLIGHT)
}

impl<W: Write> BlockWriter<W> {
    /// Writes frames to `out`.
    pub fn new(out: W, compression: Compression) -> Self {
        Self {
            out,
            compression,
            pending: Vec::new(),
            working: VecDeque::new(),
            spare: Vec::new(),
            in_flight: in_flight(),
            diff: Hasher::new(Algorithm::Sha256),
            compressed: Hasher::new(Algorithm::Sha256),
            size: 0,
            uncompressed: 0,
        }
    }

    /// Hands the pending block over, and waits for the oldest where too many are on their way.
    fn flush_block(&mut self) -> io::Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        if self.working.len() >= self.in_flight {
            self.write_oldest()?;
        }
        let next = self.spare.pop().unwrap_or_default();
        let block = std::mem::replace(&mut self.pending, next);
        let compression = self.compression;
        let (sender, receiver) = mpsc::sync_channel(1);
        self.uncompressed += block.len() as u64;
        self.diff.update(&block);
        rayon::spawn(move || {
            let frame = compression.frame(&block);
            // Nobody waits for it only when writing was given up.
            let _ = sender.send((frame, block));
        });
        self.working.push_back(receiver);
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(receiver) = self.working.pop_front() else { return Ok(()) };
        let (frame, mut block) = wait(&receiver)?;
        block.clear();
        self.spare.push(block);
        let frame = frame?;
        self.compressed.update(&frame);
        self.size += frame.len() as u64;
        self.out.write_all(&frame)
    }

    /// Writes the last frame.
    ///
    /// # Errors
    /// When the compressor or the writer fails.
    pub fn finish(mut self) -> io::Result<(W, Compressed)> {
        self.flush_block()?;
        while !self.working.is_empty() {
            self.write_oldest()?;
        }
        let result = Compressed {
            digest: self.compressed.finish(),
            diff_id: self.diff.finish(),
            size: self.size,
            uncompressed: self.uncompressed,
        };
        Ok((self.out, result))
    }
}

/// Waits for a frame. One of rayon's own threads works meanwhile: it may be the only one.
fn wait(receiver: &mpsc::Receiver<Framed>) -> io::Result<Framed> {
    let gone = || io::Error::other("a compressing thread ended early");
    loop {
        match receiver.try_recv() {
            Ok(framed) => return Ok(framed),
            Err(mpsc::TryRecvError::Disconnected) => return Err(gone()),
            Err(mpsc::TryRecvError::Empty) => {}
        }
        if rayon::yield_now() != Some(rayon::Yield::Executed) {
            return match receiver.recv_timeout(PATIENCE) {
                Ok(framed) => Ok(framed),
                Err(mpsc::RecvTimeoutError::Timeout) => continue,
                Err(mpsc::RecvTimeoutError::Disconnected) => Err(gone()),
            };
        }
    }
}

impl<W: Write> Write for BlockWriter<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = Compression::BLOCK - self.pending.len();
        let taken = buffer.len().min(room);
        if self.pending.capacity() < Compression::BLOCK && self.pending.len() + taken > self.pending.capacity() {
            // Small layers do not take a whole block.
            let wanted = (self.pending.len() + taken).next_power_of_two().min(Compression::BLOCK);
            self.pending.reserve_exact(wanted - self.pending.len());
        }
        self.pending.extend_from_slice(&buffer[..taken]);
        if taken == room {
            self.flush_block()?;
        }
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        (0..40 * 1024 * 1024u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 27) as u8).collect()
    }

    fn compressed(bytes: &[u8], compression: Compression, piece: usize) -> (Vec<u8>, Compressed) {
        let mut writer = BlockWriter::new(Vec::new(), compression);
        for part in bytes.chunks(piece) {
            writer.write_all(part).unwrap();
        }
        writer.finish().unwrap()
    }

    #[test]
    fn the_bytes_depend_neither_on_threads_nor_on_how_they_are_written() {
        let bytes = sample();
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        for compression in [Compression::Zstd, Compression::Gzip] {
            let (first, result) = compressed(&bytes, compression, 1 << 16);
            let (second, other) = one.install(|| compressed(&bytes, compression, 777_777));
            assert!(first == second && result == other);
            assert_eq!(result.digest, Digest::sha256(&first));
            assert_eq!(result.diff_id, Digest::sha256(&bytes));
        }
    }

    #[test]
    fn many_frames_are_read_back_as_one_stream() {
        let bytes = sample();
        for compression in [Compression::Zstd, Compression::Gzip] {
            let (frames, _) = compressed(&bytes, compression, bytes.len());
            let mut back = Vec::new();
            unpacked(compression.media_type(), &frames[..]).unwrap().read_to_end(&mut back).unwrap();
            assert!(back == bytes);
        }
        assert!(unpacked("application/vnd.oci.image.layer.v1.tar+xz", &b""[..]).is_err());
    }
}
