//! Objects that are named by what they hold, so that one that is there is right: bundles of agents in the config bucket, and
//! templates too large for a request in the state bucket.

use fleet_plan::Bundle;
use object_store::{Error, ObjectStoreExt as _, PutMode, Result, path::Path};
use sha2::{Digest as _, Sha256};

use crate::account::Account;

/// Where templates are, in the state bucket.
pub(crate) const TEMPLATES: &str = "templates";

impl Account {
    /// Puts a bundle where it is not yet. Returns whether it was put.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn ensure_bundle(&self, bucket: &str, key: &str, bundle: &Bundle) -> Result<bool> {
        self.ensure_object(bucket, key, &bundle.text).await
    }

    /// Puts a template where it is not yet. Returns the address that CloudFormation reads it at.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn ensure_template(&self, bucket: &str, template: &str) -> Result<String> {
        let key = format!("{TEMPLATES}/{}.json", hex::encode(Sha256::digest(template.as_bytes())));
        self.ensure_object(bucket, &key, template).await?;
        Ok(format!("{}/{key}", self.place.bucket_address(bucket)))
    }

    async fn ensure_object(&self, bucket: &str, key: &str, text: &str) -> Result<bool> {
        let (bucket, key) = (self.own_bucket(bucket)?, Path::from(key));
        match bucket.head(&key).await {
            Ok(_) => return Ok(false),
            // Without leave to list the bucket, S3 says "forbidden" of what is not there.
            Err(Error::NotFound { .. } | Error::PermissionDenied { .. }) => {}
            Err(error) => return Err(error),
        }
        match bucket.put_opts(&key, text.to_owned().into(), PutMode::Create.into()).await {
            // A lost answer, or somebody else: its name says what is in it.
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(false),
            put => put.map(|_| true),
        }
    }
}
