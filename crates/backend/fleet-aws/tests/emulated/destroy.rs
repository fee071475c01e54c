//! Environments removed: what goes, what stays, and that it can be made again.

use std::sync::Arc;

use fleet_apply::{Event, ProviderError, Scope};
use fleet_aws::{Teardown, emulator::Fault};
use fleet_stacks::{Settings, bootstrap, data, environment, shared};
use object_store::{ObjectStoreExt as _, path::Path};

use crate::{
    agents::{Agents, SERVES},
    world::{CHANGED, World},
};

/// More calls than removing an environment takes.
const CALLS: usize = 200;

fn teardown(world: &World, purge: bool) -> Teardown {
    Teardown::new(world.account.clone(), world.scope(), purge)
}

async fn kinds(teardown: &Teardown) -> Vec<&'static str> {
    teardown.survey().await.unwrap().into_iter().map(|thing| thing.kind).collect()
}

async fn kept(teardown: &Teardown) -> Vec<String> {
    teardown.kept().await.unwrap().into_iter().map(|kept| format!("{}: {}", kept.what, kept.why)).collect()
}

/// Writes something twice, and removes it: three versions.
async fn fill(world: &World) {
    let Some((bucket, _)) = world.account.bucket_and_secret(&world.scope()).await.unwrap() else { panic!("no bucket") };
    let path = Path::from("manager/work/a & <b>.json");
    for text in ["one", "two"] {
        bucket.put(&path, text.into()).await.unwrap();
    }
    bucket.delete(&path).await.unwrap();
}

#[tokio::test]
async fn an_environment_goes_and_its_data_stays_until_it_is_purged() {
    let mut agents = Agents::new().await;
    agents.wanted.insert("bob".to_owned(), "first words");
    for id in ["ann.lee", "bob"] {
        agents.apply(id).await.unwrap();
    }
    let world = &agents.world;
    fill(world).await;
    let other = Settings { environment: "test".to_owned(), ..world.settings() };
    world.apply(&data(&other).unwrap()).await.unwrap();

    let gentle = teardown(world, false);
    assert_eq!(kinds(&gentle).await, ["agent", "agent", "stack", "bucket", "parameters"]);
    gentle.remove(&*world.heard).await.unwrap();
    let progress = world.heard.progress();
    assert!(progress.iter().any(|line| line == "Vpc DELETE_COMPLETE"), "{progress:#?}");
    assert!(
        progress.iter().any(|line| line.starts_with("emptied bucket ") && line.contains(": 5 versions")),
        "{progress:#?}"
    );
    assert_eq!(gentle.survey().await.unwrap(), [], "nothing is there");
    let stays = kept(&gentle).await.join("\n");
    for words in
        ["stack/dev-data with file system fs-", "memory of 2 agents", "stack/shared with 3 repositories", "test"]
    {
        assert!(stays.contains(words), "{words}: {stays}");
    }
    // Nothing is there: nothing is done.
    let before = world.asked().await.len();
    gentle.remove(&*world.heard).await.unwrap();
    assert_eq!(agents.writes_since(before).await, Vec::<String>::new());

    // It is made again, and agents have their folders again.
    assert_eq!(world.apply(&environment(&world.settings()).unwrap()).await.unwrap(), CHANGED);
    agents.apply("bob").await.unwrap();
    assert_eq!(agents.folders().await.len(), 2);

    let whole = teardown(world, true);
    let all = "agent stack bucket parameters task-definitions file-system vault secret stack";
    assert_eq!(kinds(&whole).await.join(" "), all, "shared is used");
    backup(world).await;
    // Answers that are lost, and calls that are not done, change nothing about how it ends.
    let faults = [
        ("ecs DeleteService", Fault::Lose),
        ("iam DeleteRole", Fault::Lose),
        ("ssm DeleteParameters", Fault::Fail),
        ("cloudformation DeleteStack", Fault::Lose),
        ("secretsmanager DeleteSecret", Fault::Lose),
        ("iam ListRoles", Fault::Throttle),
        ("ecs DeregisterTaskDefinition", Fault::Lose),
        ("ecs DeleteTaskDefinitions", Fault::Lose),
    ];
    world.emulator.answer_badly(&faults).await.unwrap();
    whole.remove(&*world.heard).await.unwrap();
    assert_eq!(whole.survey().await.unwrap(), []);
    assert_eq!(agents.folders().await, Vec::<String>::new());
    assert!(world.heard.progress().iter().any(|line| line.ends_with("with 1 recovery points")));
    let stays = kept(&whole).await.join("\n");
    let gone = ["dev-data", "task definitions"].iter().all(|what| !stays.contains(what));
    assert!(gone && stays.contains("environments of this fleet use them: test"), "{stays}");
    assert_eq!(world.observe("test-data").await.stacks.len(), 1, "the other one was not touched");

    // From nothing: none of its names is taken.
    for stack in [data, environment] {
        assert_eq!(world.apply(&stack(&world.settings()).unwrap()).await.unwrap(), CHANGED);
    }
}

/// A recovery point in the vault.
async fn backup(world: &World) {
    let body = serde_json::json!({"BackupVaultName": "anycompany-dev", "ResourceArn": "a", "IamRoleArn": "a"});
    let as_whom = "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/backup/aws4_request, SignedHeaders=host, Signature=0";
    let put = reqwest::Client::new().put(format!("{}/backup-jobs", world.emulator.endpoint()));
    let answer = put.header("authorization", as_whom).body(body.to_string()).send().await.unwrap();
    assert!(answer.status().is_success(), "{answer:?}");
}

#[tokio::test]
async fn the_last_environment_takes_images_along_and_nothing_of_another_fleet() {
    let mut world = World::new().await;
    world.fleet = "a-dev".to_owned();
    world.apply(&data(&world.settings()).unwrap()).await.unwrap();
    world.fleet = "a".to_owned();
    // `dev-dev-data` of the fleet `a` is called as `dev-data` of the fleet `a-dev`.
    let theirs = Scope { environment: "dev-dev".to_owned(), ..world.scope() };
    let error = Teardown::new(world.account.clone(), theirs, true).survey().await.unwrap_err();
    assert!(error.to_string().contains("is of another fleet"), "{error}");

    let account = fleet_stacks::Bootstrap {
        fleet: world.fleet.clone(),
        account: world.settings().account,
        region: world.settings().region,
        repository: "owner/name".to_owned(),
        environments: ["dev".to_owned()].into(),
        provider: None,
    };
    let settings = world.settings();
    for stack in [bootstrap(&account).unwrap(), shared(&settings).unwrap(), data(&settings).unwrap()] {
        world.apply(&stack).await.unwrap();
    }
    let whole = teardown(&world, true);
    whole.remove(&*world.heard).await.unwrap();
    assert_eq!(whole.survey().await.unwrap(), []);
    let stays = kept(&whole).await;
    assert!(stays.len() == 1 && stays[0].starts_with("stack/bootstrap"), "{stays:#?}");
    assert_eq!(world.apply(&shared(&settings).unwrap()).await.unwrap(), CHANGED, "no repository is in the way");
}

#[tokio::test]
async fn a_bucket_that_is_filled_meanwhile_is_emptied_again() {
    let world = World::new().await;
    for stack in [shared, data, environment] {
        world.apply(&stack(&world.settings()).unwrap()).await.unwrap();
    }
    fill(&world).await;
    // CloudFormation cannot remove it: what an interrupted run, or the manager, leaves.
    let name = format!("{}-dev", world.fleet);
    world.delete_stack(&name).await;
    let error = world.apply(&environment(&world.settings()).unwrap()).await.unwrap_err();
    assert!(
        matches!(&error, ProviderError::Failed { help: Some(help), .. } if help.contains("fleetctl destroy")),
        "{error}"
    );
    let gentle = teardown(&world, false);
    assert_eq!(kinds(&gentle).await, ["stack", "bucket", "parameters"], "it stands, half of it");
    gentle.remove(&*world.heard).await.unwrap();
    assert_eq!(gentle.survey().await.unwrap(), []);
}

#[tokio::test]
async fn an_agent_that_runs_is_stopped_before_its_cluster_goes() {
    let mut agents = Agents::running().await;
    agents.wanted.insert("ann.lee".to_owned(), SERVES);
    agents.apply("ann.lee").await.unwrap();
    let gentle = teardown(&agents.world, false);
    gentle.remove(&*agents.world.heard).await.unwrap();
    assert_eq!(gentle.survey().await.unwrap(), []);
    let progress = agents.world.heard.progress();
    assert!(!progress.iter().any(|line| line.contains("DELETE_FAILED")), "{progress:#?}");
    agents.world.emulator.stop().await;
}

#[tokio::test]
async fn a_removal_cut_at_any_call_is_finished_by_the_next_run() {
    let agents = Agents::new().await;
    let world = &agents.world;
    let mut nth = 0;
    // Every run ends one call later than the one before, on what that one left.
    loop {
        nth += 1;
        assert!(nth < CALLS, "it comes to no end");
        world.heard.0.lock().unwrap().clear();
        let heard = Arc::clone(&world.heard);
        let calls = move || heard.0.lock().unwrap().iter().filter(|event| matches!(event, Event::Call { .. })).count();
        if nth == 1 {
            agents.apply("ann.lee").await.unwrap();
            fill(world).await;
            backup(world).await;
            world.heard.0.lock().unwrap().clear();
        }
        let whole = teardown(world, true);
        let cut = tokio::select! {
            biased;
            () = async { while calls() < nth { tokio::task::yield_now().await } } => true,
            done = whole.remove(&*world.heard) => { done.unwrap(); false }
        };
        if !cut {
            break;
        }
    }
    assert!(nth > 10, "{nth} runs");
    assert_eq!(teardown(world, true).survey().await.unwrap(), []);
    assert_eq!(agents.folders().await, Vec::<String>::new());
}
