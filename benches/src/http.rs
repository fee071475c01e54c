//! [`Connection`]: HTTP/1.1 over one kept connection to a registry of this machine, written as short as it can be: the
//! floor must not pay for a client.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::TcpStream,
};

use anyhow::{Context as _, ensure};
use fleet_oci::Digest;

/// One connection.
pub struct Connection {
    host: String,
    stream: BufReader<TcpStream>,
}

/// What came back.
pub struct Answer {
    /// Status.
    pub status: u16,
    /// `Location`.
    pub location: String,
    /// `Docker-Content-Digest`.
    pub digest: String,
    /// The body.
    pub body: Vec<u8>,
}

impl Connection {
    /// Connects to `127.0.0.1:5000`.
    ///
    /// # Errors
    /// When nobody listens.
    pub fn open(host: &str) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(host).with_context(|| format!("cannot reach {host}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { host: host.to_owned(), stream: BufReader::new(stream) })
    }

    /// One request; the body is `length` bytes of `body`.
    ///
    /// # Errors
    /// When the connection breaks or the answer is not HTTP.
    pub fn ask(&mut self, method: &str, path: &str, kind: &str, body: (u64, &mut dyn Read)) -> anyhow::Result<Answer> {
        let (length, body) = body;
        let accept = "application/vnd.oci.image.manifest.v1+json";
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nAccept: {accept}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n",
            self.host
        );
        let socket = self.stream.get_mut();
        socket.write_all(head.as_bytes())?;
        let mut buffer = vec![0; 256 * 1024];
        let mut left = length;
        while left > 0 {
            let most = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            body.read_exact(&mut buffer[..most])?;
            socket.write_all(&buffer[..most])?;
            left -= most as u64;
        }
        self.answer(method)
    }

    fn answer(&mut self, method: &str) -> anyhow::Result<Answer> {
        let mut line = String::new();
        self.stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|word| word.parse().ok()).context("not an HTTP answer")?;
        let (mut location, mut digest, mut length) = (String::new(), String::new(), 0);
        loop {
            line.clear();
            self.stream.read_line(&mut line)?;
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            if name.eq_ignore_ascii_case("location") {
                location = value.split_once("/v2/").map_or(value.to_owned(), |(_, path)| format!("/v2/{path}"));
            } else if name.eq_ignore_ascii_case("docker-content-digest") {
                value.clone_into(&mut digest);
            } else if name.eq_ignore_ascii_case("content-length") && method != "HEAD" {
                length = value.parse()?;
            }
        }
        let mut body = Vec::new();
        Read::take(&mut self.stream, length).read_to_end(&mut body)?;
        Ok(Answer { status, location, digest, body })
    }

    /// Whether something is there: one HEAD.
    ///
    /// # Errors
    /// When the connection breaks.
    pub fn has(&mut self, path: &str) -> anyhow::Result<bool> {
        Ok(self.ask("HEAD", path, "text/plain", (0, &mut std::io::empty()))?.status == 200)
    }

    /// A blob: POST and PUT.
    ///
    /// # Errors
    /// When the registry does not take it.
    pub fn upload(&mut self, repository: &str, digest: &Digest, body: (u64, &mut dyn Read)) -> anyhow::Result<()> {
        let uploads = format!("/v2/{repository}/blobs/uploads/");
        let started = self.ask("POST", &uploads, "text/plain", (0, &mut std::io::empty()))?;
        let join = if started.location.contains('?') { '&' } else { '?' };
        let place = format!("{}{join}digest={digest}", started.location);
        let done = self.ask("PUT", &place, "application/octet-stream", body)?;
        ensure!(done.status == 201, "the registry answers {} to a blob", done.status);
        Ok(())
    }
}
