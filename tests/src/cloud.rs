//! [`Cloud`]: an emulated account, and a fleet with an environment in it.

use std::{fs, path::PathBuf};

use fleet_aws::{
    Place,
    emulator::{Emulator, Fault, REQUIREMENTS, Start},
};
use fleet_sim::{free_port, venv};
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::{fleet::Fleet, run::Output};

/// An account with a fleet of images made of files.
pub struct Cloud {
    /// Its fleet; the environment is `cloud`.
    pub fleet: Fleet,
    /// What calls of a test run on.
    pub runtime: Runtime,
    emulator: Option<Emulator>,
    /// What the account was asked before the story began.
    before: usize,
}

impl Cloud {
    /// An account that its administrator has prepared.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn new(story: &str) -> Self {
        let mut cloud = Self::empty(story);
        cloud.run(&["bootstrap", "--repository", "acme/fleet", "--auto-approve"]).expect(0);
        cloud.before = cloud.asked().len();
        cloud
    }

    /// An account that its administrator has prepared, whose tasks run as containers of this machine: four agents that are
    /// a small script, and in place of the homeserver the same script. `more` is added to the environment.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn running(story: &str, more: &str) -> Self {
        let fleet = Fleet::of_files(story);
        small_containers(&fleet);
        let given = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
        let engine = given.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned());
        let mut cloud = Self::of(fleet, more, Some(&engine));
        cloud.run(&["bootstrap", "--repository", "acme/fleet", "--auto-approve"]).expect(0);
        cloud.before = cloud.asked().len();
        cloud
    }

    /// An empty account.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn empty(story: &str) -> Self {
        Self::of(Fleet::of_files(story), "", None)
    }

    fn of(fleet: Fleet, more: &str, engine: Option<&str>) -> Self {
        let port = free_port();
        // Engines before 23 read no zstd.
        let gzip = if engine.is_some() { " compression=\"gzip\"" } else { "" };
        declare(
            &fleet,
            &format!(" endpoint-url=\"http://127.0.0.1:{port}\"{gzip}"),
            &format!("registry \"127.0.0.1:{port}\"\n{more}"),
        );
        let place = Place { account: "111122223333".to_owned(), region: "us-east-1".to_owned(), endpoint: None };
        let python: PathBuf = venv("ministack", &REQUIREMENTS.join(" ")).join("python");
        let runtime = Runtime::new().expect("threads");
        let folder = fleet.path("../emulator");
        let start = Start { python: &python, folder: &folder, port, place: &place, engine };
        let emulator = runtime.block_on(Emulator::start(start)).expect("an emulator");
        Self { fleet, runtime, emulator: Some(emulator), before: 0 }
    }

    /// Runs the program for the environment.
    pub fn run(&self, arguments: &[&str]) -> Output {
        self.fleet.run(&[arguments, &["-e", "cloud"]].concat())
    }

    /// Applies without asking; what was called is in `events`.
    pub fn apply(&self) -> Output {
        self.run(&["apply", "--auto-approve", "--events", "events"])
    }

    /// The account.
    ///
    /// # Panics
    /// Never while the story goes on.
    #[must_use]
    pub fn emulator(&self) -> &Emulator {
        self.emulator.as_ref().expect("it runs")
    }

    /// Everything that the account was asked since it was prepared.
    ///
    /// # Panics
    /// Without a log.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        let requests = self.runtime.block_on(self.emulator().requests()).expect("a log");
        requests.into_iter().map(|request| request.action).skip(self.before).collect()
    }

    /// How often it was asked this.
    #[must_use]
    pub fn count(&self, action: &str) -> usize {
        self.asked().iter().filter(|asked| *asked == action).count()
    }

    /// A call of CloudWatch Logs, as a task's driver makes it.
    ///
    /// # Panics
    /// When it is refused.
    pub fn log(&self, action: &str, body: &Value) {
        self.ask("logs", &format!("Logs_20140328.{action}"), body);
    }

    /// A call of a service that speaks JSON, past the program: `ecs` and `AmazonEC2ContainerServiceV20141113.ListTasks`.
    ///
    /// # Panics
    /// When it is refused.
    pub fn ask(&self, service: &str, target: &str, body: &Value) -> Value {
        let as_whom = format!(
            "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = reqwest::Client::new().post(self.emulator().endpoint()).header("authorization", as_whom);
        let request = request.header("x-amz-target", target).header("content-type", "application/x-amz-json-1.1");
        let answer = self.runtime.block_on(request.body(body.to_string()).send()).expect("an answer");
        assert!(answer.status().is_success(), "{target}: {answer:?}");
        let text = self.runtime.block_on(answer.text()).expect("a body");
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// Has the account answer these actions badly, each once.
    ///
    /// # Panics
    /// When it cannot be told.
    pub fn answer_badly(&self, faults: &[(&str, Fault)]) {
        self.runtime.block_on(self.emulator().answer_badly(faults)).expect("a file of faults");
    }

    /// Writes that the last apply counted itself.
    #[must_use]
    pub fn writes(&self) -> Vec<String> {
        self.fleet.writes("events")
    }
}

impl Drop for Cloud {
    fn drop(&mut self) {
        if let Some(emulator) = self.emulator.take() {
            self.runtime.block_on(emulator.stop());
        }
    }
}

/// Gives a fleet of files images that run: the script of the light agent under the shell of busybox.
fn small_containers(fleet: &Fleet) {
    let script = "images/light/fleet-agent";
    fleet.edit(script, "#!/bin/dash", "#!/bin/busybox sh");
    fleet.edit(script, "            sleep 1000 &", "            /bin/busybox sleep 1000 &");
    let runs = format!("        copy \"{script}\" to=\"/usr/local/bin/fleet-agent\"\n");
    let begins = "        entrypoint \"/usr/local/bin/fleet-agent\"\n";
    fleet.edit(
        "fleet.kdl",
        "        copy \"images/app\" to=\"/app\"\n        env GREETING",
        &format!("{runs}        env GREETING"),
    );
    fleet.edit(
        "fleet.kdl",
        "        workdir \"/app\"\n        entrypoint \"/bin/busybox\" \"cat\" \"/app/deep/words.txt\"\n",
        &format!("        env LIGHT_MODE=\"well\"\n{begins}"),
    );
    let homeserver = "image \"homeserver\" {\n";
    fleet.edit(
        "fleet.kdl",
        &format!("{homeserver}        copy \"images/app\" to=\"/app\"\n"),
        &format!("{homeserver}        base image=\"box\"\n{runs}{begins}"),
    );
}

/// Adds an environment on AWS.
///
/// # Panics
/// When the project cannot be changed.
pub fn declare(fleet: &Fleet, endpoint: &str, registry: &str) {
    let text = fs::read_to_string(fleet.path("fleet.kdl")).expect("fleet.kdl");
    let cloud = format!(
        "\nenvironment \"cloud\" extends=\"local\" {{\n    target \"aws\" account=\"111122223333\" region=\"us-east-1\"{endpoint}\n    {registry}\n    logs retention=\"7d\"\n    network cidr=\"10.0.0.0/16\"\n}}\n"
    );
    fs::write(fleet.path("fleet.kdl"), text + &cloud).expect("fleet.kdl");
}
