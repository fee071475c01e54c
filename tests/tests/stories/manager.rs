//! Accounts and rooms by way of the manager: `fleetctl manager` as a process, a real Synapse, a folder in place of the
//! bucket, and the operator's side as `apply` uses it.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, SystemTime},
};

use crate::world::{DOMAIN, Fleet, SECRET, World, account, changes, direct, room, secrets};
use fleet_apply::{Execution, Provider, Report, Scope, Silent, SystemClock, execute};
use fleet_derivation::Hash;
use fleet_manager::{Mailbox, RemoteMatrix, Waits, protocol::Key};
use fleet_matrix::Flavour;
use fleet_model::{Address, model::Rollout};
use fleet_plan::{Outcome, Plan, State};
use fleet_tests::run::fleetctl;
use serde_json::json;

/// How often the manager is killed, each time after so many more pieces of progress.
const KILLED_AFTER: [usize; 4] = [2, 3, 2, 4];
const SHORT: Duration = Duration::from_millis(20);

fn fleet() -> Fleet {
    Fleet::from([
        account("ann", "Ann Archer"),
        account("bob", "Bob Baker"),
        account("cy", "Cy Cook"),
        room("all-employees", &["ann", "bob", "cy"], |spec| spec.topic = "Everybody".to_owned()),
        room("frontend-team", &["ann", "bob"], |_| {}),
        direct("ann", "bob"),
    ])
}

fn scope() -> Scope {
    Scope { fleet: "anycompany".to_owned(), environment: "test".to_owned(), domain: DOMAIN.to_owned() }
}

/// A homeserver, and a folder where operator and manager meet.
struct Place {
    world: World,
    folder: tempfile::TempDir,
}

/// A manager as a process; killed when dropped.
struct Manager(Child);

impl Drop for Manager {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Place {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("bucket")).unwrap();
        Self { world: World::closed().await, folder }
    }

    fn bucket(&self) -> PathBuf {
        self.folder.path().join("bucket")
    }

    fn command(&self) -> Command {
        let settings = json!({
            "schema": 1, "fleet": "anycompany", "environment": "test", "domain": DOMAIN, "account": "111122223333",
            "region": "us-east-1", "kind": "synapse", "homeserver": self.world.url(),
        });
        let mut command = Command::new(fleetctl().unwrap());
        command
            .arg("manager")
            .env("FLEET_MANAGER", settings.to_string())
            .env("FLEET_BUCKET", format!("file://{}", self.bucket().display()))
            .env("FLEET_SECRET", SECRET)
            .env("XDG_STATE_HOME", self.state());
        command
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn manager(&self) -> Manager {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command();
        command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Manager(command.spawn().unwrap())
    }

    /// What the health check of its container says, and whether that is good.
    fn health(&self) -> (bool, String) {
        let output = self.command().arg("--health").output().unwrap();
        let said = [output.stdout, output.stderr].concat();
        (output.status.success(), String::from_utf8_lossy(&said).into_owned())
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn operator(&self) -> RemoteMatrix {
        let mailbox = Mailbox::folder(&self.bucket(), Key::of(&secrets().fleet)).unwrap();
        let waits = Waits { poll: SHORT, ..Waits::SERVICE };
        RemoteMatrix::new(scope(), Arc::new(mailbox), Arc::new(SystemClock), waits, "see its log".to_owned())
    }

    /// Everything in the folder, by name.
    fn objects(&self) -> BTreeMap<String, String> {
        let mut objects = BTreeMap::new();
        read(&self.bucket(), &mut objects);
        objects
    }

    fn pieces(&self) -> usize {
        self.objects().keys().filter(|name| name.contains("/progress/")).count()
    }
}

fn read(folder: &Path, objects: &mut BTreeMap<String, String>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            read(&path, objects);
        } else if let Ok(text) = fs::read_to_string(&path) {
            objects.insert(path.display().to_string(), text);
        }
    }
}

/// What `apply` does: observe, plan, hand over, wait.
async fn apply(operator: &RemoteMatrix, fleet: &Fleet) -> Report {
    let wanted: Vec<Address> = fleet.keys().cloned().collect();
    let state = operator.observe(&wanted).await.unwrap();
    let plan = Plan {
        schema: 1,
        fleet: "anycompany".to_owned(),
        environment: "test".to_owned(),
        graph: Hash::of(b""),
        changes: changes(fleet, &state),
        unchanged: 0,
        notes: Vec::new(),
    };
    let execution = Execution {
        plan: &plan,
        providers: &[operator],
        secrets: &secrets(),
        rollout: Rollout::default(),
        events: &Silent,
        recorder: &Silent,
        stop: &AtomicBool::new(false),
    };
    execute(&execution, BTreeMap::new()).await
}

#[tokio::test]
async fn a_manager_killed_again_and_again_makes_what_was_handed_over_and_the_second_apply_writes_nothing() {
    let place = Place::new().await;
    let deaths = async {
        for pieces in KILLED_AFTER {
            let (mut doomed, before) = (place.manager(), place.pieces());
            while place.pieces() < before + pieces {
                assert!(doomed.0.try_wait().unwrap().is_none(), "it ended by itself:\n{}", place.log());
                tokio::time::sleep(SHORT).await;
            }
            // Killed when dropped.
        }
        place.manager()
    };
    let operator = place.operator();
    let declared = fleet();
    let (report, manager) = tokio::join!(apply(&operator, &declared), deaths);
    assert!(report.is_complete(), "{report:#?}\n{}", place.log());

    // What the manager saw is what the homeserver says itself, and nothing is left to do.
    let second = place.operator();
    second.ask();
    // A homeserver that did not answer the last look is looked at once more: that is the only write there may be.
    let report = apply(&second, &fleet()).await;
    assert!(report.entries.is_empty(), "{report:#?}\n{}", place.log());
    let (third, before) = (place.operator(), place.objects());
    third.ask();
    let report = apply(&third, &fleet()).await;
    assert!(report.entries.is_empty(), "{report:#?}\n{}", place.log());
    assert_eq!(place.objects(), before, "looking writes nothing");
    drop(manager);
    let wanted: Vec<Address> = fleet().keys().cloned().collect();
    let state: State = place.world.provider(Flavour::Synapse).observe(&wanted).await.unwrap();
    assert_eq!(changes(&fleet(), &state), Vec::new());
    assert_eq!(place.world.count("select count(*) from rooms"), 3);
    assert_eq!(place.world.count("select count(*) from users"), 4);
    assert_eq!(place.world.count("select count(*) from devices where hidden = 0 and device_id = 'FLEETCTL'"), 1);
    for name in ["ann", "bob", "cy"] {
        assert!(place.world.login(name, 0).await.is_some(), "{name} has its password");
    }
}

#[tokio::test]
async fn a_change_and_a_removal_reach_the_homeserver_and_no_secret_reaches_an_object_or_the_log() {
    let place = Place::new().await;
    let (good, said) = place.health();
    assert!(!good && said.contains("the manager has not begun"), "{said}");
    let mut manager = place.manager();
    assert!(apply(&place.operator(), &fleet()).await.is_complete(), "{}", place.log());
    let (good, said) = place.health();
    assert!(good && said.starts_with("at work "), "{said}");
    let mut fewer = fleet();
    fewer.remove(&account("cy", "").0);
    fewer.extend([room("all-employees", &["ann", "bob"], |spec| spec.topic = "Nearly everybody".to_owned())]);
    let operator = place.operator();
    operator.ask();
    let report = apply(&operator, &fewer).await;
    let done: BTreeSet<String> =
        report.entries.iter().map(|entry| format!("{} {}", entry.action, entry.address)).collect();
    assert_eq!(done, BTreeSet::from(["update room/all-employees".to_owned(), "delete account/cy".to_owned()]));
    assert!(report.entries.iter().all(|entry| entry.outcome == Outcome::Done), "{report:#?}\n{}", place.log());
    assert!(place.world.login("cy", 0).await.is_none(), "closed");

    // Told to end, it ends by itself.
    let pid = manager.0.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert!(manager.0.wait().unwrap().success(), "{}", place.log());
    let file = |name: &str| {
        let files = fs::read_dir(place.state().join("fleetctl")).unwrap();
        files.map(|file| file.unwrap().path()).find(|path| path.to_string_lossy().ends_with(name)).unwrap()
    };
    let an_hour_ago = SystemTime::now() - Duration::from_secs(3600);
    fs::File::options().write(true).open(file("manager-alive")).unwrap().set_modified(an_hour_ago).unwrap();
    let (good, said) = place.health();
    assert!(!good && said.contains("the manager has said nothing for 36"), "{said}");

    let fleet = secrets().fleet;
    let mut values =
        vec![SECRET.to_owned(), fleet.key_for(fleet_manager::protocol::KEY_LABEL).expose_str().unwrap().to_owned()];
    values.push(fleet.key_for(fleet_matrix::SHARED_SECRET_LABEL).expose_str().unwrap().to_owned());
    for name in ["ann", "bob", "cy", fleet_matrix::SERVICE_LOCALPART] {
        values.extend(
            [0, 1].map(|epoch| fleet.password(&format!("@{name}:{DOMAIN}"), epoch).expose_str().unwrap().to_owned()),
        );
    }
    values.push(fs::read_to_string(file("matrix-token")).unwrap().trim().to_owned());
    let mut texts = place.objects();
    assert!(texts.len() > 4, "{:?}", texts.keys());
    texts.insert("log".to_owned(), place.log());
    for (name, text) in texts {
        assert!(!values.iter().any(|value| text.contains(value)), "{name}");
    }
}

#[test]
fn a_manager_that_was_told_too_little_says_what_is_missing() {
    let told = |set: &[(&str, &str)]| {
        let mut command = Command::new(fleetctl().unwrap());
        let output = command.arg("manager").env_remove("FLEET_SECRET").envs(set.iter().copied()).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = told(&[]);
    assert!(code == Some(64) && said.contains("FLEET_MANAGER is not set"), "{said}");
    let settings = r#"{"schema": 1, "fleet": "a", "environment": "b", "domain": "c.test", "account": "1", "region": "r", "kind": "synapse", "homeserver": "http://127.0.0.1:1"}"#;
    let (code, said) = told(&[("FLEET_MANAGER", settings)]);
    assert!(code == Some(64) && said.contains("FLEET_SECRET is not set"), "{said}");
    let (code, said) = told(&[("FLEET_MANAGER", settings), ("FLEET_SECRET", "too short")]);
    assert!(code == Some(64) && said.contains("FLEET_SECRET cannot be used") && !said.contains("too short"), "{said}");
    let (code, said) = told(&[("FLEET_MANAGER", "{}"), ("FLEET_SECRET", SECRET)]);
    assert!(code == Some(64) && said.contains("FLEET_MANAGER cannot be used"), "{said}");
}
