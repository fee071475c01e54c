//! What an environment on AWS declares beside its target: [`Network`], and for how long logs and backups are kept.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::origin::Origin;

/// Days for which CloudWatch Logs can keep what it was sent (API reference, PutRetentionPolicy), in order.
pub const LOG_DAYS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];
/// Days for which logs are kept when nobody says.
pub const DEFAULT_LOG_DAYS: u32 = 30;
/// Longest time for which AWS Backup keeps something, in days.
pub const MAX_BACKUP_DAYS: u32 = 36_500;
/// Sizes of a VPC that can be divided into our subnets: AWS takes none above /16, and none of ours may be below /28.
const VPC_BITS: std::ops::RangeInclusive<u8> = 16..=20;

/// `network cidr="10.0.0.0/16" azs=2 nat-gateways=1`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Addresses of the VPC; [`vpc_range`] reads it.
    pub cidr: String,
    /// Availability zones, 1 to 6.
    pub azs: u8,
    /// NAT gateways, 0 to `azs`.
    pub nat_gateways: u8,
    /// Where; `None`: built in.
    pub origin: Option<Origin>,
}

impl Default for Network {
    fn default() -> Self {
        Self { cidr: "10.0.0.0/16".to_owned(), azs: 2, nat_gateways: 1, origin: None }
    }
}

/// First address and prefix length of a range that a VPC of ours can have; `None` for anything else.
#[must_use]
pub fn vpc_range(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (address, bits) = text.split_once('/')?;
    let (address, bits): (Ipv4Addr, u8) = (address.parse().ok()?, bits.parse().ok()?);
    let clean = VPC_BITS.contains(&bits) && u32::from(address).trailing_zeros() >= u32::from(32 - bits);
    clean.then_some((address, bits))
}
