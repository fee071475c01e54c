//! Synapse's admin API, as far as it is used: plain shapes after <https://element-hq.github.io/synapse/latest/usage/administration/admin_api/>.

use fleet_secret::Secret;
use hmac::{Hmac, KeyInit, Mac};
use http::Method;
use ruma::{OwnedRoomId, OwnedUserId, RoomId, UserId, events::AnyStateEvent, serde::Raw};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha1::Sha1;

use crate::{error::CallError, http::Caller};

/// Rows of a list that are asked for at a time.
const PAGE: usize = 1000;
/// How long a borrowed token is good, so that a killed run leaves none behind for long.
const BORROWED_MILLIS: u128 = 15 * 60 * 1000;
const NOTHING: Option<&()> = None;

/// An account as the list of accounts has it.
#[derive(Debug, Deserialize)]
pub struct Listed {
    /// `@id:domain`.
    pub name: String,
    /// Display name.
    pub displayname: Option<String>,
}

/// Every account that is neither a guest nor deactivated.
/// [List accounts](https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html#list-accounts-v2).
pub async fn users(service: &Caller<'_>) -> Result<Vec<Listed>, CallError> {
    #[derive(Deserialize)]
    struct Page {
        users: Vec<Listed>,
        next_token: Option<String>,
    }
    let mut all = Vec::new();
    let mut from = "0".to_owned();
    loop {
        let path =
            format!("/_synapse/admin/v2/users?from={from}&limit={PAGE}&guests=false&deactivated=false&order_by=name");
        let page: Page = service.admin(Method::GET, &path, NOTHING).await?;
        all.extend(page.users);
        match page.next_token {
            Some(next) => from = next,
            None => return Ok(all),
        }
    }
}

/// An account as asked for by name.
#[derive(Debug, Deserialize)]
pub struct Account {
    /// Display name.
    pub displayname: Option<String>,
    /// Nobody can use it.
    #[serde(default)]
    pub deactivated: bool,
}

/// One account, or `None` where there is none.
/// [Query user account](https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html#query-user-account).
pub async fn user(service: &Caller<'_>, user: &UserId) -> Result<Option<Account>, CallError> {
    let path = format!("/_synapse/admin/v2/users/{}", escaped(user.as_str()));
    match service.admin(Method::GET, &path, NOTHING).await {
        Ok(account) => Ok(Some(account)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The rooms that an account is in.
/// [Joined rooms](https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html#list-joined-rooms-of-a-user).
pub async fn joined_rooms(service: &Caller<'_>, user: &UserId) -> Result<Vec<OwnedRoomId>, CallError> {
    #[derive(Deserialize)]
    struct Answer {
        joined_rooms: Vec<OwnedRoomId>,
    }
    let path = format!("/_synapse/admin/v1/users/{}/joined_rooms", escaped(user.as_str()));
    Ok(service.admin::<Answer>(Method::GET, &path, NOTHING).await?.joined_rooms)
}

/// A room as the list of rooms has it.
#[derive(Debug, Deserialize)]
pub struct ListedRoom {
    /// Room id.
    pub room_id: OwnedRoomId,
    /// Canonical alias, `#alias:domain`.
    pub canonical_alias: Option<String>,
    /// Name.
    pub name: Option<String>,
    /// How many are in it.
    pub joined_members: u64,
}

/// Every room.
/// [List rooms](https://element-hq.github.io/synapse/latest/admin_api/rooms.html#list-room-api).
pub async fn rooms(service: &Caller<'_>) -> Result<Vec<ListedRoom>, CallError> {
    #[derive(Deserialize)]
    struct Page {
        rooms: Vec<ListedRoom>,
        next_batch: Option<u64>,
    }
    let mut all = Vec::new();
    let mut from = 0;
    loop {
        let path = format!("/_synapse/admin/v1/rooms?from={from}&limit={PAGE}&order_by=name");
        let page: Page = service.admin(Method::GET, &path, NOTHING).await?;
        all.extend(page.rooms);
        match page.next_batch {
            Some(next) => from = next,
            None => return Ok(all),
        }
    }
}

/// The state of any room, joined or not.
/// [Room state](https://element-hq.github.io/synapse/latest/admin_api/rooms.html#room-state-api).
pub async fn state(service: &Caller<'_>, room: &RoomId) -> Result<Vec<Raw<AnyStateEvent>>, CallError> {
    #[derive(Deserialize)]
    struct State {
        state: Vec<Raw<AnyStateEvent>>,
    }
    let path = format!("/_synapse/admin/v1/rooms/{}/state", escaped(room.as_str()));
    Ok(service.admin::<State>(Method::GET, &path, NOTHING).await?.state)
}

/// The global account data of an account, by type.
/// [Account data](https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html#account-data).
pub async fn account_data(service: &Caller<'_>, user: &UserId) -> Result<Map<String, Value>, CallError> {
    #[derive(Deserialize)]
    struct Answer {
        account_data: Data,
    }
    #[derive(Deserialize)]
    struct Data {
        global: Map<String, Value>,
    }
    let path = format!("/_synapse/admin/v1/users/{}/accountdata", escaped(user.as_str()));
    Ok(service.admin::<Answer>(Method::GET, &path, NOTHING).await?.account_data.global)
}

/// What is to be set of an account; absent fields stay as they are.
#[derive(Default, Serialize)]
pub struct UserChange<'a> {
    /// Password.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<&'a str>,
    /// With a new password: end every session.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logout_devices: Option<bool>,
    /// Display name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub displayname: Option<&'a str>,
    /// `false` wakes an account that was deactivated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deactivated: Option<bool>,
}

/// Makes or changes an account.
/// [Create or modify account](https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html#create-or-modify-account).
pub async fn put_user(service: &Caller<'_>, user: &UserId, change: &UserChange<'_>) -> Result<(), CallError> {
    let path = format!("/_synapse/admin/v2/users/{}", escaped(user.as_str()));
    service.admin::<Value>(Method::PUT, &path, Some(change)).await.map(drop)
}

/// A token of another account that makes no device and ends by itself.
/// [Login as a user](https://element-hq.github.io/synapse/latest/admin_api/user_admin_api.html#login-as-a-user).
pub async fn borrow_identity(service: &Caller<'_>, user: &UserId) -> Result<Secret, CallError> {
    #[derive(Serialize)]
    struct Until {
        valid_until_ms: u64,
    }
    #[derive(Deserialize)]
    struct Answer {
        access_token: String,
    }
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let until = Until { valid_until_ms: u64::try_from(since.as_millis() + BORROWED_MILLIS).unwrap_or(u64::MAX) };
    let path = format!("/_synapse/admin/v1/users/{}/login", escaped(user.as_str()));
    let answer: Answer = service.admin(Method::POST, &path, Some(&until)).await?;
    Ok(Secret::new(answer.access_token))
}

/// Joins an account to a room that the service account is in.
/// [Edit room membership](https://element-hq.github.io/synapse/latest/admin_api/room_membership.html).
pub async fn join(service: &Caller<'_>, room: &RoomId, user: &UserId) -> Result<(), CallError> {
    #[derive(Serialize)]
    struct Who<'a> {
        user_id: &'a UserId,
    }
    let path = format!("/_synapse/admin/v1/join/{}", escaped(room.as_str()));
    service.admin::<Value>(Method::POST, &path, Some(&Who { user_id: user })).await.map(drop)
}

/// Makes the service account, as whoever knows the shared secret may.
/// [Shared-secret registration](https://element-hq.github.io/synapse/latest/admin_api/register_api.html).
pub async fn register_admin(
    anonymous: &Caller<'_>,
    localpart: &str,
    password: &Secret,
    shared: &Secret,
) -> Result<OwnedUserId, CallError> {
    #[derive(Deserialize)]
    struct Nonce {
        nonce: String,
    }
    #[derive(Serialize)]
    struct Registration<'a> {
        nonce: &'a str,
        username: &'a str,
        displayname: &'a str,
        password: &'a str,
        admin: bool,
        mac: String,
        inhibit_login: bool,
    }
    #[derive(Deserialize)]
    struct Registered {
        user_id: OwnedUserId,
    }
    const PATH: &str = "/_synapse/admin/v1/register";
    let Nonce { nonce } = anonymous.admin(Method::GET, PATH, NOTHING).await?;
    let plain = password.expose_str().map_err(|e| CallError::Local(e.to_string()))?;
    let registration = Registration {
        mac: mac(shared, &[nonce.as_bytes(), localpart.as_bytes(), plain.as_bytes(), b"admin"])?,
        nonce: &nonce,
        username: localpart,
        displayname: localpart,
        password: plain,
        admin: true,
        inhibit_login: true,
    };
    Ok(anonymous.admin::<Registered>(Method::POST, PATH, Some(&registration)).await?.user_id)
}

fn mac(key: &Secret, parts: &[&[u8]]) -> Result<String, CallError> {
    let mut mac = Hmac::<Sha1>::new_from_slice(key.expose())
        .map_err(|_| CallError::Local("the shared secret cannot be a key".to_owned()))?;
    mac.update(&parts.join(&0));
    Ok(hex::encode(mac.finalize().into_bytes()))
}

/// One segment of a path.
fn escaped(segment: &str) -> String {
    url::form_urlencoded::byte_serialize(segment.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mac_of_a_registration_is_that_of_synapses_own_tool() {
        // python3 -c 'import hmac,hashlib;print(hmac.new(b"shared",b"n\0fleetctl\0pw\0admin",hashlib.sha1).hexdigest())'
        let found = mac(&Secret::new("shared"), &[b"n", b"fleetctl", b"pw", b"admin"]).unwrap();
        assert_eq!(found, "0bd1ecb8479083847d2cfadb093d1dd02aabedc3");
    }

    #[test]
    fn ids_are_escaped_in_paths() {
        assert_eq!(escaped("@a.b:c/d"), "%40a.b%3Ac%2Fd");
    }
}
