//! [`World`]: an emulated account of its own, with what is said and asked written down.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::{Arc, Mutex},
};

use fleet_apply::{Applied, Event, Events, Provider, ProviderError, Ready, Scope, Secrets};
use fleet_aws::{
    Account, Place, StackProvider,
    emulator::{Emulator, REQUIREMENTS, Start},
};
use fleet_derivation::{Derivation, Hash, Input};
use fleet_model::{
    Address, Kind,
    model::{HomeserverKind, Size},
};
use fleet_plan::{Action, Change, Desired, StackParameter, StackSpec, State};
use fleet_secret::{FleetSecret, Secret};
use fleet_sim::{free_port, venv};
use fleet_stacks::{Homeserver, Rendered, Settings, Snapshot, Web, compare};
use serde_json::Value;
use tempfile::TempDir;

/// Digest of every image.
pub const DIGEST: &str = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";

/// Remembers everything.
#[derive(Default)]
pub struct Heard(pub Mutex<Vec<Event>>);

impl Events for Heard {
    fn emit(&self, event: Event) {
        self.0.lock().unwrap().push(event);
    }
}

impl Heard {
    pub fn notices(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        let text = |event: &Event| match event {
            Event::Notice { text } => Some(text.clone()),
            _ => None,
        };
        events.iter().filter_map(text).collect()
    }

    pub fn progress(&self) -> Vec<String> {
        let events = self.0.lock().unwrap();
        events
            .iter()
            .filter_map(|event| match event {
                Event::Progress { what, .. } => Some(what.clone()),
                _ => None,
            })
            .collect()
    }
}

/// An account, and a way to make its stacks.
pub struct World {
    pub emulator: Emulator,
    pub account: Account,
    pub heard: Arc<Heard>,
    pub fleet: String,
    _folder: TempDir,
}

impl World {
    /// An empty account, with tasks on paper.
    pub async fn new() -> Self {
        Self::with(None).await
    }

    /// An empty account whose tasks run in an engine, or are on paper.
    pub async fn with(engine: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { account: "111122223333".to_owned(), region: "us-east-1".to_owned(), endpoint: None };
        let python: PathBuf = venv("ministack", &REQUIREMENTS.join(" ")).join("python");
        let port = free_port();
        let start = Start { python: &python, folder: folder.path(), port, place: &place, engine };
        let emulator = Emulator::start(start).await.unwrap();
        let heard = Arc::new(Heard::default());
        let events: Arc<dyn Events> = Arc::<Heard>::clone(&heard);
        let place = Place { endpoint: Some(emulator.endpoint()), ..place };
        let account = Account::open(place, events).await;
        Self { emulator, account, heard, fleet: "anycompany".to_owned(), _folder: folder }
    }

    /// Its one environment.
    pub fn scope(&self) -> Scope {
        Scope { fleet: self.fleet.clone(), environment: "dev".to_owned(), domain: "anycompany.corp".to_owned() }
    }

    pub fn provider(&self, allowed: &[&str]) -> StackProvider {
        StackProvider::new(self.account.clone(), self.scope(), allowed.iter().map(|id| (*id).to_owned()).collect())
    }

    pub fn settings(&self) -> Settings {
        Settings { fleet: self.fleet.clone(), ..settings() }
    }

    pub async fn observe(&self, name: &str) -> State {
        self.provider(&[]).observe(&[address(name)]).await.unwrap()
    }

    /// The change that a planner makes of what is there now.
    pub async fn change(&self, rendered: &Rendered) -> Change {
        let address = address(&rendered.name);
        let state = self.observe(&rendered.name).await;
        let spec = spec(rendered);
        let resources = state.stacks.get(&address).map_or_else(Vec::new, |deployed| {
            let template = |text: &str| serde_json::from_str::<Value>(text).unwrap();
            let (new, old) = (template(&spec.template), template(&deployed.template));
            compare(
                Snapshot { template: &new, parameters: &deployed.parameters },
                Snapshot { template: &old, parameters: &deployed.parameters },
            )
        });
        let observed = state.objects.get(&address);
        Change {
            action: if observed.is_some() { Action::Update } else { Action::Create },
            if_changed: false,
            reasons: Vec::new(),
            before: None,
            after: None,
            expect: observed.map(|observed| observed.version.clone()),
            derivation: Some(derivation(&address, &spec)),
            desired: Some(Desired::Stack(spec)),
            resources,
            address,
        }
    }

    pub async fn apply(&self, rendered: &Rendered) -> Result<Applied, ProviderError> {
        self.carry_out(&self.change(rendered).await, &[]).await
    }

    pub async fn carry_out(&self, change: &Change, allowed: &[&str]) -> Result<Applied, ProviderError> {
        let outputs = BTreeMap::from([(Hash::of(b"image"), DIGEST.to_owned())]);
        let secrets = secrets();
        let ready = Ready { outputs: &outputs, secrets: &secrets };
        self.provider(allowed).apply(change, &ready, &*self.heard).await
    }

    /// Asks for a stack's removal as others would, and waits until that ends, well or not.
    pub async fn delete_stack(&self, name: &str) {
        let form = |action: &str| format!("Action={action}&Version=2010-05-15&StackName={name}");
        let as_whom = "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/cloudformation/aws4_request, SignedHeaders=host, Signature=0";
        let ask = async |action: &str| {
            let request = reqwest::Client::new().post(self.emulator.endpoint()).header("authorization", as_whom);
            let request = request.header("content-type", "application/x-www-form-urlencoded");
            request.body(form(action)).send().await.unwrap().text().await.unwrap()
        };
        ask("DeleteStack").await;
        while ask("DescribeStacks").await.contains("DELETE_IN_PROGRESS") {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
    }

    /// Requests so far.
    pub async fn asked(&self) -> Vec<String> {
        self.emulator.requests().await.unwrap().into_iter().map(|request| request.action).collect()
    }
}

/// What an operator has: no secret of this account.
pub fn secrets() -> Secrets {
    let fleet = FleetSecret::new(Secret::new(b"not the one of this account".to_vec())).unwrap();
    Secrets { fleet, operator: BTreeMap::new() }
}

pub fn address(name: &str) -> Address {
    Address::new(Kind::Stack, name)
}

pub const CHANGED: Applied = Applied::Changed { output: None };
pub const UNCHANGED: Applied = Applied::Unchanged { output: None };

fn spec(rendered: &Rendered) -> StackSpec {
    let Rendered { body, parameters, tags, keys, .. } = rendered.clone();
    StackSpec { template: body, parameters, tags, keys }
}

fn derivation(address: &Address, spec: &StackSpec) -> Derivation {
    let mut made = Derivation::new(address.clone());
    for (id, parameter) in &spec.parameters {
        if let StackParameter::Image { image } = parameter {
            let address = Address::new(Kind::Image, image);
            made.input(
                format!("parameter.{id}"),
                Input::Derivation { address, hash: Hash::of(b"image"), output: None },
                None,
            );
        }
    }
    made
}

/// A template with something in it changed.
pub fn changed(rendered: &Rendered, change: impl FnOnce(&mut Value)) -> Rendered {
    let mut document: Value = serde_json::from_str(&rendered.body).unwrap();
    change(&mut document);
    Rendered { body: document.to_string(), ..rendered.clone() }
}

/// A resource that cannot be made: its security group does not exist.
pub fn impossible(document: &mut Value) {
    document["Resources"]["Impossible"] = serde_json::json!({
        "Type": "AWS::EC2::SecurityGroupIngress",
        "Properties": {"GroupId": "sg-nowhere", "IpProtocol": "tcp", "FromPort": 1, "ToPort": 1, "CidrIp": "10.0.0.0/8"},
    });
}

fn settings() -> Settings {
    let size = Size { cpu: 1024, memory_mib: 2048 };
    Settings {
        fleet: String::new(),
        environment: "dev".to_owned(),
        domain: "anycompany.corp".to_owned(),
        account: "111122223333".to_owned(),
        region: "us-east-1".to_owned(),
        images: ["agent", "homeserver", "web"].map(str::to_owned).into_iter().collect::<BTreeSet<_>>(),
        cidr: "10.0.0.0/16".parse().unwrap(),
        zones: 2,
        nat_gateways: 1,
        agents: 50,
        arm: false,
        homeserver: Homeserver { image: "homeserver".to_owned(), kind: HomeserverKind::Synapse, size },
        web: Some(Web { image: "web".to_owned(), size: Size { cpu: 256, memory_mib: 512 } }),
        manager: None,
        agents_get_fleet_secret: false,
        log_days: 7,
        backup_days: Some(7),
    }
}
