//! From an empty machine to an answer: the repository's own fleet with the real OpenClaw, and a scripted model.

use std::{
    fs,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use fleet_tests::{Fleet, engine, run::eventually, sources::workspace};
use tempfile::TempDir;

/// The scripted model, reachable from containers.
struct Model {
    process: Child,
    folder: TempDir,
    port: u16,
}

impl Model {
    fn start() -> Self {
        let folder = TempDir::new().expect("a folder");
        let at = |name: &str| folder.path().join(name);
        fs::write(at("script.json"), r#"{"rules": [{"match": "quarter", "answer": "The quarter looks good."}]}"#)
            .expect("a script");
        let process = Command::new("python3")
            .arg(workspace().join("tests/fixtures/model-server/server.py"))
            .args(["--host", "0.0.0.0", "--port", "0", "--script"])
            .arg(at("script.json"))
            .arg("--log")
            .arg(at("log"))
            .arg("--port-file")
            .arg(at("port"))
            .stdout(Stdio::null())
            .spawn()
            .expect("python3 runs the scripted model");
        let port = || read_port(&at("port"));
        eventually("the scripted model listens", Duration::from_secs(20), || port().is_some());
        let port = port().expect("a port");
        Self { process, folder, port }
    }

    /// How many answers it was asked for.
    fn asked(&self) -> usize {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default().lines().count()
    }
}

fn read_port(file: &Path) -> Option<u16> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

impl Drop for Model {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn a_person_who_mentions_an_agent_gets_an_answer_from_openclaw() {
    let model = Model::start();
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
}
