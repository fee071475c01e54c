//! An image that does not work: bounded time, the container's last lines, and the former agent runs again.

use std::{collections::BTreeMap, time::Duration};

use fleet_tests::{Fleet, engine};

/// Agents that run and are healthy, with their container ids.
fn healthy(fleet: &Fleet) -> BTreeMap<String, String> {
    let running = engine::inspected(&fleet.name).into_iter().filter(|container| {
        container["State"]["Running"] == true && container["State"]["Health"]["Status"] == "healthy"
    });
    running
        .map(|container| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            (text(&container["Config"]["Labels"]["dev.fleetctl.address"]), text(&container["Id"]))
        })
        .collect()
}

#[test]
fn an_agent_that_exits_or_never_becomes_healthy_is_rolled_back() {
    let fleet = Fleet::light("bad");
    fleet.edit("fleet.kdl", "healthy-within=\"90s\"", "healthy-within=\"30s\"");
    fleet.applied();
    let before = fleet.ids();
    assert_eq!(healthy(&fleet), before);
    for (from, to, last_line) in
        [("well", "exit", Some("there is nothing here to live on")), ("exit", "sick", Some("light agent: ready"))]
    {
        fleet.edit("fleet.kdl", &format!("LIGHT_MODE=\"{from}\""), &format!("LIGHT_MODE=\"{to}\""));
        let output = fleet.apply();
        output.expect(4).says("the former version runs again");
        if let Some(line) = last_line {
            output.says(line);
        }
        assert!(output.took < Duration::from_secs(300), "{to}: {:?}", output.took);
        assert_eq!(healthy(&fleet), before, "{to}: the former containers run");
        assert_eq!(fleet.ids(), before, "{to}: nothing else is left");
        let due = fleet.planned();
        assert!(
            ["agent/dora.director", "agent/sam.seller", "agent/vera.vp"].iter().all(|a| due.contains_key(*a)),
            "{due:?}"
        );
    }
    fleet.edit("fleet.kdl", "LIGHT_MODE=\"sick\"", "LIGHT_MODE=\"well\"");
    fleet.applied();
    assert_eq!(fleet.ids(), before, "what runs is what was asked for in the first place");
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
}

#[test]
fn an_image_whose_check_fails_rolls_nobody() {
    let fleet = Fleet::light("check");
    fleet.applied();
    let before = fleet.ids();
    let images = engine::images(&fleet.name);
    fleet.edit(
        "fleet.kdl",
        "check \"/usr/bin/dash\" \"-c\" \"true\"",
        "check \"/usr/bin/dash\" \"-c\" \"echo no luck; exit 7\"",
    );
    fleet.edit("fleet.kdl", "LIGHT_MODE=\"well\"", "LIGHT_MODE=\"better\"");
    let output = fleet.apply();
    assert!(!matches!(output.code, Some(0) | None), "{output:?}");
    output.says("exit code 7").says("no luck").says("nothing was rolled");
    assert_eq!(healthy(&fleet), before);
    assert_eq!(engine::images(&fleet.name), images, "an image that failed its check has no name to be found by");
    assert!(fleet.planned().contains_key("image/agent"));
}

#[test]
fn a_first_apply_with_a_bad_image_fails_and_can_be_repeated() {
    let fleet = Fleet::light("first");
    fleet.edit("fleet.kdl", "LIGHT_MODE=\"well\"", "LIGHT_MODE=\"exit\"");
    let output = fleet.apply();
    assert!(matches!(output.code, Some(1 | 3)), "{output:?}");
    output.says("there is nothing here to live on");
    fleet.edit("fleet.kdl", "LIGHT_MODE=\"exit\"", "LIGHT_MODE=\"well\"");
    fleet.applied();
    assert_eq!(healthy(&fleet).len(), 4);
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
}
