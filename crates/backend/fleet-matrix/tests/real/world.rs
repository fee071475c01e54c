//! A real Synapse of this test's own, started by the entry point that the homeserver image runs.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fleet_apply::{Applied, Event, Events, Provider, ProviderError, Ready, Scope, Secrets};
use fleet_matrix::{Flavour, Login, MatrixProvider, Settings};
use fleet_model::{Address, Kind};
use fleet_plan::{AccountSpec, Action, Change, Desired, RoomSpec, State};
use fleet_secret::{FleetSecret, Secret};
use fleet_sim::{free_port, venv};
use serde_json::{Value, json};

/// The version that the homeserver image of `fleet.kdl` pins.
const SYNAPSE: &str = "matrix-synapse==1.163.2";
pub const DOMAIN: &str = "anycompany.corp";
pub const SECRET: &str = "Vb3!nYk7-Pd4*hGc6";

/// One homeserver on one folder, gone when dropped.
pub struct World {
    folder: tempfile::TempDir,
    pub port: u16,
    server: Child,
    pub log: Arc<Log>,
}

/// Every call of a run.
#[derive(Default)]
pub struct Log(pub Mutex<Vec<Event>>);

impl Events for Log {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Log {
    /// Calls since the last time this was asked.
    pub fn take(&self) -> Vec<String> {
        let events = std::mem::take(&mut *self.0.lock().unwrap());
        events.into_iter().filter_map(|e| if let Event::Call { call, .. } = e { Some(call) } else { None }).collect()
    }

    /// Of those, the ones that change something.
    pub fn take_writes(&self) -> Vec<String> {
        self.take().into_iter().filter(|call| !call.starts_with("GET ")).collect()
    }
}

/// Python with Synapse in it.
fn python() -> PathBuf {
    venv("synapse", SYNAPSE).join("python")
}

fn succeed(what: &str, command: &mut Command) {
    let output = command.output().unwrap_or_else(|e| panic!("needed for this test: {what}: {e}"));
    assert!(output.status.success(), "needed for this test: {what}: {}", String::from_utf8_lossy(&output.stderr));
}

pub fn secrets() -> Secrets {
    Secrets { fleet: FleetSecret::new(Secret::new(SECRET)).unwrap(), operator: BTreeMap::new() }
}

impl World {
    /// A homeserver as the image configures it.
    pub async fn closed() -> Self {
        Self::start(json!({})).await
    }

    /// A homeserver that knows no shared secret of ours and takes registrations with a token, as Conduit does.
    pub async fn with_token_registration() -> Self {
        let world = Self::start(json!({"enable_registration": true, "registration_requires_token": true})).await;
        world.allow_registration_token().await;
        world
    }

    /// A homeserver that gets in variables what the others get in files, as on ECS.
    pub async fn from_variables() -> Self {
        let mut world = Self::start(json!({})).await;
        world.stop();
        let root = world.folder.path();
        let mut variables =
            vec![("FLEET_HOMESERVER".to_owned(), fs::read_to_string(root.join("fleet/homeserver.json")).unwrap())];
        for key in fs::read_dir(root.join("fleet/secrets")).unwrap() {
            let key = key.unwrap();
            let name = key.file_name().into_string().unwrap().to_uppercase().replace('-', "_");
            variables.push((format!("FLEET_KEY_{name}"), fs::read_to_string(key.path()).unwrap()));
        }
        fs::remove_dir_all(root.join("fleet")).unwrap();
        world.server = launch_with(root, "variables", variables);
        world.wait_until_it_serves().await;
        world
    }

    /// The environment of the running homeserver, as the kernel has it.
    pub fn environment(&self) -> String {
        String::from_utf8_lossy(&fs::read(format!("/proc/{}/environ", self.server.id())).unwrap()).into_owned()
    }

    async fn start(extra: Value) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let port = free_port();
        for name in ["fleet/secrets", "data"] {
            fs::create_dir_all(root.join(name)).unwrap();
        }
        for label in ["synapse-registration-shared-secret", "synapse-macaroon-secret", "synapse-form-secret"] {
            fs::write(root.join("fleet/secrets").join(label), secrets().fleet.key_for(label).expose()).unwrap();
        }
        let me = fs::metadata(root)
            .map(|m| (std::os::unix::fs::MetadataExt::uid(&m), std::os::unix::fs::MetadataExt::gid(&m)))
            .unwrap();
        let declared = json!({
            "schema": 1, "server_name": DOMAIN, "port": port, "data": root.join("data"), "uid": me.0, "gid": me.1,
            "bind": "127.0.0.1", "extra": extra,
        });
        fs::write(root.join("fleet/homeserver.json"), declared.to_string()).unwrap();
        let server = launch(root, "first");
        let mut world = Self { folder, port, server, log: Arc::default() };
        world.wait_until_it_serves().await;
        world
    }

    async fn wait_until_it_serves(&mut self) {
        let end = Instant::now() + Duration::from_secs(90);
        let url = format!("{}/health", self.url());
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().unwrap();
        while !client.get(&url).send().await.is_ok_and(|answer| answer.status().is_success()) {
            let ended = self.server.try_wait().unwrap();
            assert!(
                ended.is_none() && Instant::now() < end,
                "Synapse does not come up ({ended:?}):\n{}",
                self.said("first")
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Starts another homeserver on the same volume; what it says is returned once it has said something.
    pub async fn start_another(&self) -> (Child, String) {
        let child = launch(self.folder.path(), "second");
        let end = Instant::now() + Duration::from_secs(90);
        while !self.said("second").ends_with('\n') {
            assert!(Instant::now() < end, "the second homeserver says nothing");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        (child, self.said("second"))
    }

    /// Ends the present homeserver and waits until the other one serves.
    pub async fn hand_over(&mut self, other: Child) {
        self.stop();
        self.server = other;
        self.wait_until_it_serves().await;
    }

    /// What a homeserver printed.
    pub fn said(&self, which: &str) -> String {
        fs::read_to_string(self.folder.path().join(which)).unwrap_or_default()
    }

    pub fn stop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    pub fn token_file(&self) -> PathBuf {
        self.folder.path().join("operator/token")
    }

    /// A provider as a new process would have it.
    pub fn provider(&self, flavour: Flavour) -> MatrixProvider {
        self.provider_with(flavour, SECRET)
    }

    pub fn provider_with(&self, flavour: Flavour, secret: &str) -> MatrixProvider {
        self.provider_that(flavour, secret, Login::Kept(self.token_file()))
    }

    /// Somebody on another machine, with another login.
    pub fn elsewhere(&self, flavour: Flavour, login: Login) -> MatrixProvider {
        self.provider_that(flavour, SECRET, login)
    }

    fn provider_that(&self, flavour: Flavour, secret: &str, login: Login) -> MatrixProvider {
        let settings = Settings {
            scope: Scope { fleet: "anycompany".to_owned(), environment: "test".to_owned(), domain: DOMAIN.to_owned() },
            url: self.url(),
            flavour,
            login,
        };
        MatrixProvider::new(settings, FleetSecret::new(Secret::new(secret)).unwrap(), self.log.clone()).unwrap()
    }

    /// One value out of Synapse's database.
    pub fn count(&self, query: &str) -> u64 {
        let script = "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute(sys.argv[2]).fetchone()[0])";
        let output = Command::new(python())
            .args(["-c", script])
            .arg(self.folder.path().join("data/homeserver.db"))
            .arg(query)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
    }

    /// Devices and tokens of everybody: what logins leave behind.
    pub fn litter(&self) -> (u64, u64) {
        (self.count("select count(*) from devices where hidden = 0"), self.count("select count(*) from access_tokens"))
    }

    /// Calls the homeserver as somebody with a token, past our own code.
    pub async fn call(&self, method: &str, path: &str, token: &str, body: Value) -> Value {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let request = client.request(method.parse().unwrap(), format!("{}{path}", self.url())).bearer_auth(token);
        let request = if method == "GET" { request } else { request.json(&body) };
        let answer = request.send().await.unwrap();
        let status = answer.status();
        let body: Value = answer.json().await.unwrap();
        assert!(status.is_success(), "{method} {path}: {status} {body}");
        body
    }

    /// The service account's token, as kept by us.
    pub fn service_token(&self) -> String {
        fs::read_to_string(self.token_file()).unwrap()
    }

    /// A login with the password that an account should have; `None`: refused.
    pub async fn login(&self, localpart: &str, epoch: u32) -> Option<String> {
        let password = secrets().fleet.password(&format!("@{localpart}:{DOMAIN}"), epoch);
        let body = json!({
            "type": "m.login.password", "identifier": {"type": "m.id.user", "user": localpart},
            "password": password.expose_str().unwrap(), "device_id": "TEST",
        });
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let answer = client.post(format!("{}/_matrix/client/v3/login", self.url())).json(&body).send().await.unwrap();
        answer.json::<Value>().await.unwrap()["access_token"].as_str().map(str::to_owned)
    }

    pub async fn room_id(&self, alias: &str) -> String {
        let path = format!("/_matrix/client/v3/directory/room/%23{alias}:{DOMAIN}");
        self.call("GET", &path, &self.service_token(), json!({})).await["room_id"].as_str().unwrap().to_owned()
    }

    /// Lets registrations with the fleet's token pass; what a Conduit has in its configuration file.
    async fn allow_registration_token(&self) {
        let token = secrets().fleet.key_for(fleet_matrix::REGISTRATION_TOKEN_LABEL);
        let script = "import sqlite3,sys; c=sqlite3.connect(sys.argv[1]); c.execute('insert into registration_tokens(token,pending,completed) values (?,0,0)',(sys.argv[2],)); c.commit()";
        succeed(
            "a registration token",
            Command::new(python())
                .args(["-c", script])
                .arg(self.folder.path().join("data/homeserver.db"))
                .arg(token.expose_str().unwrap()),
        );
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn launch(root: &Path, name: &str) -> Child {
    launch_with(root, name, Vec::new())
}

fn launch_with(root: &Path, name: &str, variables: Vec<(String, String)>) -> Child {
    // Also for the stories of tests/, which are elsewhere.
    let mut folders = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let start =
        folders.find_map(|folder| Some(folder.join("images/homeserver/start.py")).filter(|file| file.is_file()));
    let start = start.expect("images/homeserver/start.py of this checkout");
    let log = fs::File::create(root.join(name)).unwrap();
    fs::create_dir_all(root.join(format!("run-{name}"))).unwrap();
    Command::new(python())
        .arg(start)
        .env("FLEET_ROOT", root)
        .env("FLEET_RUN", root.join(format!("run-{name}")))
        .env("PYTHONPYCACHEPREFIX", "") // the environment has its own, compiled once
        .envs(variables)
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

/// An account as declared.
pub fn account(localpart: &str, name: &str) -> (Address, Desired) {
    let spec = AccountSpec { matrix_id: format!("@{localpart}:{DOMAIN}"), display_name: name.to_owned(), epoch: 0 };
    (Address::new(Kind::Account, localpart), Desired::Account(spec))
}

/// A room as declared.
pub fn room(alias: &str, members: &[&str], change: impl FnOnce(&mut RoomSpec)) -> (Address, Desired) {
    let mut spec = RoomSpec {
        alias: alias.to_owned(),
        name: alias.to_owned(),
        topic: String::new(),
        members: ids(members),
        power: BTreeMap::new(),
        public: false,
        direct: false,
    };
    change(&mut spec);
    (Address::new(Kind::Room, alias), Desired::Room(spec))
}

/// A direct-message room as declared.
pub fn direct(first: &str, second: &str) -> (Address, Desired) {
    room(&format!("dm-{first}-{second}"), &[first, second], |spec| {
        spec.name = String::new();
        spec.direct = true;
    })
}

fn ids(localparts: &[&str]) -> BTreeSet<String> {
    localparts.iter().map(|name| format!("@{name}:{DOMAIN}")).collect()
}

pub type Fleet = BTreeMap<Address, Desired>;

/// What a planner would find to do.
pub fn changes(fleet: &Fleet, state: &State) -> Vec<Change> {
    let wanted = fleet.iter().filter_map(|(address, desired)| {
        let seen = state.objects.get(address);
        let action = if seen.is_some() { Action::Update } else { Action::Create };
        let right = seen.is_some_and(|seen| seen.actual.as_ref() == Some(desired) && seen.unfinished.is_none());
        (!right).then(|| change(address, action, seen.map(|seen| seen.version.clone()), Some(desired.clone())))
    });
    let unwanted = state
        .objects
        .iter()
        .filter(|(address, _)| address.kind == Kind::Account && !fleet.contains_key(*address))
        .map(|(address, seen)| change(address, Action::Delete, Some(seen.version.clone()), None));
    wanted.chain(unwanted).collect()
}

pub fn change(address: &Address, action: Action, expect: Option<String>, desired: Option<Desired>) -> Change {
    Change {
        address: address.clone(),
        action,
        if_changed: false,
        reasons: Vec::new(),
        before: None,
        after: None,
        expect,
        desired,
        derivation: None,
        resources: Vec::new(),
    }
}

/// One whole run: observe, plan, apply, sign out. Returns what was changed.
pub async fn run(provider: &MatrixProvider, fleet: &Fleet, log: &Log) -> Vec<String> {
    let wanted: Vec<Address> = fleet.keys().cloned().collect();
    let state = provider.observe(&wanted).await.unwrap();
    let mut done = Vec::new();
    for change in changes(fleet, &state) {
        let applied = apply(provider, &change, log).await.unwrap_or_else(|e| panic!("{}: {e:?}", change.address));
        if matches!(applied, Applied::Changed { .. }) {
            done.push(format!("{} {}", change.action, change.address));
        }
    }
    provider.finish().await.unwrap();
    done
}

pub async fn apply(provider: &MatrixProvider, change: &Change, log: &Log) -> Result<Applied, ProviderError> {
    apply_with(provider, change, log).await
}

pub async fn apply_with(
    provider: &MatrixProvider,
    change: &Change,
    events: &dyn Events,
) -> Result<Applied, ProviderError> {
    let (outputs, secrets) = (BTreeMap::new(), secrets());
    provider.apply(change, &Ready { outputs: &outputs, secrets: &secrets }, events).await
}
