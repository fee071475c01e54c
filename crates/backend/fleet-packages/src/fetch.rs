//! [`Fetcher`]: downloads with retries, a bound on how many run at once, and every byte verified before it is kept.

use std::{
    io::Write,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use fleet_apply::{
    Retry, SystemClock,
    causes::innermost,
    retry::{Clock as _, Passing, retry_after},
};
use fleet_oci::{
    Digest,
    digest::{DigestError, HashingWriter},
};
use reqwest::{StatusCode, Url, header};

use crate::cache::BlobCache;

/// An index or API answer larger than this is refused.
const MAXIMUM_ANSWER: usize = 256 << 20;

/// What happens while something is fetched or made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// So many blobs are to be downloaded, of so many bytes (0 where sizes are not known).
    Started {
        /// Downloads.
        blobs: usize,
        /// Their bytes together, when known.
        bytes: u64,
    },
    /// A blob was downloaded and verified.
    Fetched {
        /// What it is, in words.
        name: String,
        /// Its length.
        bytes: u64,
    },
    /// A download failed and is tried again.
    Retrying {
        /// What it is.
        name: String,
        /// What went wrong.
        why: String,
    },
    /// A layer is being put together.
    Packing {
        /// Which, in words.
        name: String,
    },
}

/// Takes events; called from several threads.
pub type Progress = Arc<dyn Fn(Event) + Send + Sync>;

/// A blob that is needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// What it is, in words, for messages: `npm package a 1.0`.
    pub name: String,
    /// What it must hash to.
    pub digest: Digest,
    /// Its length when known, else 0.
    pub size: u64,
    /// Where it may be, tried in order.
    pub urls: Vec<String>,
}

/// Why something could not be fetched.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// No answer, after all tries.
    #[error("{url} cannot be reached: {why}; check the network, proxy and CA settings of this machine")]
    Unreachable {
        /// Without credentials.
        url: String,
        /// The client's words.
        why: String,
    },
    /// An answer that is not the thing.
    #[error("{url} answered {status}")]
    Status {
        /// Without credentials.
        url: String,
        /// HTTP status.
        status: u16,
        /// When it wants to be asked again.
        after: Option<Duration>,
    },
    /// Other bytes than were pinned.
    #[error("{name}: {url} sent bytes of {got}, pinned are {wanted}; the source changed or lies, nothing was kept")]
    Digest {
        /// What was fetched.
        name: String,
        /// From where.
        url: String,
        /// What it should be.
        wanted: Digest,
        /// What it is.
        got: Digest,
    },
    /// An answer beyond all bounds.
    #[error("{url} sends more than {limit} bytes")]
    TooLarge {
        /// From where.
        url: String,
        /// The bound.
        limit: usize,
    },
    /// No source had it.
    #[error("{name} is at none of its sources: {}", tried.join("; "))]
    Nowhere {
        /// What was wanted.
        name: String,
        /// Each address with what it said.
        tried: Vec<String>,
    },
    /// A pinned hash that is none.
    #[error(transparent)]
    Pin(#[from] DigestError),
    /// The cache cannot be written.
    #[error("the blob store cannot be used: {0}")]
    Cache(#[from] std::io::Error),
}

impl FetchError {
    /// Whether the thing is simply not there.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Status { status: 404 | 410, .. })
    }

    fn passing(&self) -> Option<Passing> {
        match self {
            Self::Unreachable { .. } => Some(Passing { after: None }),
            Self::Status { status, after, .. } if *status == 429 || *status >= 500 => Some(Passing { after: *after }),
            _ => None,
        }
    }
}

/// Fetches; clones share their connections.
#[derive(Clone)]
pub struct Fetcher {
    /// Made at the first download: it reads every certificate of the machine, and most builds download nothing.
    client: Arc<OnceLock<reqwest::Client>>,
    cache: Arc<dyn BlobCache>,
    progress: Progress,
}

impl Fetcher {
    /// A fetcher that keeps blobs in `cache` and reports to `progress`.
    #[must_use]
    pub fn new(cache: Arc<dyn BlobCache>, progress: Progress) -> Self {
        Self { client: Arc::default(), cache, progress }
    }

    fn client(&self) -> Result<&reqwest::Client, FetchError> {
        if let Some(made) = self.client.get() {
            return Ok(made);
        }
        let made = reqwest::Client::builder()
            .user_agent(concat!("fleetctl/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(Duration::from_secs(20))
            .read_timeout(Duration::from_secs(60))
            .build()
            .map_err(|error| unreachable_error("the network", &error))?;
        Ok(self.client.get_or_init(|| made))
    }

    /// Where blobs are kept.
    #[must_use]
    pub fn cache(&self) -> &Arc<dyn BlobCache> {
        &self.cache
    }

    pub(crate) fn report(&self, event: Event) {
        (self.progress)(event);
    }

    /// One blob.
    ///
    /// # Errors
    /// [`FetchError::Nowhere`] with what each source said, or the cache's error.
    pub async fn blob(&self, wanted: &Wanted) -> Result<PathBuf, FetchError> {
        if let Some(path) = self.cache.get(&wanted.digest) {
            return Ok(path);
        }
        let mut tried = Vec::new();
        for url in &wanted.urls {
            match self.retried(&wanted.name, || self.download(wanted, url)).await {
                Ok(path) => return Ok(path),
                Err(error @ FetchError::Cache(_)) => return Err(error),
                Err(error) => tried.push(error.to_string()),
            }
        }
        Err(FetchError::Nowhere { name: wanted.name.clone(), tried })
    }

    /// A small answer (an index, an API), whole.
    ///
    /// # Errors
    /// [`FetchError`].
    pub async fn answer(&self, url: &str, accept: &str) -> Result<Vec<u8>, FetchError> {
        self.retried(url, || async {
            let mut response = self.get(url, accept).await?;
            let mut bytes = Vec::new();
            while let Some(chunk) = response.chunk().await.map_err(|error| unreachable_error(url, &error))? {
                bytes.extend_from_slice(&chunk);
                if bytes.len() > MAXIMUM_ANSWER {
                    return Err(FetchError::TooLarge { url: shown(url), limit: MAXIMUM_ANSWER });
                }
            }
            Ok(bytes)
        })
        .await
    }

    async fn get(&self, url: &str, accept: &str) -> Result<reqwest::Response, FetchError> {
        let request = self.client()?.get(url).header(header::ACCEPT, accept);
        let response = request.send().await.map_err(|error| unreachable_error(url, &error))?;
        match response.status() {
            StatusCode::OK => Ok(response),
            status => {
                let header = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok());
                let after = header.and_then(|header| retry_after(header, SystemClock.now()));
                Err(FetchError::Status { url: shown(url), status: status.as_u16(), after })
            }
        }
    }

    async fn download(&self, wanted: &Wanted, url: &str) -> Result<PathBuf, FetchError> {
        let mut response = self.get(url, "*/*").await?;
        let file = self.cache.scratch()?;
        let mut writer = HashingWriter::new(std::io::BufWriter::new(file), wanted.digest.algorithm());
        let mut bytes = 0;
        while let Some(chunk) = response.chunk().await.map_err(|error| unreachable_error(url, &error))? {
            bytes += chunk.len() as u64;
            if wanted.size != 0 && bytes > wanted.size {
                return Err(FetchError::TooLarge { url: shown(url), limit: wanted.size as usize });
            }
            writer.write_all(&chunk)?;
        }
        let (buffer, got, _) = writer.finish();
        if got != wanted.digest {
            let wanted_digest = wanted.digest.clone();
            return Err(FetchError::Digest { name: wanted.name.clone(), url: shown(url), wanted: wanted_digest, got });
        }
        let file = buffer.into_inner().map_err(|failed| failed.into_error())?;
        let path = self.cache.put(&wanted.digest, file)?;
        self.report(Event::Fetched { name: wanted.name.clone(), bytes });
        Ok(path)
    }

    async fn retried<T, F: Future<Output = Result<T, FetchError>>>(
        &self,
        name: &str,
        attempt: impl Fn() -> F,
    ) -> Result<T, FetchError> {
        let tell = |error: &FetchError, _| {
            self.report(Event::Retrying { name: shown(name), why: error.to_string() });
        };
        Retry::network(&SystemClock).run(attempt, FetchError::passing, tell).await
    }
}

/// An address without the credentials it may carry.
pub(crate) fn shown(url: &str) -> String {
    match Url::parse(url) {
        Ok(mut url) if !url.username().is_empty() || url.password().is_some() => {
            // Only addresses without a host refuse this, and they carry no credentials.
            let _ = url.set_username("");
            let _ = url.set_password(None);
            url.to_string()
        }
        _ => url.to_owned(),
    }
}

fn unreachable_error(url: &str, error: &reqwest::Error) -> FetchError {
    let why = match std::error::Error::source(error) {
        Some(cause) => innermost(cause),
        None if error.is_timeout() => "no answer in time".to_owned(),
        None => "the connection broke".to_owned(),
    };
    FetchError::Unreachable { url: shown(url), why }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_in_an_address_are_never_shown() {
        assert_eq!(shown("https://joe:hunter2@host/simple/"), "https://host/simple/");
        assert_eq!(shown("https://host/simple/"), "https://host/simple/");
    }
}
