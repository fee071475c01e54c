//! Runs that are killed before a write, again and again.

use std::sync::atomic::{AtomicI64, Ordering};

use fleet_apply::{Event, Events, Provider, ProviderError};
use fleet_matrix::Flavour;
use fleet_model::Address;

use crate::{
    fleet,
    world::{World, apply_with, changes, run},
};

/// Ends the run, as a kill would, before a write of it.
struct KillBefore(AtomicI64);

impl Events for KillBefore {
    fn emit(&self, event: Event) {
        if matches!(event, Event::Call { write: true, .. }) {
            let left = self.0.fetch_sub(1, Ordering::SeqCst);
            assert!(left > 0, "killed here");
        }
    }
}

async fn killed_again_and_again(world: World, flavour: Flavour) -> World {
    let mut random = fastrand::Rng::with_seed(7);
    let (mut kills, mut stale) = (0, 0);
    loop {
        let provider = world.provider(flavour);
        let (budget, fleet) = (random.i64(1..10), fleet());
        let killed = tokio::spawn(async move {
            let deadly = KillBefore(budget.into());
            let addresses: Vec<Address> = fleet.keys().cloned().collect();
            for change in changes(&fleet, &provider.observe(&addresses).await.unwrap()) {
                apply_with(&provider, &change, &deadly).await?;
            }
            Ok(())
        })
        .await;
        match killed {
            Ok(Ok(())) => break,
            // What was under way when the run died may reach the homeserver after the next run looked: that one leaves the
            // object alone, and the run after it goes on.
            Ok(Err(ProviderError::Stale { .. })) => {
                stale += 1;
                assert!(stale <= kills, "stale {stale} times after {kills} kills");
            }
            Ok(Err(error)) => panic!("{error:?}"),
            Err(death) => {
                let why = death.into_panic();
                let why = why
                    .downcast_ref::<&str>()
                    .map_or_else(|| why.downcast_ref::<String>().cloned(), |w| Some((*w).to_owned()));
                assert_eq!(why.as_deref(), Some("killed here"));
                kills += 1;
                assert!(kills < 200, "it does not get on");
            }
        }
    }
    assert!(kills >= 3, "killed {kills} times");
    assert_eq!(run(&world.provider(flavour), &fleet(), &world.log).await, Vec::<String>::new());
    assert_eq!(world.count("select count(*) from rooms"), 3);
    assert_eq!(world.count("select count(*) from users"), 4);
    for name in ["ann", "bob", "cy"] {
        assert!(world.login(name, 0).await.is_some(), "{name} has its password");
    }
    world
}

#[tokio::test]
async fn a_run_that_is_killed_again_and_again_ends_like_one_that_is_not() {
    let world = killed_again_and_again(World::closed().await, Flavour::Synapse).await;
    assert_eq!(
        world.count("select count(*) from devices where hidden = 0 and device_id = 'FLEETCTL'"),
        1,
        "the service account's"
    );
    killed_again_and_again(World::with_token_registration().await, Flavour::Conduit).await;
}
