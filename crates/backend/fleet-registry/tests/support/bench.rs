//! A store, a client whose clock stands still, and images to send.

#![allow(dead_code, reason = "shared by several test binaries")]

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use fleet_apply::Clock;
use fleet_oci::{
    Compression, Image, ImageConfig, LayerDescriptor, Node, Platform, Tree,
    image::{Base, assemble},
    layer::write_layer,
    upload::Upload,
};
use fleet_registry::{
    Client, Credential, Credentials, CredentialsError, Event, Pushed, RegistryConfig, RegistryError, StoreBlobs, Target,
};
use fleet_secret::Secret;
use fleet_store::{Algorithm, Store};

pub const PLATFORM: Platform = Platform::LinuxAmd64;

/// Sleeping moves it on and takes no time.
pub struct Still {
    now: Mutex<SystemTime>,
    pub slept: Mutex<Vec<Duration>>,
}

impl Default for Still {
    fn default() -> Self {
        Self { now: Mutex::new(SystemTime::now()), slept: Mutex::default() }
    }
}

impl Still {
    pub fn advance(&self, time: Duration) {
        *self.now.lock().unwrap() += time;
    }
}

#[async_trait]
impl Clock for Still {
    fn now(&self) -> SystemTime {
        *self.now.lock().unwrap()
    }

    fn chance(&self) -> f64 {
        0.0
    }

    async fn sleep(&self, pause: Duration) {
        self.slept.lock().unwrap().push(pause);
        self.advance(pause);
    }
}

/// Always the same.
pub struct Always(pub &'static str, pub &'static str);

#[async_trait]
impl Credentials for Always {
    async fn of(&self, _: &str) -> Result<Option<Credential>, CredentialsError> {
        Ok(Some(Credential::Password { user: self.0.into(), password: Secret::new(self.1) }))
    }
}

/// Where a test works.
pub struct Bench {
    pub store: Arc<Store>,
    pub clock: Arc<Still>,
    pub config: RegistryConfig,
    pub events: Arc<Mutex<Vec<Event>>>,
    pub blobs: StoreBlobs,
    _folder: tempfile::TempDir,
}

impl Bench {
    pub fn new(credentials: impl Credentials + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(Store::open(folder.path()).unwrap());
        let clock = Arc::<Still>::default();
        let config = RegistryConfig {
            credentials: Arc::new(credentials),
            clock: Arc::clone(&clock) as Arc<dyn Clock>,
            ..RegistryConfig::default()
        };
        let blobs = StoreBlobs { store: Arc::clone(&store), origins: BTreeMap::new(), said: Vec::new() };
        Self { store, clock, config, events: Arc::default(), blobs, _folder: folder }
    }

    /// A client that knows nothing yet, as a new process would.
    pub fn client(&self) -> Client {
        Client::new(&self.config).unwrap()
    }

    /// A layer with one file of such bytes, in the store.
    pub fn layer(&self, path: &str, bytes: Vec<u8>) -> LayerDescriptor {
        let mut tree = Tree::new();
        tree.insert(path, Node::file(0o755, bytes)).unwrap();
        let (blob, layer) = write_layer(&tree, Compression::Zstd, Vec::new()).unwrap();
        self.store.put_blob(Algorithm::Sha256, &blob).unwrap();
        layer
    }

    /// A layer of so many bytes that cannot be compressed.
    pub fn large(&self, path: &str, bytes: usize, seed: u64) -> LayerDescriptor {
        let mut random = fastrand::Rng::with_seed(seed);
        let bytes = std::iter::repeat_with(|| random.u8(..)).take(bytes).collect();
        self.layer(path, bytes)
    }

    pub async fn push(&self, client: &Client, target: &Target, image: &Image) -> Result<Pushed, RegistryError> {
        self.push_saying(client, target, image, &[]).await
    }

    /// The image with statements about it.
    pub async fn push_saying(
        &self,
        client: &Client,
        target: &Target,
        image: &Image,
        statements: &[Upload],
    ) -> Result<Pushed, RegistryError> {
        let told = Arc::clone(&self.events);
        let tell = move |event| told.lock().unwrap().push(event);
        let source = StoreBlobs { said: statements.to_vec(), ..self.blobs.clone() };
        client.push(target, &Upload::of_image(image), &source, &tell).await
    }
}

pub fn image(layers: &[LayerDescriptor], env: &str) -> Image {
    let config = ImageConfig {
        env: BTreeMap::from([("WHAT".to_owned(), env.to_owned())]),
        cmd: vec!["/bin/app".into()],
        ..ImageConfig::default()
    };
    assemble(&Base::default(), PLATFORM, &config, layers)
}

pub fn target(host: &str, rest: &str) -> Target {
    Target::parse(&format!("{host}/{rest}")).unwrap()
}
