//! [`ImageProvider`]: images as a provider on the docker target: assembled in the store (`assembly.rs`), loaded into the
//! engine, checked there, and only then tagged with the derivation's hash.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use fleet_apply::{Applied, Event, Events, Provider, ProviderError, Ready};
use fleet_derivation::{Derivation, Hash};
use fleet_docker::{Engine, EngineError};
use fleet_graph::image::CONTEXT;
use fleet_model::{Address, Kind, RelPath, SourceTree};
use fleet_oci::{
    Image, LayerRecipe,
    export::{self, Named},
};
use fleet_plan::{Change, Desired, ImageSpec, State};
use fleet_store::Output;

use crate::{
    assembly::{self, Assembler, failed},
    blobs::StoreCache,
};

/// Seconds that one `check` of an image may take.
const CHECK_SECONDS: u64 = 120;

/// Makes images for a container engine.
pub struct ImageProvider {
    /// The engine.
    pub engine: Engine,
    /// Makes images into the store.
    pub assembler: Assembler,
    /// Files for Containerfile contexts.
    pub sources: Arc<SourceTree>,
}

#[async_trait]
impl Provider for ImageProvider {
    fn name(&self) -> &'static str {
        "images"
    }

    fn owns(&self, address: &Address) -> bool {
        address.kind == Kind::Image
    }

    async fn observe(&self, _: &[Address]) -> Result<State, ProviderError> {
        let images = self.engine.list_fleet_images(&self.assembler.fleet).await.map_err(unreachable_engine)?;
        let outputs = images.into_iter().map(|((_, hash), id)| (hash, id)).collect();
        Ok(State { outputs, ..State::default() })
    }

    async fn apply(&self, change: &Change, _: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        let (Some(Desired::Image(spec)), Some(derivation)) = (&change.desired, &change.derivation) else {
            return Err(failed(&change.address, "the plan has no recipe for it"));
        };
        let making = Making { provider: self, address: &change.address, spec, derivation, events };
        making.run().await
    }
}

impl ImageProvider {
    /// The tag that says: this derivation was built, loaded and checked here.
    #[must_use]
    pub fn tag(&self, image: &str, hash: Hash) -> String {
        fleet_docker::images::tag(&self.assembler.fleet, image, hash)
    }
}

struct Making<'a> {
    provider: &'a ImageProvider,
    address: &'a Address,
    spec: &'a ImageSpec,
    derivation: &'a Derivation,
    events: &'a dyn Events,
}

impl Making<'_> {
    async fn run(&self) -> Result<Applied, ProviderError> {
        let engine = &self.provider.engine;
        let tag = self.provider.tag(&self.spec.name, self.derivation.hash());
        if let Some(id) = engine.inspect_id(&tag).await.map_err(unreachable_engine)? {
            return Ok(Applied::Unchanged { output: Some(id) });
        }
        // Loaded and checked under a passing name; only what passed its checks gets the name that plans look for.
        let trial = format!("{}/{}:trial-{}", self.provider.assembler.fleet, self.spec.name, self.derivation.hash().short());
        let id = match self.spec.recipe.layers.as_slice() {
            [LayerRecipe::Containerfile { .. }] => self.build_containerfile(&trial).await?,
            _ => {
                let image = self.provider.assembler.assemble(self.spec, self.derivation, self.events).await?;
                self.load(&image, &trial).await?
            }
        };
        let checked = self.check(&id).await;
        if checked.is_ok() {
            self.call(format!("tag {tag}"));
            engine.tag(&id, &tag).await.map_err(|error| self.failed(&error))?;
            self.record(&id)?;
        }
        self.call(format!("untag {trial}"));
        engine.remove_image_tag(&trial).await.map_err(|error| self.failed(&error))?;
        checked?;
        Ok(Applied::Changed { output: Some(id) })
    }

    fn record(&self, id: &str) -> Result<(), ProviderError> {
        let layers = assembly::layer_keys(self.derivation).iter().map(assembly::layer_record).collect();
        let output = Output { digest: id.to_owned(), records: layers, ..Output::default() };
        self.provider.assembler.store.put_output(&self.derivation.hash(), &output).map_err(|error| self.failed(&error))
    }

    /// Loads an image; layers that the engine has already are not sent again.
    async fn load(&self, image: &Image, name: &str) -> Result<String, ProviderError> {
        let engine = &self.provider.engine;
        let chains = engine.reusable_chains(&self.spec.name).await.map_err(unreachable_engine)?;
        let digests = |chain: &Vec<String>| chain.iter().map(|layer| layer.parse().ok()).collect::<Option<Vec<_>>>();
        let chains: Vec<_> = chains.iter().filter_map(digests).collect();
        let there = export::already_there(image, &chains);
        if !there.is_empty() {
            // An image that is removed this very moment takes its layers with it: then everything is sent.
            if let Ok(id) = self.send(image, name, &there).await {
                return Ok(id);
            }
        }
        self.send(image, name, &BTreeSet::new()).await
    }

    async fn send(
        &self,
        image: &Image,
        name: &str,
        omit: &BTreeSet<fleet_oci::Digest>,
    ) -> Result<String, ProviderError> {
        let names = [name.to_owned()];
        let export = export::plan(&[Named { image, names: &names }], omit);
        self.progress(format!("loading {} MB into the engine", export.length >> 20));
        let cache = Arc::new(StoreCache(Arc::clone(&self.provider.assembler.store)));
        self.call(format!("load {name}"));
        let archive = fleet_packages::archive_stream(cache, export);
        self.provider.engine.load(archive).await.map_err(|error| self.failed(&error))?;
        self.id_of(name).await
    }

    async fn id_of(&self, name: &str) -> Result<String, ProviderError> {
        let found = self.provider.engine.inspect_id(name).await.map_err(|error| self.failed(&error))?;
        found.ok_or_else(|| self.failed_with("the engine took the image and does not have it"))
    }

    async fn build_containerfile(&self, tag: &str) -> Result<String, ProviderError> {
        let [LayerRecipe::Containerfile { path, args, bases, .. }] = self.spec.recipe.layers.as_slice() else {
            return Err(self.failed_with("a Containerfile cannot be mixed with layers"));
        };
        let file = RelPath::new(path).map_err(|error| self.failed(&error))?;
        let text = self.provider.sources.file(&file).and_then(|f| f.text()).unwrap_or_default();
        let request = fleet_docker::containerfile::BuildRequest {
            containerfile: pinned(text, bases),
            files: self.context(),
            args: args.clone(),
            proxies: proxies(),
            ca: host_ca(),
            platform: self.spec.recipe.platform.to_string(),
            tag: tag.to_owned(),
        };
        self.progress(format!("building {path} with BuildKit"));
        self.call(format!("build {tag}"));
        let mut told = |line: String| self.progress(line);
        let built = fleet_docker::containerfile::build(&self.provider.engine, &request, &mut told).await;
        built.map_err(|error| match error {
            fleet_docker::containerfile::BuildError::Failed { why, last_lines, .. } => {
                ProviderError::Failed { address: self.address.clone(), why, help: None, last_lines }
            }
            other => self.failed(&other),
        })
    }

    /// Files of the build context: those that the derivation names.
    fn context(&self) -> Vec<fleet_docker::containerfile::ContextFile> {
        let inputs = self.derivation.inputs.iter();
        let files = inputs.filter_map(|(name, input)| match input {
            fleet_derivation::Input::File { path, .. } => Some((name.strip_prefix(CONTEXT)?, path)),
            _ => None,
        });
        files
            .filter_map(|(inside, path)| {
                let file = self.provider.sources.file(path)?;
                Some(fleet_docker::containerfile::ContextFile {
                    path: inside.to_owned(),
                    mode: if file.executable { 0o755 } else { 0o644 },
                    bytes: Bytes::copy_from_slice(&file.bytes),
                })
            })
            .collect()
    }

    /// Runs the declared checks in the image, without a network.
    async fn check(&self, id: &str) -> Result<(), ProviderError> {
        for argv in &self.spec.checks {
            self.progress(format!("checking: {}", argv.join(" ")));
            self.call(format!("run check in {id}"));
            let timeout = Duration::from_secs(CHECK_SECONDS);
            let result = self.provider.engine.run_check(id, argv, timeout).await.map_err(|e| self.failed(&e))?;
            if result.exit_code != Some(0) {
                let how = result.exit_code.map_or_else(
                    || format!("did not end within {CHECK_SECONDS} s"),
                    |code| format!("ended with exit code {code}"),
                );
                return Err(ProviderError::Failed {
                    address: self.address.clone(),
                    why: format!("its check `{}` {how}", argv.join(" ")),
                    help: Some("nothing was rolled; mend the image".to_owned()),
                    last_lines: result.last_lines,
                });
            }
        }
        Ok(())
    }

    fn progress(&self, what: String) {
        self.events.emit(Event::Progress { address: self.address.clone(), what });
    }

    fn call(&self, call: String) {
        self.events.emit(Event::Call { system: "docker".to_owned(), call, write: true });
    }

    fn failed(&self, error: &dyn std::error::Error) -> ProviderError {
        self.failed_with(&crate::error::chain(error))
    }

    fn failed_with(&self, why: &str) -> ProviderError {
        failed(self.address, why)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn unreachable_engine(error: EngineError) -> ProviderError {
    ProviderError::Unreachable { system: "the container engine".to_owned(), why: crate::error::chain(&error) }
}

/// A Containerfile whose `FROM` lines name digests; a digest that one names already may be that of an index, and the
/// lock's is that of this platform.
fn pinned(text: &str, bases: &BTreeMap<String, fleet_oci::Digest>) -> String {
    fleet_model::containerfile::with_bases(text, |reference| {
        let digest = bases.get(reference)?;
        let name = reference.split_once('@').map_or(reference, |(name, _)| name);
        Some(format!("{name}@{digest}"))
    })
}

/// Proxies of this machine, offered to builds and kept out of images by BuildKit.
fn proxies() -> BTreeMap<String, String> {
    ["HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"]
        .into_iter()
        .filter_map(|name| Some((name.to_owned(), std::env::var(name).ok()?)))
        .collect()
}

/// This machine's CA bundle, offered to builds as the secret `ca`.
fn host_ca() -> Option<PathBuf> {
    let set = std::env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    set.into_iter()
        .chain(["/etc/ssl/certs/ca-certificates.crt".into(), "/etc/pki/tls/certs/ca-bundle.crt".into()])
        .find(|path| path.is_file())
}
