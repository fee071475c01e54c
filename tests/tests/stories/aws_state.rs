//! An environment on AWS belongs to everybody who may apply it: history and lease are in the account, whatever checkout or
//! machine asks.

use std::{fs, path::Path, process::Command, time::Duration};

use fleet_tests::{
    cloud::Cloud,
    fleet::copy_folder,
    run::{self, Output, Running, eventually},
};
use serde_json::json;

/// A second checkout of the fleet's project: the same files, without `.fleet/`, and a home of its own.
struct Checkout<'c> {
    cloud: &'c Cloud,
}

impl<'c> Checkout<'c> {
    fn of(cloud: &'c Cloud) -> Self {
        let checkout = Self { cloud };
        fs::create_dir_all(checkout.folder()).expect("a folder");
        for entry in fs::read_dir(cloud.fleet.path("")).expect("the project") {
            let entry = entry.expect("an entry");
            let to = checkout.folder().join(entry.file_name());
            match entry.file_name().to_str() {
                Some(".fleet" | "events") => {}
                _ if entry.path().is_dir() => copy_folder(&entry.path(), &to),
                _ => drop(fs::copy(entry.path(), to).expect("a file")),
            }
        }
        checkout
    }

    fn folder(&self) -> std::path::PathBuf {
        self.cloud.fleet.path("../second")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = run::command(&self.folder(), &self.cloud.fleet.path("../second-home"));
        command.args(arguments).args(["-e", "cloud"]);
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.cloud.fleet.finish(Running::start(&mut self.command(arguments)))
    }
}

fn wrote(cloud: &Cloud, object: &str) -> usize {
    cloud.asked().iter().filter(|asked| asked.starts_with("PUT /") && asked.contains(object)).count()
}

#[test]
fn of_two_applies_from_two_checkouts_one_works_and_the_other_learns_who_and_later_has_nothing_to_do() {
    let cloud = Cloud::new("two-checkouts");
    let second = Checkout::of(&cloud);
    second.run(&["history"]).expect(0);

    let mut command = cloud.fleet.command(&["apply", "--auto-approve", "-e", "cloud"]);
    let first = Running::start(&mut command);
    eventually("the first one has the lease", Duration::from_secs(60), || wrote(&cloud, "/cloud/lease.json") > 0);
    first.signal("STOP");
    let refused = second.run(&["apply", "--auto-approve", "--events", "events"]);
    refused
        .expect(8)
        .says(&format!("(process {}, `apply -e cloud`, since 20", first.id()))
        .says("is working on cloud")
        .says("its lease runs out by itself");
    assert_eq!(cloud.fleet.writes("../second/events"), Vec::<String>::new());
    second.run(&["destroy", "--auto-approve"]).expect(8).says("is working on cloud");
    first.signal("CONT");
    cloud.fleet.finish(first).expect(3);

    // The other checkout sees what was done, and by whom, and has nothing to do itself.
    let here = cloud.run(&["history", "--format", "json"]).expect(0).json();
    let there = second.run(&["history", "--format", "json"]).expect(0).json();
    assert_eq!(here, there);
    assert_eq!(there["generations"].as_array().map(Vec::len), Some(1), "{there}");
    second.run(&["plan", "--offline"]).expect(0).says("compared with generation 1");
    let before = cloud.asked().len();
    second.run(&["apply", "--auto-approve"]).expect(3).says("0 changed");
    let written = cloud.asked().split_off(before).into_iter().find(|asked| asked.starts_with("PUT /"));
    assert_eq!(written, None, "who changes nothing needs no lease");

    // What it changes the first one can explain, although the derivations were made elsewhere.
    let keep_logs = |folder: &Path, former: &str, days: &str| {
        let path = folder.join("fleet.kdl");
        let text = fs::read_to_string(&path).expect("fleet.kdl");
        let (former, days) = (format!("retention=\"{former}\""), format!("retention=\"{days}\""));
        assert!(text.contains(&former));
        fs::write(&path, text.replace(&former, &days)).expect("fleet.kdl");
    };
    let (ours, theirs) = (cloud.fleet.path(""), second.folder());
    [&ours, &theirs].into_iter().for_each(|folder| keep_logs(folder, "7d", "14d"));
    second.run(&["apply", "--auto-approve"]).expect(3).says("1 changed");
    cloud.run(&["why", "stack/cloud"]).expect(0).says("in generation 2").says("logs.retention: 7d → 14d");
    cloud.run(&["plan"]).expect(0).says("10 unchanged");

    // Both save a plan before either applies. Of the same one nothing is left to do; another one is refused for its object.
    let both_plan = |file: &str| {
        for plan in [cloud.run(&["plan", "-o", file]), second.run(&["plan", "-o", file])] {
            plan.expect(0);
        }
    };
    [&ours, &theirs].into_iter().for_each(|folder| keep_logs(folder, "14d", "30d"));
    both_plan("same.plan");
    cloud.run(&["apply", "same.plan", "--auto-approve"]).expect(3).says("1 changed");
    second.run(&["apply", "same.plan", "--auto-approve"]).expect(3).says("0 changed");
    keep_logs(&ours, "30d", "60d");
    keep_logs(&theirs, "30d", "90d");
    both_plan("other.plan");
    cloud.run(&["apply", "other.plan", "--auto-approve"]).expect(3).says("1 changed");
    second
        .run(&["apply", "other.plan", "--auto-approve"])
        .expect(5)
        .says("refused: stack/cloud is no longer what the plan was made against");
    cloud.run(&["plan"]).expect(0).says("10 unchanged");
}

#[test]
fn an_apply_that_was_killed_keeps_nobody_out_and_what_it_did_is_recorded_by_the_next() {
    let cloud = Cloud::new("killed");
    let second = Checkout::of(&cloud);
    let mut command = cloud.fleet.command(&["apply", "--auto-approve", "-e", "cloud"]);
    let mut first = Running::start(&mut command);
    eventually("the first one works", Duration::from_secs(60), || cloud.count("cloudformation ExecuteChangeSet") > 0);
    assert!(first.kill(), "it still ran");
    let _ = first.wait();
    second.run(&["apply", "--auto-approve"]).expect(3);
    let history = cloud.run(&["history", "--format", "json"]).expect(0).json();
    assert!(history["generations"].as_array().is_some_and(|all| !all.is_empty()), "{history}");
    cloud.apply().expect(3).says("0 changed");
}

#[test]
fn who_lost_the_lease_finishes_what_runs_and_begins_nothing_further() {
    let cloud = Cloud::new("overtaken");
    let mut command = cloud.fleet.command(&["apply", "--auto-approve", "-e", "cloud"]);
    let first = Running::start(&mut command);
    // Its first renewal is due by its own clock from then on.
    eventually("the first one works", Duration::from_secs(60), || cloud.count("cloudformation CreateChangeSet") > 0);
    // Stopped, as a laptop that sleeps, until it is late for renewing it; somebody else took it meanwhile.
    first.signal("STOP");
    std::thread::sleep(Duration::from_secs(31));
    let holder = json!({
        "who": "ben", "host": "build-7", "pid": 1, "since": 1_700_000_000, "what": "apply -e cloud",
        "until": u64::from(u32::MAX),
    });
    let lease = json!({"schema": 1, "holder": holder, "nonce": 1, "machine": null});
    let (name, endpoint) = (&cloud.fleet.name, cloud.emulator().endpoint());
    let object = format!("{endpoint}/{name}-state-111122223333-us-east-1/{name}/cloud/lease.json");
    let as_whom =
        "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
    let put = reqwest::Client::new().put(object).header("authorization", as_whom).body(lease.to_string());
    let put = cloud.runtime.block_on(put.send()).expect("an answer");
    assert!(put.status().is_success(), "{put:?}");
    first.signal("CONT");

    let stopped = cloud.fleet.finish(first);
    stopped.expect(8).says("stopping: the lease on cloud ran out and was taken over by ben on build-7");
    assert_eq!(cloud.count("ecs CreateService"), 0, "agents come last");
    cloud.apply().expect(8).says("ben on build-7 (process 1, `apply -e cloud`, since 2023-11-14 22:13:20 UTC)");
}

#[test]
fn an_account_that_nobody_prepared_is_refused_with_the_command_that_does_it() {
    let cloud = Cloud::empty("unprepared");
    cloud.run(&["plan"]).expect(0).says("the account has no state bucket").says("fleetctl bootstrap -e cloud");
    let refused = cloud.apply();
    refused
        .expect(1)
        .says("the account is not prepared: it has no state bucket")
        .says("fleetctl bootstrap -e cloud --repository OWNER/NAME");
    assert_eq!(cloud.count("cloudformation CreateChangeSet"), 0, "nothing was begun");
    cloud.run(&["history"]).expect(0).says("there is none in the account");
    cloud.run(&["destroy", "--auto-approve"]).expect(0).says("nothing is there");
}
