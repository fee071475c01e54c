//! The org directory reaches running agents without touching them.

use fleet_apply::{Applied, Provider};
use fleet_derivation::Hash;
use fleet_docker::directory;
use fleet_model::{Address, Kind};
use fleet_plan::{Action, Change, Desired, DirectorySpec, VolumeMount};
use fleet_sim::CallLog;

use crate::world::{SERVE, World, with};

async fn change(world: &World, document: &str) -> Change {
    let seen = world.provider.observe(&[]).await.expect("observed").objects.remove(&directory::address());
    let spec = DirectorySpec {
        document: document.to_owned(),
        image: Address::new(Kind::Image, "box"),
        image_hash: world.image_hash,
    };
    Change {
        address: directory::address(),
        action: if seen.is_some() { Action::Update } else { Action::Create },
        if_changed: false,
        reasons: Vec::new(),
        before: seen.as_ref().and_then(|s| s.hash),
        after: Some(Hash::of(document.as_bytes())),
        expect: seen.map(|s| s.version),
        desired: Some(Desired::Directory(spec)),
        derivation: None,
        resources: Vec::new(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_directory_is_seen_inside_a_running_agent_whose_container_stays() {
    with("people", |world| async move {
        world.apply(&change(&world, "{\"people\":1}").await, &CallLog::default()).await.expect("delivered");
        let script = format!(
            "touch /fleet/directory/x; (while :; do cat /fleet/directory/$(cat /fleet/directory/current); echo; sleep 0.2; done) & {SERVE}"
        );
        let mut spec = world.spec("1", &script);
        spec.volumes.push(VolumeMount {
            volume: directory::VOLUME.to_owned(),
            path: directory::MOUNT.to_owned(),
            read_only: true,
        });
        world.converge(&spec).await.expect("created");
        let id = world.seen().await.expect("seen").id;
        world.printed(&id, "{\"people\":1}").await;
        world.printed(&id, "Read-only file system").await;

        world.apply(&change(&world, "{\"people\":2}").await, &CallLog::default()).await.expect("delivered");
        world.printed(&id, "{\"people\":2}").await;
        assert_eq!(world.seen().await.expect("seen").id, id);

        let log = CallLog::default();
        let again = world.apply(&change(&world, "{\"people\":2}").await, &log).await.expect("again");
        assert_eq!(again, Applied::Unchanged { output: None });
        assert_eq!(log.writes(), Vec::<String>::new());
    })
    .await;
}
