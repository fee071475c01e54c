//! [`Client`]: the way in. Cheap to clone; clones share connections, tokens, and what is known of repositories.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize},
};

use fleet_oci::Digest;
use reqwest::{Method, Response, StatusCode};

use crate::{
    config::RegistryConfig,
    error::RegistryError,
    events::Events,
    manifest::MAXIMUM_MANIFEST,
    mirrors::Mirrors,
    reference::Place,
    transport::{CONTENT_DIGEST, Session, Transport, Trouble, read},
};

/// As many blobs are remembered to be at their places; beyond that all are forgotten.
const MAXIMUM_KNOWN: usize = 100_000;

/// Speaks to registries.
#[derive(Clone)]
pub struct Client(pub(crate) Arc<Inner>);

pub(crate) struct Inner {
    pub transport: Transport,
    pub mirrors: Mirrors,
    pub parallel: usize,
    /// Blobs that this process saw at their places.
    known: Mutex<BTreeSet<(Place, Digest)>>,
    /// Held while a list of referrers is read, changed and written.
    pub listing: tokio::sync::Mutex<()>,
}

impl Client {
    /// A client. Nothing is asked yet.
    ///
    /// # Errors
    /// [`RegistryError::Setup`] when the CA bundle or the TLS settings of the machine cannot be used.
    pub fn new(config: &RegistryConfig) -> Result<Self, RegistryError> {
        Ok(Self(Arc::new(Inner {
            transport: Transport::new(config)?,
            mirrors: config.mirrors.clone(),
            parallel: config.parallel.max(1),
            known: Mutex::default(),
            listing: tokio::sync::Mutex::default(),
        })))
    }

    /// The digest under a tag of `registry/repository`, `None` where there is none. Costs one HEAD on a connection that
    /// is kept; the registry itself is asked, never a mirror.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn exists(&self, repository: &str, tag: &str) -> Result<Option<Digest>, RegistryError> {
        let written = format!("{repository}:{tag}");
        let place = crate::reference::Named::parse(&written)?.place;
        let requests = AtomicUsize::new(0);
        let session = session(&written, place, &requests, &|_| {});
        Ok(self.0.head_manifest(&session, tag).await?)
    }
}

/// A session that may read.
pub(crate) fn session<'a>(about: &'a str, place: Place, requests: &'a AtomicUsize, events: Events<'a>) -> Session<'a> {
    let scopes = vec![scope(&place.repository, "pull")];
    Session { about, place, scopes, requests, events }
}

pub(crate) fn scope(repository: &str, actions: &str) -> String {
    format!("repository:{repository}:{actions}")
}

impl Inner {
    /// The digest that a tag or digest has in the repository.
    pub async fn head_manifest(&self, session: &Session<'_>, version: &str) -> Result<Option<Digest>, Trouble> {
        let what = format!("manifests/{version}");
        let ask = async || {
            let request = self.transport.request(session, Method::HEAD, &what)?;
            let response = self.transport.send(session, request).await?;
            match response.status() {
                StatusCode::OK => Ok(Some(response)),
                StatusCode::NOT_FOUND => Ok(None),
                _ => Err(self.transport.refused(session, response, "a look at a manifest").await),
            }
        };
        let Some(response) = self.transport.retried(session, ask).await? else { return Ok(None) };
        if let Some(digest) = content_digest(&response) {
            return Ok(Some(digest));
        }
        // Registries should say the digest; of one that does not, the manifest is read.
        let request = self.transport.request(session, Method::GET, &what)?;
        let response = self.transport.expect(session, request, &[StatusCode::OK], "a manifest").await?;
        Ok(Some(Digest::sha256(&read(session, response, MAXIMUM_MANIFEST).await?)))
    }

    fn known(&self) -> MutexGuard<'_, BTreeSet<(Place, Digest)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether this process saw the blob there.
    pub fn is_known(&self, place: &Place, digest: &Digest) -> bool {
        self.known().contains(&(place.clone(), digest.clone()))
    }

    pub fn remember(&self, place: &Place, digest: &Digest) {
        let mut known = self.known();
        if known.len() >= MAXIMUM_KNOWN {
            known.clear();
        }
        known.insert((place.clone(), digest.clone()));
    }

    /// Forgets a repository; whether anything was known of it.
    pub fn forget(&self, place: &Place) -> bool {
        let mut known = self.known();
        let before = known.len();
        known.retain(|(other, _)| other != place);
        known.len() != before
    }
}

/// What a registry says it sent or got.
pub(crate) fn content_digest(response: &Response) -> Option<Digest> {
    response.headers().get(CONTENT_DIGEST)?.to_str().ok()?.parse().ok()
}
