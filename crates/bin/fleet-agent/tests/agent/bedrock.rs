//! Models of Amazon Bedrock by the role of a task: the built program between somebody who asks on loopback, as OpenClaw does,
//! and a stand-in for ECS and for Bedrock that makes each signature again with AWS's own signer and answers only where it is
//! the same.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, SystemTime},
};

use aws_credential_types::Credentials;
use aws_sigv4::{
    http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign},
    sign::v4,
};
use fleet_sim::{free_port, until_closed};
use serde_json::{Value, json};

use super::{SESSION, WAITS, World};

const SECRET: &str = "the other half of a key, never shown";
const QUESTION: &str = r#"{"model":"us.anthropic.claude","stream":true}"#;

/// A head, and the body that followed it.
struct Message {
    first: String,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

fn read(stream: &TcpStream) -> Option<(Message, BufReader<TcpStream>)> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut head = String::new();
    while reader.read_line(&mut head).is_ok_and(|read| read > 0) && !head.ends_with("\r\n\r\n") {}
    let mut lines = head.lines();
    let first = lines.next()?.to_owned();
    let headers: BTreeMap<String, String> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((Message { first, headers, body }, reader))
}

/// What AWS's signer makes of a request as it came, at the moment that it names; `None` for no moment of these seconds.
fn signature(asked: &Message, host: &str, key: &str) -> Option<String> {
    let mut settings = SigningSettings::default();
    settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    let identity = Credentials::new(key, SECRET, Some(SESSION.to_owned()), None, "test").into();
    let url = format!("http://{host}{}", asked.first.split(' ').nth(1)?);
    let passed = ["accept", "anthropic-beta", "anthropic-version", "content-type"];
    let headers = passed.iter().filter_map(|name| Some((*name, asked.headers.get(*name)?.as_str())));
    let headers: Vec<(&str, &str)> = headers.collect();
    (0..30).find_map(|seconds| {
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region("us-east-1")
            .name("bedrock")
            .time(SystemTime::now() - Duration::from_secs(seconds))
            .settings(settings.clone())
            .build()
            .unwrap()
            .into();
        let body = SignableBody::Bytes(&asked.body);
        let signable = SignableRequest::new("POST", url.as_str(), headers.iter().copied(), body).unwrap();
        let (made, signature) = sign(signable, &parameters).unwrap().into_parts();
        let date = made.headers().find(|(name, _)| *name == "x-amz-date").map(|(_, date)| date.to_owned());
        (date.as_ref() == asked.headers.get("x-amz-date")).then_some(signature)
    })
}

/// ECS, which gives another key each time, and Bedrock, which takes the second and all later ones.
struct Aws {
    port: u16,
    given: Arc<AtomicUsize>,
    asked: Arc<Mutex<Vec<Arc<Message>>>>,
    closed: Arc<AtomicBool>,
    /// Lets the second half of an answer go.
    go: mpsc::Sender<()>,
    listens: JoinHandle<()>,
}

impl Aws {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (go, may_go) = mpsc::channel();
        let (given, asked, closed) = (Arc::default(), Arc::default(), Arc::default());
        let seen = (Arc::clone(&given), Arc::clone(&asked), Arc::clone(&closed));
        let listens = std::thread::spawn(move || listen(&listener, &seen, &may_go));
        Self { port, given, asked, closed, go, listens }
    }

    /// Listens no longer once it returns: who connects is refused, and not left waiting in a queue that nobody serves.
    fn close(self) {
        self.closed.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        self.listens.join().unwrap();
        until_closed(self.port);
    }
}

type Seen = (Arc<AtomicUsize>, Arc<Mutex<Vec<Arc<Message>>>>, Arc<AtomicBool>);

fn listen(listener: &TcpListener, (given, asked, closed): &Seen, may_go: &mpsc::Receiver<()>) {
    let host = listener.local_addr().unwrap().to_string();
    for stream in listener.incoming().flatten() {
        if closed.load(Ordering::SeqCst) {
            return;
        }
        let Some((message, _)) = read(&stream) else { continue };
        if message.first.starts_with("GET /credentials ") {
            // Those of the first two are about to end.
            let number = given.fetch_add(1, Ordering::SeqCst) + 1;
            let ends = if number <= 2 { "2020-01-01T00:00:00Z" } else { "2090-01-01T00:00:00Z" };
            let said = json!({"AccessKeyId": format!("AKID{number}"), "SecretAccessKey": SECRET, "Token": SESSION, "Expiration": ends});
            answer(&stream, 200, &said.to_string());
        } else {
            let message = Arc::new(message);
            asked.lock().unwrap().push(Arc::clone(&message));
            bedrock(&stream, &message, &host, may_go);
        }
    }
}

fn answer(mut stream: &TcpStream, status: u16, body: &str) {
    let length = body.len();
    let head = format!("HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n");
    let _ = write!(stream, "{head}connection: close\r\n\r\n{body}");
}

fn bedrock(mut stream: &TcpStream, asked: &Message, host: &str, may_go: &mpsc::Receiver<()>) {
    let authorization = asked.headers.get("authorization").cloned().unwrap_or_default();
    let key = authorization.split(['=', '/']).nth(1).unwrap_or_default();
    let right = signature(asked, host, key).is_some_and(|made| authorization.ends_with(&format!("Signature={made}")));
    if !right || asked.headers.get("x-amz-security-token").map(String::as_str) != Some(SESSION) {
        return answer(stream, 400, r#"{"message":"the signature is another one"}"#);
    }
    if key == "AKID1" {
        return answer(stream, 403, r#"{"message":"The security token included in the request is expired"}"#);
    }
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    let _ = write!(stream, "{head}b\r\ndata: one\n\n\r\n");
    let _ = may_go.recv_timeout(Duration::from_secs(60));
    let _ = write!(stream, "b\r\ndata: two\n\n\r\n0\r\n\r\n");
}

/// Asks as OpenClaw does, with a key that is none.
fn ask(port: u16, path: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    let length = QUESTION.len();
    let key = "authorization: Bearer by-role\r\nx-api-key: by-role\r\nanthropic-version: 2023-06-01\r\n";
    let head = format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n{key}");
    write!(stream, "{head}connection: close\r\ncontent-length: {length}\r\n\r\n{QUESTION}").unwrap();
    BufReader::new(stream)
}

/// Reads until a text came; everything so far.
fn until(reader: &mut BufReader<TcpStream>, text: &str) -> String {
    let mut all = String::new();
    while !all.contains(text) && reader.read_line(&mut all).unwrap() > 0 {}
    assert!(all.contains(text), "{text} is not in {all}");
    all
}

fn whole(mut reader: BufReader<TcpStream>) -> String {
    let mut all = String::new();
    reader.read_to_string(&mut all).unwrap();
    all
}

#[test]
fn a_model_is_asked_by_the_role_of_the_task_and_its_answer_comes_as_it_is_said() {
    let (world, aws, port) = (World::new(), Aws::start(), free_port());
    let mut agent = world.container("agent", &format!("env; {WAITS}"));
    let mut settings: Value = serde_json::from_slice(&std::fs::read(&agent.settings).unwrap()).unwrap();
    settings["bedrock"] = json!({"port": port, "regions": ["us-east-1"]});
    world.write("agent.json", &settings.to_string(), 0o444);
    let mut command: Command = agent.command("run");
    let host = format!("127.0.0.1:{}", aws.port);
    let here = format!("http://{host}");
    command
        .env_remove("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI")
        .env("AWS_CONTAINER_CREDENTIALS_FULL_URI", format!("{here}/credentials"))
        .env("AWS_REGION", "eu-west-1")
        .env("AWS_ENDPOINT_URL_BEDROCK_RUNTIME", &here);
    agent.child = Some(command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap());
    agent.wait_for("healthy");

    // The first credentials have run out: new ones are asked for, and who asks sees nothing of it. What is said first comes
    // before the rest was said.
    let mut reader = ask(port, "/us-east-1/anthropic/v1/messages?beta=true");
    let begun = until(&mut reader, "data: one");
    assert!(begun.starts_with("HTTP/1.1 200") && begun.contains("content-type: text/event-stream"), "{begun}");
    aws.go.send(()).unwrap();
    until(&mut reader, "data: two");
    assert_eq!(aws.given.load(Ordering::SeqCst), 2);

    // Those of the second time end soon, too; those of the third are used again.
    for _ in 0..2 {
        aws.go.send(()).unwrap();
        assert!(whole(ask(port, "/us-east-1/openai/v1/chat/completions")).contains("data: two"));
    }
    assert_eq!(aws.given.load(Ordering::SeqCst), 3);
    let asked = std::mem::take(&mut *aws.asked.lock().unwrap());
    let lines: Vec<&str> = asked.iter().map(|asked| asked.first.as_str()).collect();
    let (messages, chat) =
        ("POST /anthropic/v1/messages?beta=true HTTP/1.1", "POST /openai/v1/chat/completions HTTP/1.1");
    assert_eq!(lines, [messages, messages, chat, chat]);
    assert!(asked.iter().all(|asked| asked.body == QUESTION.as_bytes() && !asked.headers.contains_key("x-api-key")));

    // Elsewhere nobody is asked.
    for path in
        ["/eu-west-1/anthropic/v1/messages", "/us-east-1/model/m/invoke", "/us-east-1/anthropic/v1/messages/../x"]
    {
        let answer = whole(ask(port, path));
        assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("declared models"), "{answer}");
    }
    aws.close();
    let answer = whole(ask(port, "/us-east-1/anthropic/v1/messages"));
    let why = format!("Amazon Bedrock in us-east-1 cannot be asked: cannot connect to {host}");
    assert!(answer.starts_with("HTTP/1.1 502") && answer.contains(&why), "{answer}");

    let output = agent.stop();
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(said.contains("a model cannot be asked"), "{said}");
    for secret in [&SECRET[..10], &SESSION[..10], "AKID", "AWS_", "/credentials"] {
        assert!(!said.contains(secret), "{secret}: {said}");
    }
}

#[test]
fn a_task_without_a_role_says_so_at_once() {
    let world = World::new();
    let agent = world.container("agent", WAITS);
    let mut settings: Value = serde_json::from_slice(&std::fs::read(&agent.settings).unwrap()).unwrap();
    settings["bedrock"] = json!({"port": free_port(), "regions": ["us-east-1"]});
    world.write("agent.json", &settings.to_string(), 0o444);
    let mut command = agent.command("run");
    for variable in ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"] {
        command.env_remove(variable);
    }
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(78) && said.contains("the task has no role"), "{said}");
}
