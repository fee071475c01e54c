//! [`watch`]: what BuildKit tells about a build while it runs. `bollard` starts builds but does not show their
//! progress, so this opens a second gRPC connection (`POST /grpc`, upgraded) and asks for the status of the build.
//!
//! Deliberately absent: anything that decides about the build. Without progress a build still succeeds or fails.

use bollard::moby::buildkit::v1::{StatusRequest, StatusResponse, control_client::ControlClient};
use hyper_util::rt::TokioIo;
use std::{collections::BTreeSet, io, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    sync::{mpsc::UnboundedSender, oneshot::Sender},
};
use tonic::transport::Uri;

use crate::engine::Endpoint;

const UPGRADE: &[u8] =
    b"POST /grpc HTTP/1.1\r\nHost: docker\r\nConnection: Upgrade\r\nUpgrade: h2c\r\nContent-Length: 0\r\n\r\n";
/// More than any engine answers before the upgraded connection begins.
const LONGEST_HEAD: usize = 16 * 1024;

/// How often a build is asked for that has not begun yet.
const ASKED: u32 = 10;
/// Between two times.
const PAUSE: Duration = Duration::from_millis(200);

/// A byte stream to the engine.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// Sends a line for every step that begins and every line that a step prints, until the build ends. `ready` is told when
/// the build may begin: the engine forgets a build when it ends, and with it what the build said.
pub(crate) async fn watch(endpoint: Endpoint, reference: String, lines: UnboundedSender<String>, ready: Sender<()>) {
    if let Err(why) = follow(endpoint, reference, &lines, ready).await {
        // The receiver is gone when the build has ended: then nobody misses anything.
        let _ = lines.send(format!("(no progress from the engine: {why})"));
    }
}

async fn follow(
    endpoint: Endpoint,
    reference: String,
    lines: &UnboundedSender<String>,
    ready: Sender<()>,
) -> Result<(), String> {
    let connector = tower::service_fn(move |_: Uri| {
        let endpoint = endpoint.clone();
        async move { upgraded(&endpoint).await.map(TokioIo::new) }
    });
    // The address is never looked up: the connector knows where the engine is.
    let channel = tonic::transport::Endpoint::from_static("http://engine").connect_with_connector(connector).await;
    let mut client = ControlClient::new(channel.map_err(|e| e.to_string())?);
    // Nobody waits any more: the build has begun without us.
    let _ = ready.send(());
    let mut asked = 1;
    let mut replies = loop {
        // The engine waits some seconds for a build of this name; on a busy machine it may take longer to begin.
        match client.status(StatusRequest { r#ref: reference.clone() }).await {
            Ok(status) => break status.into_inner(),
            Err(error) if asked >= ASKED || lines.is_closed() => return Err(error.message().to_owned()),
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        asked += 1;
    };
    let mut told = BTreeSet::new();
    while let Ok(Some(reply)) = replies.message().await {
        for line in describe(&reply, &mut told) {
            if lines.send(line).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Lines of one status message; `told` are the steps that were announced already.
fn describe(reply: &StatusResponse, told: &mut BTreeSet<String>) -> Vec<String> {
    let begun = reply.vertexes.iter().filter(|v| v.started.is_some() || v.cached);
    let begun = begun.filter(|v| !v.name.starts_with("[internal]") && told.insert(v.digest.clone()));
    let mut lines: Vec<String> =
        begun.map(|v| format!("{}{}", v.name, if v.cached { " (cached)" } else { "" })).collect();
    for log in &reply.logs {
        lines.extend(String::from_utf8_lossy(&log.msg).lines().map(str::to_owned));
    }
    lines
}

/// Opens a connection and turns it into gRPC's.
async fn upgraded(endpoint: &Endpoint) -> io::Result<Box<dyn Stream>> {
    let mut stream: Box<dyn Stream> = match endpoint {
        Endpoint::Unix(path) => Box::new(UnixStream::connect(path).await?),
        Endpoint::Tcp(address) => Box::new(TcpStream::connect(address).await?),
    };
    stream.write_all(UPGRADE).await?;
    // Byte by byte: what follows the head belongs to gRPC already.
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() > LONGEST_HEAD {
            return Err(io::Error::other("its answer to the upgrade does not end"));
        }
        head.push(stream.read_u8().await?);
    }
    let first = String::from_utf8_lossy(&head).lines().next().unwrap_or_default().to_owned();
    if first.contains(" 101 ") {
        Ok(stream)
    } else {
        Err(io::Error::other(format!("it does not upgrade to gRPC: {first}")))
    }
}

#[cfg(test)]
mod tests {
    use bollard::moby::buildkit::v1::{Vertex, VertexLog};

    use super::*;

    #[test]
    fn a_step_is_announced_once_and_what_it_prints_follows() {
        let mut told = BTreeSet::new();
        let step =
            Vertex { digest: "a".to_owned(), name: "[2/2] RUN make".to_owned(), cached: true, ..Vertex::default() };
        let internal =
            Vertex { digest: "b".to_owned(), name: "[internal] load".to_owned(), cached: true, ..Vertex::default() };
        let log = VertexLog { msg: b"one\ntwo\n".to_vec(), ..VertexLog::default() };
        let reply = StatusResponse { vertexes: vec![step, internal], logs: vec![log], ..StatusResponse::default() };
        assert_eq!(describe(&reply, &mut told), ["[2/2] RUN make (cached)", "one", "two"]);
        assert_eq!(describe(&reply, &mut told), ["one", "two"]);
    }
}
