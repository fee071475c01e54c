//! [`Homeserver`]: a fleet's Synapse as an administrator sees it, past the program under test.
//!
//! It uses the token that the program keeps for the service account, so that looking makes no login of its own.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

/// A homeserver on this machine.
pub struct Homeserver {
    /// Its port on loopback.
    pub port: u16,
    /// An administrator's access token.
    pub token: String,
    /// Matrix server name.
    pub domain: String,
}

impl Homeserver {
    /// One request; status and body.
    ///
    /// # Errors
    /// When nothing answers.
    pub fn request(&self, method: &str, path: &str, body: Option<&Value>) -> std::io::Result<(u16, Value)> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        // HTTP/1.0: the answer ends with the connection and is never in chunks.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: localhost\r\nAuthorization: Bearer {}\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            self.token,
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        let answer = String::from_utf8_lossy(&answer);
        let status = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok((status, serde_json::from_str(body).unwrap_or(Value::Null)))
    }

    /// One request that must work.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Value {
        let (status, answer) = self.request(method, path, body).expect("the homeserver answers");
        assert!(status == 200, "{method} {path}: {status} {answer}");
        answer
    }

    /// Does it serve?
    #[must_use]
    pub fn serves(&self) -> bool {
        matches!(self.request("GET", "/_matrix/client/versions", None), Ok((200, _)))
    }

    /// The room of an alias (`all-employees`), if there is one.
    #[must_use]
    pub fn room(&self, alias: &str) -> Option<String> {
        let path = format!("/_matrix/client/v3/directory/room/%23{alias}%3A{}", self.domain);
        let (status, answer) = self.request("GET", &path, None).expect("the homeserver answers");
        (status == 200).then(|| answer["room_id"].as_str().unwrap_or_default().to_owned())
    }

    /// Every room: its id with name, alias and number of members here.
    #[must_use]
    pub fn rooms(&self) -> BTreeMap<String, Value> {
        let answer = self.ask("GET", "/_synapse/admin/v1/rooms?limit=1000", None);
        let rooms = answer["rooms"].as_array().cloned().unwrap_or_default();
        rooms.into_iter().map(|room| (room["room_id"].as_str().unwrap_or_default().to_owned(), room)).collect()
    }

    /// Members of a room, in order.
    #[must_use]
    pub fn members(&self, room: &str) -> Vec<String> {
        let answer = self.ask("GET", &format!("/_synapse/admin/v1/rooms/{}/members", escaped(room)), None);
        let members = answer["members"].as_array().cloned().unwrap_or_default();
        let mut members: Vec<String> = members.iter().filter_map(|m| m.as_str().map(str::to_owned)).collect();
        members.sort();
        members
    }

    /// Every account with its devices and when each was last used to sign in: what a login would change.
    #[must_use]
    pub fn devices(&self) -> BTreeMap<String, Vec<String>> {
        let answer = self.ask("GET", "/_synapse/admin/v2/users?limit=1000&guests=false&deactivated=true", None);
        let users = answer["users"].as_array().cloned().unwrap_or_default();
        let names = users.iter().filter_map(|user| user["name"].as_str().map(str::to_owned));
        names.map(|name| (name.clone(), self.devices_of(&name))).collect()
    }

    fn devices_of(&self, user: &str) -> Vec<String> {
        let answer = self.ask("GET", &format!("/_synapse/admin/v2/users/{}/devices", escaped(user)), None);
        let devices = answer["devices"].as_array().cloned().unwrap_or_default();
        let mut devices: Vec<String> =
            devices.iter().filter_map(|device| device["device_id"].as_str().map(str::to_owned)).collect();
        devices.sort();
        devices
    }

    /// Deletes a room for good, as an administrator would.
    pub fn delete_room(&self, room: &str) {
        self.ask("DELETE", &format!("/_synapse/admin/v1/rooms/{}", escaped(room)), Some(&json!({"purge": true})));
    }

    /// Somebody, on a session of their own.
    #[must_use]
    pub fn signed_in_as(&self, user: &str) -> Self {
        let answer = self.ask("POST", &format!("/_synapse/admin/v1/users/{}/login", escaped(user)), Some(&json!({})));
        let token = answer["access_token"].as_str().expect("a token").to_owned();
        Self { port: self.port, token, domain: self.domain.clone() }
    }

    /// Leaves a room.
    pub fn leave(&self, room: &str) {
        self.ask("POST", &format!("/_matrix/client/v3/rooms/{}/leave", escaped(room)), Some(&json!({})));
    }

    /// Removes a member from a room.
    pub fn kick(&self, room: &str, user: &str) {
        let path = format!("/_matrix/client/v3/rooms/{}/kick", escaped(room));
        self.ask("POST", &path, Some(&json!({"user_id": user})));
    }
}

/// A path segment with what Matrix ids hold beside letters written as URLs want it.
fn escaped(text: &str) -> String {
    text.replace('!', "%21").replace(':', "%3A").replace('@', "%40").replace('#', "%23")
}
