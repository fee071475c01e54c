//! Agents that are rolled, on an account whose tasks run: small containers in place of agents, and the engine's own word for
//! when each of them was there.

use std::collections::{BTreeMap, BTreeSet};

use fleet_tests::{cloud::Cloud, engine::Watch};
use serde_json::Value;

use super::is_read;

const PAUSE_SECONDS: u64 = 2;
const ROLLOUT: &str = "    homeserver image=\"homeserver\" kind=\"conduit\"\n    deploy \"vera.vp\" \"dora.director\" \"ivan.ic\" \"sam.seller\"\n    rollout wave=2 pause=\"2s\" max-failures=1 healthy-within=\"60s\"";
/// Agents, as families of task definitions name them.
const AGENTS: [&str; 4] = ["dora_director", "ivan_ic", "sam_seller", "vera_vp"];

/// What the engine saw of agents while they were rolled.
#[derive(Default)]
struct Rolled {
    /// Agents whose task ended, one entry each time.
    ended: Vec<String>,
    /// Most agents that were away at once: their task had ended, and the next one was not healthy yet.
    most_away: usize,
    /// Nanoseconds between one wave, all of it healthy, and the first task that ended for the next.
    pauses: Vec<u64>,
}

/// Judges what the engine told; no agent has two tasks at once.
fn rolled(cloud: &Cloud, events: &[Value]) -> Rolled {
    let families = format!("{}-cloud-", cloud.fleet.name);
    let (mut seen, mut running) = (Rolled::default(), BTreeMap::<String, i32>::new());
    let (mut away, mut all_there) = (BTreeSet::new(), None);
    for event in events {
        let family = event["Actor"]["Attributes"]["com.amazonaws.ecs.task-definition-family"].as_str();
        // `…-dora_director-HASH`; the homeserver's family has no hash.
        let agent = family.and_then(|family| Some(family.strip_prefix(&families)?.rsplit_once('-')?.0.to_owned()));
        let (Some(agent), Some(at)) = (agent, event["timeNano"].as_u64()) else { continue };
        match event["Action"].as_str().unwrap_or_default() {
            "start" => {
                let count = running.entry(agent.clone()).or_default();
                *count += 1;
                assert!(*count <= 1, "two tasks of {agent} at once");
            }
            "die" => {
                *running.entry(agent.clone()).or_default() -= 1;
                if let (true, Some(since)) = (away.is_empty(), all_there) {
                    seen.pauses.push(at - since);
                }
                away.insert(agent.clone());
                seen.ended.push(agent);
                seen.most_away = seen.most_away.max(away.len());
            }
            "health_status: healthy" => {
                away.remove(&agent);
                all_there = away.is_empty().then_some(at);
            }
            _ => {}
        }
        // A task that was there before is counted when it ends.
        running.retain(|_, count| *count > 0);
    }
    seen
}

/// The task of each agent, by the revision that it runs.
fn tasks(cloud: &Cloud) -> BTreeMap<String, String> {
    let cluster = format!("{}-cloud", cloud.fleet.name);
    let ecs =
        |action: &str, body: Value| cloud.ask("ecs", &format!("AmazonEC2ContainerServiceV20141113.{action}"), &body);
    let arns = ecs("ListTasks", serde_json::json!({"cluster": cluster, "desiredStatus": "RUNNING"}));
    let all = ecs("DescribeTasks", serde_json::json!({"cluster": cluster, "tasks": arns["taskArns"]}));
    let text = |value: &Value| value.as_str().expect("an ARN").to_owned();
    let all = all["tasks"].as_array().expect("tasks").iter();
    let found = all.filter(|task| text(&task["group"]).starts_with("service:agent-"));
    found.map(|task| (text(&task["taskArn"]), text(&task["taskDefinitionArn"]))).collect()
}

#[test]
fn a_new_image_rolls_every_agent_in_waves_and_one_that_crashes_stops_there_with_the_former_one_running() {
    let cloud = Cloud::running("waves", ROLLOUT);
    cloud.apply().expect(3).says("agent/vera.vp");
    let count = |asked: &[String], action: &str| asked.iter().filter(|asked| *asked == action).count();
    let applied = |code: i32| {
        let (before, watch) = (cloud.asked().len(), Watch::start(&cloud.fleet.name));
        let output = cloud.apply();
        output.expect(code);
        (output, cloud.asked().split_off(before), rolled(&cloud, &watch.told()))
    };
    let first = tasks(&cloud);
    assert_eq!(first.len(), AGENTS.len(), "{first:?}");

    // Another recipe of the same bytes: the image has one name more, and nobody is rolled.
    let checked = "env LIGHT_MODE=\"well\"\n";
    cloud.fleet.edit("fleet.kdl", checked, &format!("{checked}        check \"/bin/busybox\" \"true\"\n"));
    let (_, asked, seen) = applied(3);
    // But for the registry, and the record of it.
    let elsewhere = |asked: &&String| !is_read(asked) && !asked.contains(" /v2/") && !asked.contains("-state-");
    assert_eq!(asked.iter().filter(elsewhere).collect::<Vec<_>>(), Vec::<&String>::new());
    assert_eq!((seen.ended, tasks(&cloud)), (Vec::new(), first.clone()));

    // Another model of one: its task definition, its service, and nobody else's.
    let person = "title=\"Director of Frontend\" level=\"director\" reports-to=\"vera.vp\"";
    cloud.fleet.edit(
        "fleet.kdl",
        person,
        &format!("{person} {{\n                model \"local/large\"\n            }}"),
    );
    let (_, asked, seen) = applied(3);
    assert_eq!((count(&asked, "ecs RegisterTaskDefinition"), count(&asked, "ecs UpdateService")), (1, 1));
    assert_eq!(seen.ended, ["dora_director"]);

    // Other bytes: everybody, two at a time, with a pause between.
    cloud.fleet.edit("fleet.kdl", "LIGHT_MODE=\"well\"", "LIGHT_MODE=\"very-well\"");
    let (_, asked, mut seen) = applied(3);
    assert_eq!((count(&asked, "ecs RegisterTaskDefinition"), count(&asked, "ecs UpdateService")), (4, 4));
    seen.ended.sort_unstable();
    assert_eq!((seen.ended, seen.most_away), (AGENTS.map(str::to_owned).to_vec(), 2));
    assert!(seen.pauses.len() == 1 && seen.pauses[0] >= PAUSE_SECONDS * 1_000_000_000, "{:?}", seen.pauses);
    let good = tasks(&cloud);
    assert!(good.keys().all(|task| !first.contains_key(task)), "{first:?} and {good:?}");

    // One that ends at once: the wave that meets it is undone, and no other begins.
    cloud.fleet.edit("fleet.kdl", "LIGHT_MODE=\"very-well\"", "LIGHT_MODE=\"exit\"");
    let (stopped, asked, seen) = applied(4);
    stopped
        .says("the former version runs again")
        .says("there is nothing here to live on")
        .says("2 failed, 13 not tried");
    assert_eq!((count(&asked, "ecs RegisterTaskDefinition"), seen.most_away), (2, 2));
    let left = tasks(&cloud);
    let revisions = |tasks: &BTreeMap<String, String>| tasks.values().cloned().collect::<BTreeSet<String>>();
    assert_eq!(revisions(&left), revisions(&good), "everybody runs what ran before");
    assert_eq!(left.keys().filter(|task| good.contains_key(*task)).count(), 2, "two were never touched");
    let plan = cloud.run(&["plan"]);
    for agent in ["dora.director", "ivan.ic", "sam.seller", "vera.vp"] {
        plan.expect(0).says(&format!("agent/{agent}"));
    }
    cloud.fleet.edit("fleet.kdl", "LIGHT_MODE=\"exit\"", "LIGHT_MODE=\"very-well\"");
    let (_, _, seen) = applied(3);
    assert_eq!((seen.ended, tasks(&cloud)), (Vec::new(), left), "what runs is what was asked for");
}
