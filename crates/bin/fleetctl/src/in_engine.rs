//! [`InEngine`]: one image in a container engine: loaded, or built there from its Containerfile; checked; and only then given
//! the name that plans look for.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use fleet_apply::{Event, Events, ProviderError, causes::chain};
use fleet_derivation::{Derivation, Input};
use fleet_docker::{
    Engine, EngineError,
    containerfile::{self, BuildError, BuildRequest, ContextFile},
};
use fleet_graph::image::CONTEXT;
use fleet_model::RelPath;
use fleet_oci::{
    Digest, Image, LayerRecipe,
    export::{self, Named},
};
use fleet_plan::ImageSpec;

use crate::{assembly::Assembler, blobs::StoreCache};

/// Seconds that one `check` of an image may take.
const CHECK_SECONDS: u64 = 120;

/// An image on its way into an engine.
pub struct InEngine<'a> {
    /// The engine.
    pub engine: &'a Engine,
    /// Has the layers and the contexts.
    pub assembler: &'a Assembler,
    /// What it is made of.
    pub spec: &'a ImageSpec,
    /// Names it.
    pub derivation: &'a Derivation,
    /// Who is told.
    pub events: &'a dyn Events,
}

impl InEngine<'_> {
    /// The tag that says: this derivation was built, loaded and checked here.
    #[must_use]
    pub fn tag(&self) -> String {
        fleet_docker::images::tag(&self.assembler.fleet, &self.spec.name, self.derivation.hash())
    }

    /// Its name until it is checked.
    #[must_use]
    pub fn trial(&self) -> String {
        format!("{}/{}:trial-{}", self.assembler.fleet, self.spec.name, self.derivation.hash().short())
    }

    /// Its id, where it was made and checked before.
    ///
    /// # Errors
    /// An engine that does not answer.
    pub async fn find(&self) -> Result<Option<String>, ProviderError> {
        self.engine.inspect_id(&self.tag()).await.map_err(unreachable_engine)
    }

    /// Runs its checks and, where they pass, gives it its tag; the passing name goes in any case.
    ///
    /// # Errors
    /// A check that fails; [`ProviderError`].
    pub async fn keep(&self, id: &str) -> Result<(), ProviderError> {
        let checked = self.check(id).await;
        if checked.is_ok() {
            let tag = self.tag();
            self.call(format!("tag {tag}"));
            self.engine.tag(id, &tag).await.map_err(|error| self.failed(&error))?;
        }
        self.untag(&self.trial()).await?;
        checked
    }

    /// Takes a passing name away.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn untag(&self, name: &str) -> Result<(), ProviderError> {
        self.call(format!("untag {name}"));
        self.engine.remove_image_tag(name).await.map_err(|error| self.failed(&error))
    }

    /// Loads an image, the one of that name, and gives it a name; layers that the engine has already are not sent again.
    /// Its id.
    ///
    /// # Errors
    /// [`ProviderError`].
    pub async fn load(&self, image_name: &str, image: &Image, name: &str) -> Result<String, ProviderError> {
        let engine = self.engine;
        let chains = engine.reusable_chains(image_name).await.map_err(unreachable_engine)?;
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

    async fn send(&self, image: &Image, name: &str, omit: &BTreeSet<Digest>) -> Result<String, ProviderError> {
        let names = [name.to_owned()];
        let export = export::plan(&[Named { image, names: &names }], omit);
        self.progress(format!("loading {} MB into the engine", export.length >> 20));
        let cache = Arc::new(StoreCache(Arc::clone(&self.assembler.store)));
        self.call(format!("load {name}"));
        let archive = fleet_packages::archive_stream(cache, export);
        self.engine.load(archive).await.map_err(|error| self.failed(&error))?;
        self.id_of(name).await
    }

    async fn id_of(&self, name: &str) -> Result<String, ProviderError> {
        let found = self.engine.inspect_id(name).await.map_err(|error| self.failed(&error))?;
        found.ok_or_else(|| self.failed_with("the engine took the image and does not have it"))
    }

    /// Builds it from its Containerfile, under its passing name; its id. `base` is where the fleet's image that it stands
    /// on lies, where that is not its own tag.
    ///
    /// # Errors
    /// [`ProviderError`], with the last lines that a failed step printed.
    pub async fn build(&self, base: Option<&str>) -> Result<String, ProviderError> {
        let tag = &self.trial();
        let [LayerRecipe::Containerfile { path, args, bases, .. }] = self.spec.recipe.layers.as_slice() else {
            return Err(self.failed_with("a Containerfile cannot be mixed with layers"));
        };
        let file = RelPath::new(path).map_err(|error| self.failed(&error))?;
        let text = self.assembler.sources.file(&file).and_then(|f| f.text()).unwrap_or_default();
        let mut args = args.clone();
        args.extend(base.map(|name| ("BASE".to_owned(), name.to_owned())));
        let request = BuildRequest {
            containerfile: pinned(text, bases),
            files: self.context(),
            args,
            proxies: proxies(),
            ca: host_ca(),
            platform: self.spec.recipe.platform.to_string(),
            tag: tag.clone(),
        };
        self.progress(format!("building {path} with BuildKit"));
        self.call(format!("build {tag}"));
        let mut told = |line: String| self.progress(line);
        let built = containerfile::build(self.engine, &request, &mut told).await;
        built.map_err(|error| match error {
            BuildError::Failed { why, last_lines, .. } => {
                ProviderError::failed(&self.derivation.address, why).last_words(last_lines)
            }
            other => self.failed(&other),
        })
    }

    /// Files of the build context: those that the derivation names.
    fn context(&self) -> Vec<ContextFile> {
        let inputs = self.derivation.inputs.iter();
        let files = inputs.filter_map(|(name, input)| match input {
            Input::File { path, .. } => Some((name.strip_prefix(CONTEXT)?, path)),
            _ => None,
        });
        files
            .filter_map(|(inside, path)| {
                let file = self.assembler.sources.file(path)?;
                Some(ContextFile {
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
            let result = self.engine.run_check(id, argv, timeout).await.map_err(|e| self.failed(&e))?;
            if result.exit_code != Some(0) {
                let how = result.exit_code.map_or_else(
                    || format!("did not end within {CHECK_SECONDS} s"),
                    |code| format!("ended with exit code {code}"),
                );
                let why = format!("its check `{}` {how}", argv.join(" "));
                let failed = ProviderError::failed(&self.derivation.address, why);
                return Err(failed.help("nothing was rolled; mend the image").last_words(result.last_lines));
            }
        }
        Ok(())
    }

    fn progress(&self, what: String) {
        self.events.emit(Event::Progress { address: self.derivation.address.clone(), what });
    }

    fn call(&self, call: String) {
        self.events.emit(Event::Call { system: "docker".to_owned(), call, write: true });
    }

    fn failed(&self, error: &dyn std::error::Error) -> ProviderError {
        ProviderError::caused(&self.derivation.address, error)
    }

    fn failed_with(&self, why: &str) -> ProviderError {
        ProviderError::failed(&self.derivation.address, why)
    }
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
pub(crate) fn unreachable_engine(error: EngineError) -> ProviderError {
    ProviderError::Unreachable { system: "the container engine".to_owned(), why: chain(&error) }
}

/// A Containerfile whose `FROM` lines name digests; a digest that one names already may be that of an index, and the
/// lock's is that of this platform.
fn pinned(text: &str, bases: &BTreeMap<String, Digest>) -> String {
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
