//! [`Pinned`]: what the three ecosystems' lock entries have in common when their archives are fetched.

use std::path::PathBuf;

use fleet_oci::{Digest, digest::DigestError};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::{
    fetch::{Event, FetchError, Wanted},
    realize::Workshop,
};

/// Downloads at a time: enough to hide latency, few enough for a mirror's limits.
const PARALLEL: usize = 12;

/// A pinned archive.
pub(crate) trait Pinned: Sync {
    /// In words, for messages.
    fn title(&self) -> String;
    /// What it must hash to.
    fn digest(&self) -> Result<Digest, DigestError>;
    /// Bytes when known, else 0.
    fn size(&self) -> u64;
    /// Where it is usually found; may ask an index.
    fn urls(&self, workshop: &Workshop) -> impl Future<Output = Result<Vec<String>, FetchError>> + Send;
    /// Where else it may be, when it is not there.
    fn more_urls(&self, workshop: &Workshop) -> impl Future<Output = Result<Vec<String>, FetchError>> + Send;
}

/// All archives in the order of their pins: from the store, else downloaded, several at a time.
pub(crate) async fn fetch_all<P: Pinned>(workshop: &Workshop, pins: &[P]) -> Result<Vec<PathBuf>, FetchError> {
    let mut missing = (0, 0);
    for pin in pins {
        if workshop.fetcher.cache().get(&pin.digest()?).is_none() {
            missing = (missing.0 + 1, missing.1 + pin.size());
        }
    }
    if missing.0 > 0 {
        workshop.fetcher.report(Event::Started { blobs: missing.0, bytes: missing.1 });
    }
    let mut fetches = Vec::with_capacity(pins.len());
    for pin in pins {
        fetches.push(fetch(workshop, pin));
    }
    stream::iter(fetches).buffered(PARALLEL).try_collect().await
}

async fn fetch<P: Pinned>(workshop: &Workshop, pin: &P) -> Result<PathBuf, FetchError> {
    let digest = pin.digest()?;
    if let Some(path) = workshop.fetcher.cache().get(&digest) {
        return Ok(path);
    }
    let mut tried = Vec::new();
    for first in [true, false] {
        let urls = if first { pin.urls(workshop).await } else { pin.more_urls(workshop).await };
        let urls = urls.unwrap_or_else(|error| {
            tried.push(error.to_string());
            Vec::new()
        });
        let wanted = Wanted { name: pin.title(), digest: digest.clone(), size: pin.size(), urls };
        match workshop.fetcher.blob(&wanted).await {
            Err(FetchError::Nowhere { tried: more, .. }) => tried.extend(more),
            result => return result,
        }
    }
    Err(FetchError::Nowhere { name: pin.title(), tried })
}
