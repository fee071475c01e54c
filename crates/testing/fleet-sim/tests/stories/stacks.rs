//! Stacks: what is planned about one that stands, and the order in which stacks and images are made.

use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::AtomicBool},
};

use async_trait::async_trait;
use fleet_apply::{Applied, Events, Execution, Provider, ProviderError, Ready, Recorder, Secrets, Silent, execute};
use fleet_derivation::{Derivation, DerivationGraph, Hash, Input};
use fleet_model::{Address, Kind, model::Rollout};
use fleet_plan::{
    Action, Change, DeployedStack, Desired, Health, Observed, Plan, RunState, StackParameter, StackSpec, State,
};
use fleet_planner::{Planning, plan};
use fleet_secret::{FleetSecret, Secret};
use serde_json::json;

/// A stack that runs an image, and where what it needs comes from.
struct Stacks {
    /// A property of the task that runs the image.
    cpu: &'static str,
    /// The digest of the image, where it is known.
    digest: Option<&'static str>,
}

impl Stacks {
    fn image() -> Derivation {
        Derivation::new(Address::new(Kind::Image, "web"))
    }

    fn template(&self) -> String {
        json!({
            "Parameters": {"Web": {"Type": "String"}, "Files": {"Type": "String"}},
            "Resources": {
                "Task": {"Type": "AWS::ECS::TaskDefinition", "Properties": {"Cpu": self.cpu, "Image": {"Ref": "Web"}}},
                "Logs": {"Type": "AWS::Logs::LogGroup", "Properties": {"LogGroupName": "/a"}},
            },
        })
        .to_string()
    }

    fn derive(&self) -> (DerivationGraph, BTreeMap<Address, Desired>) {
        let (mut graph, mut desired) = (DerivationGraph::default(), BTreeMap::new());
        let image = Self::image();
        let output = self.digest.map(str::to_owned);
        let used = Input::Derivation { address: image.address.clone(), hash: image.hash(), output };
        let recipe = json!({
            "object": "image", "name": "web", "checks": [],
            "recipe": {"name": "web", "platform": "linux/amd64", "layers": [], "config": {"env": {}}, "compression": "zstd"},
        });
        desired.insert(image.address.clone(), serde_json::from_value(recipe).expect("an image"));
        graph.insert(image);
        let parameters = BTreeMap::from([
            ("Web".to_owned(), StackParameter::Image { image: "web".to_owned() }),
            ("Files".to_owned(), StackParameter::Output { stack: "dev-data".to_owned(), output: "Id".to_owned() }),
        ]);
        for (name, template, parameters) in [
            ("shared", "{}".to_owned(), BTreeMap::new()),
            ("dev-data", "{}".to_owned(), BTreeMap::new()),
            ("dev", self.template(), parameters),
        ] {
            let mut made = Derivation::new(Address::new(Kind::Stack, name));
            made.value("template", &template, None);
            if name == "dev" {
                made.input("parameter.Web", used.clone(), None);
            }
            let spec = StackSpec { template, parameters, tags: BTreeMap::new(), keys: BTreeMap::new() };
            desired.insert(made.address.clone(), Desired::Stack(spec));
            graph.insert(made);
        }
        (graph, desired)
    }

    fn plan(&self, state: &State) -> Plan {
        let (graph, desired) = self.derive();
        let known = graph.iter().map(|derivation| (derivation.hash(), derivation.clone())).collect();
        plan(&Planning {
            fleet: "sim",
            environment: "dev",
            graph: &graph,
            desired: &desired,
            state,
            known: &known,
            last: &BTreeMap::new(),
        })
    }

    /// All of it deployed, with an image of this digest.
    fn deployed(&self, digest: &str) -> State {
        let outputs = |pairs: &[(&str, &str)]| pairs.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        let mut state = State::default();
        for (name, template, parameters, made) in [
            ("shared", "{}".to_owned(), vec![], vec![("UriWeb", "registry/web")]),
            ("dev-data", "{}".to_owned(), vec![], vec![("Id", "fs-1")]),
            ("dev", self.template(), vec![("Web", digest), ("Files", "fs-1")], vec![]),
        ] {
            let address = Address::new(Kind::Stack, name);
            let stack = DeployedStack {
                template,
                parameters: outputs(&parameters),
                outputs: outputs(&made),
                tags: BTreeMap::new(),
            };
            let observed = Observed {
                hash: None,
                actual: None,
                run: RunState::Present,
                health: Health::None,
                id: name.to_owned(),
                version: "1".to_owned(),
                unfinished: None,
            };
            state.stacks.insert(address.clone(), stack);
            state.objects.insert(address, observed);
        }
        state
    }
}

const OLD: &str = "registry/web@sha256:old";

fn stack_change(plan: &Plan) -> &Change {
    plan.changes.iter().find(|change| change.address.name == "dev").expect("the stack changes")
}

#[test]
fn a_stack_that_stands_as_declared_is_left_alone() {
    let stacks = Stacks { cpu: "256", digest: Some("sha256:old") };
    let mut state = stacks.deployed(OLD);
    state.outputs.insert(Stacks::image().hash(), "sha256:old".to_owned());
    let plan = stacks.plan(&state);
    assert!(plan.is_empty(), "{:?}", plan.changes);
    assert_eq!(plan.unchanged, 4);
    // CloudFormation is still at work on it.
    let dev = Address::new(Kind::Stack, "dev");
    state.objects.get_mut(&dev).expect("observed").unfinished = Some("at work".to_owned());
    assert_eq!(stack_change(&stacks.plan(&state)).action, Action::Update);
}

#[test]
fn a_plan_says_what_happens_to_every_resource() {
    let stacks = Stacks { cpu: "256", digest: Some("sha256:old") };
    let mut state = stacks.deployed(OLD);
    state.outputs.insert(Stacks::image().hash(), "sha256:old".to_owned());
    let larger = Stacks { cpu: "512", ..stacks };
    let plan = larger.plan(&state);
    let change = stack_change(&plan);
    let resources: Vec<_> = change.resources.iter().map(|resource| resource.id.as_str()).collect();
    assert_eq!((resources, change.if_changed), (vec!["Task"], false));
    assert_eq!(change.expect.as_deref(), Some("1"));
}

#[test]
fn an_image_that_is_not_pushed_yet_makes_it_conditional() {
    let stacks = Stacks { cpu: "256", digest: None };
    let plan = stacks.plan(&stacks.deployed(OLD));
    let change = stack_change(&plan);
    assert!(change.if_changed, "it may be the same image");
    assert_eq!(change.resources[0].id, "Task", "and this is what happens if it is not");
    // With something else different too, it changes whatever the image becomes.
    assert!(!stack_change(&Stacks { cpu: "512", ..stacks }.plan(&stacks_of("256"))).if_changed);
}

fn stacks_of(cpu: &'static str) -> State {
    Stacks { cpu, digest: None }.deployed(OLD)
}

/// Writes down in which order it was asked.
#[derive(Default)]
struct Order(Mutex<Vec<String>>);

#[async_trait]
impl Provider for Order {
    fn name(&self) -> &'static str {
        "order"
    }

    fn owns(&self, _: &Address) -> bool {
        true
    }

    async fn observe(&self, _: &[Address]) -> Result<State, ProviderError> {
        Ok(State::default())
    }

    async fn apply(&self, change: &Change, _: &Ready<'_>, _: &dyn Events) -> Result<Applied, ProviderError> {
        self.0.lock().expect("a lock").push(change.address.to_string());
        Ok(Applied::Changed { output: Some("sha256:new".to_owned()) })
    }
}

impl Recorder for Order {
    fn derivation(&self, _: &Derivation) {}
    fn output(&self, _: &Hash, _: &str) {}
}

#[tokio::test]
async fn repositories_come_before_images_and_images_before_what_runs_them() {
    let plan = Stacks { cpu: "256", digest: None }.plan(&State::default());
    let order = Order::default();
    let secrets = Secrets {
        fleet: FleetSecret::new(Secret::new(b"long enough for a test".to_vec())).expect("long enough"),
        operator: BTreeMap::new(),
    };
    let execution = Execution {
        plan: &plan,
        providers: &[&order],
        secrets: &secrets,
        rollout: Rollout::default(),
        events: &Silent,
        recorder: &order,
        stop: &AtomicBool::new(false),
    };
    let report = execute(&execution, BTreeMap::new()).await;
    assert!(report.is_complete(), "{:?}", report.entries);
    let mut asked = order.0.into_inner().expect("a lock");
    asked[..2].sort(); // side by side
    assert_eq!(asked, ["stack/dev-data", "stack/shared", "image/web", "stack/dev"]);
}
