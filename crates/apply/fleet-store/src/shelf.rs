//! [`Shelf`]: the generations of one environment as numbered objects, each made exactly once, in a folder or a bucket.
//!
//! Deliberately absent: what is in them.

use std::sync::Arc;

use futures::TryStreamExt;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload, Result, path::Path};

/// What follows the number in an object's name.
const EXTENSION: &str = ".json.zst";

/// Numbered objects below one folder.
#[derive(Clone)]
pub(crate) struct Shelf {
    objects: Arc<dyn ObjectStore>,
    folder: Path,
}

/// What a shelf holds.
pub(crate) struct Listed {
    /// Ascending.
    pub numbers: Vec<u64>,
    /// Objects with other names.
    pub strangers: Vec<Path>,
}

impl Shelf {
    pub fn new(objects: Arc<dyn ObjectStore>, folder: Path) -> Self {
        Self { objects, folder }
    }

    pub async fn list(&self) -> Result<Listed> {
        let listed: Vec<ObjectMeta> = self.objects.list(Some(&self.folder)).try_collect().await?;
        let mut found = Listed { numbers: Vec::new(), strangers: Vec::new() };
        for ObjectMeta { location, .. } in listed {
            let number = location.filename().and_then(|name| name.strip_suffix(EXTENSION)?.parse().ok());
            match number {
                Some(number) => found.numbers.push(number),
                None => found.strangers.push(location),
            }
        }
        found.numbers.sort_unstable();
        Ok(found)
    }

    pub async fn get(&self, number: u64) -> Result<Option<Vec<u8>>> {
        let read = async { self.objects.get(&self.place(number)).await?.bytes().await };
        match read.await {
            Ok(bytes) => Ok(Some(bytes.to_vec())),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes what is not there yet; false: something else is there.
    pub async fn put_new(&self, number: u64, bytes: Vec<u8>) -> Result<bool> {
        match self.objects.put_opts(&self.place(number), PutPayload::from(bytes), PutMode::Create.into()).await {
            Ok(_) => Ok(true),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Writes over what is there.
    pub async fn put(&self, number: u64, bytes: Vec<u8>) -> Result<()> {
        self.objects.put(&self.place(number), PutPayload::from(bytes)).await.map(drop)
    }

    /// No error when it is gone already.
    pub async fn remove(&self, number: u64) -> Result<()> {
        match self.objects.delete(&self.place(number)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Eight digits keep a listing by name in order.
    pub fn place(&self, number: u64) -> Path {
        self.folder.clone().join(format!("{number:08}{EXTENSION}"))
    }
}
