//! [`Mailbox`]: the objects of one environment in its bucket, read within bounds and vouched for.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{
    Error, GetOptions, ObjectMeta, ObjectStore, PutMode, PutPayload, local::LocalFileSystem, path::Path,
};

use crate::protocol::{self, Key, Line, Refused, Seen};

/// No object is read beyond this: accounts and rooms of 10,000 agents take a tenth of it.
const LARGEST: u64 = 64 << 20;

/// Where operator and manager meet.
#[derive(Clone)]
pub struct Mailbox {
    store: Arc<dyn ObjectStore>,
    /// Vouches for what is in it.
    pub key: Key,
}

/// Why an object could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// The bucket refused, or did not answer.
    #[error("{doing} {object} failed: {source}")]
    Store {
        /// `reading`, `writing`, `listing`.
        doing: &'static str,
        /// Which object.
        object: String,
        /// Why.
        #[source]
        source: Error,
    },
    /// Larger than anything that we write.
    #[error("{object} has {size} bytes, which is no object of ours")]
    TooLarge {
        /// Which.
        object: String,
        /// Its size.
        size: u64,
    },
    /// Another manager goes on with the same work.
    #[error("{0} was written by another manager: it goes on with this work")]
    Overtaken(String),
}

fn failed(doing: &'static str, object: &str) -> impl Fn(Error) -> MailError {
    let object = object.to_owned();
    move |source| MailError::Store { doing, object: object.clone(), source }
}

/// A piece of progress, or why it is none.
pub(crate) type Piece = (u32, Result<Vec<Line>, Refused>);

impl Mailbox {
    /// A bucket and the key of the environment.
    #[must_use]
    pub fn new(store: Arc<dyn ObjectStore>, key: Key) -> Self {
        Self { store, key }
    }

    /// A folder in place of a bucket.
    ///
    /// # Errors
    /// One that is not there.
    pub fn folder(folder: &std::path::Path, key: Key) -> Result<Self, MailError> {
        let store =
            LocalFileSystem::new_with_prefix(folder).map_err(failed("opening", &folder.display().to_string()))?;
        Ok(Self::new(Arc::new(store), key))
    }

    /// An object; `None` where there is none.
    pub(crate) async fn get(&self, object: &str) -> Result<Option<Vec<u8>>, MailError> {
        let error = failed("reading", object);
        let found = match self.store.get_opts(&Path::from(object), GetOptions::default()).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            // S3 says so of what is not there, to whom may list only some of a bucket.
            Err(Error::PermissionDenied { .. }) if !self.is_listed(object).await? => return Ok(None),
            Err(other) => return Err(error(other)),
        };
        if found.meta.size > LARGEST {
            return Err(MailError::TooLarge { object: object.to_owned(), size: found.meta.size });
        }
        Ok(Some(found.bytes().await.map_err(error)?.to_vec()))
    }

    async fn is_listed(&self, object: &str) -> Result<bool, MailError> {
        let folder = object.rsplit_once('/').map_or("", |(folder, _)| folder);
        let listed =
            self.store.list_with_delimiter(Some(&Path::from(folder))).await.map_err(failed("listing", folder))?;
        Ok(listed.objects.iter().any(|meta| meta.location.as_ref() == object))
    }

    /// Writes an object that is not there yet; false: one is there.
    pub(crate) async fn put_new(&self, object: &str, text: String) -> Result<bool, MailError> {
        let path = Path::from(object);
        match self.store.put_opts(&path, PutPayload::from(text), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(failed("writing", object)(error)),
        }
    }

    /// Writes an object over the one that is there.
    pub(crate) async fn put(&self, object: &str, text: String) -> Result<(), MailError> {
        let path = Path::from(object);
        let put = self.store.put_opts(&path, PutPayload::from(text), PutMode::Overwrite.into()).await;
        put.map(drop).map_err(failed("writing", object))
    }

    async fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>, MailError> {
        let listed = self.store.list(Some(&Path::from(folder)));
        listed.try_collect().await.map_err(failed("listing", folder))
    }

    /// Ids of all objects of work, the oldest first.
    pub(crate) async fn work_ids(&self) -> Result<Vec<String>, MailError> {
        let mut listed = self.list(protocol::WORK).await?;
        listed.sort_by(|a, b| (a.last_modified, &a.location).cmp(&(b.last_modified, &b.location)));
        let id = |meta: &ObjectMeta| Some(meta.location.filename()?.strip_suffix(".json")?.to_owned());
        Ok(listed.iter().filter_map(id).collect())
    }

    /// Pieces of progress after number `after`, in order. One that nobody vouches for says so.
    pub(crate) async fn pieces(&self, id: &str, after: u32) -> Result<Vec<Piece>, MailError> {
        let folder = protocol::progress_folder(id);
        let listed = match after {
            0 => self.list(&folder).await?,
            _ => {
                let offset = Path::from(protocol::piece_object(id, after));
                let listed = self.store.list_with_offset(Some(&Path::from(folder.as_str())), &offset);
                listed.try_collect().await.map_err(failed("listing", &folder))?
            }
        };
        let mut numbers: Vec<u32> =
            listed.iter().filter_map(|meta| protocol::piece_number(meta.location.filename()?)).collect();
        numbers.retain(|number| *number > after);
        numbers.sort_unstable();
        let mut pieces = Vec::with_capacity(numbers.len());
        for number in numbers {
            // One that went away since it was listed is lost; a later one has the summary.
            if let Some(bytes) = self.get(&protocol::piece_object(id, number)).await? {
                pieces.push((number, protocol::open_piece(&self.key, id, number, &bytes)));
            }
        }
        Ok(pieces)
    }

    /// What was seen last; `None` where nobody has looked yet.
    pub(crate) async fn seen(
        &self,
        fleet: &str,
        environment: &str,
    ) -> Result<Option<Result<Seen, Refused>>, MailError> {
        let bytes = self.get(protocol::OBSERVED).await?;
        Ok(bytes.map(|bytes| Seen::open(&self.key, fleet, environment, &bytes)))
    }
}
