//! Models that cannot be reached: agents run and join all the same, and `status` says what to do.

use std::{collections::BTreeMap, fs, net::TcpListener};

use fleet_sim::free_port;
use fleet_tests::{Fleet, Output, engine, run::Running};

/// Keys of this machine that no container may ever see.
const HOST_KEY: &str = "AKIAHOSTKEYOFTHISMACHINE";
const HOST_SECRET: &str = "qqzzxxjjvvwwkkpp+thehostsownsecret";
const BEDROCK_KEY: &str = "zzqqxxjj-ppttvvww-only-for-models";

/// Runs the program as somebody who has AWS credentials, and perhaps a Bedrock API key.
fn run(fleet: &Fleet, key: Option<&str>, arguments: &[&str]) -> Output {
    let mut command = fleet.command(arguments);
    command.env("HOME", fleet.home()).env("AWS_ACCESS_KEY_ID", HOST_KEY).env("AWS_SECRET_ACCESS_KEY", HOST_SECRET);
    command.env_remove("BEDROCK_KEY").envs(key.map(|key| ("BEDROCK_KEY", key)));
    fleet.finish(Running::start(&mut command))
}

/// The one model provider that status complains about, and its remedy.
#[track_caller]
fn complaint(fleet: &Fleet, key: Option<&str>) -> Option<String> {
    let status = run(fleet, key, &["status", "--format", "json"]).expect(0).json();
    let models = status["models"].as_array().expect("models");
    assert!(models.len() <= 1, "{models:#?}");
    let what = models.first().map(|model| model["what"].as_str().unwrap_or_default().to_owned());
    let text = run(fleet, key, &["status"]);
    match &what {
        Some(what) => drop(text.expect(0).says(what)),
        None => assert!(!text.expect(0).stderr.contains("model provider"), "{}", text.stderr),
    }
    what
}

#[track_caller]
fn all_run(fleet: &Fleet) {
    let status = fleet.status_json();
    for object in status["objects"].as_array().expect("objects") {
        if object["address"].as_str().is_some_and(|address| address.starts_with("agent/")) {
            assert_eq!((&object["state"], &object["health"]), (&"running".into(), &"healthy".into()), "{object}");
        }
    }
}

#[test]
fn a_server_on_loopback_is_explained_until_containers_can_reach_it() {
    let fleet = Fleet::light("loopback");
    let port = free_port();
    fleet.edit("fleet.kdl", "http://127.0.0.1:11434/v1", &format!("http://127.0.0.1:{port}/v1"));
    fleet.applied();
    all_run(&fleet);
    let said = complaint(&fleet, None).expect("nothing listens");
    assert!(said.contains(&format!("nothing answers at http://127.0.0.1:{port}/v1")), "{said}");
    assert!(said.contains("start a server there") && said.contains("Agents run and join rooms meanwhile"), "{said}");

    let loopback = TcpListener::bind(("127.0.0.1", port)).expect("the port is free");
    let said = complaint(&fleet, None).expect("containers cannot reach it");
    assert!(said.contains("on this machine's loopback only") && said.contains("OLLAMA_HOST=0.0.0.0"), "{said}");
    drop(loopback);

    let _everywhere = TcpListener::bind(("0.0.0.0", port)).expect("the port is free");
    assert_eq!(complaint(&fleet, None), None);
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
    // The agent is told the address under which containers reach this machine.
    let settings = String::from_utf8_lossy(&fleet.folder_of("vera.vp", "/fleet")).into_owned();
    assert!(settings.contains(&format!("http://host.docker.internal:{port}/v1")), "the gateway's name is not there");
    assert!(!settings.contains(&format!("127.0.0.1:{port}")), "a container would look for it in itself");
}

#[test]
fn bedrock_takes_its_declared_key_when_it_is_set_and_never_the_hosts_credentials() {
    let fleet = Fleet::light("bedrock");
    fs::create_dir_all(fleet.home().join(".aws")).expect("a folder");
    let credentials = format!("[default]\naws_access_key_id = {HOST_KEY}\naws_secret_access_key = {HOST_SECRET}\n");
    fs::write(fleet.home().join(".aws/credentials"), credentials).expect("a file");
    let provider = "models {\n    provider \"bedrock\" kind=\"bedrock\" region=\"us-east-1\" api-key=\"BEDROCK_KEY\"\n";
    fleet.edit("fleet.kdl", "models {\n", provider);
    let model = "model \"bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0\"";
    fleet.edit("fleet.kdl", "model \"local/small\"\n", &format!("{model}\n"));
    run(&fleet, None, &["apply", "--auto-approve"]).expect(0);
    all_run(&fleet);
    let said = complaint(&fleet, None).expect("there is no key");
    assert!(said.contains("set BEDROCK_KEY") && said.contains("agents run and join rooms meanwhile"), "{said}");
    run(&fleet, None, &["plan", "--detailed-exitcode"]).expect(0);
    let before = fleet.lives();

    // As it is told: set it, apply again. Exactly the agents are made anew, and the key is in no plan.
    let said = complaint(&fleet, Some(BEDROCK_KEY)).expect("they were made without it");
    assert!(said.contains("`fleetctl apply` gives it to them"), "{said}");
    let plan = run(&fleet, Some(BEDROCK_KEY), &["plan", "--format", "json"]).expect(0).json();
    let agents = ["agent/dora.director", "agent/sam.seller", "agent/vera.vp"];
    let planned: BTreeMap<&str, &str> = plan["changes"]
        .as_array()
        .expect("changes")
        .iter()
        .map(|change| {
            assert!(change["reasons"].to_string().contains("BEDROCK_KEY was not set"), "{change:#}");
            (change["address"].as_str().unwrap_or_default(), change["action"].as_str().unwrap_or_default())
        })
        .collect();
    assert_eq!(planned, agents.into_iter().map(|agent| (agent, "roll")).collect());
    run(&fleet, Some(BEDROCK_KEY), &["apply", "--auto-approve"]).expect(0);
    let after = fleet.lives();
    assert_eq!(after["service/homeserver"], before["service/homeserver"]);
    assert!(agents.iter().all(|agent| after[*agent] != before[*agent]), "{after:?}");
    // They have it, whoever asks; a shell without it takes nothing away.
    for key in [Some(BEDROCK_KEY), None] {
        assert_eq!(complaint(&fleet, key), None);
        run(&fleet, key, &["plan", "--detailed-exitcode"]).expect(0);
    }
    assert_eq!(fleet.lives(), after);
    let contains = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
    for agent in ["vera.vp", "dora.director", "sam.seller"] {
        let files = fleet.folder_of(agent, "/fleet");
        assert!(contains(&files, BEDROCK_KEY), "{agent} has the key in a file of its own");
        let inspected = engine::docker(&["inspect", &fleet.container(agent)]).into_bytes();
        assert!(!contains(&inspected, &BEDROCK_KEY[..8]), "{agent} shows the key");
        for bytes in [files, inspected] {
            assert!(
                !contains(&bytes, &HOST_KEY[..8]) && !contains(&bytes, &HOST_SECRET[..8]),
                "{agent} has the host's"
            );
            assert!(!contains(&bytes, ".aws/credentials"), "{agent} has the host's folder");
        }
    }
    for text in fleet.transcript() {
        for secret in [BEDROCK_KEY, HOST_KEY, HOST_SECRET] {
            assert!(!text.contains(&secret[..8]), "a piece of a key was printed");
        }
    }
}
