//! [`Homeserver`]: calls of the Matrix client-server API as one identity, with ruma's types.

use std::{borrow::Cow, collections::BTreeSet, time::Duration};

use fleet_secret::Secret;
use ruma::api::{
    IncomingResponse, MatrixVersion, OutgoingRequest, OutgoingRequestExt, SupportedVersions,
    auth_scheme::{AuthScheme, SendAccessToken},
    path_builder::PathBuilder,
};
use serde::Deserialize;

use crate::http::{self, SendError};

/// How long one call may take; logging in costs a homeserver a deliberately slow hash.
const PATIENCE: Duration = Duration::from_secs(30);

/// A call that was not answered as hoped. Never carries a token or password.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No answer at all.
    #[error("the homeserver does not answer: {0}")]
    Unreachable(#[from] SendError),
    /// An answer, but no.
    #[error("the homeserver refuses: {status} {errcode} {message}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// `M_FORBIDDEN`…
        errcode: String,
        /// Its words.
        message: String,
        /// How long it asks us to wait.
        wait: Option<Duration>,
    },
    /// Neither.
    #[error("the homeserver's answer is not understood: {0}")]
    Garbled(String),
}

impl CallError {
    /// The token is not (or no longer) valid.
    pub fn is_signed_out(&self) -> bool {
        matches!(self, Self::Refused { status: 401, .. })
    }

    /// How long the homeserver asked us to wait before we try again.
    pub fn wait(&self) -> Option<Duration> {
        if let Self::Refused { wait, .. } = self { *wait } else { None }
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Said {
    errcode: String,
    error: String,
    retry_after_ms: Option<u64>,
}

/// The fleet's homeserver.
#[derive(Clone, Debug)]
pub struct Homeserver {
    base: String,
}

impl Homeserver {
    /// By its base URL.
    pub fn new(base: &str) -> Self {
        Self { base: base.trim_end_matches('/').to_owned() }
    }

    /// Whether it answers at all.
    ///
    /// # Errors
    /// [`CallError`] when it does not, or not with success.
    pub async fn alive(&self) -> Result<(), CallError> {
        let answer = http::get(&format!("{}/_matrix/client/versions", self.base), Duration::from_secs(5)).await?;
        if answer.status().is_success() { Ok(()) } else { Err(refused(answer.status().as_u16(), answer.body())) }
    }

    /// Calls an endpoint, as somebody when there is a token.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<R>(&self, request: R, token: Option<&Secret>) -> Result<R::IncomingResponse, CallError>
    where
        R: OutgoingRequest,
        for<'t> R::Authentication: AuthScheme<Input<'t> = SendAccessToken<'t>>,
        for<'t> R::PathBuilder: PathBuilder<Input<'t> = Cow<'t, SupportedVersions>>,
    {
        let token = token.map(Secret::expose_str).transpose().map_err(|e| CallError::Garbled(e.to_string()))?;
        let auth = token.map_or(SendAccessToken::None, SendAccessToken::Always);
        let versions = SupportedVersions { versions: BTreeSet::from([MatrixVersion::V1_5]), features: BTreeSet::new() };
        let request = request
            .try_into_http_request(&self.base, auth, Cow::Owned(versions))
            .map_err(|e| CallError::Garbled(e.to_string()))?;
        let answer = http::send(request, PATIENCE).await?;
        if answer.status().as_u16() >= 400 {
            return Err(refused(answer.status().as_u16(), answer.body()));
        }
        let answer = ::http::Response::new(answer.body().as_ref());
        R::IncomingResponse::try_from_http_response_inner(answer).map_err(|e| CallError::Garbled(e.to_string()))
    }
}

fn refused(status: u16, body: &[u8]) -> CallError {
    let said: Said = serde_json::from_slice(body).unwrap_or_default();
    let wait = said.retry_after_ms.map(Duration::from_millis);
    CallError::Refused { status, errcode: said.errcode, message: said.error, wait }
}
