//! [`Layout`]: which subnet gets which addresses of the VPC.
//!
//! Everything is counted in units of a 256th of the VPC: in a /16 a unit is a /24. Public subnets have units 1, 2, …;
//! private ones have units 10, 11, … while one is enough, and the upper three quarters of the VPC once it is not.

use std::{fmt, net::Ipv4Addr, str::FromStr};

use crate::settings::Settings;

/// Addresses of a subnet that AWS keeps for itself.
const RESERVED: u32 = 5;
/// Network interfaces of a private subnet beside tasks: endpoints, the mount target, the bastion, and as many spare.
const PLATFORM: u32 = 16;
/// An address is free only some time after its task has ended: a quarter more than there are tasks.
const HEADROOM_PERCENT: u32 = 125;
/// Public subnets start at this unit.
const PUBLIC_AT: u32 = 1;
/// Small private subnets start at this unit.
const PRIVATE_AT: u32 = 10;
/// Wide private subnets start at this unit.
const WIDE_AT: u32 = 64;
/// Units of a VPC.
const UNITS: u32 = 256;

/// A range of IPv4 addresses whose host bits are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cidr {
    address: u32,
    bits: u8,
}

impl Cidr {
    /// How many addresses are in it.
    #[must_use]
    pub const fn size(self) -> u32 {
        1 << (32 - self.bits)
    }

    fn part(self, offset: u32, size: u32) -> Self {
        Self { address: self.address + offset, bits: 32 - size.ilog2() as u8 }
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", Ipv4Addr::from(self.address), self.bits)
    }
}

/// A text that is not a range that a VPC can have.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a range of a VPC: write one like 10.0.0.0/16, of /16 to /20, its host bits zero")]
pub struct NotACidr {
    /// What was given.
    pub text: String,
}

impl FromStr for Cidr {
    type Err = NotACidr;

    fn from_str(text: &str) -> Result<Self, NotACidr> {
        let (address, bits) = fleet_model::aws::vpc_range(text).ok_or_else(|| NotACidr { text: text.to_owned() })?;
        Ok(Self { address: address.into(), bits })
    }
}

/// The network is too small for the fleet.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{agents} agents need {needed} addresses in each of {zones} availability zones, and {cidr} has no room for that: take a wider range (up to /16), more zones, or deploy fewer"
)]
pub struct DoesNotFit {
    /// Agents to make room for.
    pub agents: u32,
    /// Addresses of each private subnet.
    pub needed: u64,
    /// Zones.
    pub zones: u8,
    /// The VPC.
    pub cidr: String,
}

/// Subnets, one per availability zone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    /// For NAT gateways.
    pub public: Vec<Cidr>,
    /// For everything else.
    pub private: Vec<Cidr>,
}

impl Layout {
    /// The subnets of a fleet. Depends on how many agents it may have, in steps: widening replaces every private subnet.
    ///
    /// # Errors
    /// [`DoesNotFit`].
    pub fn of(settings: &Settings) -> Result<Self, DoesNotFit> {
        let Settings { cidr, zones, agents, .. } = *settings;
        let unit = cidr.size() / UNITS;
        let tasks = (u64::from(agents) * u64::from(HEADROOM_PERCENT)).div_ceil(100).div_ceil(u64::from(zones.max(1)));
        let needed = tasks + u64::from(PLATFORM + RESERVED);
        let public = (0..u32::from(zones)).map(|zone| cidr.part((PUBLIC_AT + zone) * unit, unit)).collect();
        let (at, size) = if needed <= u64::from(unit) { (PRIVATE_AT * unit, unit) } else { wide(needed, unit) };
        if u64::from(at) + u64::from(size) * u64::from(zones) > u64::from(cidr.size()) {
            let cidr = cidr.to_string();
            return Err(DoesNotFit { agents, needed, zones, cidr });
        }
        let private = (0..u32::from(zones)).map(|zone| cidr.part(at + zone * size, size)).collect();
        Ok(Self { public, private })
    }
}

/// Where wide subnets start, and how large each is: a power of two, at a multiple of itself.
fn wide(needed: u64, unit: u32) -> (u32, u32) {
    // One that no VPC holds where there is no such power.
    let size = u32::try_from(needed.next_power_of_two()).unwrap_or(1 << 31);
    ((WIDE_AT * unit).next_multiple_of(size), size)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::environment::tests::settings;

    fn layout(cidr: &str, zones: u8, agents: u32) -> Result<[String; 2], DoesNotFit> {
        let settings = Settings { cidr: cidr.parse().unwrap(), zones, agents, ..settings() };
        let list = |ranges: Vec<Cidr>| ranges.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        Layout::of(&settings).map(|layout| [list(layout.public), list(layout.private)])
    }

    #[test]
    fn a_small_fleet_has_the_subnets_of_the_architecture_seed() {
        assert_eq!(layout("10.0.0.0/16", 2, 50).unwrap(), ["10.0.1.0/24 10.0.2.0/24", "10.0.10.0/24 10.0.11.0/24"]);
        assert_eq!(layout("10.0.0.0/16", 1, 188).unwrap()[1], "10.0.10.0/24", "256 = 235 + 16 + 5 addresses");
    }

    #[test]
    fn a_larger_fleet_has_wider_private_subnets_apart_from_the_public_ones() {
        assert_eq!(layout("10.0.0.0/16", 2, 1001).unwrap()[1], "10.0.64.0/22 10.0.68.0/22");
        assert_eq!(layout("10.0.0.0/16", 3, 10_000).unwrap()[1], "10.0.64.0/19 10.0.96.0/19 10.0.128.0/19");
        assert_eq!(layout("10.0.16.0/20", 2, 9).unwrap()[1], "10.0.20.0/27 10.0.20.32/27", "a unit is a /28 here");
    }

    #[test]
    fn a_network_without_room_is_refused_with_the_numbers() {
        let error = layout("10.0.16.0/20", 2, 5000).unwrap_err();
        assert_eq!((error.needed, error.zones), (3146, 2));
        assert!(layout("10.0.0.0/16", 6, u32::MAX).is_err());
    }
}
