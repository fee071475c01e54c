//! Plan and execute over the fake world: killed at every write, failing, rolled back, and always ending the same.

use std::{
    collections::BTreeMap,
    sync::{Mutex, atomic::AtomicBool},
};

use fleet_apply::{Execution, Provider as _, Recorder, Report, Secrets, execute};
use fleet_derivation::{Derivation, DerivationGraph, Hash, Input};
use fleet_model::{Address, Kind, model::Rollout};
use fleet_plan::{AccountSpec, Action, Desired, Outcome, Plan, Reason, RoomSpec};
use fleet_planner::{Known, Planning, plan};
use fleet_secret::{FleetSecret, Secret};
use fleet_sim::{CallLog, Faults, World, killed};

use crate::container;

const PEOPLE: [&str; 3] = ["ann", "bob", "cid"];

/// A small fleet as a value; tests change a field and plan again.
#[derive(Clone)]
struct Small {
    model: BTreeMap<&'static str, &'static str>,
    image: &'static str,
    topic: &'static str,
    people: Vec<&'static str>,
}

impl Small {
    fn new() -> Self {
        let model = PEOPLE.into_iter().map(|person| (person, "small")).collect();
        Self { model, image: "one", topic: "work", people: PEOPLE.to_vec() }
    }

    fn derive(&self) -> (DerivationGraph, BTreeMap<Address, Desired>) {
        let (mut graph, mut desired) = (DerivationGraph::default(), BTreeMap::new());
        let mut image = Derivation::new(Address::new(Kind::Image, "agent"));
        image.value("content", self.image, None);
        let image_hash = graph.insert(image);
        desired.insert(Address::new(Kind::Image, "agent"), image_spec(self.image));
        for person in &self.people {
            let mut account = Derivation::new(Address::new(Kind::Account, *person));
            account.value("name", *person, None);
            desired.insert(account.address.clone(), Desired::Account(account_spec(person)));
            graph.insert(account);
            let mut agent = Derivation::new(Address::new(Kind::Agent, *person));
            agent.value("model", self.model[person], None);
            let address = Address::new(Kind::Image, "agent");
            agent.input("image", Input::Derivation { address, hash: image_hash, output: None }, None);
            desired.insert(agent.address.clone(), container(image_hash, self.model[person]));
            graph.insert(agent);
        }
        let mut room = Derivation::new(Address::new(Kind::Room, "team"));
        room.value("topic", self.topic, None);
        room.value("members", self.people.join(" "), None);
        desired.insert(room.address.clone(), Desired::Room(self.room()));
        graph.insert(room);
        (graph, desired)
    }

    fn room(&self) -> RoomSpec {
        RoomSpec {
            alias: "team".to_owned(),
            name: "Team".to_owned(),
            topic: self.topic.to_owned(),
            members: self.people.iter().map(|person| format!("@{person}:sim.example")).collect(),
            power: BTreeMap::new(),
            public: false,
            direct: false,
        }
    }
}

fn image_spec(content: &str) -> Desired {
    let json = format!(
        r#"{{"object":"image","name":"agent","recipe":{{"name":"agent","platform":"linux/amd64","layers":[],"config":{{"env":{{"CONTENT":"{content}"}}}},"compression":"zstd"}},"checks":[]}}"#
    );
    serde_json::from_str(&json).expect("an image")
}

fn account_spec(person: &str) -> AccountSpec {
    AccountSpec { matrix_id: format!("@{person}:sim.example"), display_name: person.to_owned(), epoch: 0 }
}

/// What `.fleet/` keeps, and the world.
#[derive(Default)]
struct Machine {
    world: World,
    store: Mutex<Known>,
    last: Mutex<BTreeMap<Address, Hash>>,
}

impl Recorder for Machine {
    fn derivation(&self, derivation: &Derivation) {
        self.store.lock().expect("a lock").insert(derivation.hash(), derivation.clone().into());
    }

    fn output(&self, _: &Hash, _: &str) {}
}

impl Machine {
    async fn plan(&self, small: &Small) -> Plan {
        let (graph, desired) = small.derive();
        let wanted: Vec<Address> = desired.keys().cloned().collect();
        let state = self.world.provider().observe(&wanted).await.expect("the fake world can be seen");
        let mut known = self.store.lock().expect("a lock").clone();
        known.extend(graph.iter().map(|derivation| (derivation.hash(), derivation.clone())));
        let last = self.last.lock().expect("a lock").clone();
        plan(&Planning {
            fleet: "sim",
            environment: "test",
            graph: &graph,
            desired: &desired,
            state: &state,
            known: &known,
            last: &last,
        })
    }

    async fn apply(&self, small: &Small, calls: &CallLog) -> Report {
        let plan = self.plan(small).await;
        for derivation in small.derive().0.iter() {
            self.derivation(derivation);
        }
        let provider = self.world.provider();
        let outputs = provider.observe(&[]).await.expect("the fake world can be seen").outputs;
        let fleet = FleetSecret::new(Secret::new("0123456789abcdef0123456789abcdef")).expect("long enough");
        let secrets = Secrets { fleet, operator: BTreeMap::new() };
        let execution = Execution {
            plan: &plan,
            providers: &[&provider],
            secrets: &secrets,
            rollout: Rollout { wave: 2, ..Rollout::default() },
            events: calls,
            recorder: self,
            stop: &AtomicBool::new(false),
        };
        let report = execute(&execution, outputs).await;
        let mut last = self.last.lock().expect("a lock");
        for entry in report.entries.iter().filter(|entry| entry.outcome == Outcome::Done) {
            match entry.after {
                Some(after) => last.insert(entry.address.clone(), after),
                None => last.remove(&entry.address),
            };
        }
        report
    }

    async fn settle(&self, small: &Small) {
        let report = self.apply(small, &CallLog::default()).await;
        assert!(report.is_complete(), "{:#?}", report.entries);
        assert_eq!(self.plan(small).await.changes, [], "a second plan is empty");
    }
}

fn planned(plan: &Plan) -> Vec<String> {
    plan.changes.iter().map(|change| format!("{} {}", change.action, change.address)).collect()
}

#[tokio::test]
async fn a_second_apply_makes_no_write() {
    let (machine, small) = (Machine::default(), Small::new());
    machine.settle(&small).await;
    let calls = CallLog::default();
    assert!(machine.apply(&small, &calls).await.entries.is_empty());
    assert_eq!(calls.writes(), Vec::<String>::new());
}

#[tokio::test]
async fn one_model_rolls_one_agent_and_says_why() {
    let (machine, mut small) = (Machine::default(), Small::new());
    machine.settle(&small).await;
    small.model.insert("bob", "large");
    let plan = machine.plan(&small).await;
    assert_eq!(planned(&plan), ["roll agent/bob"]);
    let Reason::Input { input, before, after, .. } = &plan.changes[0].reasons[0] else { panic!("no root cause") };
    let value = |text: &str| Some(Input::Value { text: text.to_owned() });
    assert_eq!((input.as_str(), before, after), ("model", &value("small"), &value("large")));
    machine.settle(&small).await;
}

#[tokio::test]
async fn a_hire_touches_nobody_else() {
    let (machine, everybody) = (Machine::default(), Small::new());
    let small = Small { people: vec!["ann", "bob"], ..everybody.clone() };
    machine.settle(&small).await;
    let plan = machine.plan(&everybody).await;
    assert_eq!(planned(&plan), ["create account/cid", "update room/team", "create agent/cid"]);
}

#[tokio::test]
async fn who_leaves_loses_the_container_and_keeps_the_memory() {
    let (machine, everybody) = (Machine::default(), Small::new());
    machine.settle(&everybody).await;
    let small = Small { people: vec!["ann", "bob"], ..everybody };
    assert_eq!(planned(&machine.plan(&small).await), ["update room/team", "delete account/cid", "delete agent/cid"]);
    machine.settle(&small).await;
    assert!(machine.world.memories().contains(&Address::new(Kind::Agent, "cid")));
}

#[tokio::test]
async fn an_image_that_is_not_built_yet_rolls_its_agents_conditionally() {
    let (machine, mut small) = (Machine::default(), Small::new());
    machine.settle(&small).await;
    small.image = "two";
    let plan = machine.plan(&small).await;
    assert_eq!(planned(&plan), ["update image/agent", "roll agent/ann", "roll agent/bob", "roll agent/cid"]);
    assert!(plan.changes[1..].iter().all(|change| change.if_changed));
    machine.settle(&small).await;
}

#[tokio::test]
async fn a_bad_image_is_undone_and_the_rollout_stops() {
    let (machine, mut small) = (Machine::default(), Small::new());
    machine.settle(&small).await;
    let before = machine.world.provider().observe(&[]).await.expect("seen").objects;
    small.image = "sick";
    let (graph, _) = small.derive();
    machine.world.break_image(graph.get(&Address::new(Kind::Image, "agent")).expect("an image").hash());
    let report = machine.apply(&small, &CallLog::default()).await;
    assert!(report.count(|outcome| matches!(outcome, Outcome::RolledBack { .. })) > 0);
    assert_eq!(report.count(|outcome| matches!(outcome, Outcome::Skipped)), 1, "the second wave is not tried");
    let after = machine.world.provider().observe(&[]).await.expect("seen").objects;
    for person in PEOPLE {
        let address = Address::new(Kind::Agent, person);
        assert_eq!(before[&address].id, after[&address].id, "the former container of {person} runs");
    }
    assert!(!machine.plan(&small).await.is_empty(), "what is due is still due");
}

#[tokio::test]
async fn a_failed_write_is_reported_and_the_next_apply_finishes() {
    for number in 0..20 {
        let (machine, small) = (Machine::default(), Small::new());
        machine.world.set_faults(Faults::writes([number]));
        let report = machine.apply(&small, &CallLog::default()).await;
        assert!(!report.is_complete() || machine.world.writes() <= number);
        machine.world.set_faults(Faults::none());
        machine.settle(&small).await;
    }
}

#[tokio::test]
async fn killed_before_any_write_the_next_apply_ends_in_the_same_state() {
    let whole = Machine::default();
    whole.settle(&Small::new()).await;
    let addresses = |objects: BTreeMap<Address, fleet_plan::Observed>| objects.into_keys().collect::<Vec<_>>();
    let expected = addresses(whole.world.provider().observe(&[]).await.expect("seen").objects);
    let mut kills = 0;
    loop {
        let (machine, small) = (Machine::default(), Small::new());
        let calls = CallLog::dying_before(kills);
        if killed(machine.apply(&small, &calls)).await.is_some() {
            break;
        }
        machine.settle(&small).await;
        assert_eq!(addresses(machine.world.provider().observe(&[]).await.expect("seen").objects), expected);
        kills += 1;
    }
    assert!(kills > 10, "only {kills} writes were made");
}

#[tokio::test]
async fn what_vanished_or_stopped_is_named_and_put_right() {
    let (machine, small) = (Machine::default(), Small::new());
    machine.settle(&small).await;
    machine.world.vanish(&Address::new(Kind::Room, "team"));
    machine.world.stop(&Address::new(Kind::Agent, "ann"));
    let plan = machine.plan(&small).await;
    assert_eq!(planned(&plan), ["create room/team", "update agent/ann"]);
    assert!(plan.changes.iter().all(|change| matches!(change.reasons[0], Reason::Drift { .. })));
    machine.settle(&small).await;
}

#[tokio::test]
async fn a_changed_topic_is_one_update() {
    let (machine, mut small) = (Machine::default(), Small::new());
    machine.settle(&small).await;
    small.topic = "more work";
    let plan = machine.plan(&small).await;
    assert_eq!(plan.changes.len(), 1);
    assert_eq!(plan.changes[0].action, Action::Update);
    machine.settle(&small).await;
}
