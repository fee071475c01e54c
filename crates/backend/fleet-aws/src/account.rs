//! [`Account`]: one account in one region, with a client per service.

use std::{sync::Arc, time::Duration};

use aws_config::{BehaviorVersion, Region, SdkConfig, retry::RetryConfig, timeout::TimeoutConfig};
use aws_credential_types::{Credentials, provider::SharedCredentialsProvider};
use fleet_apply::Events;

use crate::{calls::CallLog, error::AwsError, signed::Signed};

/// Attempts of one call in all. The SDK pauses between them, longer each time, and slows down all of a client's calls
/// when AWS throttles (adaptive mode).
pub(crate) const ATTEMPTS: u32 = 6;
/// The longest pause between two attempts.
pub(crate) const LONGEST_PAUSE: Duration = Duration::from_secs(20);
/// How long a connection may take to be made.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long one attempt may take until its answer begins.
pub(crate) const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(60);

/// Where an environment is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// 12 digits.
    pub account: String,
    /// For instance `us-east-1`.
    pub region: String,
    /// In place of AWS's own addresses: an emulator. No credentials of the operator are sent to it.
    pub endpoint: Option<String>,
}

impl Place {
    /// Host of the account's image registry.
    #[must_use]
    pub fn registry(&self) -> String {
        format!("{}.dkr.ecr.{}.{}", self.account, self.region, suffix(&self.region))
    }

    /// Where a bucket is found by others than its own client.
    pub(crate) fn bucket_address(&self, bucket: &str) -> String {
        match &self.endpoint {
            Some(endpoint) => format!("{}/{bucket}", endpoint.trim_end_matches('/')),
            None => format!("https://{bucket}.s3.{}.{}", self.region, suffix(&self.region)),
        }
    }
}

/// How names of AWS's hosts in a region end.
pub(crate) fn suffix(region: &str) -> &'static str {
    if region.starts_with("cn-") { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// Who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's, or the role's session.
    pub arn: String,
}

/// One account in one region.
#[derive(Clone)]
pub struct Account {
    /// Where it is.
    pub place: Place,
    pub(crate) cloudformation: aws_sdk_cloudformation::Client,
    pub(crate) ecr: aws_sdk_ecr::Client,
    /// For services of which few calls are needed.
    pub(crate) signed: Arc<Signed>,
    /// Who signs calls that no client of the SDK makes.
    pub(crate) credentials: Option<SharedCredentialsProvider>,
    pub(crate) events: Arc<dyn Events>,
    identity: aws_sdk_sts::Client,
}

impl Account {
    /// Clients for a place; nothing is asked yet. Credentials come from where the AWS command line has them: variables,
    /// profiles, single sign-on, web identity, the machine. `events` hears of every call.
    pub async fn open(place: Place, events: Arc<dyn Events>) -> Self {
        let timeouts = TimeoutConfig::builder().connect_timeout(CONNECT_TIMEOUT).read_timeout(ATTEMPT_TIMEOUT).build();
        let retries = RetryConfig::adaptive().with_max_attempts(ATTEMPTS).with_max_backoff(LONGEST_PAUSE);
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .region(Region::new(place.region.clone()))
            .timeout_config(timeouts)
            .retry_config(retries);
        if let Some(endpoint) = &place.endpoint {
            // An emulator takes the account from the key.
            let nobody = Credentials::new(&place.account, "emulated", None, None, "emulator");
            loader = loader.endpoint_url(endpoint).credentials_provider(nobody);
        }
        let shared: SdkConfig = loader.load().await;
        let signed = Signed::new(place.clone(), shared.credentials_provider(), Arc::clone(&events));
        let log = CallLog::new(Arc::clone(&events));
        Self {
            credentials: shared.credentials_provider(),
            events,
            cloudformation: aws_sdk_cloudformation::Client::from_conf(
                aws_sdk_cloudformation::config::Builder::from(&shared).interceptor(log.clone()).build(),
            ),
            ecr: aws_sdk_ecr::Client::from_conf(
                aws_sdk_ecr::config::Builder::from(&shared).interceptor(log.clone()).build(),
            ),
            identity: aws_sdk_sts::Client::from_conf(
                aws_sdk_sts::config::Builder::from(&shared).interceptor(log).build(),
            ),
            signed: Arc::new(signed),
            place,
        }
    }

    /// Asks who we are, and refuses any account but the declared one.
    ///
    /// # Errors
    /// No or bad credentials, another account, AWS out of reach.
    pub async fn check(&self) -> Result<Identity, AwsError> {
        let answer = self.identity.get_caller_identity().send().await;
        let answer = answer.map_err(|error| AwsError::of("GetCallerIdentity", error))?;
        let found = answer.account().unwrap_or_default();
        if found == self.place.account {
            return Ok(Identity { arn: answer.arn().unwrap_or_default().to_owned() });
        }
        Err(AwsError::OtherAccount {
            found: found.to_owned(),
            declared: self.place.account.clone(),
            who: answer.arn().unwrap_or_default().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::Place;

    #[test]
    fn a_bucket_is_where_its_region_is_or_below_an_endpoint() {
        let place = |region: &str, endpoint: Option<&str>| Place {
            account: "111122223333".to_owned(),
            region: region.to_owned(),
            endpoint: endpoint.map(str::to_owned),
        };
        assert_eq!(place("eu-west-1", None).bucket_address("b"), "https://b.s3.eu-west-1.amazonaws.com");
        assert_eq!(place("cn-north-1", None).bucket_address("b"), "https://b.s3.cn-north-1.amazonaws.com.cn");
        assert_eq!(place("eu-west-1", Some("http://127.0.0.1:1/")).bucket_address("b"), "http://127.0.0.1:1/b");
        assert_eq!(place("cn-north-1", None).registry(), "111122223333.dkr.ecr.cn-north-1.amazonaws.com.cn");
    }
}
