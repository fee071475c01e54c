//! Agents as services of ECS: made, rolled, left alone, removed. Most stories have tasks on paper, which become healthy
//! because the emulator says so; the last ones run small containers in place of agents.

use std::collections::BTreeMap;

use fleet_apply::{Applied, Provider, ProviderError, Ready};
use fleet_aws::{AgentProvider, emulator::Fault};
use fleet_derivation::{Derivation, Hash, Input};
use fleet_model::{Address, Kind, model::Size};
use fleet_plan::{
    Action, Change, ContainerSpec, Content, Desired, Health, HealthProbe, PlacedFile, RunState, SecretUse, State,
    VolumeMount,
};
use fleet_stacks::{
    agent_service::{AgentPlan, agent_service},
    data, environment, shared,
};

use crate::{
    rig::{engine, push_box},
    world::{CHANGED, DIGEST, UNCHANGED, World, changed, secrets},
};

const ANN: &str = "ann.lee";

/// An account with the stacks of an environment, and agents to have in it.
pub struct Agents {
    pub world: World,
    /// Agents and the words that they are made from: what their containers run, where they have any.
    pub wanted: BTreeMap<String, &'static str>,
    /// Their image.
    digest: String,
}

impl Agents {
    pub async fn new() -> Self {
        let world = World::new().await;
        for stack in [shared, data, environment] {
            world.apply(&stack(&world.settings()).unwrap()).await.unwrap();
        }
        Self { world, wanted: BTreeMap::from([(ANN.to_owned(), "first words")]), digest: DIGEST.to_owned() }
    }

    /// An account whose tasks run, in the stack without services of its own.
    pub async fn running() -> Self {
        let world = World::with(Some(&engine())).await;
        let settings = world.settings();
        for stack in [shared(&settings).unwrap(), data(&settings).unwrap()] {
            world.apply(&stack).await.unwrap();
        }
        let alone = changed(&environment(&settings).unwrap(), |document| {
            let resources = document["Resources"].as_object_mut().unwrap();
            resources.retain(|_, resource| resource["Type"] != "AWS::ECS::Service");
        });
        world.apply(&alone).await.unwrap();
        let digest = push_box(&world.emulator.endpoint(), "anycompany/agent", "/bin/sh").await;
        Self { world, wanted: BTreeMap::new(), digest }
    }

    fn provider(&self) -> AgentProvider {
        AgentProvider::new(self.world.account.clone(), self.world.scope())
    }

    async fn observe(&self) -> State {
        let wanted: Vec<Address> = self.wanted.keys().map(|id| address(id)).collect();
        self.provider().observe(&wanted).await.unwrap()
    }

    /// The change that a planner makes of what is there now.
    async fn change(&self, id: &str) -> Change {
        let state = self.observe().await;
        let observed = state.objects.get(&address(id));
        let (desired, derivation) = match self.wanted.get(id) {
            Some(words) => {
                let (spec, derivation) = self.agent(id, words);
                (Some(spec), Some(derivation))
            }
            None => (None, None),
        };
        Change {
            address: address(id),
            action: match (observed, &desired) {
                (_, None) => Action::Delete,
                (None, _) => Action::Create,
                (Some(_), _) => Action::Roll,
            },
            if_changed: false,
            reasons: Vec::new(),
            before: observed.and_then(|observed| observed.hash),
            after: None,
            expect: observed.map(|observed| observed.version.clone()),
            desired,
            derivation,
            resources: Vec::new(),
        }
    }

    fn agent(&self, id: &str, words: &str) -> (Desired, Derivation) {
        let mut derivation = Derivation::new(address(id));
        derivation.value("words", words, None);
        let image =
            Input::Derivation { address: Address::new(Kind::Image, "agent"), hash: Hash::of(b"image"), output: None };
        derivation.input("image", image, None);
        let plan = AgentPlan {
            agent: id,
            container: container(id, words),
            spot: false,
            models: std::collections::BTreeSet::new(),
        };
        (Desired::Agent(Box::new(agent_service(&self.world.settings(), plan))), derivation)
    }

    pub async fn apply(&self, id: &str) -> Result<Applied, ProviderError> {
        self.carry_out(&self.change(id).await).await
    }

    async fn carry_out(&self, change: &Change) -> Result<Applied, ProviderError> {
        let outputs = BTreeMap::from([(Hash::of(b"image"), self.digest.clone())]);
        let secrets = secrets();
        let ready = Ready { outputs: &outputs, secrets: &secrets };
        self.provider().apply(change, &ready, &*self.world.heard).await
    }

    /// Folders of all access points, in order; one that two have is there twice.
    pub async fn folders(&self) -> Vec<String> {
        let url = format!("{}/2015-02-01/access-points?MaxResults=1000", self.world.emulator.endpoint());
        let as_whom = "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/elasticfilesystem/aws4_request, SignedHeaders=host, Signature=0";
        let request = reqwest::Client::new().get(url).header("authorization", as_whom);
        let answer: serde_json::Value = request.send().await.unwrap().json().await.unwrap();
        let points = answer["AccessPoints"].as_array().unwrap().iter();
        let paths = points.map(|point| point["RootDirectory"]["Path"].as_str().unwrap().to_owned());
        let mut folders: Vec<String> = paths.filter(|path| path.starts_with("/agents/")).collect();
        folders.sort_unstable();
        folders
    }

    async fn count(&self, action: &str) -> usize {
        self.world.asked().await.iter().filter(|asked| asked.starts_with(action)).count()
    }

    /// What was asked since, without what only reads.
    pub async fn writes_since(&self, before: usize) -> Vec<String> {
        let asked = self.world.asked().await.split_off(before);
        asked.into_iter().filter(|asked| !is_read(asked)).collect()
    }
}

fn is_read(action: &str) -> bool {
    let (service, verb) = action.split_once(' ').unwrap_or_default();
    ["GET", "HEAD"].contains(&service) || ["Describe", "Get", "List"].iter().any(|read| verb.starts_with(read))
}

fn address(id: &str) -> Address {
    Address::new(Kind::Agent, id)
}

fn container(id: &str, words: &str) -> ContainerSpec {
    let file = |path: &str, content| PlacedFile { path: path.to_owned(), mode: 0o444, uid: 0, gid: 0, content };
    let volume = |volume: String, path: &str, read_only| VolumeMount { volume, path: path.to_owned(), read_only };
    ContainerSpec {
        image: Address::new(Kind::Image, "agent"),
        image_hash: Hash::of(b"image"),
        image_output: None,
        env: BTreeMap::new(),
        command: Some(vec!["-c".to_owned(), words.to_owned()]),
        files: vec![
            file("/fleet/agent.json", Content::Text { text: "{}".into() }),
            file("/fleet/bundle/files/SOUL.md", Content::Text { text: words.into() }),
            file(
                "/fleet/secrets/password",
                Content::Secret {
                    secret: SecretUse::Password { matrix_id: format!("@{id}:anycompany.corp"), epoch: 0 },
                },
            ),
            file("/fleet/secrets/KEY", Content::Secret { secret: SecretUse::Operator { name: "KEY".to_owned() } }),
        ],
        volumes: vec![
            volume(format!("data-{id}"), "/data", false),
            volume("directory".to_owned(), "/fleet/directory", true),
        ],
        ports: Vec::new(),
        size: Size { cpu: 1024, memory_mib: 2048 },
        health: Some(HealthProbe {
            command: ["/bin/test", "-e", "/tmp/ok"].map(str::to_owned).to_vec(),
            interval_seconds: 3,
            timeout_seconds: 15,
            start_period_seconds: 60,
            retries: 3,
        }),
        hostname: id.to_owned(),
        aliases: std::collections::BTreeSet::new(),
        host_gateway: false,
        stop_grace_seconds: 30,
        healthy_within_seconds: 60,
        read_only_root: false,
    }
}

#[tokio::test]
async fn an_agent_comes_from_nothing_and_the_second_look_only_reads() {
    let agents = Agents::new().await;
    assert!(agents.observe().await.objects.is_empty());
    assert_eq!(agents.apply(ANN).await.unwrap(), CHANGED);
    for (action, times) in [
        ("ecs RegisterTaskDefinition", 1),
        ("ecs CreateService", 1),
        ("ecs UpdateService", 0),
        ("POST /2015-02-01/access-points", 1),
        ("iam CreateRole", 1),
        ("ssm PutParameter", 5),
    ] {
        assert_eq!(agents.count(action).await, times, "{action}");
    }
    let before = agents.world.asked().await.len();
    let state = agents.observe().await;
    let seen = &state.objects[&address(ANN)];
    let (_, derivation) = agents.agent(ANN, "first words");
    let outputs = BTreeMap::from([(Hash::of(b"image"), DIGEST.to_owned())]);
    assert_eq!(seen.hash, Some(derivation.with_outputs(&outputs).hash()), "the service tells by what it was made");
    assert_eq!((seen.run, seen.health, &seen.unfinished), (RunState::Running, Health::Healthy, &None));
    assert_eq!(agents.writes_since(before).await, Vec::<String>::new());
    // Asked all the same, there is nothing to do.
    assert_eq!(agents.apply(ANN).await.unwrap(), UNCHANGED);
    assert_eq!(agents.writes_since(before).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_change_is_one_task_definition_and_one_update() {
    let mut agents = Agents::new().await;
    agents.wanted.insert("bob".to_owned(), "first words");
    for id in [ANN, "bob"] {
        agents.apply(id).await.unwrap();
    }
    agents.wanted.insert(ANN.to_owned(), "other words");
    let before = agents.world.asked().await.len();
    assert_eq!(agents.apply(ANN).await.unwrap(), CHANGED);
    let writes = agents.writes_since(before).await;
    let bundle: Vec<&String> = writes.iter().filter(|action| action.starts_with("PUT /")).collect();
    assert!(bundle.len() == 1 && bundle[0].contains("/bundles/ann.lee/"), "{writes:?}");
    let rest: Vec<&String> = writes.iter().filter(|action| !action.starts_with("PUT /")).collect();
    assert_eq!(rest, ["ecs RegisterTaskDefinition", "ecs UpdateService"]);

    // Back to what it was: that task definition and those files are still there.
    agents.wanted.insert(ANN.to_owned(), "first words");
    let before = agents.world.asked().await.len();
    assert_eq!(agents.apply(ANN).await.unwrap(), CHANGED);
    assert_eq!(agents.writes_since(before).await, ["ecs UpdateService"]);
}

#[tokio::test]
async fn a_removed_agent_keeps_its_folder_and_has_it_again_when_it_returns() {
    let mut agents = Agents::new().await;
    agents.apply(ANN).await.unwrap();
    agents.wanted.clear();
    assert_eq!(agents.apply(ANN).await.unwrap(), CHANGED);
    let state = agents.observe().await;
    assert!(state.objects.is_empty());
    assert!(state.orphans[&address(ANN)].contains("its memory is kept, in access point fsap-"), "{:?}", state.orphans);
    assert_eq!((agents.count("iam DeleteRole").await, agents.count("ssm DeleteParameters").await), (2, 1));

    agents.wanted.insert(ANN.to_owned(), "first words");
    assert_eq!(agents.apply(ANN).await.unwrap(), CHANGED);
    assert_eq!(agents.count("POST /2015-02-01/access-points").await, 1, "the same folder");
    assert_eq!(agents.count("ecs CreateService").await, 2);
    assert!(agents.observe().await.orphans.is_empty());
}

#[tokio::test]
async fn answers_that_are_lost_leave_nothing_twice() {
    let agents = Agents::new().await;
    let faults = [
        ("ecs RegisterTaskDefinition", Fault::Lose),
        ("ecs CreateService", Fault::Lose),
        ("POST /2015-02-01/access-points", Fault::Lose),
        ("iam CreateRole", Fault::Lose),
        ("ssm PutParameter", Fault::Lose),
        ("ecs DescribeServices", Fault::Throttle),
        ("iam PutRolePolicy", Fault::Fail),
    ];
    let change = agents.change(ANN).await;
    agents.world.emulator.answer_badly(&faults).await.unwrap();
    assert_eq!(agents.carry_out(&change).await.unwrap(), CHANGED);
    assert_eq!(agents.count("ecs RegisterTaskDefinition").await, 1, "it was found by its family");
    assert_eq!(agents.count("POST /2015-02-01/access-points").await, 1, "it was found by its tags");
    let state = agents.observe().await;
    assert_eq!((state.objects.len(), state.orphans.len()), (1, 0));
}

#[tokio::test]
async fn a_service_that_somebody_else_changed_is_left_alone() {
    let mut agents = Agents::new().await;
    agents.apply(ANN).await.unwrap();
    agents.wanted.insert(ANN.to_owned(), "their words");
    let theirs = agents.change(ANN).await;
    agents.wanted.insert(ANN.to_owned(), "our words");
    let ours = agents.change(ANN).await;
    assert_eq!(agents.carry_out(&theirs).await.unwrap(), CHANGED);
    let error = agents.carry_out(&ours).await.unwrap_err();
    assert!(matches!(error, ProviderError::Stale { .. }), "{error}");
    // To the same: nothing is left to do.
    assert_eq!(agents.carry_out(&theirs).await.unwrap(), UNCHANGED);
}

/// More calls than making one agent takes.
const CALLS: usize = 60;

#[tokio::test]
async fn an_agent_cut_at_any_call_is_finished_by_the_next_run_with_nothing_twice() {
    let mut agents = Agents::new().await;
    let mut cut = 0;
    for nth in 1..CALLS {
        let id = format!("agent{nth}");
        agents.wanted = BTreeMap::from([(id.clone(), "words")]);
        let change = agents.change(&id).await;
        let heard = std::sync::Arc::clone(&agents.world.heard);
        heard.0.lock().unwrap().clear();
        let calls = move || {
            let heard = heard.0.lock().unwrap();
            heard.iter().filter(|event| matches!(event, fleet_apply::Event::Call { .. })).count()
        };
        let killed = tokio::select! {
            biased;
            () = async { while calls() < nth { tokio::task::yield_now().await } } => true,
            done = agents.carry_out(&change) => { assert_eq!(done.unwrap(), CHANGED); false }
        };
        if !killed {
            break;
        }
        cut += 1;
        agents.apply(&id).await.unwrap_or_else(|error| panic!("after call {nth}: {error}"));
        let seen = agents.observe().await;
        assert!(seen.objects[&address(&id)].health == Health::Healthy, "after call {nth}");
    }
    assert!((10..CALLS - 1).contains(&cut), "{cut} calls make an agent");
    // Whatever was asked for twice, each has one of everything.
    assert_eq!(agents.observe().await.objects.len(), cut + 1);
    assert_eq!(agents.folders().await.len(), cut + 1);
}

/// Serves until it is asked to stop.
pub const SERVES: &str = "touch /tmp/ok; echo up; trap 'exit 0' TERM; while :; do sleep 0.1; done";
/// The same, of another version.
const SERVES_TOO: &str = "touch /tmp/ok; echo up too; trap 'exit 0' TERM; while :; do sleep 0.1; done";
const CRASHES: &str = "echo broken to bits; exit 3";

#[tokio::test]
async fn an_agent_that_crashes_is_rolled_back_with_its_last_words_and_the_former_one_runs() {
    let mut agents = Agents::running().await;
    agents.wanted.insert(ANN.to_owned(), SERVES);
    assert_eq!(agents.apply(ANN).await.unwrap(), CHANGED);
    let before = agents.observe().await.objects[&address(ANN)].clone();
    assert_eq!((before.run, before.health), (RunState::Running, Health::Healthy));

    agents.wanted.insert(ANN.to_owned(), CRASHES);
    let error = agents.apply(ANN).await.unwrap_err();
    assert!(matches!(error, ProviderError::RolledBack { .. }), "{error}");
    assert!(error.to_string().contains("circuit breaker") && error.to_string().contains("exit code 3"), "{error}");
    assert!(error.last_lines().contains(&"broken to bits".to_owned()), "{:?}", error.last_lines());
    let after = agents.observe().await.objects[&address(ANN)].clone();
    assert_eq!((after.hash, after.run, after.health), (before.hash, RunState::Running, Health::Healthy));

    // What is still to do is done once it is mended.
    agents.wanted.insert(ANN.to_owned(), SERVES_TOO);
    assert_eq!(agents.apply(ANN).await.unwrap(), CHANGED);
    let mended = agents.observe().await.objects[&address(ANN)].clone();
    assert!(mended.hash != before.hash && mended.health == Health::Healthy, "{mended:?}");

    agents.wanted.clear();
    assert_eq!(agents.apply(ANN).await.unwrap(), CHANGED);
    assert!(agents.observe().await.objects.is_empty());
    agents.world.emulator.stop().await;
}

#[tokio::test]
async fn an_agent_that_never_ran_and_crashes_is_not_left_crashing() {
    let mut agents = Agents::running().await;
    agents.wanted.insert(ANN.to_owned(), CRASHES);
    let error = agents.apply(ANN).await.unwrap_err();
    assert!(matches!(error, ProviderError::Failed { .. }), "{error}");
    assert!(error.last_lines().contains(&"broken to bits".to_owned()), "{:?}", error.last_lines());
    let seen = agents.observe().await.objects[&address(ANN)].clone();
    assert_eq!(seen.run, RunState::Stopped, "{seen:?}");

    agents.wanted.insert(ANN.to_owned(), SERVES);
    assert_eq!(agents.apply(ANN).await.unwrap(), CHANGED);
    assert_eq!(agents.observe().await.objects[&address(ANN)].health, Health::Healthy);
    agents.world.emulator.stop().await;
}
