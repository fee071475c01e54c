//! How much the account has of what is limited (Service Quotas, for roles IAM), and how much of it is taken (EC2, IAM).

use std::collections::{BTreeMap, BTreeSet};

use fleet_plan::verify::Seen;
use fleet_stacks::quota::Quota;
use serde_json::json;

use super::unseen;
use crate::{
    account::Account,
    error::AwsError,
    rates::Rate,
    signed::{Service, element},
};

/// Version of the EC2 API.
const VERSION: &str = "2016-11-15";
/// What one page may hold, where it may be said.
const PAGE: &str = "1000";

impl Account {
    /// Limits, and what is taken where that can be counted.
    pub(super) async fn limits(
        &self,
        quotas: &BTreeSet<Quota>,
    ) -> (BTreeMap<Quota, Seen<u64>>, BTreeMap<Quota, Seen<u64>>) {
        let asked = futures::future::join_all(quotas.iter().map(|quota| async move {
            let (limit, used) = tokio::join!(self.limit(*quota), self.used(*quota));
            (*quota, limit.map_err(unseen), used.map(|used| used.map_err(unseen)))
        }));
        let (mut limits, mut all_used) = (BTreeMap::new(), BTreeMap::new());
        for (quota, limit, used) in asked.await {
            limits.insert(quota, limit);
            all_used.extend(used.map(|used| (quota, used)));
        }
        (limits, all_used)
    }

    async fn limit(&self, quota: Quota) -> Result<u64, AwsError> {
        if quota == Quota::Roles {
            return self.summary("RolesQuota").await;
        }
        let Some((service, code, _)) = quota.code() else { return Ok(quota.fixed().unwrap_or(u64::MAX)) };
        match self.service_quota("GetServiceQuota", service, code).await {
            // Nobody ever asked for another one than AWS gives everybody (Service Quotas API reference).
            Err(error) if error.code() == "NoSuchResourceException" => {
                self.service_quota("GetAWSDefaultServiceQuota", service, code).await
            }
            found => found,
        }
    }

    async fn service_quota(&self, call: &'static str, service: &str, code: &str) -> Result<u64, AwsError> {
        let body = json!({"ServiceCode": service, "QuotaCode": code});
        let of = (Service::Quotas, "ServiceQuotasV20190624");
        let answer = self.signed.json(of, (call, Rate::Unknown), &body).await?;
        whole(answer["Quota"]["Value"].as_f64()).ok_or_else(|| no_number(call, code))
    }

    /// How many there are, whoever made them; `None` where nothing tells.
    async fn used(&self, quota: Quota) -> Option<Result<u64, AwsError>> {
        Some(match quota {
            Quota::Vpcs => self.count("DescribeVpcs", "vpcId", true).await,
            Quota::InternetGateways => self.count("DescribeInternetGateways", "internetGatewayId", true).await,
            Quota::ElasticIps => self.count("DescribeAddresses", "allocationId", false).await,
            Quota::NetworkInterfaces => self.count("DescribeNetworkInterfaces", "networkInterfaceId", true).await,
            Quota::Roles => self.summary("Roles").await,
            Quota::InterfaceEndpoints
            | Quota::Services
            | Quota::OnDemandCpus
            | Quota::SpotCpus
            | Quota::AccessPoints => return None,
        })
    }

    /// How often an element is there that every item has once, on all pages.
    async fn count(&self, call: &'static str, of: &str, paged: bool) -> Result<u64, AwsError> {
        let (open, mut count, mut next) = (format!("<{of}>"), 0, None::<String>);
        loop {
            let size = paged.then_some(("MaxResults", PAGE));
            let fields: Vec<_> = size.into_iter().chain(next.as_deref().map(|next| ("NextToken", next))).collect();
            let page = self.signed.query((Service::Network, VERSION), call, &fields).await?;
            count += page.matches(&open).count() as u64;
            next = element(&page, "nextToken").filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(count);
            }
        }
    }

    /// A number of the account's summary in IAM, which has quotas beside what is taken of them.
    async fn summary(&self, name: &'static str) -> Result<u64, AwsError> {
        const CALL: &str = "GetAccountSummary";
        let answer = self.iam(CALL, &[]).await?;
        let value = answer.split_once(&format!("<key>{name}</key>")).and_then(|(_, rest)| element(rest, "value"));
        value.and_then(|value| value.parse().ok()).ok_or_else(|| no_number(CALL, name))
    }
}

fn no_number(call: &'static str, of: &str) -> AwsError {
    AwsError::Refused { call, code: "NoNumber".to_owned(), why: format!("the answer has no number for {of}") }
}

/// Quotas are floating-point numbers of whole things.
fn whole(value: Option<f64>) -> Option<u64> {
    // Exact for every whole number that a quota can be.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and 2^53")]
    value.filter(|value| (0.0..9.0e15).contains(value)).map(|value| value as u64)
}

#[cfg(test)]
mod tests {
    use super::whole;

    #[test]
    fn a_quota_is_a_whole_number_or_none() {
        let cases = [
            (Some(5000.0), Some(5000)),
            (Some(0.0), Some(0)),
            (Some(-1.0), None),
            (Some(f64::NAN), None),
            (None, None),
        ];
        for (value, expected) in cases {
            assert_eq!(whole(value), expected);
        }
    }
}
