//! [`sign`]: Signature Version 4 (IAM user guide, "Create a signed AWS API request"), over all of a request.
//!
//! Deliberately absent: paths and queries that would have to be encoded, signatures in a URL, bodies in pieces. An SDK would
//! be larger than all of this program.

use std::time::SystemTime;

use ::http::{HeaderName, HeaderValue, Request};
use fleet_secret::Secret;
use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;

/// What whoever asks is known by.
#[derive(Clone)]
pub struct Credentials {
    /// Its public half.
    pub access_key_id: String,
    /// Its other half.
    pub secret_access_key: Secret,
    /// Of a session, that; else empty.
    pub token: Secret,
    /// When it ends, where that is said.
    pub ends: Option<SystemTime>,
}

/// Adds to a request what proves who asks: all headers that it has by then, its host and its body are signed, so that none of
/// them may be changed afterwards. Path and query are to be of characters that nobody encodes.
///
/// # Errors
/// When a value cannot be in a header. Never shows it.
pub fn sign(
    request: &mut Request<Vec<u8>>,
    credentials: &Credentials,
    (region, service): (&str, &str),
    now: SystemTime,
) -> Result<(), String> {
    let date = date(now);
    let payload = hex::encode(Sha256::digest(request.body()));
    let mut add = |name: &'static str, value: &[u8]| -> Result<(), String> {
        let mut value = HeaderValue::from_bytes(value).map_err(|_| format!("{name} cannot be in a header"))?;
        value.set_sensitive(true);
        request.headers_mut().insert(HeaderName::from_static(name), value);
        Ok(())
    };
    add("x-amz-content-sha256", payload.as_bytes())?;
    add("x-amz-date", date.as_bytes())?;
    if !credentials.token.expose().is_empty() {
        add("x-amz-security-token", credentials.token.expose())?;
    }
    let (names, canonical) = canonical(request, &payload);
    let scope = format!("{}/{region}/{service}/aws4_request", date.get(..8).unwrap_or_default());
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", hex::encode(Sha256::digest(canonical)));
    let key = Secret::new([b"AWS4", credentials.secret_access_key.expose()].concat());
    let key = scope.split('/').fold(key, |key, part| Secret::new(hmac(&key, part)));
    let signature = hex::encode(hmac(&key, &text));
    let who = &credentials.access_key_id;
    let line = format!("AWS4-HMAC-SHA256 Credential={who}/{scope},SignedHeaders={names},Signature={signature}");
    let mut line = HeaderValue::from_str(&line).map_err(|_| "the key's id cannot be in a header".to_owned())?;
    line.set_sensitive(true);
    request.headers_mut().insert("authorization", line);
    Ok(())
}

/// Names of the signed headers, and the request in the form that is signed.
fn canonical(request: &Request<Vec<u8>>, payload: &str) -> (String, Vec<u8>) {
    let host = request.uri().authority().map_or("", |authority| authority.as_str());
    let mut headers: Vec<(&str, &[u8])> =
        request.headers().iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    headers.push(("host", host.as_bytes()));
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let mut query: Vec<String> = request
        .uri()
        .query()
        .unwrap_or_default()
        .split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| if pair.contains('=') { pair.to_owned() } else { format!("{pair}=") })
        .collect();
    query.sort_unstable();
    let (method, path) = (request.method(), request.uri().path());
    let mut canonical = format!("{method}\n{path}\n{}\n", query.join("&")).into_bytes();
    for (name, value) in headers {
        canonical.extend([name.as_bytes(), b":", value.trim_ascii(), b"\n"].concat());
    }
    canonical.extend(format!("\n{names}\n{payload}").into_bytes());
    (names, canonical)
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
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    #[test]
    fn a_request_is_signed_as_in_aws_documentation() {
        // "Example: GET Object" of the S3 API reference.
        let credentials = Credentials {
            access_key_id: "AKIAIOSFODNN7EXAMPLE".to_owned(),
            secret_access_key: Secret::new("wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"),
            token: Secret::new(""),
            ends: None,
        };
        let request = Request::get("https://examplebucket.s3.amazonaws.com/test.txt").header("range", "bytes=0-9");
        let mut request = request.body(Vec::new()).unwrap();
        let at = UNIX_EPOCH + Duration::from_secs(1_369_353_600);
        sign(&mut request, &credentials, ("us-east-1", "s3"), at).unwrap();
        let signed = request.headers()["authorization"].to_str().unwrap();
        let expected = "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41";
        assert!(signed.ends_with(&format!("Signature={expected}")), "{signed}");
        assert!(signed.contains("Credential=AKIAIOSFODNN7EXAMPLE/20130524/us-east-1/s3/aws4_request,"), "{signed}");
        assert!(!format!("{request:?}").contains(expected), "who prints a request prints no signature");
    }

    #[test]
    fn a_moment_is_written_as_aws_reads_it() {
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(1_369_353_600)), "20130524T000000Z");
        assert_eq!(date(UNIX_EPOCH + Duration::from_secs(1_798_761_599)), "20261231T235959Z");
    }
}
