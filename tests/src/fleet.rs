//! [`Fleet`]: a project in a folder of its own, with everything it makes removed at the end.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use fleet_sim::free_port;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    engine,
    homeserver::Homeserver,
    run::{self, Output, Running},
    sources::workspace,
};

/// Packages that the light agent's image is made of, all of them among those of the repository's own agent.
const LIGHT_PACKAGES: [&str; 10] = [
    "coreutils",
    "dash",
    "gcc-12-base",
    "libacl1",
    "libattr1",
    "libc6",
    "libgcc-s1",
    "libgmp10",
    "libpcre2-8-0",
    "libselinux1",
];

/// A project, and what it made of this machine.
pub struct Fleet {
    /// Name of the fleet; unique on this machine.
    pub name: String,
    /// Port of the homeserver on loopback.
    pub port: u16,
    folder: TempDir,
    transcript: Mutex<Vec<String>>,
}

impl Fleet {
    /// Three small agents, one human, the repository's templates, and its homeserver. Nothing is applied yet.
    ///
    /// # Panics
    /// When the project cannot be written.
    #[must_use]
    pub fn light(story: &str) -> Self {
        let fleet = Self::empty(story);
        fleet.write_light();
        fleet.share_store();
        fleet
    }

    /// The light fleet with images that are made of files of the project only, the agents' on another: nothing is
    /// fetched, and its store is its own. Nothing is built yet.
    ///
    /// # Panics
    /// When the project cannot be written.
    #[must_use]
    pub fn of_files(story: &str) -> Self {
        let fleet = Self::empty(story);
        fleet.write_light();
        let kdl = fs::read_to_string(fleet.path("fleet.kdl")).expect("a file");
        let (start, end) = (kdl.find("images {").expect("images"), kdl.find("\nrooms {").expect("rooms"));
        let images = fs::read_to_string(workspace().join("tests/fixtures/files/images.kdl")).expect("a file");
        fs::write(fleet.path("fleet.kdl"), [&kdl[..start], &images, &kdl[end..]].concat()).expect("a file");
        copy_folder(&workspace().join("tests/fixtures/files/images"), &fleet.path("images"));
        fs::copy("/bin/busybox", fleet.path("images/box/busybox")).expect("busybox-static is installed");
        fs::write(fleet.path("fleet.lock"), "{\"schema\": 1}\n").expect("a file");
        fleet
    }

    /// The repository's own fleet with its own images, under a name and a port of its own, thinking with the model server
    /// at a port of this machine. Nothing is applied yet.
    ///
    /// # Panics
    /// When the project cannot be written.
    #[must_use]
    pub fn shipped(story: &str, model_port: u16) -> Self {
        let fleet = Self::empty(story);
        for folder in ["templates", "images", "org"] {
            copy_folder(&workspace().join(folder), &fleet.path(folder));
        }
        for file in ["fleet.kdl", "fleet.lock"] {
            fs::copy(workspace().join(file), fleet.path(file)).expect("a file");
        }
        fleet.edit("fleet.kdl", "fleet \"anycompany\"", &format!("fleet \"{}\"", fleet.name));
        fleet.edit("fleet.kdl", "port=6167", &format!("port={}", fleet.port));
        fleet.edit("fleet.kdl", "http://127.0.0.1:11434/v1", &format!("http://127.0.0.1:{model_port}/v1"));
        fleet.share_store();
        fleet
    }

    fn empty(story: &str) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let fleet = Self {
            name: format!("t4-{:x}-{number}-{story}", std::process::id()),
            port: free_port(),
            folder: tempfile::Builder::new().prefix("fleet-").tempdir_in(work()).expect("a folder for the project"),
            transcript: Mutex::default(),
        };
        fs::create_dir_all(fleet.path("")).expect("a folder");
        fleet
    }

    fn write_light(&self) {
        let (root, fixture) = (workspace(), workspace().join("tests/fixtures/light"));
        for folder in ["templates", "images/homeserver"] {
            copy_folder(&root.join(folder), &self.path(folder));
        }
        fs::create_dir_all(self.path("images/light")).expect("a folder");
        fs::copy(fixture.join("fleet-agent"), self.path("images/light/fleet-agent")).expect("a file");
        let text = fs::read_to_string(fixture.join("fleet.kdl")).expect("a file");
        let text = text
            .replace("FLEET_NAME", &self.name)
            .replace("HOMESERVER_PORT", &self.port.to_string())
            .replace("HOMESERVER_IMAGE", &homeserver_image());
        fs::write(self.path("fleet.kdl"), text).expect("a file");
        let lock = serde_json::to_string_pretty(&light_lock()).expect("JSON");
        fs::write(self.path("fleet.lock"), lock).expect("a file");
    }

    /// Blobs (named by their hash) and records (named by the hash of what they were made from) are the same in every
    /// project, so tests share them: packages are fetched once. Leases, generations and pins are this project's own.
    fn share_store(&self) {
        let shared = work().join("store");
        fs::create_dir_all(self.path(".fleet")).expect("a folder");
        for folder in ["blobs", "records", "tmp"] {
            fs::create_dir_all(shared.join(folder)).expect("a folder");
            symlink(shared.join(folder), self.path(".fleet").join(folder)).expect("a link");
        }
        // Two tests that begin at once would fetch everything twice.
        let gate = File::create(work().join("store.lock")).expect("a file");
        gate.lock().expect("a lock");
        self.run(&["build"]).expect(0);
    }

    /// A path in the project.
    #[must_use]
    pub fn path(&self, relative: &str) -> PathBuf {
        self.folder.path().join("project").join(relative)
    }

    /// The folder that stands for the operator's home.
    #[must_use]
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// The program, to be run in this project.
    #[must_use]
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = run::command(&self.path(""), &self.home());
        command.args(arguments);
        command
    }

    /// Runs the program in this project.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.finish(Running::start(&mut self.command(arguments)))
    }

    /// Waits for a process of this project and keeps what it printed.
    pub fn finish(&self, running: Running) -> Output {
        let output = running.wait();
        let mut transcript = self.transcript.lock().unwrap_or_else(PoisonError::into_inner);
        transcript.extend([output.stdout.clone(), output.stderr.clone()]);
        output
    }

    /// Calls that wrote something, as `--events` of a command has them.
    ///
    /// # Panics
    /// Without such a file.
    #[must_use]
    pub fn writes(&self, events: &str) -> Vec<String> {
        let events = fs::read_to_string(self.path(events)).expect("events");
        let events = events.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
        let writes = events.filter(|event| event["event"] == "call" && event["write"] == true);
        writes.map(|event| event["call"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// Everything that was printed so far.
    #[must_use]
    pub fn transcript(&self) -> Vec<String> {
        self.transcript.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Applies without asking.
    pub fn apply(&self) -> Output {
        self.run(&["apply", "--auto-approve"])
    }

    /// Applies; it must work.
    #[track_caller]
    pub fn applied(&self) -> Output {
        let output = self.apply();
        output.expect(0);
        output
    }

    /// The plan for programs.
    #[track_caller]
    pub fn plan_json(&self) -> Value {
        self.run(&["plan", "--format", "json"]).expect(0).json()
    }

    /// What would change: address to action.
    #[track_caller]
    pub fn planned(&self) -> BTreeMap<String, String> {
        let plan = self.plan_json();
        let changes = plan["changes"].as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        changes.iter().map(|change| (text(&change["address"]), text(&change["action"]))).collect()
    }

    /// The sentences that say why an address would change.
    #[track_caller]
    pub fn reasons(&self, address: &str) -> Vec<String> {
        let plan = self.plan_json();
        let changes = plan["changes"].as_array().cloned().unwrap_or_default();
        let change = changes.iter().find(|change| change["address"] == address);
        let reasons = change.and_then(|change| change["reasons"].as_array()).cloned().unwrap_or_default();
        reasons.iter().map(|reason| reason["text"].as_str().unwrap_or_default().to_owned()).collect()
    }

    /// The status for programs.
    #[track_caller]
    pub fn status_json(&self) -> Value {
        self.run(&["status", "--format", "json"]).expect(0).json()
    }

    /// Container ids by address, as the engine has them.
    #[must_use]
    #[track_caller]
    pub fn ids(&self) -> BTreeMap<String, String> {
        engine::by_address(&self.name)
    }

    /// The same with since when each runs.
    #[must_use]
    #[track_caller]
    pub fn lives(&self) -> BTreeMap<String, String> {
        engine::lives(&self.name)
    }

    /// The name of an object's container.
    #[must_use]
    pub fn container(&self, name: &str) -> String {
        format!("{}-local-{name}", self.name)
    }

    /// A folder of an object's container as a tar archive.
    ///
    /// # Panics
    /// When it cannot be read.
    #[must_use]
    #[track_caller]
    pub fn folder_of(&self, name: &str, folder: &str) -> Vec<u8> {
        let from = format!("{}:{folder}", self.container(name));
        let output = Command::new("docker").args(["cp", &from, "-"]).output().expect("the engine's command line");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        output.stdout
    }

    /// Replaces a text of a file in the project.
    ///
    /// # Panics
    /// When the text is not there exactly once.
    #[track_caller]
    pub fn edit(&self, file: &str, from: &str, to: &str) {
        let path = self.path(file);
        let text = fs::read_to_string(&path).expect("a file of the project");
        assert_eq!(text.matches(from).count(), 1, "`{from}` in {file}");
        fs::write(&path, text.replace(from, to)).expect("a file of the project");
    }

    /// The homeserver as an administrator sees it.
    ///
    /// # Panics
    /// Before the first apply.
    #[must_use]
    pub fn homeserver(&self) -> Homeserver {
        let token = self.home().join("state/fleetctl").join(format!("{}-local-matrix-token", self.name));
        let token = fs::read_to_string(&token).expect("the service account's token").trim().to_owned();
        let kdl = fs::read_to_string(self.path("fleet.kdl")).expect("fleet.kdl");
        let domain =
            kdl.split("domain=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default().to_owned();
        Homeserver { port: self.port, token, domain }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        // A failed test's containers are as unwanted as a good one's; what it printed is what tells about it.
        if run::fleetctl().is_ok() {
            let _ = self.command(&["destroy", "--purge", "--auto-approve"]).output();
        }
        engine::remove_all(&self.name);
    }
}

/// Where tests keep their projects and what they share: on the file system of the build, which has room.
#[must_use]
pub fn work() -> PathBuf {
    let folder = workspace().join("target/fleet-tests");
    fs::create_dir_all(&folder).expect("a folder for tests");
    folder
}

/// Copies a folder of the repository over another; what is there and has other names stays.
///
/// # Panics
/// When something cannot be read or written.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("a folder of the repository") {
        let entry = entry.expect("an entry");
        let target = to.join(entry.file_name());
        if entry.file_type().expect("a type").is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), &target).expect("a file");
        }
    }
}

/// The node of the homeserver's image, as the repository declares it.
fn homeserver_image() -> String {
    let text = fs::read_to_string(workspace().join("fleet.kdl")).expect("the repository's fleet.kdl");
    let start = text.find("    image \"homeserver\" ").expect("the homeserver's image");
    let end = text[start..].find("\n    }\n").expect("its end");
    text[start..start + end + 6].to_owned()
}

/// The repository's pins of the homeserver, and those of the light agent: a part of the repository's own agent's.
fn light_lock() -> Value {
    let text = fs::read_to_string(workspace().join("fleet.lock")).expect("the repository's fleet.lock");
    let lock: Value = serde_json::from_str(&text).expect("JSON");
    let mut debian = lock["debian"].clone();
    let architectures = debian["agent"].as_object_mut().expect("pins of the agent");
    for pins in architectures.values_mut() {
        pins["request"] = json!(["coreutils", "dash"]);
        let packages = pins["packages"].as_array_mut().expect("packages");
        packages.retain(|package| LIGHT_PACKAGES.iter().any(|name| package["name"] == *name));
        let found: Vec<&Value> = packages.iter().map(|package| &package["name"]).collect();
        assert_eq!(found.len(), LIGHT_PACKAGES.len(), "the light agent's packages that are pinned: {found:?}");
    }
    let pip = json!({"homeserver": lock["pip"]["homeserver"]});
    json!({"schema": lock["schema"], "debian": debian, "pip": pip})
}
