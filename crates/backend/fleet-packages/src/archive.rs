//! An [`Export`] plan carried out: [`write_archive`] into any writer, [`archive_stream`] for an engine's request body.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    sync::Arc,
};

use bytes::Bytes;
use fleet_oci::{
    LayerDescriptor,
    compress::unpacked,
    digest::{DAMAGED, HashingWriter},
    export::{Export, Segment},
};
use futures::{Stream, stream};
use tokio::sync::mpsc;

use crate::cache::BlobCache;

/// Bytes in one piece of the stream.
const PIECE: usize = 1 << 20;
/// Pieces that may wait for the engine.
const AHEAD: usize = 4;

/// Writes the whole archive; every layer's blob must be in the store.
///
/// # Errors
/// When a blob is missing, unreadable or damaged, unpacks to something else than its descriptor says, or the writer refuses.
pub fn write_archive(cache: &dyn BlobCache, export: &Export, out: &mut dyn Write) -> io::Result<()> {
    for segment in &export.segments {
        match segment {
            Segment::Bytes(bytes) => out.write_all(bytes)?,
            Segment::Layer(layer) => write_layer(cache, layer, out)?,
        }
    }
    out.flush()
}

fn write_layer(cache: &dyn BlobCache, layer: &LayerDescriptor, out: &mut dyn Write) -> io::Result<()> {
    let damaged = || io::Error::new(io::ErrorKind::InvalidData, format!("the layer {} {DAMAGED}", layer.digest));
    // Only where something is wrong it is worth reading the blob twice.
    copy_layer(cache, layer, out).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::BrokenPipe => error,
        _ if cache.check(&layer.digest) => error,
        _ => damaged(),
    })
}

fn copy_layer(cache: &dyn BlobCache, layer: &LayerDescriptor, out: &mut dyn Write) -> io::Result<()> {
    let digest = &layer.digest;
    let missing = || io::Error::new(io::ErrorKind::NotFound, format!("the layer {digest} is not in the store"));
    let blob = File::open(cache.get(digest).ok_or_else(missing)?)?;
    // One byte more than promised would be noticed, too.
    let mut tar = unpacked(&layer.media_type, BufReader::new(blob))?.take(layer.uncompressed + 1);
    let mut hashed = HashingWriter::new(out, layer.diff_id.algorithm());
    let length = io::copy(&mut tar, &mut hashed)?;
    let wrong = |why: String| Err(io::Error::new(io::ErrorKind::InvalidData, format!("the layer {digest} {why}")));
    if length != layer.uncompressed {
        return wrong(format!("unpacks to {length} bytes, expected are {}", layer.uncompressed));
    }
    match hashed.finish().1 {
        diff_id if diff_id == layer.diff_id => Ok(()),
        diff_id => wrong(format!("unpacks to {diff_id}, expected is {}", layer.diff_id)),
    }
}

/// The archive as a stream of pieces, made on a blocking thread as fast as they are taken. Dropping it stops the work.
pub fn archive_stream(
    cache: Arc<dyn BlobCache>,
    export: Export,
) -> impl Stream<Item = io::Result<Bytes>> + Send + Unpin + 'static {
    let (sender, receiver) = mpsc::channel(AHEAD);
    tokio::task::spawn_blocking(move || {
        let mut out = BufWriter::with_capacity(PIECE, Pieces(sender.clone()));
        if let Err(error) = write_archive(cache.as_ref(), &export, &mut out) {
            // Nobody listens any more when the receiver is gone: then there is nobody to tell.
            let _ = sender.blocking_send(Err(error));
        }
    });
    Box::pin(stream::unfold(receiver, |mut receiver| async { receiver.recv().await.map(|piece| (piece, receiver)) }))
}

/// Sends what is written to it.
struct Pieces(mpsc::Sender<io::Result<Bytes>>);

impl Write for Pieces {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let gone = |_| io::Error::new(io::ErrorKind::BrokenPipe, "the receiver of the archive is gone");
        self.0.blocking_send(Ok(Bytes::copy_from_slice(buffer))).map_err(gone)?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
