//! No secret value, nor eight characters of one, in anything that was written or printed.

use std::fs;

use fleet_secret::FleetSecret;
use fleet_tests::{
    Fleet,
    engine::{self, docker, try_docker},
    run::Running,
    search::Secrets,
};

/// Given to the fleet as its secret and as a provider's key. Letters that no hash has.
const FLEET_SECRET: &str = "qzwxrvtgkplmjhnuyosi-QZWXRVTGKPLM";
const PROVIDER_KEY: &str = "kk-PrOvIdErKeYzzqqxxjjvvwwmmnnttss";

/// Labels of the keys that the homeserver is given; `docs/reference/matrix.md`.
const KEYS: [&str; 4] =
    ["synapse-registration-shared-secret", "synapse-macaroon-secret", "synapse-form-secret", "registration-token"];

fn run(fleet: &Fleet, arguments: &[&str]) -> fleet_tests::Output {
    let mut command = fleet.command(arguments);
    command.env("FLEET_SECRET", FLEET_SECRET).env("LIGHT_API_KEY", PROVIDER_KEY);
    fleet.finish(Running::start(&mut command))
}

fn secrets(fleet: &Fleet) -> Secrets {
    let mut secrets = Secrets::default();
    secrets.add("the fleet secret", FLEET_SECRET.as_bytes());
    secrets.add("the provider's key", PROVIDER_KEY.as_bytes());
    let token = fs::read(fleet.home().join(format!("state/fleetctl/{}-local-matrix-token", fleet.name)));
    secrets.add("the service account's token", token.expect("a token").trim_ascii());
    let derived = FleetSecret::new(fleet_secret::Secret::new(FLEET_SECRET)).expect("long enough");
    for account in fleet.homeserver().devices().keys() {
        for epoch in 0..2 {
            secrets.add(&format!("the password of {account}"), derived.password(account, epoch).expose());
        }
    }
    for label in KEYS {
        secrets.add(label, derived.key_for(label).expose());
    }
    secrets
}

#[test]
fn nothing_that_was_written_or_printed_holds_a_piece_of_a_secret() {
    let fleet = Fleet::light("secrets");
    fleet.edit(
        "fleet.kdl",
        "base-url=\"http://127.0.0.1:11434/v1\"",
        "base-url=\"http://127.0.0.1:11434/v1\" api-key=\"LIGHT_API_KEY\"",
    );
    run(&fleet, &["check"]).expect(0);
    run(&fleet, &["plan", "-o", "first.plan"]).expect(0);
    run(&fleet, &["diff"]).expect(0).says("secret");
    run(&fleet, &["apply", "first.plan", "--auto-approve", "--events", "first.ndjson"]).expect(0);
    fleet.edit("fleet.kdl", "LIGHT_MODE=\"well\"", "LIGHT_MODE=\"exit\"");
    run(&fleet, &["apply", "--auto-approve", "--events", "bad.ndjson"]).expect(4);
    fleet.edit("fleet.kdl", "LIGHT_MODE=\"exit\"", "LIGHT_MODE=\"well\"");
    for arguments in [
        &["apply", "--auto-approve", "--events", "again.ndjson"][..],
        &["status"],
        &["status", "--format", "json"],
        &["graph", "--format", "json"],
        &["graph"],
        &["show"],
        &["history"],
        &["why", "agent/vera.vp"],
        &["why", "service/homeserver", "--format", "json"],
        &["logs", "service/homeserver"],
        &["logs", "agent/vera.vp"],
        &["say", "all-employees", "good morning", "--wait", "0"],
        &["plan", "--offline", "--format", "json"],
    ] {
        run(&fleet, arguments).expect(0);
    }
    let secrets = secrets(&fleet);

    // The search finds what is there: the one command that shows a password, and the container that is given it.
    let password = run(&fleet, &["password", "helen.ceo"]);
    let shown = password.expect(0).stdout.clone();
    assert_eq!(secrets.found_in(shown.as_bytes()), Some("the password of @helen.ceo:light.test"));

    let printed = fleet.transcript();
    assert!(printed.len() > 30);
    for text in printed.iter().filter(|text| **text != shown) {
        secrets.absent_from("what was printed", text.as_bytes());
    }
    // The project with `.fleet/`, plans and events.
    let files = secrets.absent_below(&fleet.path(""));
    assert!(files > 100, "only {files} files were searched");
    let mut inspected = Vec::new();
    for id in engine::containers(&fleet.name) {
        inspected.push(docker(&["inspect", &id]));
        let (_, out, err) = try_docker(&["logs", &id]);
        inspected.extend([out, err]);
    }
    for image in engine::images(&fleet.name) {
        inspected.extend([docker(&["inspect", &image]), docker(&["history", "--no-trunc", &image])]);
    }
    let label = format!("label=dev.fleetctl.fleet={}", fleet.name);
    for what in ["volume", "network"] {
        for name in docker(&[what, "ls", "-q", "--filter", &label]).lines() {
            inspected.push(docker(&[what, "inspect", name]));
        }
    }
    every_agent_is_given_its_own_secrets_only(&fleet, &secrets);
    assert!(inspected.len() > 20, "only {} were inspected", inspected.len());
    for text in &inspected {
        secrets.absent_from("what the engine tells", text.as_bytes());
    }
}

/// What lies in an agent's container is its own password and its provider's key, and nobody else's.
fn every_agent_is_given_its_own_secrets_only(fleet: &Fleet, secrets: &Secrets) {
    for agent in ["vera.vp", "dora.director", "sam.seller"] {
        let files = fleet.folder_of(agent, "/fleet");
        let own = format!("the password of @{agent}:light.test");
        assert_eq!(secrets.only(&own).found_in(&files), Some(own.as_str()), "{agent} has its own password");
        secrets
            .without(&[own.as_str(), "the provider's key"])
            .absent_from(&format!("the container of {agent}"), &files);
    }
}

#[test]
fn a_generated_fleet_secret_is_readable_by_its_owner_only_and_outside_the_project() {
    use std::os::unix::fs::PermissionsExt as _;
    let fleet = Fleet::light("owner");
    fleet.run(&["plan"]).expect(0);
    let file = fleet.home().join(format!("config/fleetctl/{}-local-secret", fleet.name));
    let mode = fs::metadata(&file).expect("the fleet secret's file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = fs::read(&file).expect("a secret");
    fleet.run(&["plan"]).expect(0);
    assert_eq!(fs::read(&file).expect("a secret"), first, "it is generated once");
    let mut secrets = Secrets::default();
    secrets.add("the fleet secret", first.trim_ascii());
    secrets.absent_below(&fleet.path(""));

    let mut short = fleet.command(&["plan"]);
    short.env("FLEET_SECRET", "too-short-9");
    let refused = fleet.finish(Running::start(&mut short));
    refused.expect(1).says("16");
    assert!(!refused.stderr.contains("too-short-9"), "{}", refused.stderr);
}
