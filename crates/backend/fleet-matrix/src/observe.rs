//! Reads what is: accounts and rooms, by reads only. One list each, one record, and one read per declared room.

use std::collections::{BTreeMap, BTreeSet};

use fleet_apply::Events;
use fleet_model::{Address, Kind};
use fleet_plan::{Health, Observed, RunState, State};
use futures::{StreamExt, TryStreamExt, stream};
use ruma::{OwnedRoomId, api::client::membership::joined_rooms};

use crate::{
    Flavour, account, direct,
    error::CallError,
    http::Caller,
    record::{Records, RoomRecord},
    room,
    session::{SERVICE_LOCALPART, Session, parsed, user_id},
    state::RoomState,
    synapse,
};

/// Reads under way at the same time.
const READS_AT_ONCE: usize = 8;
/// Conduit talks to its administrators in a room of its own under this alias.
const CONDUIT_ADMIN_ROOM: &str = "admins";

/// Everything of the scope. A homeserver that does not run yet is told in [`State::unseen`].
pub async fn observe(session: &Session, events: &dyn Events, wanted: &[Address]) -> Result<State, CallError> {
    let mut state = State::default();
    let anybody = session.anonymous(events).impatient();
    match account::display_name(&anybody, &session.service_id).await {
        Ok(Some(_)) => {}
        Ok(None) => return Ok(state),
        Err(error) if error.is_down() => {
            state.unseen.push(format!("{error}; accounts and rooms could not be seen"));
            return Ok(state);
        }
        Err(error) => return Err(error),
    }
    let Some(service) = session.service(events).await? else { return Ok(state) };
    let records = Records::read(&service, &session.service_id, session.settings.flavour).await?;
    let named = |kind| wanted.iter().filter(move |a| a.kind == kind).map(|a| a.name.as_str()).collect();
    let look = Look { session, service, records, accounts: named(Kind::Account), rooms: named(Kind::Room) };
    match session.settings.flavour {
        Flavour::Synapse => {
            look.accounts_by_list(&mut state).await?;
            look.rooms_by_list(&mut state).await?;
        }
        Flavour::Conduit => {
            look.accounts_by_name(&mut state).await?;
            look.rooms_joined(&mut state).await?;
        }
    }
    look.forgotten_rooms(&mut state);
    Ok(state)
}

struct Look<'a> {
    session: &'a Session,
    service: Caller<'a>,
    records: Records,
    accounts: BTreeSet<&'a str>,
    rooms: BTreeSet<&'a str>,
}

impl Look<'_> {
    async fn accounts_by_list(&self, state: &mut State) -> Result<(), CallError> {
        for listed in synapse::users(&self.service).await? {
            let user = parsed(&listed.name)?;
            let localpart = user.localpart();
            if localpart == SERVICE_LOCALPART {
                continue;
            }
            let record = self.records.accounts.get(localpart).copied();
            let address = Address::new(Kind::Account, localpart);
            match record {
                Some(record) if record.closed => {}
                None if !self.accounts.contains(localpart) => {
                    state
                        .orphans
                        .insert(address, format!("{user} exists, and fleetctl neither made it nor finds it declared"));
                }
                record => {
                    let name = listed.displayname.unwrap_or_default();
                    state.objects.insert(address, account::observed(&user, name, record));
                }
            }
        }
        Ok(())
    }

    /// Where accounts cannot be listed: those that are declared and those that we made.
    async fn accounts_by_name(&self, state: &mut State) -> Result<(), CallError> {
        let ours = self.records.accounts.iter().filter(|(_, record)| !record.closed).map(|(name, _)| name.as_str());
        let closed = |name: &&str| self.records.accounts.get(*name).is_some_and(|record| record.closed);
        let names: BTreeSet<String> =
            self.accounts.iter().copied().filter(|name| !closed(name)).chain(ours).map(str::to_owned).collect();
        let found: Vec<Option<(Address, Observed)>> = stream::iter(names)
            .map(|name| async move {
                let user = user_id(&name, &self.session.settings.scope.domain)?;
                let display = account::display_name(&self.service, &user).await?;
                let record = self.records.accounts.get(&name).copied();
                let seen = display.map(|display| account::observed(&user, display, record));
                Ok::<_, CallError>(seen.map(|seen| (Address::new(Kind::Account, name), seen)))
            })
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        state.objects.extend(found.into_iter().flatten());
        Ok(())
    }

    async fn rooms_by_list(&self, state: &mut State) -> Result<(), CallError> {
        let listed: BTreeMap<OwnedRoomId, synapse::ListedRoom> = synapse::rooms(&self.service)
            .await?
            .into_iter()
            .filter(|room| room.joined_members > 0)
            .map(|room| (room.room_id.clone(), room))
            .collect();
        let by_alias: BTreeMap<&str, &OwnedRoomId> = listed
            .values()
            .filter_map(|room| Some((self.local_alias(room.canonical_alias.as_deref()?)?, &room.room_id)))
            .collect();
        let place = |alias: &str| {
            let recorded = self.records.rooms.get(alias).map(|record| &record.room_id);
            recorded.filter(|id| listed.contains_key(*id)).or_else(|| by_alias.get(alias).copied())
        };
        let found: Vec<(String, OwnedRoomId)> =
            self.rooms.iter().filter_map(|alias| Some(((*alias).to_owned(), place(alias)?.clone()))).collect();
        let ours: BTreeSet<OwnedRoomId> = found
            .iter()
            .map(|(_, id)| id.clone())
            .chain(self.records.rooms.values().map(|r| r.room_id.clone()))
            .collect();
        for room in listed.values().filter(|room| !ours.contains(&room.room_id)) {
            let (name, what) = self.stranger(room);
            state.orphans.insert(Address::new(Kind::Room, name), what);
        }
        self.look_into(found, state).await
    }

    async fn look_into(&self, found: Vec<(String, OwnedRoomId)>, state: &mut State) -> Result<(), CallError> {
        let seen: Vec<Option<(Address, Observed)>> = stream::iter(found)
            .map(|(alias, id)| async move {
                let room = room::read(self.session, &self.service, id).await?;
                Ok::<_, CallError>(room.map(|room| (Address::new(Kind::Room, alias.clone()), self.seen(&alias, &room))))
            })
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        state.objects.extend(seen.into_iter().flatten());
        Ok(())
    }

    fn seen(&self, alias: &str, room: &RoomState) -> Observed {
        let record = self.records.rooms.get(alias);
        // A direct-message room is one that its members made; before it is recorded only that tells it.
        let direct =
            record.map_or_else(|| room.creator.as_ref() != Some(&self.session.service_id), |record| record.direct);
        room::observed(self.session, alias, room, record, direct)
    }

    /// Where rooms cannot be listed: those that the service account is in, and direct-message rooms as recorded.
    async fn rooms_joined(&self, state: &mut State) -> Result<(), CallError> {
        let joined = self.service.send(joined_rooms::v3::Request::new()).await?.joined_rooms;
        let rooms: Vec<Option<RoomState>> = stream::iter(joined)
            .map(|id| room::read(self.session, &self.service, id))
            .buffer_unordered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let rooms: Vec<RoomState> = rooms.into_iter().flatten().collect();
        for alias in &self.rooms {
            let record = self.records.rooms.get(*alias);
            let is_it = |room: &&RoomState| {
                record.map_or_else(|| room.alias.as_deref() == Some(alias), |record| record.room_id == room.id)
            };
            let seen = match (rooms.iter().find(is_it), record) {
                (Some(room), _) => Some(self.seen(alias, room)),
                (None, Some(record)) if record.direct => self.still_named(alias, record).await?,
                (None, _) => None,
            };
            state.objects.extend(seen.map(|seen| (Address::new(Kind::Room, *alias), seen)));
        }
        self.unknown_rooms(&rooms, state);
        Ok(())
    }

    /// Of the rooms that the service account is in: those that are neither declared nor recorded.
    fn unknown_rooms(&self, rooms: &[RoomState], state: &mut State) {
        let recorded: BTreeSet<&OwnedRoomId> = self.records.rooms.values().map(|record| &record.room_id).collect();
        for room in rooms.iter().filter(|room| !recorded.contains(&room.id)) {
            let alias = room.alias.as_deref();
            if alias.is_some_and(|alias| alias == CONDUIT_ADMIN_ROOM || self.rooms.contains(alias)) {
                continue;
            }
            let what = format!("the room {} ({}, members: {}) is not ours", room.id, room.name, room.joined().count());
            state.orphans.insert(Address::new(Kind::Room, alias.unwrap_or(room.id.as_str())), what);
        }
    }

    async fn still_named(&self, alias: &str, record: &RoomRecord) -> Result<Option<Observed>, CallError> {
        let named = room::lookup(&self.service, &room::full_alias(self.session, alias)?).await?;
        Ok((named.as_ref() == Some(&record.room_id)).then(|| direct::remembered(alias, record)))
    }

    /// Rooms that we made and nobody declares any more: known by their record alone.
    fn forgotten_rooms(&self, state: &mut State) {
        for (alias, record) in self.records.rooms.iter().filter(|(alias, _)| !self.rooms.contains(alias.as_str())) {
            state.objects.insert(Address::new(Kind::Room, alias.clone()), forgotten(record));
        }
    }

    fn local_alias<'t>(&self, alias: &'t str) -> Option<&'t str> {
        let (alias, domain) = alias.strip_prefix('#')?.split_once(':')?;
        (domain == self.session.settings.scope.domain).then_some(alias)
    }

    fn stranger(&self, room: &synapse::ListedRoom) -> (String, String) {
        let alias = room.canonical_alias.as_deref();
        let name = alias.and_then(|alias| self.local_alias(alias)).unwrap_or(room.room_id.as_str()).to_owned();
        let called = room.name.as_deref().or(alias).unwrap_or("without a name");
        (name, format!("the room {} ({called}, members: {}) is not ours", room.room_id, room.joined_members))
    }
}

/// A room of which only our record is known.
pub fn forgotten(record: &RoomRecord) -> Observed {
    Observed {
        hash: None,
        actual: None,
        run: RunState::Present,
        health: Health::None,
        id: record.room_id.to_string(),
        version: record.room_id.to_string(),
        unfinished: None,
    }
}
