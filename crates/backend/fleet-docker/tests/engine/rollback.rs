//! New versions that do not make it.

use std::time::{Duration, Instant};

use fleet_apply::ProviderError;
use fleet_plan::{Health, PublishedPort, RunState};

use crate::world::{OPERATOR_SECRET, SERVE, World, with};

async fn former_returns(world: &World, script: &str, why_contains: &str, line: &str) {
    world.converge(&world.spec("1", SERVE)).await.expect("created");
    let before = world.seen().await.expect("seen");
    let began = Instant::now();
    let result = world.converge(&world.spec("2", script)).await;
    let Err(ProviderError::RolledBack { why, last_lines, .. }) = result else { panic!("{result:?}") };
    assert!(began.elapsed() < Duration::from_secs(200), "{:?}", began.elapsed());
    assert!(why.contains(why_contains), "{why}");
    assert!(last_lines.iter().any(|l| l.contains(line)), "{last_lines:?}");
    let after = world.seen().await.expect("seen");
    assert_eq!((after.id, after.hash, after.version), (before.id, before.hash, before.version));
    assert_eq!((after.run, after.health), (RunState::Running, Health::Healthy));
    assert_eq!(world.containers().await, [world.container()], "nothing is left of the attempt");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_exits_at_once_is_undone_and_its_last_lines_are_told() {
    with("exits", |world| async move {
        former_returns(&world, "echo I cannot start; exit 3", "exit code 3", "I cannot start").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_never_becomes_healthy_is_undone_in_bounded_time() {
    with("sick", |world| async move {
        let script = "echo waiting for nothing; trap 'exit 0' TERM; while :; do sleep 0.2; done";
        former_returns(&world, script, "health check fails", "waiting for nothing").await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_does_not_exist_is_undone_too() {
    with("noprogram", |world| async move {
        world.converge(&world.spec("1", SERVE)).await.expect("created");
        let id = world.seen().await.expect("seen").id;
        let mut spec = world.spec("2", SERVE);
        spec.command = Some(vec!["/bin/nothing-here".to_owned()]);
        let result = world.converge(&spec).await;
        let Err(ProviderError::RolledBack { why, .. }) = result else { panic!("{result:?}") };
        assert!(why.contains("/bin/nothing-here"), "{why}");
        assert_eq!(world.seen().await.expect("seen").id, id);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_version_that_fails_leaves_its_memory_and_no_container() {
    with("firstbad", |world| async move {
        let result = world.converge(&world.spec("1", "echo remember > /data/x; echo broken; exit 1")).await;
        let Err(ProviderError::Failed { last_lines, .. }) = result else { panic!("{result:?}") };
        assert_eq!(last_lines.first().map(String::as_str), Some("broken"));
        assert_eq!(world.containers().await, Vec::<String>::new());
        world.converge(&world.spec("2", &format!("cat /data/x; {SERVE}"))).await.expect("the next version");
        assert_eq!(world.lines(&world.container()).await[0], "remember");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_prints_its_secret_while_it_dies_does_not_make_us_repeat_it() {
    with("prints", |world| async move {
        let result = world.converge(&world.spec("1", "echo key is $(cat /run/fleet/key); exit 1")).await;
        let Err(ProviderError::Failed { last_lines, why, .. }) = result else { panic!("{result:?}") };
        assert_eq!(last_lines.first().map(String::as_str), Some("key is <secret>"));
        assert!(!format!("{why}{last_lines:?}").contains(&OPERATOR_SECRET[..8]));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_explained_and_the_former_version_returns() {
    with("port", |world| async move {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = taken.local_addr().expect("an address").port();
        world.converge(&world.spec("1", SERVE)).await.expect("created");
        let id = world.seen().await.expect("seen").id;
        let mut spec = world.spec("2", SERVE);
        spec.ports = vec![PublishedPort { host: port, container: 80 }];
        let result = world.converge(&spec).await;
        let Err(ProviderError::RolledBack { why, .. }) = result else { panic!("{result:?}") };
        assert!(why.contains(&port.to_string()), "{why}");
        assert_eq!(world.seen().await.expect("seen").id, id);
    })
    .await;
}
