//! As a task of ECS: whose credentials it has, and objects of S3 read with them.
//!
//! Deliberately absent: every other source of credentials, and what else is signed with them (see [`crate::bedrock`]).

use std::time::{Duration, SystemTime};

use ::http::{Request, Response, StatusCode, header};
use bytes::Bytes;
use fleet_secret::Secret;
use serde::Deserialize;
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use crate::{
    http,
    signature::{Credentials, sign},
};

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
struct Said {
    access_key_id: String,
    secret_access_key: String,
    #[serde(default)]
    token: String,
    #[serde(default)]
    expiration: String,
}

/// Where AWS is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    region: String,
    /// In place of S3's own address: an emulator.
    endpoint: Option<String>,
    /// The same of Bedrock's.
    models: Option<String>,
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
            models: variable("AWS_ENDPOINT_URL_BEDROCK_RUNTIME").or_else(|| variable("AWS_ENDPOINT_URL")),
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

    /// Where models of a region answer (AWS general reference, "Amazon Bedrock Runtime endpoints").
    pub fn models_of(&self, region: &str) -> String {
        let base = self.models.clone();
        base.unwrap_or_else(|| format!("https://bedrock-runtime.{region}.{}", suffix(region)))
            .trim_end_matches('/')
            .to_owned()
    }

    async fn ask(&self, object: &Object, unless: Option<&str>) -> Result<Response<Bytes>, String> {
        let base =
            self.endpoint.clone().unwrap_or_else(|| format!("https://s3.{0}.{1}", self.region, suffix(&self.region)));
        let credentials = self.credentials().await?;
        let url = format!("{}/{}/{}", base.trim_end_matches('/'), object.bucket, object.key);
        let mut request = Request::get(url);
        if let Some(known) = unless {
            request = request.header(header::IF_NONE_MATCH, known);
        }
        let mut request = request.body(Vec::new()).map_err(|error| error.to_string())?;
        sign(&mut request, &credentials, (&self.region, "s3"), SystemTime::now())?;
        http::send(request, PATIENCE).await.map_err(|error| error.to_string())
    }

    /// Those of the task's role, as ECS has them now.
    ///
    /// # Errors
    /// What ECS answers instead. Never shows a credential.
    pub async fn credentials(&self) -> Result<Credentials, String> {
        let said = self.said().await.map_err(|why| format!("the task's credentials: {why}"))?;
        Ok(Credentials {
            access_key_id: said.access_key_id,
            secret_access_key: Secret::new(said.secret_access_key),
            token: Secret::new(said.token),
            ends: moment(&said.expiration),
        })
    }

    async fn said(&self) -> Result<Said, String> {
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

/// What hosts of a region end with.
fn suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// `2026-11-28T21:40:12Z`, as ECS writes when credentials end.
fn moment(text: &str) -> Option<SystemTime> {
    OffsetDateTime::parse(text, &Rfc3339).ok().map(SystemTime::from)
}

fn good(answer: Response<Bytes>) -> Result<Response<Bytes>, String> {
    if answer.status().is_success() { Ok(answer) } else { Err(format!("S3 answers {}", answer.status())) }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;

    #[test]
    fn when_credentials_end_is_read_as_ecs_writes_it() {
        assert_eq!(moment("2013-05-24T00:00:00Z"), Some(UNIX_EPOCH + Duration::from_secs(1_369_353_600)));
        for other in ["", "soon", "2013-13-24T00:00:00Z", "2013-05-24Z"] {
            assert_eq!(moment(other), None, "{other}");
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
        let place = Place::of(of).unwrap();
        assert_eq!(place.credentials, "http://169.254.170.2/v2/x");
        assert_eq!(place.models_of("us-east-1"), "https://bedrock-runtime.us-east-1.amazonaws.com");
    }
}
