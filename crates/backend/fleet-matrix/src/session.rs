//! [`Session`]: who we are to the homeserver during one run: the service account with its kept token, and identities
//! that are used only where something must be written as them.
//!
//! The service account's token lives in a file that only its owner reads, on one fixed device; it logs in again only
//! when that token is refused ([`Login::Kept`]). Every other identity is signed in once per run and signed out by `finish`.

use std::{
    collections::BTreeMap,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    time::Duration,
};

use fleet_apply::Events;
use fleet_secret::{FleetSecret, Secret};
use ruma::{
    OwnedUserId, UserId,
    api::client::{
        account::whoami,
        discovery::get_capabilities,
        profile::get_profile,
        session::{login, logout},
    },
};
use tokio::sync::{Mutex, OnceCell};

use crate::{
    Flavour, Login, REGISTRATION_TOKEN_LABEL, SHARED_SECRET_LABEL, Settings,
    error::CallError,
    http::{Caller, Http},
    record::{AccountRecord, read_account},
    register,
    state::privileges_creators,
    synapse,
};

/// Local part of the operator's service account: the first account on a homeserver, and its administrator.
pub const SERVICE_LOCALPART: &str = "fleetctl";

/// Device of every login of [`Login::Kept`]: one, so that no devices pile up.
pub const DEVICE: &str = "FLEETCTL";

/// Device of every login of [`Login::ForOneRun`]: what a run that was killed leaves goes with the next one.
const GUEST_DEVICE: &str = "FLEETCTL-GUEST";

/// What stays the same during a run.
pub struct Session {
    pub settings: Settings,
    pub secret: FleetSecret,
    pub service_id: OwnedUserId,
    http: Http,
    service: Mutex<Option<Secret>>,
    identities: Mutex<BTreeMap<OwnedUserId, Secret>>,
    sovereign: OnceCell<bool>,
    /// Tokens that nobody uses any more; [`Session::finish`] signs them out.
    retired: Mutex<Vec<Secret>>,
    times_signed_out: Mutex<u64>,
}

impl Session {
    pub fn new(settings: Settings, secret: FleetSecret) -> Result<Self, CallError> {
        Ok(Self {
            service_id: user_id(SERVICE_LOCALPART, &settings.scope.domain)?,
            http: Http::new(&settings.url)?,
            settings,
            secret,
            service: Mutex::new(None),
            identities: Mutex::new(BTreeMap::new()),
            sovereign: OnceCell::new(),
            retired: Mutex::default(),
            times_signed_out: Mutex::new(0),
        })
    }

    /// A way to the homeserver without a token.
    pub fn anonymous<'a>(&'a self, events: &'a dyn Events) -> Caller<'a> {
        Caller::anonymous(&self.http, events)
    }

    /// In rooms that this server makes now, the creator must not be listed in the power levels. Asked once per run.
    pub async fn makes_sovereign_rooms(&self, service: &Caller<'_>) -> Result<bool, CallError> {
        let ask = async || {
            let answer = service.send(get_capabilities::v3::Request::new()).await?;
            Ok::<_, CallError>(privileges_creators(&answer.capabilities.room_versions.default))
        };
        self.sovereign.get_or_try_init(ask).await.copied()
    }

    /// The service account, or `None` where it does not exist yet.
    pub async fn service<'a>(&'a self, events: &'a dyn Events) -> Result<Option<Caller<'a>>, CallError> {
        let mut kept = self.service.lock().await;
        if let Some(token) = &*kept {
            return Ok(Some(self.anonymous(events).with_token(token.clone())));
        }
        let token = match self.token_that_works(events).await? {
            Some(token) => token,
            None if self.exists(events).await? => self.login_service(events).await?,
            None => return Ok(None),
        };
        *kept = Some(token.clone());
        Ok(Some(self.anonymous(events).with_token(token)))
    }

    /// The service account, made first where it does not exist yet.
    pub async fn service_or_make<'a>(&'a self, events: &'a dyn Events) -> Result<Caller<'a>, CallError> {
        if let Some(service) = self.service(events).await? {
            return Ok(service);
        }
        let mut kept = self.service.lock().await;
        let token = match &*kept {
            Some(token) => token.clone(), // another task was quicker
            None => {
                self.make_service(events).await?;
                self.login_service(events).await?
            }
        };
        *kept = Some(token.clone());
        Ok(self.anonymous(events).with_token(token))
    }

    async fn make_service(&self, events: &dyn Events) -> Result<(), CallError> {
        let password = self.secret.password(self.service_id.as_str(), 0);
        let anonymous = self.anonymous(events);
        let made = match self.settings.flavour {
            Flavour::Synapse => {
                let shared = self.secret.key_for(SHARED_SECRET_LABEL);
                synapse::register_admin(&anonymous, SERVICE_LOCALPART, &password, &shared).await.map(drop)
            }
            Flavour::Conduit => {
                let token = self.secret.key_for(REGISTRATION_TOKEN_LABEL);
                register::register(&anonymous, &self.service_id, &password, &token).await
            }
        };
        match made {
            // The answer of an earlier attempt was lost.
            Err(error) if error.is("M_USER_IN_USE") => Ok(()),
            other => other,
        }
    }

    /// Where the service account's token is kept.
    fn kept_in(&self) -> Option<&PathBuf> {
        match &self.settings.login {
            Login::Kept(file) => Some(file),
            Login::ForOneRun => None,
        }
    }

    async fn login(&self, events: &dyn Events, user: &UserId, password: &Secret) -> Result<Secret, CallError> {
        let password = password.expose_str().map_err(|e| CallError::Local(e.to_string()))?.to_owned();
        let info = login::v3::LoginInfo::Password(login::v3::Password::new(user.to_owned().into(), password));
        let mut request = login::v3::Request::new(info);
        request.device_id = Some(self.kept_in().map_or(GUEST_DEVICE, |_| DEVICE).into());
        request.initial_device_display_name = Some("fleetctl".to_owned());
        Ok(Secret::new(self.anonymous(events).send(request).await?.access_token))
    }

    async fn token_that_works(&self, events: &dyn Events) -> Result<Option<Secret>, CallError> {
        let Some(token) = self.kept_in().and_then(|file| std::fs::read_to_string(file).ok()) else { return Ok(None) };
        let token = Secret::new(token.trim().to_owned());
        match self.anonymous(events).with_token(token.clone()).send(whoami::v3::Request::new()).await {
            Ok(who) if who.user_id == self.service_id => Ok(Some(token)),
            Ok(_) => Ok(None),
            Err(error) if error.is_signed_out() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn exists(&self, events: &dyn Events) -> Result<bool, CallError> {
        match self.anonymous(events).send(get_profile::v3::Request::new(self.service_id.clone())).await {
            Ok(_) => Ok(true),
            Err(error) if error.is_missing() => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn login_service(&self, events: &dyn Events) -> Result<Secret, CallError> {
        let password = self.secret.password(self.service_id.as_str(), 0);
        let token = self.login(events, &self.service_id, &password).await.map_err(|error| {
            if error.is("M_FORBIDDEN") {
                CallError::WrongSecret { account: self.service_id.to_string() }
            } else {
                error
            }
        })?;
        self.kept_in().map_or(Ok(()), |file| keep(file, &token))?;
        Ok(token)
    }

    /// Another account, for what must be written as it. Signed in once per run.
    pub async fn identity<'a>(&'a self, events: &'a dyn Events, user: &UserId) -> Result<Caller<'a>, CallError> {
        let mut known = self.identities.lock().await;
        let token = match known.get(user) {
            Some(token) => token.clone(),
            None => {
                let token = self.sign_in(events, user).await?;
                known.insert(user.to_owned(), token.clone());
                token
            }
        };
        Ok(self.anonymous(events).with_token(token))
    }

    /// The same by a password of a known epoch, where there is no admin API to borrow an identity from.
    pub async fn identity_with<'a>(
        &'a self,
        events: &'a dyn Events,
        user: &UserId,
        epoch: u32,
    ) -> Result<Caller<'a>, CallError> {
        let mut known = self.identities.lock().await;
        let token = match known.get(user) {
            Some(token) => token.clone(),
            None => {
                let token = self.login_as(events, user, epoch).await?;
                known.insert(user.to_owned(), token.clone());
                token
            }
        };
        Ok(self.anonymous(events).with_token(token))
    }

    async fn sign_in(&self, events: &dyn Events, user: &UserId) -> Result<Secret, CallError> {
        let service = self.service_or_make(events).await?;
        if self.settings.flavour == Flavour::Synapse {
            return synapse::borrow_identity(&service, user).await;
        }
        let AccountRecord { epoch, .. } =
            read_account(&service, &self.service_id, user.localpart()).await?.unwrap_or_default();
        self.login_as(events, user, epoch).await
    }

    /// By password. A run that was killed between a new password and its record leaves the next epoch's.
    async fn login_as(&self, events: &dyn Events, user: &UserId, epoch: u32) -> Result<Secret, CallError> {
        let mut refusal = CallError::WrongSecret { account: user.to_string() };
        for epoch in [epoch, epoch + 1] {
            match self.login(events, user, &self.secret.password(user.as_str(), epoch)).await {
                Err(error) if error.is("M_FORBIDDEN") => refusal = CallError::WrongSecret { account: user.to_string() },
                other => return other,
            }
        }
        Err(refusal)
    }

    /// Signs one identity out.
    pub async fn sign_out(&self, events: &dyn Events, user: &UserId) -> Result<(), CallError> {
        match self.identities.lock().await.remove(user) {
            Some(token) => leave(&self.anonymous(events).with_token(token)).await,
            None => Ok(()),
        }
    }

    /// Signs every identity out; a service account whose token is kept stays signed in. Tries all of them and returns the
    /// first failure.
    pub async fn finish(&self, events: &dyn Events) -> Result<(), CallError> {
        let mut tokens = std::mem::take(&mut *self.retired.lock().await);
        tokens.extend(std::mem::take(&mut *self.identities.lock().await).into_values());
        if self.kept_in().is_none() {
            // The last: where there is an admin API, identities are borrowed through it.
            tokens.extend(self.service.lock().await.take());
        }
        let mut outcome = Ok(());
        for token in tokens {
            outcome = outcome.and(leave(&self.anonymous(events).with_token(token)).await);
        }
        outcome
    }

    /// How often we were signed out so far.
    pub async fn times_signed_out(&self) -> u64 {
        *self.times_signed_out.lock().await
    }

    /// Forgets who we were, some token of which is no longer good; the next call signs in again. Tokens that still are good,
    /// and that others are using, stay so until the end of the run. Of several that were signed out together, who knew the
    /// same `times` of it, the first does this.
    pub async fn forget(&self, times: u64) {
        let mut now = self.times_signed_out.lock().await;
        if *now == times {
            *now += 1;
            let identities = std::mem::take(&mut *self.identities.lock().await);
            self.retired.lock().await.extend(identities.into_values());
            self.service.lock().await.take();
        }
    }
}

async fn leave(caller: &Caller<'_>) -> Result<(), CallError> {
    match caller.send(logout::v3::Request::new()).await {
        Err(error) if !error.is_signed_out() => Err(error),
        _ => Ok(()),
    }
}

/// Writes a token where only its owner reads it, all or nothing.
fn keep(file: &Path, token: &Secret) -> Result<(), CallError> {
    let failed = |e: std::io::Error| {
        CallError::Local(format!("the token of the service account cannot be kept in {}: {e}", file.display()))
    };
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).map_err(failed)?;
    }
    let draft = file.with_extension(format!("{}.new", std::process::id()));
    let _ = std::fs::remove_file(&draft);
    let mut open = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).map_err(failed)?;
    open.write_all(token.expose()).map_err(failed)?;
    std::fs::rename(&draft, file).map_err(failed)
}

/// A timeout for an initial sync, which does not wait. Synapse answers an initial sync from a cache of two minutes when
/// one with the same parameters was asked before, and this is the parameter that means nothing there.
pub fn uncached() -> Duration {
    Duration::from_millis(fastrand::u64(1..2000))
}

/// `@localpart:domain`.
pub fn user_id(localpart: &str, domain: &str) -> Result<OwnedUserId, CallError> {
    parsed(&format!("@{localpart}:{domain}"))
}

/// A Matrix id that came as text.
pub fn parsed(id: &str) -> Result<OwnedUserId, CallError> {
    UserId::parse(id).map_err(|e| CallError::Local(format!("`{id}` is not a Matrix id: {e}")))
}
