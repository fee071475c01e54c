//! An HTTP proxy of one test between a client and a registry: counts, refuses, and breaks off as it was told.

#![allow(dead_code, reason = "shared by several test binaries")]

use std::{
    io::{self, BufRead, BufReader, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

/// What happens to a request instead of being passed on.
#[derive(Clone, Debug)]
pub enum Fault {
    /// It is answered: status and more headers (each ending in a line feed).
    Answer(u16, &'static str),
    /// After so many bytes of its body both connections are closed.
    Cut(u64),
}

/// When a process dies at a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Nothing of the request arrives.
    Before,
    /// It is answered, and nobody hears the answer.
    After,
}

type Hook = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    /// The start of a request line, and what happens to the next request that has it.
    faults: Vec<(String, Fault)>,
    asked: Vec<String>,
    connections: usize,
    /// Bytes of bodies that went up, and what happens when they are so many.
    up: u64,
    hook: Option<(u64, Hook)>,
    /// At this request, counted from the first, this process is killed.
    kill: Option<(usize, u32, Moment)>,
}

/// Listens on a port of its own.
#[derive(Clone)]
pub struct Proxy {
    pub host: String,
    upstream: String,
    state: Arc<Mutex<State>>,
}

struct Head {
    line: String,
    raw: Vec<u8>,
    length: u64,
}

impl Proxy {
    pub fn to(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let proxy = Self { host, upstream: upstream.to_owned(), state: Arc::default() };
        let own = proxy.clone();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let own = own.clone();
                own.state.lock().unwrap().connections += 1;
                // A connection that ends in an error has ended.
                thread::spawn(move || drop(own.serve(stream.unwrap())));
            }
        });
        proxy
    }

    /// The next request that starts so meets this; the one after it meets the next fault for the same start.
    pub fn fails(&self, start: &str, fault: Fault) {
        self.state.lock().unwrap().faults.push((start.to_owned(), fault));
    }

    /// Calls `hook` once so many bytes of bodies went up from now on.
    pub fn after_bytes(&self, bytes: u64, hook: impl FnOnce() + Send + 'static) {
        let mut state = self.state.lock().unwrap();
        state.hook = Some((state.up.saturating_add(bytes), Box::new(hook)));
    }

    /// Kills nobody any more: who ended before its request came.
    pub fn spares(&self) {
        self.state.lock().unwrap().kill = None;
    }

    /// Kills a process as `kill -9` does at the request with this number, counted from now on.
    pub fn kills(&self, process: u32, nth: usize, moment: Moment) {
        let mut state = self.state.lock().unwrap();
        state.kill = Some((state.asked.len() + nth, process, moment));
    }

    pub fn asked(&self) -> Vec<String> {
        self.state.lock().unwrap().asked.clone()
    }

    pub fn connections(&self) -> usize {
        self.state.lock().unwrap().connections
    }

    fn serve(&self, client: TcpStream) -> io::Result<()> {
        client.set_nodelay(true)?;
        let mut from_client = BufReader::new(client.try_clone()?);
        let mut upstream: Option<(BufReader<TcpStream>, TcpStream)> = None;
        while let Some(request) = head(&mut from_client)? {
            match self.fault(&request.line) {
                Some(Fault::Answer(status, headers)) => {
                    io::copy(&mut (&mut from_client).take(request.length), &mut io::sink())?;
                    let headers = headers.replace('\n', "\r\n");
                    write!(&client, "HTTP/1.1 {status} Said\r\n{headers}Content-Length: 0\r\n\r\n")?;
                    continue;
                }
                Some(Fault::Cut(bytes)) => {
                    let mut server = TcpStream::connect(&self.upstream)?;
                    server.write_all(&request.raw)?;
                    io::copy(&mut (&mut from_client).take(bytes), &mut server)?;
                    server.shutdown(Shutdown::Both)?;
                    return client.shutdown(Shutdown::Both);
                }
                None => {}
            }
            let dies = self.dies();
            if let Some((process, Moment::Before)) = dies {
                kill(process)?;
                return client.shutdown(Shutdown::Both);
            }
            if upstream.is_none() {
                let server = TcpStream::connect(&self.upstream)?;
                server.set_nodelay(true)?;
                upstream = Some((BufReader::new(server.try_clone()?), server));
            }
            let Some((from_server, server)) = &mut upstream else { return Ok(()) };
            server.write_all(&request.raw)?;
            self.pass_up(&mut from_client, server, request.length)?;
            let Some(answer) = head(from_server)? else { return client.shutdown(Shutdown::Both) };
            if let Some((process, _)) = dies {
                kill(process)?;
                return client.shutdown(Shutdown::Both);
            }
            (&client).write_all(&answer.raw)?;
            let bodiless = request.line.starts_with("HEAD ");
            io::copy(&mut from_server.take(if bodiless { 0 } else { answer.length }), &mut &client)?;
        }
        Ok(())
    }

    fn fault(&self, line: &str) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        state.asked.push(line.to_owned());
        let at = state.faults.iter().position(|(start, _)| line.starts_with(start))?;
        Some(state.faults.remove(at).1)
    }

    /// Who dies at the request that was just counted.
    fn dies(&self) -> Option<(u32, Moment)> {
        let mut state = self.state.lock().unwrap();
        let asked = state.asked.len();
        state.kill.take_if(|(at, ..)| *at <= asked).map(|(_, process, moment)| (process, moment))
    }

    fn pass_up(&self, from: &mut impl Read, to: &mut impl Write, length: u64) -> io::Result<()> {
        let mut buffer = vec![0; 16 << 10];
        let mut left = length;
        while left > 0 {
            let part = buffer.len().min(left as usize);
            let read = from.read(&mut buffer[..part])?;
            if read == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            to.write_all(&buffer[..read])?;
            left -= read as u64;
            let mut state = self.state.lock().unwrap();
            state.up += read as u64;
            let up = state.up;
            let hook = state.hook.take_if(|(at, _)| *at <= up);
            drop(state);
            if let Some((_, hook)) = hook {
                hook();
            }
        }
        Ok(())
    }
}

fn kill(process: u32) -> io::Result<()> {
    Command::new("kill").args(["-9", &process.to_string()]).status().map(drop)
}

/// A request's or answer's head as it came; `None` at the end of the connection.
fn head(from: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut head = Head { line: String::new(), raw: Vec::new(), length: 0 };
    loop {
        let mut line = Vec::new();
        if from.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let text = String::from_utf8_lossy(&line).trim_end().to_owned();
        head.raw.extend_from_slice(&line);
        if head.line.is_empty() {
            head.line.clone_from(&text);
        }
        if let Some((name, value)) = text.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            head.length = value.trim().parse().map_err(io::Error::other)?;
        }
        if text.is_empty() {
            return Ok(Some(head));
        }
    }
}
