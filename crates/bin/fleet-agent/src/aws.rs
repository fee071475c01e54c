//! As a task of ECS: whose credentials it has, and objects of S3 read with them. Signature Version 4 for that one kind
//! of request (IAM user guide, "Create a signed AWS API request").
//!
//! Deliberately absent: every other call and source of credentials; an SDK would be larger than all of this program.

use std::time::{Duration, SystemTime};

use ::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use fleet_secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

use crate::http;

/// Where ECS answers for a task (ECS developer guide, "Task IAM role").
const CREDENTIALS_HOST: &str = "http://169.254.170.2";
/// How long one request may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its bucket.
    pub bucket: String,
    /// Its key: letters, digits and `/._-`, so that nothing in it is to be encoded.
    pub key: String,
}

impl Object {
    /// `s3://bucket/key`.
    pub fn parse(url: &str) -> Option<Self> {
        let (bucket, key) = url.strip_prefix("s3://")?.split_once('/')?;
        let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
        let fits = !bucket.is_empty() && !key.is_empty() && url.chars().skip(5).all(plain);
        fits.then(|| Self { bucket: bucket.to_owned(), key: key.to_owned() })
    }
}

/// What ECS says of the task's role.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Credentials {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    token: String,
}

/// Where AWS is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    region: String,
    /// In place of AWS's own address: an emulator.
    endpoint: Option<String>,
    /// URL of the task's credentials, and what it wants to see first.
    credentials: String,
    authorization: Option<String>,
}

/// One version of an object.
#[derive(Debug)]
pub struct Version {
    /// What S3 calls it; `None` where it does not say.
    pub tag: Option<String>,
    /// All of it.
    pub bytes: Vec<u8>,
}

impl Place {
    /// By the variables that ECS and the SDKs know.
    ///
    /// # Errors
    /// Which variable is missing.
    pub fn of(variable: impl Fn(&str) -> Option<String>) -> Result<Self, &'static str> {
        let relative = variable("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
        let credentials = relative
            .map(|path| format!("{CREDENTIALS_HOST}{path}"))
            .or_else(|| variable("AWS_CONTAINER_CREDENTIALS_FULL_URI"))
            .ok_or("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI is not set: the task has no role")?;
        Ok(Self {
            region: variable("AWS_REGION").ok_or("AWS_REGION is not set")?,
            endpoint: variable("AWS_ENDPOINT_URL_S3").or_else(|| variable("AWS_ENDPOINT_URL")),
            credentials,
            authorization: variable("AWS_CONTAINER_AUTHORIZATION_TOKEN"),
        })
    }

    /// Reads an object, as the task's role.
    ///
    /// # Errors
    /// What was answered instead. Never shows a credential.
    pub async fn read(&self, object: &Object) -> Result<Vec<u8>, String> {
        Ok(good(self.ask(object, None).await?)?.into_body().to_vec())
    }

    /// Reads an object unless it still is the version that `known` names.
    ///
    /// # Errors
    /// As [`Place::read`].
    pub async fn read_unless(&self, object: &Object, known: Option<&str>) -> Result<Option<Version>, String> {
        let answer = self.ask(object, known).await?;
        if answer.status() == StatusCode::NOT_MODIFIED {
            return Ok(None);
        }
        let answer = good(answer)?;
        let tag = answer.headers().get(header::ETAG).and_then(|tag| tag.to_str().ok()).map(str::to_owned);
        Ok(Some(Version { tag, bytes: answer.into_body().to_vec() }))
    }

    async fn ask(&self, object: &Object, unless: Option<&str>) -> Result<Response<Bytes>, String> {
        let suffix = if self.region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" };
        let base = self.endpoint.clone().unwrap_or_else(|| format!("https://s3.{}.{suffix}", self.region));
        let credentials = self.credentials().await.map_err(|why| format!("the task's credentials: {why}"))?;
        let host = base.split_once("://").map_or("", |(_, host)| host).trim_end_matches('/').to_owned();
        let path = format!("/{}/{}", object.bucket, object.key);
        let date = date(SystemTime::now());
        let mut headers =
            vec![("host", host), ("x-amz-content-sha256", hex::encode(Sha256::digest(b""))), ("x-amz-date", date)];
        if !credentials.token.is_empty() {
            headers.push(("x-amz-security-token", credentials.token.clone()));
        }
        let signed = authorization(&credentials, &self.region, &path, &headers);
        let mut request = Request::get(format!("{}{path}", base.trim_end_matches('/'))).header("authorization", signed);
        for (name, value) in headers.into_iter().filter(|(name, _)| *name != "host") {
            request = request.header(name, value);
        }
        if let Some(known) = unless {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        let request = request.body(Vec::new()).map_err(|error| error.to_string())?;
        http::send(request, PATIENCE).await.map_err(|error| error.to_string())
    }

    async fn credentials(&self) -> Result<Credentials, String> {
        let mut request = Request::get(&self.credentials);
        if let Some(token) = &self.authorization {
            request = request.header("authorization", token);
        }
        let request = request.body(Vec::new()).map_err(|error| error.to_string())?;
        let answer = http::send(request, PATIENCE).await.map_err(|error| error.to_string())?;
        if !answer.status().is_success() {
            return Err(format!("ECS answers {}", answer.status()));
        }
        // What does not parse may hold a key: it is not repeated.
        serde_json::from_slice(answer.body()).map_err(|_| "ECS's answer is not understood".to_owned())
    }
}

fn good(answer: Response<Bytes>) -> Result<Response<Bytes>, String> {
    if answer.status().is_success() { Ok(answer) } else { Err(format!("S3 answers {}", answer.status())) }
}

/// The header that signs a GET without a body. `headers` are all that are signed, in order of their names.
fn authorization(credentials: &Credentials, region: &str, path: &str, headers: &[(&str, String)]) -> String {
    let date = headers.iter().find(|(name, _)| *name == "x-amz-date").map_or("", |(_, value)| value);
    let scope = format!("{}/{region}/s3/aws4_request", date.get(..8).unwrap_or_default());
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{}\n", value.trim())).collect();
    let canonical = format!("GET\n{path}\n\n{lines}\n{names}\n{}", hex::encode(Sha256::digest(b"")));
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical.as_bytes())));
    let key = Secret::new(format!("AWS4{}", credentials.secret_access_key));
    let key = scope.split('/').fold(key, |key, part| Secret::new(hmac(&key, part)));
    let signature = hex::encode(hmac(&key, &text));
    format!(
        "AWS4-HMAC-SHA256 Credential={}/{scope},SignedHeaders={names},Signature={signature}",
        credentials.access_key_id
    )
}

fn hmac(key: &Secret, text: &str) -> Vec<u8> {
    // HMAC takes a key of any length (RFC 2104 §2), so this cannot fail; a signature that nobody takes would be the fallback.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose()) else { return Vec::new() };
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

/// `20130524T000000Z`.
fn date(now: SystemTime) -> String {
    let now = OffsetDateTime::from(now);
    let (hour, minute, second) = now.time().as_hms();
    format!("{:04}{:02}{:02}T{hour:02}{minute:02}{second:02}Z", now.year(), u8::from(now.month()), now.day())
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn a_request_is_signed_as_in_aws_documentation() {
        // "Example: GET Object" of the S3 API reference.
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY".to_owned(),
            token: String::new(),
        };
        let headers = [
            ("host", "examplebucket.s3.amazonaws.com".to_owned()),
            ("range", "bytes=0-9".to_owned()),
            ("x-amz-content-sha256", hex::encode(Sha256::digest(b""))),
            ("x-amz-date", "20130524T000000Z".to_owned()),
        ];
        let signed = authorization(&credentials, "us-east-1", "/test.txt", &headers);
        let expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(signed.ends_with(&format!("Signature={expected}")), "{signed}");
        assert!(signed.contains("Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"), "{signed}");
    }

    #[test]
    fn a_moment_is_written_as_aws_reads_it() {
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(1_369_353_600)), "20130524T000000Z");
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(1_798_761_599)), "20261231T235959Z");
    }

    #[test]
    fn an_object_is_named_plainly_or_not_at_all() {
        let object = Object::parse("s3://b-1/bundles/aaron.phillips/00ff.json").unwrap();
        assert_eq!((object.bucket.as_str(), object.key.as_str()), ("b-1", "bundles/aaron.phillips/00ff.json"));
        for url in ["https://b/k", "s3://b", "s3:///k", "s3://b/", "s3://b/k?versionId=1", "s3://b/a b"] {
            assert_eq!(Object::parse(url), None, "{url}");
        }
    }

    #[test]
    fn what_ecs_does_not_say_is_named() {
        let none = Place::of(|_| None).unwrap_err();
        assert!(none.contains("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"), "{none}");
        let of = |name: &str| match name {
            "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI" => Some("/v2/x".to_owned()),
            "AWS_REGION" => Some("eu-west-1".to_owned()),
            _ => None,
        };
        assert_eq!(Place::of(of).unwrap().credentials, "http://169.254.170.2/v2/x");
    }
}
