//! What `apply` leaves alone when nothing changed, and how `plan` says so to programs.

use std::fs;

use fleet_tests::{Fleet, engine, run::Running};
use serde_json::Value;

/// The lines of an events file.
fn events(fleet: &Fleet, file: &str) -> Vec<Value> {
    let text = fs::read_to_string(fleet.path(file)).expect("an events file");
    text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect()
}

fn writes(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| event["event"] == "call" && event["write"] == true).collect()
}

#[test]
fn a_second_apply_writes_nothing_signs_in_nowhere_and_leaves_every_container() {
    let fleet = Fleet::light("twice");
    fleet.run(&["plan", "--detailed-exitcode"]).expect(2);
    let watch = engine::Watch::start(&fleet.name);
    fleet.run(&["apply", "--auto-approve", "--events", "first.ndjson"]).expect(0);
    // Counted twice: by the program's own events, and past it by the engine's and the homeserver's.
    let seen = watch.end();
    assert!(
        ["container create", "container start", "volume create", "network create"]
            .iter()
            .all(|one| seen.contains(&(*one).to_owned())),
        "{seen:?}"
    );
    let first = events(&fleet, "first.ndjson");
    assert!(writes(&first).len() > 20, "the first apply made {} writes", writes(&first).len());
    for system in ["docker", "matrix"] {
        assert!(writes(&first).iter().any(|call| call["system"] == system), "no write to {system} was told");
    }
    let homeserver = fleet.homeserver();
    let told = || engine::homeserver_writes(&fleet.container("homeserver"));
    let (lives, devices, rooms, before) = (fleet.lives(), homeserver.devices(), homeserver.rooms(), told());
    assert_eq!(lives.len(), 4, "{lives:?}");
    let watch = engine::Watch::start(&fleet.name);

    fleet.run(&["plan", "--detailed-exitcode"]).expect(0).says("nothing to do");
    fleet.run(&["apply", "--auto-approve", "--events", "second.ndjson"]).expect(0);
    let second = events(&fleet, "second.ndjson");
    assert_eq!(second.first().map(|event| &event["event"]), Some(&Value::from("begin")));
    assert_eq!(second.last().map(|event| &event["event"]), Some(&Value::from("summary")));
    assert_eq!(writes(&second), Vec::<&Value>::new());
    assert_eq!(watch.end(), Vec::<String>::new());
    assert_eq!(fleet.lives(), lives);
    assert_eq!(homeserver.devices(), devices);
    assert_eq!(homeserver.rooms(), rooms);
    assert_eq!(told(), before);

    fleet.edit("fleet.kdl", "News that concerns everybody", "News for everybody");
    fleet.run(&["plan", "--detailed-exitcode"]).expect(2);
    fleet.run(&["plan"]).expect(0);
}

#[test]
fn status_knows_hash_container_and_health_of_everything_that_runs() {
    let fleet = Fleet::light("status");
    let mut apply = fleet.command(&["apply", "--auto-approve"]);
    fleet.finish(Running::start(apply.env("USER", "ada"))).expect(0);
    let ids = fleet.ids();
    let status = fleet.status_json();
    assert_eq!(status["due"], 0, "{status:#}");
    for (address, id) in &ids {
        let objects = status["objects"].as_array().expect("objects");
        let object = objects.iter().find(|object| object["address"] == *address).expect("every container is an object");
        assert_eq!(object["id"], **id, "{object}");
        assert_eq!(object["state"], "running", "{object}");
        assert_eq!(object["health"], "healthy", "{object}");
        assert_eq!(object["hash"].as_str().map(str::len), Some(64), "{object}");
    }

    let history = fleet.run(&["history", "--format", "json"]).expect(0).json();
    let last = history["generations"].as_array().and_then(|all| all.last()).expect("a generation");
    let host = last["host"].as_str().expect("a host");
    assert!(!host.is_empty() && last["who"] == "ada", "{last:#}");
    fleet.run(&["history"]).expect(0).says(&format!("ada on {host}"));
}
