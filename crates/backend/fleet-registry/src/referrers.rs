//! [`Pushing::attach`]: statements about an image that are found from the image (OCI distribution 1.1, "referrers").
//! Where a registry has no API for them, an index under the tag `sha256-<hex>` lists them, as the specification says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::Ordering,
};

use fleet_oci::{Digest, index::INDEX_TYPE, upload::Upload};
use futures::{
    StreamExt as _, TryStreamExt as _,
    future::{try_join, try_join_all},
    stream,
};
use reqwest::{Method, StatusCode, header::HeaderName};
use serde_json::{Value, json};

use crate::{
    events::Notice,
    manifest::MAXIMUM_MANIFEST,
    push::Pushing,
    transport::{Trouble, read},
};

/// Said by registries that list a referrer themselves.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

impl Pushing<'_> {
    /// Has statements in the target's repository and sees to it that they are listed: what is not is written into the
    /// list of its subject, once for all. Where the list cannot be written a notice says so.
    pub async fn attach(&self, statements: &[Upload]) -> Result<(), Trouble> {
        let subjects: BTreeSet<&Digest> =
            statements.iter().filter_map(|statement| statement.subject.as_ref()).collect();
        // A list is read, changed and written by one push of this process at a time.
        let _alone = self.client.listing.lock().await;
        let known = async {
            // Where lists were needed last time they are read now, beside what else is sent.
            let early = subjects.into_iter().filter(|_| self.lists.load(Ordering::Relaxed));
            let read = early.map(|subject| async move { Ok((subject, self.listed_under(&list_of(subject)).await?)) });
            try_join_all(read).await
        };
        let (unlisted, known) = try_join(self.send_statements(statements), known).await?;
        let mut known: BTreeMap<&Digest, Vec<Value>> = known.into_iter().collect();
        for (subject, statements) in unlisted {
            let former = match known.remove(subject) {
                Some(former) => former,
                None => self.listed_under(&list_of(subject)).await?,
            };
            self.list(subject, former, &statements).await?;
        }
        Ok(())
    }

    /// Sends statements. Those that the registry does not list by itself are given back, by what they are about.
    async fn send_statements<'u>(
        &self,
        statements: &'u [Upload],
    ) -> Result<BTreeMap<&'u Digest, Vec<&'u Upload>>, Trouble> {
        let all: Vec<&Upload> = statements.iter().collect();
        self.send_blobs(&all).await?;
        let puts = statements.iter().map(|statement| async move {
            let response = self.put(statement, &statement.digest.to_string()).await?;
            Ok::<_, Trouble>((statement, response.headers().contains_key(OCI_SUBJECT)))
        });
        // In the order given, so that lists are the same wherever they are written.
        let put: Vec<_> = stream::iter(puts).buffered(self.client.parallel).try_collect().await?;
        let mut unlisted: BTreeMap<&Digest, Vec<&Upload>> = BTreeMap::new();
        for (statement, listed) in put {
            if let Some(subject) = statement.subject.as_ref().filter(|_| !listed) {
                unlisted.entry(subject).or_default().push(statement);
            }
        }
        Ok(unlisted)
    }

    /// Adds statements to what the list of their subject has.
    async fn list(&self, subject: &Digest, mut manifests: Vec<Value>, statements: &[&Upload]) -> Result<(), Trouble> {
        self.lists.store(true, Ordering::Relaxed);
        let tag = list_of(subject);
        let before = manifests.len();
        for statement in statements {
            let own = statement.digest.to_string();
            if manifests.iter().all(|entry| entry["digest"] != *own) {
                manifests.push(descriptor(statement));
            }
        }
        if manifests.len() == before {
            return Ok(());
        }
        let index = json!({"schemaVersion": 2, "mediaType": INDEX_TYPE, "manifests": manifests}).to_string();
        match self.put_manifest(index.as_bytes(), INDEX_TYPE, &tag, "a list of referrers").await {
            Err(Trouble { status: Some(status), error, .. }) if status.is_client_error() => {
                let why = error.to_string();
                let notices = statements.iter().map(|statement| Notice::ReferrerUnlisted {
                    digest: statement.digest.clone(),
                    subject: subject.clone(),
                    why: why.clone(),
                });
                self.tally(|pushed| pushed.notices.extend(notices));
                Ok(())
            }
            other => other.map(drop),
        }
    }

    /// What the tag lists; nothing when it is not there.
    async fn listed_under(&self, tag: &str) -> Result<Vec<Value>, Trouble> {
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
        let Some(bytes) = transport.retried(&self.session, ask).await? else { return Ok(Vec::new()) };
        let index: Value = serde_json::from_slice(&bytes)
            .map_err(|error| self.session.malformed(format!("the list of referrers {tag}: {error}")))?;
        let listed = index["manifests"].as_array().cloned();
        Ok(listed.ok_or_else(|| self.session.malformed(format!("{tag} is not a list of referrers")))?)
    }
}

/// The tag that lists what is said about something.
fn list_of(subject: &Digest) -> String {
    format!("{}-{}", subject.algorithm().name(), subject.hex())
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
