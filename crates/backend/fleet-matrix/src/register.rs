//! Making an account where there is no admin API: registration with the fleet's token, which strangers do not have.

use fleet_secret::Secret;
use ruma::{
    UserId,
    api::client::{
        account::register,
        uiaa::{AuthData, AuthType, Dummy, RegistrationToken, UiaaInfo},
    },
};

use crate::{error::CallError, http::Caller};

/// Stages of a registration before we give up on a server that keeps asking.
const STAGES: usize = 4;

/// Registers without logging in. The first account of a Conduit becomes its administrator.
pub async fn register(
    anonymous: &Caller<'_>,
    user: &UserId,
    password: &Secret,
    token: &Secret,
) -> Result<(), CallError> {
    let plain = |secret: &Secret| secret.expose_str().map(str::to_owned).map_err(|e| CallError::Local(e.to_string()));
    let mut auth = None;
    for _ in 0..STAGES {
        let mut request = register::v3::Request::new();
        request.username = Some(user.localpart().to_owned());
        request.password = Some(plain(password)?);
        request.inhibit_login = true;
        request.auth = auth.take();
        let refusal = match anonymous.send(request).await {
            Ok(_) => return Ok(()),
            Err(refusal) => refusal,
        };
        let CallError::Refused { status: 401, body, .. } = &refusal else { return Err(refusal) };
        let Ok(asked) = serde_json::from_slice::<UiaaInfo>(body) else { return Err(refusal) };
        if asked.auth_error.is_some() {
            return Err(refusal);
        }
        auth = Some(next_stage(&asked, plain(token)?).ok_or(refusal)?);
    }
    Err(CallError::Local(format!("the homeserver asks for more than {STAGES} stages to register {user}")))
}

fn next_stage(asked: &UiaaInfo, token: String) -> Option<AuthData> {
    let known = |stage: &&AuthType| matches!(stage, AuthType::RegistrationToken | AuthType::Dummy);
    let flow = asked.flows.iter().find(|flow| flow.stages.iter().all(|stage| known(&stage)))?;
    Some(match flow.stages.iter().find(|stage| !asked.completed.contains(stage))? {
        AuthType::RegistrationToken => {
            let mut data = RegistrationToken::new(token);
            data.session.clone_from(&asked.session);
            AuthData::RegistrationToken(data)
        }
        _ => {
            let mut data = Dummy::new();
            data.session.clone_from(&asked.session);
            AuthData::Dummy(data)
        }
    })
}
