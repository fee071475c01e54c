//! [`Settings`]: what `fleet.kdl` says about one environment on AWS, as far as its stacks depend on it.

use std::collections::BTreeSet;

use fleet_model::model::{HomeserverKind, Size};

use crate::cidr::Cidr;

/// Days for which CloudWatch Logs can keep what it was sent (API reference, PutRetentionPolicy).
pub const LOG_DAYS: [u32; 22] = fleet_model::aws::LOG_DAYS;

/// Everything that the stacks of one environment are rendered from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Fleet name: lower case, digits, dashes.
    pub fleet: String,
    /// Environment name.
    pub environment: String,
    /// Matrix server name; also the private DNS zone.
    pub domain: String,
    /// 12 digits.
    pub account: String,
    /// For instance `us-east-1`.
    pub region: String,
    /// Images of the fleet: each has a repository.
    pub images: BTreeSet<String>,
    /// Addresses of the VPC.
    pub cidr: Cidr,
    /// Availability zones, 1 to 6.
    pub zones: u8,
    /// NAT gateways, 0 to `zones`.
    pub nat_gateways: u8,
    /// How many agents the network must have room for.
    pub agents: u32,
    /// Tasks run on ARM.
    pub arm: bool,
    /// The homeserver.
    pub homeserver: Homeserver,
    /// The web client.
    pub web: Option<Web>,
    /// The manager, who makes accounts and rooms.
    pub manager: Option<Manager>,
    /// Agents get the fleet secret; else each gets its own password only.
    pub agents_get_fleet_secret: bool,
    /// Days for which logs are kept; one of [`LOG_DAYS`].
    pub log_days: u32,
    /// Days for which backups are kept; `None`: none are made.
    pub backup_days: Option<u32>,
}

/// The homeserver's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Homeserver {
    /// Its image in `fleet.kdl`.
    pub image: String,
    /// What the image holds.
    pub kind: HomeserverKind,
    /// CPU and memory.
    pub size: Size,
}

/// The web client's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Its image in `fleet.kdl`.
    pub image: String,
    /// CPU and memory.
    pub size: Size,
}

/// The manager's service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manager {
    /// Its image in `fleet.kdl`.
    pub image: String,
    /// Where this program is in it, for the container's health check; `None` where that cannot be told.
    pub program: Option<String>,
    /// CPU and memory.
    pub size: Size,
}

impl Settings {
    /// `<fleet>-<environment>`: the name of what has a name of its own in the account.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}-{}", self.fleet, self.environment)
    }

    /// The partition that the region is in.
    #[must_use]
    pub fn partition(&self) -> &'static str {
        partition(&self.region)
    }

    /// `arn:<partition>:<service>:<region>:<account>:<resource>`.
    #[must_use]
    pub fn arn(&self, service: &str, resource: &str) -> String {
        format!("arn:{}:{service}:{}:{}:{resource}", self.partition(), self.region, self.account)
    }

    /// The policy that bounds every role of the fleet; the `bootstrap` stack makes it.
    #[must_use]
    pub fn boundary(&self) -> String {
        format!("arn:{}:iam::{}:policy/{}", self.partition(), self.account, boundary_name(&self.fleet))
    }

    /// The IAM path of this environment's roles.
    #[must_use]
    pub fn role_path(&self) -> String {
        role_path(&self.fleet, &self.environment)
    }
}

/// The IAM path of an environment's roles.
#[must_use]
pub fn role_path(fleet: &str, environment: &str) -> String {
    format!("/fleet/{fleet}/{environment}/")
}

/// Below which the parameters of an environment are.
#[must_use]
pub fn parameters_below(fleet: &str, environment: &str) -> String {
    format!("/{fleet}/{environment}")
}

/// The stack of what outlives an environment, as addresses name it.
#[must_use]
pub fn data_stack(environment: &str) -> String {
    format!("{environment}-data")
}

/// The log group of what runs as `role`; `whole` is `<fleet>-<environment>`.
#[must_use]
pub fn log_group(whole: &str, role: &str) -> String {
    format!("/ecs/{whole}/{role}")
}

/// Name of the permissions boundary.
pub(crate) fn boundary_name(fleet: &str) -> String {
    format!("{fleet}-boundary")
}

/// The partition that a region is in.
pub(crate) fn partition(region: &str) -> &'static str {
    match region {
        _ if region.starts_with("cn-") => "aws-cn",
        _ if region.starts_with("us-gov-") => "aws-us-gov",
        _ => "aws",
    }
}
