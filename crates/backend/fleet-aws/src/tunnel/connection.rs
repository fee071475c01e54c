//! One connection that a session carries: its bytes to the session in pieces that are one message each, and what arrives for it.
//!
//! The agent ends both directions of a connection when we end ours, so the end of what a local program sends is passed on only once
//! nothing has come back for [`HALF_OPEN`].

use std::time::Duration;

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{mpsc, watch},
    time::timeout,
};

use super::mux::HEADER;

/// Bytes of one message of the stream, as the official client has it.
const MESSAGE: usize = 1024;
/// Frames that are kept for a connection which does not take them; at most 32 KiB each, as agents cut them.
pub(super) const STREAM_QUEUE: usize = 128;
/// A connection whose local end sends nothing further ends after so long without anything from the far one.
const HALF_OPEN: Duration = Duration::from_secs(10);

/// What connections want of the session.
pub(super) enum Order {
    /// A connection begins; what arrives for it goes there.
    Open { stream: u32, to: mpsc::Sender<Bytes> },
    /// Bytes of it.
    Bytes { stream: u32, bytes: Bytes },
    /// It is over.
    End { stream: u32 },
}

/// Moves bytes until one end is over.
pub(super) async fn carry(connection: TcpStream, stream: u32, orders: mpsc::Sender<Order>) {
    // Small answers are not to wait for more; where that cannot be had they do.
    let _ = connection.set_nodelay(true);
    let (mut read, mut write) = connection.into_split();
    let (to, mut from_far) = mpsc::channel(STREAM_QUEUE);
    if orders.send(Order::Open { stream, to }).await.is_err() {
        return;
    }
    let (said, mut silent) = watch::channel(false);
    let up = async {
        let mut buffer = vec![0; MESSAGE - HEADER];
        while let Ok(length @ 1..) = read.read(&mut buffer).await {
            let bytes = Bytes::copy_from_slice(&buffer[..length]);
            if orders.send(Order::Bytes { stream, bytes }).await.is_err() {
                break;
            }
        }
        said.send_replace(true);
        std::future::pending::<()>().await;
    };
    let down = async {
        loop {
            let half = *silent.borrow();
            let next = if half {
                timeout(HALF_OPEN, from_far.recv()).await.ok().flatten()
            } else {
                tokio::select! {
                    next = from_far.recv() => next,
                    _ = silent.changed() => continue,
                }
            };
            let Some(bytes) = next else { break };
            if write.write_all(&bytes).await.is_err() {
                break;
            }
        }
    };
    tokio::select! { () = down => {}, () = up => {} }
    let _ = write.shutdown().await;
    let _ = orders.send(Order::End { stream }).await;
}
