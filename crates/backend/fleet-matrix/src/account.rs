//! Accounts: made, taken over, changed. Removal is in `delete`.

use fleet_plan::{AccountSpec, Desired, Health, Observed, RunState};
use fleet_secret::Secret;
use ruma::{
    OwnedUserId, UserId,
    api::client::{
        account::change_password,
        profile::{get_profile, set_profile_field},
        uiaa::{AuthData, Password, UiaaInfo},
    },
    profile::{DisplayName, ProfileFieldValue},
};

use crate::{
    Flavour, REGISTRATION_TOKEN_LABEL,
    error::CallError,
    http::Caller,
    provider::{Run, Trouble, version},
    record::{AccountRecord, read_account, write_account},
    register,
    session::parsed,
    synapse::{self, UserChange},
};

const UNRECORDED: &str = "its password may not be ours yet: somebody else made it, or an apply was interrupted";

/// An account as observed.
pub fn observed(user: &UserId, display_name: String, record: Option<AccountRecord>) -> Observed {
    let epoch = record.map_or(0, |record| record.epoch);
    let actual = Desired::Account(AccountSpec { matrix_id: user.to_string(), display_name, epoch });
    let unfinished = record.is_none().then(|| UNRECORDED.to_owned());
    Observed {
        hash: None,
        version: version(&actual, user.as_str(), unfinished.as_deref()),
        actual: Some(actual),
        run: RunState::Present,
        health: Health::None,
        id: user.to_string(),
        unfinished,
    }
}

/// The display name of an account, or `None` where there is no such account.
pub async fn display_name(caller: &Caller<'_>, user: &UserId) -> Result<Option<String>, CallError> {
    match caller.send(get_profile::v3::Request::new(user.to_owned())).await {
        Ok(profile) => Ok(Some(profile.get_static::<DisplayName>().ok().flatten().unwrap_or_default())),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Makes an account what is declared. `true`: something was written.
pub async fn converge(run: &Run<'_>, desired: &AccountSpec) -> Result<bool, Trouble> {
    let user = parsed(&desired.matrix_id)?;
    refuse_what_is_not_ours(run, &user)?;
    let service = run.session.service_or_make(run.events).await?;
    let mut record = read_account(&service, &run.session.service_id, user.localpart()).await?;
    let present = match run.session.settings.flavour {
        Flavour::Conduit => display_name(&service, &user).await?,
        Flavour::Synapse => synapse::user(&service, &user).await?.map(|found| {
            record = record.filter(|_| !found.deactivated);
            found.displayname.unwrap_or_default()
        }),
    };
    let seen = match (&present, record) {
        (Some(_), Some(AccountRecord { closed: true, .. })) | (None, _) => None,
        (Some(name), record) => Some(observed(&user, name.clone(), record)),
    };
    if seen.as_ref().is_some_and(|o| o.unfinished.is_none() && is_as_declared(o, desired)) {
        return Ok(false);
    }
    run.check_unmoved(seen.as_ref().map(|o| o.version.as_str()))?;
    let work = Work { run, service, user, desired, record };
    match run.session.settings.flavour {
        Flavour::Synapse => work.by_admin(present.as_deref()).await?,
        Flavour::Conduit => work.by_client(present.as_deref()).await?,
    }
    let record = AccountRecord { epoch: desired.epoch, closed: false };
    if work.record != Some(record) {
        write_account(&work.service, &run.session.service_id, work.user.localpart(), record).await?;
    }
    Ok(true)
}

fn is_as_declared(observed: &Observed, desired: &AccountSpec) -> bool {
    observed.actual.as_ref() == Some(&Desired::Account(desired.clone()))
}

fn refuse_what_is_not_ours(run: &Run<'_>, user: &UserId) -> Result<(), Trouble> {
    let domain = &run.session.settings.scope.domain;
    if *user == *run.session.service_id {
        return Err(Trouble::Foreign {
            why: format!("{user} is the operator's own account"),
            help: "give the person another id".to_owned(),
        });
    }
    if user.server_name() == domain.as_str() {
        return Ok(());
    }
    Err(Trouble::Foreign {
        why: format!("{user} does not belong to {domain}"),
        help: "an account can only be made on the fleet's own homeserver".to_owned(),
    })
}

struct Work<'a> {
    run: &'a Run<'a>,
    service: Caller<'a>,
    user: OwnedUserId,
    desired: &'a AccountSpec,
    record: Option<AccountRecord>,
}

impl Work<'_> {
    fn password(&self, epoch: u32) -> Secret {
        self.run.session.secret.password(self.user.as_str(), epoch)
    }

    /// The password is the right one already.
    fn keeps_password(&self) -> bool {
        self.record == Some(AccountRecord { epoch: self.desired.epoch, closed: false })
    }

    async fn by_admin(&self, present: Option<&str>) -> Result<(), CallError> {
        let secret = self.password(self.desired.epoch);
        let mut change = UserChange::default();
        if present.is_none() || !self.keeps_password() {
            change.password = Some(plain(&secret)?);
            // Sessions opened with a former password end; those of an account that is merely taken over go on.
            change.logout_devices = Some(self.record.is_some() && present.is_some());
            change.deactivated = Some(false);
        }
        if present != Some(self.desired.display_name.as_str()) {
            change.displayname = Some(&self.desired.display_name);
        }
        synapse::put_user(&self.service, &self.user, &change).await
    }

    async fn by_client(&self, present: Option<&str>) -> Result<(), CallError> {
        let session = self.run.session;
        if present.is_none() {
            let token = session.secret.key_for(REGISTRATION_TOKEN_LABEL);
            let anonymous = session.anonymous(self.run.events);
            match register::register(&anonymous, &self.user, &self.password(self.desired.epoch), &token).await {
                Err(error) if !error.is("M_USER_IN_USE") => return Err(error),
                _ => {}
            }
        } else if !self.keeps_password() {
            let new = self.password(self.desired.epoch);
            set_password(self.run, &self.user, self.record.unwrap_or_default().epoch, &new).await?;
        }
        if present != Some(self.desired.display_name.as_str()) {
            self.rename_as_itself().await?;
        }
        Ok(())
    }

    async fn rename_as_itself(&self) -> Result<(), CallError> {
        let caller = if self.keeps_password() {
            self.run.session.identity(self.run.events, &self.user).await?
        } else {
            self.run.session.identity_with(self.run.events, &self.user, self.desired.epoch).await?
        };
        let value = ProfileFieldValue::DisplayName(self.desired.display_name.clone());
        caller.send(set_profile_field::v3::Request::new(self.user.clone(), value)).await.map(drop)
    }
}

/// Changes a password by the client-server API, as the account itself, and ends its other sessions. `epoch`: that of
/// the password as recorded; the identity is signed in on return.
pub async fn set_password(run: &Run<'_>, user: &UserId, epoch: u32, new: &Secret) -> Result<(), CallError> {
    let caller = run.session.identity_with(run.events, user, epoch).await?;
    let request = |auth| -> Result<_, CallError> {
        let mut request = change_password::v3::Request::new(plain(new)?.to_owned());
        request.auth = auth;
        Ok(request)
    };
    let refusal = match caller.send(request(None)?).await {
        Ok(_) => return Ok(()),
        Err(refusal) => refusal,
    };
    let CallError::Refused { status: 401, body, .. } = &refusal else { return Err(refusal) };
    let Ok(asked) = serde_json::from_slice::<UiaaInfo>(body) else { return Err(refusal) };
    for epoch in [epoch, epoch + 1] {
        let old = run.session.secret.password(user.as_str(), epoch);
        let mut proof = Password::new(user.to_owned().into(), plain(&old)?.to_owned());
        proof.session.clone_from(&asked.session);
        match caller.send(request(Some(AuthData::Password(proof)))?).await {
            Ok(_) => return Ok(()),
            Err(CallError::Refused { status: 401 | 403, .. }) => {}
            Err(error) => return Err(error),
        }
    }
    Err(CallError::WrongSecret { account: user.to_string() })
}

fn plain(secret: &Secret) -> Result<&str, CallError> {
    secret.expose_str().map_err(|e| CallError::Local(e.to_string()))
}
