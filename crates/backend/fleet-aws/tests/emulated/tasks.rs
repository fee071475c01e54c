//! Tasks of the emulated account are containers, and what it says of them comes from these. Small ones: nothing here knows
//! an agent.

use aws_sdk_cloudformation::types::StackStatus;
use serde_json::{Value, json};

use crate::rig::{ACCOUNT, Rig, SERVE, container, engine, left, template};

#[tokio::test]
async fn a_task_sees_its_entry_point_its_secret_and_its_volume() {
    let rig = Rig::new().await;
    let script = format!(
        "exec 2>&1; echo field $FIELD plain $PLAIN; stat -c '%u %g %a' /data; cat /data/kept; echo kept > /data/kept; {SERVE}"
    );
    assert_eq!(rig.deploy(&template(&script)).await, StackStatus::CreateComplete);
    let service = rig.service().await;
    assert_eq!((&service["runningCount"], &service["pendingCount"]), (&json!(1), &json!(0)), "{service:#}");
    let task = rig.tasks("RUNNING").await.remove(0);
    assert_eq!(task["lastStatus"], "RUNNING");
    assert!(
        task["attachments"][0]["details"]
            .as_array()
            .unwrap()
            .iter()
            .any(|detail| detail["name"] == "privateIPv4Address")
    );
    let lines = rig
        .until("its output", async || of(&rig, &task).await.filter(|lines| lines.contains(&"started".to_owned())))
        .await;
    let (field, plain) = lines[0].strip_prefix("field ").unwrap().split_once(' ').unwrap();
    assert_eq!(field.len(), 20, "the field of the secret's JSON, not all of it: {field}");
    assert_eq!(plain, "plain plain value");
    assert_eq!(lines[1], "1000 1001 750", "the access point's folder, as it says");
    assert!(lines.iter().any(|line| line.contains("can't open '/data/kept'")), "{lines:#?}");

    // A task of another revision has the same volume; the health check is one of its container.
    let mut next = template(&script.replace("echo started", "touch /tmp/ok; echo started"));
    container(&mut next)["HealthCheck"] =
        json!({"Command": ["CMD-SHELL", "test -e /tmp/ok"], "Interval": 5, "Retries": 3});
    assert_eq!(rig.deploy(&next).await, StackStatus::UpdateComplete);
    let task = rig.tasks("RUNNING").await.remove(0);
    assert_eq!((&task["healthStatus"], &task["containers"][0]["healthStatus"]), (&json!("HEALTHY"), &json!("HEALTHY")));
    assert_eq!(of(&rig, &task).await.unwrap()[2], "kept");
    let former = rig.tasks("STOPPED").await.remove(0);
    assert_eq!(
        (&former["stopCode"], &former["containers"][0]["exitCode"]),
        (&json!("ServiceSchedulerInitiated"), &json!(0))
    );
    assert_eq!(
        of(&rig, &former).await.unwrap().last().unwrap(),
        "bye",
        "it was asked to stop, and its last line arrived"
    );
    rig.emulator.stop().await;
}

#[tokio::test]
async fn a_task_finds_others_by_name_and_gets_the_credentials_of_its_role() {
    let rig = Rig::new().await;
    assert_eq!(rig.deploy(&template(SERVE)).await, StackStatus::CreateComplete);
    let running = rig.tasks("RUNNING").await.remove(0);
    let task = rig
        .run(
            "nslookup conduit.anycompany.corp; wget -O- $AWS_CONTAINER_CREDENTIALS_FULL_URI; echo; \
             wget -O- $AWS_ENDPOINT_URL/a-task-was-here; exit 3",
        )
        .await;
    assert_eq!(
        (&task["stopCode"], &task["containers"][0]["exitCode"]),
        (&json!("EssentialContainerExited"), &json!(3))
    );
    let lines = of(&rig, &task).await.unwrap();
    let address = &running["containers"][0]["networkInterfaces"][0]["privateIpv4Address"];
    let found = format!("Address: {}", address.as_str().unwrap());
    assert!(lines.contains(&found), "{found}: {lines:#?}");
    let credentials = lines.iter().find_map(|line| serde_json::from_str::<Value>(line).ok()).unwrap();
    assert_eq!(credentials["RoleArn"], format!("arn:aws:iam::{ACCOUNT}:role/rig-task"));
    assert!(["AccessKeyId", "SecretAccessKey", "Token", "Expiration"].iter().all(|name| credentials[name].is_string()));
    let asked = rig.emulator.requests().await.unwrap();
    let by_tasks: Vec<_> =
        asked.iter().filter(|request| request.by_task).map(|request| request.action.as_str()).collect();
    assert_eq!(by_tasks, ["GET /a-task-was-here"], "told apart from what others ask; credentials are not written down");
    rig.emulator.stop().await;
}

#[tokio::test]
async fn a_service_whose_image_exits_trips_the_breaker_and_the_former_revision_runs() {
    let rig = Rig::new().await;
    assert_eq!(rig.deploy(&template(SERVE)).await, StackStatus::CreateComplete);
    let good = rig.service().await["taskDefinition"].clone();
    assert_eq!(rig.deploy(&template("echo broken; exit 7")).await, StackStatus::UpdateRollbackComplete);
    let reasons = rig.reasons().await;
    assert!(reasons[0].contains("ECS Deployment Circuit Breaker was triggered"), "{reasons:#?}");
    let service = rig.service().await;
    assert_eq!(service["taskDefinition"], good);
    assert_eq!(service["deployments"].as_array().unwrap().len(), 1, "{service:#}");
    assert_eq!(service["deployments"][0]["rolloutState"], "COMPLETED");
    let said: Vec<&str> =
        service["events"].as_array().unwrap().iter().map(|event| event["message"].as_str().unwrap()).collect();
    assert!(said.iter().any(|line| line.contains("deployment failed: tasks failed to start.")), "{said:#?}");
    let failed = rig.tasks("STOPPED").await.into_iter().filter(|task| task["containers"][0]["exitCode"] == 7).count();
    assert_eq!(failed, 3, "that many the breaker waits for");
    assert_eq!(rig.tasks("RUNNING").await[0]["taskDefinitionArn"], good);
    rig.emulator.stop().await;
}

#[tokio::test]
async fn two_tasks_of_one_agent_never_run_at_once() {
    let rig = Rig::new().await;
    // A folder can be made once. Whoever finds it there was not alone.
    let script = "mkdir /data/alone || echo NOT ALONE; echo started; \
                  trap 'sleep 1; rmdir /data/alone; exit 0' TERM; while :; do sleep 0.1; done";
    assert_eq!(rig.deploy(&template(script)).await, StackStatus::CreateComplete);
    for revision in 2..5 {
        assert_eq!(rig.deploy(&template(&format!("{script}; echo {revision}"))).await, StackStatus::UpdateComplete);
    }
    let task = rig.tasks("RUNNING").await.remove(0);
    let stopped = json!({"cluster": "rig", "task": task["taskArn"], "reason": "to see another"});
    rig.ask("ecs StopTask", stopped).await.unwrap();
    rig.until("its successor", async || (rig.output().await.len() == 5).then_some(())).await;
    rig.until("it to start", async || rig.output().await.values().all(|lines| !lines.is_empty()).then_some(())).await;
    let output = rig.output().await;
    assert!(output.values().flatten().all(|line| line == "started"), "{output:#?}");
    rig.emulator.stop().await;
}

#[tokio::test]
async fn a_deleted_service_leaves_no_container_and_an_ended_account_leaves_nothing() {
    let rig = Rig::new().await;
    assert_eq!(rig.deploy(&template(SERVE)).await, StackStatus::CreateComplete);
    let of_task = |names: Vec<String>| names.into_iter().filter(|name| name.ends_with("-main")).count();
    assert_eq!(of_task(left(rig.port).await), 1);
    rig.delete().await;
    assert_eq!(of_task(left(rig.port).await), 0);
    assert!(!left(rig.port).await.is_empty(), "its network and volume are there");
    let port = rig.port;
    rig.emulator.stop().await;
    assert_eq!(left(port).await, Vec::<String>::new());
}

#[tokio::test]
async fn what_a_killed_account_left_goes_when_the_next_one_starts() {
    let rig = Rig::new().await;
    assert_eq!(rig.deploy(&template(SERVE)).await, StackStatus::CreateComplete);
    let process = rustix::process::Pid::from_raw(rig.emulator.process().unwrap().try_into().unwrap()).unwrap();
    rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
    rig.emulator.stop().await;
    assert_eq!(left(rig.port).await.len(), 3, "a container, a network, a volume");
    let next = Rig::with(Some(&engine())).await;
    assert_eq!(left(rig.port).await, Vec::<String>::new());
    next.emulator.stop().await;
}

#[tokio::test]
async fn a_task_that_asks_for_what_is_not_done_here_is_refused_and_says_so() {
    let rig = Rig::new().await;
    let mut asking = template(SERVE);
    container(&mut asking)["DependsOn"] = json!([{"ContainerName": "main", "Condition": "START"}]);
    assert_eq!(rig.deploy(&asking).await, StackStatus::RollbackComplete);
    assert!(rig.reasons().await.iter().any(|reason| reason.contains("Circuit Breaker")));
    rig.emulator.stop().await;
}

#[tokio::test]
async fn without_an_engine_tasks_wait_and_say_why() {
    let rig = Rig::with(Some("unix:///nonexistent/engine.sock")).await;
    assert_eq!(
        rig.deploy(&template(SERVE)).await,
        StackStatus::CreateComplete,
        "a stack does not wait for what cannot be"
    );
    let reason = rig
        .until("a task with a reason", async || {
            let task = rig.tasks("RUNNING").await.into_iter().next()?;
            assert_eq!((&task["desiredStatus"], task["lastStatus"] == "RUNNING"), (&json!("RUNNING"), false));
            task["containers"][0]["reason"].as_str().map(str::to_owned)
        })
        .await;
    assert!(reason.contains("no container engine answers at unix:///nonexistent/engine.sock"), "{reason}");
    assert_eq!(rig.service().await["runningCount"], 0);
    rig.emulator.stop().await;
}

/// Output of a task.
async fn of(rig: &Rig, task: &Value) -> Option<Vec<String>> {
    let id = task["taskArn"].as_str().unwrap().rsplit('/').next().unwrap();
    rig.output().await.remove(id)
}
