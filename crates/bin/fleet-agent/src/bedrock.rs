//! [`serve`]: models of Amazon Bedrock by the role of the task. OpenClaw asks a port of loopback; each request is signed with
//! the role's credentials and goes to Bedrock, and what is answered passes on as it comes.
//!
//! Two paths pass, to the regions that the settings name, and nothing else: `POST /REGION/anthropic/v1/messages` and
//! `POST /REGION/openai/v1/chat/completions` (Amazon Bedrock user guide, "Inference using Anthropic Messages API" and "Invoke
//! a model with the OpenAI Chat Completions API"; both are `bedrock:InvokeModel` to IAM). Deliberately absent: knowing what is
//! asked; which models may be asked is in the role's policy.

use std::{
    collections::BTreeSet,
    io,
    sync::Arc,
    time::{Duration, SystemTime},
};

use ::http::{HeaderName, Method, Request, Response, StatusCode, header};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use serde_json::json;
use tokio::sync::Mutex;

use crate::{
    aws::Place,
    http::{self, Answer, Body},
    log,
    signature::{Credentials, sign},
};

/// As signatures name it, at this endpoint.
const SERVICE: &str = "bedrock";
/// What may be asked.
const PATHS: [&str; 2] = ["/anthropic/v1/messages", "/openai/v1/chat/completions"];
/// Headers of a question that concern the model. Whatever else comes stays here, above all the key that is none.
const PASSED: [HeaderName; 4] = [
    header::ACCEPT,
    header::CONTENT_TYPE,
    HeaderName::from_static("anthropic-beta"),
    HeaderName::from_static("anthropic-version"),
];
/// Headers of an answer that concern this connection only.
const OF_CONNECTION: [HeaderName; 3] =
    [header::CONNECTION, header::TRANSFER_ENCODING, HeaderName::from_static("keep-alive")];
/// Larger questions are refused: Bedrock itself takes 25 MB (Amazon Bedrock quotas).
const LARGEST_QUESTION: usize = 32 * 1024 * 1024;
/// Of a refusal so much is read, to see whether it is about the credentials.
const LARGEST_REFUSAL: usize = 64 * 1024;
/// How long a model may think before its answer begins.
const BEGINS_WITHIN: Duration = Duration::from_secs(600);
/// Credentials that end sooner are asked for again.
const FRESH: Duration = Duration::from_secs(300);

/// Begins to answer on a port of loopback.
///
/// # Errors
/// When the port is taken.
pub async fn serve(port: u16, regions: &BTreeSet<String>, place: Place) -> io::Result<()> {
    let forwarder = Arc::new(Forwarder { regions: regions.clone(), place, known: Mutex::default() });
    http::listen(port, move |request| {
        let forwarder = Arc::clone(&forwarder);
        async move { forwarder.answer(request).await }
    })
    .await
}

struct Forwarder {
    regions: BTreeSet<String>,
    place: Place,
    known: Mutex<Option<Credentials>>,
}

/// A question, and where it goes.
struct Question {
    region: String,
    url: String,
    headers: Vec<(HeaderName, ::http::HeaderValue)>,
    body: Bytes,
}

impl Forwarder {
    async fn answer(&self, request: Request<Incoming>) -> Response<Body> {
        let question = match self.question(request).await {
            Ok(question) => question,
            Err((status, why)) => return refuse(status, why),
        };
        match self.ask(&question).await {
            Ok(answer) => answer,
            Err(why) => {
                let why = format!("Amazon Bedrock in {} cannot be asked: {why}", question.region);
                log::warn("a model cannot be asked", &[("why", &why)]);
                refuse(StatusCode::BAD_GATEWAY, &why)
            }
        }
    }

    async fn question(&self, request: Request<Incoming>) -> Result<Question, (StatusCode, &'static str)> {
        let nowhere = (StatusCode::NOT_FOUND, "fleet-agent passes on questions to declared models of Bedrock only");
        let (mut parts, body) = request.into_parts();
        let (region, path) = parts
            .uri
            .path()
            .strip_prefix('/')
            .and_then(|rest| rest.split_at_checked(rest.find('/')?))
            .ok_or(nowhere)?;
        if parts.method != Method::POST || !self.regions.contains(region) || !PATHS.contains(&path) {
            return Err(nowhere);
        }
        let query = parts.uri.query().map_or_else(String::new, |query| format!("?{query}"));
        let plain = |c: char| c.is_ascii_alphanumeric() || "?=&-._~".contains(c);
        if !query.chars().all(plain) {
            return Err((StatusCode::BAD_REQUEST, "the query of this question cannot be signed"));
        }
        let url = format!("{}{path}{query}", self.place.models_of(region));
        let region = region.to_owned();
        let headers = PASSED.into_iter().filter_map(|name| parts.headers.remove(&name).map(|value| (name, value)));
        let headers = headers.collect();
        let body = Limited::new(body, LARGEST_QUESTION).collect().await;
        let body =
            body.map_err(|_| (StatusCode::PAYLOAD_TOO_LARGE, "more than Bedrock takes, or not all of it came"))?;
        Ok(Question { region, url, headers, body: body.to_bytes() })
    }

    /// Asks; where the credentials have run out before their time, once more with new ones.
    async fn ask(&self, question: &Question) -> Result<Response<Body>, String> {
        let answer = self.attempt(question).await?;
        if answer.status() != StatusCode::FORBIDDEN {
            return Ok(passed_on(answer));
        }
        let (parts, body) = answer.into_parts();
        let said = Limited::new(body, LARGEST_REFUSAL).collect().await.map_err(|error| error.to_string())?.to_bytes();
        if is_about_credentials(&parts.headers, &said) {
            *self.known.lock().await = None;
            return Ok(passed_on(self.attempt(question).await?));
        }
        let mut answer = Response::from_parts(parts, http::whole(said));
        remove(answer.headers_mut());
        Ok(answer)
    }

    async fn attempt(&self, question: &Question) -> Result<Response<Incoming>, String> {
        let credentials = self.credentials().await?;
        let request = Request::post(&question.url).body(question.body.to_vec());
        let mut request = request.map_err(|error| error.to_string())?;
        request.headers_mut().extend(question.headers.iter().cloned());
        sign(&mut request, &credentials, (&question.region, SERVICE), SystemTime::now())?;
        let answer = tokio::time::timeout(BEGINS_WITHIN, http::begin(request)).await;
        answer
            .map_err(|_| format!("no answer within {} s", BEGINS_WITHIN.as_secs()))?
            .map_err(|error| error.to_string())
    }

    /// Credentials that are good for a while; where ECS does not say for how long, new ones each time.
    async fn credentials(&self) -> Result<Credentials, String> {
        let mut known = self.known.lock().await;
        let fresh = |known: &&Credentials| known.ends.is_some_and(|end| end > SystemTime::now() + FRESH);
        if let Some(known) = known.as_ref().filter(fresh) {
            return Ok(known.clone());
        }
        let found = self.place.credentials().await?;
        *known = Some(found.clone());
        Ok(found)
    }
}

/// An error of AWS that new credentials mend, by its header or by what it says.
fn is_about_credentials(headers: &::http::HeaderMap, said: &[u8]) -> bool {
    let kind = headers.get("x-amzn-errortype").and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let said = String::from_utf8_lossy(said);
    ["ExpiredToken", "UnrecognizedClient", "InvalidClientTokenId", "security token"]
        .iter()
        .any(|mark| kind.contains(mark) || said.contains(mark))
}

fn passed_on(answer: Response<Incoming>) -> Response<Body> {
    let mut answer = answer.map(Incoming::boxed);
    remove(answer.headers_mut());
    answer
}

fn remove(headers: &mut ::http::HeaderMap) {
    for name in &OF_CONNECTION {
        headers.remove(name);
    }
}

/// In the shape in which both APIs tell errors.
fn refuse(status: StatusCode, why: &str) -> Response<Body> {
    let body = json!({"type": "error", "error": {"type": "api_error", "message": why}});
    http::json(Answer { status, body: body.to_string() })
}
