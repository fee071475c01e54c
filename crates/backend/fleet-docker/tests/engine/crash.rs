//! `kill -9`, and two runs at once. Kills while rolling and while rolling back are part of the contract.

use std::sync::Arc;

use fleet_apply::{Applied, ProviderError};
use fleet_plan::{ContainerSpec, Health, RunState};
use fleet_sim::{CallLog, killed};

use crate::world::{SERVE, World, with};

/// Applies and dies before write number `n`; true: it died.
async fn dies(world: &World, spec: &ContainerSpec, n: usize) -> bool {
    let change = world.change(spec).await;
    killed(world.apply(&change, &CallLog::dying_before(n))).await.is_none()
}

async fn is_right(world: &World, spec: &ContainerSpec, when: usize) {
    let seen = world.seen().await.expect("it exists");
    assert_eq!(seen.hash, world.change(spec).await.after, "killed before write {when}");
    assert_eq!(
        (seen.run, seen.health, seen.unfinished),
        (RunState::Running, Health::Healthy, None),
        "killed before write {when}"
    );
    assert_eq!(world.containers().await, [world.container()], "killed before write {when}");
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_before_any_write_of_a_creation_the_next_apply_finishes_it() {
    with("killmake", |world| async move {
        let mut n = 0;
        loop {
            let spec = world.spec(&n.to_string(), SERVE);
            let died = dies(&world, &spec, n).await;
            world.converge(&spec).await.expect("the next apply");
            is_right(&world, &spec, n).await;
            world.provider.purge(true, &CallLog::default()).await.expect("purged");
            if !died {
                break;
            }
            n += 1;
        }
        assert!(n >= 5, "network, volume, create, upload, start: {n}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_and_no_longer_wanted_the_former_container_simply_returns() {
    with("killrevert", |world| async move {
        let good = world.spec("good", SERVE);
        world.converge(&good).await.expect("created");
        let id = world.seen().await.expect("seen").id;
        // Before the create call: stopped and set aside.
        assert!(dies(&world, &world.spec("2", SERVE), 2).await);
        assert_eq!(world.containers().await, [format!("{}.former", world.container())]);
        world.converge(&good).await.expect("the former version is wanted again");
        is_right(&world, &good, 2).await;
        assert_eq!(world.seen().await.expect("seen").id, id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_runs_at_once_one_rolls_and_the_other_is_told_to_plan_again() {
    with("twice", |world| async move {
        for attempt in 0..4 {
            let spec = world.spec(&attempt.to_string(), SERVE);
            let change = world.change(&spec).await;
            let run = || {
                let (world, change) = (Arc::clone(&world), change.clone());
                tokio::spawn(async move { world.apply(&change, &CallLog::default()).await })
            };
            let (one, two) = (run(), run());
            let results = [one.await.expect("ran"), two.await.expect("ran")];
            let fine = |r: &Result<Applied, ProviderError>| matches!(r, Ok(_) | Err(ProviderError::Stale { .. }));
            assert!(results.iter().all(fine) && results.iter().any(Result::is_ok), "{results:?}");
            is_right(&world, &spec, attempt).await;
        }
    })
    .await;
}
