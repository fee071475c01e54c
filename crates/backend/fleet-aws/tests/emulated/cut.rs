//! A run that ends in the middle, at every call in turn.

use std::sync::Arc;

use fleet_apply::Event;
use fleet_stacks::shared;

use crate::world::{CHANGED, World, address};

/// More calls than making one stack takes.
const CALLS: usize = 60;

#[tokio::test]
async fn a_run_cut_at_any_call_is_finished_by_the_next() {
    let mut world = World::new().await;
    let mut cut = 0;
    for nth in 1..CALLS {
        world.fleet = format!("fleet{nth}");
        let rendered = shared(&world.settings()).unwrap();
        let change = world.change(&rendered).await;
        world.heard.0.lock().unwrap().clear();
        let heard = Arc::clone(&world.heard);
        let calls = move || heard.0.lock().unwrap().iter().filter(|event| matches!(event, Event::Call { .. })).count();
        let killed = tokio::select! {
            biased;
            () = async { while calls() < nth { tokio::task::yield_now().await } } => true,
            done = world.carry_out(&change, &[]) => { assert_eq!(done.unwrap(), CHANGED); false }
        };
        if !killed {
            break;
        }
        cut += 1;
        // Whatever reached AWS goes on there; the next run takes it from where it is.
        let applied = world.apply(&rendered).await.unwrap_or_else(|error| panic!("after call {nth}: {error}"));
        let state = world.observe("shared").await;
        assert_eq!(state.stacks[&address("shared")].template, rendered.body, "after call {nth}: {applied:?}");
    }
    assert!((5..CALLS - 1).contains(&cut), "{cut} calls make a stack");
}
