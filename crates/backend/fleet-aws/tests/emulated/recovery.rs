//! What an attempt that failed leaves behind, and that the next one works.

use fleet_apply::ProviderError;
use fleet_aws::emulator::Fault;
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

    let more =
        Settings { images: ["agent", "homeserver", "other", "web"].map(str::to_owned).into(), ..world.settings() };
    assert_eq!(world.apply(&shared(&more).unwrap()).await.unwrap(), CHANGED);
}

#[tokio::test]
async fn a_stack_whose_making_failed_is_removed_and_made() {
    let world = World::new().await;
    // All that it holds is kept when the stack goes; what a failed making made is not, or it would be in the way.
    let rendered = data(&world.settings()).unwrap();
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

#[tokio::test]
async fn bad_answers_cost_time_and_nothing_else() {
    let world = World::new().await;
    let rendered = shared(&world.settings()).unwrap();
    world
        .emulator
        .answer_badly(&[
            ("cloudformation DescribeStacks", Fault::Throttle),
            ("cloudformation CreateChangeSet", Fault::Lose),
            ("cloudformation DescribeChangeSet", Fault::Fail),
            ("cloudformation ExecuteChangeSet", Fault::Lose),
            ("cloudformation DescribeStackEvents", Fault::Throttle),
        ])
        .await
        .unwrap();
    assert_eq!(world.apply(&rendered).await.unwrap(), CHANGED);
    let state = world.observe("shared").await;
    assert_eq!(state.stacks[&address("shared")].template, rendered.body);
    let asked = world.asked().await;
    let count = |action: &str| asked.iter().filter(|asked| *asked == action).count();
    assert_eq!(
        (count("cloudformation CreateChangeSet"), count("cloudformation ExecuteChangeSet")),
        (2, 2),
        "{asked:?}"
    );

    // The same while a stack is changed, and once more while nothing is to change.
    let more = Settings { images: ["agent", "other"].map(str::to_owned).into(), ..world.settings() };
    let change = world.change(&shared(&more).unwrap()).await;
    world
        .emulator
        .answer_badly(&[
            ("cloudformation CreateChangeSet", Fault::Lose),
            ("cloudformation ExecuteChangeSet", Fault::Lose),
        ])
        .await
        .unwrap();
    let gone = ["stack/shared/RepositoryHomeserver", "stack/shared/RepositoryWeb"];
    assert_eq!(world.carry_out(&change, &gone).await.unwrap(), CHANGED);

    // When it does not end, the calls do.
    let forever = [("cloudformation DescribeStacks", Fault::Throttle); 20];
    let change = world.change(&rendered).await;
    world.emulator.answer_badly(&forever).await.unwrap();
    let before = world.asked().await.len();
    let error = world.carry_out(&change, &["stack/shared/RepositoryOther"]).await.unwrap_err();
    assert!(matches!(error, ProviderError::Unreachable { .. }), "{error}");
    assert!(error.to_string().contains("DescribeStacks was throttled"), "{error}");
    assert_eq!(world.asked().await.len() - before, 6, "attempts are bounded");
}
