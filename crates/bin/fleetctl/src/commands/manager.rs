//! `manager`: this program as the fleet's manager, inside the network of an environment on AWS. Everything that it needs it
//! is told in variables, which the stack sets.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use fleet_apply::{Events, Provider, Scope, Secrets, SystemClock, causes::chain};
use fleet_aws::{Account, Place};
use fleet_manager::{Homeserver, Mailbox, Manager, Pace, protocol::Key};
use fleet_matrix::{Login, MatrixProvider};
use fleet_objects::ManagerSettings;
use fleet_secret::{FleetSecret, Secret};

use crate::{
    context::{Context, print_out},
    error::{Failure, Outcome},
    exit::Exit,
};

/// What it must know, as JSON.
const SETTINGS: &str = "FLEET_MANAGER";
/// The config bucket; `file:///…` is a folder in its place, for who tries this on one machine.
const BUCKET: &str = "FLEET_BUCKET";
/// The fleet secret.
const SECRET: &str = "FLEET_SECRET";
/// In place of AWS's own addresses: an emulator.
const ENDPOINT: &str = "AWS_ENDPOINT_URL";
/// A manager that goes on says so every few seconds; longer than one look at a homeserver that does not answer.
const SILENT: Duration = Duration::from_secs(300);

/// `fleetctl manager`: until it is told to end.
///
/// # Errors
/// A variable that is missing or wrong.
pub async fn manager(context: &Context) -> Outcome {
    let settings = settings()?;
    let fleet = FleetSecret::new(Secret::new(variable(SECRET)?)).map_err(|error| wrong(SECRET, &error))?;
    let events: Arc<dyn Events> = Arc::<crate::ui::events::Console>::clone(&context.console);
    let mailbox = mailbox(&settings, Key::of(&fleet), &events).await?;
    let scope = Scope { fleet: settings.fleet, environment: settings.environment, domain: settings.domain };
    let matrix = fleet_matrix::Settings {
        url: settings.homeserver,
        flavour: crate::world::flavour(settings.kind),
        login: Login::Kept(context.machine.token_file(&scope)?),
        scope: scope.clone(),
    };
    let matrix = MatrixProvider::new(matrix, fleet.clone(), Arc::clone(&events))
        .map_err(|error| Failure::caused(Exit::Failed, "the homeserver cannot be used", &error))?;
    let alive = beat(context.machine.manager_file(&scope)?)?;
    let manager = Manager {
        scope,
        mailbox,
        homeserver: Arc::new(Real(matrix)),
        secrets: Secrets { fleet, operator: std::collections::BTreeMap::new() },
        clock: Arc::new(SystemClock),
        pace: Pace::SERVICE,
        events,
        tool: env!("CARGO_PKG_VERSION").to_owned(),
        alive,
    };
    manager.run(context.interrupts.applying()).await;
    context.interrupts.applied();
    Ok(Exit::Done)
}

/// Touches a file, every time that it is called: how old that is says whether the manager goes on.
fn beat(file: PathBuf) -> Result<Box<dyn Fn() + Send + Sync>, Failure> {
    let touch = move || file.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&file, ""));
    touch().map_err(|error| Failure::caused(Exit::Failed, "the manager cannot say that it is at work", &error))?;
    // A disk that is full later on shows as a manager that is not at work.
    Ok(Box::new(move || drop(touch())))
}

/// `fleetctl manager --health`, the health check of its container: whether the manager beside it goes on.
///
/// # Errors
/// One that has not said so for [`SILENT`].
pub fn health(context: &Context) -> Outcome {
    let settings = settings()?;
    let scope = Scope { fleet: settings.fleet, environment: settings.environment, domain: settings.domain };
    let file = context.machine.manager_file(&scope)?;
    let said = fs::metadata(&file).and_then(|file| file.modified());
    let said = said.map_err(|error| Failure::caused(Exit::Failed, "the manager has not begun", &error))?;
    let age = SystemTime::now().duration_since(said).unwrap_or_default();
    if age > SILENT {
        return Err(Failure::new(Exit::Failed, format!("the manager has said nothing for {} s", age.as_secs()))
            .hint("its log says what it did last: fleetctl logs service/manager -e ENV"));
    }
    print_out(&format!("at work {} s ago\n", age.as_secs()));
    Ok(Exit::Done)
}

fn settings() -> Result<ManagerSettings, Failure> {
    let settings: ManagerSettings =
        serde_json::from_str(&variable(SETTINGS)?).map_err(|error| wrong(SETTINGS, &error))?;
    if settings.schema != ManagerSettings::SCHEMA {
        let known = ManagerSettings::SCHEMA;
        let what = format!("{SETTINGS} has schema {}, and this fleetctl knows {known}", settings.schema);
        return Err(Failure::new(Exit::Usage, what));
    }
    Ok(settings)
}

async fn mailbox(settings: &ManagerSettings, key: Key, events: &Arc<dyn Events>) -> Result<Mailbox, Failure> {
    let bucket = variable(BUCKET)?;
    if let Some(folder) = bucket.strip_prefix("file://") {
        return Mailbox::folder(Path::new(folder), key).map_err(|error| wrong(BUCKET, &error));
    }
    let endpoint = std::env::var(ENDPOINT).ok().filter(|value| !value.is_empty());
    // Also an emulator is spoken to with the task's own credentials.
    let place = Place { account: settings.account.clone(), region: settings.region.clone(), endpoint: None };
    let account = Account::open(place, Arc::clone(events)).await;
    let store = account.bucket(&bucket, endpoint.as_deref()).map_err(|error| wrong(BUCKET, &error))?;
    Ok(Mailbox::new(store, key))
}

fn variable(name: &str) -> Result<String, Failure> {
    match std::env::var(name) {
        Ok(value) if !value.is_empty() => Ok(value),
        _ => Err(Failure::new(Exit::Usage, format!("the variable {name} is not set"))
            .hint("the stack of an environment on AWS sets it; see docs/reference/aws.md")),
    }
}

fn wrong(name: &str, error: &dyn std::error::Error) -> Failure {
    Failure::caused(Exit::Usage, format!("the variable {name} cannot be used"), error)
}

/// A real homeserver.
struct Real(MatrixProvider);

#[async_trait]
impl Homeserver for Real {
    fn provider(&self) -> &dyn Provider {
        &self.0
    }

    async fn finish(&self) -> Result<(), String> {
        self.0.finish().await.map_err(|error| chain(&error))
    }
}
