//! The repository's own environment on AWS, rehearsed whole: from an empty account to real agents in their rooms. Only the
//! account is an emulator; homeserver, manager, page and agents are containers of the images that were pushed.

use std::{fs, net::TcpStream, process::Command, time::Duration};

use fleet_sim::free_port;
use fleet_tests::{
    engine,
    fleet::{Fleet, work},
    model::Model,
    run::{Output, Running, eventually},
};
use serde_json::{Value, json};

/// A question about the quarter gets an answer.
const SCRIPT: &str = r#"{"rules": [{"match": "quarter", "answer": "The quarter looks good."}]}"#;
/// A file of the page, larger than all that a tunnel keeps.
const LARGE: usize = 4 << 20;

/// An account that goes on until it is dropped.
struct Rehearsal {
    fleet: Fleet,
    model: Model,
    port: u16,
    emulator: Option<String>,
}

impl Rehearsal {
    fn new() -> Self {
        let model = Model::start(SCRIPT);
        let (fleet, port) = (Fleet::shipped("rehearsed", model.port), free_port());
        // Tasks of the account find this machine where the engine's own network has it.
        let machine =
            engine::docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Gateway}}"]);
        let at = |host: &str| format!("http://{host}:{}/v1", model.port);
        fleet.edit("fleet.kdl", &at("127.0.0.1"), &at(machine.trim()));
        let declared = "environment \"rehearsal\" extends=\"dev\" {\n";
        let thinks =
            "model \"local/qwen3:8b\" { fallback \"amazon-bedrock/us.anthropic.claude-sonnet-4-20250514-v1:0\" }";
        fleet.edit("fleet.kdl", declared, &format!("{declared}    override {{ {thinks} }}\n"));
        fs::write(fleet.path("images/welcome/large"), large()).expect("a file");
        let text = fs::read_to_string(fleet.path("fleet.kdl")).expect("fleet.kdl");
        assert_eq!(text.matches("127.0.0.1:4566").count(), 2, "an endpoint and a registry");
        fs::write(fleet.path("fleet.kdl"), text.replace("127.0.0.1:4566", &format!("127.0.0.1:{port}")))
            .expect("a file");
        Self { fleet, model, port, emulator: None }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.fleet.finish(self.start(arguments))
    }

    fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.fleet.command(arguments);
        // Installed once for all tests of this machine.
        command.env("XDG_CACHE_HOME", work().join("cache"));
        Running::start(&mut command)
    }

    /// How often the account was asked this.
    fn asked(&self, action: &str) -> usize {
        let log = work().join("cache/fleetctl/emulator").join(self.port.to_string()).join("requests.log");
        fs::read_to_string(log).expect("a log").lines().filter(|line| line.contains(action)).count()
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

    an_agent_answers_through_a_tunnel(&rehearsal);
    a_tunnel_is_open_until_it_is_closed(&rehearsal);
    the_official_plugin_is_used_where_it_is_asked_for(&rehearsal);

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

fn large() -> Vec<u8> {
    (0..LARGE / 4).flat_map(|number| (number as u32).to_be_bytes()).collect()
}

fn an_agent_answers_through_a_tunnel(rehearsal: &Rehearsal) {
    let question = "@aaron.phillips how is the quarter?";
    let said = rehearsal.run(&["say", "all-employees", question, "-e", "rehearsal", "--wait", "120"]);
    println!("an answer took {:?}", said.took);
    said.expect(0);
    assert_eq!(said.stdout.trim(), "aaron.phillips: The quarter looks good.");
    assert!(rehearsal.model.asked() >= 1);
    assert_eq!((rehearsal.asked("ssm StartSession"), rehearsal.asked("ssm TerminateSession")), (1, 1));
}

fn a_tunnel_is_open_until_it_is_closed(rehearsal: &Rehearsal) {
    let (homeserver, web) = (free_port(), free_port());
    let ports = [homeserver.to_string(), web.to_string()];
    let arguments = ["connect", "-e", "rehearsal", "--homeserver-port", &ports[0], "--web-port", &ports[1]];
    let connect = rehearsal.start(&arguments);
    eventually("the tunnel is open", Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", web)).is_ok());
    let password = rehearsal.run(&["password", "manu.mishra", "-e", "rehearsal"]).expect(0).stdout.clone();
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let get = |path: &str| reqwest::get(format!("http://127.0.0.1:{web}/{path}"));
        let (page, large_file) = tokio::join!(get("index.html"), get("large"));
        let page = page.expect("a page").text().await.expect("text");
        assert!(page.contains("Talk to the fleet"), "{page}");
        let arrived = large_file.expect("a file").bytes().await.expect("bytes");
        assert!(arrived == large(), "{} of {LARGE} bytes", arrived.len());
        let login = json!({"type": "m.login.password", "password": password.trim(),
            "identifier": {"type": "m.id.user", "user": "manu.mishra"}});
        let http = reqwest::Client::new();
        let at = |path: &str| format!("http://127.0.0.1:{homeserver}/_matrix/client/v3/{path}");
        let answer = http.post(at("login")).body(login.to_string()).send().await.expect("an answer");
        let answer: Value = serde_json::from_str(&answer.text().await.expect("text")).expect("JSON");
        let token = answer["access_token"].as_str().unwrap_or_else(|| panic!("the password is not the one: {answer}"));
        http.post(at("logout")).bearer_auth(token).send().await.expect("an answer");
    });
    connect.signal("INT");
    let ended = rehearsal.fleet.finish(connect);
    ended.expect(0).says(&format!("http://127.0.0.1:{web}")).says("the tunnels are closed");
    assert_eq!((rehearsal.asked("ssm StartSession"), rehearsal.asked("ssm TerminateSession")), (3, 3));
    assert!(TcpStream::connect(("127.0.0.1", web)).is_err(), "nobody listens any more");
}

/// The official plugin cannot be had by tests. This stands for how it is called (`session.go` of session-manager-plugin): an answer
/// in a variable, which nobody else can read, and arguments; it listens, says so, and ends with SIGINT.
const STAND_IN: &str = r#"#!/usr/bin/env python3
import json, os, signal, socket, sys
variable, region, operation, profile, request, endpoint = sys.argv[1:]
answer, request = json.loads(os.environ[variable]), json.loads(request)
assert operation == "StartSession" and region == "us-east-1" and endpoint.startswith("http://127.0.0.1:"), sys.argv
assert not any(answer["TokenValue"] in word for word in sys.argv), "the token is where everybody can read it"
listener = socket.create_server(("127.0.0.1", int(request["Parameters"]["localPortNumber"][0])))
print("\nWaiting for connections...", flush=True)
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    while True:
        listener.accept()[0].sendall(request["Parameters"]["host"][0].encode())
except KeyboardInterrupt:
    pass
"#;

fn the_official_plugin_is_used_where_it_is_asked_for(rehearsal: &Rehearsal) {
    use std::{io::Read as _, os::unix::fs::PermissionsExt as _};
    let (homeserver, web) = (free_port(), free_port());
    let ports = [homeserver.to_string(), web.to_string()];
    let arguments =
        ["connect", "-e", "rehearsal", "--tunnel", "plugin", "--homeserver-port", &ports[0], "--web-port", &ports[1]];
    rehearsal.run(&arguments).expect(1).says("not on PATH");
    assert_eq!(rehearsal.asked("ssm StartSession"), 3, "nothing was begun");

    let program = rehearsal.fleet.path("bin/session-manager-plugin");
    fs::create_dir_all(rehearsal.fleet.path("bin")).expect("a folder");
    fs::write(&program, STAND_IN).expect("a file");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("a program");
    let path = format!("{}:{}", rehearsal.fleet.path("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = rehearsal.fleet.command(&arguments);
    command.env("PATH", path);
    let connect = Running::start(&mut command);
    let mut said = String::new();
    eventually("the plugin listens", Duration::from_secs(60), || {
        let reached = TcpStream::connect(("127.0.0.1", web));
        reached.is_ok_and(|mut stream| stream.read_to_string(&mut said).is_ok())
    });
    assert_eq!(said, "web.anycompany.corp");
    eventually("both listen", Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", homeserver)).is_ok());
    connect.signal("INT");
    rehearsal.fleet.finish(connect).expect(0).says("the tunnels are closed");
    assert_eq!((rehearsal.asked("ssm StartSession"), rehearsal.asked("ssm TerminateSession")), (5, 5));
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
