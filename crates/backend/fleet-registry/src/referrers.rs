//! [`Client::attach`]: statements about an image that are found from the image (OCI distribution 1.1, "referrers").
//! Where a registry has no API for them, an index under the tag `sha256-<hex>` lists them, as the specification says.

use std::io;

use async_trait::async_trait;
use fleet_oci::{
    Digest,
    index::INDEX_TYPE,
    upload::{BlobRef, Upload},
};
use reqwest::{Method, Response, StatusCode, header::HeaderName};
use serde_json::{Value, json};

use crate::{
    blob::{BlobSource, Origin},
    client::Client,
    error::RegistryError,
    events::{Events, Notice, Pushed},
    manifest::MAXIMUM_MANIFEST,
    push::Pushing,
    reference::Target,
    transport::{Trouble, read},
};

/// Said by registries that list a referrer themselves.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// All blobs are in the upload itself.
struct Inline;

#[async_trait]
impl BlobSource for Inline {
    fn origins(&self, _: &BlobRef) -> Vec<Origin> {
        Vec::new()
    }

    async fn open(&self, _: &BlobRef) -> io::Result<Option<std::fs::File>> {
        Ok(None)
    }
}

impl Client {
    /// Pushes a statement (an upload with a subject, whose blobs are inline) into the target's repository, and sees to it
    /// that it is listed. The target's tag plays no part. Where the list cannot be written, [`Pushed::notices`] says so.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn attach(
        &self,
        target: &Target,
        statement: &Upload,
        events: Events<'_>,
    ) -> Result<Pushed, RegistryError> {
        let by_digest = Target { tag: None, former: None, ..target.clone() };
        self.push(&by_digest, statement, &Inline, events).await
    }
}

impl Pushing<'_> {
    /// Lists a referrer that is there. `response` is the answer to its manifest, `None` when that was there before.
    pub async fn list(
        &self,
        upload: &Upload,
        subject: &Digest,
        response: Option<&Response>,
    ) -> Result<(), RegistryError> {
        let listed = match response {
            Some(response) => response.headers().contains_key(OCI_SUBJECT),
            None => self.has_api(subject).await?,
        };
        if listed {
            return Ok(());
        }
        let _alone = self.client.listing.lock().await;
        let tag = format!("{}-{}", subject.algorithm().name(), subject.hex());
        let mut manifests = self.listed_under(&tag).await?;
        let own = upload.digest.to_string();
        if manifests.iter().any(|entry| entry["digest"] == *own) {
            return Ok(());
        }
        manifests.push(descriptor(upload));
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}).to_string();
        match self.put_manifest(index.as_bytes(), INDEX_TYPE, &tag, "a list of referrers").await {
            Err(Trouble { status: Some(status), error, .. }) if status.is_client_error() => {
                let (digest, subject, why) = (upload.digest.clone(), subject.clone(), error.to_string());
                self.tally(|pushed| pushed.notices.push(Notice::ReferrerUnlisted { digest, subject, why }));
                Ok(())
            }
            other => Ok(other.map(drop)?),
        }
    }

    async fn has_api(&self, subject: &Digest) -> Result<bool, RegistryError> {
        let transport = &self.client.transport;
        let ask = async || {
            let request = transport.request(&self.session, Method::GET, &format!("referrers/{subject}"))?;
            Ok(transport.send(&self.session, request).await?.status() == StatusCode::OK)
        };
        Ok(transport.retried(&self.session, || ask()).await?)
    }

    /// What the tag lists; nothing when it is not there.
    async fn listed_under(&self, tag: &str) -> Result<Vec<Value>, RegistryError> {
        let transport = &self.client.transport;
        let ask = async || {
            let request = transport.request(&self.session, Method::GET, &format!("manifests/{tag}"))?;
            let response = transport.send(&self.session, request).await?;
            match response.status() {
                StatusCode::OK => read(&self.session, response, MAXIMUM_MANIFEST).await.map(Some),
                StatusCode::NOT_FOUND => Ok(None),
                _ => Err(transport.refused(&self.session, response, "a look at a list of referrers").await),
            }
        };
        let Some(bytes) = transport.retried(&self.session, || ask()).await? else { return Ok(Vec::new()) };
        let index: Value = serde_json::from_slice(&bytes)
            .map_err(|error| self.session.malformed(format!("the list of referrers {tag}: {error}")))?;
        index["manifests"]
            .as_array()
            .cloned()
            .ok_or_else(|| self.session.malformed(format!("{tag} is not a list of referrers")))
    }
}

/// How an index names a referrer.
fn descriptor(upload: &Upload) -> Value {
    let manifest: Value = serde_json::from_slice(&upload.manifest).unwrap_or_default();
    let kind = manifest.get("artifactType").or(manifest.pointer("/config/mediaType"));
    let mut entry = json!({
        "mediaType": upload.media_type, "digest": upload.digest.to_string(), "size": upload.manifest.len(),
    });
    for (key, value) in [("artifactType", kind), ("annotations", manifest.get("annotations"))] {
        if let Some(value) = value {
            entry[key] = value.clone();
        }
    }
    entry
}
