//! Agents on AWS as derivations: what changes which of them, and what none.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::Hash;
use fleet_graph::{Inputs, Instance, instantiate};
use fleet_model::{Address, Kind, Looked, RelPath, SourceFile, SourceTree, check, resolve};
use fleet_objects::Desired;
use fleet_oci::{Digest, Lock, Platform, lock::BasePin};

const BASE: &str = "docker.io/library/debian:bookworm";
const FLEET: &str = r#"
fleet "tiny" domain="tiny.test"
org {
    human "hana.head" name="Hana Head" title="Head" level="ceo"
    defaults { model "thinker/anthropic.one" }
    department "Work" {
        person "ann.lee" name="Ann Lee" title="Worker" level="vp" reports-to="hana.head"
        person "bob" name="Bob" title="Worker" level="vp" reports-to="hana.head"
    }
}
models { provider "thinker" kind="bedrock" region="us-east-1" api-key="KEY" }
images {
    image "agent" { base "docker.io/library/debian:bookworm"; entrypoint "/agent" }
    image "homeserver" { base "docker.io/library/debian:bookworm" }
}
environment "cloud" {
    target "aws" account="111122223333" region="us-east-1"
    deploy "ann.lee" "bob"
    homeserver image="homeserver" kind="synapse"
    logs retention="7d"
    compute "fargate"
    rollout wave=1
}
"#;

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

fn instance(text: &str) -> Instance {
    let mut tree = SourceTree::default();
    let mut file =
        |at: &str, text: &str| tree.insert(path(at), Looked::File(SourceFile::new(text.as_bytes().to_vec(), false)));
    file("fleet.kdl", text);
    for name in ["AGENTS.md", "HEARTBEAT.md", "IDENTITY.md", "SOUL.md", "room-prompt.md", "roles/vp.md"] {
        file(&format!("templates/{name}"), "{{ agent.name }}\n");
    }
    tree.insert(path("templates"), Looked::Folder);
    let checked = check(&path("fleet.kdl"), &tree);
    let model = checked.model.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics));
    let mut lock = Lock::default();
    let pin = BasePin { digest: Digest::sha256(b"base") };
    lock.bases.insert(BASE.into(), BTreeMap::from([(Platform::LinuxAmd64, pin)]));
    let inputs = Inputs {
        model: &model,
        environment: &model.environments["cloud"],
        resolved: &resolve(&model, "cloud").unwrap(),
        sources: &tree,
        lock: &lock,
        platform: Platform::LinuxAmd64,
        agent_binaries: &BTreeMap::new(),
        fleetctl_binaries: &BTreeMap::new(),
        source_date_epoch: None,
        outputs: &BTreeMap::new(),
    };
    instantiate(&inputs).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn agents(instance: &Instance) -> BTreeMap<&str, Hash> {
    let agents = instance.graph.iter().filter(|made| made.address.kind == Kind::Agent);
    agents.map(|made| (made.address.name.as_str(), made.hash())).collect()
}

/// Agents whose derivation is another one after a change of the text.
fn rolled(from: &str, to: &str) -> BTreeSet<String> {
    assert!(FLEET.contains(from), "{from}");
    let (before, after) = (instance(FLEET), instance(&FLEET.replacen(from, to, 1)));
    let before = agents(&before);
    agents(&after).into_iter().filter(|(id, hash)| before.get(id) != Some(hash)).map(|(id, _)| id.to_owned()).collect()
}

#[test]
fn an_agent_on_aws_is_a_service_with_the_container_of_any_target() {
    let instance = instance(FLEET);
    let Some(Desired::Agent(spec)) = instance.desired.get(&Address::new(Kind::Agent, "ann.lee")) else {
        panic!("{:?}", instance.desired.keys())
    };
    let settings = spec.container.files.iter().find(|file| file.path == "/fleet/agent.json").unwrap();
    assert!(format!("{settings:?}").contains("http://conduit.tiny.test:6167"), "{settings:?}");
    assert!(spec.container.files.iter().any(|file| file.path == "/fleet/bundle/files/SOUL.md"));
    assert!(!spec.container.host_gateway, "there is no machine of the operator beside it");
    assert!(spec.role.policy.contains("foundation-model/anthropic.one"), "{}", spec.role.policy);
    assert!(
        spec.parameters.keys().any(|name| name == "/tiny/cloud/agents/ann.lee/password/0"),
        "{:?}",
        spec.parameters
    );
}

#[test]
fn on_aws_models_of_bedrock_are_asked_by_the_role_and_no_key_is_wanted() {
    let instance = instance(FLEET);
    let Some(Desired::Agent(spec)) = instance.desired.get(&Address::new(Kind::Agent, "ann.lee")) else {
        panic!("{:?}", instance.desired.keys())
    };
    let file = |path: &str| {
        let file = spec.container.files.iter().find(|file| file.path == path).unwrap();
        let fleet_objects::Content::Text { text } = &file.content else { panic!("{file:?}") };
        serde_json::from_str::<serde_json::Value>(text).unwrap()
    };
    let settings = file("/fleet/agent.json");
    assert_eq!(settings["bedrock"], serde_json::json!({"port": 18788, "regions": ["us-east-1"]}));
    assert_eq!(settings["env_secrets"], serde_json::json!([]));
    let provider = &file("/fleet/bundle/openclaw.json")["models"]["providers"]["fleet-thinker"];
    assert_eq!(provider["baseUrl"], "http://127.0.0.1:18788/us-east-1/anthropic");
    assert_eq!(provider["apiKey"], "by-role");
    assert!(!format!("{:?}", spec.parameters).contains("KEY"), "{:?}", spec.parameters);

    // On a container engine there is no role.
    let here = FLEET.replace("target \"aws\" account=\"111122223333\" region=\"us-east-1\"", "target \"docker\"");
    let here = here.replace("    logs retention=\"7d\"\n    compute \"fargate\"\n", "");
    let instance = self::instance(&here);
    let Some(Desired::Container(spec)) = instance.desired.get(&Address::new(Kind::Agent, "ann.lee")) else {
        panic!("{:?}", instance.desired.keys())
    };
    let texts = format!("{:?}", spec.files);
    assert!(texts.contains("https://bedrock-runtime.us-east-1.amazonaws.com/anthropic"), "{texts}");
    assert!(texts.contains("/fleet/secrets/KEY") && !texts.contains("by-role"), "{texts}");
}

#[test]
fn each_change_rolls_whom_it_concerns() {
    let both = BTreeSet::from(["ann.lee".to_owned(), "bob".to_owned()]);
    let bob = BTreeSet::from(["bob".to_owned()]);
    for (from, to, expected) in [
        (
            "level=\"vp\" reports-to=\"hana.head\"\n    }",
            "level=\"vp\" reports-to=\"hana.head\" { model \"thinker/anthropic.two\" }\n    }",
            &bob,
        ),
        ("name=\"Bob\"", "name=\"Robert\"", &bob),
        ("thinker/anthropic.one", "thinker/anthropic.two", &both),
        ("compute \"fargate\"", "compute \"fargate-spot\"", &both),
        ("entrypoint \"/agent\"", "entrypoint \"/other\"", &both),
        ("logs retention=\"7d\"", "logs retention=\"14d\"", &BTreeSet::new()),
        ("rollout wave=1", "rollout wave=2 healthy-within=\"10m\"", &BTreeSet::new()),
        ("compute \"fargate\"\n", "", &BTreeSet::new()),
        (" api-key=\"KEY\"", "", &BTreeSet::new()),
        (" \"bob\"\n", "\n", &BTreeSet::new()),
    ] {
        assert_eq!(&rolled(from, to), expected, "{from} → {to}");
    }
}

#[test]
fn the_task_definition_is_no_reason_where_a_line_of_the_fleet_is() {
    let input = |text: &str, name: &str| {
        let instance = instance(text);
        let agent = instance.graph.get(&Address::new(Kind::Agent, "bob")).unwrap();
        agent.inputs[name].clone()
    };
    let bigger = FLEET.replace("defaults { model", "defaults { size cpu=2048 memory-mib=4096; model");
    assert_eq!(input(FLEET, "task"), input(&bigger, "task"));
    assert_ne!(input(FLEET, "size.cpu"), input(&bigger, "size.cpu"));
    let renamed = FLEET.replace("name=\"Bob\"", "name=\"Robert\"");
    assert_eq!(input(FLEET, "task"), input(&renamed, "task"));
}

#[test]
fn agents_that_several_threads_make_are_those_that_one_makes() {
    let fleet = |people: &[usize]| {
        let declared = |n: &usize| {
            format!("person \"p{n}\" name=\"Person {n}\" title=\"Worker {n}\" level=\"vp\" reports-to=\"hana.head\"\n")
        };
        let deployed = people.iter().map(|n| format!(" \"p{n}\"")).collect::<String>();
        let text =
            FLEET.replacen("person \"bob\"", &(people.iter().map(declared).collect::<String>() + "person \"bob\""), 1);
        instance(&text.replacen("deploy \"ann.lee\"", &format!("deploy{deployed} \"ann.lee\""), 1))
    };
    let some = [0, 255, 256, 257, 599];
    let (large, small) = (fleet(&(0..600).collect::<Vec<_>>()), fleet(&some));
    assert_eq!(agents(&large).len(), 602);
    for made in small.graph.iter().filter(|made| matches!(made.address.kind, Kind::Agent | Kind::Workspace)) {
        let there = large.graph.get(&made.address).map(|made| made.hash());
        assert_eq!(there, Some(made.hash()), "{}", made.address);
        assert_eq!(large.desired.get(&made.address), small.desired.get(&made.address), "{}", made.address);
    }
}
