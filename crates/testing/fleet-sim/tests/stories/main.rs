//! Plans carried out against the in-memory provider. One test program, since each more would be linked by itself.

mod contract;
mod execute;
mod stacks;

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::Hash;
use fleet_model::{Address, Kind, model::Size};
use fleet_plan::{ContainerSpec, Desired};

/// A container of an agent; `version` is all that tells it from others of this image.
fn container(image_hash: Hash, version: &str) -> Desired {
    Desired::Container(ContainerSpec {
        image: Address::new(Kind::Image, "agent"),
        image_hash,
        image_output: None,
        env: BTreeMap::from([("VERSION".to_owned(), version.to_owned())]),
        command: None,
        files: Vec::new(),
        volumes: Vec::new(),
        ports: Vec::new(),
        size: Size { cpu: 256, memory_mib: 512 },
        health: None,
        aliases: BTreeSet::new(),
        host_gateway: false,
        hostname: "ann".to_owned(),
        stop_grace_seconds: 1,
        healthy_within_seconds: 1,
        read_only_root: false,
    })
}
