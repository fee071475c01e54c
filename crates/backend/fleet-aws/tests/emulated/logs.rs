//! Logs of agents and services, with events that are put there as the driver of a task puts them.

use fleet_apply::Scope;
use fleet_aws::Log;
use fleet_model::{Address, Kind};
use serde_json::{Value, json};

use crate::rig::Rig;

const GROUP: &str = "/ecs/anycompany-dev/agent";

async fn stream(rig: &Rig, name: &str) {
    rig.ask("logs CreateLogStream", json!({"logGroupName": GROUP, "logStreamName": name})).await.unwrap();
}

async fn put(rig: &Rig, stream: &str, lines: &[(i64, &str)]) {
    let events: Vec<Value> = lines.iter().map(|(at, text)| json!({"timestamp": at, "message": text})).collect();
    let body = json!({"logGroupName": GROUP, "logStreamName": stream, "logEvents": events});
    rig.ask("logs PutLogEvents", body).await.unwrap();
}

async fn log(rig: &Rig, kind: Kind, name: &str) -> Log {
    let scope =
        Scope { fleet: "anycompany".to_owned(), environment: "dev".to_owned(), domain: "anycompany.corp".to_owned() };
    Log::of(rig.account().await, &scope, &Address::new(kind, name)).unwrap()
}

#[tokio::test]
async fn the_last_lines_of_all_tasks_then_every_new_one_once() {
    let rig = Rig::with(None).await;
    let ann = async || log(&rig, Kind::Agent, "ann").await;
    assert_eq!(ann().await.last(10).await.unwrap(), None, "there is no group");
    rig.ask("logs CreateLogGroup", json!({"logGroupName": GROUP})).await.unwrap();
    assert_eq!(ann().await.last(10).await.unwrap(), None, "it never ran");

    // CloudWatch Logs takes no times of other days.
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64 - 60_000;
    for name in ["ann/agent/1", "ann.lee/agent/1"] {
        stream(&rig, name).await;
    }
    put(&rig, "ann/agent/1", &[(now, "first"), (now + 1, "same"), (now + 1, "same")]).await;
    put(&rig, "ann.lee/agent/1", &[(now + 2, "somebody else")]).await;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    stream(&rig, "ann/agent/0").await;
    put(&rig, "ann/agent/0", &[(now + 10, "of the next task\n")]).await;

    assert_eq!(ann().await.last(10).await.unwrap().unwrap(), ["first", "same", "same", "of the next task"]);
    let mut log = ann().await;
    assert_eq!(log.last(2).await.unwrap().unwrap(), ["same", "of the next task"]);
    assert_eq!(log.more().await.unwrap(), Vec::<String>::new());
    // The same words again are another line; one that comes late is told, too.
    put(&rig, "ann/agent/0", &[(now + 10, "of the next task"), (now + 20, "x")]).await;
    assert_eq!(log.more().await.unwrap(), ["of the next task", "x"]);
    put(&rig, "ann/agent/1", &[(now + 15, "late")]).await;
    put(&rig, "ann.lee/agent/1", &[(now + 30, "somebody else")]).await;
    assert_eq!(log.more().await.unwrap(), ["late"]);
    assert_eq!(log.more().await.unwrap(), Vec::<String>::new());

    let mut nothing = ann().await;
    assert_eq!(nothing.last(0).await.unwrap().unwrap(), Vec::<String>::new());
    assert_eq!(nothing.more().await.unwrap(), Vec::<String>::new(), "only what comes from now on");
    rig.emulator.stop().await;
}
