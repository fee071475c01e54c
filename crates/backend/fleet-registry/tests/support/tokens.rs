//! A token server of one test, whose tokens a real registry checks: signed with a key that `openssl` made.

#![allow(dead_code, reason = "shared by several test binaries")]

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use serde_json::json;

use crate::{
    certificates::self_signed,
    docker_registry::{DockerRegistry, PASSWORD, USER},
};

pub struct Tokens {
    asked: Arc<Mutex<Vec<String>>>,
    /// Seconds that the next tokens are valid for as the registry sees it; negative: already over.
    lasts: Arc<Mutex<i64>>,
}

impl Tokens {
    /// A registry that wants tokens, and the server that gives them to those who know the password.
    pub fn start() -> (DockerRegistry, Self) {
        let folder = tempfile::tempdir().unwrap();
        let certificate = self_signed(folder.path(), "tokens");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let auth = format!(
            "auth: {{token: {{realm: 'http://{}/token', service: test, issuer: tokens, rootcertbundle: {}}}}}",
            listener.local_addr().unwrap(),
            certificate.display(),
        );
        let tokens = Self { asked: Arc::default(), lasts: Arc::new(Mutex::new(300)) };
        let key = folder.path().to_owned();
        let (asked, lasts) = (Arc::clone(&tokens.asked), Arc::clone(&tokens.lasts));
        thread::spawn(move || {
            for stream in listener.incoming() {
                let stream = stream.unwrap();
                let lasts = *lasts.lock().unwrap();
                serve(&stream, &key, &asked, lasts);
            }
        });
        (DockerRegistry::with(folder, &auth, ""), tokens)
    }

    /// Paths with queries, decoded.
    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }

    pub fn lasting(&self, seconds: i64) {
        *self.lasts.lock().unwrap() = seconds;
    }
}

fn serve(stream: &TcpStream, key: &Path, asked: &Mutex<Vec<String>>, lasts: i64) {
    let mut from = BufReader::new(stream);
    let mut head = Vec::new();
    loop {
        let mut line = String::new();
        match from.read_line(&mut line) {
            Ok(read) if read > 2 => head.push(line.trim_end().to_owned()),
            Ok(2) => break,
            _ => return,
        }
    }
    let length = head.iter().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    let mut form = vec![0; length.unwrap_or(0)];
    from.read_exact(&mut form).unwrap();
    // A question is in the address, an exchange of an identity token in the body.
    let url = url::Url::parse(&format!("http://x{}", head[0].split(' ').nth(1).unwrap())).unwrap();
    let pairs = url.query_pairs().chain(url::form_urlencoded::parse(&form));
    let pairs: Vec<(String, String)> = pairs.map(|(key, value)| (key.into_owned(), value.into_owned())).collect();
    let values =
        |name: &str| pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| value.clone()).collect::<Vec<_>>();
    let scopes: Vec<String> = values("scope").iter().flat_map(|scope| scope.split(' ')).map(str::to_owned).collect();
    asked.lock().unwrap().push(scopes.join(" "));
    let basic = format!("authorization: Basic {}", STANDARD.encode(format!("{USER}:{PASSWORD}")));
    let known = head.iter().any(|line| line.eq_ignore_ascii_case(&basic)) || values("refresh_token") == [PASSWORD];
    let (status, body) = if known {
        // The registry's clock is the machine's; the client's may be another.
        (200, json!({"token": token(key, &scopes, lasts), "expires_in": 300}).to_string())
    } else {
        (401, json!({"errors": [{"code": "UNAUTHORIZED", "message": "incorrect username or password"}]}).to_string())
    };
    let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len());
    let mut out = stream;
    let _ = out.write_all(head.as_bytes());
}

fn token(folder: &Path, scopes: &[String], lasts: i64) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
    let pem = fs::read_to_string(folder.join("tokens.pem")).unwrap();
    let der: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let access: Vec<_> = scopes
        .iter()
        .map(|scope| {
            let (name, actions) = scope.strip_prefix("repository:").unwrap().rsplit_once(':').unwrap();
            json!({"type": "repository", "name": name, "actions": actions.split(',').collect::<Vec<_>>()})
        })
        .collect();
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [der]});
    let claims = json!({
        "iss": "tokens", "sub": USER, "aud": "test", "jti": "1", "access": access,
        "iat": now - 3600, "nbf": now - 3600, "exp": now + lasts,
    });
    let part = |value: &serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let text = format!("{}.{}", part(&header), part(&claims));
    let mut signing = Command::new("openssl")
        .args(["dgst", "-sha256", "-sign"])
        .arg(folder.join("tokens.key"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    signing.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let signed = signing.wait_with_output().unwrap();
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signed.stdout))
}
