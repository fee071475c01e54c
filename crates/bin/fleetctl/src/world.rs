//! [`Outside`]: the outside systems of one environment, whichever its target; [`World`]: those of the docker target.

use std::sync::Arc;

use async_trait::async_trait;
use fleet_apply::{Events, Provider, ProviderError, Secrets, causes::chain};
use fleet_docker::{DockerProvider, Engine, EngineSearch, Search};
use fleet_graph::container::HOMESERVER_ALIAS;
use fleet_matrix::{Flavour, Login, MatrixProvider, Settings};
use fleet_model::{
    Address, Kind,
    model::{HomeserverKind, Target},
};
use fleet_plan::{RunState, State};
use fleet_registry::{Client as Registries, RegistryConfig};
use fleet_secret::FleetSecret;
use fleet_store::{History, LocalHistory};

use crate::{
    cloud::Cloud, context::Context, error::Failure, exit::Exit, images::ImageProvider, pipeline::Prepared,
    sharing::Kept, ui::events::Console,
};

/// The outside systems of one environment, as plan and apply need them.
#[async_trait]
pub trait Outside: Send + Sync {
    /// What is recorded of the environment.
    fn history(&self) -> &dyn History;

    /// Refuses where an apply could not be recorded, and while somebody else changes the environment from elsewhere. Only
    /// reads.
    ///
    /// # Errors
    /// Exit code 8 when somebody else is at work.
    async fn may_change(&self) -> Result<(), Failure> {
        Ok(())
    }

    /// Keeps others out who would change the environment from elsewhere; nothing where there is no elsewhere.
    ///
    /// # Errors
    /// Exit code 8 when somebody else was faster.
    async fn keep_out(&self, _: &Context, _: &str) -> Result<Option<Kept>, Failure> {
        Ok(None)
    }

    /// Everybody who makes something.
    fn providers(&self) -> Vec<&dyn Provider>;

    /// Secrets, resolved at the moment of use.
    fn secrets(&self) -> &Secrets;

    /// Where events go.
    fn console(&self) -> &Console;

    /// Who makes images.
    fn images(&self) -> &dyn Provider;

    /// Images at the target: what derivations are known to give.
    ///
    /// # Errors
    /// A target that does not answer.
    async fn observe_images(&self) -> Result<State, Failure> {
        self.images().observe(&[]).await.map_err(unobservable)
    }

    /// Everything but images.
    ///
    /// # Errors
    /// An outside system that cannot be read.
    async fn observe(&self, wanted: &[Address]) -> Result<State, Failure>;

    /// From now on something is to be changed: what was seen long ago is looked at again.
    fn about_to_apply(&self) {}

    /// What a person should know of what was observed.
    fn remarks(&self) -> Vec<String> {
        Vec::new()
    }

    /// Signs out what was signed in for this run.
    async fn finish(&self);
}

/// Connects to the outside systems of an environment. `allow_destroy` are resources that hold data and may be replaced or
/// removed.
///
/// # Errors
/// See [`World::connect`] and [`Cloud::connect`].
pub async fn connect(
    context: &Context,
    prepared: &Prepared,
    allow_destroy: &[String],
) -> Result<Box<dyn Outside>, Failure> {
    Ok(match &prepared.environment()?.target {
        Target::Docker if allow_destroy.is_empty() => Box::new(World::connect(context, prepared).await?),
        Target::Docker => {
            return Err(Failure::new(Exit::Usage, "--allow-destroy is for environments on aws")
                .hint("on the docker target nothing that holds data is ever replaced; `destroy --purge` removes it"));
        }
        Target::Aws { .. } => Box::new(Cloud::connect(context, prepared, allow_destroy).await?),
    })
}

/// The outside systems of one environment on the docker target.
pub struct World {
    /// What is recorded of the environment.
    pub history: LocalHistory,
    /// Images in the engine.
    pub images: ImageProvider,
    /// Containers.
    pub docker: DockerProvider,
    /// Accounts and rooms.
    pub matrix: MatrixProvider,
    /// Secrets, resolved at the moment of use.
    pub secrets: Secrets,
    /// Where events go.
    pub console: Arc<Console>,
}

/// Where to look for a container engine, from the environment.
#[must_use]
pub fn engine_search() -> EngineSearch {
    EngineSearch {
        docker_host: std::env::var("DOCKER_HOST").ok().filter(|value| !value.is_empty()),
        xdg_runtime_dir: std::env::var_os("XDG_RUNTIME_DIR").map(Into::into),
    }
}

/// The container engine of this machine.
///
/// # Errors
/// When none answers: every place that was tried, and what to do.
pub async fn engine() -> Result<Engine, Failure> {
    match fleet_docker::engine::find(&engine_search()).await {
        Search::Found(engine) => Ok(*engine),
        Search::NotFound { looked_at } => {
            let denied = looked_at.iter().any(|looked| looked.denied);
            let exit = if denied { Exit::Denied } else { Exit::Unavailable };
            let mut failure = Failure::new(exit, "no container engine answers");
            failure.causes.extend(looked_at.iter().map(|looked| format!("{}: {}", looked.endpoint, looked.why)));
            Err(failure.hint("start Docker or Podman, or set DOCKER_HOST; `fleetctl quickstart --yes` installs one"))
        }
    }
}

/// Container registries, with the credentials, mirrors and certificates of this user and machine.
///
/// # Errors
/// A list of mirrors that cannot be read, TLS settings that cannot be used.
pub fn registries() -> Result<Registries, Failure> {
    registries_with(&registry_config()?)
}

/// What [`registries`] are spoken to with.
///
/// # Errors
/// A list of mirrors that cannot be read.
pub fn registry_config() -> Result<RegistryConfig, Failure> {
    RegistryConfig::from_machine().map_err(|error| Failure::caused(Exit::Usage, NO_REGISTRIES, &error))
}

/// Container registries, spoken to with this.
///
/// # Errors
/// TLS settings that cannot be used.
pub fn registries_with(config: &RegistryConfig) -> Result<Registries, Failure> {
    Registries::new(config).map_err(|error| Failure::caused(Exit::Failed, NO_REGISTRIES, &error))
}

const NO_REGISTRIES: &str = "container registries cannot be used";

impl World {
    /// Connects to everything that the environment needs; makes the fleet secret where there is none yet.
    ///
    /// # Errors
    /// No engine, no usable secret, a domain that is none.
    pub async fn connect(context: &Context, prepared: &Prepared) -> Result<Self, Failure> {
        prepared.require_docker()?;
        let engine = engine().await?;
        let secrets = context.machine.secrets(&prepared.scope, &prepared.model)?;
        let login = Login::Kept(context.machine.token_file(&prepared.scope)?);
        let matrix = matrix(context, prepared, prepared.environment()?.homeserver.port, &secrets.fleet, login)?;
        Ok(Self {
            history: LocalHistory::new(Arc::clone(&prepared.opened.store), prepared.history_name()),
            images: ImageProvider { engine: engine.clone(), assembler: prepared.assembler(Some(engine.clone()))? },
            docker: DockerProvider::new(engine, prepared.scope.clone())
                .with_given(secrets.operator.keys().cloned().collect()),
            matrix,
            secrets,
            console: Arc::clone(&context.console),
        })
    }
}

/// Accounts and rooms of the homeserver at a port of this machine.
///
/// # Errors
/// A domain that is none.
pub fn matrix(
    context: &Context,
    prepared: &Prepared,
    port: u16,
    secret: &FleetSecret,
    login: Login,
) -> Result<MatrixProvider, Failure> {
    let settings = Settings {
        scope: prepared.scope.clone(),
        url: format!("http://127.0.0.1:{port}"),
        flavour: flavour(prepared.environment()?.homeserver.kind),
        login,
    };
    let events: Arc<dyn Events> = Arc::<Console>::clone(&context.console);
    MatrixProvider::new(settings, secret.clone(), events)
        .map_err(|error| Failure::caused(Exit::Failed, "the homeserver cannot be used", &error))
}

/// How a homeserver of this kind is spoken to.
pub const fn flavour(kind: HomeserverKind) -> Flavour {
    match kind {
        HomeserverKind::Synapse => Flavour::Synapse,
        HomeserverKind::Conduit => Flavour::Conduit,
    }
}

#[async_trait]
impl Outside for World {
    fn history(&self) -> &dyn History {
        &self.history
    }

    fn providers(&self) -> Vec<&dyn Provider> {
        vec![&self.images, &self.docker, &self.matrix]
    }

    fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    fn console(&self) -> &Console {
        &self.console
    }

    fn images(&self) -> &dyn Provider {
        &self.images
    }

    async fn observe(&self, wanted: &[Address]) -> Result<State, Failure> {
        let (containers, matrix) = tokio::join!(self.docker.observe(wanted), self.matrix.observe(wanted));
        let matrix = matrix.map_err(|error| {
            let denied = matches!(error, ProviderError::Denied { .. });
            let failure = unobservable(error);
            // The commonest cause: two fleets on one machine with one operator port.
            if denied {
                failure.hint(
                    "does another fleet's homeserver listen on this port? give this one its own: homeserver port=…",
                )
            } else {
                failure
            }
        })?;
        Ok(looked_at(containers.map_err(unobservable)?, matrix))
    }

    async fn finish(&self) {
        sign_out(&self.matrix, &self.console).await;
    }
}

/// Signs out what was signed in for this run. That it fails changes nothing of what was done.
pub async fn sign_out(matrix: &MatrixProvider, console: &Console) {
    if let Err(error) = matrix.finish().await {
        let text = format!("a helper session could not be signed out: {}", chain(&error));
        console.emit(fleet_apply::Event::Notice { text });
    }
}

/// Both parts of what is. A homeserver that has no running container yet is not one that fails to answer.
fn looked_at(containers: State, mut matrix: State) -> State {
    let homeserver = Address::new(Kind::Service, HOMESERVER_ALIAS);
    let runs = containers.objects.get(&homeserver).is_some_and(|found| found.run == RunState::Running);
    if !runs && !matrix.unseen.is_empty() {
        matrix.unseen =
            vec![format!("{homeserver} does not run: which accounts and rooms it has is seen once it does")];
    }
    containers.merged(matrix)
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
pub(crate) fn unobservable(error: ProviderError) -> Failure {
    Failure::caused(exit_of(&error), "what runs cannot be seen", &error)
}

/// The exit code of a failure outside.
pub(crate) const fn exit_of(error: &ProviderError) -> Exit {
    match error {
        ProviderError::Unreachable { .. } => Exit::Unavailable,
        ProviderError::Denied { .. } => Exit::Denied,
        _ => Exit::Failed,
    }
}
