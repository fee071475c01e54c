//! [`Cloud`]: the outside systems of an environment on AWS: image repositories, stacks, agents as services, the directory, and
//! accounts and rooms by way of the manager where one is declared.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use async_trait::async_trait;
use fleet_apply::{Applied, Event, Events, Provider, ProviderError, Ready, Secrets};
use fleet_aws::{Account, AgentProvider, AwsError, DirectoryProvider, Identity, Place, Repository, StackProvider};
use fleet_manager::RemoteMatrix;
use fleet_model::{Address, Kind, model::Target};
use fleet_oci::Upload;
use fleet_plan::{Change, Desired, State};
use fleet_registry::{
    Client as Registries, Credential, Credentials, CredentialsError, RegistryConfig, StoreBlobs, Target as Pushed,
};
use fleet_secret::FleetSecret;
use fleet_store::{Depth, History};

use crate::{
    assembly::Assembler,
    commands::build::Tellings,
    context::Context,
    error::Failure,
    exit::Exit,
    meeting,
    pipeline::Prepared,
    sharing::{Kept, Sharing},
    ui::events::Console,
    world::{self, Outside, unobservable},
};

/// The outside systems of an environment on AWS.
pub struct Cloud {
    sharing: Sharing,
    images: RepositoryImages,
    stacks: StackProvider,
    agents: AgentProvider,
    directory: DirectoryProvider,
    /// Accounts and rooms, where a manager is declared.
    matrix: Option<RemoteMatrix>,
    secrets: Secrets,
    console: Arc<Console>,
}

impl Cloud {
    /// Connects, and asks AWS who we are.
    ///
    /// # Errors
    /// No credentials, those of another account, AWS out of reach.
    pub async fn connect(context: &Context, prepared: &Prepared, allow_destroy: &[String]) -> Result<Self, Failure> {
        let environment = prepared.environment()?;
        let (account, _) = account(context, prepared).await?;
        let registry = match &environment.registry {
            Some(declared) => declared.value.to_string(),
            None => account.place.registry(),
        };
        let manager = environment.manager.as_ref();
        let sharing = Sharing::open(&account, prepared, Depth::Newest).await?;
        Ok(Self {
            sharing,
            matrix: manager.map(|_| meeting::remote(account.clone(), prepared.scope.clone())),
            images: RepositoryImages::new(prepared, account.clone(), registry).await?,
            agents: AgentProvider::new(account.clone(), prepared.scope.clone()),
            directory: DirectoryProvider::new(account.clone(), prepared.scope.clone()),
            stacks: StackProvider::new(account, prepared.scope.clone(), allow_destroy.iter().cloned().collect()),
            secrets: context.machine.operator_secrets(&prepared.model)?,
            console: Arc::clone(&context.console),
        })
    }
}

/// The account of an environment, once AWS said that we are there, and who we are.
///
/// # Errors
/// No credentials, those of another account, AWS out of reach; an environment elsewhere.
pub async fn account(context: &Context, prepared: &Prepared) -> Result<(Account, Identity), Failure> {
    let environment = prepared.environment()?;
    let Target::Aws { account, region, endpoint } = &environment.target else {
        return Err(Failure::new(Exit::Usage, format!("environment {} is not on aws", environment.name)));
    };
    let place = Place { account: account.clone(), region: region.clone(), endpoint: endpoint.clone() };
    let events: Arc<dyn Events> = Arc::<Console>::clone(&context.console);
    let account = Account::open(place, events).await;
    let who = account.check().await.map_err(|error| unusable(&error))?;
    Ok((account, who))
}

fn unusable(error: &AwsError) -> Failure {
    Failure::caused(exit_of(error), "AWS cannot be used", error)
}

/// The exit code of a call that failed.
pub const fn exit_of(error: &AwsError) -> Exit {
    match error {
        AwsError::Unreachable { .. } | AwsError::Throttled { .. } => Exit::Unavailable,
        AwsError::Refused { .. } => Exit::Failed,
        _ => Exit::Denied,
    }
}

/// The fleet secret of an environment, which its account has. It is told to nobody; passwords are derived from it.
///
/// # Errors
/// An environment that was not applied yet; a call that fails.
pub async fn fleet_secret(account: &Account, prepared: &Prepared) -> Result<FleetSecret, Failure> {
    let scope = &prepared.scope;
    let found = account.fleet_secret_of(scope).await;
    let found = found.map_err(|error| {
        Failure::caused(world::exit_of(&error), "the fleet secret of the account cannot be read", &error)
    })?;
    found.ok_or_else(|| {
        let name = &scope.environment;
        Failure::new(Exit::Failed, format!("{name} has no fleet secret yet"))
            .hint(format!("stack/{name}-data makes it: `fleetctl apply -e {name}`"))
    })
}

#[async_trait]
impl Outside for Cloud {
    fn history(&self) -> &dyn History {
        self.sharing.history()
    }

    async fn may_change(&self) -> Result<(), Failure> {
        self.sharing.may_change().await
    }

    async fn keep_out(&self, context: &Context, what: &str) -> Result<Option<Kept>, Failure> {
        self.sharing.keep_out(context, what).await
    }

    fn providers(&self) -> Vec<&dyn Provider> {
        let always: [&dyn Provider; 4] = [&self.images, &self.stacks, &self.agents, &self.directory];
        always.into_iter().chain(self.matrix.iter().map(|matrix| matrix as &dyn Provider)).collect()
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
        let matrix = async {
            match &self.matrix {
                Some(matrix) => matrix.observe(wanted).await,
                None => Ok(State::default()),
            }
        };
        let (stacks, agents, directory, matrix) = tokio::join!(
            self.stacks.observe(wanted),
            self.agents.observe(wanted),
            self.directory.observe(wanted),
            matrix
        );
        let mut state = stacks.map_err(unobservable)?;
        for seen in [agents, directory, matrix] {
            state = state.merged(seen.map_err(unobservable)?);
        }
        Ok(state)
    }

    fn about_to_apply(&self) {
        if let Some(matrix) = &self.matrix {
            matrix.ask();
        }
    }

    fn remarks(&self) -> Vec<String> {
        self.matrix.iter().filter_map(RemoteMatrix::remark).chain(self.sharing.remark()).collect()
    }

    async fn finish(&self) {}
}

/// Images in the account's repositories: made into the store, then pushed under the tag of their derivation.
pub struct RepositoryImages {
    account: Account,
    assembler: Assembler,
    /// The registry that they are pushed to: host, and what is before repositories.
    registry: String,
    client: Registries,
    /// Names of all images of the fleet.
    names: BTreeSet<String>,
    /// What is said about them.
    tellings: Tellings,
}

impl RepositoryImages {
    async fn new(prepared: &Prepared, account: Account, registry: String) -> Result<Self, Failure> {
        // Only install scripts and Containerfiles need an engine.
        let engine = crate::world::engine().await.ok();
        let machine = world::registry_config()?;
        // Layers of bases go through this client, too, from wherever they are.
        let login = Login { account: account.clone(), registry: registry.clone(), others: machine.credentials };
        let client = world::registries_with(&RegistryConfig { credentials: Arc::new(login), ..machine })?;
        let names = prepared.model.images.keys().cloned().collect();
        // What others stand on may be there and not here; and what is to go there need not come here, unless an engine
        // needs it.
        let assembler = Assembler {
            kept: Some((client.clone(), registry.clone())),
            described: !prepared.model.images.values().any(|image| image.recipe.runs_programs()),
            ..prepared.assembler(engine)?
        };
        Ok(Self { account, assembler, registry, client, names, tellings: Tellings::of(prepared)? })
    }

    fn repository(&self, image: &str) -> String {
        fleet_graph::image::repository(&self.assembler.fleet, image)
    }
}

#[async_trait]
impl Provider for RepositoryImages {
    fn name(&self) -> &'static str {
        "repositories"
    }

    fn owns(&self, address: &Address) -> bool {
        address.kind == Kind::Image
    }

    async fn observe(&self, _: &[Address]) -> Result<State, ProviderError> {
        let read = self.names.iter().map(|name| async move {
            let repository = Repository { name: self.repository(name) };
            let found = self.account.derivations_in(&repository).await;
            found.map_err(|error| error.about(&Address::new(Kind::Image, name)))
        });
        let outputs = futures::future::try_join_all(read).await?.into_iter().flatten().collect();
        Ok(State { outputs, ..State::default() })
    }

    async fn apply(&self, change: &Change, _: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        let (Some(Desired::Image(spec)), Some(derivation)) = (&change.desired, &change.derivation) else {
            return Err(ProviderError::failed(&change.address, "the plan has no recipe for it"));
        };
        let error = |error: &dyn std::error::Error| ProviderError::caused(&change.address, error);
        let repository = format!("{}/{}", self.registry, self.repository(&spec.name));
        let tag = format!("d-{}", derivation.hash());
        if let Some(digest) = self.client.exists(&repository, &tag).await.map_err(|e| error(&e))? {
            return Ok(Applied::Unchanged { output: Some(digest.to_string()) });
        }
        let image = self.assembler.assemble(spec, derivation, events).await?;
        let written = format!("{repository}:{tag}");
        let target = Pushed::parse(&written).map_err(|e| error(&e))?;
        events.emit(Event::Call { system: "registry".to_owned(), call: format!("push {written}"), write: true });
        let said = self.tellings.about(&spec.name, &image).await.map_err(|e| error(&e))?;
        self.push(&target, (&Upload::of_image(&image), said), &change.address, events)
    }
}

impl RepositoryImages {
    /// Pushes an image. Driven to its end on this thread: the future of a push borrows too much to move to another one.
    /// Images are made one after the other, so nobody waits for that.
    fn push(
        &self,
        target: &Pushed,
        (upload, said): (&Upload, Vec<Upload>),
        address: &Address,
        events: &dyn Events,
    ) -> Result<Applied, ProviderError> {
        let progress = |what: String| events.emit(Event::Progress { address: address.clone(), what });
        let told = |event: fleet_registry::Event| {
            if let fleet_registry::Event::Retrying { why, pause } = event {
                progress(format!("{why}; again in {:.1} s", pause.as_secs_f32()));
            }
        };
        let source = StoreBlobs { store: Arc::clone(&self.assembler.store), origins: BTreeMap::new(), said };
        let pushed = tokio::task::block_in_place(|| {
            tokio::runtime::Handle::current().block_on(self.client.push(target, upload, &source, &told))
        });
        let pushed = pushed.map_err(|error| ProviderError::caused(address, &error))?;
        pushed.notices.iter().for_each(|notice| progress(notice.to_string()));
        progress(format!("sent {} KB, {} layers were there", pushed.sent >> 10, pushed.skipped + pushed.mounted));
        Ok(Applied::Changed { output: Some(upload.digest.to_string()) })
    }
}

/// The account's own login to its registry, asked for when the registry is first spoken to; elsewhere this user's.
struct Login {
    account: Account,
    registry: String,
    others: Arc<dyn Credentials>,
}

#[async_trait]
impl Credentials for Login {
    async fn of(&self, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        if self.registry.split('/').next() != Some(registry) {
            return self.others.of(registry).await;
        }
        let login = self.account.registry_login().await;
        let login =
            login.map_err(|error| CredentialsError { registry: registry.to_owned(), why: error.to_string() })?;
        Ok(Some(Credential::Password { user: login.user, password: login.password }))
    }
}
