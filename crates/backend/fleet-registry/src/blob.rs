//! One blob on its way to a repository: known to be there, found there, mounted from beside it, sent from here, or
//! streamed through from another registry. [`Source`] says where its bytes are.

use std::{
    fs::File,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use fleet_oci::{
    Digest,
    digest::{DAMAGED, Hasher},
    upload::{BlobRef, Upload},
};
use fleet_store::{RecordId, Store};
use futures::{TryStreamExt as _, stream};
use reqwest::{
    Body, Method, Response, StatusCode, Url,
    header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, Serialize};
use tokio_util::io::ReaderStream;

use crate::{
    client::session,
    error::RegistryError,
    events::Event,
    pull::id_of,
    push::Pushing,
    reference::Place,
    transport::{ANSWER_TIME, Trouble, location},
};

/// Bytes read from a file at a time.
const PIECE: usize = 256 << 10;
/// For blobs up to this size nobody looks first: a look costs as much as the sending saves.
const SMALL: u64 = 256 << 10;
/// Repositories that a mount is tried from.
const MAXIMUM_MOUNTS: usize = 3;

/// A repository that holds a blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Origin {
    /// `ghcr.io`
    pub registry: String,
    /// `org/app`
    pub repository: String,
}

impl Origin {
    fn record(blob: &Digest) -> RecordId {
        RecordId { space: "origins".to_owned(), key: blob.hex().to_owned() }
    }

    /// Those that were seen, the last one first. A note that cannot be read or written costs an upload, nothing else.
    fn noted(store: &Store, blob: &Digest) -> Vec<Self> {
        store.get_record(&Self::record(blob)).ok().flatten().unwrap_or_default()
    }

    /// Takes note of who has a blob.
    pub(crate) fn note(&self, store: &Store, blob: &Digest) {
        let mut noted = Self::noted(store, blob);
        if noted.first() != Some(self) {
            noted.retain(|other| other != self);
            noted.insert(0, self.clone());
            noted.truncate(MAXIMUM_MOUNTS);
            drop(store.put_record(&Self::record(blob), &noted, &[]));
        }
    }
}

/// What a push asks for: where the bytes of blobs are, what is said about the image, and what an earlier push left.
#[async_trait]
pub trait Source: Send + Sync {
    /// Repositories that are known to hold the blob, best first: it is mounted from one of the target's registry, or
    /// streamed through from another.
    fn origins(&self, blob: &BlobRef) -> Vec<Origin>;

    /// Its bytes on this machine, `None` where they are not here. Called only when they must be sent: may make them.
    ///
    /// # Errors
    /// When they should be here and cannot be read.
    async fn open(&self, blob: &BlobRef) -> io::Result<Option<File>>;

    /// False where the bytes that [`open`](Self::open) gives are not those of the blob's name; they are put aside then.
    async fn is_right(&self, blob: &BlobRef) -> bool;

    /// Statements about the image: uploads with a subject, whose blobs are inline. Asked for only when the image turns
    /// out not to be there.
    async fn statements(&self) -> Vec<Upload> {
        Vec::new()
    }

    /// What an earlier push left in a repository (`registry/repository`), as far as anybody remembers.
    fn kept(&self, _repository: &str) -> Left {
        Left::default()
    }

    /// Takes note of what this push left there.
    fn keep(&self, _repository: &str, _left: &Left) {}
}

/// What a push left in a repository: it saves the next one from looking, and is never relied upon.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Blobs. They are not looked for; where the registry then misses one, all are.
    pub blobs: Vec<Digest>,
    /// Statements had to be listed under a tag, as there is no API for them: the list is read before it is needed.
    pub lists: bool,
}

/// Blobs of a store, and of the bases that images stand on.
#[derive(Clone)]
pub struct StoreBlobs {
    /// What was made or pulled here.
    pub store: Arc<Store>,
    /// What is elsewhere, by digest, beside what was noted of bases when they were pulled or described.
    pub origins: std::collections::BTreeMap<Digest, Vec<Origin>>,
    /// Statements about the image that is pushed.
    pub said: Vec<Upload>,
}

impl StoreBlobs {
    fn record(repository: &str) -> RecordId {
        RecordId { space: "pushed".to_owned(), key: repository.to_owned() }
    }
}

#[async_trait]
impl Source for StoreBlobs {
    fn origins(&self, blob: &BlobRef) -> Vec<Origin> {
        let mut known = self.origins.get(&blob.digest).cloned().unwrap_or_default();
        known.extend(Origin::noted(&self.store, &blob.digest));
        known
    }

    async fn statements(&self) -> Vec<Upload> {
        self.said.clone()
    }

    async fn is_right(&self, blob: &BlobRef) -> bool {
        let (store, Ok(id)) = (Arc::clone(&self.store), id_of(&blob.digest)) else { return true };
        if store.blob_path(&id).is_none() {
            return true;
        }
        // A person waits for an error either way: that the check itself failed is no reason to blame the store.
        tokio::task::spawn_blocking(move || store.verify_blob(&id).unwrap_or(true)).await.unwrap_or(true)
    }

    async fn open(&self, blob: &BlobRef) -> io::Result<Option<File>> {
        let id = id_of(&blob.digest).map_err(io::Error::other)?;
        self.store.open_blob(&id).map_err(io::Error::other)
    }

    // A note that cannot be read or written costs requests, nothing else.
    fn kept(&self, repository: &str) -> Left {
        self.store.get_record(&Self::record(repository)).ok().flatten().unwrap_or_default()
    }

    fn keep(&self, repository: &str, left: &Left) {
        drop(self.store.put_record(&Self::record(repository), left, &[]));
    }
}

/// What an upload that is open turned out to be.
enum Opened {
    /// The blob is there now.
    There,
    /// Its bytes go here.
    At(Url),
}

/// A registry that was killed while it took note of something can be left unable to say what it has: Debian's answers 500
/// until it is sent again. Who is not told sends it.
pub(crate) fn cannot_tell<T: Default>(trouble: Trouble) -> Result<T, Trouble> {
    match trouble.status {
        Some(StatusCode::INTERNAL_SERVER_ERROR) => Ok(T::default()),
        _ => Err(trouble),
    }
}

impl Pushing<'_> {
    /// One attempt to have the blob in the target.
    pub async fn blob(&self, blob: &BlobRef) -> Result<(), Trouble> {
        let place = &self.session.place;
        if self.client.is_known(place, &blob.digest) {
            self.skipped(blob);
            return Ok(());
        }
        let small = blob.size <= SMALL;
        if !small && self.is_there(blob).await.or_else(cannot_tell)? {
            self.skipped(blob);
        } else if let Opened::At(url) = self.open(blob, small).await? {
            (self.session.events)(Event::Sending { digest: blob.digest.clone(), size: blob.size });
            self.send_body(blob, url).await?;
            self.tally(|pushed| pushed.sent += blob.size);
            (self.session.events)(Event::Sent { digest: blob.digest.clone(), size: blob.size });
        }
        self.client.remember(place, &blob.digest);
        Ok(())
    }

    fn skipped(&self, blob: &BlobRef) {
        self.tally(|pushed| pushed.skipped += 1);
        (self.session.events)(Event::Skipped { digest: blob.digest.clone() });
    }

    async fn is_there(&self, blob: &BlobRef) -> Result<bool, Trouble> {
        let transport = &self.client.transport;
        let request = transport.request(&self.session, Method::HEAD, &format!("blobs/{}", blob.digest))?;
        let response = transport.send(&self.session, request).await?;
        match response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(transport.refused(&self.session, response, &format!("a look at the blob {}", blob.digest)).await),
        }
    }

    /// Repositories of the target's registry that may have the blob.
    fn mounts(&self, blob: &BlobRef) -> Vec<String> {
        let place = &self.session.place;
        let origins = self.source.origins(blob).into_iter().filter(|origin| origin.registry == place.registry);
        let mut from: Vec<String> = Vec::new();
        for repository in origins.map(|origin| origin.repository).chain(self.target.mount_from.iter().cloned()) {
            if repository != place.repository && !from.contains(&repository) {
                from.push(repository);
            }
        }
        from.truncate(MAXIMUM_MOUNTS);
        from
    }

    /// Asks for a place to send the blob to, and by the same request for a mount. A small blob that nobody looked for
    /// is mounted from its own repository, where it is there: registries without mounts answer with the upload.
    async fn open(&self, blob: &BlobRef, small: bool) -> Result<Opened, Trouble> {
        let own = self.session.place.repository.clone();
        let from = match small {
            // A mount that fails costs more than the few bytes of a config or a statement.
            true if blob.inline.is_some() && self.noted.load(Ordering::Relaxed) => Vec::new(),
            true => vec![own.clone()],
            false => self.mounts(blob),
        };
        let mut opened = None;
        for repository in &from {
            let query = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("mount", &blob.digest.to_string())
                .append_pair("from", repository)
                .finish();
            let response = self.start(blob, &format!("blobs/uploads/?{query}")).await?;
            if response.status() == StatusCode::CREATED {
                if *repository == own {
                    self.skipped(blob);
                } else {
                    self.tally(|pushed| pushed.mounted += 1);
                    (self.session.events)(Event::Mounted { digest: blob.digest.clone(), from: repository.clone() });
                }
                return Ok(Opened::There);
            }
            opened = Some(response);
        }
        let response = match opened {
            Some(response) => response,
            None => self.start(blob, "blobs/uploads/").await?,
        };
        Ok(Opened::At(location(&self.session, &response)?))
    }

    async fn start(&self, blob: &BlobRef, path: &str) -> Result<Response, Trouble> {
        let transport = &self.client.transport;
        let request = transport.request(&self.session, Method::POST, path)?;
        let what = format!("to start an upload of the blob {}", blob.digest);
        transport.expect(&self.session, request, &[StatusCode::ACCEPTED, StatusCode::CREATED], &what).await
    }

    /// All bytes in one body.
    async fn send_body(&self, blob: &BlobRef, mut url: Url) -> Result<(), Trouble> {
        let transport = &self.client.transport;
        let lie = Lie::default();
        let body = self.body(blob, &lie).await?;
        url.query_pairs_mut().append_pair("digest", &blob.digest.to_string());
        let mut request = reqwest::Request::new(Method::PUT, url);
        request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(blob.size));
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        *request.body_mut() = Some(body);
        let what = format!("the blob {}", blob.digest);
        let wanted = [StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::NO_CONTENT];
        let sent = transport.expect(&self.session, request, &wanted, &what).await;
        if let Some((origin, why)) = lie.take() {
            let (what, wanted) = ("a blob", blob.digest.clone());
            return Err(RegistryError::Lies { reference: origin, what, wanted, why }.into());
        }
        match sent {
            // The registry forgot the upload that it had begun: it was started anew, or cleaned up.
            Err(Trouble { error, status: Some(StatusCode::NOT_FOUND | StatusCode::RANGE_NOT_SATISFIABLE), .. }) => {
                Err(Trouble::passing(error))
            }
            // It hashed something else: sent wrong, or wrong before it was sent.
            Err(trouble)
                if trouble.codes.iter().any(|code| code == "DIGEST_INVALID") && self.is_damaged(blob).await =>
            {
                Err(self.without(blob, DAMAGED.to_owned()).into())
            }
            other => other.map(drop),
        }
    }

    async fn is_damaged(&self, blob: &BlobRef) -> bool {
        blob.inline.is_none() && !self.source.is_right(blob).await
    }

    fn without(&self, blob: &BlobRef, why: String) -> RegistryError {
        RegistryError::NoBlob { reference: self.target.written.clone(), blob: blob.digest.clone(), why }
    }

    async fn body(&self, blob: &BlobRef, lie: &Lie) -> Result<Body, Trouble> {
        if let Some(bytes) = &blob.inline {
            return Ok(Bytes::copy_from_slice(bytes).into());
        }
        let missing = |why: String| self.without(blob, why);
        let opened = self.source.open(blob).await;
        if let Some(file) = opened.map_err(|error| missing(format!("cannot be read here: {error}")))? {
            let length = file.metadata().map_err(|error| missing(format!("cannot be read here: {error}")))?.len();
            if length != blob.size {
                return Err(missing(format!("is damaged here: it has {length} bytes, not {}", blob.size)).into());
            }
            return Ok(Body::wrap_stream(ReaderStream::with_capacity(tokio::fs::File::from_std(file), PIECE)));
        }
        let origins = self.source.origins(blob);
        let mut said = Vec::new();
        for origin in &origins {
            match self.elsewhere(origin, blob).await {
                Ok(response) => {
                    let from = format!("{}/{}", origin.registry, origin.repository);
                    return Ok(checked(response, blob, Arc::clone(&lie.0), from));
                }
                Err(trouble) => said.push(trouble),
            }
        }
        match said.pop() {
            Some(trouble) => Err(trouble),
            None => Err(missing("is neither here nor known to be in a registry".to_owned()).into()),
        }
    }

    /// The blob as another registry, or a mirror of it, sends it.
    async fn elsewhere(&self, origin: &Origin, blob: &BlobRef) -> Result<Response, Trouble> {
        let about = format!("{}/{}", origin.registry, origin.repository);
        let requests = AtomicUsize::new(0);
        let mut last = None;
        for place in self.client.mirrors.places(&Place::new(&origin.registry, &origin.repository)) {
            let session = session(&about, place, &requests, self.session.events);
            match self.client.get(&session, &format!("blobs/{}", blob.digest), "a blob").await {
                Ok(response) => return Ok(response),
                Err(trouble) => last = Some(trouble),
            }
        }
        let nowhere = || RegistryError::Absent { reference: about.clone(), what: "has no place to ask".to_owned() };
        Err(last.unwrap_or_else(|| nowhere().into()))
    }
}

/// Set when an origin turns out to send something else: which, and how it differs.
#[derive(Default)]
struct Lie(Arc<Mutex<Option<(String, String)>>>);

impl Lie {
    fn take(&self) -> Option<(String, String)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Passes a body on and breaks off before its last piece when it is not the blob.
fn checked(response: Response, blob: &BlobRef, lie: Arc<Mutex<Option<(String, String)>>>, from: String) -> Body {
    let (digest, size) = (blob.digest.clone(), blob.size);
    let start = (response, Some(Hasher::new(digest.algorithm())), 0_u64);
    let pieces = stream::try_unfold(start, move |(mut response, mut hasher, before)| {
        let (digest, lie, from) = (digest.clone(), Arc::clone(&lie), from.clone());
        async move {
            let differs = |why: String| {
                *lie.lock().unwrap_or_else(PoisonError::into_inner) = Some((from, why));
                io::Error::other("the origin sends another blob")
            };
            let piece = tokio::time::timeout(ANSWER_TIME, response.chunk()).await.map_err(io::Error::other)?;
            let Some(piece) = piece.map_err(io::Error::other)? else {
                return if before == size { Ok(None) } else { Err(differs(format!("{before} of {size} bytes came"))) };
            };
            let length = before + piece.len() as u64;
            if let Some(hasher) = &mut hasher {
                hasher.update(&piece);
            }
            if length > size {
                return Err(differs(format!("it is longer than {size} bytes")));
            }
            if length == size {
                let found = hasher.take().map(Hasher::finish);
                if let Some(found) = found.filter(|found| *found != digest) {
                    return Err(differs(format!("it is {found}")));
                }
            }
            Ok(Some((piece, (response, hasher, length))))
        }
    });
    Body::wrap_stream(pieces.into_stream())
}
