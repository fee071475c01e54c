//! Removal that can be taken back: an account is closed, never deactivated; a room loses its name and its members.

use fleet_plan::Observed;
use ruma::{
    OwnedRoomId, UserId,
    api::client::{
        alias::delete_alias,
        membership::{forget_room, joined_rooms, kick_user, leave_room},
    },
    events::room::member::MembershipState,
};

use crate::{
    Flavour, account,
    error::CallError,
    http::Caller,
    observe,
    provider::{Run, Trouble},
    record::{AccountRecord, RoomRecord, read_account, read_room, write_account, write_room},
    room::{self, full_alias, lookup},
    session::user_id,
    state::RoomState,
    synapse::{self, UserChange},
};

/// Closes an account: it leaves its rooms, its sessions end, and its password becomes nobody's. `true`: something was written.
pub async fn account(run: &Run<'_>) -> Result<bool, Trouble> {
    let session = run.session;
    let user = user_id(&run.change.address.name, &session.settings.scope.domain)?;
    let service = session.service_or_make(run.events).await?;
    let record = read_account(&service, &session.service_id, user.localpart()).await?;
    let name = account::display_name(&service, &user).await?;
    let (Some(name), false) = (name, record.is_some_and(|record| record.closed)) else { return Ok(false) };
    run.check_unmoved(Some(&account::observed(&user, name, record).version))?;
    let epoch = record.unwrap_or_default().epoch;
    leave_rooms(run, &service, &user).await?;
    let nobodys = session.secret.password(user.as_str(), epoch + 1);
    match session.settings.flavour {
        Flavour::Synapse => {
            session.sign_out(run.events, &user).await?;
            let password = nobodys.expose_str().map_err(|e| CallError::Local(e.to_string()))?;
            let change = UserChange { password: Some(password), logout_devices: Some(true), ..UserChange::default() };
            synapse::put_user(&service, &user, &change).await?;
        }
        Flavour::Conduit => {
            account::set_password(run, &user, epoch, &nobodys).await?;
            session.sign_out(run.events, &user).await?;
        }
    }
    let closed = AccountRecord { epoch: epoch + 1, closed: true };
    write_account(&service, &session.service_id, user.localpart(), closed).await?;
    Ok(true)
}

async fn leave_rooms(run: &Run<'_>, service: &Caller<'_>, user: &UserId) -> Result<(), CallError> {
    let rooms = match run.session.settings.flavour {
        Flavour::Synapse => synapse::joined_rooms(service, user).await?,
        Flavour::Conduit => {
            let caller = run.session.identity(run.events, user).await?;
            caller.send(joined_rooms::v3::Request::new()).await?.joined_rooms
        }
    };
    for id in rooms {
        run.session.identity(run.events, user).await?.send(leave_room::v3::Request::new(id)).await?;
    }
    Ok(())
}

/// Takes a room apart. What was said in it stays with the homeserver. `true`: something was written.
pub async fn room(run: &Run<'_>) -> Result<bool, Trouble> {
    let session = run.session;
    let name = &run.change.address.name;
    let service = session.service_or_make(run.events).await?;
    let Some(record) = read_room(&service, &session.service_id, name).await? else { return Ok(false) };
    let state = state(run, &service, &record).await?;
    check_unmoved(run, name, &record, state.as_ref())?;
    let alias = full_alias(session, name)?;
    if lookup(&service, &alias).await?.as_ref() == Some(&record.room_id) {
        match service.send(delete_alias::v3::Request::new(alias.clone())).await {
            Err(error) if error.is("M_FORBIDDEN") && state.is_some() => {
                let owner = state
                    .as_ref()
                    .and_then(|state| state.creator.clone())
                    .unwrap_or_else(|| session.service_id.clone());
                session.identity(run.events, &owner).await?.send(delete_alias::v3::Request::new(alias)).await?;
            }
            other => {
                other?;
            }
        }
    }
    if let Some(state) = &state {
        empty(run, &service, state, record.direct).await?;
    }
    write_room(&service, &session.service_id, name, None).await?;
    Ok(true)
}

/// The plan saw the room either whole (declared) or only as recorded.
fn check_unmoved(run: &Run<'_>, name: &str, record: &RoomRecord, state: Option<&RoomState>) -> Result<(), Trouble> {
    let whole: Option<Observed> =
        state.map(|state| room::observed(run.session, name, state, Some(record), record.direct));
    let recorded = observe::forgotten(record).version;
    match whole {
        Some(whole) if run.change.expect.as_deref() == Some(&whole.version) => Ok(()),
        _ => run.check_unmoved(Some(&recorded)),
    }
}

async fn state(run: &Run<'_>, service: &Caller<'_>, record: &RoomRecord) -> Result<Option<RoomState>, CallError> {
    let session = run.session;
    if session.settings.flavour == Flavour::Synapse || !record.direct {
        return room::read(session, service, record.room_id.clone()).await;
    }
    for member in &record.members {
        let member = session.identity(run.events, &crate::session::parsed(member)?).await?;
        if let Some(state) = room::read(session, &member, record.room_id.clone()).await? {
            return Ok(Some(state));
        }
    }
    Ok(None)
}

async fn empty(run: &Run<'_>, service: &Caller<'_>, state: &RoomState, direct: bool) -> Result<(), CallError> {
    let session = run.session;
    for user in state.joined().filter(|user| **user != session.service_id) {
        if direct {
            let member = session.identity(run.events, user).await?;
            leave_and_forget(&member, &state.id).await?;
        } else {
            service.send(kick_user::v3::Request::new(state.id.clone(), user.clone())).await?;
        }
    }
    if state.is(&session.service_id, &MembershipState::Join) {
        leave_and_forget(service, &state.id).await?;
    }
    Ok(())
}

async fn leave_and_forget(who: &Caller<'_>, room: &OwnedRoomId) -> Result<(), CallError> {
    who.send(leave_room::v3::Request::new(room.clone())).await?;
    who.send(forget_room::v3::Request::new(room.clone())).await.map(drop)
}
