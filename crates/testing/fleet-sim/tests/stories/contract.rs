//! The fake world under the contract that the real providers are held to.

use std::collections::{BTreeMap, BTreeSet};

use fleet_apply::Secrets;
use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_plan::{AccountSpec, Desired, DirectorySpec, RoomSpec};
use fleet_secret::{FleetSecret, Secret};
use fleet_sim::{
    World,
    contract::{Case, provider_contract},
};

use crate::container;

fn secrets() -> Secrets {
    let fleet = FleetSecret::new(Secret::new("0123456789abcdef0123456789abcdef")).expect("long enough");
    Secrets { fleet, operator: BTreeMap::new() }
}

async fn holds(address: Address, version: &(dyn Fn(&str) -> Desired + Sync)) {
    let (world, secrets) = (World::default(), secrets());
    let provider = world.provider();
    provider_contract(&Case { provider: &provider, secrets: &secrets, address, version, bad: None }).await;
}

#[tokio::test]
async fn fake_containers_keep_the_contract_also_with_versions_that_are_never_healthy() {
    let (world, secrets) = (World::default(), secrets());
    world.break_image(Hash::of(b"sick"));
    let provider = world.provider();
    let ann = Address::new(Kind::Agent, "ann");
    let case = Case {
        provider: &provider,
        secrets: &secrets,
        address: ann.clone(),
        version: &|version| container(Hash::of(b"well"), version),
        bad: Some(&|version| container(Hash::of(b"sick"), version)),
    };
    provider_contract(&case).await;
    assert_eq!(world.memories(), BTreeSet::from([ann]), "memory outlives the agent");
}

#[tokio::test]
async fn the_fake_directory_keeps_the_contract() {
    let directory = |version: &str| {
        Desired::Directory(DirectorySpec {
            document: version.to_owned(),
            image: Address::new(Kind::Image, "agent"),
            image_hash: Hash::of(b"well"),
        })
    };
    holds(Address::new(Kind::Directory, "people"), &directory).await;
}

#[tokio::test]
async fn fake_accounts_and_rooms_keep_the_contract_although_members_come_one_by_one() {
    let account = |version: &str| {
        Desired::Account(AccountSpec {
            matrix_id: "@ann:d.test".to_owned(),
            display_name: version.to_owned(),
            epoch: 0,
        })
    };
    holds(Address::new(Kind::Account, "ann"), &account).await;
    let room = |version: &str| {
        Desired::Room(RoomSpec {
            alias: "all".to_owned(),
            name: "All".to_owned(),
            topic: version.to_owned(),
            members: ["@a:d.test", "@b:d.test", "@c:d.test"].map(str::to_owned).into(),
            power: BTreeMap::new(),
            public: false,
            direct: false,
        })
    };
    holds(Address::new(Kind::Room, "all"), &room).await;
}
