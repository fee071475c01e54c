//! Direct-message rooms: two members who made the room themselves, the service account outside.
//!
//! The member who sorts first makes the room, so that two runs never make two; both are marked in `m.direct`, which is
//! where clients look. The record is written last: a room without one is completed by the next apply.

use std::collections::BTreeMap;

use fleet_plan::{Desired, RoomSpec};
use ruma::{
    OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomId, UserId,
    api::client::{
        alias::{create_alias, delete_alias},
        config::{get_global_account_data, set_global_account_data},
        membership::kick_user,
        room::create_room,
        state::send_state_event,
    },
    events::{
        EmptyStateKey, GlobalAccountDataEventType,
        room::{canonical_alias::RoomCanonicalAliasEventContent, member::MembershipState},
    },
    serde::Raw,
};

use crate::{
    Flavour,
    error::CallError,
    http::Caller,
    provider::{Run, Trouble},
    record::{RoomRecord, read_room, write_room},
    room::{Found, full_alias, invite, join, lookup, observed, observed_as, read},
    session::{Session, parsed},
    state::RoomState,
};

/// What is known of a direct-message room where nobody but its members can look inside.
pub fn remembered(alias: &str, record: &RoomRecord) -> fleet_plan::Observed {
    let spec = RoomSpec {
        alias: alias.to_owned(),
        name: String::new(),
        topic: String::new(),
        members: record.members.clone(),
        power: BTreeMap::new(),
        public: false,
        direct: true,
    };
    observed_as(Desired::Room(spec), &record.room_id, None)
}

/// Makes a direct-message room what is declared. `true`: something was written.
pub async fn converge(run: &Run<'_>, desired: &RoomSpec) -> Result<bool, Trouble> {
    let pair = Pair::of(desired)?;
    let service = run.session.service_or_make(run.events).await?;
    let alias = full_alias(run.session, &desired.alias)?;
    let record = read_room(&service, &run.session.service_id, &desired.alias).await?;
    let work = Work { run, service, alias, pair, desired };
    let found = work.find(record.as_ref()).await?;
    let seen = match (&found, &record, run.session.settings.flavour) {
        (None, ..) => None,
        (Some(found), record, Flavour::Synapse) => {
            Some(observed(run.session, &desired.alias, &found.state, record.as_ref(), true))
        }
        // What `observe` could see of it, so that the versions compare.
        (Some(_), Some(record), Flavour::Conduit) => Some(remembered(&desired.alias, record)),
        (Some(found), None, Flavour::Conduit) => Some(observed(run.session, &desired.alias, &found.state, None, true)),
    };
    if let (Some(seen), Some(found)) = (&seen, &found)
        && seen.unfinished.is_none()
        && seen.actual.as_ref() == Some(&Desired::Room(desired.clone()))
        && work.pair.both_in(&found.state)
    {
        return Ok(false);
    }
    run.check_unmoved(seen.as_ref().map(|o| o.version.as_str()))?;
    work.make_so(found).await?;
    Ok(true)
}

/// The two, in order.
struct Pair {
    first: OwnedUserId,
    second: OwnedUserId,
}

impl Pair {
    fn of(desired: &RoomSpec) -> Result<Self, CallError> {
        let mut ids = desired.members.iter();
        match (ids.next(), ids.next(), ids.next()) {
            (Some(first), Some(second), None) => Ok(Self { first: parsed(first)?, second: parsed(second)? }),
            _ => Err(CallError::Local(format!(
                "the direct-message room {} has {} members; it takes two",
                desired.alias,
                desired.members.len()
            ))),
        }
    }

    fn both_in(&self, state: &RoomState) -> bool {
        [&self.first, &self.second].into_iter().all(|user| state.is(user, &MembershipState::Join))
    }
}

struct Work<'a> {
    run: &'a Run<'a>,
    service: Caller<'a>,
    alias: OwnedRoomAliasId,
    pair: Pair,
    desired: &'a RoomSpec,
}

impl<'a> Work<'a> {
    async fn caller(&self, user: &UserId) -> Result<Caller<'a>, CallError> {
        self.run.session.identity(self.run.events, user).await
    }

    async fn find(&self, record: Option<&RoomRecord>) -> Result<Option<Found>, CallError> {
        let named = lookup(&self.service, &self.alias).await?;
        let Some(id) = named.clone().or_else(|| record.map(|record| record.room_id.clone())) else { return Ok(None) };
        let session: &Session = self.run.session;
        let mut state = None;
        if session.settings.flavour == Flavour::Synapse {
            state = read(session, &self.service, id).await?;
        } else {
            for user in [&self.pair.first, &self.pair.second] {
                if state.is_none() {
                    state = read(session, &self.caller(user).await?, id.clone()).await?;
                }
            }
        }
        Ok(state.map(|state| Found { state, named: named.is_some() }))
    }

    async fn make_so(&self, found: Option<Found>) -> Result<(), Trouble> {
        let id = match found {
            Some(found) if found.state.joined().next().is_some() => self.complete(found).await?,
            // Both left, or a room that nobody can enter holds the alias: it is of no use to anybody.
            _ => {
                self.free_alias().await?;
                self.create().await?
            }
        };
        self.mark(&self.pair.first, &self.pair.second, &id).await?;
        self.mark(&self.pair.second, &self.pair.first, &id).await?;
        let record = RoomRecord { room_id: id, direct: true, members: self.desired.members.clone() };
        write_room(&self.service, &self.run.session.service_id, &self.desired.alias, Some(&record)).await?;
        Ok(())
    }

    async fn create(&self) -> Result<OwnedRoomId, Trouble> {
        let mut request = create_room::v3::Request::new();
        request.room_alias_name = Some(self.desired.alias.clone());
        request.preset = Some(create_room::v3::RoomPreset::TrustedPrivateChat);
        request.is_direct = true;
        request.invite = vec![self.pair.second.clone()];
        let first = self.caller(&self.pair.first).await?;
        match first.send(request).await {
            Ok(answer) => {
                join(&self.caller(&self.pair.second).await?, &answer.room_id).await?;
                Ok(answer.room_id)
            }
            // The answer of an earlier attempt was lost, or somebody was quicker.
            Err(error) if error.is("M_ROOM_IN_USE") => {
                let found = self.find(None).await?.ok_or(error)?;
                self.complete(found).await
            }
            Err(error) => Err(error.into()),
        }
    }

    async fn complete(&self, found: Found) -> Result<OwnedRoomId, Trouble> {
        let Found { state, named } = found;
        let of_the_pair = |user: &OwnedUserId| *user == self.pair.first || *user == self.pair.second;
        if !state.creator.as_ref().is_some_and(of_the_pair) {
            let creator = state.creator.as_ref().map_or("somebody else", |c| c.as_str());
            return Err(Trouble::Foreign {
                why: format!("the alias {} belongs to a room of {creator}", self.alias),
                help: "remove that alias from the other room".to_owned(),
            });
        }
        self.bring_in(&state, &self.pair.first, &self.pair.second).await?;
        self.bring_in(&state, &self.pair.second, &self.pair.first).await?;
        let owner = self.caller(state.creator.as_ref().unwrap_or(&self.pair.first)).await?;
        for stranger in state.joined().filter(|user| !of_the_pair(user)) {
            owner.send(kick_user::v3::Request::new(state.id.clone(), stranger.clone())).await?;
        }
        if !named {
            owner.send(create_alias::v3::Request::new(self.alias.clone(), state.id.clone())).await?;
        }
        if state.alias.as_deref() != Some(self.alias.alias()) {
            let mut content = RoomCanonicalAliasEventContent::new();
            content.alias = Some(self.alias.clone());
            let request = send_state_event::v3::Request::new(state.id.clone(), &EmptyStateKey, &content)
                .map_err(|e| CallError::Local(e.to_string()))?;
            owner.send(request).await?;
        }
        Ok(state.id)
    }

    async fn bring_in(&self, state: &RoomState, user: &UserId, other: &UserId) -> Result<(), CallError> {
        if state.is(user, &MembershipState::Join) {
            return Ok(());
        }
        if !state.is(user, &MembershipState::Invite) {
            invite(&self.caller(other).await?, &state.id, user).await?;
        }
        join(&self.caller(user).await?, &state.id).await
    }

    async fn free_alias(&self) -> Result<(), CallError> {
        let request = || delete_alias::v3::Request::new(self.alias.clone());
        if lookup(&self.service, &self.alias).await?.is_none() {
            return Ok(());
        }
        match self.service.send(request()).await {
            Err(error) if error.is("M_FORBIDDEN") => {
                self.caller(&self.pair.first).await?.send(request()).await.map(drop)
            }
            other => other.map(drop),
        }
    }

    /// Adds the room to `m.direct` of `user`, keeping what is there.
    async fn mark(&self, user: &UserId, other: &UserId, room: &RoomId) -> Result<(), CallError> {
        let caller = self.caller(user).await?;
        let kind = || GlobalAccountDataEventType::Direct;
        let found = caller.send(get_global_account_data::v3::Request::new(user.to_owned(), kind())).await;
        let mut direct: BTreeMap<String, Vec<String>> = match found {
            Ok(answer) => answer.account_data.deserialize_as_unchecked().unwrap_or_default(),
            Err(error) if error.is_missing() => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        let rooms = direct.entry(other.to_string()).or_default();
        if rooms.iter().any(|known| known == room.as_str()) {
            return Ok(());
        }
        rooms.insert(0, room.to_string());
        let raw = Raw::new(&direct).map_err(|e| CallError::Local(e.to_string()))?.cast_unchecked();
        caller.send(set_global_account_data::v3::Request::new_raw(user.to_owned(), kind(), raw)).await.map(drop)
    }
}
