//! [`AwsError`]: why a call failed, for a person at three in the morning.

use aws_smithy_runtime_api::client::{orchestrator::HttpResponse, result::SdkError};
use aws_smithy_types::error::{display::DisplayErrorContext, metadata::ProvideErrorMetadata};
use fleet_apply::{ProviderError, causes::innermost};
use fleet_model::Address;

/// Credentials that AWS does not take.
const BAD_CREDENTIALS: [&str; 9] = [
    "AuthFailure",
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];
/// A machine whose clock is wrong.
const BAD_CLOCK: [&str; 2] = ["RequestExpired", "RequestTimeTooSkewed"];
/// What services say under the code of a wrong signature when it was the time in it that was wrong (IAM user guide,
/// "Troubleshoot Signature Version 4").
const OUT_OF_TIME: [&str; 2] = ["Signature expired", "Signature not yet current"];
/// Too many calls, still after every attempt.
const THROTTLED: [&str; 5] =
    ["RequestLimitExceeded", "ServiceUnavailable", "SlowDown", "Throttling", "ThrottlingException"];

/// Errors of a service itself.
const INTERNAL: [&str; 4] = ["InternalError", "InternalFailure", "InternalServerError", "ServerException"];

/// Why a call to AWS failed.
#[derive(Debug, thiserror::Error)]
pub enum AwsError {
    /// No answer.
    #[error("{call} got no answer: {why}")]
    Unreachable {
        /// The call.
        call: &'static str,
        /// Why.
        why: String,
    },
    /// Too many calls, also after all attempts.
    #[error("{call} was throttled {why}")]
    Throttled {
        /// The call.
        call: &'static str,
        /// What AWS says.
        why: String,
    },
    /// There are no credentials.
    #[error(
        "no AWS credentials were found ({why}); set AWS_PROFILE to a profile, sign in with `aws sso login`, or set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
    )]
    NoCredentials {
        /// Where was looked.
        why: String,
    },
    /// AWS does not take the credentials.
    #[error("AWS does not accept the credentials: {why}; sign in again, then run the same command")]
    BadCredentials {
        /// What AWS says.
        why: String,
    },
    /// The clock of this machine is wrong.
    #[error("the clock of this machine is wrong: {why}; set it, then run the same command")]
    BadClock {
        /// What AWS says.
        why: String,
    },
    /// Not allowed.
    #[error("{call} is not allowed: {why}")]
    Denied {
        /// The call.
        call: &'static str,
        /// What AWS says: who may not do what, and which policy is in the way.
        why: String,
    },
    /// Credentials of another account.
    #[error(
        "the credentials are of account {found} ({who}), and the environment is in account {declared}: nothing was changed"
    )]
    OtherAccount {
        /// Whose they are.
        found: String,
        /// Which was declared.
        declared: String,
        /// Who we are.
        who: String,
    },
    /// AWS answers with an error.
    #[error("{call}: {why} ({code})")]
    Refused {
        /// The call.
        call: &'static str,
        /// AWS's code.
        code: String,
        /// AWS's message.
        why: String,
    },
}

impl AwsError {
    /// What a failed call means.
    pub(crate) fn of<E>(call: &'static str, error: SdkError<E, HttpResponse>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + Send + Sync + 'static,
    {
        let why = error.message().map(str::to_owned);
        let Some(code) = error.code().map(str::to_owned) else {
            let why = DisplayErrorContext(&error).to_string();
            return if why.contains("credentials") && !matches!(error, SdkError::ServiceError(_)) {
                Self::NoCredentials { why: innermost(&error) }
            } else {
                Self::Unreachable { call, why: innermost(&error) }
            };
        };
        Self::by_code(call, code, why.unwrap_or_else(|| "without a reason".to_owned()))
    }

    /// What an error of AWS means, by its code.
    pub(crate) fn by_code(call: &'static str, code: String, why: String) -> Self {
        let is = |codes: &[&str]| codes.contains(&code.as_str());
        match () {
            () if is(&BAD_CLOCK) || OUT_OF_TIME.iter().any(|words| why.contains(words)) => Self::BadClock { why },
            () if is(&BAD_CREDENTIALS) => Self::BadCredentials { why },
            () if is(&THROTTLED) => Self::Throttled { call, why },
            () if code.starts_with("AccessDenied") || code == "UnauthorizedOperation" => Self::Denied { call, why },
            () => Self::Refused { call, code, why },
        }
    }

    /// Nobody knows whether it was done: no answer, or an error of the service itself.
    pub(crate) fn may_be_done(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { code, .. } => INTERNAL.contains(&code.as_str()) || code.starts_with("50"),
            _ => false,
        }
    }

    /// AWS's message, where it answered with one.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Refused { why, .. } => why,
            _ => "",
        }
    }

    /// AWS's code, where it answered with one.
    pub(crate) fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    /// As the engine sees it.
    #[must_use]
    pub fn about(self, address: &Address) -> ProviderError {
        let system = "AWS".to_owned();
        match self {
            Self::Unreachable { .. } | Self::Throttled { .. } => {
                ProviderError::Unreachable { system, why: self.to_string() }
            }
            Self::NoCredentials { .. }
            | Self::BadCredentials { .. }
            | Self::BadClock { .. }
            | Self::Denied { .. }
            | Self::OtherAccount { .. } => ProviderError::Denied { system, why: self.to_string() },
            Self::Refused { .. } => ProviderError::failed(address, self.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_clock_is_told_from_wrong_credentials() {
        let early = "Signature not yet current: 20260101T010000Z is still later than 20260101T000000Z";
        for (code, why, clock) in [
            ("InvalidSignatureException", early, true),
            ("SignatureDoesNotMatch", "Signature expired: 20260101T000000Z is now earlier than 20260101T010000Z", true),
            (
                "RequestTimeTooSkewed",
                "The difference between the request time and the current time is too large.",
                true,
            ),
            (
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
                false,
            ),
            ("ExpiredTokenException", "The security token included in the request is expired", false),
        ] {
            let error = AwsError::by_code("DescribeStacks", code.to_owned(), why.to_owned());
            assert_eq!(matches!(error, AwsError::BadClock { .. }), clock, "{error}");
            assert_eq!(matches!(error, AwsError::BadCredentials { .. }), !clock, "{error}");
        }
    }
}
