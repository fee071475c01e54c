//! [`Client::push`]: from the first look at a tag to the manifest under it. The order is the whole of its safety: blobs,
//! then manifests that others name and statements with their list, then the manifest that has the tag. Until that last
//! request nothing is visible, and whoever sees the tag finds the statements, too.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use fleet_oci::{
    Digest,
    upload::{BlobRef, Upload},
};
use futures::{
    FutureExt as _, StreamExt as _, TryStreamExt as _,
    future::{BoxFuture, Either, Shared, select, try_join},
    stream,
};
use reqwest::{
    Method, Response, StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};

use crate::{
    blob::{Left, Source, cannot_tell},
    client::{Client, Inner, content_digest, scope},
    error::RegistryError,
    events::{Event, Events, Pushed},
    manifest::{Document, Kept, MAXIMUM_MANIFEST},
    reference::Target,
    transport::{Session, Trouble, read},
};

/// Children of a former index that are looked into.
const MAXIMUM_FORMER: usize = 8;
/// Repositories that a token is asked for beside the target.
const MAXIMUM_SCOPES: usize = 8;

impl Client {
    /// Has an image or an index in the target, with the statements about it that `source` knows. What is there is not
    /// sent again; with the tag already right it costs one request. Broken off at any moment it leaves nothing visible,
    /// and the next push goes on where this one ended.
    ///
    /// # Errors
    /// [`RegistryError::Taken`] when an immutable tag holds another digest, and whatever else a registry can answer.
    pub async fn push(
        &self,
        target: &Target,
        upload: &Upload,
        source: &dyn Source,
        events: Events<'_>,
    ) -> Result<Pushed, RegistryError> {
        let requests = AtomicUsize::new(0);
        let pushing = Pushing::new(
            &self.0,
            target,
            upload,
            source,
            Session {
                about: &target.written,
                place: target.place.clone(),
                scopes: Vec::new(),
                requests: &requests,
                events,
            },
        );
        pushing.run(upload).await?;
        let mut pushed = pushing.pushed.into_inner().unwrap_or_else(PoisonError::into_inner);
        pushed.requests = requests.load(Ordering::Relaxed);
        Ok(pushed)
    }
}

type Statements<'a> = Shared<BoxFuture<'a, Arc<[Upload]>>>;

/// What a look at the tag led to.
enum Begun {
    /// Nothing yet; the tag holds this image, which is another.
    Nothing {
        /// Its manifest.
        former: Option<Digest>,
    },
    /// All was sent that the tag's manifest needs.
    AllBeside(Result<(), Trouble>),
}

/// One push.
pub(crate) struct Pushing<'a> {
    pub client: &'a Inner,
    pub target: &'a Target,
    pub source: &'a dyn Source,
    pub session: Session<'a>,
    pushed: Mutex<Pushed>,
    /// What is said about the image: made when somebody first waits for it.
    statements: Statements<'a>,
    /// The repository's statements are listed under tags.
    pub lists: AtomicBool,
    /// Notes of the repository are in use: what they do not name is not there, or was left by a push that broke off.
    pub noted: AtomicBool,
}

impl<'a> Pushing<'a> {
    fn new(
        client: &'a Inner,
        target: &'a Target,
        upload: &Upload,
        source: &'a dyn Source,
        mut session: Session<'a>,
    ) -> Self {
        let own = &target.place;
        let mut beside: Vec<String> = target.mount_from.clone();
        for blob in upload.all_blobs().values() {
            let origins = source.origins(blob).into_iter().filter(|origin| origin.registry == own.registry);
            beside.extend(origins.map(|origin| origin.repository));
        }
        beside.sort_unstable();
        beside.dedup();
        beside.retain(|repository| *repository != own.repository);
        beside.truncate(MAXIMUM_SCOPES);
        let beside = beside.iter().map(|repository| scope(repository, "pull"));
        session.scopes = [scope(&own.repository, "pull,push")].into_iter().chain(beside).collect();
        let pushed = Pushed {
            digest: upload.digest.clone(),
            found: false,
            sent: 0,
            mounted: 0,
            skipped: 0,
            requests: 0,
            notices: Vec::new(),
        };
        let statements = source.statements().map(Arc::from).boxed().shared();
        let (pushed, lists, noted) = (Mutex::new(pushed), AtomicBool::new(false), AtomicBool::new(false));
        Self { client, target, source, session, pushed, statements, lists, noted }
    }

    pub fn tally(&self, change: impl FnOnce(&mut Pushed)) {
        change(&mut self.pushed.lock().unwrap_or_else(PoisonError::into_inner));
    }

    async fn run(&self, upload: &Upload) -> Result<(), RegistryError> {
        let version = self.target.tag.clone().unwrap_or_else(|| upload.digest.to_string());
        let place = &self.session.place;
        let kept = self.source.kept(&place.shown());
        kept.blobs.iter().for_each(|blob| self.client.remember(place, blob));
        self.lists.store(kept.lists, Ordering::Relaxed);
        self.noted.store(!kept.blobs.is_empty(), Ordering::Relaxed);
        let Some(begun) = self.look(upload, &version, &kept).await? else { return Ok(()) };
        let (missing, sent) = match begun {
            Begun::Nothing { former } => {
                let missing = self.missing(upload).await?;
                // A moving tag's own image is the best guess at what is needed again.
                if let Some(former) = self.target.former.as_ref().or(former.as_ref()) {
                    self.learn_from(former, &missing).await?;
                }
                let sent = self.send_beside(&missing).await;
                (missing, sent)
            }
            Begun::AllBeside(sent) => (vec![upload], sent),
        };
        let put = async |sent: Result<(), Trouble>| {
            sent?;
            self.put(upload, &version).await.map(drop)
        };
        let answer = match put(sent).await {
            // Something that was known to be there may no longer be: then nothing is known.
            Err(trouble) if lacks_blobs(&trouble, !kept.blobs.is_empty()) && self.client.forget(place) => {
                self.noted.store(false, Ordering::Relaxed);
                put(self.send_beside(&missing).await).await
            }
            answer => answer,
        };
        self.finish(upload, &version, answer).await?;
        let statements = self.statements.peek().map_or(&[][..], |statements| statements);
        let all: Vec<&Upload> = missing.into_iter().chain(statements).collect();
        let blobs: Vec<Digest> = blobs(&all).into_iter().map(|blob| blob.digest.clone()).collect();
        self.source.keep(&place.shown(), &Left { blobs, lists: self.lists.load(Ordering::Relaxed) });
        Ok(())
    }

    /// Looks whether the tag is right; `None` when it is. Where notes of the repository say that the image is new to it
    /// and hold its large blobs, the answer is foreseen, and all that must be there before the tag goes on its way
    /// meanwhile.
    async fn look(&self, upload: &Upload, version: &str, kept: &Left) -> Result<Option<Begun>, RegistryError> {
        let head = async {
            let there = self.client.head_manifest(&self.session, version).await.or_else(cannot_tell)?;
            if there.as_ref() == Some(&upload.digest) {
                self.tally(|pushed| pushed.found = true);
                return Ok::<_, RegistryError>(None);
            }
            there.as_ref().map_or(Ok(()), |there| self.free(upload, there))?;
            Ok(Some(there))
        };
        let noted = |blob: &BlobRef| kept.blobs.contains(&blob.digest);
        let is_new = upload.children.is_empty() && !upload.blobs.iter().all(noted);
        if !is_new || !upload.blobs.iter().all(|blob| blob.inline.is_some() || noted(blob)) {
            return Ok(head.await?.map(|former| Begun::Nothing { former }));
        }
        let all = [upload];
        match select(pin!(head), pin!(self.send_beside(&all))).await {
            Either::Left((there, sending)) => match there? {
                Some(_) => Ok(Some(Begun::AllBeside(sending.await))),
                None => Ok(None),
            },
            Either::Right((sent, head)) => Ok(head.await?.map(|_| Begun::AllBeside(sent))),
        }
    }

    /// Whether the tag may be written although it has something else.
    fn free(&self, upload: &Upload, there: &Digest) -> Result<(), RegistryError> {
        if self.target.is_immutable() {
            let (ours, there) = (upload.digest.clone(), there.clone());
            return Err(RegistryError::Taken { reference: self.target.written.clone(), ours, there });
        }
        Ok(())
    }

    /// Manifests that are not there, those that others name before the others. One that is there has all it names.
    async fn missing<'u>(&self, upload: &'u Upload) -> Result<Vec<&'u Upload>, RegistryError> {
        let mut missing = Vec::new();
        for child in &upload.children {
            let version = child.digest.to_string();
            if self.client.head_manifest(&self.session, &version).await?.is_none() {
                missing.extend(Box::pin(self.missing(child)).await?);
            }
        }
        missing.push(upload);
        Ok(missing)
    }

    /// Takes note of what another manifest of the repository keeps there, where that saves looking.
    async fn learn_from(&self, former: &Digest, missing: &[&Upload]) -> Result<(), RegistryError> {
        let unknown = blobs(missing)
            .into_iter()
            .filter(|blob| blob.inline.is_none() && !self.client.is_known(&self.session.place, &blob.digest));
        if unknown.count() < 2 {
            return Ok(());
        }
        let mut next = vec![former.clone()];
        let mut left = MAXIMUM_FORMER;
        while let Some(digest) = next.pop().filter(|_| left > 0) {
            left -= 1;
            let kept = self.kept_by(&digest).await?;
            kept.blobs.iter().for_each(|blob| self.client.remember(&self.session.place, blob));
            next.extend(kept.manifests);
        }
        Ok(())
    }

    /// What a manifest names; nothing when it is gone or unreadable: it is only a guess.
    async fn kept_by(&self, digest: &Digest) -> Result<Kept, RegistryError> {
        let transport = &self.client.transport;
        let ask = async || {
            let request = transport.request(&self.session, Method::GET, &format!("manifests/{digest}"))?;
            let response = transport.send(&self.session, request).await?;
            if response.status() == StatusCode::OK {
                read(&self.session, response, MAXIMUM_MANIFEST).await
            } else {
                Ok(Vec::new())
            }
        };
        let bytes = transport.retried(&self.session, ask).await?;
        if Digest::sha256(&bytes) != *digest {
            return Ok(Kept::default());
        }
        Ok(Document::kept(&bytes).unwrap_or_default())
    }

    /// The image's blobs, and those of its manifests that have no tag; beside them the statements. When all of that is
    /// there, the last manifest can follow.
    async fn send_beside(&self, missing: &[&Upload]) -> Result<(), Trouble> {
        let Some((_, children)) = missing.split_last() else { return Ok(()) };
        let image = async {
            self.send_blobs(missing).await?;
            for child in children {
                self.put(child, &child.digest.to_string()).await?;
            }
            Ok(())
        };
        // Statements are made while the image is on its way.
        let statements = async { self.attach(&self.statements.clone().await).await };
        try_join(image, statements).await.map(drop)
    }

    /// Sends blobs of these manifests, each once, several at a time.
    pub async fn send_blobs(&self, uploads: &[&Upload]) -> Result<(), Trouble> {
        let transport = &self.client.transport;
        let blobs = blobs(uploads)
            .into_iter()
            .map(|blob| async move { transport.retried(&self.session, || self.blob(blob)).await });
        // Collected, so that callers can move the whole push between threads: a closure over references cannot be.
        let blobs: Vec<_> = blobs.collect();
        stream::iter(blobs).buffer_unordered(self.client.parallel).try_collect().await
    }

    pub async fn put(&self, upload: &Upload, version: &str) -> Result<Response, Trouble> {
        let what = format!("the manifest {}", upload.digest);
        let response = self.put_manifest(&upload.manifest, &upload.media_type, version, &what).await?;
        if let Some(got) = content_digest(&response).filter(|got| *got != upload.digest) {
            return Err(self
                .session
                .lies("an answer to a manifest", &upload.digest, format!("it took it for {got}"))
                .into());
        }
        let tag = self.target.tag.clone().filter(|tag| tag == version);
        (self.session.events)(Event::Manifest { digest: upload.digest.clone(), tag });
        Ok(response)
    }

    pub async fn put_manifest(
        &self,
        bytes: &[u8],
        media_type: &str,
        version: &str,
        what: &str,
    ) -> Result<Response, Trouble> {
        let transport = &self.client.transport;
        let media_type =
            HeaderValue::from_str(media_type).map_err(|error| self.session.malformed(error.to_string()))?;
        let ask = async || {
            let mut request = transport.request(&self.session, Method::PUT, &format!("manifests/{version}"))?;
            request.headers_mut().insert(CONTENT_TYPE, media_type.clone());
            *request.body_mut() = Some(bytes.to_vec().into());
            let wanted = [StatusCode::CREATED, StatusCode::ACCEPTED, StatusCode::OK];
            transport.expect(&self.session, request, &wanted, what).await
        };
        transport.retried(&self.session, ask).await
    }

    async fn finish(&self, upload: &Upload, version: &str, answer: Result<(), Trouble>) -> Result<(), RegistryError> {
        match answer {
            // A registry that keeps tags as they are refuses the same image, too, when somebody else was quicker.
            Err(trouble)
                if trouble.status.is_some_and(|status| status.is_client_error()) && self.target.tag.is_some() =>
            {
                match self.client.head_manifest(&self.session, version).await? {
                    Some(there) if there == upload.digest => Ok(()),
                    Some(there) => self.free(upload, &there).and(Err(trouble.error)),
                    None => Err(trouble.error),
                }
            }
            other => Ok(other?),
        }
    }
}

/// Blobs that these manifests name, each once, the large ones first.
fn blobs<'u>(uploads: &[&'u Upload]) -> Vec<&'u BlobRef> {
    let mut all: Vec<&BlobRef> = Vec::new();
    for blob in uploads.iter().flat_map(|upload| &upload.blobs) {
        if all.iter().all(|known| known.digest != blob.digest) {
            all.push(blob);
        }
    }
    all.sort_by_key(|blob| std::cmp::Reverse(blob.size));
    all
}

/// A manifest that was refused for blobs that are not there. Registries say so in various ways: with notes of an earlier
/// process in use, any complaint about the manifest counts.
fn lacks_blobs(trouble: &Trouble, by_notes: bool) -> bool {
    let unknown = |code: &String| matches!(code.as_str(), "MANIFEST_BLOB_UNKNOWN" | "BLOB_UNKNOWN");
    let complaint = matches!(trouble.status, Some(StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY));
    trouble.codes.iter().any(unknown) || (by_notes && complaint)
}
