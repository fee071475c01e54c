//! The bastion: a machine without a way in, on which operators open tunnels through Session Manager.

use fleet_objects::StackParameter;

use super::{
    Parts,
    firewall::{Firewall, Role as Side},
    network::Network,
    role,
};
use crate::{
    iam::{Policy, Statement, trust},
    resource::{
        ec2::{BlockDevice, Ebs, Instance, MetadataOptions},
        iam::InstanceProfile,
        named,
    },
    template::Template,
    value::Text,
};

/// Channels of Session Manager, which the agent on the machine opens.
const CHANNELS: [&str; 4] = [
    "ssmmessages:CreateControlChannel",
    "ssmmessages:CreateDataChannel",
    "ssmmessages:OpenControlChannel",
    "ssmmessages:OpenDataChannel",
];

/// Adds it.
pub fn add(parts: &Parts<'_>, network: &Network, firewall: &Firewall, template: &mut Template) {
    let settings = parts.settings;
    let image = template.parameter(
        "BastionImage",
        "AWS::EC2::Image::Id",
        "Amazon Linux 2023, pinned: a new one replaces the machine",
        StackParameter::MachineImage,
    );
    let own = settings.arn("ec2", "instance/*");
    let policy = Policy::of([
        Statement::allow("Register", &["ssm:UpdateInstanceInformation"], [own]),
        Statement::allow_without_resource("SessionChannels", &CHANNELS),
    ]);
    let trust = trust("ec2.amazonaws.com");
    let acts_as = template.add("BastionRole", role(parts, "Opens tunnels for operators", trust, policy));
    let profile = InstanceProfile { path: settings.role_path(), roles: vec![acts_as.reference()] };
    let profile = template.add("BastionProfile", profile);
    let bastion = template.add(
        "Bastion",
        Instance {
            image_id: image,
            instance_type: "t3.micro",
            subnet_id: network.private.first().cloned().unwrap_or_else(|| Text::from("")),
            security_group_ids: vec![firewall.group(Side::Bastion)],
            iam_instance_profile: profile.reference(),
            metadata_options: MetadataOptions { http_tokens: "required", http_put_response_hop_limit: 1 },
            block_device_mappings: vec![BlockDevice {
                device_name: "/dev/xvda",
                ebs: Ebs { encrypted: true, volume_type: "gp3" },
            }],
            tags: named(format!("{}-bastion", settings.name())),
        },
    );
    template.output("BastionId", bastion.reference());
}
