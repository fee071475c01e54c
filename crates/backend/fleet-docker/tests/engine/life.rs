//! A container's life without accidents.

use fleet_apply::{Applied, Provider, ProviderError};
use fleet_model::Address;
use fleet_plan::{Action, Change, Health, PublishedPort, RunState};
use fleet_sim::CallLog;

use crate::world::{OPERATOR_SECRET, SERVE, World, with};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_is_made_becomes_healthy_and_is_then_left_alone() {
    with("made", |world| async move {
        let spec = world.spec("1", SERVE);
        assert_eq!(world.converge(&spec).await.expect("created"), Applied::Changed { output: None });
        let seen = world.seen().await.expect("it is seen");
        assert_eq!((seen.run, seen.health, seen.unfinished.as_deref()), (RunState::Running, Health::Healthy, None));
        assert_eq!(world.containers().await, [format!("{}-test-ann.lee", world.scope.fleet)]);

        let change = world.change(&spec).await;
        assert_eq!(seen.hash, change.after);
        let log = CallLog::default();
        assert_eq!(world.apply(&change, &log).await.expect("again"), Applied::Unchanged { output: None });
        assert_eq!(log.writes(), Vec::<String>::new());
        assert_eq!(world.seen().await.expect("it is seen").id, seen.id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_ports_and_restart_policy_are_set_and_no_secret_can_be_inspected() {
    with("inspect", |world| async move {
        let mut spec = world.spec("1", &format!("stat -c '%a %u %g' /run/fleet/key; md5sum /run/fleet/key; {SERVE}"));
        let port = fleet_sim::free_port();
        spec.ports = vec![PublishedPort { host: port, container: 80 }];
        spec.host_gateway = true;
        spec.aliases.insert("serving".to_owned());
        world.converge(&spec).await.expect("created");
        let text = world.inspect_text(&world.container()).await;
        assert!(!text.contains(&OPERATOR_SECRET[..8]), "a secret can be inspected");
        for part in [
            r#""NanoCpus":500000000"#,
            r#""Memory":67108864"#,
            &format!(r#""HostIp":"127.0.0.1","HostPort":"{port}""#),
            r#""Name":"unless-stopped""#,
            "no-new-privileges",
            "host.docker.internal:host-gateway",
            r#""serving""#,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        let lines = world.lines(&world.container()).await;
        assert_eq!(lines[0], "400 1000 1001");
        // md5sum of OPERATOR_SECRET: the file is really there, and the test prints no secret either.
        assert!(lines[1].starts_with("653c8d80605dbd66081b28bd25bf95b5"), "{lines:?}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn placed_files_outlive_a_restart_and_work_under_a_read_only_root() {
    with("readonly", |world| async move {
        let mut spec = world.spec("1", &format!("md5sum /run/fleet/key; touch /etc/x; {SERVE}"));
        spec.read_only_root = true;
        let mut note = spec.files[0].clone();
        note.path = "/data/generated/note".to_owned();
        spec.files.push(note);
        world.converge(&spec).await.expect("created");
        let name = world.container();
        // What a container says on its two channels comes in no order between them.
        let lines = world.lines(&name).await;
        let key = lines.iter().find(|line| line.ends_with("/run/fleet/key")).expect("the key was read").clone();
        assert!(world.lines(&name).await.iter().any(|l| l.contains("Read-only file system")));
        world.raw.restart_container(&name, None).await.expect("restarted");
        world.printed(&name, "run 2").await;
        let again: Vec<String> = world.lines(&name).await.into_iter().filter(|l| *l == key).collect();
        assert_eq!(again.len(), 2, "the key was read in both lives");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_roll_makes_a_new_container_on_the_same_memory_and_leaves_no_former_one() {
    with("roll", |world| async move {
        world.converge(&world.spec("1", SERVE)).await.expect("created");
        let first = world.seen().await.expect("seen").id;
        assert_eq!(world.converge(&world.spec("2", SERVE)).await.expect("rolled"), Applied::Changed { output: None });
        let second = world.seen().await.expect("seen");
        assert_ne!(first, second.id);
        assert_eq!(second.health, Health::Healthy);
        assert_eq!(world.containers().await, [world.container()]);
        assert_eq!(world.lines(&world.container()).await, ["version 2 run 2"]);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_stopped_is_started_and_what_was_removed_is_made_again() {
    with("drift", |world| async move {
        let spec = world.spec("1", SERVE);
        world.converge(&spec).await.expect("created");
        let id = world.seen().await.expect("seen").id;
        world.raw.stop_container(&id, None).await.expect("stopped behind our back");
        assert_eq!(world.seen().await.expect("seen").run, RunState::Stopped);
        world.converge(&spec).await.expect("started");
        let seen = world.seen().await.expect("seen");
        assert_eq!((seen.id == id, seen.run, seen.health), (true, RunState::Running, Health::Healthy));

        let force = bollard::query_parameters::RemoveContainerOptions { force: true, v: false, link: false };
        world.raw.remove_container(&id, Some(force)).await.expect("removed behind our back");
        assert_eq!(world.seen().await, None);
        world.converge(&spec).await.expect("made again");
        assert_eq!(world.lines(&world.container()).await, ["version 1 run 3"], "its memory is still there");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn deleting_keeps_the_memory_as_an_orphan_and_purging_takes_everything() {
    with("delete", |world| async move {
        world.converge(&world.spec("1", SERVE)).await.expect("created");
        let seen = world.seen().await.expect("seen");
        let delete = Change {
            action: Action::Delete,
            after: None,
            desired: None,
            expect: Some(seen.version),
            ..world.change(&world.spec("1", SERVE)).await
        };
        world.apply(&delete, &CallLog::default()).await.expect("deleted");
        assert_eq!(world.containers().await, Vec::<String>::new());
        let log = CallLog::default();
        assert_eq!(world.apply(&delete, &log).await.expect("again"), Applied::Unchanged { output: None });
        assert_eq!(log.writes(), Vec::<String>::new());

        let state = world.provider.observe(&[]).await.expect("observed");
        assert!(state.orphans[&World::ann()].contains("data-ann.lee"), "{:?}", state.orphans);
        let purged = world.provider.purge(true, &CallLog::default()).await.expect("purged");
        assert_eq!(purged.volumes, [world.scope.name("data-ann.lee")]);
        assert_eq!(purged.networks, [world.scope.name("net")]);
        assert!(world.provider.observe(&[]).await.expect("observed").orphans.is_empty());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_made_against_another_container_is_refused_and_nothing_is_touched() {
    with("stale", |world| async move {
        world.converge(&world.spec("1", SERVE)).await.expect("created");
        let old_plan = world.change(&world.spec("2", SERVE)).await;
        world.converge(&world.spec("3", SERVE)).await.expect("rolled by somebody else");
        let id = world.seen().await.expect("seen").id;
        let log = CallLog::default();
        let refused = world.apply(&old_plan, &log).await;
        assert!(matches!(refused, Err(ProviderError::Stale { .. })), "{refused:?}");
        assert_eq!(log.writes(), Vec::<String>::new());
        assert_eq!(world.seen().await.expect("seen").id, id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_that_is_set_later_reaches_the_container_by_a_roll_and_one_that_is_unset_again_changes_nothing() {
    with("later", |world| async move {
        let size = "echo key of $(wc -c < /run/fleet/key)";
        let spec = world.spec("1", &format!("{size}; {SERVE}"));
        let (without, with) = (world.as_if_set(&[]), world.as_if_set(&["API_KEY"]));
        let change = without.change(&spec).await;
        without.apply(&change, &CallLog::default()).await.expect("created");
        let first = without.seen().await.expect("seen");
        assert_eq!((first.hash, first.unfinished), (change.after, None), "nothing is due while it is not set");
        assert_eq!(without.provider.made_without().await.expect("asked").expect("an agent").len(), 1);

        let seen = with.seen().await.expect("seen");
        assert_eq!(seen.hash, None);
        assert!(seen.unfinished.expect("a reason").contains("API_KEY was not set"));
        let change = with.change(&spec).await;
        assert_eq!(with.apply(&change, &CallLog::default()).await.expect("rolled"), Applied::Changed { output: None });
        let second = with.seen().await.expect("seen");
        assert_ne!(second.id, first.id);
        assert_eq!(with.lines(&with.container()).await[0], format!("key of {}", OPERATOR_SECRET.len()));
        assert_eq!(with.provider.made_without().await.expect("asked"), Some(std::collections::BTreeSet::new()));
        for world in [&with, &without] {
            assert_eq!(world.seen().await.expect("seen").hash, change.after);
            assert_eq!(world.converge(&spec).await.expect("again"), Applied::Unchanged { output: None });
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_image_is_named_before_anything_is_stopped() {
    with("noimage", |world| async move {
        world.converge(&world.spec("1", SERVE)).await.expect("created");
        let id = world.seen().await.expect("seen").id;
        let mut spec = world.spec("2", SERVE);
        spec.image = Address::new(fleet_model::Kind::Image, "nowhere");
        let Err(ProviderError::Failed { why, .. }) = world.converge(&spec).await else { panic!("it did not fail") };
        assert!(why.contains("/nowhere:d-"), "{why}");
        let seen = world.seen().await.expect("seen");
        assert_eq!((seen.id == id, seen.run), (true, RunState::Running));
    })
    .await;
}
