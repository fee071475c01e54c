//! [`Socket`]: the WebSocket of a data channel.
//!
//! reqwest opens it, with the proxies and certificates that every other call has, and without Nagle's algorithm, which would keep
//! every small answer for 40 ms; frames are tungstenite's. Deliberately absent: what messages say.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use fleet_apply::causes::innermost;
use futures::SinkExt as _;
use reqwest::{StatusCode, Upgraded};
use serde_json::json;
use sha1::{Digest as _, Sha1};
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        protocol::{Role, WebSocketConfig},
    },
};

use super::{TunnelError, handshake::CLIENT_VERSION, message::Id, sessions::Ticket};
use crate::{
    account::{Account, CONNECT_TIMEOUT},
    rates::Rate,
    signed::{Ask, Service},
};

/// How long a data channel may take to be opened.
const OPEN_WITHIN: Duration = Duration::from_secs(30);
/// No message of a data channel is as large.
const LARGEST_MESSAGE: usize = 1 << 20;
/// What a server adds to the key before it hashes it (RFC 6455, section 1.3).
const SUFFIX: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// An address with this in it is signed already, and is not signed again (`websocketchannel.go` of session-manager-plugin).
const PRESIGNED: &str = "X-Amz-Signature=";
/// Version of what is said first.
const SCHEMA: &str = "1.0";

/// A WebSocket.
pub(super) type Socket = WebSocketStream<Upgraded>;

/// Opens the data channel of a session and says who we are: `client` is the same for all sockets of a session.
///
/// # Errors
/// [`TunnelError::Gateway`]; credentials that cannot be used.
pub(super) async fn open(account: &Account, ticket: &Ticket, client: Id) -> Result<Socket, TunnelError> {
    let opened = timeout(OPEN_WITHIN, upgraded(account, ticket, client)).await;
    opened.map_err(|_| refused(format!("it was not opened within {} s", OPEN_WITHIN.as_secs())))?
}

fn refused(why: impl Into<String>) -> TunnelError {
    TunnelError::Gateway { why: why.into() }
}

async fn upgraded(account: &Account, ticket: &Ticket, client: Id) -> Result<Socket, TunnelError> {
    let lost = |error: reqwest::Error| refused(innermost(&error));
    let mut random = fastrand::Rng::new();
    let key = STANDARD.encode(Id::random(&mut random).0);
    let ask = Ask {
        service: Service::Messages,
        call: "OpenDataChannel",
        method: "GET",
        target: String::new(),
        headers: Vec::new(),
        body: Vec::new(),
        rate: Rate::Unknown,
        repeatable: true,
    };
    let url = over_http(&ticket.url)
        .ok_or_else(|| refused(format!("its address is no WebSocket's: {}", without_query(&ticket.url))))?;
    let mut request = if ticket.url.contains(PRESIGNED) {
        let url = url.parse().map_err(|_| refused("its address is none"))?;
        reqwest::Request::new(reqwest::Method::GET, url)
    } else {
        account.signed.opening(&ask, &url).await?
    };
    for (name, value) in [
        ("connection", "Upgrade"),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", key.as_str()),
    ] {
        let value = value.parse().map_err(|_| refused("no header can be made of its key"))?;
        request.headers_mut().insert(name, value);
    }
    let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).tcp_nodelay(true).http1_only().build();
    let answer = http.map_err(lost)?.execute(request).await.map_err(lost)?;
    let status = answer.status();
    if status != StatusCode::SWITCHING_PROTOCOLS {
        let said = answer.text().await.unwrap_or_default();
        let allowed =
            if status == StatusCode::FORBIDDEN { "; ssmmessages:OpenDataChannel has to be allowed" } else { "" };
        return Err(refused(format!("it was refused with status {}: {}{allowed}", status.as_u16(), said.trim())));
    }
    let accepted = answer.headers().get("sec-websocket-accept").map(|value| value.as_bytes().to_vec());
    if accepted != Some(expected(&key).into_bytes()) {
        return Err(refused("what answers is no WebSocket"));
    }
    let config = WebSocketConfig::default().max_message_size(Some(LARGEST_MESSAGE));
    let stream = answer.upgrade().await.map_err(lost)?;
    let mut socket = WebSocketStream::from_raw_socket(stream, Role::Client, Some(config)).await;
    let token = ticket.token.expose_str().map_err(|_| refused("its token is not text"))?;
    let hello = json!({
        "MessageSchemaVersion": SCHEMA, "RequestId": Id::random(&mut random).to_string(), "TokenValue": token,
        "ClientId": client.to_string(), "ClientVersion": CLIENT_VERSION,
    });
    socket.send(Message::Text(hello.to_string().into())).await.map_err(|error| refused(error.to_string()))?;
    Ok(socket)
}

/// The hash by which a server shows that it has read the key.
fn expected(key: &str) -> String {
    STANDARD.encode(Sha1::new().chain_update(key).chain_update(SUFFIX).finalize())
}

/// A WebSocket is opened by a request over HTTP at the same place.
fn over_http(url: &str) -> Option<String> {
    Some(match url.split_once("://")? {
        ("wss", rest) => format!("https://{rest}"),
        ("ws", rest) => format!("http://{rest}"),
        _ => return None,
    })
}

/// What is behind the question mark may be as good as a token.
fn without_query(url: &str) -> &str {
    url.split('?').next().unwrap_or_default()
}

/// What a frame of the socket has for a data channel; `None` where that is nothing.
pub(super) fn bytes_of(frame: Message) -> Option<Bytes> {
    match frame {
        Message::Binary(bytes) => Some(bytes),
        Message::Text(text) => Some(text.into()),
        Message::Ping(_) | Message::Pong(_) | Message::Close(_) | Message::Frame(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_of_the_rfc_gives_its_hash() {
        assert_eq!(expected("dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }

    #[test]
    fn a_socket_is_opened_where_aws_says_and_its_query_is_not_told() {
        assert_eq!(over_http("wss://a.example/x?y=z").as_deref(), Some("https://a.example/x?y=z"));
        assert_eq!(over_http("ws://127.0.0.1:1/x").as_deref(), Some("http://127.0.0.1:1/x"));
        assert_eq!(over_http("ftp://a"), None);
        assert_eq!(without_query("ftp://a/b?secret"), "ftp://a/b");
    }
}
