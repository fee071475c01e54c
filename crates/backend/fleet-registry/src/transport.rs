//! [`Transport`]: one request to a registry: signed, counted, judged. [`Trouble`]: what came of it instead, and whether
//! it may pass. [`Transport::retried`] is the only place that asks again.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use fleet_apply::{
    Clock, Retry,
    causes::innermost,
    retry::{Passing, retry_after},
};
use fleet_oci::Digest;
use reqwest::{
    Method, Request, Response, StatusCode, Url,
    header::{ACCEPT, AUTHORIZATION, CONTENT_LENGTH, HeaderName, HeaderValue, LOCATION, RETRY_AFTER},
    redirect::Policy,
};
use serde::Deserialize;

use crate::{
    auth::Auth,
    config::RegistryConfig,
    error::RegistryError,
    events::{Event, Events},
    manifest::ACCEPTED,
    reference::{Place, is_loopback},
};

const CONNECT_TIME: Duration = Duration::from_secs(20);
/// Until an answer begins, and between two pieces of it.
pub(crate) const ANSWER_TIME: Duration = Duration::from_secs(120);
/// Bytes a second at which a body goes up at least; it has the time for that on top.
const SLOWEST_UPLOAD: u64 = 16 << 10;
/// Registries send blobs from elsewhere, seldom in more than one step.
const MAXIMUM_REDIRECTS: usize = 5;
/// As much of an error's body is read.
const MAXIMUM_WORDS: usize = 64 << 10;
/// As much of it is shown.
const SHOWN_WORDS: usize = 300;
/// How a registry names a manifest or blob in its answers.
pub(crate) const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");

/// What requests that belong together share.
#[derive(Clone)]
pub(crate) struct Session<'a> {
    /// What a person wrote, for messages.
    pub about: &'a str,
    pub place: Place,
    /// What a token must allow.
    pub scopes: Vec<String>,
    pub requests: &'a AtomicUsize,
    pub events: Events<'a>,
}

/// A request that failed.
#[derive(Debug)]
pub(crate) struct Trouble {
    pub error: RegistryError,
    /// When it may pass.
    pub passing: Option<Passing>,
    pub status: Option<StatusCode>,
    /// The registry's codes: `MANIFEST_BLOB_UNKNOWN`.
    pub codes: Vec<String>,
}

impl From<RegistryError> for Trouble {
    fn from(error: RegistryError) -> Self {
        Self { error, passing: None, status: None, codes: Vec::new() }
    }
}

impl From<Trouble> for RegistryError {
    fn from(trouble: Trouble) -> Self {
        trouble.error
    }
}

impl Trouble {
    /// Something that may be otherwise at the next attempt.
    pub fn passing(error: RegistryError) -> Self {
        Self { passing: Some(Passing { after: None }), ..Self::from(error) }
    }
}

impl Session<'_> {
    pub fn malformed(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Malformed { reference: self.about.to_owned(), why: why.into() }
    }

    pub fn lies(&self, what: &'static str, wanted: &Digest, why: String) -> RegistryError {
        RegistryError::Lies { reference: self.about.to_owned(), what, wanted: wanted.clone(), why }
    }

    pub fn denied(&self, user: Option<String>, why: String) -> RegistryError {
        RegistryError::Denied { reference: self.about.to_owned(), host: self.place.registry.clone(), user, why }
    }

    pub fn unreachable(&self, why: String) -> RegistryError {
        RegistryError::Unreachable { reference: self.about.to_owned(), why }
    }

    /// A connection that was not made, or broke.
    pub fn broken(&self, error: &reqwest::Error) -> Trouble {
        let why = if error.is_timeout() { "no answer in time".to_owned() } else { innermost(error) };
        let why = format!("{}: {why}", self.place.host);
        if error.is_redirect() {
            return self.malformed(why).into();
        }
        Trouble::passing(self.unreachable(why))
    }

    /// An answer that asks for patience.
    pub fn passing_status(&self, response: &Response, clock: &dyn Clock) -> Trouble {
        let header = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
        let after = header.and_then(|header| retry_after(header, clock.now()));
        let wait =
            after.map(|after| format!(" and wants to be left alone for {} s", after.as_secs())).unwrap_or_default();
        let why = format!("{} answers {}{wait}", self.place.host, response.status());
        let status = Some(response.status());
        Trouble { passing: Some(Passing { after }), status, ..Trouble::from(self.unreachable(why)) }
    }
}

/// Speaks HTTP.
pub(crate) struct Transport {
    clients: Clients,
    auth: Auth,
    clock: Arc<dyn Clock>,
    tls_on_loopback: bool,
}

/// Keep connections: one client for addresses without TLS, and one with, which is made when it is first needed: it reads
/// every certificate of the machine, which takes longer than all that a registry on loopback is asked.
pub(crate) struct Clients {
    plain: reqwest::Client,
    secure: OnceLock<reqwest::Client>,
    ca_bundle: Option<PathBuf>,
}

impl Clients {
    fn new(ca_bundle: Option<PathBuf>) -> Result<Self, RegistryError> {
        // Without a certificate it trusts nobody: an address with TLS is for the other one.
        let plain =
            client(false).tls_certs_only([]).build().map_err(|error| RegistryError::Setup(innermost(&error)))?;
        let clients = Self { plain, secure: OnceLock::new(), ca_bundle };
        if clients.ca_bundle.is_some() {
            clients.secure()?; // one that was named and cannot be used is told at once
        }
        Ok(clients)
    }

    fn secure(&self) -> Result<&reqwest::Client, RegistryError> {
        if let Some(made) = self.secure.get() {
            return Ok(made);
        }
        let builder = match &self.ca_bundle {
            Some(bundle) => client(true).tls_certs_merge(certificates(bundle)?),
            None => client(true),
        };
        let made = builder.build().map_err(|error| RegistryError::Setup(innermost(&error)))?;
        Ok(self.secure.get_or_init(|| made))
    }

    /// Runs a request; where an address without TLS sends it to one with, the other client goes there.
    async fn execute(&self, session: &Session<'_>, request: Request) -> Result<Response, Trouble> {
        let broken = |error| session.broken(&error);
        if request.url().scheme() != "http" {
            return self.secure()?.execute(request).await.map_err(broken);
        }
        let again = request.try_clone();
        let response = self.plain.execute(request).await.map_err(broken)?;
        match again {
            Some(again) if response.status().is_redirection() => self.secure()?.execute(again).await.map_err(broken),
            _ => Ok(response),
        }
    }
}

/// What both clients do alike; only one of them goes to addresses with TLS.
fn client(tls: bool) -> reqwest::ClientBuilder {
    reqwest::Client::builder()
        .user_agent(concat!("fleetctl/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIME)
        .redirect(Policy::custom(move |attempt| {
            let secure = attempt.url().scheme() == "https";
            if secure && !tls {
                return attempt.stop();
            }
            if !secure && !attempt.url().host_str().is_some_and(is_loopback) {
                return attempt.error("it sends us to an address without TLS");
            }
            if attempt.previous().len() > MAXIMUM_REDIRECTS {
                return attempt.error("it sends us from one address to the next");
            }
            attempt.follow()
        }))
}

impl Transport {
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        let clients = Clients::new(config.ca_bundle.clone())?;
        let clock = Arc::clone(&config.clock);
        let auth = Auth::new(Arc::clone(&config.credentials), Arc::clone(&clock));
        Ok(Self { clients, auth, clock, tls_on_loopback: config.tls_on_loopback })
    }

    /// A request for something in the session's repository: `blobs/sha256:…`.
    pub fn request(&self, session: &Session<'_>, method: Method, what: &str) -> Result<Request, RegistryError> {
        let mut request = Request::new(method, session.place.url(self.tls_on_loopback, what)?);
        if what.starts_with("manifests/") && matches!(*request.method(), Method::GET | Method::HEAD) {
            let accept =
                HeaderValue::from_str(&ACCEPTED.join(", ")).map_err(|error| session.malformed(error.to_string()))?;
            request.headers_mut().insert(ACCEPT, accept);
        }
        Ok(request)
    }

    /// Sends a request and gives any answer that is final: no 401, nothing that may pass.
    pub async fn send(&self, session: &Session<'_>, mut request: Request) -> Result<Response, Trouble> {
        // Not known yet, known but too old, made anew: after that, no means no.
        let mut learned = 0;
        loop {
            // A body that is streamed cannot be sent twice.
            let spare = request.try_clone();
            let header = self.auth.header(&self.clients, session).await?;
            if let Some(header) = &header {
                request.headers_mut().insert(AUTHORIZATION, header.clone());
            }
            session.requests.fetch_add(1, Ordering::Relaxed);
            let response = answer(&self.clients, session, request).await?;
            match response.status() {
                StatusCode::UNAUTHORIZED => {}
                status if may_pass(status) => return Err(session.passing_status(&response, &*self.clock)),
                _ => return Ok(response),
            }
            if learned == 2 || !self.auth.learn(session, response.headers(), header.as_ref()).await? {
                return Err(self.denied(session, response).await);
            }
            learned += 1;
            let Some(again) = spare else {
                let why = format!("{} no longer accepts its own token", session.place.host);
                return Err(Trouble::passing(session.unreachable(why)));
            };
            request = again;
        }
    }

    /// Sends a request that must be answered by one of these.
    pub async fn expect(
        &self,
        session: &Session<'_>,
        request: Request,
        wanted: &[StatusCode],
        what: &str,
    ) -> Result<Response, Trouble> {
        let response = self.send(session, request).await?;
        if wanted.contains(&response.status()) {
            Ok(response)
        } else {
            Err(self.refused(session, response, what).await)
        }
    }

    /// What an answer that nobody wanted means.
    pub async fn refused(&self, session: &Session<'_>, response: Response, what: &str) -> Trouble {
        let status = response.status();
        if status == StatusCode::FORBIDDEN {
            return self.denied(session, response).await;
        }
        let said = Said::read(response).await;
        let reference = session.about.to_owned();
        let error = if status == StatusCode::NOT_FOUND {
            let what = "is not in its registry; check the name and the tag".to_owned();
            RegistryError::Absent { reference, what }
        } else {
            RegistryError::Refused { reference, what: what.to_owned(), why: format!("{status}: {}", said.shown()) }
        };
        let codes = said.0.into_iter().map(|one| one.code).collect();
        Trouble { status: Some(status), codes, ..Trouble::from(error) }
    }

    async fn denied(&self, session: &Session<'_>, response: Response) -> Trouble {
        let status = response.status();
        let user = self.auth.user(session).await;
        let why = format!("{}: {}", status.as_u16(), words(response).await);
        Trouble { status: Some(status), ..Trouble::from(session.denied(user, why)) }
    }

    /// Runs an attempt until it succeeds or fails for good.
    pub async fn retried<T, F: Future<Output = Result<T, Trouble>>>(
        &self,
        session: &Session<'_>,
        attempt: impl FnMut() -> F,
    ) -> Result<T, Trouble> {
        let tell = |trouble: &Trouble, pause| {
            (session.events)(Event::Retrying { why: trouble.error.to_string(), pause });
        };
        Retry::network(&*self.clock).run(attempt, |trouble: &Trouble| trouble.passing, tell).await
    }
}

fn may_pass(status: StatusCode) -> bool {
    match status.as_u16() {
        408 | 429 => true,
        // What it cannot do now it will not be able to later.
        501 | 505 => false,
        _ => status.is_server_error(),
    }
}

fn certificates(bundle: &Path) -> Result<Vec<reqwest::Certificate>, RegistryError> {
    let bytes = std::fs::read(bundle)
        .map_err(|error| RegistryError::Setup(format!("the CA bundle {}: {error}", bundle.display())))?;
    match reqwest::Certificate::from_pem_bundle(&bytes) {
        Ok(certificates) if !certificates.is_empty() => Ok(certificates),
        _ => Err(RegistryError::Setup(format!("the CA bundle {} holds no PEM certificates", bundle.display()))),
    }
}

/// Where an upload goes on: an address of the host that was asked, and no other.
pub(crate) fn location(session: &Session<'_>, response: &Response) -> Result<Url, RegistryError> {
    let header = response.headers().get(LOCATION).and_then(|value| value.to_str().ok());
    let header = header.ok_or_else(|| session.malformed("it starts an upload and does not say where"))?;
    let asked = response.url();
    let url = asked.join(header).map_err(|error| session.malformed(format!("the place of its upload: {error}")))?;
    let end = |url: &Url| (url.scheme().to_owned(), url.host_str().map(str::to_owned), url.port_or_known_default());
    if end(&url) == end(asked) {
        return Ok(url);
    }
    let there = url.host_str().unwrap_or("nowhere");
    Err(session.malformed(format!(
        "it wants the upload sent to {}://{there}, which is not the host that was asked",
        url.scheme()
    )))
}

/// An answer, in time. The client's own time-out would count the sending of a long body, too.
pub(crate) async fn answer(clients: &Clients, session: &Session<'_>, request: Request) -> Result<Response, Trouble> {
    let length = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let sending = Duration::from_secs(length.unwrap_or(0) / SLOWEST_UPLOAD);
    match tokio::time::timeout(ANSWER_TIME + sending, clients.execute(session, request)).await {
        Ok(answer) => answer,
        Err(_) => Err(Trouble::passing(session.unreachable(format!("{}: no answer in time", session.place.host)))),
    }
}

/// The next piece of a body, in time.
pub(crate) async fn piece(session: &Session<'_>, response: &mut Response) -> Result<Option<Bytes>, Trouble> {
    match tokio::time::timeout(ANSWER_TIME, response.chunk()).await {
        Ok(piece) => piece.map_err(|error| session.broken(&error)),
        Err(_) => Err(Trouble::passing(session.unreachable(format!("{}: its answer stops", session.place.host)))),
    }
}

/// A whole body, within bounds.
pub(crate) async fn read(session: &Session<'_>, mut response: Response, limit: usize) -> Result<Vec<u8>, Trouble> {
    let mut bytes = Vec::new();
    while let Some(piece) = piece(session, &mut response).await? {
        if bytes.len() + piece.len() > limit {
            return Err(session.malformed(format!("it sends more than {limit} bytes")).into());
        }
        bytes.extend_from_slice(&piece);
    }
    Ok(bytes)
}

/// A registry's errors.
#[derive(Default)]
struct Said(Vec<SaidOne>);

#[derive(Deserialize)]
struct SaidOne {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Said {
    async fn read(mut response: Response) -> Self {
        #[derive(Deserialize)]
        struct Envelope {
            errors: Vec<SaidOne>,
        }
        let mut bytes = Vec::new();
        while let Ok(Ok(Some(piece))) = tokio::time::timeout(ANSWER_TIME, response.chunk()).await {
            bytes.extend_from_slice(&piece);
            if bytes.len() > MAXIMUM_WORDS {
                break;
            }
        }
        match serde_json::from_slice::<Envelope>(&bytes) {
            Ok(envelope) => Self(envelope.errors),
            Err(_) => Self::default(),
        }
    }

    fn shown(&self) -> String {
        let all: Vec<String> = self.0.iter().map(|one| format!("{} {}", one.code, one.message)).collect();
        let text: String = all.join("; ").chars().filter(|c| !c.is_control()).take(SHOWN_WORDS).collect();
        if text.trim().is_empty() { "it does not say why".to_owned() } else { text.trim().to_owned() }
    }
}

/// A registry's words, fit to be shown.
pub(crate) async fn words(response: Response) -> String {
    Said::read(response).await.shown()
}
