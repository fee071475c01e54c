//! [`resolve`] and [`pull`].

use std::{
    io::{self, BufReader, Read, Write},
    sync::Arc,
};

use fleet_oci::{
    Digest, LayerDescriptor, Platform,
    compress::unpacked,
    digest::{Algorithm, HashingWriter},
    image::{Base, read_config},
    read_tar::MAXIMUM_UNPACKED,
};
use fleet_store::{BlobError, BlobId, Store};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use oci_client::{
    Client, Reference,
    client::{ClientConfig, ClientProtocol},
    manifest::OciDescriptor,
    secrets::RegistryAuth,
};

use crate::{
    error::RegistryError,
    manifest::{ACCEPTED, Blob, Document, Kind},
};

/// Layers that are pulled at a time.
const PARALLEL: usize = 4;
/// A config larger than this is refused.
const MAXIMUM_CONFIG: u64 = 8 << 20;

/// The digest of the manifest that a reference means on a platform, now.
///
/// # Errors
/// [`RegistryError`].
pub async fn resolve(reference: &str, platform: Platform) -> Result<Digest, RegistryError> {
    let source = Source::new(reference)?;
    let (digest, kind) = source.manifest(source.reference.clone(), None, platform).await?;
    match kind {
        Kind::Image { .. } => Ok(digest),
        Kind::Index(Some(digest)) => Ok(digest),
        Kind::Index(None) => Err(source.absent(format!("has no image for {platform}"))),
    }
}

/// Pulls an image by digest: its layers' blobs into the store, verified down to their diff ids, and what an image
/// needs to stand on it. Blobs that are there already are not fetched again.
///
/// # Errors
/// [`RegistryError`]; what was complete by then stays in the store.
pub async fn pull(
    reference: &str,
    digest: &Digest,
    platform: Platform,
    store: Arc<Store>,
) -> Result<Base, RegistryError> {
    let source = Source::new(reference)?;
    let by_digest = source.reference.clone_with_digest(digest.to_string());
    let (_, kind) = source.manifest(by_digest, Some(digest), platform).await?;
    let Kind::Image { config, layers } = kind else {
        let why = "the pinned digest is an index of several images; run `fleetctl lock` again".to_owned();
        return Err(RegistryError::Malformed { reference: reference.to_owned(), why });
    };
    if config.size > MAXIMUM_CONFIG {
        return Err(source.malformed(format!("its config has {} bytes", config.size)));
    }
    source.blob(&config, "a config", &store).await?;
    let json = store.read_blob(&id_of(&config.digest)?)?.unwrap_or_default();
    let (settings, diff_ids) = read_config(&json).map_err(|error| source.malformed(error.to_string()))?;
    if diff_ids.len() != layers.len() {
        let why = format!("{} layers in its manifest, {} in its config", layers.len(), diff_ids.len());
        return Err(source.malformed(why));
    }
    let source = &source;
    let store = &store;
    let pulls = layers.into_iter().zip(diff_ids).map(|(blob, diff_id)| source.layer(blob, diff_id, store));
    let layers = stream::iter(pulls).buffered(PARALLEL).try_collect().await?;
    Ok(Base { config: settings, layers })
}

/// A registry, as seen for one image.
struct Source {
    written: String,
    reference: Reference,
    client: Client,
}

impl Source {
    fn new(written: &str) -> Result<Self, RegistryError> {
        let reference: Reference = written.parse().map_err(|error: oci_client::ParseError| {
            RegistryError::Reference { reference: written.to_owned(), why: error.to_string() }
        })?;
        let registry = reference.resolve_registry();
        // Without TLS only where nobody can listen in.
        let protocol = if is_loopback(registry) {
            ClientProtocol::HttpsExcept(vec![registry.to_owned()])
        } else {
            ClientProtocol::Https
        };
        let client = Client::new(ClientConfig { protocol, user_agent: "fleetctl", ..ClientConfig::default() });
        Ok(Self { written: written.to_owned(), reference, client })
    }

    fn malformed(&self, why: String) -> RegistryError {
        RegistryError::Malformed { reference: self.written.clone(), why }
    }

    fn absent(&self, what: String) -> RegistryError {
        RegistryError::Absent { reference: self.written.clone(), what }
    }

    fn lies(&self, what: &'static str, wanted: &Digest, why: String) -> RegistryError {
        RegistryError::Lies { reference: self.written.clone(), what, wanted: wanted.clone(), why }
    }

    async fn manifest(
        &self,
        reference: Reference,
        wanted: Option<&Digest>,
        platform: Platform,
    ) -> Result<(Digest, Kind), RegistryError> {
        let pulled = self.client.pull_manifest_raw(&reference, &RegistryAuth::Anonymous, &ACCEPTED).await;
        let (bytes, _) = pulled.map_err(|error| match (&error, wanted) {
            (oci_client::errors::OciDistributionError::DigestError(why), Some(wanted)) => {
                self.lies("a manifest", wanted, why.to_string())
            }
            _ => RegistryError::of(&self.written, error),
        })?;
        let digest = Digest::sha256(&bytes);
        if let Some(wanted) = wanted.filter(|wanted| **wanted != digest) {
            return Err(self.lies("a manifest", wanted, format!("it is {digest}")));
        }
        let kind = Document::parse(&bytes, platform).map_err(|why| self.malformed(why))?;
        Ok((digest, kind))
    }

    /// Has the blob in the store, verified.
    async fn blob(&self, blob: &Blob, what: &'static str, store: &Store) -> Result<(), RegistryError> {
        let id = id_of(&blob.digest)?;
        if store.blob_path(&id).is_some() {
            return Ok(());
        }
        let descriptor = OciDescriptor {
            media_type: blob.media_type.clone(),
            digest: blob.digest.to_string(),
            size: i64::try_from(blob.size).unwrap_or(i64::MAX),
            ..OciDescriptor::default()
        };
        let failed = |error| RegistryError::of(&self.written, error);
        let pulled = self.client.pull_blob_stream(&self.reference, &descriptor).await.map_err(failed)?;
        let mut bytes = pulled.stream;
        let mut writer = store.blob_writer(id.algorithm())?;
        let mut length = 0;
        while let Some(piece) = bytes.next().await {
            let piece = piece.map_err(|error| self.broken(what, &blob.digest, &error))?;
            length += piece.len() as u64;
            if length > blob.size {
                return Err(self.lies(what, &blob.digest, format!("it is longer than {} bytes", blob.size)));
            }
            let written = writer.write_all(&piece);
            written.map_err(|error| self.broken(what, &blob.digest, &error))?;
        }
        match writer.finish(Some(&id)) {
            Err(BlobError::Mismatch { found, .. }) => {
                Err(self.lies(what, &blob.digest, format!("{length} of {} bytes came, of {found:?}", blob.size)))
            }
            other => Ok(other.map(drop)?),
        }
    }

    /// The client checks digests while it reads: what it reports as an error of the stream may be either.
    fn broken(&self, what: &'static str, wanted: &Digest, error: &io::Error) -> RegistryError {
        let why = error.to_string();
        if why.to_lowercase().contains("digest") {
            return self.lies(what, wanted, why);
        }
        RegistryError::Unreachable { reference: self.written.clone(), why: format!("{what} broke off: {why}") }
    }

    async fn layer(
        &self,
        blob: Blob,
        diff_id: Digest,
        store: &Arc<Store>,
    ) -> Result<LayerDescriptor, RegistryError> {
        self.blob(&blob, "a layer", store).await?;
        let file = store.open_blob(&id_of(&blob.digest)?)?;
        let media_type = blob.oci_type().to_owned();
        let hashed = tokio::task::spawn_blocking(move || {
            let file = file.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            let mut hash = HashingWriter::new(io::sink(), Algorithm::Sha256);
            let tar = unpacked(&media_type, BufReader::new(file))?;
            io::copy(&mut tar.take(MAXIMUM_UNPACKED), &mut hash)?;
            let (_, digest, length) = hash.finish();
            Ok((media_type, digest, length))
        });
        let hashed = hashed.await.unwrap_or_else(|stopped| Err(io::Error::other(stopped)));
        let hashed: Result<(String, Digest, u64), io::Error> = hashed;
        let (media_type, found, uncompressed) =
            hashed.map_err(|error| self.lies("a layer", &blob.digest, format!("it cannot be unpacked: {error}")))?;
        if found != diff_id {
            let why = format!("the tar inside is {found}, its config says {diff_id}");
            return Err(self.lies("a layer", &blob.digest, why));
        }
        Ok(LayerDescriptor { media_type, digest: blob.digest, diff_id, size: blob.size, uncompressed })
    }
}

fn id_of(digest: &Digest) -> Result<BlobId, RegistryError> {
    let algorithm = match digest.algorithm() {
        Algorithm::Sha256 => fleet_store::Algorithm::Sha256,
        Algorithm::Sha512 => fleet_store::Algorithm::Sha512,
    };
    BlobId::new(algorithm, digest.hex())
        .map_err(|error| RegistryError::Malformed { reference: digest.to_string(), why: error.to_string() })
}

fn is_loopback(registry: &str) -> bool {
    let host = registry.rsplit_once(':').map_or(registry, |(host, _)| host).trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_spoken_to_without_tls() {
        for (registry, loopback) in
            [("localhost:5000", true), ("127.0.0.1", true), ("[::1]:5000", true), ("10.0.0.1:5000", false), ("localhost.example", false)]
        {
            assert_eq!(is_loopback(registry), loopback, "{registry}");
        }
    }
}
