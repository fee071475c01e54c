//! [`log_in`]: one login on one fixed device; a token that still works is used again.

use std::{path::Path, time::Duration};

use fleet_secret::Secret;
use ruma::{
    OwnedUserId, UserId,
    api::client::{
        account::{register, whoami},
        session::login,
        uiaa::{AuthData, Dummy},
    },
};
use serde::{Deserialize, Serialize};

use crate::{
    backoff,
    folder::{Entry, Folder},
    homeserver::{CallError, Homeserver},
    log, secrets,
    settings::{InputError, Settings},
    status::{State, Status},
};

const LONGEST_PAUSE: Duration = Duration::from_secs(15);
/// A wait is said again only so often.
const SAY_AGAIN: u32 = 20;
const TOKEN_FILE: &str = "token.json";

/// Logged in.
pub struct Session {
    /// The homeserver.
    pub homeserver: Homeserver,
    /// As whom.
    pub user: OwnedUserId,
    /// On which device.
    pub device: String,
    /// With which token.
    pub token: Secret,
}

#[derive(Serialize, Deserialize)]
struct Saved {
    schema: u32,
    homeserver: String,
    user_id: String,
    device_id: String,
    access_token: String,
}

impl Session {
    /// Whether the homeserver still takes our token.
    ///
    /// # Errors
    /// [`CallError`]; [`CallError::is_signed_out`] when it does not.
    pub async fn check(&self) -> Result<(), CallError> {
        self.homeserver.call(whoami::v3::Request::new(), Some(&self.token)).await.map(drop)
    }
}

/// Waits for the homeserver and logs in; tries for as long as it takes. The password is read only when it is needed
/// and gone when this returns.
///
/// # Errors
/// Only for what waiting cannot mend: a password file that is missing, a token that cannot be kept.
pub async fn log_in(settings: &Settings, own: &Folder, status: &Status) -> Result<Session, InputError> {
    let homeserver = Homeserver::new(&settings.homeserver);
    let wrong = |e: &dyn std::fmt::Display| InputError::wrong(Path::new(&settings.matrix_id), e);
    let user = UserId::parse(settings.matrix_id.as_str()).map_err(|e| wrong(&e))?;
    let mut attempt = 0;
    loop {
        let error = match enter(settings, own, &homeserver, &user).await {
            Ok(session) => return Ok(session),
            Err(Refusal::Input(error)) => return Err(error),
            Err(Refusal::Call(error)) => error,
        };
        let (state, what) = match &error {
            CallError::Unreachable(_) => (State::WaitingForHomeserver, "waiting for the homeserver"),
            _ => (State::LoggingIn, "cannot log in; trying again"),
        };
        if status.set(state, error.to_string()) || attempt % SAY_AGAIN == 0 {
            log::warn(what, &[("url", &settings.homeserver), ("user", &user), ("why", &error)]);
        }
        let pause = backoff::retry(attempt, LONGEST_PAUSE, fastrand::f64());
        tokio::time::sleep(error.wait().unwrap_or(pause).max(pause)).await;
        attempt += 1;
    }
}

enum Refusal {
    Input(InputError),
    Call(CallError),
}

impl From<CallError> for Refusal {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<InputError> for Refusal {
    fn from(error: InputError) -> Self {
        Self::Input(error)
    }
}

async fn enter(settings: &Settings, own: &Folder, homeserver: &Homeserver, user: &UserId) -> Result<Session, Refusal> {
    homeserver.alive().await?;
    let session =
        |device: String, token| Session { homeserver: homeserver.clone(), user: user.to_owned(), device, token };
    if let Some(saved) = saved(settings, own) {
        let session = session(saved.device_id, Secret::new(saved.access_token));
        match session.check().await {
            Ok(()) => {
                log::info("the kept login is still good", &[("user", &user), ("device", &session.device)]);
                return Ok(session);
            }
            Err(error) if error.is_signed_out() => log::info("the kept login is no longer good", &[("user", &user)]),
            Err(error) => return Err(error.into()),
        }
    }
    let password = secrets::read(&secrets::password_path(settings), "the account's password")?;
    let answer = match by_password(settings, homeserver, user, &password).await {
        Err(CallError::Refused { status: 403, .. }) if settings.register => {
            register_account(homeserver, user, &password).await?;
            log::info("account registered", &[("user", &user)]);
            by_password(settings, homeserver, user, &password).await?
        }
        answer => answer?,
    };
    let session = session(answer.device_id.to_string(), Secret::new(answer.access_token));
    keep(settings, own, &session)?;
    log::info("logged in", &[("user", &user), ("device", &session.device)]);
    Ok(session)
}

async fn by_password(
    settings: &Settings,
    homeserver: &Homeserver,
    user: &UserId,
    password: &Secret,
) -> Result<login::v3::Response, CallError> {
    let info = login::v3::LoginInfo::Password(login::v3::Password::new(user.to_owned().into(), text(password)?));
    let mut request = login::v3::Request::new(info);
    request.device_id = Some(settings.device_id.as_str().into());
    request.initial_device_display_name = Some("fleet-agent".to_owned());
    homeserver.call(request, None).await
}

async fn register_account(homeserver: &Homeserver, user: &UserId, password: &Secret) -> Result<(), CallError> {
    let mut request = register::v3::Request::new();
    request.username = Some(user.localpart().to_owned());
    request.password = Some(text(password)?);
    request.inhibit_login = true;
    request.auth = Some(AuthData::Dummy(Dummy::new()));
    homeserver.call(request, None).await.map(drop)
}

fn text(password: &Secret) -> Result<String, CallError> {
    password.expose_str().map(str::to_owned).map_err(|e| CallError::Garbled(e.to_string()))
}

/// The kept login, when it is of this account on this homeserver and can be read at all.
fn saved(settings: &Settings, own: &Folder) -> Option<Saved> {
    if own.entry(TOKEN_FILE).ok()? != Entry::File {
        return None;
    }
    let saved: Saved = serde_json::from_slice(&own.read(TOKEN_FILE).ok()?).ok()?;
    let ours = saved.user_id == settings.matrix_id
        && saved.homeserver == settings.homeserver
        && saved.device_id == settings.device_id;
    ours.then_some(saved)
}

fn keep(settings: &Settings, own: &Folder, session: &Session) -> Result<(), InputError> {
    let path = settings.data_dir.join(TOKEN_FILE);
    let wrong = |e: &dyn std::fmt::Display| InputError::wrong(&path, format!("the login cannot be kept: {e}"));
    let saved = Saved {
        schema: 1,
        homeserver: settings.homeserver.clone(),
        user_id: session.user.to_string(),
        device_id: session.device.clone(),
        access_token: session.token.expose_str().map_err(|e| wrong(&e))?.to_owned(),
    };
    let bytes = serde_json::to_vec(&saved).map_err(|e| wrong(&e))?;
    own.write(TOKEN_FILE, &bytes, 0o600).map_err(|e| wrong(&e))
}
