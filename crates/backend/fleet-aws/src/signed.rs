//! [`Signed`]: calls of AWS that we sign ourselves, for services of which few calls are needed (decision 23): ECS, EFS, IAM,
//! CloudWatch Logs, Parameter Store, Session Manager, Secrets Manager, AWS Backup, versions of objects in S3, and reads of EC2, Service Quotas and
//! Bedrock. Signatures are `aws-sigv4`'s,
//! credentials those of the SDK.
//!
//! Every attempt is told as an event by its name, waits for its turn (see `rates`), and is bounded in time. Deliberately
//! absent: what the calls mean.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_credential_types::{
    Credentials,
    provider::{ProvideCredentials as _, SharedCredentialsProvider},
};
use aws_sigv4::{
    http_request::{
        PayloadChecksumKind, PercentEncodingMode, SignableBody, SignableRequest, SigningSettings,
        UriPathNormalizationMode, sign,
    },
    sign::v4,
};
use fleet_apply::{Event, Events, Retry, SystemClock, causes::innermost, retry::Passing};
use serde_json::Value;
use tokio::sync::Mutex;
use url::form_urlencoded;

use crate::{
    account::{ATTEMPT_TIMEOUT, ATTEMPTS, CONNECT_TIMEOUT, LONGEST_PAUSE, Place, suffix},
    calls::is_write,
    error::AwsError,
    rates::{Pace, Rate},
};

/// Credentials that end sooner are asked for again.
const FRESH: Duration = Duration::from_secs(300);
/// The first pause between two attempts.
const FIRST_PAUSE: Duration = Duration::from_millis(400);

/// A service and where it is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Service {
    Backup,
    Ecs,
    Files,
    Identity,
    Logs,
    Messages,
    Models,
    Network,
    Parameters,
    Quotas,
    Secrets,
    Objects,
}

impl Service {
    /// As signatures name it.
    const fn name(self) -> &'static str {
        match self {
            Self::Backup => "backup",
            Self::Ecs => "ecs",
            Self::Files => "elasticfilesystem",
            Self::Identity => "iam",
            Self::Logs => "logs",
            Self::Messages => "ssmmessages",
            Self::Models => "bedrock",
            Self::Network => "ec2",
            Self::Parameters => "ssm",
            Self::Quotas => "servicequotas",
            Self::Secrets => "secretsmanager",
            Self::Objects => "s3",
        }
    }

    /// How its requests are signed: S3 takes paths as they are, and wants the body's hash among the headers.
    fn settings(self) -> SigningSettings {
        let mut settings = SigningSettings::default();
        if self == Self::Objects {
            settings.percent_encoding_mode = PercentEncodingMode::Single;
            settings.uri_path_normalization_mode = UriPathNormalizationMode::Disabled;
            settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
        }
        settings
    }

    /// Its host, and the region that it is signed for: IAM has one of each per partition (AWS general reference).
    fn host(self, region: &str) -> (String, String) {
        let suffix = suffix(region);
        match self {
            Self::Identity if region.starts_with("cn-") => {
                (format!("iam.cn-north-1.{suffix}"), "cn-north-1".to_owned())
            }
            Self::Identity if region.starts_with("us-gov-") => {
                (format!("iam.us-gov.{suffix}"), "us-gov-west-1".to_owned())
            }
            Self::Identity => (format!("iam.{suffix}"), "us-east-1".to_owned()),
            _ => (format!("{}.{region}.{suffix}", self.name()), region.to_owned()),
        }
    }
}

/// One call. Neither it nor its answer can be printed: bodies may hold secrets.
#[derive(Clone)]
pub(crate) struct Ask {
    pub service: Service,
    /// Its name, for events and errors.
    pub call: &'static str,
    pub method: &'static str,
    /// Path and query, encoded.
    pub target: String,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub rate: Rate,
    /// Doing it twice is as good as once: it is asked again also where nobody knows whether it was done.
    pub repeatable: bool,
}

/// An answer that is no error.
#[derive(Clone)]
pub(crate) struct Answer {
    pub body: Vec<u8>,
}

impl Answer {
    /// As JSON; null where there is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// As text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Why an attempt failed, and whether another one may not.
struct Failed {
    error: AwsError,
    passing: bool,
}

/// Asks, as whoever we are.
pub(crate) struct Signed {
    http: reqwest::Client,
    provider: Option<SharedCredentialsProvider>,
    current: Mutex<Option<Credentials>>,
    place: Place,
    events: Arc<dyn Events>,
    pace: Pace,
}

impl Signed {
    /// For a place, with the SDK's credentials.
    pub(crate) fn new(place: Place, provider: Option<SharedCredentialsProvider>, events: Arc<dyn Events>) -> Self {
        let http = reqwest::Client::builder().connect_timeout(CONNECT_TIMEOUT).timeout(ATTEMPT_TIMEOUT).build();
        // What it is built from is constant: it fails only where no client of this program can be built.
        let http = http.unwrap_or_default();
        Self { http, provider, current: Mutex::default(), place, events, pace: Pace::new() }
    }

    /// A call of a service that speaks JSON: `AmazonEC2ContainerServiceV20141113.DescribeServices`.
    pub(crate) async fn json(
        &self,
        (service, prefix): (Service, &str),
        (call, rate): (&'static str, Rate),
        body: &Value,
    ) -> Result<Value, AwsError> {
        let ask = Ask {
            service,
            call,
            method: "POST",
            target: "/".to_owned(),
            headers: vec![
                ("content-type", "application/x-amz-json-1.1".to_owned()),
                ("x-amz-target", format!("{prefix}.{call}")),
            ],
            body: body.to_string().into_bytes(),
            rate,
            // Twice would be two revisions, or a session that nobody has and nobody ends.
            repeatable: !matches!(call, "RegisterTaskDefinition" | "StartSession"),
        };
        Ok(self.ask(&ask).await?.json())
    }

    /// A call of a service that speaks the query protocol, of some version: `CreateRole` of `2010-05-08`. It can be repeated.
    ///
    /// # Errors
    /// [`AwsError`].
    pub(crate) async fn query(
        &self,
        (service, version): (Service, &str),
        call: &'static str,
        fields: &[(&str, &str)],
    ) -> Result<String, AwsError> {
        let all = [("Action", call), ("Version", version)].into_iter().chain(fields.iter().copied());
        let ask = Ask {
            service,
            call,
            method: "POST",
            target: "/".to_owned(),
            headers: vec![("content-type", "application/x-www-form-urlencoded".to_owned())],
            body: form_urlencoded::Serializer::new(String::new()).extend_pairs(all).finish().into_bytes(),
            rate: Rate::Unknown,
            repeatable: true,
        };
        Ok(self.ask(&ask).await?.text())
    }

    /// Asks until there is an answer, a failure that stays, or no attempt left.
    ///
    /// # Errors
    /// [`AwsError`].
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Answer, AwsError> {
        let retry = Retry { tries: ATTEMPTS, first: FIRST_PAUSE, longest: LONGEST_PAUSE, clock: &SystemClock };
        let passing = |failed: &Failed| failed.passing.then_some(Passing { after: None });
        retry.run(|| self.attempt(ask), passing, |_, _| {}).await.map_err(|failed| failed.error)
    }

    async fn attempt(&self, ask: &Ask) -> Result<Answer, Failed> {
        let stays = |error| Failed { error, passing: false };
        // Before the signature, which is good for some minutes only.
        self.pace.wait(ask.rate).await;
        let request = self.signed(ask).await.map_err(stays)?;
        let call = format!("{} {}", ask.service.name(), ask.call);
        self.events.emit(Event::Call { system: "aws".to_owned(), call, write: is_write(ask.call) });
        let lost = |error: &reqwest::Error| Failed {
            error: AwsError::Unreachable { call: ask.call, why: innermost(error) },
            passing: ask.repeatable || error.is_connect(),
        };
        let answer = self.http.execute(request).await.map_err(|error| lost(&error))?;
        let status = answer.status().as_u16();
        let kind = answer.headers().get("x-amzn-errortype").and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        let body = answer.bytes().await.map_err(|error| lost(&error))?.to_vec();
        if status < 400 {
            return Ok(Answer { body });
        }
        let (code, why) = refusal(status, kind.as_deref(), &String::from_utf8_lossy(&body));
        let error = AwsError::by_code(ask.call, code, why);
        let passing = matches!(error, AwsError::Throttled { .. }) || (status >= 500 && ask.repeatable);
        Err(Failed { error, passing })
    }

    async fn signed(&self, ask: &Ask) -> Result<reqwest::Request, AwsError> {
        let (host, region) = ask.service.host(&self.place.region);
        let base = self.place.endpoint.clone().unwrap_or_else(|| format!("https://{host}"));
        let url = format!("{}{}", base.trim_end_matches('/'), ask.target);
        self.sign(ask, &url, &region).await
    }

    /// A request that begins something else than an answer, at an address that AWS gave: it is signed, and not sent.
    ///
    /// # Errors
    /// [`AwsError`].
    pub(crate) async fn opening(&self, ask: &Ask, url: &str) -> Result<reqwest::Request, AwsError> {
        let request = self.sign(ask, url, &self.place.region).await?;
        let call = format!("{} {}", ask.service.name(), ask.call);
        self.events.emit(Event::Call { system: "aws".to_owned(), call, write: is_write(ask.call) });
        Ok(request)
    }

    async fn sign(&self, ask: &Ask, url: &str, region: &str) -> Result<reqwest::Request, AwsError> {
        let unusable = |why: String| AwsError::Unreachable { call: ask.call, why };
        let identity = self.credentials().await?.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(ask.service.name())
            .time(SystemTime::now())
            .settings(ask.service.settings())
            .build()
            .map_err(|error| unusable(error.to_string()))?
            .into();
        let headers = ask.headers.iter().map(|(name, value)| (*name, value.as_str()));
        let signable = SignableRequest::new(ask.method, url, headers, SignableBody::Bytes(&ask.body))
            .map_err(|error| unusable(error.to_string()))?;
        let (instructions, _) = sign(signable, &parameters).map_err(|error| unusable(error.to_string()))?.into_parts();
        let mut request = http::Request::builder().method(ask.method).uri(url);
        for (name, value) in &ask.headers {
            request = request.header(*name, value);
        }
        let mut request = request.body(ask.body.clone()).map_err(|error| unusable(error.to_string()))?;
        instructions.apply_to_request_http1x(&mut request);
        reqwest::Request::try_from(request).map_err(|error| unusable(error.to_string()))
    }

    /// Credentials that are good for a while.
    async fn credentials(&self) -> Result<Credentials, AwsError> {
        let mut current = self.current.lock().await;
        let fresh = |known: &Credentials| known.expiry().is_none_or(|end| end > SystemTime::now() + FRESH);
        if let Some(known) = current.as_ref().filter(|known| fresh(known)) {
            return Ok(known.clone());
        }
        let none = |why: String| AwsError::NoCredentials { why };
        let provider = self.provider.as_ref().ok_or_else(|| none("nothing provides any".to_owned()))?;
        let found = provider.provide_credentials().await;
        let found = found.map_err(|error| none(innermost(&error)))?;
        *current = Some(found.clone());
        Ok(found)
    }
}

/// Code and message of an error, in whichever of AWS's protocols it is.
fn refusal(status: u16, kind: Option<&str>, body: &str) -> (String, String) {
    let json: Value = serde_json::from_str(body).unwrap_or_default();
    let field = |names: &[&str]| names.iter().find_map(|name| json[*name].as_str()).map(str::to_owned);
    let code = field(&["__type", "ErrorCode", "code"])
        .or_else(|| kind.map(str::to_owned))
        .or_else(|| element(body, "Code"))
        .unwrap_or_else(|| status.to_string());
    let code = code.rsplit('#').next().unwrap_or_default().split(':').next().unwrap_or_default().to_owned();
    let why = field(&["message", "Message"]).or_else(|| element(body, "Message"));
    (code, why.unwrap_or_else(|| format!("without a reason, status {status}")))
}

/// What the first element of this name holds, in an answer of the query protocol.
pub(crate) fn element(xml: &str, name: &str) -> Option<String> {
    let after = xml.split_once(&format!("<{name}>"))?.1;
    Some(after.split_once(&format!("</{name}>"))?.0.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_understood_in_every_protocol() {
        for (status, kind, body, expected) in [
            (400, None, r#"{"__type":"com.amazonaws.ecs#ClientException","message":"no"}"#, ("ClientException", "no")),
            (
                409,
                None,
                r#"{"ErrorCode":"AccessPointAlreadyExists","Message":"no"}"#,
                ("AccessPointAlreadyExists", "no"),
            ),
            (404, Some("NotFound:http://x"), "", ("NotFound", "without a reason, status 404")),
            (404, None, "<E><Error><Code>NoSuchEntity</Code><Message>no</Message></Error></E>", ("NoSuchEntity", "no")),
            (404, None, "", ("404", "without a reason, status 404")),
        ] {
            let (code, why) = refusal(status, kind, body);
            assert_eq!((code.as_str(), why.as_str()), expected);
        }
    }

    #[tokio::test]
    async fn s3_is_told_the_hash_of_a_body_and_all_of_it_is_signed() {
        let place = Place { account: "1".to_owned(), region: "eu-west-1".to_owned(), endpoint: None };
        let provider = SharedCredentialsProvider::new(Credentials::new("key", "secret", None, None, "test"));
        let signed = Signed::new(place, Some(provider), Arc::new(fleet_apply::Silent));
        let ask = |service, headers| Ask {
            service,
            call: "DeleteObjects",
            method: "POST",
            target: "/bucket?delete=".to_owned(),
            headers,
            body: b"words".to_vec(),
            rate: Rate::Unknown,
            repeatable: true,
        };
        let request = signed.signed(&ask(Service::Objects, vec![("x-amz-checksum-sha256", "sum".to_owned())])).await;
        let request = request.unwrap();
        assert_eq!(request.url().as_str(), "https://s3.eu-west-1.amazonaws.com/bucket?delete=");
        // `printf words | sha256sum`
        let hash = "dba36bffa5cab0f922d087a3aeb179f9d4e745df40b323e1b1471402848c8a3e";
        assert_eq!(request.headers()["x-amz-content-sha256"], hash);
        let authorization = request.headers()["authorization"].to_str().unwrap();
        assert!(
            authorization.contains("/eu-west-1/s3/aws4_request")
                && authorization.contains("host;x-amz-checksum-sha256;x-amz-content-sha256;x-amz-date"),
            "{authorization}"
        );
        let other = signed.signed(&ask(Service::Backup, Vec::new())).await.unwrap();
        assert!(!other.headers().contains_key("x-amz-content-sha256"));
    }

    #[test]
    fn each_service_is_asked_where_it_is() {
        assert_eq!(Service::Ecs.host("eu-west-1"), ("ecs.eu-west-1.amazonaws.com".to_owned(), "eu-west-1".to_owned()));
        assert_eq!(Service::Identity.host("eu-west-1"), ("iam.amazonaws.com".to_owned(), "us-east-1".to_owned()));
        assert_eq!(Service::Files.host("cn-north-1").0, "elasticfilesystem.cn-north-1.amazonaws.com.cn");
    }
}
