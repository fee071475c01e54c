//! Where the file system is reached, as whom, and the config bucket.

use super::{
    Parts,
    firewall::{Firewall, Role as Side},
    network::{Network, letter},
};
use crate::{
    resource::{
        named,
        storage::{AccessPoint, CreationInfo, MountTarget, PosixUser, RootDirectory, only_by_tls, private_bucket},
    },
    template::{Handle, Template},
};

/// User and group of the homeserver's files: `synapse` of its image.
const HOMESERVER_UID: u32 = 991;
/// User and group of what agents share.
const AGENT_UID: u32 = 1000;

/// Storage as services refer to it.
pub struct Storage {
    /// Everything that must be there before a task can mount.
    pub mounts: Vec<String>,
    /// The homeserver's folder.
    pub homeserver: Handle<AccessPoint>,
}

/// Adds it.
pub fn add(parts: &Parts<'_>, network: &Network, firewall: &Firewall, template: &mut Template) -> Storage {
    let mut mounts = Vec::new();
    for (zone, subnet) in network.private.iter().enumerate() {
        let target = template.add(
            format!("MountTarget{}", letter(zone)),
            MountTarget {
                file_system_id: parts.file_system.clone(),
                subnet_id: subnet.clone(),
                security_groups: vec![firewall.group(Side::Files)],
            },
        );
        mounts.push(target.id());
    }
    let homeserver = access_point(parts, template, "Homeserver", "/homeserver", HOMESERVER_UID);
    let shared = access_point(parts, template, "Shared", "/shared", AGENT_UID);
    template.output("SharedAccessPointArn", shared.arn());
    template.output("SharedAccessPoint", shared.reference());
    let bucket = template.add("ConfigBucket", private_bucket(None));
    template.add("ConfigBucketPolicy", only_by_tls(&bucket));
    template.output("ConfigBucket", bucket.reference());
    Storage { mounts, homeserver }
}

fn access_point(parts: &Parts<'_>, template: &mut Template, id: &str, path: &str, owner: u32) -> Handle<AccessPoint> {
    let owner = owner.to_string();
    template.add(
        format!("{id}AccessPoint"),
        AccessPoint {
            file_system_id: parts.file_system.clone(),
            posix_user: PosixUser { uid: owner.clone(), gid: owner.clone() },
            root_directory: RootDirectory {
                path: path.to_owned(),
                creation_info: CreationInfo { owner_uid: owner.clone(), owner_gid: owner, permissions: "0750" },
            },
            access_point_tags: named(format!("{}-{}", parts.settings.name(), id.to_lowercase())),
        },
    )
}
