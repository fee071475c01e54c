//! The contract that the fake world of `fleet-sim` keeps too.

use fleet_docker::directory;
use fleet_model::{Address, Kind};
use fleet_plan::{Desired, DirectorySpec};
use fleet_sim::contract::{Case, provider_contract};

use crate::world::{SERVE, World, with};

#[tokio::test(flavor = "multi_thread")]
async fn real_containers_keep_the_contract() {
    with("contract", |world| async move {
        let case = Case {
            provider: &world.provider,
            secrets: &world.secrets,
            address: World::ann(),
            version: &|version| Desired::Container(world.spec(version, SERVE)),
            bad: Some(&|version| Desired::Container(world.spec(version, "echo no; exit 1"))),
        };
        provider_contract(&case).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_directory_keeps_the_contract() {
    with("contractdir", |world| async move {
        let case = Case {
            provider: &world.provider,
            secrets: &world.secrets,
            address: directory::address(),
            version: &|version| {
                Desired::Directory(DirectorySpec {
                    document: version.to_owned(),
                    image: Address::new(Kind::Image, "box"),
                    image_hash: world.image_hash,
                })
            },
            bad: None,
        };
        provider_contract(&case).await;
    })
    .await;
}
