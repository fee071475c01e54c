//! A server on loopback that answers as it was told.

use std::{
    collections::{BTreeMap, VecDeque},
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

/// Status and body.
pub type Answer = (u16, Vec<u8>);

#[derive(Default)]
struct World {
    answers: BTreeMap<String, VecDeque<Answer>>,
    asked: Vec<String>,
}

/// Answers by path; several answers for one path are given in turn, the last one for ever. Unknown paths are 404.
#[derive(Clone)]
pub struct Server {
    pub host: String,
    world: Arc<Mutex<World>>,
}

impl Server {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let world = Arc::<Mutex<World>>::default();
        let server = Self { host, world: Arc::clone(&world) };
        thread::spawn(move || {
            for stream in listener.incoming() {
                let world = Arc::clone(&world);
                thread::spawn(move || serve(&stream.unwrap(), &world));
            }
        });
        server
    }

    pub fn on(&self, path: &str, answers: impl IntoIterator<Item = Answer>) {
        self.world.lock().unwrap().answers.insert(path.to_owned(), answers.into_iter().collect());
    }

    pub fn gives(&self, path: &str, body: impl Into<Vec<u8>>) {
        self.on(path, [(200, body.into())]);
    }

    #[allow(dead_code, reason = "shared by several test binaries")]
    pub fn asked(&self) -> Vec<String> {
        self.world.lock().unwrap().asked.clone()
    }
}

/// One request a connection is enough here.
fn serve(stream: &TcpStream, world: &Mutex<World>) {
    let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    while lines.next().is_some_and(|line| !line.is_empty()) {}
    let path = request.split_whitespace().nth(1).unwrap_or_default().to_owned();
    let (status, body) = {
        let mut world = world.lock().unwrap();
        world.asked.push(request.clone());
        let answer = world.answers.get_mut(&path).and_then(|answers| match answers.len() {
            0 | 1 => answers.front().cloned(),
            _ => answers.pop_front(),
        });
        answer.unwrap_or((404, Vec::new()))
    };
    let head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", body.len());
    let mut out = stream;
    // The client may have hung up; then it knows enough.
    let _ = out.write_all(head.as_bytes()).and_then(|()| out.write_all(&body));
}
