//! Ctrl-C in the middle of an apply: once finishes what runs, twice stops at once, and either way the next apply resumes.

use std::{collections::BTreeSet, fs, time::Duration};

use fleet_tests::{
    Fleet,
    run::{Running, eventually},
};
use serde_json::Value;

/// The agents of the light fleet, which roll one after the other here.
const AGENTS: [&str; 3] = ["agent/dora.director", "agent/sam.seller", "agent/vera.vp"];

/// A fleet of which every agent is due to roll, one at a time.
fn all_due(story: &str) -> Fleet {
    let fleet = Fleet::light(story);
    fleet.edit("fleet.kdl", "rollout wave=2", "rollout wave=1");
    fleet.applied();
    fleet.edit("fleet.kdl", "model \"local/small\"\n        skills", "model \"local/large\"\n        skills");
    fleet
}

/// An apply that has begun to roll an agent.
fn rolling(fleet: &Fleet) -> Running {
    let apply = Running::start(&mut fleet.command(&["apply", "--auto-approve", "--events", "events.ndjson"]));
    eventually("an agent begins to roll", Duration::from_secs(120), || {
        events(fleet).iter().any(|event| event["event"] == "started" && is_agent(&event["address"]))
    });
    apply
}

fn events(fleet: &Fleet) -> Vec<Value> {
    let text = fs::read_to_string(fleet.path("events.ndjson")).unwrap_or_default();
    text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
}

fn is_agent(address: &Value) -> bool {
    address.as_str().is_some_and(|address| AGENTS.contains(&address))
}

/// Agents whose container is another one than before.
fn rolled(fleet: &Fleet, before: &std::collections::BTreeMap<String, String>) -> BTreeSet<String> {
    let now = fleet.ids();
    AGENTS.iter().filter(|agent| now.get(**agent) != before.get(**agent)).map(|agent| (*agent).to_owned()).collect()
}

#[test]
fn one_ctrl_c_finishes_the_agent_that_rolls_and_begins_no_other() {
    let fleet = all_due("interrupted-once");
    let before = fleet.ids();
    let apply = rolling(&fleet);
    apply.signal("INT");
    let output = fleet.finish(apply);
    output.expect(130).says("stopping: what runs is finished first").says("run the same command again to finish");
    let first = rolled(&fleet, &before);
    assert_eq!(first.len(), 1, "one was rolling and ended, the others were not begun: {first:?}");
    let last = events(&fleet).pop().expect("a last line");
    assert_eq!(
        (&last["event"], &last["outcome"], &last["summary"]["not_tried"]),
        (&"summary".into(), &"interrupted".into(), &2.into())
    );
    let halfway = fleet.ids();
    fleet.applied();
    for agent in AGENTS {
        let again = fleet.ids()[agent] != halfway[agent];
        assert_eq!(again, !first.contains(agent), "{agent}: what was done is not done twice, what was not is done now");
    }
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
}

#[test]
fn a_second_ctrl_c_stops_at_once_and_loses_nothing() {
    let fleet = all_due("interrupted-twice");
    let apply = rolling(&fleet);
    apply.signal("TERM");
    apply.signal("INT");
    let output = fleet.finish(apply);
    assert!(matches!(output.code, Some(130 | 143)), "{output:?}");
    assert_eq!(
        events(&fleet).last().map(|event| &event["event"]),
        Some(&"summary".into()),
        "the stream has its last line"
    );
    fleet.applied();
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
    assert_eq!(fleet.ids().len(), 4, "the homeserver and three agents, none twice: {:?}", fleet.ids());
}
