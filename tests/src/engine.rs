//! The container engine as seen past the program under test: through its own command line.

use std::{
    collections::BTreeMap,
    fs,
    process::{Child, Command},
    time::{Duration, SystemTime},
};

use serde_json::Value;
use tempfile::NamedTempFile;

use crate::run::eventually;

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

/// The same, with since when each runs: a container that was stopped and started again is another life of one id.
#[must_use]
#[track_caller]
pub fn lives(fleet: &str) -> BTreeMap<String, String> {
    let started = |id: &str| docker(&["inspect", "--format", "{{.State.StartedAt}}", id]);
    by_address(fleet).into_iter().map(|(address, id)| (address, format!("{id} since {}", started(&id)))).collect()
}

/// What the engine itself says is changed of a fleet, from its start to its end. Read as it happens: an engine remembers
/// a few hundred events only, and health probes are events too.
pub struct Watch {
    fleet: String,
    told: NamedTempFile,
    events: Child,
}

impl Watch {
    /// Begins.
    ///
    /// # Panics
    /// When the engine's command line cannot be started.
    #[must_use]
    pub fn start(fleet: &str) -> Self {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
        let since = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
        let told = NamedTempFile::new().expect("a file");
        let events = Command::new("docker")
            .args(["events", "--since", &since, "--format", "{{json .}}"])
            .stdout(told.reopen().expect("the same file"))
            .spawn()
            .expect("the engine's command line is installed");
        Self { fleet: fleet.to_owned(), told, events }
    }

    /// Ends; `container create`, `volume destroy`… in order, without the health probes that the engine runs by itself.
    ///
    /// # Panics
    /// When the engine does not tell its events.
    #[must_use]
    pub fn end(self) -> Vec<String> {
        let events = self.told();
        let told = events.iter().map(|event| format!("{} {}", event["Type"], event["Action"]).replace('"', ""));
        told.filter(|told| !told.contains("exec_") && !told.contains("health_status")).collect()
    }

    /// Ends; everything that the engine told of the fleet, in order, as it tells it.
    ///
    /// # Panics
    /// When the engine does not tell its events.
    #[must_use]
    pub fn told(self) -> Vec<Value> {
        let mark = format!("watch-end-{}", self.fleet);
        docker(&["volume", "create", &mark]);
        docker(&["volume", "rm", &mark]);
        let read = || fs::read_to_string(self.told.path()).unwrap_or_default();
        let gone = |text: &str| text.lines().any(|line| line.contains(&mark) && line.contains("destroy"));
        eventually("the engine tells its events", Duration::from_secs(120), || gone(&read()));
        let text = read();
        let ours = text.lines().take_while(|line| !line.contains(&mark)).filter(|line| line.contains(&self.fleet));
        ours.map(|line| serde_json::from_str::<Value>(line).expect("JSON")).collect()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let _ = self.events.kill();
        let _ = self.events.wait();
    }
}

/// Everything that a fleet's homeserver was told, as numbers that only grow: events in rooms, account data, profiles,
/// accounts, and [`sign_ins`].
#[must_use]
#[track_caller]
pub fn homeserver_writes(homeserver: &str) -> String {
    let query = "import sqlite3; d = sqlite3.connect('file:/data/homeserver.db?mode=ro', uri=True); \
                 print([d.execute('select max(%s) from %s' % c).fetchone()[0] for c in \
                 (('stream_ordering', 'events'), ('stream_id', 'account_data'), ('stream_id', 'room_account_data'))], \
                 d.execute('select count(*) from users').fetchone(), d.execute('select * from profiles order by 1').fetchall())";
    format!("{} {}", docker(&["exec", homeserver, "python3", "-c", query]), sign_ins(homeserver))
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
