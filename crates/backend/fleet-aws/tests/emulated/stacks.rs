//! Stacks made, changed, and left alone.

use std::{collections::BTreeSet, time::Duration};

use fleet_apply::{Event, Provider as _, ProviderError};
use fleet_aws::{Sweep, Unneeded, YOUNG};
use fleet_stacks::{Action, Data, Replacement, Settings, bootstrap, data, environment, shared};

use crate::world::{CHANGED, DIGEST, UNCHANGED, World, address, changed};

#[tokio::test]
async fn an_empty_account_gets_every_stack_and_the_second_time_nothing_is_written() {
    let world = World::new().await;
    world.account.check().await.unwrap();
    let settings = world.settings();
    let stacks = [
        bootstrap(&account(&settings)).unwrap(),
        shared(&settings).unwrap(),
        data(&settings).unwrap(),
        environment(&settings).unwrap(),
    ];
    for stack in &stacks {
        assert_eq!(world.apply(stack).await.unwrap(), CHANGED, "{}", stack.name);
    }
    let state = world.observe("dev").await;
    let deployed = &state.stacks[&address("dev")];
    assert_eq!(deployed.outputs["TemplateHash"], stacks[3].hash.to_string());
    assert!(deployed.parameters["HomeserverImage"].ends_with(&format!("anycompany/homeserver@{DIGEST}")));
    assert!(deployed.parameters["FileSystemId"].starts_with("fs-"));
    assert!(deployed.parameters["BastionImage"].starts_with("ami-"));
    let progress = world.heard.progress();
    assert!(progress.iter().any(|line| line == "Vpc CREATE_COMPLETE"), "{progress:#?}");
    assert!(progress.iter().any(|line| line == "wrote 3 of 3 parameters"), "{progress:#?}");

    let before = world.asked().await.len();
    world.heard.0.lock().unwrap().clear();
    for stack in &stacks {
        let state = world.observe(&stack.name).await;
        assert_eq!(state.stacks[&address(&stack.name)].template, stack.body, "read back as it was sent");
        assert!(world.change(stack).await.resources.is_empty());
    }
    let asked = world.asked().await.split_off(before);
    let reads = |asked: &&String| asked.contains("Describe") || asked.contains("GetTemplate");
    assert!(!asked.is_empty() && asked.iter().all(|asked| reads(&asked)), "{asked:#?}");
    let writes = world.heard.0.lock().unwrap().iter().any(|event| matches!(event, Event::Call { write: true, .. }));
    assert!(!writes, "our own count says the same");

    // Asked all the same, a change set without changes is taken back.
    assert_eq!(world.apply(&stacks[1]).await.unwrap(), UNCHANGED);
}

/// A repository for each of so many images that the template is too large for a request.
fn many_images(settings: &Settings) -> Settings {
    let images = (0..150).map(|number| format!("image-{number:03}")).collect();
    Settings { images, ..settings.clone() }
}

#[tokio::test]
async fn a_template_too_large_for_a_request_goes_through_the_state_bucket() {
    let world = World::new().await;
    let settings = world.settings();
    let large = shared(&many_images(&settings)).unwrap();
    assert!(large.body.len() > fleet_stacks::MAX_INLINE_BYTES, "{} bytes", large.body.len());

    let Err(ProviderError::Failed { why, help, .. }) = world.apply(&large).await else { panic!("where did it go?") };
    assert!(why.contains("one above 51200 goes through the state bucket, and the account has none"), "{why}");
    assert!(help.is_some_and(|help| help.contains("fleetctl bootstrap -e dev")));
    assert!(!world.asked().await.iter().any(|asked| asked.contains("CreateChangeSet")), "nothing was begun");

    assert_eq!(world.apply(&bootstrap(&account(&settings)).unwrap()).await.unwrap(), CHANGED);
    assert_eq!(world.apply(&large).await.unwrap(), CHANGED);
    let state = world.observe("shared").await;
    assert_eq!(state.stacks[&address("shared")].template, large.body, "read back as it was sent");
    let sent = async || {
        let asked = world.asked().await;
        asked.iter().filter(|asked| asked.starts_with("PUT /") && asked.contains("/templates/")).count()
    };
    assert_eq!(sent().await, 1);

    // Another one is another object, and what is there is not sent again.
    let other = changed(&large, |document| {
        document["Resources"]["RepositoryImage000"]["Properties"]["ImageScanningConfiguration"]["ScanOnPush"] =
            false.into();
    });
    assert_eq!(world.apply(&other).await.unwrap(), CHANGED);
    assert_eq!(sent().await, 2);
    assert_eq!(world.apply(&large).await.unwrap(), CHANGED);
    assert_eq!(sent().await, 2);

    // The one that no stack was made from goes, once it is old enough.
    let third = changed(&other, |document| document["Outputs"]["TemplateHash"]["Value"] = "third".into());
    for stack in [&third, &large] {
        assert_eq!(world.apply(stack).await.unwrap(), CHANGED);
    }
    assert_eq!(sent().await, 3);
    let sweep = |young| Sweep::new(world.account.clone(), world.scope(), young);
    let none = BTreeSet::new();
    assert_eq!(sweep(YOUNG).unneeded(&none).await.unwrap(), Unneeded::default());
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let old = sweep(Duration::from_secs(1));
    let unneeded = old.unneeded(&none).await.unwrap();
    assert_eq!((unneeded.families.len(), unneeded.templates.len()), (0, 1), "{unneeded:?}");
    old.remove(&unneeded).await.unwrap();
    assert_eq!(old.unneeded(&none).await.unwrap(), Unneeded::default());
    for stack in [&third, &large] {
        assert_eq!(world.apply(stack).await.unwrap(), CHANGED);
    }
    assert_eq!(sent().await, 4, "the one that stands was kept");
}

fn account(settings: &Settings) -> fleet_stacks::Bootstrap {
    fleet_stacks::Bootstrap {
        fleet: settings.fleet.clone(),
        account: settings.account.clone(),
        region: settings.region.clone(),
        repository: "owner/name".to_owned(),
        environments: ["dev".to_owned()].into(),
        provider: None,
    }
}

#[tokio::test]
async fn a_change_does_what_the_plan_shows() {
    let world = World::new().await;
    let settings = world.settings();
    for stack in [shared(&settings), data(&settings), environment(&settings)] {
        world.apply(&stack.unwrap()).await.unwrap();
    }
    let longer = environment(&Settings { log_days: 30, ..settings.clone() }).unwrap();
    let change = world.change(&longer).await;
    let kinds: Vec<_> = change.resources.iter().map(|r| (r.kind.as_str(), r.action, r.replacement)).collect();
    assert!(kinds.iter().all(|kind| *kind == ("AWS::Logs::LogGroup", Action::Modify, Replacement::Never)), "{kinds:?}");
    assert_eq!(world.carry_out(&change, &[]).await.unwrap(), CHANGED);
    assert_eq!(world.observe("dev").await.stacks[&address("dev")].template, longer.body);

    // The plan is of another time: somebody changed the stack meanwhile, to something else.
    let web = environment(&Settings { web: None, ..settings.clone() }).unwrap();
    let stale = fleet_plan::Change { expect: change.expect.clone(), ..world.change(&web).await };
    let error = world.carry_out(&stale, &[]).await.unwrap_err();
    assert!(matches!(error, ProviderError::Stale { .. }), "{error}");
    // To the same: nothing is left to do.
    let same = fleet_plan::Change { expect: change.expect.clone(), ..world.change(&longer).await };
    assert_eq!(world.carry_out(&same, &[]).await.unwrap(), UNCHANGED);
}

#[tokio::test]
async fn a_change_set_that_does_more_than_the_plan_is_not_carried_out() {
    let world = World::new().await;
    let settings = world.settings();
    world.apply(&shared(&settings).unwrap()).await.unwrap();
    let fewer = Settings { images: ["agent".to_owned()].into(), ..settings.clone() };
    let planned = world.change(&shared(&fewer).unwrap()).await;
    assert_eq!(planned.resources.len(), 2, "{:?}", planned.resources);
    // The same change from a plan that shows nothing of what it removes.
    let blind = fleet_plan::Change { resources: Vec::new(), ..planned.clone() };
    let error = world.carry_out(&blind, &[]).await.unwrap_err();
    assert!(matches!(error, ProviderError::Stale { .. }), "{error}");
    assert!(error.to_string().contains("removes RepositoryHomeserver"), "{error}");
    let state = world.observe("shared").await;
    assert_eq!(state.stacks[&address("shared")].template, shared(&settings).unwrap().body, "it stands as before");
    let asked = world.asked().await;
    assert_eq!(asked.iter().filter(|asked| *asked == "cloudformation ExecuteChangeSet").count(), 1, "of its making");
    assert_eq!(asked.last().map(String::as_str), Some("cloudformation GetTemplate"));
    assert!(asked.contains(&"cloudformation DeleteChangeSet".to_owned()), "nothing is left lying about");
}

#[tokio::test]
async fn what_holds_data_goes_only_with_leave() {
    let world = World::new().await;
    let rendered = data(&world.settings()).unwrap();
    world.apply(&rendered).await.unwrap();
    let plain = changed(&rendered, |document| {
        document["Resources"]["FileSystem"]["Properties"]["Encrypted"] = serde_json::json!(false);
    });
    let change = world.change(&plain).await;
    assert_eq!(change.resources[0].data, Data::LeftBehind);
    let before = world.asked().await.len();
    let error = world.carry_out(&change, &[]).await.unwrap_err();
    let help = match &error {
        ProviderError::Failed { help: Some(help), .. } => help.clone(),
        other => panic!("{other}"),
    };
    assert!(help.contains("--allow-destroy stack/dev-data/FileSystem"), "{help}");
    assert_eq!(world.asked().await.len(), before, "nothing was even asked");
    assert_eq!(world.carry_out(&change, &["stack/dev-data/FileSystem"]).await.unwrap(), CHANGED);
}

#[tokio::test]
async fn a_stack_of_another_fleet_is_left_alone() {
    let mut world = World::new().await;
    // `shared` of the fleet `a-b`, and `b-shared` of the fleet `a`: one name.
    world.fleet = "a-b".to_owned();
    let theirs = shared(&world.settings()).unwrap();
    world.apply(&theirs).await.unwrap();
    world.fleet = "a".to_owned();
    let error = world.provider(&[]).observe(&[address("b-shared")]).await.unwrap_err();
    assert!(error.to_string().contains("a-b-shared is of another fleet"), "{error}");
}
