//! [`Auth`]: the `Authorization` of a request. Basic, and Bearer with tokens from where the registry says (the token
//! protocol of Docker's registry, which all of them speak).
//!
//! A password that we have is sent before anybody asks, because that saves a request: registries with Basic
//! authentication, and ECR, take it; the others answer with their challenge. It goes to the registry it was made for
//! and to the token server that this registry names, over TLS or loopback only.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex as SyncMutex, PoisonError, atomic::Ordering},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use fleet_apply::Clock;
use fleet_secret::Secret;
use reqwest::{
    Request, Response, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, WWW_AUTHENTICATE},
};
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{
    credentials::{Credential, Credentials},
    error::RegistryError,
    reference::is_loopback,
    transport::{Clients, Session, Trouble, answer, read, words},
};

/// How long a token lasts when nobody says (the protocol's own default).
const TOKEN_SECONDS: u64 = 60;
/// No token is believed to last longer: a day.
const LONGEST_TOKEN: u64 = 24 * 3600;
/// A token is no longer used so long before it ends.
const TOKEN_MARGIN: Duration = Duration::from_secs(10);
/// An answer of a token server larger than this is refused.
const MAXIMUM_TOKEN: usize = 1 << 20;

/// What is known of registries' ways to ask who we are.
pub(crate) struct Auth {
    credentials: Arc<dyn Credentials>,
    clock: Arc<dyn Clock>,
    hosts: SyncMutex<BTreeMap<String, Arc<Mutex<Host>>>>,
}

#[derive(Default)]
struct Host {
    /// Looked up once; inner `None` is a stranger.
    credential: Option<Option<Credential>>,
    bearer: Option<Bearer>,
    /// By scopes.
    tokens: BTreeMap<String, Token>,
    /// What the registry wants beside the scopes that we know of, by these: some name repositories otherwise.
    more: BTreeMap<String, String>,
}

#[derive(Clone)]
struct Bearer {
    realm: Url,
    service: Option<String>,
    /// What the registry said it wants for the request that it refused.
    scope: Option<String>,
}

struct Token {
    value: HeaderValue,
    until: SystemTime,
}

impl Auth {
    pub fn new(credentials: Arc<dyn Credentials>, clock: Arc<dyn Clock>) -> Self {
        Self { credentials, clock, hosts: SyncMutex::default() }
    }

    fn host(&self, session: &Session<'_>) -> Arc<Mutex<Host>> {
        let mut hosts = self.hosts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(hosts.entry(session.place.host.clone()).or_default())
    }

    /// The header for a request of this session, as far as it is known what the registry wants.
    pub async fn header(&self, clients: &Clients, session: &Session<'_>) -> Result<Option<HeaderValue>, Trouble> {
        let host = self.host(session);
        // Held while a token is fetched: requests beside this one need the same.
        let mut host = host.lock().await;
        if host.credential.is_none() {
            host.credential = Some(self.credentials.of(&session.place.registry).await.map_err(RegistryError::from)?);
        }
        let credential = host.credential.clone().flatten();
        let Some(bearer) = host.bearer.clone() else {
            return Ok(credential.as_ref().and_then(basic));
        };
        let scopes = session.scopes.join(" ");
        if let Some(token) = host.tokens.get(&scopes).filter(|token| token.until > self.clock.now()) {
            return Ok(Some(token.value.clone()));
        }
        let mut wanted = session.scopes.clone();
        wanted.extend(host.more.get(&scopes).cloned());
        let token = self
            .token(clients, session, token_request(&bearer, &wanted, credential.as_ref()), credential.as_ref())
            .await?;
        let value = token.value.clone();
        host.tokens.insert(scopes, token);
        Ok(Some(value))
    }

    /// Learns from a refusal of a request that carried `used`. False when there is nothing else to try.
    pub async fn learn(
        &self,
        session: &Session<'_>,
        refusal: &HeaderMap,
        used: Option<&HeaderValue>,
    ) -> Result<bool, Trouble> {
        let host = self.host(session);
        let mut host = host.lock().await;
        match challenge(refusal).map_err(|why| session.malformed(why))? {
            Some(Challenge::Bearer(bearer)) => {
                if !may_carry_secrets(&bearer.realm) {
                    let why = format!("it wants credentials sent to {}, which is not HTTPS", bearer.realm);
                    return Err(session.malformed(why).into());
                }
                let other = bearer.scope.clone().filter(|scope| !covers(&session.scopes, scope));
                host.more.extend(other.map(|scope| (session.scopes.join(" "), scope)));
                host.bearer = Some(bearer);
                // Requests beside this one may have got another token meanwhile: that one stays.
                host.tokens.retain(|_, token| Some(&token.value) != used);
                Ok(true)
            }
            Some(Challenge::Basic) => {
                host.bearer = None;
                let again = self.credentials.of(&session.place.registry).await.map_err(RegistryError::from)?;
                let header = again.as_ref().and_then(basic);
                host.credential = Some(again);
                // Another password than the refused one: a short-lived one that was made anew.
                Ok(header.is_some() && header.as_ref() != used)
            }
            None => Ok(false),
        }
    }

    /// Who we said we are.
    pub async fn user(&self, session: &Session<'_>) -> Option<String> {
        let host = self.host(session);
        let host = host.lock().await;
        host.credential.as_ref().and_then(Option::as_ref).map(Credential::user)
    }

    async fn token(
        &self,
        clients: &Clients,
        session: &Session<'_>,
        request: Result<Request, String>,
        credential: Option<&Credential>,
    ) -> Result<Token, Trouble> {
        #[derive(Deserialize)]
        struct Answer {
            token: Option<String>,
            access_token: Option<String>,
            expires_in: Option<u64>,
        }
        let request = request.map_err(|why| session.malformed(why))?;
        session.requests.fetch_add(1, Ordering::Relaxed);
        let response = answer(clients, session, request).await?;
        let response = self.token_given(session, response, credential).await?;
        let bytes = read(session, response, MAXIMUM_TOKEN).await?;
        let malformed = |why: String| session.malformed(format!("its token server's answer: {why}"));
        // Serde's words would repeat what it found there.
        let said: Answer =
            serde_json::from_slice(&bytes).map_err(|_| malformed("it is not JSON of the shape".into()))?;
        let text = said.token.or(said.access_token).ok_or_else(|| malformed("it has no token".into()))?;
        let value = sensitive(&format!("Bearer {text}")).ok_or_else(|| malformed("its token is not text".into()))?;
        let lasts = Duration::from_secs(said.expires_in.unwrap_or(TOKEN_SECONDS).min(LONGEST_TOKEN));
        Ok(Token { value, until: self.clock.now() + lasts - TOKEN_MARGIN.min(lasts / 2) })
    }

    async fn token_given(
        &self,
        session: &Session<'_>,
        response: Response,
        credential: Option<&Credential>,
    ) -> Result<Response, Trouble> {
        match response.status() {
            StatusCode::OK => Ok(response),
            status if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() => {
                Err(session.passing_status(&response, &*self.clock))
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
                Err(session.denied(credential.map(Credential::user), words(response).await).into())
            }
            status => Err(session.malformed(format!("its token server answers {status}")).into()),
        }
    }
}

/// GET with the password, or POST with the identity token.
fn token_request(bearer: &Bearer, scopes: &[String], credential: Option<&Credential>) -> Result<Request, String> {
    if let Some(Credential::Identity(token)) = credential {
        let token = token.expose_str().map_err(|error| error.to_string())?;
        let scope = scopes.join(" ");
        let mut form = url::form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "refresh_token").append_pair("client_id", "fleetctl");
        form.append_pair("service", bearer.service.as_deref().unwrap_or_default());
        form.append_pair("scope", &scope).append_pair("refresh_token", token);
        let mut request = Request::new(reqwest::Method::POST, bearer.realm.clone());
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        *request.body_mut() = Some(form.finish().into());
        return Ok(request);
    }
    let mut url = bearer.realm.clone();
    {
        let mut query = url.query_pairs_mut();
        query.extend_pairs(bearer.service.iter().map(|service| ("service", service)));
        query.extend_pairs(scopes.iter().map(|scope| ("scope", scope)));
    }
    let mut request = Request::new(reqwest::Method::GET, url);
    if let Some(header) = credential.and_then(basic) {
        request.headers_mut().insert(AUTHORIZATION, header);
    }
    Ok(request)
}

/// Whether a scope of the same repository is among these: they were chosen to allow what is asked there.
fn covers(scopes: &[String], scope: &str) -> bool {
    let name = |scope: &str| scope.rsplit_once(':').map(|(name, _)| name.to_owned());
    scopes.iter().any(|own| name(own) == name(scope))
}

fn basic(credential: &Credential) -> Option<HeaderValue> {
    let Credential::Password { user, password } = credential else { return None };
    let pair = Secret::new([user.as_bytes(), b":", password.expose()].concat());
    sensitive(&format!("Basic {}", STANDARD.encode(pair.expose())))
}

/// A header that debug output shows as `Sensitive`.
fn sensitive(text: &str) -> Option<HeaderValue> {
    let mut value = HeaderValue::from_str(text).ok()?;
    value.set_sensitive(true);
    Some(value)
}

fn may_carry_secrets(url: &Url) -> bool {
    url.scheme() == "https" || url.host_str().is_some_and(is_loopback)
}

enum Challenge {
    Basic,
    Bearer(Bearer),
}

/// What a 401 asks for: of several challenges the Bearer one.
fn challenge(headers: &HeaderMap) -> Result<Option<Challenge>, String> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let text = value.to_str().map_err(|error| error.to_string())?;
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("bearer") {
            let parameters = parameters(rest);
            let realm = parameters.get("realm").ok_or("its Bearer challenge has no realm")?;
            let realm = Url::parse(realm).map_err(|error| format!("the realm of its challenge: {error}"))?;
            let own = |name: &str| parameters.get(name).cloned();
            return Ok(Some(Challenge::Bearer(Bearer { realm, service: own("service"), scope: own("scope") })));
        }
        if scheme.eq_ignore_ascii_case("basic") {
            found = Some(Challenge::Basic);
        }
    }
    Ok(found)
}

/// `a="b",c="d, e"` (RFC 9110 §11.2); values without quotes, too.
fn parameters(text: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let after = after.trim_start();
        let (value, next) = if let Some(quoted) = after.strip_prefix('"') {
            unquoted(quoted)
        } else {
            let end = after.find(',').unwrap_or(after.len());
            (after[..end].trim().to_owned(), &after[end..])
        };
        found.insert(name.trim_matches([' ', ',']).to_ascii_lowercase(), value);
        rest = next;
    }
    found
}

/// The text up to the closing quote, and what follows it.
fn unquoted(text: &str) -> (String, &str) {
    let mut value = String::new();
    let mut letters = text.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &text[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, escaped)| escaped)),
            _ => value.push(letter),
        }
    }
    (value, "")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn challenged(text: &str) -> Option<Challenge> {
        let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap())]);
        challenge(&headers).unwrap_or_else(|why| panic!("{why}"))
    }

    #[test]
    fn challenges_of_real_registries_are_understood() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#;
        let Some(Challenge::Bearer(bearer)) = challenged(hub) else { panic!("not understood") };
        assert_eq!(bearer.realm.as_str(), "https://auth.docker.io/token");
        assert_eq!(bearer.service.as_deref(), Some("registry.docker.io"));
        assert_eq!(bearer.scope.as_deref(), Some("repository:a/b:pull,push"));
        let ecr = r#"Basic realm="https://1.dkr.ecr.eu-west-1.amazonaws.com/",service="ecr.amazonaws.com""#;
        assert!(matches!(challenged(ecr), Some(Challenge::Basic)));
        assert!(challenged("Negotiate").is_none());
        assert_eq!(
            parameters(r#"a="b \"c\", d" , e=f"#),
            BTreeMap::from([("a".into(), r#"b "c", d"#.into()), ("e".into(), "f".into())])
        );
        assert_eq!(parameters(r#"a="b"#), BTreeMap::from([("a".into(), "b".into())]));
    }

    #[test]
    fn passwords_go_to_token_servers_over_tls_or_loopback_only() {
        for (url, may) in
            [("https://a.example/t", true), ("http://127.0.0.1:5001/t", true), ("http://a.example/t", false)]
        {
            assert_eq!(may_carry_secrets(&Url::parse(url).unwrap()), may, "{url}");
        }
    }

    #[test]
    fn a_header_with_a_secret_shows_none() {
        let credential = Credential::Password { user: "joe".into(), password: Secret::new("hunter2") };
        let header = basic(&credential).unwrap();
        assert_eq!(header, "Basic am9lOmh1bnRlcjI=");
        assert_eq!(format!("{header:?}"), "Sensitive");
    }
}
