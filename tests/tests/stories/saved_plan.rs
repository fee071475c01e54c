//! `plan -o FILE`, `apply FILE`: exactly that, or nothing. And one apply at a time.

use std::time::Duration;

use fleet_tests::{
    Fleet,
    engine::docker,
    run::{Running, eventually},
};

#[test]
fn a_saved_plan_is_applied_exactly_and_refused_for_what_moved() {
    let fleet = Fleet::light("saved");
    fleet.applied();
    let before = fleet.ids();
    fleet.edit("fleet.kdl", "News that concerns everybody", "News for everybody");
    fleet.run(&["plan", "-o", "topic.plan"]).expect(0).says("room/all-employees");
    fleet.run(&["apply", "topic.plan", "--auto-approve"]).expect(0);
    assert_eq!(fleet.ids(), before);
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);

    // The model of one agent; before it is applied somebody stops that agent and starts another container in its place.
    let director = "title=\"Director of Frontend\" level=\"director\" reports-to=\"vera.vp\"";
    fleet.edit("fleet.kdl", director, &format!("{director} {{\n                model \"local/large\"\n            }}"));
    fleet.run(&["plan", "-o", "model.plan"]).expect(0).says("agent/dora.director");
    docker(&["rm", "-f", &fleet.container("dora.director")]);
    let moved = fleet.ids();
    let refused = fleet.run(&["apply", "model.plan", "--auto-approve"]);
    refused.expect(5).says("agent/dora.director").says("nothing was changed").says("plan -o");
    assert_eq!(fleet.ids(), moved);

    // The same together with a change that still fits: that one is made, and only what moved is refused.
    fleet.edit("fleet.kdl", "News for everybody", "News for all");
    fleet.run(&["plan", "-o", "two.plan"]).expect(0).says("room/all-employees").says("agent/dora.director");
    fleet.edit("fleet.kdl", "model \"local/large\"\n", "model \"local/small\"\n");
    let partly = fleet.run(&["apply", "two.plan", "--auto-approve"]);
    partly.expect(5).says("refused: agent/dora.director is declared differently now").says("1 changed");
    assert_eq!(fleet.planned().keys().map(String::as_str).collect::<Vec<_>>(), ["agent/dora.director"]);
    fleet.edit("fleet.kdl", "model \"local/small\"\n            }", "model \"local/large\"\n            }");

    // A plan for sources that are others by now.
    fleet.run(&["plan", "-o", "again.plan"]).expect(0);
    fleet.edit("fleet.kdl", "model \"local/large\"\n", "model \"local/small\"\n");
    fleet.run(&["apply", "again.plan", "--auto-approve"]).expect(5).says("declared differently");
    assert_eq!(fleet.ids(), moved);
    fleet.applied();
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
}

#[test]
fn a_plan_that_is_none_is_refused_by_name() {
    let fleet = Fleet::light("noplan");
    fleet.run(&["apply", "nowhere.plan", "--auto-approve"]).expect(1).says("nowhere.plan").says("plan -o");
    std::fs::write(fleet.path("torn.plan"), "{\"schema\": 1, \"fle").expect("a file");
    fleet.run(&["apply", "torn.plan", "--auto-approve"]).expect(1).says("torn.plan");
}

#[test]
fn a_second_apply_at_the_same_time_is_told_who_is_at_work() {
    let fleet = Fleet::light("lease");
    let first = Running::start(&mut fleet.command(&["apply", "--auto-approve", "--events", "first.ndjson"]));
    let started = || {
        let events = std::fs::read_to_string(fleet.path("first.ndjson")).unwrap_or_default();
        events.contains("\"event\":\"started\"")
    };
    eventually("the first apply begins", Duration::from_secs(240), started);
    let second = fleet.apply();
    second.expect(8).says(&format!("process {}", first.id())).says("apply -e local");
    // A reader is not kept waiting.
    fleet.run(&["plan"]).expect(0);
    fleet.finish(first).expect(0);
    fleet.applied();
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
}
