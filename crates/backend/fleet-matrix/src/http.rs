//! [`Caller`]: one identity making calls, with retries, a call event each, and no secret in any message.

use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use fleet_apply::{Event, Events, causes::chain};
use fleet_secret::Secret;
use http::Method;
use ruma::api::{
    IncomingResponse, MatrixVersion, OutgoingRequest, OutgoingRequestExt, SupportedVersions,
    auth_scheme::{AuthScheme, SendAccessToken},
    path_builder::PathBuilder,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::error::CallError;

/// Longest that a call may take; a homeserver under load registers an account in a second.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Attempts for one call, waiting in between; together less than two minutes.
const ATTEMPTS: u32 = 6;
/// Longest that we wait because the server asked us to.
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// A homeserver by its operator port.
pub struct Http {
    client: reqwest::Client,
    base: String,
}

impl Http {
    /// `base`: `http://127.0.0.1:6167`. Proxies are never used: the operator port is on the loopback interface.
    pub fn new(base: &str) -> Result<Self, CallError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|e| CallError::Local(format!("no HTTP client: {e}")))?;
        Ok(Self { client, base: base.trim_end_matches('/').to_owned() })
    }
}

/// One identity's way to the homeserver.
#[derive(Clone)]
pub struct Caller<'a> {
    http: &'a Http,
    events: &'a dyn Events,
    token: Option<Secret>,
    attempts: u32,
}

impl<'a> Caller<'a> {
    /// Nobody: for what needs no token.
    pub fn anonymous(http: &'a Http, events: &'a dyn Events) -> Self {
        Self { http, events, token: None, attempts: ATTEMPTS }
    }

    /// The same way with a token.
    pub fn with_token(&self, token: Secret) -> Self {
        Self { token: Some(token), ..self.clone() }
    }

    /// The same way without a second attempt, to find out whether anybody is there.
    pub fn impatient(&self) -> Self {
        Self { attempts: 1, ..self.clone() }
    }

    /// Calls an endpoint of the client-server API.
    pub async fn send<R>(&self, request: R) -> Result<R::IncomingResponse, CallError>
    where
        R: OutgoingRequest,
        for<'t> R::Authentication: AuthScheme<Input<'t> = SendAccessToken<'t>>,
        for<'t> R::PathBuilder: PathBuilder<Input<'t> = Cow<'t, SupportedVersions>>,
    {
        let token = self.token.as_ref().map(text).transpose()?;
        let auth = token.map_or(SendAccessToken::None, SendAccessToken::Always);
        let versions = SupportedVersions { versions: BTreeSet::from([MatrixVersion::V1_5]), features: BTreeSet::new() };
        let request: http::Request<Vec<u8>> = request
            .try_into_http_request(&self.http.base, auth, Cow::Owned(versions))
            .map_err(|e| CallError::Local(format!("the request cannot be formed: {e}")))?;
        let call = described(request.method(), request.uri().path());
        let answer = self.deliver(&call, request).await?;
        R::IncomingResponse::try_from_http_response_inner(http::Response::new(answer.as_slice()))
            .map_err(|e| CallError::Garbled { call, why: e.to_string() })
    }

    /// Calls an endpoint of Synapse's admin API, whose shapes are in `synapse`. `path` may carry a query.
    pub async fn admin<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, CallError> {
        let local = |e: &dyn std::fmt::Display| CallError::Local(format!("the request cannot be formed: {e}"));
        let mut request = http::Request::builder().method(method).uri(format!("{}{path}", self.http.base));
        if let Some(token) = &self.token {
            request = request.header(http::header::AUTHORIZATION, format!("Bearer {}", text(token)?));
        }
        let bytes = match body {
            Some(body) => {
                request = request.header(http::header::CONTENT_TYPE, "application/json");
                serde_json::to_vec(body).map_err(|e| local(&e))?
            }
            None => Vec::new(),
        };
        let request = request.body(bytes).map_err(|e| local(&e))?;
        let call = described(request.method(), request.uri().path());
        let answer = self.deliver(&call, request).await?;
        serde_json::from_slice(&answer).map_err(|e| CallError::Garbled { call, why: e.to_string() })
    }

    /// Sends until it is answered, refused for good, or the attempts are used up.
    async fn deliver(&self, call: &str, request: http::Request<Vec<u8>>) -> Result<Vec<u8>, CallError> {
        let mut attempt = 1;
        loop {
            let failure = match self.once(call, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(failure) => failure,
            };
            match failure.pause(attempt) {
                Some(pause) if attempt < self.attempts => tokio::time::sleep(pause).await,
                _ => return Err(failure.error),
            }
            attempt += 1;
        }
    }

    async fn once(&self, call: &str, request: http::Request<Vec<u8>>) -> Result<Vec<u8>, Failure> {
        self.events.emit(Event::Call {
            system: "matrix".to_owned(),
            call: call.to_owned(),
            write: request.method() != Method::GET,
        });
        let mut request = reqwest::Request::try_from(request).map_err(|e| self.unreachable(e))?;
        *request.timeout_mut() = Some(CALL_TIMEOUT);
        let answer = self.http.client.execute(request).await.map_err(|e| self.unreachable(e))?;
        let status = answer.status().as_u16();
        let bytes = answer.bytes().await.map_err(|e| self.unreachable(e))?.to_vec();
        if status < 400 { Ok(bytes) } else { Err(refused(call, status, bytes)) }
    }

    fn unreachable(&self, error: reqwest::Error) -> Failure {
        let down = !error.is_timeout();
        let error = error.without_url();
        let error = CallError::Unreachable { url: self.http.base.clone(), why: chain(&error), down };
        Failure { error, asked_to_wait: None }
    }
}

/// A call that failed, and how long the server asked us to wait.
struct Failure {
    error: CallError,
    asked_to_wait: Option<Duration>,
}

impl Failure {
    /// How long to wait before the next attempt; `None`: another attempt is no use.
    fn pause(&self, attempt: u32) -> Option<Duration> {
        match &self.error {
            CallError::Refused { status: 429, .. } => {
                Some(self.asked_to_wait.unwrap_or(Duration::from_secs(1)).min(LONGEST_PAUSE) + jitter(100))
            }
            CallError::Refused { status: 500.., .. } | CallError::Unreachable { .. } => {
                Some(Duration::from_millis(100 << attempt.min(6)) + jitter(100 << attempt.min(6)))
            }
            _ => None,
        }
    }
}

fn jitter(millis: u64) -> Duration {
    Duration::from_millis(fastrand::u64(0..millis))
}

fn refused(call: &str, status: u16, body: Vec<u8>) -> Failure {
    #[derive(serde::Deserialize, Default)]
    #[serde(default)]
    struct Said {
        errcode: String,
        error: String,
        retry_after_ms: Option<u64>,
    }
    let said: Said = serde_json::from_slice(&body).unwrap_or_default();
    let message = if said.error.is_empty() { "refused without a word".to_owned() } else { said.error };
    let errcode = if said.errcode.is_empty() { "no error code".to_owned() } else { said.errcode };
    let body = if status == 401 { body } else { Vec::new() };
    let error = CallError::Refused { call: call.to_owned(), status, errcode, message, body };
    Failure { error, asked_to_wait: said.retry_after_ms.map(Duration::from_millis) }
}

/// `GET /_matrix/client/v3/rooms/!abc/state`: what is shown of a call. Queries may hold what nobody should see.
fn described(method: &Method, path: &str) -> String {
    format!("{method} {}", path.replace("%40", "@").replace("%3A", ":").replace("%21", "!").replace("%23", "#"))
}

fn text(token: &Secret) -> Result<&str, CallError> {
    token.expose_str().map_err(|e| CallError::Local(e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use ruma::api::client::account::whoami;
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    #[derive(Default)]
    struct Calls(Mutex<Vec<String>>);

    impl Events for Calls {
        fn emit(&self, event: Event) {
            if let Event::Call { call, .. } = event {
                self.0.lock().unwrap().push(call);
            }
        }
    }

    /// Answers one connection after the other with these; nothing: hangs up.
    async fn server(answers: Vec<(u16, &'static str)>) -> Http {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let http = Http::new(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        tokio::spawn(async move {
            for (status, body) in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let _ = stream.read(&mut [0; 4096]).await.unwrap();
                if status > 0 {
                    let head =
                        format!("HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
                    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                }
            }
        });
        http
    }

    const LIMITED: (u16, &str) = (429, r#"{"errcode":"M_LIMIT_EXCEEDED","error":"slowly","retry_after_ms":40}"#);

    #[tokio::test]
    async fn a_server_that_asks_for_patience_stumbles_or_hangs_up_is_asked_again() {
        let http = server(vec![LIMITED, (503, ""), (0, ""), (200, r#"{"user_id":"@a:b.c"}"#)]).await;
        let calls = Calls::default();
        let caller = Caller::anonymous(&http, &calls).with_token(Secret::new("a-token-nobody-sees"));
        assert_eq!(caller.send(whoami::v3::Request::new()).await.unwrap().user_id, "@a:b.c");
        assert_eq!(*calls.0.lock().unwrap(), vec!["GET /_matrix/client/v3/account/whoami"; 4]);
    }

    #[tokio::test]
    async fn a_server_that_never_stops_asking_for_patience_is_given_up() {
        let http = server(vec![LIMITED; ATTEMPTS as usize]).await;
        let caller = Caller::anonymous(&http, &fleet_apply::Silent).with_token(Secret::new("token"));
        let error = caller.send(whoami::v3::Request::new()).await.unwrap_err();
        assert!(error.is("M_LIMIT_EXCEEDED"), "{error}");
    }

    #[tokio::test]
    async fn a_refusal_is_told_in_the_servers_words_and_without_the_token() {
        let http = server(vec![(401, r#"{"errcode":"M_UNKNOWN_TOKEN","error":"Invalid access token"}"#)]).await;
        let caller = Caller::anonymous(&http, &fleet_apply::Silent).with_token(Secret::new("a-token-nobody-sees"));
        let error = caller.send(whoami::v3::Request::new()).await.unwrap_err();
        assert_eq!(
            error.to_string(),
            "GET /_matrix/client/v3/account/whoami: Invalid access token (M_UNKNOWN_TOKEN, HTTP 401)"
        );
        assert!(!format!("{error:?}").contains("nobody-sees"));
    }
}
