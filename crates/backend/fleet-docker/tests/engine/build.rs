//! `containerfile` images through the engine's BuildKit.

use std::{collections::BTreeMap, io::Write as _, time::Duration};

use bollard::query_parameters::ListContainersOptions;
use bytes::Bytes;
use fleet_docker::{
    containerfile::{BuildError, BuildRequest, ContextFile, build},
    images,
    scripts::Scripts,
};
use fleet_oci::{MemorySink, Node};

use crate::world::{World, with};

fn request(world: &World, containerfile: &str) -> BuildRequest {
    BuildRequest {
        containerfile: containerfile.to_owned(),
        files: vec![ContextFile { path: "greeting".to_owned(), mode: 0o644, bytes: Bytes::from_static(b"hello\n") }],
        args: BTreeMap::from([("BASE".to_owned(), images::tag(&world.scope.fleet, "box", world.image_hash))]),
        proxies: BTreeMap::from([("HTTPS_PROXY".to_owned(), "http://proxy.test:3128".to_owned())]),
        ca: None,
        platform: world.engine.platform.clone(),
        tag: images::tag(&world.scope.fleet, "built", world.image_hash),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containerfile_starts_from_a_fleet_image_and_sees_the_ca_bundle_that_the_image_does_not_keep() {
    with("build", |world| async move {
        let mut ca = tempfile::NamedTempFile::new().expect("a file");
        ca.write_all(b"-----BEGIN CERTIFICATE-----\nour-own-authority\n").expect("written");
        let text = "ARG BASE\nFROM ${BASE}\nCOPY greeting /greeting\n\
                    RUN --mount=type=secret,id=ca grep our-own-authority /run/secrets/ca && echo $HTTPS_PROXY && touch /ran\n";
        let mut request = request(&world, text);
        request.ca = Some(ca.path().to_owned());
        let mut lines = Vec::new();
        let id = build(&world.engine, &request, &mut |l| lines.push(l)).await.expect("built");
        assert!(lines.iter().any(|l| l.contains("our-own-authority")), "what a step prints is told: {lines:?}");
        let argv = ["/bin/sh", "-c", "cat /greeting; ls /ran; ls /run/secrets; grep -r our-own-auth /etc /run /tmp; echo done"];
        let check = world.engine.run_check(&id, &argv.map(str::to_owned), Duration::from_secs(60)).await.expect("ran");
        assert_eq!(check.last_lines.first().map(String::as_str), Some("hello"));
        assert!(!check.last_lines.iter().any(|l| l.contains("our-own-auth")), "{check:?}");
        let config = serde_json::to_string(&world.raw.inspect_image(&id).await.expect("inspected")).expect("json");
        assert!(!config.contains("proxy.test"), "the proxy is in the image: {config}");
        let history = serde_json::to_string(&world.raw.image_history(&id).await.expect("history")).expect("json");
        assert!(!history.contains("proxy.test"), "the proxy is in the history: {history}");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_step_that_fails_is_told_with_its_last_lines() {
    with("badbuild", |world| async move {
        let request = request(&world, "ARG BASE\nFROM ${BASE}\nRUN echo it is the third of these; exit 41\n");
        let failed = build(&world.engine, &request, &mut |_| {}).await;
        let Err(BuildError::Failed { why, last_lines, .. }) = failed else { panic!("{failed:?}") };
        assert!(why.contains("41"), "{why}");
        assert!(last_lines.iter().any(|l| l.contains("it is the third of these")), "{last_lines:?}");
        assert_eq!(world.engine.inspect_id(&request.tag).await.expect("inspected"), None);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_engine_without_buildkit_is_told_apart_before_anything_is_sent() {
    with("nobuildkit", |world| async move {
        let mut engine = world.engine.clone();
        engine.buildkit = false;
        let failed = build(&engine, &request(&world, "FROM scratch\n"), &mut |_| {}).await;
        assert!(failed.expect_err("refused").to_string().contains("BuildKit"));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn install_scripts_have_no_network_and_leave_no_container() {
    with("scripts", |world| async move {
        let mut request = request(&world, "ARG BASE\nFROM ${BASE}\nCOPY greeting /bin/node\nCOPY greeting /app/old\n");
        // In place of Node, which gets the scripts' runner and the folder: tells what there is to reach anybody by.
        request.files[0].mode = 0o755;
        request.files[0].bytes = Bytes::from_static(b"#!/bin/sh\nls /sys/class/net > \"$4/nets\"\n");
        let id = build(&world.engine, &request, &mut |_| {}).await.expect("built");
        let mut archive = Vec::new();
        let scripts = Scripts { image: &id, folder: "/app", packages: &[] };
        let changes = world.engine.run_scripts(&scripts, &mut archive).await.expect("they ran");
        assert_eq!(changes.written.iter().collect::<Vec<_>>(), ["app/nets"]);
        let tree = changes.tree(&archive[..], &mut MemorySink).expect("a tree");
        assert_eq!(tree.get("app/nets"), Some(&Node::file(0o644, "lo\n")));
        let filters = std::collections::HashMap::from([("label".to_owned(), vec![format!("dev.fleetctl.check={id}")])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        assert!(world.raw.list_containers(Some(options)).await.expect("listed").is_empty());
    })
    .await;
}
