//! Speaking for a person: `fleetctl say` sends one message and prints what is answered.

use std::{collections::BTreeMap, time::Duration};

use futures::future::BoxFuture;
use ruma::{
    OwnedRoomId, OwnedUserId, RoomAliasId, RoomId, TransactionId, UInt,
    api::client::{
        filter::{Filter, FilterDefinition, RoomEventFilter, RoomFilter},
        membership::joined_members,
        message::send_message_event,
        sync::sync_events,
    },
    events::{
        AnySyncMessageLikeEvent, AnySyncTimelineEvent, Mentions,
        room::message::{Relation, RoomMessageEventContent},
    },
};

use crate::{
    error::CallError,
    provider::MatrixProvider,
    room::{full_alias, lookup},
    session::{parsed, uncached},
};

/// A message that was sent.
#[derive(Clone, Debug)]
pub struct Sent {
    /// The room.
    pub room_id: OwnedRoomId,
    /// The message's event id.
    pub event_id: String,
    /// Whom it mentions.
    pub mentioned: Vec<OwnedUserId>,
    /// What reads like a mention but names nobody in the room.
    pub not_members: Vec<String>,
    sender: OwnedUserId,
    since: String,
}

/// Something that somebody said after that.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// Who.
    pub sender: OwnedUserId,
    /// Local part: what a mention of them is written with.
    pub name: String,
    /// The text.
    pub text: String,
    /// Its event id.
    pub event_id: String,
    /// It replaces the text of this event: agents that write as they think correct themselves.
    pub replaces: Option<String>,
}

impl MatrixProvider {
    /// Sends `text` as `sender` (`@id:domain`) to `room`: a room id, an alias, or an alias's local part. `@name` in the
    /// text mentions the member whose id, local part or display name it is. Call [`MatrixProvider::finish`] afterwards.
    ///
    /// # Errors
    /// [`CallError::Local`] where there is no such room; [`CallError::Refused`] where the sender is not in it.
    pub async fn send_message(&self, sender: &str, room: &str, text: &str) -> Result<Sent, CallError> {
        let sender = parsed(sender)?;
        let events = &*self.events;
        let room_id = self.room_called(room).await?;
        let look = || -> BoxFuture<'_, Result<_, CallError>> {
            Box::pin(async {
                let caller = self.session.identity(events, &sender).await?;
                Ok((caller.send(joined_members::v3::Request::new(room_id.clone())).await?.joined, caller))
            })
        };
        let (members, caller) = self.signed_in(|| false, look).await?;
        let people: BTreeMap<OwnedUserId, String> =
            members.into_iter().map(|(user, member)| (user, member.display_name.unwrap_or_default())).collect();
        let (mentioned, not_members) = mentions(text, &people);
        let since = caller.send(request(&room_id, None, uncached())).await?.next_batch;
        let mut content = RoomMessageEventContent::text_plain(text);
        content.mentions = Some(Mentions::with_user_ids(mentioned.iter().cloned()));
        let message = send_message_event::v3::Request::new(room_id.clone(), TransactionId::new(), &content)
            .map_err(|e| CallError::Local(e.to_string()))?;
        let event_id = caller.send(message).await?.event_id.to_string();
        Ok(Sent { room_id, event_id, mentioned, not_members, sender, since })
    }

    /// Waits up to `wait` for somebody else to say something in that room, and returns as soon as somebody did. Call it
    /// again for more.
    ///
    /// # Errors
    /// As every call.
    pub async fn replies_since(&self, sent: &mut Sent, wait: Duration) -> Result<Vec<Reply>, CallError> {
        let end = std::time::Instant::now() + wait;
        loop {
            let left = end.saturating_duration_since(std::time::Instant::now());
            let patience = left.min(Duration::from_secs(25));
            let listen = || -> BoxFuture<'_, _> {
                Box::pin(async {
                    let caller = self.session.identity(&*self.events, &sent.sender).await?;
                    caller.send(request(&sent.room_id, Some(sent.since.clone()), patience)).await
                })
            };
            let answer = self.signed_in(|| false, listen).await?;
            sent.since = answer.next_batch;
            let timeline = answer.rooms.join.get(&sent.room_id).map(|room| room.timeline.events.as_slice());
            let said = timeline.unwrap_or_default().iter().filter_map(|event| event.deserialize().ok());
            let replies: Vec<Reply> = said.filter_map(|event| reply(&event, &sent.sender)).collect();
            if !replies.is_empty() || left.is_zero() {
                return Ok(replies);
            }
        }
    }

    async fn room_called(&self, room: &str) -> Result<OwnedRoomId, CallError> {
        if let Ok(id) = RoomId::parse(room) {
            return Ok(id);
        }
        let alias = match RoomAliasId::parse(room) {
            Ok(alias) => alias,
            Err(_) => full_alias(&self.session, room.trim_start_matches('#'))?,
        };
        lookup(&self.session.anonymous(&*self.events), &alias)
            .await?
            .ok_or_else(|| CallError::Local(format!("there is no room {alias}; `fleetctl status` lists the rooms")))
    }
}

/// A sync of one room's messages and nothing else.
fn request(room: &RoomId, since: Option<String>, timeout: Duration) -> sync_events::v3::Request {
    let mut filter = FilterDefinition::default();
    filter.presence = Filter::ignore_all();
    filter.account_data = Filter::ignore_all();
    filter.room = RoomFilter::default();
    filter.room.rooms = Some(vec![room.to_owned()]);
    filter.room.ephemeral = RoomEventFilter::ignore_all();
    filter.room.account_data = RoomEventFilter::ignore_all();
    filter.room.state = RoomEventFilter::ignore_all();
    filter.room.timeline.types = Some(vec!["m.room.message".to_owned()]);
    filter.room.timeline.limit = Some(UInt::from(50_u32));
    let mut request = sync_events::v3::Request::new();
    request.filter = Some(filter.into());
    request.since = since;
    request.timeout = Some(timeout);
    request.set_presence = ruma::presence::PresenceState::Offline;
    request
}

fn reply(event: &AnySyncTimelineEvent, sender: &OwnedUserId) -> Option<Reply> {
    let AnySyncTimelineEvent::MessageLike(AnySyncMessageLikeEvent::RoomMessage(event)) = event else { return None };
    let event = event.as_original().filter(|event| event.sender != *sender)?;
    let (text, replaces) = match &event.content.relates_to {
        Some(Relation::Replacement(new)) => (new.new_content.msgtype.body(), Some(new.event_id.to_string())),
        _ => (event.content.body(), None),
    };
    Some(Reply {
        sender: event.sender.clone(),
        name: event.sender.localpart().to_owned(),
        text: text.to_owned(),
        event_id: event.event_id.to_string(),
        replaces,
    })
}

/// Whom a text mentions, and the `@words` that name nobody.
fn mentions(text: &str, people: &BTreeMap<OwnedUserId, String>) -> (Vec<OwnedUserId>, Vec<String>) {
    let (mut found, mut unknown) = (Vec::new(), Vec::new());
    let starts = text
        .match_indices('@')
        .filter(|(at, _)| *at == 0 || text[..*at].ends_with(|c: char| c.is_whitespace() || c == '('));
    for (at, _) in starts {
        let rest = &text[at..];
        let word = rest.split(|c: char| c.is_whitespace() || ",;!?()".contains(c)).next().unwrap_or_default();
        let word = word.trim_end_matches(['.', ':']);
        let is_meant = |(user, display): &(&OwnedUserId, &String)| {
            word == user.as_str()
                || word[1..].eq_ignore_ascii_case(user.localpart())
                || (!display.is_empty() && rest[1..].to_lowercase().starts_with(&display.to_lowercase()))
        };
        match people.iter().find(is_meant) {
            Some((user, _)) if !found.contains(user) => found.push(user.clone()),
            Some(_) => {}
            None if word.len() > 1 => unknown.push(word.to_owned()),
            None => {}
        }
    }
    (found, unknown)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn people() -> BTreeMap<OwnedUserId, String> {
        [("@aaron.phillips:a.b", "Aaron Phillips"), ("@manu:a.b", "")]
            .into_iter()
            .map(|(id, name)| (parsed(id).unwrap(), name.to_owned()))
            .collect()
    }

    #[test]
    fn a_person_is_mentioned_by_id_by_local_part_and_by_display_name() {
        for text in
            ["@aaron.phillips:a.b hello", "hello @aaron.phillips.", "hey @Aaron Phillips, hello", "(@AARON.PHILLIPS)"]
        {
            assert_eq!(mentions(text, &people()).0, [parsed("@aaron.phillips:a.b").unwrap()], "{text}");
        }
    }

    #[test]
    fn mail_addresses_are_no_mentions_and_strangers_are_told() {
        assert_eq!(mentions("write to x@manu", &people()), (vec![], vec![]));
        assert_eq!(
            mentions("@nobody: hello @manu", &people()),
            (vec![parsed("@manu:a.b").unwrap()], vec!["@nobody".to_owned()])
        );
    }
}
