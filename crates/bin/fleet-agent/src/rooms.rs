//! [`settle`]: joins the rooms that are listed and those that invite the agent. OpenClaw accepts later invitations.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use ruma::{
    RoomOrAliasId,
    api::client::{
        filter::{FilterDefinition, RoomEventFilter, RoomFilter},
        membership::join_room_by_id_or_alias,
        sync::sync_events::v3::{Filter, Request},
    },
};

use crate::{backoff, homeserver::CallError, log, login::Session, status::Status};

const LONGEST_PAUSE: Duration = Duration::from_secs(120);

/// Joins in the background until every room is joined; what is missing is in the status.
pub fn settle(session: Arc<Session>, rooms: Vec<String>, status: Status) -> tokio::task::JoinHandle<()> {
    tokio::spawn(async move {
        let mut pending: BTreeSet<String> = rooms.into_iter().collect();
        let mut said = BTreeSet::new();
        let mut invitations_seen = false;
        for attempt in 0.. {
            if !invitations_seen {
                match invitations(&session).await {
                    Ok(rooms) => {
                        pending.extend(rooms);
                        invitations_seen = true;
                    }
                    Err(error) if error.is_signed_out() => return,
                    Err(error) => log::warn("invitations cannot be read; trying again", &[("why", &error)]),
                }
            }
            join_all(&session, &mut pending, &mut said).await;
            status.update(|report| report.rooms_pending = pending.iter().cloned().collect());
            if pending.is_empty() && invitations_seen {
                return;
            }
            tokio::time::sleep(backoff::retry(attempt, LONGEST_PAUSE, fastrand::f64())).await;
        }
    })
}

async fn join_all(session: &Session, pending: &mut BTreeSet<String>, said: &mut BTreeSet<String>) {
    for room in pending.clone() {
        match join(session, &room).await {
            Ok(()) => {
                log::info("joined", &[("room", &room)]);
                pending.remove(&room);
            }
            Err(why) => {
                if said.insert(room.clone()) {
                    log::warn("a room cannot be joined yet; trying again", &[("room", &room), ("why", &why)]);
                }
            }
        }
    }
}

async fn join(session: &Session, room: &str) -> Result<(), String> {
    let room = RoomOrAliasId::parse(room).map_err(|e| e.to_string())?;
    let request = join_room_by_id_or_alias::v3::Request::new(room);
    session.homeserver.call(request, Some(&session.token)).await.map(drop).map_err(|e| e.to_string())
}

/// Ids of rooms that invite us: one sync that asks for no events, so that it stays small in a long-lived account.
async fn invitations(session: &Session) -> Result<Vec<String>, CallError> {
    let mut filter = FilterDefinition::ignore_all();
    filter.room = RoomFilter::default();
    filter.room.timeline = RoomEventFilter::ignore_all();
    filter.room.ephemeral = RoomEventFilter::ignore_all();
    filter.room.account_data = RoomEventFilter::ignore_all();
    filter.room.state.types = Some(vec!["m.room.create".to_owned()]);
    let mut request = Request::new();
    request.filter = Some(Filter::FilterDefinition(filter));
    request.set_presence = ruma::presence::PresenceState::Offline;
    let answer = session.homeserver.call(request, Some(&session.token)).await?;
    Ok(answer.rooms.invite.keys().map(ToString::to_string).collect())
}
