//! HTTP/1.1: plain inside the fleet's network and on loopback, by TLS to AWS: [`send`] and [`serve`], and under them
//! [`begin`] and [`listen`] for who passes bodies on as they come.
//!
//! Deliberately absent: redirects, proxies, connection reuse.

use std::{convert::Infallible, error::Error, io, net::Ipv4Addr, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt as _, Full, Limited, combinators::BoxBody};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{ClientConfig, RootCertStore, pki_types::ServerName},
};

/// Larger requests to our own endpoints are refused.
const LARGEST_REQUEST: usize = 64 * 1024;
/// Larger answers are refused.
const LARGEST_ANSWER: usize = 64 * 1024 * 1024;
/// How long a host may take to accept a connection.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// What is answered, all at once or as it comes.
pub type Body = BoxBody<Bytes, hyper::Error>;

/// A request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// Nobody listens, or the name is unknown.
    #[error("cannot connect to {host}:{port}: {source}")]
    Connect {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
        /// The system's words.
        source: io::Error,
    },
    /// The connection broke or what came is not HTTP.
    #[error("no proper answer: {0}")]
    Protocol(String),
    /// It took too long.
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

impl SendError {
    /// With all that caused it: of a connection that was reset, hyper itself says `connection error`.
    fn protocol(error: &dyn Error) -> Self {
        let mut why = error.to_string();
        let mut next = error.source();
        while let Some(cause) = next {
            why = format!("{why}: {cause}");
            next = cause.source();
        }
        Self::Protocol(why)
    }
}

/// Sends one request to the host that its URI names and reads the answer.
///
/// # Errors
/// [`SendError`]; no status is an error.
pub async fn send(request: Request<Vec<u8>>, within: Duration) -> Result<Response<Bytes>, SendError> {
    tokio::time::timeout(within, exchange(request)).await.unwrap_or(Err(SendError::Timeout(within)))
}

async fn exchange(request: Request<Vec<u8>>) -> Result<Response<Bytes>, SendError> {
    let (parts, body) = begin(request).await?.into_parts();
    let read = Limited::new(body, LARGEST_ANSWER).collect().await;
    Ok(Response::from_parts(parts, read.map_err(|e| SendError::protocol(&*e))?.to_bytes()))
}

/// Sends one request to the host that its URI names; the answer's body is still to come.
///
/// # Errors
/// [`SendError`]; no status is an error.
pub async fn begin(request: Request<Vec<u8>>) -> Result<Response<Incoming>, SendError> {
    let (mut parts, body) = request.into_parts();
    let authority =
        parts.uri.authority().ok_or_else(|| SendError::Protocol("the URL names no host".to_owned()))?.clone();
    let secure = parts.uri.scheme_str() == Some("https");
    let port = authority.port_u16().unwrap_or(if secure { 443 } else { 80 });
    let host = authority.host().trim_matches(['[', ']']).to_owned();
    let failed = |source| SendError::Connect { host: host.clone(), port, source };
    let stream = tokio::time::timeout(CONNECT_WITHIN, TcpStream::connect((host.as_str(), port))).await;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, format!("no answer within {} s", CONNECT_WITHIN.as_secs()));
    let stream = stream.map_err(late).flatten().map_err(failed)?;
    let target = parts.uri.path_and_query().map_or("/", |target| target.as_str());
    parts.headers.insert(header::HOST, authority.as_str().parse().map_err(|e| SendError::protocol(&e))?);
    parts.uri = target.parse().map_err(|e| SendError::protocol(&e))?;
    let request = Request::from_parts(parts, Full::new(Bytes::from(body)));
    if secure { ask(tls(&host, stream).await.map_err(failed)?, request).await } else { ask(stream, request).await }
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: Request<Full<Bytes>>,
) -> Result<Response<Incoming>, SendError> {
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|e| SendError::protocol(&e))?;
    // It ends with the answer's body: whether that was read to its end or dropped.
    tokio::spawn(connection);
    sender.send_request(request).await.map_err(|e| SendError::protocol(&e))
}

/// TLS to a host, believed if one of the image's authorities vouches for it (`SSL_CERT_FILE`, else `/etc/ssl/certs`).
async fn tls(host: &str, stream: TcpStream) -> io::Result<TlsStream<TcpStream>> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let provider = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(io::Error::other)?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// `GET` of a URL.
///
/// # Errors
/// [`SendError`].
pub async fn get(url: &str, within: Duration) -> Result<Response<Bytes>, SendError> {
    let request = Request::get(url).body(Vec::new()).map_err(|e| SendError::protocol(&e))?;
    send(request, within).await
}

/// What an endpoint of ours answers: a status and JSON.
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// A JSON document.
    pub body: String,
}

/// Answers requests by method, path and body.
pub type Handler = Arc<dyn Fn(&Method, &str, &[u8]) -> Answer + Send + Sync>;

/// Listens on loopback and answers until the program ends.
///
/// # Errors
/// When the port is taken.
pub async fn serve(port: u16, handler: Handler) -> io::Result<()> {
    listen(port, move |request| answer(Arc::clone(&handler), request)).await
}

async fn answer(handler: Handler, request: Request<Incoming>) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let answer = match Limited::new(body, LARGEST_REQUEST).collect().await {
        Ok(body) => handler(&parts.method, parts.uri.path(), &body.to_bytes()),
        Err(_) => Answer { status: StatusCode::PAYLOAD_TOO_LARGE, body: "{}".to_owned() },
    };
    json(answer)
}

/// An answer as a response.
pub fn json(answer: Answer) -> Response<Body> {
    let mut response = Response::new(whole(answer.body));
    *response.status_mut() = answer.status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    response
}

/// A body that is all there.
pub fn whole(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed()
}

/// Listens on loopback and has each request answered, until the program ends.
///
/// # Errors
/// When the port is taken.
pub async fn listen<F, R>(port: u16, answer: F) -> io::Result<()>
where
    F: Fn(Request<Incoming>) -> R + Clone + Send + 'static,
    R: Future<Output = Response<Body>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    tokio::spawn(async move {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => drop(tokio::spawn(converse(stream, answer.clone()))),
                // Out of file descriptors, most likely: give the others time to finish.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
    Ok(())
}

async fn converse<F, R>(stream: TcpStream, answer: F)
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Response<Body>>,
{
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let answer = answer(request);
        async move { Ok::<_, Infallible>(answer.await) }
    });
    // A broken connection on loopback concerns nobody but the client.
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_served_can_be_asked_for() {
        let port = fleet_sim::free_port();
        let echo = |method: &Method, path: &str, body: &[u8]| Answer {
            status: StatusCode::IM_A_TEAPOT,
            body: format!("{method} {path} {}", String::from_utf8_lossy(body)),
        };
        serve(port, Arc::new(echo)).await.unwrap();
        let request = Request::post(format!("http://127.0.0.1:{port}/people?x=1")).body(b"hello".to_vec()).unwrap();
        let answer = send(request, Duration::from_secs(5)).await.unwrap();
        assert_eq!((answer.status().as_u16(), answer.body().as_ref()), (418, b"POST /people hello".as_slice()));
    }

    #[tokio::test]
    async fn a_connection_that_breaks_is_said_with_its_reason() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let asked = tokio::spawn(async move { get(&url, Duration::from_secs(5)).await });
        // Closed with a question in it that nobody read: a reset, and no end.
        let stream = tokio::task::spawn_blocking(move || {
            let stream = listener.accept().unwrap().0;
            assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
            stream
        });
        drop(stream.await.unwrap());
        let error = asked.await.unwrap().unwrap_err();
        assert!(error.to_string().starts_with("no proper answer: connection error: Connection reset"), "{error}");
    }

    #[tokio::test]
    async fn nobody_listening_is_said_with_host_and_port() {
        let port = fleet_sim::free_port();
        let error = get(&format!("http://127.0.0.1:{port}/"), Duration::from_secs(5)).await.unwrap_err();
        assert!(error.to_string().starts_with(&format!("cannot connect to 127.0.0.1:{port}: ")), "{error}");
    }
}
