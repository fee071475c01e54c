//! One scope on the real engine with a tiny image, removed when the test ends, however it ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::Arc,
    time::Duration,
};

use bollard::{Docker, body_full, query_parameters::CreateImageOptions};
use fleet_apply::{Applied, Provider, ProviderError, Ready, Scope, Secrets};
use fleet_derivation::Hash;
use fleet_docker::{DockerProvider, Engine, EngineSearch, Search, engine, images};
use fleet_model::{Address, Kind, model::Size};
use fleet_plan::{
    Action, Change, ContainerSpec, Content, Desired, HealthProbe, Observed, PlacedFile, SecretUse, VolumeMount,
};
use fleet_secret::{FleetSecret, Secret};
use fleet_sim::CallLog;
use futures::StreamExt;

pub const OPERATOR_SECRET: &str = "operator-secret-value-4711";

/// What the test image can do.
const PROGRAMS: [&str; 11] = ["sh", "test", "cat", "ls", "stat", "sleep", "touch", "wc", "grep", "id", "md5sum"];

/// Prints which version it is and how often it ran on this volume, then waits for SIGTERM.
pub const SERVE: &str = "echo x >> /data/runs; echo version $VERSION run $(wc -l < /data/runs); touch /tmp/ok; \
                         trap 'echo bye; exit 0' TERM; while :; do sleep 0.2; done";

pub struct World {
    pub provider: DockerProvider,
    pub engine: Engine,
    pub raw: Docker,
    pub scope: Scope,
    pub secrets: Secrets,
    pub image_hash: Hash,
}

pub async fn find_engine() -> Engine {
    let search = EngineSearch {
        docker_host: std::env::var("DOCKER_HOST").ok(),
        xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR").map(Into::into),
    };
    match engine::find(&search).await {
        Search::Found(engine) => *engine,
        Search::NotFound { looked_at } => panic!("these tests need a container engine; looked at: {looked_at:#?}"),
    }
}

/// Runs a test in its own scope and removes the scope, also when the test fails.
pub async fn with<F, Fut>(name: &str, test: F)
where
    F: FnOnce(Arc<World>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let world = Arc::new(World::new(name).await);
    let result = tokio::spawn(test(Arc::clone(&world))).await;
    world.provider.purge(true, &CallLog::default()).await.expect("the scope is removed");
    for (key, _) in world.engine.list_fleet_images(&world.scope.fleet).await.expect("images") {
        let tag = images::tag(&world.scope.fleet, &key.0, key.1);
        world.engine.remove_image_tag(&tag).await.expect("the image is removed");
    }
    if let Err(error) = result {
        std::panic::resume_unwind(error.into_panic());
    }
}

impl World {
    async fn new(name: &str) -> Self {
        let engine = find_engine().await;
        let fleet = format!("t-docker-{name}-{}", std::process::id());
        let scope = Scope { fleet: fleet.clone(), environment: "test".to_owned(), domain: "d.test".to_owned() };
        let image_hash = Hash::of(b"box");
        let raw = Docker::connect_with_unix(&engine.endpoint.to_string(), 120, bollard::API_DEFAULT_VERSION)
            .expect("a second connection")
            .negotiate_version()
            .await
            .expect("the engine answers");
        import_busybox(&engine, &raw, &images::tag(&fleet, "box", image_hash)).await;
        let secrets = Secrets {
            fleet: FleetSecret::new(Secret::new("0123456789abcdef0123456789abcdef")).expect("long enough"),
            operator: BTreeMap::from([("API_KEY".to_owned(), Secret::new(OPERATOR_SECRET))]),
        };
        Self { provider: DockerProvider::new(engine.clone(), scope.clone()), engine, raw, scope, secrets, image_hash }
    }

    /// The same scope as seen by an operator in whose environment these secrets are set.
    pub fn as_if_set(&self, names: &[&str]) -> Self {
        let operator = names.iter().map(|name| ((*name).to_owned(), Secret::new(OPERATOR_SECRET))).collect();
        let given = names.iter().map(|name| (*name).to_owned()).collect();
        Self {
            provider: DockerProvider::new(self.engine.clone(), self.scope.clone()).with_given(given),
            engine: self.engine.clone(),
            raw: self.raw.clone(),
            scope: self.scope.clone(),
            secrets: Secrets { fleet: self.secrets.fleet.clone(), operator },
            image_hash: self.image_hash,
        }
    }

    pub fn ann() -> Address {
        Address::new(Kind::Agent, "ann.lee")
    }

    /// A container that runs `script` with one volume, a placed secret and a probe for `/tmp/ok`.
    pub fn spec(&self, version: &str, script: &str) -> ContainerSpec {
        ContainerSpec {
            image: Address::new(Kind::Image, "box"),
            image_hash: self.image_hash,
            image_output: None,
            hostname: "ann".to_owned(),
            env: BTreeMap::from([("VERSION".to_owned(), version.to_owned())]),
            command: Some(["/bin/sh", "-c", script].map(str::to_owned).to_vec()),
            files: vec![PlacedFile {
                path: "/run/fleet/key".to_owned(),
                mode: 0o400,
                uid: 1000,
                gid: 1001,
                content: Content::Secret { secret: SecretUse::Operator { name: "API_KEY".to_owned() } },
            }],
            volumes: vec![VolumeMount {
                volume: "data-ann.lee".to_owned(),
                path: "/data".to_owned(),
                read_only: false,
            }],
            ports: Vec::new(),
            size: Size { cpu: 512, memory_mib: 64 },
            health: Some(HealthProbe {
                command: ["/bin/test", "-e", "/tmp/ok"].map(str::to_owned).to_vec(),
                interval_seconds: 1,
                timeout_seconds: 10, // a busy machine takes its time to start a probe
                start_period_seconds: 0,
                retries: 5,
            }),
            aliases: BTreeSet::new(),
            host_gateway: false,
            stop_grace_seconds: 5,
            healthy_within_seconds: 60,
            read_only_root: false,
        }
    }

    /// What a planner would say to bring `ann` to this spec, given what is there.
    pub async fn change(&self, spec: &ContainerSpec) -> Change {
        let seen = self.seen().await;
        let after = Hash::of(serde_json::to_string(spec).expect("json").as_bytes());
        Change {
            address: Self::ann(),
            action: if seen.is_some() { Action::Roll } else { Action::Create },
            if_changed: false,
            reasons: Vec::new(),
            before: seen.as_ref().and_then(|o| o.hash),
            after: Some(after),
            expect: seen.map(|o| o.version),
            desired: Some(Desired::Container(spec.clone())),
            derivation: None,
            resources: Vec::new(),
        }
    }

    pub async fn seen(&self) -> Option<Observed> {
        self.provider.observe(&[Self::ann()]).await.expect("observing").objects.remove(&Self::ann())
    }

    pub async fn apply(&self, change: &Change, log: &CallLog) -> Result<Applied, ProviderError> {
        let outputs = BTreeMap::new();
        self.provider.apply(change, &Ready { outputs: &outputs, secrets: &self.secrets }, log).await
    }

    /// Plans and applies.
    pub async fn converge(&self, spec: &ContainerSpec) -> Result<Applied, ProviderError> {
        let change = self.change(spec).await;
        self.apply(&change, &CallLog::default()).await
    }

    /// Names of the scope's containers, running or not.
    pub async fn containers(&self) -> Vec<String> {
        let mut names = self.provider.purgeable(false, &CallLog::default()).await.expect("listing").containers;
        names.sort();
        names
    }

    pub fn container(&self) -> String {
        self.provider.container_name(&Self::ann())
    }

    pub async fn inspect_text(&self, container: &str) -> String {
        let inspected = self.raw.inspect_container(container, None).await.expect("the container exists");
        serde_json::to_string(&inspected).expect("json")
    }

    pub async fn lines(&self, container: &str) -> Vec<String> {
        let lines = self.engine.logs(container, false, None);
        lines.map(|l| l.expect("a line").text).collect().await
    }

    /// Waits until the container has printed a line with this text.
    pub async fn printed(&self, container: &str, text: &str) {
        for _ in 0..600 {
            if self.lines(container).await.iter().any(|l| l.contains(text)) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("{container} did not print {text}: {:?}", self.lines(container).await);
    }
}

/// Imports and tags in two calls: Podman's import ignores the tag.
async fn import_busybox(engine: &Engine, raw: &Docker, tag: &str) {
    let options = CreateImageOptions { from_src: Some("-".to_owned()), ..CreateImageOptions::default() };
    let mut replies =
        Box::pin(raw.create_image(Some(options), Some(body_full(fleet_sim::busybox(&PROGRAMS).into())), None));
    let mut id = None;
    while let Some(reply) = replies.next().await {
        let status = reply.expect("importing the test image").status;
        id = status.filter(|s| s.starts_with("sha256:")).or(id);
    }
    engine.tag(&id.expect("the import tells the id"), tag).await.expect("tagged");
}
