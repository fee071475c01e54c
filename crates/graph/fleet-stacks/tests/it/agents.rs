//! An agent as ECS takes it, and that the stacks know everything that is left open in it.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::Hash;
use fleet_model::{Address, Kind, model::Size};
use fleet_objects::{AgentSpec, ContainerSpec, Content, HealthProbe, PlacedFile, SecretUse, VolumeMount};
use fleet_stacks::{
    Settings,
    agent::BedrockModel,
    agent_service::{AgentPlan, agent_service},
    data, environment, shared,
};
use serde_json::{Value, json};

use crate::matrix::{document, seed};

/// What is known of an agent itself when it is made.
const OWN: [&str; 8] =
    ["AccessPoint", "AccessPointArn", "BundleHash", "BundleKey", "Family", "FileSystemArn", "Image", "TaskDefinition"];

pub fn container() -> ContainerSpec {
    let file = |path: &str, content| PlacedFile { path: path.to_owned(), mode: 0o400, uid: 0, gid: 0, content };
    let volume = |volume: &str, path: &str, read_only| VolumeMount {
        volume: volume.to_owned(),
        path: path.to_owned(),
        read_only,
    };
    let password = SecretUse::Password { matrix_id: "@aaron.phillips:anycompany.corp".to_owned(), epoch: 2 };
    ContainerSpec {
        image: Address::new(Kind::Image, "agent"),
        image_hash: Hash::of(b"image"),
        image_output: None,
        env: BTreeMap::new(),
        command: None,
        files: vec![
            file("/fleet/agent.json", Content::Text { text: "{}".into() }),
            file("/fleet/secrets/password", Content::Secret { secret: password }),
            file("/fleet/secrets/KEY", Content::Secret { secret: SecretUse::Operator { name: "KEY".to_owned() } }),
        ],
        volumes: vec![volume("data-aaron.phillips", "/data", false), volume("directory", "/fleet/directory", true)],
        ports: Vec::new(),
        size: Size { cpu: 1024, memory_mib: 2048 },
        health: Some(HealthProbe {
            command: vec!["/usr/local/bin/fleet-agent".to_owned(), "health".to_owned()],
            interval_seconds: 3,
            timeout_seconds: 15,
            start_period_seconds: 1800,
            retries: 3,
        }),
        hostname: "aaron.phillips".to_owned(),
        aliases: BTreeSet::new(),
        host_gateway: false,
        stop_grace_seconds: 30,
        healthy_within_seconds: 180,
        read_only_root: false,
    }
}

fn agent(spot: bool) -> AgentSpec {
    let model = BedrockModel { region: "us-east-1".to_owned(), id: "openai.gpt-oss-120b-1:0".to_owned() };
    agent_service(&seed(), AgentPlan { agent: "aaron.phillips", container: container(), spot, models: [model].into() })
}

fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn an_agent_is_a_task_definition_and_a_service_of_its_own() {
    let spec = agent(false);
    let parameters: BTreeMap<&String, Value> = spec.parameters.iter().map(|(name, used)| (name, json!(used))).collect();
    insta::assert_json_snapshot!(
        "agent_service",
        json!({"task": json(&spec.task), "service": json(&spec.service), "folder": spec.folder, "parameters": parameters})
    );
}

#[test]
fn what_is_left_open_is_an_output_of_some_stack_or_the_agents_own() {
    let spec = agent(false);
    let mut known: BTreeSet<String> = OWN.map(str::to_owned).into();
    for stack in [shared(&seed()), data(&seed()), environment(&seed())] {
        let document = document(&stack.unwrap());
        known.extend(document["Outputs"].as_object().unwrap().keys().cloned());
    }
    let texts = [&spec.task, &spec.service, &spec.role.policy, &spec.role.trust];
    let open = texts.iter().flat_map(|text| text.split("{{").skip(1)).filter_map(|rest| Some(rest.split_once("}}")?.0));
    let open: BTreeSet<&str> = open.collect();
    assert!(open.len() > 12, "{open:?}");
    let unknown: Vec<&&str> = open.iter().filter(|name| !known.contains(**name)).collect();
    assert_eq!(unknown, Vec::<&&str>::new());
}

#[test]
fn spare_capacity_is_taken_only_where_it_is_declared() {
    let provider = |spec: &AgentSpec| json(&spec.service)["capacityProviderStrategy"][0]["capacityProvider"].clone();
    assert_eq!((provider(&agent(false)), provider(&agent(true))), (json!("FARGATE"), json!("FARGATE_SPOT")));
    assert_eq!(agent(false).task, agent(true).task);
}

#[test]
fn with_the_fleet_secret_an_agent_has_no_password_of_its_own_and_ecs_may_read_that_one_secret() {
    let settings = Settings { agents_get_fleet_secret: true, manager: None, ..seed() };
    let plan = AgentPlan { agent: "aaron.phillips", container: container(), spot: false, models: [].into() };
    let spec = agent_service(&settings, plan);
    let task = json(&spec.task);
    let secrets = task["containerDefinitions"][0]["secrets"].clone();
    let key = "arn:aws:ssm:us-east-1:111122223333:parameter/anycompany/dev/agents/KEY";
    assert_eq!(
        secrets,
        json!([
            {"name": "FLEET_SECRET", "valueFrom": "{{FleetSecretArn}}:secret::"},
            {"name": "FLEET_FILE_KEY", "valueFrom": key},
        ])
    );
    let variables = task["containerDefinitions"][0]["environment"].as_array().unwrap();
    assert!(variables.contains(&json!({"name": "FLEET_PASSWORD_EPOCH", "value": "2"})), "{variables:?}");
    assert_eq!(spec.parameters.keys().collect::<Vec<_>>(), ["/anycompany/dev/agents/KEY"]);

    let stack = document(&environment(&settings).unwrap());
    let read = |id: &str| stack["Resources"][id]["Properties"]["Policies"][0]["PolicyDocument"]["Statement"].clone();
    insta::assert_json_snapshot!("agent_execution_role_with_fleet_secret", read("AgentExecutionRole"));
    let without = environment(&Settings { agents_get_fleet_secret: false, ..settings }).unwrap();
    assert!(!without.body.contains("FleetSecret"), "nobody reads it");
}

#[test]
fn no_secret_is_in_what_ecs_is_sent() {
    let task = json(&agent(false).task);
    let container = &task["containerDefinitions"][0];
    let variables: Vec<&str> =
        container["environment"].as_array().unwrap().iter().filter_map(|variable| variable["name"].as_str()).collect();
    assert_eq!(variables, ["AWS_REGION", "FLEET_BUNDLE", "FLEET_BUNDLE_HASH", "FLEET_DIRECTORY"]);
    for secret in container["secrets"].as_array().unwrap() {
        let from = secret["valueFrom"].as_str().unwrap();
        assert!(from.starts_with("arn:aws:ssm:us-east-1:111122223333:parameter/anycompany/dev/agents/"), "{from}");
    }
}
