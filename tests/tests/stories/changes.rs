//! One thing is changed: exactly what derives from it is planned, with the reason, and exactly that is changed.

use std::{collections::BTreeMap, fs};

use fleet_tests::Fleet;

/// Containers by address, each with since when it runs.
type Lives = BTreeMap<String, String>;

/// Addresses whose container is another one now, was started again, is new, or is gone.
fn changed(before: &Lives, after: &Lives) -> Vec<String> {
    let all: std::collections::BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    all.into_iter().filter(|address| before.get(*address) != after.get(*address)).cloned().collect()
}

/// The plan is exactly this; a reason of each names all these texts; applying it changes exactly the containers of the
/// agents in it; then nothing is left to do and `why` tells the same reason.
#[track_caller]
fn exactly(fleet: &Fleet, expected: &[(&str, &str)], reason: &[&str], rolled: &[&str]) {
    let before = fleet.lives();
    let planned = fleet.planned();
    let wanted: BTreeMap<String, String> =
        expected.iter().map(|(address, action)| ((*address).to_owned(), (*action).to_owned())).collect();
    assert_eq!(planned, wanted);
    for (address, _) in expected {
        let reasons = fleet.reasons(address);
        let named = |text: &str| reasons.iter().any(|sentence| sentence.contains(text));
        assert!(reason.iter().all(|text| named(text)), "{address}: {reason:?} is not all in {reasons:?}");
    }
    fleet.applied();
    assert_eq!(changed(&before, &fleet.lives()), rolled);
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
    for (address, _) in expected {
        let why = fleet.run(&["why", address]);
        why.expect(0);
        for text in reason {
            why.says(text);
        }
    }
}

/// The line of `fleet.kdl` that holds a text, as reasons name it: `fleet.kdl:12`.
fn line_of(fleet: &Fleet, text: &str) -> String {
    let kdl = fs::read_to_string(fleet.path("fleet.kdl")).expect("fleet.kdl");
    let line = kdl.lines().position(|line| line.contains(text)).expect("a line of fleet.kdl");
    format!("fleet.kdl:{}", line + 1)
}

#[test]
fn a_model_a_role_template_and_a_department_prompt_roll_exactly_their_agents() {
    let fleet = Fleet::light("roll");
    fleet.applied();

    let director = "title=\"Director of Frontend\" level=\"director\" reports-to=\"vera.vp\"";
    fleet.edit("fleet.kdl", director, &format!("{director} {{\n                model \"local/large\"\n            }}"));
    let place = line_of(&fleet, "model \"local/large\"");
    let reason = ["model", "local/small", "local/large", &place];
    exactly(&fleet, &[("agent/dora.director", "roll")], &reason, &["agent/dora.director"]);

    // Two of three are VPs.
    let template = "templates/roles/vp.md";
    let text = fs::read_to_string(fleet.path(template)).expect("a template");
    fs::write(fleet.path(template), format!("{text}\nWrite short sentences.\n")).expect("a template");
    let vps = ["agent/sam.seller", "agent/vera.vp"];
    exactly(&fleet, &vps.map(|vp| (vp, "roll")), &["roles/vp.md", " → "], &vps);
    let reasons = fleet.run(&["why", "agent/vera.vp", "--format", "json"]).json();
    let last = reasons["last"]["reasons"].as_array().expect("reasons");
    let file = last.iter().find(|reason| reason["text"].as_str().is_some_and(|text| text.contains("roles/vp.md")));
    let hash = |side: &str| file.and_then(|file| file[side]["hash"].as_str()).map(str::len);
    assert_eq!((hash("before"), hash("after")), (Some(64), Some(64)), "{reasons:#}");

    let template = "templates/departments/sales.md";
    let text = fs::read_to_string(fleet.path(template)).expect("a template");
    fs::write(fleet.path(template), format!("{text}\nAsk for the order.\n")).expect("a template");
    let sales = "agent/sam.seller";
    exactly(&fleet, &[(sales, "roll")], &["departments/sales.md", " → "], &[sales]);
}

#[test]
fn the_directory_and_a_topic_change_without_a_container() {
    let fleet = Fleet::light("directory");
    fleet.applied();
    fleet.edit("fleet.kdl", "name=\"Helen Head\" title=\"CEO\"", "name=\"Helen Head\" title=\"Chief Executive\"");
    exactly(&fleet, &[("directory/people", "update")], &["CEO", "Chief Executive"], &[]);

    fleet.edit("fleet.kdl", "News that concerns everybody", "News for everybody");
    let reason = ["topic", "News that concerns everybody", "News for everybody"];
    exactly(&fleet, &[("room/all-employees", "update")], &reason, &[]);
    let homeserver = fleet.homeserver();
    let room = homeserver.room("all-employees").expect("the room");
    let path = format!("/_synapse/admin/v1/rooms/{}", room.replace('!', "%21").replace(':', "%3A"));
    assert_eq!(homeserver.ask("GET", &path, None)["topic"], "News for everybody");
}

#[test]
fn an_agent_that_is_added_or_removed_leaves_all_others_running() {
    let fleet = Fleet::light("hire");
    fleet.applied();
    let before = fleet.lives();
    fleet.edit("fleet.kdl", "\"sam.seller\"\n", "\"sam.seller\" \"ivan.ic\"\n");
    let created = ["account/ivan.ic", "agent/ivan.ic", "room/dm-dora.director-ivan.ic"].map(|it| (it, "create"));
    // The rooms that the new one is in get a member, and the directory says that this person is deployed.
    let updated = ["directory/people", "room/all-employees", "room/frontend-team"].map(|it| (it, "update"));
    let expected = created.into_iter().chain(updated).map(|(address, action)| (address.into(), action.into()));
    assert_eq!(fleet.planned(), expected.collect::<BTreeMap<String, String>>());
    fleet.applied();
    let after = fleet.lives();
    assert_eq!(changed(&before, &after), ["agent/ivan.ic"]);
    let homeserver = fleet.homeserver();
    let room = homeserver.room("frontend-team").expect("the team's room");
    assert!(homeserver.members(&room).contains(&"@ivan.ic:light.test".to_owned()), "{:?}", homeserver.members(&room));

    fleet.edit("fleet.kdl", "\"sam.seller\" \"ivan.ic\"\n", "\"sam.seller\"\n");
    assert_eq!(fleet.planned().get("agent/ivan.ic").map(String::as_str), Some("delete"));
    fleet.applied();
    assert_eq!(fleet.lives(), before);
    let memory = fleet_tests::engine::docker(&["volume", "ls", "-q", "--filter", &format!("name={}", fleet.name)]);
    assert!(memory.contains("ivan.ic"), "the memory of who was removed stays: {memory}");
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
}

#[test]
fn another_image_rolls_every_agent_and_the_same_bytes_roll_nobody() {
    let fleet = Fleet::light("image");
    fleet.applied();
    // Only a check is another one: the image is looked at again, and is what it was.
    fleet.edit("fleet.kdl", "check \"/usr/bin/dash\" \"-c\" \"true\"", "check \"/usr/bin/dash\" \"-c\" \"test 1 = 1\"");
    let before = fleet.lives();
    let planned = fleet.planned();
    assert!(planned.contains_key("image/agent"), "{planned:?}");
    let maybe = planned.iter().filter(|(address, _)| *address != "image/agent");
    assert!(maybe.clone().all(|(address, action)| address.starts_with("agent/") && action == "roll"), "{planned:?}");
    fleet.applied();
    assert_eq!(changed(&before, &fleet.lives()), Vec::<String>::new());
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);

    fleet.edit("fleet.kdl", "env LIGHT_MODE=\"well\"", "env LIGHT_MODE=\"very-well\"");
    let plan = fleet.plan_json();
    for change in plan["changes"].as_array().expect("changes") {
        assert_eq!(change["if_changed"], change["address"] != "image/agent", "{change:#}");
    }
    let agents = ["agent/dora.director", "agent/sam.seller", "agent/vera.vp"];
    let planned: Vec<(String, String)> = fleet.planned().into_iter().collect();
    let mut expected: Vec<(String, String)> = agents.iter().map(|agent| ((*agent).into(), "roll".into())).collect();
    expected.push(("image/agent".into(), planned.last().map(|(_, action)| action.clone()).unwrap_or_default()));
    assert_eq!(planned, expected);
    let reasons = fleet.reasons("image/agent");
    assert!(reasons.iter().any(|reason| reason.contains("LIGHT_MODE") && reason.contains("very-well")), "{reasons:?}");
    let before = fleet.lives();
    fleet.applied();
    assert_eq!(changed(&before, &fleet.lives()), agents);
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
    for agent in agents {
        fleet.run(&["why", agent]).expect(0).says("image/agent").says("LIGHT_MODE").says("very-well");
    }
}
