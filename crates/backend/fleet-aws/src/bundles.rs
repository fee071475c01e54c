//! Bundles of agents in the config bucket: named by what they hold, so that one that is there is right.

use fleet_plan::Bundle;
use object_store::{Error, ObjectStoreExt as _, PutMode, Result, path::Path};

use crate::account::Account;

impl Account {
    /// Puts a bundle where it is not yet. Returns whether it was put.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn ensure_bundle(&self, bucket: &str, key: &str, bundle: &Bundle) -> Result<bool> {
        let (bucket, key) = (self.own_bucket(bucket)?, Path::from(key));
        match bucket.head(&key).await {
            Ok(_) => return Ok(false),
            // Without leave to list the bucket, S3 says "forbidden" of what is not there.
            Err(Error::NotFound { .. } | Error::PermissionDenied { .. }) => {}
            Err(error) => return Err(error),
        }
        match bucket.put_opts(&key, bundle.text.clone().into(), PutMode::Create.into()).await {
            // A lost answer, or somebody else: its name says what is in it.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            put => put.map(|_| true),
        }
    }
}
