//! The built `fleet-agent` against a stand-in for the homeserver and for OpenClaw's readiness probe. OpenClaw itself is a
//! shell that waits for SIGTERM; the real one is tested in containers (`tests/`).

#[path = "agent/bedrock.rs"]
mod bedrock;

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use fleet_sim::free_port;
use serde_json::{Value, json};

const PASSWORD: &str = "0123456789abcdef0123456789abcdef";
/// What the password of the other account is derived from: one account, two ways to its container.
const FLEET_SECRET: &str = "a fleet secret of thirty-two chars";
const TOKEN: &str = "syt_token_that_nobody_may_see";

/// The password of `@a:b.c` under that secret.
fn derived() -> String {
    let password = fleet_secret::derive_password(&fleet_secret::Secret::new(FLEET_SECRET), "@a:b.c", 0);
    password.expose_str().unwrap().to_owned()
}

/// What ECS says of a task's role.
const SESSION: &str = "a session token that nobody may see";

/// Answers like a homeserver with one account, like OpenClaw's `/readyz`, like ECS and like a bucket with one object;
/// remembers what it was asked.
struct Stub {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    object: Arc<Mutex<String>>,
}

impl Stub {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let object = Arc::new(Mutex::new(String::new()));
        let (log, held) = (Arc::clone(&asked), Arc::clone(&object));
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, held) = (Arc::clone(&log), Arc::clone(&held));
                std::thread::spawn(move || converse(stream, &log, &held));
            }
        });
        Self { port, asked, object }
    }

    fn count(&self, path: &str) -> usize {
        self.asked.lock().unwrap().iter().filter(|asked| asked.contains(path)).count()
    }
}

fn converse(stream: TcpStream, log: &Mutex<Vec<String>>, object: &Mutex<String>) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|read| read > 0) && !head.ends_with("\r\n\r\n") {}
    let length =
        head.to_lowercase().lines().find_map(|l| l.strip_prefix("content-length: ")?.trim().parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap_or_default();
    let (status, answer) = match head.starts_with("GET /bucket/bundles/a/1.json ") {
        true if is_signed(&head) => (200, object.lock().unwrap().clone()),
        true => (403, String::new()),
        false => {
            let (status, answer) = answer(&head, &String::from_utf8_lossy(&body));
            (status, answer.to_string())
        }
    };
    log.lock().unwrap().push(head.lines().next().unwrap_or_default().to_owned());
    let mut stream = stream;
    let _ = write!(
        stream,
        "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{answer}",
        answer.len()
    );
}

/// By the key and the session that the stub gave, for S3 in the region that it was told.
fn is_signed(head: &str) -> bool {
    let head = head.to_lowercase();
    head.contains("authorization: aws4-hmac-sha256 credential=akid/")
        && head.contains("/eu-west-1/s3/aws4_request")
        && head.contains(&format!("x-amz-security-token: {SESSION}"))
}

fn answer(head: &str, body: &str) -> (u16, Value) {
    let path = head.split(' ').nth(1).unwrap_or_default();
    if path == "/credentials" {
        return (200, json!({"AccessKeyId": "AKID", "SecretAccessKey": "never shown", "Token": SESSION}));
    }
    if path.ends_with("/versions") {
        return (200, json!({"versions": ["v1.5"]}));
    }
    if path.starts_with("/readyz") {
        return (200, json!({"ready": true}));
    }
    if path.ends_with("/login") {
        let right = body.contains(PASSWORD) || body.contains(&derived());
        let device = json!({"user_id": "@a:b.c", "access_token": TOKEN, "device_id": "FLEETAGENT"});
        return if right { (200, device) } else { (403, json!({"errcode": "M_FORBIDDEN", "error": "wrong password"})) };
    }
    if !head.contains(TOKEN) {
        return (401, json!({"errcode": "M_UNKNOWN_TOKEN", "error": "who are you"}));
    }
    if path.contains("/sync") {
        return (200, json!({"next_batch": "1", "rooms": {"invite": {"!r:b.c": {"invite_state": {"events": []}}}}}));
    }
    if path.contains("/join/") {
        return (200, json!({"room_id": "!r:b.c"}));
    }
    (200, json!({"user_id": "@a:b.c", "device_id": "FLEETAGENT"}))
}

/// Inputs and volume of one agent.
struct World {
    folder: tempfile::TempDir,
    stub: Stub,
}

impl World {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        // OpenClaw's user must be able to get to the workspace.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let world = Self { folder, stub: Stub::start() };
        world.write("bundle/files/SOUL.md", "kind", 0o444);
        let sha256 = sha256_of(&world.path("bundle/files/SOUL.md"));
        let manifest = json!({"schema": 1, "files": [{"path": "SOUL.md", "sha256": sha256, "mode": 0o644}]});
        world.write("bundle/manifest.json", &manifest.to_string(), 0o444);
        world.write("bundle/openclaw.json", "{}", 0o444);
        world.write("secrets/password", PASSWORD, 0o400);
        world
    }

    fn wait_for(&self, path: &str) {
        let until = Instant::now() + Duration::from_secs(60);
        while !self.path(path).exists() {
            assert!(Instant::now() < until, "no {path} after a minute");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.folder.path().join(path)
    }

    fn write(&self, path: &str, text: &str, mode: u32) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    }

    /// Settings of a container `name` on this volume, running `script` as OpenClaw.
    fn container(&self, name: &str, script: &str) -> Container<'_> {
        self.container_with(name, script, &[])
    }

    /// The same with secrets of the operator in its environment.
    fn container_with(&self, name: &str, script: &str, env_secrets: &[&str]) -> Container<'_> {
        let own = rustix::process::getuid().as_raw();
        let uid = if own == 0 { 65534 } else { own };
        let settings = json!({
            "schema": 1, "matrix_id": "@a:b.c", "homeserver": format!("http://127.0.0.1:{}", self.stub.port),
            "command": ["/bin/sh", "-c", script], "uid": uid, "gid": uid,
            "workspace_dir": self.path("data/workspace"), "state_dir": self.path("data/state"),
            "data_dir": self.path("data/fleet"), "bundle_dir": self.path("bundle"),
            "secrets_dir": self.path("secrets"), "directory": self.path("directory"),
            "env_secrets": env_secrets, "gateway_port": self.stub.port, "health_port": free_port(), "tool_port": free_port(), "grace_seconds": 2,
        });
        let file = format!("{name}.json");
        self.write(&file, &settings.to_string(), 0o444);
        Container { world: self, settings: self.path(&file), child: None }
    }
}

fn sha256_of(path: &Path) -> String {
    let output = Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(output.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

struct Container<'a> {
    world: &'a World,
    settings: PathBuf,
    child: Option<Child>,
}

impl Container<'_> {
    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_fleet-agent"));
        command.arg(verb).arg("--settings").arg(&self.settings);
        command
    }

    fn start(mut self) -> Self {
        let child = self.command("run").stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        self.child = Some(child);
        self
    }

    fn state(&self) -> String {
        let output = self.command("health").output().unwrap();
        let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
        assert_eq!(output.status.success(), report["state"] == "healthy", "{report}");
        report["state"].as_str().unwrap_or_default().to_owned()
    }

    fn wait_for(&self, state: &str) {
        let until = Instant::now() + Duration::from_secs(120);
        while self.state() != state {
            assert!(Instant::now() < until, "not {state} but {} after two minutes", self.state());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// SIGTERM, then everything that it printed.
    fn stop(mut self) -> Output {
        let child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        child.wait_with_output().unwrap()
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = self.world;
    }
}

const WAITS: &str = "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done";

#[test]
fn an_agent_comes_up_logs_in_once_and_stops_when_asked() {
    let world = World::new();
    let first = world.container("one", WAITS).start();
    first.wait_for("healthy");
    let config: Value = serde_json::from_slice(&fs::read(world.path("data/state/openclaw.json")).unwrap()).unwrap();
    assert_eq!(config["channels"]["matrix"]["accessToken"], TOKEN);
    let mode = fs::metadata(world.path("data/state/openclaw.json")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    assert_eq!(fs::read_to_string(world.path("data/workspace/SOUL.md")).unwrap(), "kind");
    let output = first.stop();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    for secret in [PASSWORD, TOKEN] {
        let seen = secret.as_bytes().windows(8).any(|part| said.as_bytes().windows(8).any(|window| window == part));
        assert!(!seen, "{said}");
    }
    let second = world.container("two", WAITS).start();
    second.wait_for("healthy");
    second.stop();
    assert_eq!(world.stub.count("/login"), 1, "the second start used the kept login");
    assert!(world.stub.count("/join/!r:b.c") + world.stub.count("/join/%21r") >= 1, "{:?}", world.stub.asked.lock());
}

#[test]
fn of_two_on_one_volume_one_serves_and_the_other_waits_and_says_so() {
    let world = World::new();
    let first = world.container("one", WAITS).start();
    first.wait_for("healthy");
    let second = world.container("two", "touch started-twice; sleep 60").start();
    second.wait_for("waiting-for-lock");
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!((first.state(), second.state()), ("healthy".to_owned(), "waiting-for-lock".to_owned()));
    assert!(!world.path("data/workspace/started-twice").exists());
    first.stop();
    second.wait_for("healthy");
    world.wait_for("data/workspace/started-twice");
}

#[test]
fn an_agent_whose_key_was_not_given_runs_without_it_and_says_which() {
    let world = World::new();
    world.write("secrets/GIVEN_KEY", "abcdefghijklmnop", 0o400);
    world.write("secrets/LATER_KEY", "", 0o400);
    let script = format!("echo later=$LATER_KEY given=${{#GIVEN_KEY}}; touch said; {WAITS}");
    let agent = world.container_with("one", &script, &["GIVEN_KEY", "LATER_KEY"]).start();
    agent.wait_for("healthy");
    // That OpenClaw answers does not say how far it is.
    world.wait_for("data/workspace/said");
    let output = agent.stop();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(out.contains("later=unset given=16"), "{out}");
    assert!(err.contains("was not given") && err.contains("LATER_KEY") && !err.contains("GIVEN_KEY was"), "{err}");
}

/// The same container as ECS starts it: its files are in the bucket, its secrets in variables.
fn delivered(world: &World, hash_of: &str) -> Command {
    let container = world.container("agent", WAITS);
    let mut files = serde_json::Map::new();
    for path in ["agent.json", "bundle/files/SOUL.md", "bundle/manifest.json", "bundle/openclaw.json"] {
        files.insert(path.to_owned(), json!(fs::read_to_string(world.path(path)).unwrap()));
    }
    for path in ["agent.json", "bundle", "secrets"] {
        let path = world.path(path);
        if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
    }
    let document = json!({"schema": 1, "files": files}).to_string();
    let hash = if hash_of.is_empty() { blake3::hash(document.as_bytes()) } else { blake3::hash(hash_of.as_bytes()) };
    *world.stub.object.lock().unwrap() = document;
    let stub = format!("http://127.0.0.1:{}", world.stub.port);
    let mut command = container.command("run");
    command
        .env("FLEET_BUNDLE", "s3://bucket/bundles/a/1.json")
        .env("FLEET_BUNDLE_HASH", hash.to_hex().as_str())
        .env("FLEET_FILE_password", PASSWORD)
        .env("FLEET_FILE_LATER_KEY", "unset")
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ENDPOINT_URL", &stub)
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{stub}/credentials"))
        .env_remove("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI");
    command
}

#[test]
fn on_ecs_files_come_from_the_bucket_and_secrets_from_variables() {
    let world = World::new();
    let mut command = delivered(&world, "");
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let agent = Container { world: &world, settings: world.path("agent.json"), child: Some(child) };
    agent.wait_for("healthy");
    assert_eq!(fs::read_to_string(world.path("data/workspace/SOUL.md")).unwrap(), "kind");
    let mode = |path: &str| fs::metadata(world.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("secrets/password"), mode("agent.json")), (0o400, 0o444));
    assert_eq!(
        fs::read(world.path("secrets/LATER_KEY")).unwrap(),
        b"",
        "what was not given is an empty file, as elsewhere"
    );
    let output = agent.stop();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("files delivered"), "{said}");
    for secret in [PASSWORD, SESSION, "never shown"] {
        assert!(!said.contains(&secret[..8]), "{said}");
    }
}

#[test]
fn with_the_fleet_secret_it_derives_its_own_password_and_logs_in_as_itself() {
    let world = World::new();
    let mut command = delivered(&world, "");
    command.env_remove("FLEET_FILE_password").env("FLEET_SECRET", FLEET_SECRET);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let agent = Container { world: &world, settings: world.path("agent.json"), child: Some(child) };
    agent.wait_for("healthy");
    assert_eq!(fs::read_to_string(world.path("secrets/password")).unwrap(), derived());
    let output = agent.stop();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    for secret in [FLEET_SECRET, &derived()] {
        assert!(!said.contains(&secret[..8]), "{said}");
    }

    let world = World::new();
    let refused =
        delivered(&world, "").env_remove("FLEET_FILE_password").env("FLEET_SECRET", "short").output().unwrap();
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(78) && said.contains("at least 16"), "{said}");
}

#[test]
fn files_that_are_not_what_the_task_definition_names_are_refused() {
    let world = World::new();
    let output = delivered(&world, "something else").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.lines().count() == 1 && said.contains("not what the task definition names"), "{said}");
    assert!(!world.path("agent.json").exists(), "nothing of it was written");
}

#[test]
fn openclaw_that_keeps_failing_ends_the_container_with_its_last_words() {
    let world = World::new();
    let mut container = world.container("one", "echo something is broken; exit 3").start();
    let output = container.child.take().unwrap().wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(70));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("something is broken").count(), 5);
    assert!(String::from_utf8_lossy(&output.stderr).contains("OpenClaw stopped: exit code 3"));
}

#[test]
fn a_missing_input_is_one_clear_line() {
    let world = World::new();
    fs::remove_file(world.path("secrets/password")).unwrap();
    let output = world.container("one", WAITS).command("run").output().unwrap();
    assert_eq!(output.status.code(), Some(78));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.lines().count() == 1 && said.contains("secrets/password"), "{said}");
}
