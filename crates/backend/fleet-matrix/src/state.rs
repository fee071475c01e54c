//! [`RoomState`]: a room as its state events tell, and as the declaration speaks of it.

use std::collections::{BTreeMap, BTreeSet};

use fleet_plan::RoomSpec;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomVersionId, UserId,
    events::{
        AnyStateEvent, StateEventType,
        room::{
            canonical_alias::RoomCanonicalAliasEventContent,
            create::RoomCreateEventContent,
            join_rules::{JoinRule, RoomJoinRulesEventContent},
            member::{MembershipState, RoomMemberEventContent},
            name::RoomNameEventContent,
            power_levels::RoomPowerLevelsEventContent,
            topic::RoomTopicEventContent,
        },
    },
    serde::Raw,
};
use serde::de::DeserializeOwned;

/// A room as it is.
#[derive(Clone, Debug)]
pub struct RoomState {
    pub id: OwnedRoomId,
    pub name: String,
    pub topic: String,
    /// Local part of the canonical alias, if it has one of this server.
    pub alias: Option<String>,
    pub public: bool,
    /// Who made it.
    pub creator: Option<OwnedUserId>,
    /// Members whose power cannot be taken away (room version 12 and later).
    pub sovereigns: BTreeSet<OwnedUserId>,
    pub members: BTreeMap<OwnedUserId, MembershipState>,
    pub power: Option<RoomPowerLevelsEventContent>,
}

impl RoomState {
    /// From all state events of a room; what is absent or not understood counts as not set.
    pub fn read(id: OwnedRoomId, events: &[Raw<AnyStateEvent>], domain: &str) -> Self {
        let one = |kind| Single { events, kind };
        let create: Option<(OwnedUserId, RoomCreateEventContent)> = one(StateEventType::RoomCreate).signed();
        let alias = one(StateEventType::RoomCanonicalAlias)
            .content::<RoomCanonicalAliasEventContent>()
            .and_then(|content| content.alias)
            .filter(|alias| alias.server_name() == domain);
        Self {
            id,
            name: one(StateEventType::RoomName).content::<RoomNameEventContent>().map_or_else(String::new, |c| c.name),
            topic: one(StateEventType::RoomTopic)
                .content::<RoomTopicEventContent>()
                .map_or_else(String::new, |c| c.topic),
            alias: alias.map(|alias| alias.alias().to_owned()),
            public: one(StateEventType::RoomJoinRules)
                .content::<RoomJoinRulesEventContent>()
                .is_some_and(|content| content.join_rule == JoinRule::Public),
            sovereigns: create.as_ref().map(|(sender, content)| sovereigns(sender, content)).unwrap_or_default(),
            creator: create.map(|(sender, _)| sender),
            members: members(events),
            power: one(StateEventType::RoomPowerLevels).content(),
        }
    }

    /// A room of ours that nobody has been in yet, or in which nobody has power: a homeserver makes rooms step by step, and
    /// goes on when who asked for it is gone. Rooms that were left have members who left.
    pub fn is_being_made_by(&self, user: &UserId) -> bool {
        self.creator.as_deref() == Some(user) && (self.members.is_empty() || self.power.is_none())
    }

    /// Somebody's place in the room.
    pub fn is(&self, user: &UserId, membership: &MembershipState) -> bool {
        self.members.get(user) == Some(membership)
    }

    /// Who is in it.
    pub fn joined(&self) -> impl Iterator<Item = &OwnedUserId> {
        self.members.iter().filter(|(_, membership)| **membership == MembershipState::Join).map(|(user, _)| user)
    }

    /// As the declaration speaks of it: without the service account, and with the power of those who are in it.
    pub fn spec(&self, alias: &str, service: &UserId, direct: bool) -> RoomSpec {
        let members: BTreeSet<String> =
            self.joined().filter(|user| *user != service).map(ToString::to_string).collect();
        let power = if direct { BTreeMap::new() } else { self.power_of(&members) };
        RoomSpec {
            alias: alias.to_owned(),
            name: self.name.clone(),
            topic: self.topic.clone(),
            members,
            power,
            public: self.public,
            direct,
        }
    }

    fn power_of(&self, members: &BTreeSet<String>) -> BTreeMap<String, i64> {
        let Some(levels) = &self.power else { return BTreeMap::new() };
        let explicit: BTreeMap<&str, i64> =
            levels.users.iter().map(|(user, level)| (user.as_str(), (*level).into())).collect();
        let default: i64 = levels.users_default.into();
        members
            .iter()
            .map(|member| (member.clone(), explicit.get(member.as_str()).copied().unwrap_or(default)))
            .filter(|(_, level)| *level != 0)
            .collect()
    }
}

/// Who has unlimited power: from room version 12 on the creator and those named beside it.
fn sovereigns(creator: &UserId, content: &RoomCreateEventContent) -> BTreeSet<OwnedUserId> {
    if !privileges_creators(&content.room_version) {
        return BTreeSet::new();
    }
    content.additional_creators.iter().cloned().chain([creator.to_owned()]).collect()
}

/// In such rooms the creator must not be listed in the power levels.
pub fn privileges_creators(version: &RoomVersionId) -> bool {
    // A version that ruma does not know yet is newer than 12.
    version.rules().is_none_or(|rules| rules.authorization.explicitly_privilege_room_creators)
}

fn members(events: &[Raw<AnyStateEvent>]) -> BTreeMap<OwnedUserId, MembershipState> {
    events
        .iter()
        .filter(|event| is_of(event, &StateEventType::RoomMember))
        .filter_map(|event| {
            let user: OwnedUserId = event.get_field("state_key").ok().flatten()?;
            let content: RoomMemberEventContent = event.get_field("content").ok().flatten()?;
            Some((user, content.membership))
        })
        .collect()
}

fn is_of(event: &Raw<AnyStateEvent>, kind: &StateEventType) -> bool {
    matches!(event.get_field::<String>("type"), Ok(Some(found)) if found == kind.to_string())
}

/// The one event of a kind with an empty state key.
struct Single<'a> {
    events: &'a [Raw<AnyStateEvent>],
    kind: StateEventType,
}

impl Single<'_> {
    fn event(&self) -> Option<&Raw<AnyStateEvent>> {
        self.events.iter().find(|event| {
            is_of(event, &self.kind)
                && matches!(event.get_field::<String>("state_key"), Ok(Some(key)) if key.is_empty())
        })
    }

    fn content<T: DeserializeOwned>(&self) -> Option<T> {
        self.event()?.get_field("content").ok().flatten()
    }

    fn signed<T: DeserializeOwned>(&self) -> Option<(OwnedUserId, T)> {
        let event = self.event()?;
        let sender = event.get_field("sender").ok().flatten()?;
        Some((sender, event.get_field("content").ok().flatten()?))
    }
}

#[cfg(test)]
mod tests {
    use ruma::{owned_room_id, user_id};
    use serde_json::json;

    use super::*;

    fn event(kind: &str, key: &str, content: &serde_json::Value) -> Raw<AnyStateEvent> {
        let event = json!({
            "type": kind, "state_key": key, "content": content, "sender": "@fleetctl:test", "event_id": format!("${kind}"),
            "room_id": "!r:test", "origin_server_ts": 1,
        });
        Raw::new(&event).unwrap().cast_unchecked()
    }

    #[test]
    fn a_room_is_being_made_until_its_maker_is_in_it_and_somebody_has_power() {
        let (ours, other) = (user_id!("@fleetctl:test"), user_id!("@ann:test"));
        let mut events = vec![event("m.room.create", "", &json!({"room_version": "10"}))];
        let state = |events: &[_]| RoomState::read(owned_room_id!("!r:test"), events, "test");
        assert!(state(&events).is_being_made_by(ours) && !state(&events).is_being_made_by(other));
        events.push(event("m.room.member", ours.as_str(), &json!({"membership": "join"})));
        assert!(state(&events).is_being_made_by(ours), "its other state follows");
        events.push(event("m.room.power_levels", "", &json!({"users": {"@fleetctl:test": 100}})));
        assert!(!state(&events).is_being_made_by(ours));
        events[1] = event("m.room.member", ours.as_str(), &json!({"membership": "leave"}));
        assert!(!state(&events).is_being_made_by(ours), "one that everybody left is not waited for");
    }
}
