//! What an attempt that failed leaves behind, and that the next one works.

use fleet_apply::ProviderError;
use fleet_stacks::{Settings, data, shared};

use crate::world::{CHANGED, World, address, changed, impossible};

#[tokio::test]
async fn a_failed_update_is_rolled_back_and_the_next_one_works() {
    let world = World::new().await;
    let rendered = shared(&world.settings()).unwrap();
    world.apply(&rendered).await.unwrap();
    let error = world.apply(&changed(&rendered, impossible)).await.unwrap_err();
    assert!(matches!(error, ProviderError::RolledBack { .. }), "{error}");
    assert!(error.to_string().contains("Impossible: ") && error.to_string().contains("sg-nowhere"), "{error}");
    let state = world.observe("shared").await;
    assert_eq!(state.stacks[&address("shared")].template, rendered.body, "the former one stands");

    let more = Settings { images: ["agent", "homeserver", "other", "web"].map(str::to_owned).into(), ..world.settings() };
    assert_eq!(world.apply(&shared(&more).unwrap()).await.unwrap(), CHANGED);
}

#[tokio::test]
async fn a_stack_whose_making_failed_is_removed_and_made() {
    let world = World::new().await;
    let rendered = changed(&data(&world.settings()).unwrap(), |document| {
        // What is retained stays after a failed making too, under its name; that is another story.
        for resource in document["Resources"].as_object_mut().unwrap().values_mut() {
            resource.as_object_mut().unwrap().remove("DeletionPolicy");
        }
    });
    let error = world.apply(&changed(&rendered, impossible)).await.unwrap_err();
    assert!(matches!(&error, ProviderError::Failed { why, .. } if why.contains("Impossible: ")), "{error}");
    let state = world.observe("dev-data").await;
    assert!(state.stacks.is_empty(), "nothing stands");
    assert!(state.objects[&address("dev-data")].unfinished.as_ref().unwrap().contains("failed before"));

    assert_eq!(world.apply(&rendered).await.unwrap(), CHANGED);
    assert!(world.heard.progress().contains(&"removes what a failed attempt left".to_owned()));
    assert!(world.asked().await.contains(&"cloudformation DeleteStack".to_owned()));
}

#[tokio::test]
async fn nothing_listens_is_told_as_such() {
    let world = World::new().await;
    let rendered = shared(&world.settings()).unwrap();
    let change = world.change(&rendered).await;
    let World { emulator, account, .. } = world;
    emulator.stop().await;
    let error = account.check().await.unwrap_err();
    let seen = error.about(&change.address);
    assert!(matches!(seen, ProviderError::Unreachable { .. }), "{seen}");
}
