//! [`Client::resolve`], [`Client::describe`] and [`Client::pull`].

use std::{
    io::{BufReader, Write},
    sync::{Arc, atomic::AtomicUsize},
};

use fleet_oci::{
    Digest, LayerDescriptor, Platform,
    digest::Algorithm,
    image::{Base, read_config},
    inspect::inspect_layer,
};
use fleet_store::{BlobError, BlobId, RecordId, Store};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;

use crate::{
    blob::Origin,
    client::{Client, Inner, session},
    error::RegistryError,
    manifest::{Blob, Document, Kind, MAXIMUM_MANIFEST},
    reference::{Named, Place},
    transport::{Session, Trouble, piece, read},
};

/// A config larger than this is refused.
pub(crate) const MAXIMUM_CONFIG: u64 = 8 << 20;
/// So many indexes may stand around an image.
pub(crate) const MAXIMUM_INDEXES: usize = 3;

impl Client {
    /// The digest of the image manifest that a reference means on a platform, now.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn resolve(&self, reference: &str, platform: Platform) -> Result<Digest, RegistryError> {
        let pulling = Pulling::new(&self.0, reference)?;
        let mut version = pulling.named.version.clone();
        for depth in 0..=MAXIMUM_INDEXES {
            let (digest, kind) = pulling.manifest(&version, platform).await?;
            match kind {
                Kind::Image { config, .. } => {
                    // An index has said what it is for.
                    if depth == 0 {
                        pulling.is_for(&config, platform).await?;
                    }
                    return Ok(digest);
                }
                Kind::Index(Some(inner)) => version = inner.to_string(),
                Kind::Index(None) => return Err(pulling.absent(format!("has no image for {platform}"))),
            }
        }
        Err(pulling.malformed(format!("an index in an index, more than {MAXIMUM_INDEXES} deep")))
    }

    /// What an image is made of, without its layers' bytes: settings and layers of a base that is only referred to, which
    /// stay where they are. Its manifest and config are kept in the store, so that the next time nobody is asked. Of a layer
    /// that nobody unpacked here `uncompressed` is 0, and its diff id is the config's word.
    ///
    /// # Errors
    /// [`RegistryError`].
    pub async fn describe(
        &self,
        reference: &str,
        digest: &Digest,
        platform: Platform,
        store: &Store,
    ) -> Result<Base, RegistryError> {
        let pulling = Pulling::new(&self.0, reference)?;
        let (config, layers) = pulling.described(digest, platform, store).await?;
        let described = |(blob, diff_id): (Blob, Digest)| {
            inspected(store, &blob, &diff_id).unwrap_or_else(|| LayerDescriptor {
                media_type: blob.oci_type().to_owned(),
                digest: blob.digest,
                diff_id,
                size: blob.size,
                uncompressed: 0,
            })
        };
        Ok(Base { config, layers: layers.into_iter().map(described).collect() })
    }

    /// Pulls an image by digest: its manifest and blobs into the store, verified down to their diff ids, and what an
    /// image needs to stand on it. What is there already is not fetched again: of a whole image nobody is asked.
    ///
    /// # Errors
    /// [`RegistryError`]; what was complete by then stays in the store.
    pub async fn pull(
        &self,
        reference: &str,
        digest: &Digest,
        platform: Platform,
        store: Arc<Store>,
    ) -> Result<Base, RegistryError> {
        let pulling = Pulling::new(&self.0, reference)?;
        let (settings, layers) = pulling.described(digest, platform, &store).await?;
        let (pulling, store) = (&pulling, &store);
        let pulls = layers.into_iter().map(|(blob, diff_id)| pulling.layer(blob, diff_id, store));
        let layers = stream::iter(pulls).buffered(self.0.parallel).try_collect().await?;
        Ok(Base { config: settings, layers })
    }
}

/// One image being pulled.
struct Pulling<'a> {
    client: &'a Inner,
    named: Named,
    /// The mirrors, then the registry.
    places: Vec<Place>,
    requests: AtomicUsize,
}

/// What is asked of whichever place has it.
enum Ask<'a> {
    Manifest { version: &'a str },
    Small { blob: &'a Blob, what: &'static str },
    Layer { blob: &'a Blob, store: &'a Store },
}

impl<'a> Pulling<'a> {
    fn new(client: &'a Inner, written: &str) -> Result<Self, RegistryError> {
        let named = Named::parse(written)?;
        let places = client.mirrors.places(&named.place);
        Ok(Self { client, named, places, requests: AtomicUsize::new(0) })
    }

    fn session(&self, place: &Place) -> Session<'_> {
        session(&self.named.written, place.clone(), &self.requests, &|_| {})
    }

    fn malformed(&self, why: impl Into<String>) -> RegistryError {
        RegistryError::Malformed { reference: self.named.written.clone(), why: why.into() }
    }

    fn absent(&self, what: String) -> RegistryError {
        RegistryError::Absent { reference: self.named.written.clone(), what }
    }

    /// Asks the mirrors once each, then the registry with patience. A place that lies is not passed over in silence.
    async fn get(&self, ask: &Ask<'_>) -> Result<Vec<u8>, RegistryError> {
        let mut said = Vec::new();
        let Some((registry, mirrors)) = self.places.split_last() else { return Ok(Vec::new()) };
        for mirror in mirrors {
            let session = self.session(mirror);
            match self.ask(&session, ask).await {
                Ok(bytes) => return Ok(bytes),
                Err(Trouble { error: error @ (RegistryError::Lies { .. } | RegistryError::Store(_)), .. }) => {
                    return Err(via_mirror(error, mirror));
                }
                Err(trouble) => said.push(format!("its mirror {}: {}", mirror.shown(), trouble.error)),
            }
        }
        let session = self.session(registry);
        let answer = self.client.transport.retried(&session, || self.ask(&session, ask)).await;
        answer.map_err(|trouble| match trouble.error {
            RegistryError::Unreachable { reference, why } => {
                let why = [vec![why], said].concat().join("; ");
                RegistryError::Unreachable { reference, why }
            }
            other => other,
        })
    }

    async fn ask(&self, session: &Session<'_>, ask: &Ask<'_>) -> Result<Vec<u8>, Trouble> {
        match ask {
            Ask::Manifest { version } => {
                let response = self.client.get(session, &format!("manifests/{version}"), "a manifest").await?;
                let bytes = read(session, response, MAXIMUM_MANIFEST).await?;
                verified(session, "a manifest", version.parse().ok().as_ref(), bytes)
            }
            Ask::Small { blob, what } => {
                if blob.size > MAXIMUM_CONFIG {
                    return Err(session.malformed(format!("{what} of {} bytes", blob.size)).into());
                }
                let response = self.client.get(session, &format!("blobs/{}", blob.digest), what).await?;
                let bytes =
                    read(session, response, blob.size as usize).await.map_err(|trouble| match trouble.error {
                        RegistryError::Malformed { why, .. } => session.lies(what, &blob.digest, why).into(),
                        _ => trouble,
                    })?;
                verified(session, what, Some(&blob.digest), bytes)
            }
            Ask::Layer { blob, store } => self.download(session, blob, store).await.map(|()| Vec::new()),
        }
    }

    async fn manifest(&self, version: &str, platform: Platform) -> Result<(Digest, Kind), RegistryError> {
        let bytes = self.get(&Ask::Manifest { version }).await?;
        let kind = Document::parse(&bytes, platform).map_err(|why| self.malformed(why))?;
        Ok((Digest::sha256(&bytes), kind))
    }

    /// A manifest or config out of the store, else what is asked, then stored.
    async fn stored(&self, digest: &Digest, ask: &Ask<'_>, store: &Store) -> Result<Vec<u8>, RegistryError> {
        let id = id_of(digest)?;
        if let Some(bytes) = store.read_blob(&id)? {
            return Ok(bytes);
        }
        let bytes = self.get(ask).await?;
        store.put_blob_expecting(&id, &bytes)?;
        Ok(bytes)
    }

    /// The settings of a pinned image and its layers with their diff ids; where they are is remembered.
    async fn described(
        &self,
        digest: &Digest,
        platform: Platform,
        store: &Store,
    ) -> Result<(fleet_oci::ImageConfig, Vec<(Blob, Digest)>), RegistryError> {
        let manifest = self.stored(digest, &Ask::Manifest { version: &digest.to_string() }, store).await?;
        let (config, layers) = self.image_in(&manifest, platform)?;
        let json = self.stored(&config.digest, &Ask::Small { blob: &config, what: "a config" }, store).await?;
        let (settings, diff_ids) = self.settings(&json, layers.len())?;
        let place = &self.named.place;
        let origin = Origin { registry: place.registry.clone(), repository: place.repository.clone() };
        layers.iter().for_each(|layer| origin.note(store, &layer.digest));
        Ok((settings, layers.into_iter().zip(diff_ids).collect()))
    }

    /// The config and layers of a pinned image.
    fn image_in(&self, manifest: &[u8], platform: Platform) -> Result<(Blob, Vec<Blob>), RegistryError> {
        match Document::parse(manifest, platform).map_err(|why| self.malformed(why))? {
            Kind::Image { config, layers } => Ok((config, layers)),
            Kind::Index(_) => {
                Err(self.malformed("the pinned digest is an index of several images; run `fleetctl lock` again"))
            }
        }
    }

    /// An image outside an index says in its config what it runs on.
    async fn is_for(&self, config: &Blob, platform: Platform) -> Result<(), RegistryError> {
        #[derive(Deserialize)]
        struct Built {
            os: String,
            architecture: String,
        }
        let json = self.get(&Ask::Small { blob: config, what: "a config" }).await?;
        let built: Built =
            serde_json::from_slice(&json).map_err(|error| self.malformed(format!("its config: {error}")))?;
        if (built.os.as_str(), built.architecture.as_str()) == (platform.os(), platform.architecture()) {
            return Ok(());
        }
        Err(self.absent(format!("has no image for {platform}, only for {}/{}", built.os, built.architecture)))
    }

    fn settings(&self, json: &[u8], layers: usize) -> Result<(fleet_oci::ImageConfig, Vec<Digest>), RegistryError> {
        let (settings, diff_ids) = read_config(json).map_err(|error| self.malformed(error.to_string()))?;
        if diff_ids.len() == layers {
            return Ok((settings, diff_ids));
        }
        Err(self.malformed(format!("{layers} layers in its manifest, {} in its config", diff_ids.len())))
    }

    /// Has the blob in the store, verified.
    async fn download(&self, session: &Session<'_>, blob: &Blob, store: &Store) -> Result<(), Trouble> {
        const WHAT: &str = "a layer";
        let id = id_of(&blob.digest)?;
        let mut response = self.client.get(session, &format!("blobs/{}", blob.digest), WHAT).await?;
        let mut writer = store.blob_writer(id.algorithm()).map_err(RegistryError::from)?;
        let mut length = 0;
        while let Some(piece) = piece(session, &mut response).await? {
            length += piece.len() as u64;
            if length > blob.size {
                return Err(session.lies(WHAT, &blob.digest, format!("it is longer than {} bytes", blob.size)).into());
            }
            writer.write_all(&piece).map_err(|source| {
                let path = store.root().to_owned();
                RegistryError::from(BlobError::Io { doing: "write", path, source })
            })?;
        }
        match writer.finish(Some(&id)) {
            Err(BlobError::Mismatch { found, .. }) => {
                let why = format!("{length} of {} bytes came, of {found}", blob.size);
                Err(session.lies(WHAT, &blob.digest, why).into())
            }
            other => Ok(other.map(drop).map_err(RegistryError::from)?),
        }
    }

    async fn layer(&self, blob: Blob, diff_id: Digest, store: &Arc<Store>) -> Result<LayerDescriptor, RegistryError> {
        let id = id_of(&blob.digest)?;
        if store.blob_path(&id).is_none() {
            self.get(&Ask::Layer { blob: &blob, store }).await?;
        }
        if let Some(known) = inspected(store, &blob, &diff_id) {
            return Ok(known);
        }
        let lies = |why: String| RegistryError::Lies {
            reference: self.named.written.clone(),
            what: "a layer",
            wanted: blob.digest.clone(),
            why,
        };
        let file = store.open_blob(&id)?.ok_or_else(|| lies("it vanished from the store".to_owned()))?;
        let (media_type, size) = (blob.oci_type().to_owned(), blob.size);
        let looked = tokio::task::spawn_blocking(move || {
            let inspected = inspect_layer(&media_type, size, BufReader::with_capacity(256 << 10, file));
            inspected.map(|inspected| (media_type, inspected)).map_err(|error| error.to_string())
        });
        let looked = looked.await.unwrap_or_else(|_| Err("the look into it broke off".to_owned()));
        let (media_type, inspected) = looked.map_err(&lies)?;
        if inspected.diff_id != diff_id {
            return Err(lies(format!("the tar inside is {}, its config says {diff_id}", inspected.diff_id)));
        }
        let uncompressed = inspected.uncompressed;
        let layer = LayerDescriptor { media_type, digest: blob.digest, diff_id, size: blob.size, uncompressed };
        drop(store.put_record(&inspected_record(&layer.digest), &layer, &[id]));
        Ok(layer)
    }
}

impl Inner {
    /// Asks for bytes.
    pub async fn get(&self, session: &Session<'_>, path: &str, what: &str) -> Result<Response, Trouble> {
        let request = self.transport.request(session, Method::GET, path)?;
        self.transport.expect(session, request, &[StatusCode::OK], what).await
    }
}

fn verified(
    session: &Session<'_>,
    what: &'static str,
    wanted: Option<&Digest>,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, Trouble> {
    let Some(wanted) = wanted else { return Ok(bytes) };
    let mut hash = fleet_oci::digest::Hasher::new(wanted.algorithm());
    hash.update(&bytes);
    let found = hash.finish();
    if found == *wanted { Ok(bytes) } else { Err(session.lies(what, wanted, format!("it is {found}")).into()) }
}

/// Says which of the places it was.
fn via_mirror(error: RegistryError, mirror: &Place) -> RegistryError {
    match error {
        RegistryError::Lies { reference, what, wanted, why } => {
            let reference = format!("{reference} (its mirror {})", mirror.shown());
            RegistryError::Lies { reference, what, wanted, why }
        }
        other => other,
    }
}

fn inspected_record(digest: &Digest) -> RecordId {
    RecordId { space: "inspected".to_owned(), key: digest.hex().to_owned() }
}

/// A layer that was looked through before. A record that cannot be read or written costs another look, nothing else.
fn inspected(store: &Store, blob: &Blob, diff_id: &Digest) -> Option<LayerDescriptor> {
    let known = store.get_record::<LayerDescriptor>(&inspected_record(&blob.digest)).ok().flatten();
    known.filter(|known| known.digest == blob.digest && known.diff_id == *diff_id)
}

pub(crate) fn id_of(digest: &Digest) -> Result<BlobId, RegistryError> {
    let algorithm = match digest.algorithm() {
        Algorithm::Sha256 => fleet_store::Algorithm::Sha256,
        Algorithm::Sha512 => fleet_store::Algorithm::Sha512,
    };
    BlobId::new(algorithm, digest.hex())
        .map_err(|error| RegistryError::Malformed { reference: digest.to_string(), why: error.to_string() })
}
