//! From an empty machine to an answer: the repository's own fleet with the real OpenClaw, and a scripted model.

use std::{fs, process::Command, time::Duration};

use fleet_secret::{FleetSecret, Secret};
use fleet_tests::{Fleet, engine, model::Model, run::eventually, search::Secrets};

/// A question about the quarter gets an answer; one about Austin is looked up with the tool first.
const SCRIPT: &str = r#"{"rules": [
    {"match": "quarter", "answer": "The quarter looks good."},
    {"match": "who is Austin", "tool": "people",
     "tool_call": {"name": "people", "arguments": {"action": "find", "query": "austin.bailey"}}},
    {"match": "who is Austin", "after_tool": true, "answer": "The directory says: {tool_result}"}
]}"#;

#[test]
fn a_person_who_mentions_an_agent_gets_an_answer_from_openclaw() {
    let model = Model::start(SCRIPT);
    let fleet = Fleet::shipped("real", model.port);
    let output = fleet.run(&["apply", "-e", "local", "--auto-approve"]);
    output.expect(0);
    println!("apply took {:?}", output.took);
    let status = fleet.status_json();
    for address in ["service/homeserver", "agent/aaron.phillips", "agent/austin.bailey"] {
        let objects = status["objects"].as_array().expect("objects");
        let object = objects.iter().find(|object| object["address"] == address).expect("an object");
        assert_eq!((&object["state"], &object["health"]), (&"running".into(), &"healthy".into()), "{object}");
    }
    assert_eq!(status["models"], serde_json::json!([]), "the model can be reached");
    let homeserver = fleet.homeserver();
    let room = homeserver.room("all-employees").expect("the room");
    for member in ["aaron.phillips", "austin.bailey", "manu.mishra"] {
        let members = homeserver.members(&room);
        assert!(members.contains(&format!("@{member}:anycompany.corp")), "{members:?}");
    }

    let said = fleet.run(&["say", "all-employees", "@aaron.phillips how is the quarter?", "--wait", "120"]);
    if said.code != Some(0) {
        let log = fleet.run(&["logs", "agent/aaron.phillips"]);
        panic!("no answer, the model was asked {} times: {said:?}\n{}{}", model.asked(), log.stdout, log.stderr);
    }
    assert_eq!(said.stdout.trim(), "aaron.phillips: The quarter looks good.");
    assert!(model.asked() >= 1);

    let ids = fleet.ids();
    let sign_ins = || engine::sign_ins(&fleet.container("homeserver"));
    let before = sign_ins();
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
    fleet.run(&["apply", "--auto-approve", "--events", "second.ndjson"]).expect(0);
    let events = fs::read_to_string(fleet.path("second.ndjson")).expect("events");
    assert!(!events.contains("\"write\":true"), "{events}");
    assert_eq!(fleet.ids(), ids);
    assert_eq!(sign_ins(), before);
    the_directory_is_asked_through_the_gateway(&fleet);
    a_second_copy_of_an_agent_waits(&fleet);
    memory_outlives_a_roll_that_touches_nobody_else(&fleet);
    no_secret_of_an_agent_is_told(&fleet);
    without_a_key_agents_run_and_join_and_status_says_what_to_do(&fleet);
}

/// `people` is a tool that OpenClaw calls: model → gateway → plugin → fleet-agent → directory, and back into the room.
fn the_directory_is_asked_through_the_gateway(fleet: &Fleet) {
    let said = fleet.run(&["say", "all-employees", "@aaron.phillips who is Austin?", "--wait", "120"]);
    said.expect(0).says("The directory says:").says("Director of Frontend");

    // A human's title is in the directory and in nothing else: nobody rolls, and the next look-up would see it.
    let ids = fleet.ids();
    fleet.edit("fleet.kdl", "title=\"CEO\"", "title=\"Chief Executive\"");
    assert_eq!(fleet.planned().keys().collect::<Vec<_>>(), ["directory/people"]);
    fleet.applied();
    let agent = |ids: &std::collections::BTreeMap<String, String>| ids.get("agent/aaron.phillips").cloned();
    assert_eq!(agent(&fleet.ids()), agent(&ids));
    let seen = || {
        let directory = "cat /fleet/directory/$(cat /fleet/directory/current)";
        engine::docker(&["exec", &fleet.container("aaron.phillips"), "sh", "-c", directory]).contains("Chief Executive")
    };
    eventually("the running agent has the new directory", Duration::from_secs(120), seen);
}

/// Two copies of one agent on one volume: the second says so and starts nothing.
fn a_second_copy_of_an_agent_waits(fleet: &Fleet) {
    let (first, second) = (fleet.container("aaron.phillips"), fleet.container("second"));
    let image = engine::docker(&["inspect", "--format", "{{.Image}}", &first]);
    let label = format!("dev.fleetctl.fleet={}", fleet.name); // removed with the rest
    let volume = format!("{}:/data", fleet.container("data-aaron.phillips"));
    engine::docker(&["create", "--name", &second, "--label", &label, "--volume", &volume, &image]);
    let copy = format!("docker cp {first}:/fleet - | docker cp - {second}:/");
    assert!(Command::new("sh").args(["-c", &copy]).status().expect("a shell").success());
    engine::docker(&["start", &second]);
    let log = || {
        let (_, out, err) = engine::try_docker(&["logs", &second]);
        format!("{out}\n{err}")
    };
    eventually("the second copy says that it waits", Duration::from_secs(120), || {
        log().contains("runs this agent on the same volume")
    });
    assert!(!log().contains("OpenClaw started"), "{}", log());
    assert!(!engine::try_docker(&["exec", &second, "/usr/local/bin/fleet-agent", "health"]).0, "it does not serve");
    assert!(engine::try_docker(&["exec", &first, "/usr/local/bin/fleet-agent", "health"]).0, "the first one does");
    engine::docker(&["rm", "-f", &second]);
}

/// What an agent wrote into its workspace is there after its container was replaced; the other agent is not touched.
fn memory_outlives_a_roll_that_touches_nobody_else(fleet: &Fleet) {
    let note = "echo the blue folder > /data/workspace/MEMORY.md";
    engine::docker(&["exec", &fleet.container("aaron.phillips"), "sh", "-c", note]);
    let ids = fleet.ids();
    let line = "level=\"vp\" reports-to=\"manu.mishra\"";
    fleet.edit("fleet.kdl", line, &format!("{line} {{ heartbeat \"45m\"; }}"));
    assert_eq!(fleet.planned().keys().collect::<Vec<_>>(), ["agent/aaron.phillips"]);
    fleet.applied();
    let now = fleet.ids();
    assert_ne!(now.get("agent/aaron.phillips"), ids.get("agent/aaron.phillips"));
    assert_eq!(now.get("agent/austin.bailey"), ids.get("agent/austin.bailey"));
    let kept = engine::docker(&["exec", &fleet.container("aaron.phillips"), "cat", "/data/workspace/MEMORY.md"]);
    assert_eq!(kept, "the blue folder");
}

/// Passwords and access tokens of agents, in what the program and OpenClaw printed and what the engine shows.
fn no_secret_of_an_agent_is_told(fleet: &Fleet) {
    let mut secrets = Secrets::default();
    let file = fleet.home().join(format!("config/fleetctl/{}-local-secret", fleet.name));
    let value = fs::read(file).expect("the fleet secret").trim_ascii().to_vec();
    secrets.add("the fleet secret", &value);
    let derived = FleetSecret::new(Secret::new(value)).expect("long enough");
    let agents = ["aaron.phillips", "austin.bailey"].map(|agent| fleet.container(agent));
    for (agent, container) in ["aaron.phillips", "austin.bailey"].iter().zip(&agents) {
        secrets.add(&format!("{agent}'s password"), derived.password(&format!("@{agent}:anycompany.corp"), 0).expose());
        for (file, pointer) in
            [("/data/fleet/token.json", "/access_token"), ("/data/state/openclaw.json", "/gateway/auth/token")]
        {
            let text = engine::docker(&["exec", container, "cat", file]);
            let document: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let token = document.pointer(pointer).and_then(serde_json::Value::as_str);
            secrets.add(
                &format!("{agent}'s {file}"),
                token.unwrap_or_else(|| panic!("no {pointer} in {file}")).as_bytes(),
            );
        }
    }
    for container in &agents {
        let (_, out, err) = engine::try_docker(&["logs", container]);
        assert!(out.len() + err.len() > 500, "it said something: {out}{err}");
        secrets.absent_from(&format!("the log of {container}"), format!("{out}{err}").as_bytes());
        secrets.absent_from(&format!("what inspects {container}"), engine::docker(&["inspect", container]).as_bytes());
    }
    for text in fleet.transcript() {
        secrets.absent_from("what was printed", text.as_bytes());
    }
}

/// Bedrock without its key: nobody can answer, and everybody is there.
fn without_a_key_agents_run_and_join_and_status_says_what_to_do(fleet: &Fleet) {
    let bedrock = "model \"amazon-bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0\"";
    fleet.edit("fleet.kdl", "        model \"local/qwen3:8b\"\n", &format!("        {bedrock}\n"));
    fleet.applied();
    let status = fleet.status_json();
    for address in ["agent/aaron.phillips", "agent/austin.bailey"] {
        let objects = status["objects"].as_array().expect("objects");
        let object = objects.iter().find(|object| object["address"] == address).expect("an object");
        assert_eq!((&object["state"], &object["health"]), (&"running".into(), &"healthy".into()), "{object}");
    }
    fleet.run(&["status"]).expect(0).says("amazon-bedrock").says("set AWS_BEARER_TOKEN_BEDROCK");
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
}
