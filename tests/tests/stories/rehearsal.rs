//! The repository's own environment on AWS, rehearsed whole: from an empty account to real agents in their rooms. Only the
//! account is an emulator; homeserver, manager, page and agents are containers of the images that were pushed.

use std::{fs, process::Command, time::Duration};

use fleet_sim::free_port;
use fleet_tests::{
    engine,
    fleet::{Fleet, work},
    run::{Output, Running, eventually},
};
use serde_json::{Value, json};

/// An account that goes on until it is dropped.
struct Rehearsal {
    fleet: Fleet,
    port: u16,
    emulator: Option<String>,
}

impl Rehearsal {
    fn new() -> Self {
        let (fleet, port) = (Fleet::shipped("rehearsed", free_port()), free_port());
        let text = fs::read_to_string(fleet.path("fleet.kdl")).expect("fleet.kdl");
        assert_eq!(text.matches("127.0.0.1:4566").count(), 2, "an endpoint and a registry");
        fs::write(fleet.path("fleet.kdl"), text.replace("127.0.0.1:4566", &format!("127.0.0.1:{port}")))
            .expect("a file");
        Self { fleet, port, emulator: None }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        let mut command = self.fleet.command(arguments);
        // Installed once for all tests of this machine.
        command.env("XDG_CACHE_HOME", work().join("cache"));
        self.fleet.finish(Running::start(&mut command))
    }

    fn rehearse(&mut self) -> Output {
        let output = self.run(&["rehearse", "--keep"]);
        let process = output.stderr.split_once("as process ").and_then(|(_, rest)| rest.split(':').next());
        self.emulator = process.map(str::to_owned);
        output
    }

    fn apply(&self) -> Output {
        self.run(&["apply", "-e", "rehearsal", "--auto-approve", "--events", "events"])
    }

    /// Calls of the last apply that wrote something.
    fn writes(&self) -> Vec<String> {
        self.fleet.writes("events")
    }

    /// The one container of an agent.
    fn agent(&self, id: &str) -> String {
        let name = format!("name=fleet-emulator-{}-", self.port);
        let all = engine::docker(&["ps", "-q", "--no-trunc", "--filter", &name]);
        let is_of = |container: &&str| {
            engine::docker(&["inspect", "--format", "{{json .Config.Env}}", container])
                .contains(&format!("/bundles/{id}/"))
        };
        let found: Vec<&str> = all.lines().filter(is_of).collect();
        assert_eq!(found.len(), 1, "one container of {id} among {all}");
        found.concat()
    }
}

impl Drop for Rehearsal {
    fn drop(&mut self) {
        if let Some(process) = &self.emulator {
            let _ = Command::new("kill").arg(process).status();
            let filter = format!("name=fleet-emulator-{}-", self.port);
            let left = || !engine::docker(&["ps", "-aq", "--filter", &filter]).is_empty();
            for _ in 0..60 {
                if !left() {
                    return;
                }
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    }
}

#[test]
fn an_empty_account_ends_with_everything_up_and_a_hire_reaches_agents_that_go_on() {
    let mut rehearsal = Rehearsal::new();
    let rehearsed = rehearsal.rehearse();
    println!("the rehearsal took {:?}", rehearsed.took);
    rehearsed.expect(0).says("an empty account 111122223333").says("0 were right");
    for service in ["homeserver", "web", "manager", "agent-aaron_phillips", "agent-austin_bailey"] {
        rehearsed.says(&format!("service {service}: 1 of 1 run, COMPLETED"));
    }
    // The manager saw it on the homeserver, and ECS by `fleet-agent health`, which wants a login and a gateway.
    let status = rehearsal.run(&["status", "-e", "rehearsal"]);
    status.expect(0).says("3 of 3").says("5 of 5").says("directory/people");
    let agent = rehearsal.agent("aaron.phillips");
    let health = engine::docker(&["exec", &agent, "fleet-agent", "health"]);
    let health: Value = serde_json::from_str(&health).expect("JSON");
    assert_eq!((&health["state"], &health["rooms_pending"]), (&json!("healthy"), &json!([])), "{health}");

    a_model_is_asked_through_the_agent(&agent);

    let second = rehearsal.apply();
    second.expect(0).says("nothing to do, 18 objects are as declared");
    assert_eq!(rehearsal.writes(), Vec::<String>::new());
    rehearsal.run(&["plan", "-e", "rehearsal", "--detailed-exitcode"]).expect(0);

    rehearsal.fleet.edit("fleet.kdl", "title=\"CEO\"", "title=\"Chief Executive\"");
    rehearsal.apply().expect(0).says("1 changed");
    let directory = "cat /fleet/directory/$(cat /fleet/directory/current)";
    let seen = || engine::docker(&["exec", &agent, "sh", "-c", directory]).contains("Chief Executive");
    eventually("the running agent has the new directory", Duration::from_secs(120), seen);
    assert_eq!(rehearsal.agent("aaron.phillips"), agent, "nobody rolled");
    agents_that_get_the_fleet_secret_log_in_as_themselves(&rehearsal, &agent);
}

/// By its role, at the emulated account: that has no models, and answers all the same.
fn a_model_is_asked_through_the_agent(agent: &str) {
    let ask = |path: &str| {
        let ask = format!(
            "fetch('http://127.0.0.1:18788{path}', {{method: 'POST', body: '{{}}'}}).then(async r => console.log(r.status, await r.text()))"
        );
        engine::docker(&["exec", "-u", "1000", agent, "node", "-e", &ask])
    };
    let answer = ask("/us-east-1/anthropic/v1/messages");
    assert!(!answer.starts_with("502") && !answer.contains("cannot be asked"), "{answer}");
    let answer = ask("/eu-west-1/anthropic/v1/messages");
    assert!(answer.starts_with("404") && answer.contains("declared models of Bedrock only"), "{answer}");
}

/// They derive the password that their accounts have. A kept login would do without one, so it goes first.
fn agents_that_get_the_fleet_secret_log_in_as_themselves(rehearsal: &Rehearsal, former: &str) {
    engine::docker(&["exec", "-u", "0", former, "rm", "/data/fleet/token.json"]);
    let declared = "environment \"rehearsal\" extends=\"dev\" {\n";
    rehearsal.fleet.edit("fleet.kdl", declared, &format!("{declared}    credentials \"fleet-secret\"\n"));
    rehearsal.run(&["check"]).expect(0).says("every agent gets the fleet secret");
    rehearsal.run(&["plan", "-e", "rehearsal"]).expect(0).says("credentials");
    rehearsal.apply().expect(0).says("3 changed");
    let agent = rehearsal.agent("aaron.phillips");
    assert_ne!(agent, former);
    let environment = engine::docker(&["inspect", "--format", "{{json .Config.Env}}", &agent]);
    assert!(environment.contains("FLEET_SECRET=") && !environment.contains("FLEET_FILE_password"));
    let health: Value =
        serde_json::from_str(&engine::docker(&["exec", &agent, "fleet-agent", "health"])).expect("JSON");
    assert_eq!(health["state"], json!("healthy"), "{health}");
    let said =
        rehearsal.run(&["logs", "agent/aaron.phillips", "-e", "rehearsal", "--tail", "1000"]).expect(0).stdout.clone();
    assert!(said.matches("logged in").count() >= 2, "once before, once since: {said}");
}
