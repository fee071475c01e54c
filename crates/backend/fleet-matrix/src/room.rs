//! Rooms that the service account is in: found, made, completed. Direct-message rooms are in `direct`.

use std::{collections::BTreeMap, time::Duration};

use fleet_plan::{Desired, Health, Observed, RoomSpec, RunState};
use futures::{StreamExt, TryStreamExt, stream};
use ruma::{
    Int, OwnedRoomAliasId, OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, UserId,
    api::client::{
        alias::{create_alias, get_alias},
        membership::{
            invite_user::{self, v3::InviteUserId},
            join_room_by_id, kick_user, unban_user,
        },
        room::{
            Visibility,
            create_room::{self, RoomPowerLevelsContentOverride},
        },
        state::{get_state_events, send_state_event},
    },
    events::{
        EmptyStateKey, StateEventContent,
        room::{
            canonical_alias::RoomCanonicalAliasEventContent,
            join_rules::{JoinRule, RoomJoinRulesEventContent},
            member::MembershipState,
            name::RoomNameEventContent,
            power_levels::RoomPowerLevelsEventContent,
            topic::RoomTopicEventContent,
        },
    },
    serde::Raw,
};

use crate::{
    Flavour, direct,
    error::CallError,
    http::Caller,
    provider::{Run, Trouble, version},
    record::{RoomRecord, read_room, write_room},
    session::{Session, parsed},
    state::RoomState,
    synapse,
};

/// Members that are brought in at the same time.
const JOINS_AT_ONCE: usize = 4;
/// The power of whoever made a room, where it has to be written down.
const OWNER: i64 = 100;

/// A room as observed. `record` is what we wrote down of it.
pub fn observed(
    session: &Session,
    alias: &str,
    state: &RoomState,
    record: Option<&RoomRecord>,
    direct: bool,
) -> Observed {
    let unfinished = if record.is_none_or(|record| record.room_id != state.id) {
        Some("an apply was interrupted before it was complete".to_owned())
    } else if state.alias.as_deref() != Some(alias) {
        Some(format!("it lost its alias #{alias}"))
    } else if !direct && !state.is(&session.service_id, &MembershipState::Join) {
        Some(format!("{} is no longer in it", session.service_id))
    } else {
        None
    };
    observed_as(Desired::Room(state.spec(alias, &session.service_id, direct)), &state.id, unfinished)
}

/// Looks at a room that the homeserver is still making, and the time between two.
const LOOKS: u32 = 20;
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);

/// An observation from what is known.
pub fn observed_as(actual: Desired, id: &RoomId, unfinished: Option<String>) -> Observed {
    Observed {
        hash: None,
        version: version(&actual, id.as_str(), unfinished.as_deref()),
        actual: Some(actual),
        run: RunState::Present,
        health: Health::None,
        id: id.to_string(),
        unfinished,
    }
}

/// Makes a room what is declared. `true`: something was written.
pub async fn converge(run: &Run<'_>, desired: &RoomSpec) -> Result<bool, Trouble> {
    if desired.direct {
        return direct::converge(run, desired).await;
    }
    let service = run.session.service_or_make(run.events).await?;
    let alias = full_alias(run.session, &desired.alias)?;
    let record = read_room(&service, &run.session.service_id, &desired.alias).await?;
    let found = find(run.session, &service, &alias, record.as_ref()).await?;
    let seen = found.as_ref().map(|f| observed(run.session, &desired.alias, &f.state, record.as_ref(), false));
    if let Some(seen) = &seen
        && seen.unfinished.is_none()
        && seen.actual.as_ref() == Some(&Desired::Room(desired.clone()))
    {
        return Ok(false);
    }
    run.check_unmoved(seen.as_ref().map(|o| o.version.as_str()))?;
    let work = Work { run, service, alias, desired };
    let found = match found {
        Some(found) => found,
        None => work.create().await?,
    };
    work.complete(found).await?;
    Ok(true)
}

/// A room that exists.
pub struct Found {
    pub state: RoomState,
    /// The alias leads to it.
    pub named: bool,
}

/// Finds a room by its alias, else by what we wrote down when we made it.
pub async fn find(
    session: &Session,
    reader: &Caller<'_>,
    alias: &RoomAliasId,
    record: Option<&RoomRecord>,
) -> Result<Option<Found>, CallError> {
    let named = lookup(reader, alias).await?;
    let Some(id) = named.clone().or_else(|| record.map(|record| record.room_id.clone())) else { return Ok(None) };
    Ok(read(session, reader, id).await?.map(|state| Found { state, named: named.is_some() }))
}

/// Where an alias leads.
pub async fn lookup(reader: &Caller<'_>, alias: &RoomAliasId) -> Result<Option<OwnedRoomId>, CallError> {
    match reader.send(get_alias::v3::Request::new(alias.to_owned())).await {
        Ok(answer) => Ok(Some(answer.room_id)),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// The state of a room; `None` where it is gone, or where `reader` may not look inside. One of ours that the homeserver is
/// still making, for a run that died since, is waited for.
pub async fn read(session: &Session, reader: &Caller<'_>, id: OwnedRoomId) -> Result<Option<RoomState>, CallError> {
    let mut state = read_once(session, reader, id.clone()).await?;
    for _ in 1..LOOKS {
        if !state.as_ref().is_some_and(|state| state.is_being_made_by(&session.service_id)) {
            break;
        }
        tokio::time::sleep(BETWEEN_LOOKS).await;
        state = read_once(session, reader, id.clone()).await?;
    }
    Ok(state)
}

async fn read_once(session: &Session, reader: &Caller<'_>, id: OwnedRoomId) -> Result<Option<RoomState>, CallError> {
    let events = match session.settings.flavour {
        Flavour::Synapse => synapse::state(reader, &id).await,
        Flavour::Conduit => {
            reader.send(get_state_events::v3::Request::new(id.clone())).await.map(|answer| answer.room_state)
        }
    };
    match events {
        Ok(events) => Ok(Some(RoomState::read(id, &events, &session.settings.scope.domain))),
        Err(error) if error.is_missing() || error.is("M_FORBIDDEN") => Ok(None),
        Err(error) => Err(error),
    }
}

/// `#alias:domain`.
pub fn full_alias(session: &Session, alias: &str) -> Result<OwnedRoomAliasId, CallError> {
    let text = format!("#{alias}:{}", session.settings.scope.domain);
    RoomAliasId::parse(&text).map_err(|e| CallError::Local(format!("`{text}` is not a room alias: {e}")))
}

struct Work<'a> {
    run: &'a Run<'a>,
    service: Caller<'a>,
    alias: OwnedRoomAliasId,
    desired: &'a RoomSpec,
}

impl Work<'_> {
    async fn create(&self) -> Result<Found, Trouble> {
        let request = self.creation().await?;
        let id = match self.service.send(request).await {
            Ok(answer) => answer.room_id,
            // The answer of an earlier attempt was lost, or somebody was quicker.
            Err(error) if error.is("M_ROOM_IN_USE") => lookup(&self.service, &self.alias).await?.ok_or(error)?,
            Err(error) => return Err(error.into()),
        };
        for look in 1.. {
            if let Some(state) = read(self.run.session, &self.service, id.clone()).await? {
                return Ok(Found { state, named: true });
            }
            // An alias is there before its room is.
            if look == LOOKS {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        Err(self.foreign("a room we are not in"))
    }

    async fn creation(&self) -> Result<create_room::v3::Request, CallError> {
        let mut request = create_room::v3::Request::new();
        request.room_alias_name = Some(self.desired.alias.clone());
        request.name = Some(self.desired.name.clone()).filter(|name| !name.is_empty());
        request.topic = Some(self.desired.topic.clone()).filter(|topic| !topic.is_empty());
        (request.preset, request.visibility) = if self.desired.public {
            (Some(create_room::v3::RoomPreset::PublicChat), Visibility::Public)
        } else {
            (Some(create_room::v3::RoomPreset::PrivateChat), Visibility::Private)
        };
        let mut levels = RoomPowerLevelsContentOverride::new();
        levels.users = self.levels(self.run.session.makes_sovereign_rooms(&self.service).await?)?;
        if !levels.users.is_empty() {
            let raw = Raw::new(&levels).map_err(|e| CallError::Local(e.to_string()))?;
            request.power_level_content_override = Some(raw);
        }
        Ok(request)
    }

    /// Everybody's power that is not 0. From room version 12 on, whoever made the room must not be listed.
    fn levels(&self, sovereign: bool) -> Result<BTreeMap<OwnedUserId, Int>, CallError> {
        let owner = (self.run.session.service_id.clone(), OWNER);
        let mut levels: BTreeMap<OwnedUserId, i64> = (!sovereign).then_some(owner).into_iter().collect();
        for (user, level) in &self.desired.power {
            levels.insert(parsed(user)?, *level);
        }
        levels
            .into_iter()
            .map(|(user, level)| {
                let level =
                    Int::new(level).ok_or_else(|| CallError::Local(format!("power {level} is out of range")))?;
                Ok((user, level))
            })
            .collect()
    }

    async fn complete(&self, found: Found) -> Result<(), Trouble> {
        let Found { state, named } = found;
        let session = self.run.session;
        if state.creator.as_ref() != Some(&session.service_id) {
            return Err(self.foreign(
                &state.creator.as_ref().map_or_else(|| "somebody else's room".to_owned(), |c| format!("a room of {c}")),
            ));
        }
        if !state.is(&session.service_id, &MembershipState::Join) {
            self.return_to(&state).await?;
        }
        if !named {
            self.service.send(create_alias::v3::Request::new(self.alias.clone(), state.id.clone())).await?;
        }
        self.describe(&state).await?;
        self.empower(&state).await?;
        self.bring_in(&state).await?;
        self.send_away(&state).await?;
        let record = RoomRecord { room_id: state.id.clone(), direct: false, members: self.desired.members.clone() };
        write_room(&self.service, &session.service_id, &self.desired.alias, Some(&record)).await?;
        Ok(())
    }

    fn foreign(&self, what: &str) -> Trouble {
        Trouble::Foreign {
            why: format!("the alias {} belongs to {what}", self.alias),
            help: "give the room another `alias` in fleet.kdl, or remove that alias from the other room".to_owned(),
        }
    }

    /// Name, topic, canonical alias, join rule: only what differs is sent.
    async fn describe(&self, state: &RoomState) -> Result<(), CallError> {
        if state.alias.as_deref() != Some(self.alias.alias()) {
            let mut content = RoomCanonicalAliasEventContent::new();
            content.alias = Some(self.alias.clone());
            self.set(state, &content).await?;
        }
        if state.name != self.desired.name {
            self.set(state, &RoomNameEventContent::new(self.desired.name.clone())).await?;
        }
        if state.topic != self.desired.topic {
            self.set(state, &RoomTopicEventContent::new(self.desired.topic.clone())).await?;
        }
        if state.public != self.desired.public {
            let rule = if self.desired.public { JoinRule::Public } else { JoinRule::Invite };
            self.set(state, &RoomJoinRulesEventContent::new(rule)).await?;
        }
        Ok(())
    }

    async fn empower(&self, state: &RoomState) -> Result<(), CallError> {
        let sovereign = state.sovereigns.contains(&self.run.session.service_id);
        let wanted = self.levels(sovereign)?;
        let mut content =
            state.power.clone().ok_or_else(|| CallError::Local(format!("{} has no power levels", self.alias)))?;
        if content.users == wanted && content.users_default == Int::from(0) {
            return Ok(());
        }
        content.users = wanted;
        content.users_default = Int::from(0);
        self.set::<RoomPowerLevelsEventContent>(state, &content).await
    }

    async fn set<T: StateEventContent<StateKey = EmptyStateKey>>(
        &self,
        state: &RoomState,
        content: &T,
    ) -> Result<(), CallError> {
        let request = send_state_event::v3::Request::new(state.id.clone(), &EmptyStateKey, content)
            .map_err(|e| CallError::Local(e.to_string()))?;
        self.service.send(request).await.map(drop)
    }

    async fn bring_in(&self, state: &RoomState) -> Result<(), CallError> {
        let mut missing = Vec::new();
        for member in &self.desired.members {
            let user = parsed(member)?;
            if !state.is(&user, &MembershipState::Join) {
                missing.push(user);
            }
        }
        stream::iter(missing)
            .map(|user| async move { self.bring_in_one(state, &user).await })
            .buffer_unordered(JOINS_AT_ONCE)
            .try_collect::<()>()
            .await
    }

    async fn bring_in_one(&self, state: &RoomState, user: &UserId) -> Result<(), CallError> {
        if state.is(user, &MembershipState::Ban) {
            self.service.send(unban_user::v3::Request::new(state.id.clone(), user.to_owned())).await?;
        }
        if self.run.session.settings.flavour == Flavour::Synapse {
            return synapse::join(&self.service, &state.id, user).await;
        }
        if !state.is(user, &MembershipState::Invite) && !state.public {
            invite(&self.service, &state.id, user).await?;
        }
        let member = self.run.session.identity(self.run.events, user).await?;
        join(&member, &state.id).await
    }

    async fn send_away(&self, state: &RoomState) -> Result<(), CallError> {
        for user in state.joined() {
            if *user != self.run.session.service_id && !self.desired.members.contains(user.as_str()) {
                self.service.send(kick_user::v3::Request::new(state.id.clone(), user.clone())).await?;
            }
        }
        Ok(())
    }

    /// The service account was sent away or left: a member invites it again.
    async fn return_to(&self, state: &RoomState) -> Result<(), CallError> {
        let session = self.run.session;
        if state.is(&session.service_id, &MembershipState::Invite) {
            return join(&self.service, &state.id).await;
        }
        let mut refusal =
            CallError::Local(format!("nobody is left in {} who could invite {}", self.alias, session.service_id));
        for member in state.joined().filter(|user| user.server_name() == session.service_id.server_name()) {
            let member = session.identity(self.run.events, member).await?;
            match invite(&member, &state.id, &session.service_id).await {
                Ok(()) => return join(&self.service, &state.id).await,
                Err(error) if error.is("M_FORBIDDEN") => refusal = error,
                Err(error) => return Err(error),
            }
        }
        Err(refusal)
    }
}

/// Invites; being invited or in the room already is as good.
pub async fn invite(by: &Caller<'_>, room: &RoomId, user: &UserId) -> Result<(), CallError> {
    let request = invite_user::v3::Request::new(room.to_owned(), InviteUserId::new(user.to_owned()).into());
    by.send(request).await.map(drop)
}

/// Joins as the caller.
pub async fn join(who: &Caller<'_>, room: &RoomId) -> Result<(), CallError> {
    who.send(join_room_by_id::v3::Request::new(room.to_owned())).await.map(drop)
}
