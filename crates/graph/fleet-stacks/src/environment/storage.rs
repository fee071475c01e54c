//! Where the file system is reached, as whom, and the config bucket.

use fleet_objects::manager::{OBSERVED, PROGRESS, WORK};

use super::{
    Parts,
    firewall::{Firewall, Role as Side},
    network::{Network, letter},
};
use crate::{
    resource::{
        named,
        storage::{
            AccessPoint, Bucket, BucketRule, CreationInfo, MountTarget, PosixUser, RootDirectory, only_by_tls,
            private_bucket,
        },
    },
    template::{Handle, Template},
};

/// User and group of the homeserver's files: `synapse` of its image.
const HOMESERVER_UID: u32 = 991;
/// Days for which work and progress of the manager are kept.
const MANAGER_DAYS: u32 = 7;

/// Storage as services refer to it.
pub struct Storage {
    /// Everything that must be there before a task can mount.
    pub mounts: Vec<String>,
    /// The homeserver's folder.
    pub homeserver: Handle<AccessPoint>,
    /// What operator and manager write for one another, and what agents fetch.
    pub bucket: Handle<Bucket>,
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
    let mut bucket = private_bucket(None);
    bucket.lifecycle_configuration.rules.extend(manager_rules());
    let bucket = template.add("ConfigBucket", bucket);
    template.add("ConfigBucketPolicy", only_by_tls(&bucket));
    template.output("ConfigBucket", bucket.reference());
    Storage { mounts, homeserver, bucket }
}

/// Work and progress go once nobody asks for them; what was seen a minute ago nobody does.
fn manager_rules() -> [BucketRule; 3] {
    [
        BucketRule::of("manager-work", WORK).expires(MANAGER_DAYS).former(1),
        BucketRule::of("manager-progress", PROGRESS).expires(MANAGER_DAYS).former(1),
        BucketRule::of("manager-observed", OBSERVED).former(1),
    ]
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
