//! [`Quota`]: what AWS gives an account only so much of, as far as a fleet can meet the end of it.
//!
//! Names and codes are those of the Service Quotas console ("AWS service quotas", AWS General Reference), so that a person finds
//! what to raise. Defaults are for people, too: what counts is what the account says.

use std::fmt;

use serde::{Serialize, Serializer};

/// Something that an account has only so much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Quota {
    /// VPCs of a region.
    Vpcs,
    /// Internet gateways of a region.
    InternetGateways,
    /// Elastic IPs of a region: one per NAT gateway.
    ElasticIps,
    /// Network interfaces of a region: one per task, mount target, machine, NAT gateway, and per endpoint and subnet.
    NetworkInterfaces,
    /// Interface endpoints of one VPC.
    InterfaceEndpoints,
    /// Services of one cluster.
    Services,
    /// Processors of tasks on demand, of a region.
    OnDemandCpus,
    /// Processors of tasks on spare capacity, of a region.
    SpotCpus,
    /// Roles of the account, in all regions.
    Roles,
    /// Access points of one file system.
    AccessPoints,
}

/// Whose a quota is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Share {
    /// Everything of the account, or of its region, counts together.
    Account,
    /// Only what is in one thing that is the environment's own.
    Own,
}

impl Quota {
    /// All of them, in the order in which people read about them.
    pub const ALL: [Self; 10] = [
        Self::Vpcs,
        Self::InternetGateways,
        Self::ElasticIps,
        Self::NetworkInterfaces,
        Self::InterfaceEndpoints,
        Self::Services,
        Self::OnDemandCpus,
        Self::SpotCpus,
        Self::Roles,
        Self::AccessPoints,
    ];

    /// As people say it.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::Vpcs => "VPCs",
            Self::InternetGateways => "internet gateways",
            Self::ElasticIps => "elastic IPs",
            Self::NetworkInterfaces => "network interfaces",
            Self::InterfaceEndpoints => "interface endpoints of the VPC",
            Self::Services => "services of the cluster",
            Self::OnDemandCpus => "Fargate vCPUs",
            Self::SpotCpus => "Fargate Spot vCPUs",
            Self::Roles => "IAM roles",
            Self::AccessPoints => "access points of the file system",
        }
    }

    /// Where Service Quotas has it: code of the service, code of the quota, its name there. `None` where it has none.
    #[must_use]
    pub const fn code(self) -> Option<(&'static str, &'static str, &'static str)> {
        Some(match self {
            Self::Vpcs => ("vpc", "L-F678F1CE", "VPCs per Region"),
            Self::InternetGateways => ("vpc", "L-A4707A72", "Internet gateways per Region"),
            Self::ElasticIps => ("ec2", "L-0263D0A3", "EC2-VPC Elastic IPs"),
            Self::NetworkInterfaces => ("vpc", "L-DF5E4CA3", "Network interfaces per Region"),
            Self::InterfaceEndpoints => ("vpc", "L-29B6F2EB", "Interface VPC endpoints per VPC"),
            Self::Services => ("ecs", "L-9EF96962", "Services per cluster"),
            Self::OnDemandCpus => ("fargate", "L-3032A538", "Fargate On-Demand vCPU resource count"),
            Self::SpotCpus => ("fargate", "L-36FBB829", "Fargate Spot vCPU resource count"),
            Self::Roles => ("iam", "L-FE177D64", "Roles per account"),
            // EFS has it in its own documentation only ("Amazon EFS quotas").
            Self::AccessPoints => return None,
        })
    }

    /// What AWS gives every account, where nobody can look it up.
    #[must_use]
    pub const fn fixed(self) -> Option<u64> {
        match self {
            Self::AccessPoints => Some(10_000),
            _ => None,
        }
    }

    /// Whose it is.
    #[must_use]
    pub const fn share(self) -> Share {
        match self {
            Self::InterfaceEndpoints | Self::Services | Self::AccessPoints => Share::Own,
            _ => Share::Account,
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.what())
    }
}

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}
