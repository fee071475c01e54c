//! The container engine as seen past the program under test: through its own command line.

use std::{collections::BTreeMap, process::Command};

use serde_json::Value;

/// Labels that the program gives to what it makes; `docs/concepts/state.md`.
pub const LABELS: [&str; 4] =
    ["dev.fleetctl.fleet", "dev.fleetctl.environment", "dev.fleetctl.address", "dev.fleetctl.hash"];

/// Runs the engine's command line.
///
/// # Panics
/// When it fails.
#[track_caller]
pub fn docker(arguments: &[&str]) -> String {
    let (worked, out, err) = try_docker(arguments);
    assert!(worked, "docker {}: {err}", arguments.join(" "));
    out
}

/// Runs the engine's command line; whether it worked, stdout and stderr.
#[must_use]
pub fn try_docker(arguments: &[&str]) -> (bool, String, String) {
    let output = Command::new("docker").args(arguments).output().expect("the engine's command line is installed");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// Ids that a list command prints.
fn ids(arguments: &[&str]) -> Vec<String> {
    docker(arguments).lines().map(str::to_owned).collect()
}

/// Ids of every container of a fleet, running or not.
#[must_use]
pub fn containers(fleet: &str) -> Vec<String> {
    ids(&["ps", "-aq", "--no-trunc", "--filter", &format!("label={}={fleet}", LABELS[0])])
}

/// What the engine knows of every container of a fleet.
#[must_use]
pub fn inspected(fleet: &str) -> Vec<Value> {
    containers(fleet)
        .iter()
        .filter_map(|id| {
            // One that was removed since the list was made is not there.
            let (there, text, _) = try_docker(&["inspect", "--type", "container", id]);
            there.then(|| serde_json::from_str::<Vec<Value>>(&text).expect("JSON").remove(0))
        })
        .collect()
}

/// Ids of containers that run something, by address; fails when two claim one address. The people directory is kept in
/// a container that never runs: it is not among them.
#[must_use]
#[track_caller]
pub fn by_address(fleet: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for container in inspected(fleet) {
        let text = |pointer: &str| container.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let address = text("/Config/Labels/dev.fleetctl.address");
        if address.starts_with("directory/") {
            continue;
        }
        let former = found.insert(address.clone(), text("/Id"));
        assert!(former.is_none(), "two containers are {address}: {} and {former:?}", text("/Name"));
    }
    found
}

/// How often somebody signed in to a fleet's homeserver, as a number that only grows: each sign-in makes an access token
/// and announces a device.
#[must_use]
#[track_caller]
pub fn sign_ins(homeserver: &str) -> String {
    let query = "import sqlite3; d = sqlite3.connect('file:/data/homeserver.db?mode=ro', uri=True); \
                 print(d.execute('select max(id) from access_tokens').fetchone(), \
                 d.execute('select max(stream_id) from device_lists_stream').fetchone())";
    docker(&["exec", homeserver, "python3", "-c", query])
}

/// Names of every container of a fleet, in order.
#[must_use]
pub fn names(fleet: &str) -> Vec<String> {
    let mut names: Vec<String> = inspected(fleet)
        .iter()
        .map(|container| container["Name"].as_str().unwrap_or_default().trim_start_matches('/').to_owned())
        .collect();
    names.sort();
    names
}

/// The tags of a fleet's images, in order.
#[must_use]
pub fn images(fleet: &str) -> Vec<String> {
    let mut tags =
        ids(&["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &format!("reference={fleet}/*")]);
    tags.sort();
    tags
}

/// Removes whatever a fleet left: containers, volumes, networks, images.
pub fn remove_all(fleet: &str) {
    let label = format!("label={}={fleet}", LABELS[0]);
    let list = |arguments: &[&str]| -> Vec<String> { try_docker(arguments).1.lines().map(str::to_owned).collect() };
    let remove = |what: &[&str], found: Vec<String>| {
        if !found.is_empty() {
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            let _ = try_docker(&[what, &found[..]].concat());
        }
    };
    remove(&["rm", "-f", "-v"], list(&["ps", "-aq", "--filter", &label]));
    remove(&["volume", "rm", "-f"], list(&["volume", "ls", "-q", "--filter", &label]));
    remove(&["network", "rm"], list(&["network", "ls", "-q", "--filter", &label]));
    let images = list(&["images", "--format", "{{.Repository}}:{{.Tag}}", "--filter", &format!("reference={fleet}/*")]);
    remove(&["rmi", "-f"], images);
}
