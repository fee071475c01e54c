//! Images: load, list, check, untag.

use std::time::Duration;

use bytes::Bytes;
use fleet_docker::images;
use futures::{StreamExt, stream};

use crate::world::with;

fn words(argv: &[&str]) -> Vec<String> {
    argv.iter().map(|w| (*w).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_archive_that_is_streamed_in_is_listed_by_name_and_derivation() {
    with("load", |world| async move {
        let tag = images::tag(&world.scope.fleet, "box", world.image_hash);
        let id = world.engine.inspect_id(&tag).await.expect("inspected").expect("it is there");
        let saved: Vec<Bytes> = world.raw.export_image(&tag).map(|b| b.expect("saving")).collect().await;
        world.engine.remove_image_tag(&tag).await.expect("untagged");
        world.engine.remove_image_tag(&tag).await.expect("untagging what is gone is fine");
        assert_eq!(world.engine.inspect_id(&tag).await.expect("inspected"), None);

        world.engine.load(stream::iter(saved.into_iter().map(Ok))).await.expect("loaded");
        let list = world.engine.list_fleet_images(&world.scope.fleet).await.expect("listed");
        assert_eq!(list.into_iter().collect::<Vec<_>>(), [(("box".to_owned(), world.image_hash), id.clone())]);
        assert_eq!(world.engine.layers(&id).await.expect("inspected").map(|l| l.len()), Some(1));

        let other = images::tag(&world.scope.fleet, "other", world.image_hash);
        world.engine.tag(&id, &other).await.expect("tagged");
        assert_eq!(world.engine.inspect_id(&other).await.expect("inspected"), Some(id));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broken_archive_is_an_error_and_not_an_image() {
    with("badload", |world| async move {
        let broken = stream::iter([Ok(Bytes::from_static(b"this is no tar archive at all"))]);
        assert!(world.engine.load(broken).await.is_err());
        let cut = stream::iter([Ok(Bytes::from_static(b"x")), Err(std::io::Error::other("the disk is gone"))]);
        assert!(world.engine.load(cut).await.is_err());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn checks_run_without_network_in_bounded_time_and_leave_nothing() {
    with("check", |world| async move {
        let tag = images::tag(&world.scope.fleet, "box", world.image_hash);
        let id = world.engine.inspect_id(&tag).await.expect("inspected").expect("it is there");
        let check = |argv: &[&str], seconds| {
            let (world, id, argv) = (world.clone(), id.clone(), words(argv));
            async move { world.engine.run_check(&id, &argv, Duration::from_secs(seconds)).await.expect("it ran") }
        };
        let good = check(&["/bin/sh", "-c", "echo fine; test ! -e /sys/class/net/eth0"], 60).await;
        assert_eq!((good.exit_code, good.last_lines), (Some(0), vec!["fine".to_owned()]));
        assert_eq!(check(&["/bin/sh", "-c", "exit 9"], 60).await.exit_code, Some(9));
        let missing = check(&["openclaw", "--version"], 60).await;
        assert_eq!(missing.exit_code, Some(127));
        assert!(missing.last_lines.join(" ").contains("openclaw"), "{missing:?}");
        assert_eq!(check(&["/bin/sleep", "60"], 1).await.exit_code, None);
        let filters = std::collections::HashMap::from([("label".to_owned(), vec![format!("dev.fleetctl.check={id}")])]);
        let options = bollard::query_parameters::ListContainersOptions {
            all: true,
            filters: Some(filters),
            ..Default::default()
        };
        assert!(world.raw.list_containers(Some(options)).await.expect("listed").is_empty());
    })
    .await;
}
