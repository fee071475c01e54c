//! [`Records`]: what we made, kept as account data of the service account, so that any checkout finds it.
//!
//! One entry per object (`dev.fleetctl.account.<localpart>`, `dev.fleetctl.room.<alias>`), so that writers of different
//! objects never overwrite each other. An entry is written after the object is complete: an object without one was
//! made by somebody else or by a run that was interrupted.

use std::collections::{BTreeMap, BTreeSet};

use ruma::{
    OwnedRoomId, UserId,
    api::client::{
        config::{get_global_account_data, set_global_account_data},
        filter::{Filter, FilterDefinition, RoomFilter},
        sync::sync_events,
    },
    events::{AnyGlobalAccountDataEventContent, GlobalAccountDataEventType},
    serde::Raw,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use crate::{Flavour, error::CallError, http::Caller, session::uncached, synapse};

const ACCOUNT: &str = "dev.fleetctl.account.";
const ROOM: &str = "dev.fleetctl.room.";

/// What we know of an account that we made or took over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// Epoch of its password.
    pub epoch: u32,
    /// Nobody uses it any more; its password is nobody's.
    pub closed: bool,
}

/// What we know of a room that we made or took over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoomRecord {
    /// Room id.
    pub room_id: OwnedRoomId,
    /// A direct-message room.
    pub direct: bool,
    /// Its members as they were when it was completed; all that is known where the service account cannot look inside.
    pub members: BTreeSet<String>,
}

/// All entries.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// By localpart.
    pub accounts: BTreeMap<String, AccountRecord>,
    /// By local part of the alias.
    pub rooms: BTreeMap<String, RoomRecord>,
}

impl Records {
    /// Reads all entries with one call.
    pub async fn read(service: &Caller<'_>, user: &UserId, flavour: Flavour) -> Result<Self, CallError> {
        let data = match flavour {
            Flavour::Synapse => synapse::account_data(service, user).await?,
            Flavour::Conduit => synced(service).await?,
        };
        Ok(Self { accounts: entries(&data, ACCOUNT), rooms: entries(&data, ROOM) })
    }
}

/// Entries with this prefix; what was emptied when its object was removed is left out.
fn entries<T: DeserializeOwned>(data: &Map<String, Value>, prefix: &str) -> BTreeMap<String, T> {
    data.iter()
        .filter_map(|(kind, content)| {
            let name = kind.strip_prefix(prefix)?;
            Some((name.to_owned(), serde_json::from_value(content.clone()).ok()?))
        })
        .collect()
}

/// Account data by the client-server API: the only call that lists it is an initial sync, here without any room.
async fn synced(service: &Caller<'_>) -> Result<Map<String, Value>, CallError> {
    let mut filter = FilterDefinition::default();
    filter.room = RoomFilter::ignore_all();
    filter.presence = Filter::ignore_all();
    filter.account_data.types = Some(vec![format!("{ACCOUNT}*"), format!("{ROOM}*")]);
    let mut request = sync_events::v3::Request::new();
    request.filter = Some(filter.into());
    request.timeout = Some(uncached());
    request.set_presence = ruma::presence::PresenceState::Offline;
    let answer = service.send(request).await?;
    let mut found = Map::new();
    for event in answer.account_data.events {
        if let (Ok(Some(kind)), Ok(Some(content))) =
            (event.get_field::<String>("type"), event.get_field::<Value>("content"))
        {
            found.insert(kind, content);
        }
    }
    Ok(found)
}

/// One account's entry.
pub async fn read_account(
    service: &Caller<'_>,
    user: &UserId,
    localpart: &str,
) -> Result<Option<AccountRecord>, CallError> {
    read(service, user, &format!("{ACCOUNT}{localpart}")).await
}

/// One room's entry.
pub async fn read_room(service: &Caller<'_>, user: &UserId, alias: &str) -> Result<Option<RoomRecord>, CallError> {
    read(service, user, &format!("{ROOM}{alias}")).await
}

async fn read<T: DeserializeOwned>(service: &Caller<'_>, user: &UserId, kind: &str) -> Result<Option<T>, CallError> {
    let kind = GlobalAccountDataEventType::from(kind);
    match service.send(get_global_account_data::v3::Request::new(user.to_owned(), kind)).await {
        Ok(answer) => Ok(answer.account_data.deserialize_as_unchecked().ok()),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Writes an account's entry.
pub async fn write_account(
    service: &Caller<'_>,
    user: &UserId,
    localpart: &str,
    record: AccountRecord,
) -> Result<(), CallError> {
    write(service, user, &format!("{ACCOUNT}{localpart}"), &record).await
}

/// Writes a room's entry; `None` empties it.
pub async fn write_room(
    service: &Caller<'_>,
    user: &UserId,
    alias: &str,
    record: Option<&RoomRecord>,
) -> Result<(), CallError> {
    let kind = format!("{ROOM}{alias}");
    match record {
        Some(record) => write(service, user, &kind, record).await,
        None => write(service, user, &kind, &Map::new()).await,
    }
}

async fn write(
    service: &Caller<'_>,
    user: &UserId,
    kind: &str,
    content: &(impl Serialize + Sync),
) -> Result<(), CallError> {
    let raw = Raw::new(content).map_err(|e| CallError::Local(e.to_string()))?;
    let raw: Raw<AnyGlobalAccountDataEventContent> = raw.cast_unchecked();
    let kind = GlobalAccountDataEventType::from(kind);
    service.send(set_global_account_data::v3::Request::new_raw(user.to_owned(), kind, raw)).await.map(drop)
}
