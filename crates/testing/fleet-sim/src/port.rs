//! [`free_port`].

use std::{
    net::{TcpListener, TcpStream},
    thread::sleep,
    time::Duration,
};

/// A port of loopback that nobody uses, below the range that outgoing connections take theirs from (32768 on Linux,
/// `net.ipv4.ip_local_port_range`): else whoever asks a server that is not up yet may by chance connect to itself and
/// take its port for good.
#[must_use]
pub fn free_port() -> u16 {
    loop {
        let port = fastrand::u16(12_000..32_000);
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            until_closed(port);
            return port;
        }
    }
}

/// Waits until connections to a port of loopback are refused, once its listener is gone: a program that another thread is just
/// starting has all that is open here until it runs, and listens as long.
pub fn until_closed(port: u16) {
    while TcpStream::connect(("127.0.0.1", port)).is_ok() {
        sleep(Duration::from_millis(1));
    }
}
