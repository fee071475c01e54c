//! Images into a real registry that wants a password: what is sent, what is not, and what is seen of it meanwhile.

use std::{sync::Arc, time::Duration};

use crate::bench::{Always, Bench, PLATFORM, image, target};
use crate::docker_registry::{DockerRegistry, PASSWORD, USER};
use crate::proxy::{Fault, Proxy};
use fleet_oci::{
    Digest, Image,
    attestation::{Subject, artifact},
    image::Base,
    index::Index,
    upload::Upload,
};
use fleet_registry::{Client, Event, Nobody, Origin, RegistryError};

const ME: Always = Always(USER, PASSWORD);

/// The image as another machine sees it.
async fn pulled(host: &str, rest: &str) -> Base {
    let other = Bench::new(ME);
    let reference = format!("{host}/{rest}");
    let digest = other.client().resolve(&reference, PLATFORM).await.unwrap();
    other.client().pull(&reference, &digest, PLATFORM, Arc::clone(&other.store)).await.unwrap()
}

#[tokio::test]
async fn what_is_pushed_can_be_pulled_and_a_second_push_is_one_request_on_one_connection() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let image = image(&[bench.large("lib/big", 3 << 20, 1), bench.layer("bin/app", b"app".to_vec())], "a");
    let pushed = bench.push(&bench.client(), &target(&registry.host, "org/app:d-1"), &image).await.unwrap();
    assert_eq!((pushed.digest.clone(), pushed.skipped, pushed.mounted), (image.digest.clone(), 0, 0));
    let blobs: u64 = image.layers.iter().map(|layer| layer.size).sum::<u64>() + image.config_json.len() as u64;
    assert_eq!(pushed.sent, blobs);
    assert_eq!(pulled(&registry.host, "org/app:d-1").await, Base::from(&image));

    let proxy = Proxy::to(&registry.host);
    let client = bench.client();
    for _ in 0..3 {
        let again = bench.push(&client, &target(&proxy.host, "org/app:d-1"), &image).await.unwrap();
        assert_eq!((again.requests, again.sent, again.digest), (1, 0, image.digest.clone()));
    }
    let there = client.exists(&format!("{}/org/app", proxy.host), "d-1").await.unwrap();
    assert_eq!(there, Some(image.digest));
    assert_eq!(client.exists(&format!("{}/org/app", proxy.host), "d-2").await.unwrap(), None);
    assert_eq!(proxy.asked().len(), 5, "{:?}", proxy.asked());
    assert!(proxy.asked().iter().all(|request| request.starts_with("HEAD ")));
    assert_eq!(proxy.connections(), 1);
}

#[tokio::test]
async fn a_blob_that_was_damaged_here_is_named_and_put_aside_and_the_registry_is_not_blamed() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let image = image(&[bench.large("lib/big", 3 << 20, 1)], "a");
    let digest = image.layers[0].digest.clone();
    let id = fleet_store::BlobId::sha256(digest.hex()).unwrap();
    let place = bench.store.blob_path(&id).unwrap();
    let mut bytes = std::fs::read(&place).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&place, bytes).unwrap();
    let error = bench.push(&bench.client(), &target(&registry.host, "app:d-1"), &image).await.unwrap_err();
    assert!(matches!(&error, RegistryError::NoBlob { blob, .. } if *blob == digest), "{error}");
    assert!(error.to_string().contains("was damaged in .fleet/"), "{error}");
    assert_eq!(bench.store.blob_path(&id), None);
}

fn statement(about: &Image, kind: &str, text: &str) -> Upload {
    Upload::of_referrer(&artifact(kind, text.as_bytes(), &Subject::of_image(about)))
}

#[tokio::test]
async fn a_small_change_costs_six_requests_another_environment_four_and_six_more_what_is_said_of_them() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let base = [bench.large("usr/lib/a", 2 << 20, 1), bench.large("usr/lib/b", 1 << 20, 2)];
    let with = |config: &[u8]| [base.to_vec(), vec![bench.layer("etc/agent.json", config.to_vec())]].concat();
    let push = async |tag: &str, image: &Image, statements: &[Upload]| {
        let to = target(&registry.host, &format!("org/app:{tag}"));
        bench.push_saying(&bench.client(), &to, image, statements).await.unwrap()
    };
    push("d-1", &image(&with(b"1"), "a"), &[]).await;
    let pushed = push("d-2", &image(&with(b"2"), "a"), &[]).await;
    assert_eq!((pushed.requests, pushed.skipped), (6, 2), "{:#?}", registry.asked());
    let environment = image(&with(b"2"), "b");
    let pushed = push("d-3", &environment, &[]).await;
    assert_eq!((pushed.requests, pushed.sent), (4, environment.config_json.len() as u64));
    assert_eq!(pulled(&registry.host, "org/app:d-3").await, Base::from(&environment));

    // A statement that is new, one whose text is as it was, and the list of them.
    let said = |image: &Image, text: &str| [statement(image, "a/new", text), statement(image, "a/bill", "{}")];
    let (first, second) = (image(&with(b"2"), "c"), image(&with(b"2"), "d"));
    push("d-4", &first, &said(&first, "1")).await;
    let pushed = push("d-5", &second, &said(&second, "2")).await;
    assert_eq!(pushed.requests, 4 + 6, "{:#?}", registry.asked());
}

/// Somebody wipes the registry between one client's push and the other's, of another image with the same layer.
async fn a_wiped_registry_gets_everything_again(bench: &Bench, [before, after]: [Client; 2]) {
    let mut registry = DockerRegistry::start();
    let layer = bench.large("a", 1 << 20, 1);
    let first = image(std::slice::from_ref(&layer), "a");
    bench.push(&before, &target(&registry.host, "org/app:d-1"), &first).await.unwrap();
    registry.kill();
    std::fs::remove_dir_all(registry.folder.path().join("images")).unwrap();
    registry.start_again();
    let second = image(&[layer], "b");
    bench.push(&after, &target(&registry.host, "org/app:d-2"), &second).await.unwrap();
    assert_eq!(pulled(&registry.host, "org/app:d-2").await, Base::from(&second));
}

/// Another process's notes may be wrong: the registry was wiped since.
#[tokio::test]
async fn blobs_that_an_earlier_process_left_and_that_are_gone_are_sent_again() {
    let bench = Bench::new(ME);
    a_wiped_registry_gets_everything_again(&bench, [bench.client(), bench.client()]).await;
}

#[tokio::test]
async fn a_former_image_that_is_gone_or_lies_costs_only_its_request() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let image = image(&[bench.large("a", 1 << 20, 1), bench.large("b", 1 << 20, 2)], "a");
    let mut to = target(&registry.host, "org/app:d-1");
    to.former = Some(Digest::sha256(b"removed long ago"));
    let pushed = bench.push(&bench.client(), &to, &image).await.unwrap();
    assert_eq!(pushed.skipped, 0);
    assert_eq!(pulled(&registry.host, "org/app:d-1").await, Base::from(&image));
}

#[tokio::test]
async fn blobs_that_were_known_and_are_gone_are_sent_after_all() {
    let bench = Bench::new(ME);
    let client = bench.client();
    a_wiped_registry_gets_everything_again(&bench, [client.clone(), client]).await;
}

#[tokio::test]
async fn a_layer_pushed_once_is_mounted_and_not_sent_to_the_second_repository() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let layer = bench.large("lib/big", 2 << 20, 1);
    bench
        .push(&bench.client(), &target(&registry.host, "org/one:d-1"), &image(std::slice::from_ref(&layer), "a"))
        .await
        .unwrap();
    let second = image(std::slice::from_ref(&layer), "b");
    let mut to = target(&registry.host, "org/two:d-1");
    to.mount_from = vec!["org/one".to_owned()];
    let pushed = bench.push(&bench.client(), &to, &second).await.unwrap();
    assert_eq!((pushed.mounted, pushed.sent), (1, second.config_json.len() as u64));
    let mounted = Event::Mounted { digest: layer.digest.clone(), from: "org/one".into() };
    assert!(bench.events.lock().unwrap().contains(&mounted));
    let hex = layer.digest.hex();
    assert_eq!(registry.count("POST /v2/org/two/blobs/uploads/?mount=", hex, 201), 1, "{:#?}", registry.asked());
    assert_eq!(registry.count("PUT /v2/org/two/blobs/", hex, 201), 0);
    assert_eq!(pulled(&registry.host, "org/two:d-1").await, Base::from(&second));
}

#[tokio::test]
async fn a_mount_that_the_registry_does_not_make_goes_on_as_an_upload() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let image = image(&[bench.large("lib/big", 1 << 20, 1)], "a");
    let mut to = target(&registry.host, "org/two:d-1");
    to.mount_from = vec!["org/one".to_owned()];
    let pushed = bench.push(&bench.client(), &to, &image).await.unwrap();
    assert_eq!(pushed.mounted, 0);
    let hex = image.layers[0].digest.hex();
    assert_eq!(registry.count("POST /v2/org/two/blobs/uploads/?mount=", hex, 202), 1);
    assert_eq!(registry.count("PUT /v2/org/two/blobs/uploads/", hex, 201), 1);
    assert_eq!(pulled(&registry.host, "org/two:d-1").await, Base::from(&image));
}

#[tokio::test]
async fn a_base_that_is_only_described_is_streamed_from_its_registry_and_never_stored_here() {
    let (theirs, ours) = (DockerRegistry::start(), DockerRegistry::start());
    let maker = Bench::new(ME);
    let base = image(&[maker.large("usr/lib/a", 2 << 20, 1)], "base");
    maker.push(&maker.client(), &target(&theirs.host, "library/base:1"), &base).await.unwrap();

    let bench = Bench::new(ME);
    let client = bench.client();
    let reference = format!("{}/library/base:1", theirs.host);
    let digest = client.resolve(&reference, PLATFORM).await.unwrap();
    let described = client.describe(&reference, &digest, PLATFORM, &bench.store).await.unwrap();
    assert_eq!(described.layers[0].digest, base.layers[0].digest);
    let own = bench.layer("etc/own", b"own".to_vec());
    let image = fleet_oci::image::assemble(&described, PLATFORM, &fleet_oci::ImageConfig::default(), &[own]);
    // Where it was described is remembered.
    bench.push(&client, &target(&ours.host, "org/app:d-1"), &image).await.unwrap();
    let id = fleet_store::BlobId::sha256(base.layers[0].digest.hex()).unwrap();
    assert!(bench.store.blob_path(&id).is_none());
    assert_eq!(pulled(&ours.host, "org/app:d-1").await.layers[0], base.layers[0]);

    // The second time it is at the target, and its own registry is not asked.
    let before = theirs.asked().len();
    let again = fleet_oci::image::assemble(&described, PLATFORM, &fleet_oci::ImageConfig::default(), &[]);
    let pushed = bench.push(&bench.client(), &target(&ours.host, "org/app:d-2"), &again).await.unwrap();
    assert_eq!((pushed.skipped, theirs.asked().len()), (1, before));
}

#[tokio::test]
async fn an_origin_that_sends_another_blob_is_named_and_nothing_is_pushed() {
    let (theirs, ours) = (DockerRegistry::start(), DockerRegistry::start());
    let mut bench = Bench::new(ME);
    let layer = bench.large("a", 1 << 20, 1);
    bench
        .push(&bench.client(), &target(&theirs.host, "base:1"), &image(std::slice::from_ref(&layer), "a"))
        .await
        .unwrap();
    // The bytes on the registry's disk rot, or are replaced; the registry itself does not look.
    let hex = layer.digest.hex();
    let data = format!("images/docker/registry/v2/blobs/sha256/{}/{hex}/data", &hex[..2]);
    let path = theirs.folder.path().join(data);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[1000] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let here = bench.store.blob_path(&fleet_store::BlobId::sha256(hex).unwrap()).unwrap();
    std::fs::remove_file(here).unwrap();
    bench
        .blobs
        .origins
        .insert(layer.digest.clone(), vec![Origin { registry: theirs.host.clone(), repository: "base".into() }]);
    let error = bench
        .push(&bench.client(), &target(&ours.host, "app:d-1"), &image(std::slice::from_ref(&layer), "a"))
        .await
        .unwrap_err();
    assert!(
        matches!(&error, RegistryError::Lies { wanted, reference, .. } if *wanted == layer.digest && reference.contains(&theirs.host)),
        "{error}"
    );
    assert_eq!(bench.client().exists(&format!("{}/app", ours.host), "d-1").await.unwrap(), None);
}

#[tokio::test]
async fn a_blob_that_is_nowhere_is_named() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let elsewhere = Bench::new(Nobody);
    let layer = elsewhere.large("a", 1 << 20, 1);
    let error = bench
        .push(&bench.client(), &target(&registry.host, "app:1"), &image(std::slice::from_ref(&layer), "a"))
        .await
        .unwrap_err();
    assert!(matches!(&error, RegistryError::NoBlob { blob, .. } if *blob == layer.digest), "{error}");
    assert!(error.to_string().contains(&layer.digest.to_string()));
}

#[tokio::test]
async fn a_wrong_password_is_refused_with_the_way_to_mend_it() {
    let registry = DockerRegistry::start();
    let image = image(&[], "a");
    let wrong = Bench::new(Always(USER, "hunter2hunter2"));
    let error = wrong.push(&wrong.client(), &target(&registry.host, "app:1"), &image).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RegistryError::Denied { .. }), "{text}");
    assert!(text.contains("user `joe`") && text.contains(&format!("docker login {}", registry.host)), "{text}");
    assert!(!format!("{text}{error:?}").contains("hunter2"));
    assert!(wrong.clock.slept.lock().unwrap().is_empty(), "a refusal does not pass");
    let stranger = Bench::new(Nobody);
    let error = stranger.client().exists(&format!("{}/app", registry.host), "1").await.unwrap_err();
    assert!(error.to_string().contains("it wants to know who asks"), "{error}");
}

#[tokio::test]
async fn an_immutable_tag_that_holds_another_digest_is_an_error_that_names_both() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let (first, second) = (image(&[], "a"), image(&[], "b"));
    let to = target(&registry.host, "org/app:d-1");
    bench.push(&bench.client(), &to, &first).await.unwrap();
    let error = bench.push(&bench.client(), &to, &second).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, RegistryError::Taken { .. }), "{text}");
    assert!(text.contains(&first.digest.to_string()) && text.contains(&second.digest.to_string()), "{text}");
    assert_eq!(bench.client().exists(&format!("{}/org/app", registry.host), "d-1").await.unwrap(), Some(first.digest));
    // Any other tag may move.
    let to = target(&registry.host, "org/app:latest");
    for image in [image(&[], "a"), second] {
        bench.push(&bench.client(), &to, &image).await.unwrap();
        assert_eq!(
            bench.client().exists(&format!("{}/org/app", registry.host), "latest").await.unwrap(),
            Some(image.digest)
        );
    }
}

#[tokio::test]
async fn an_index_is_pushed_children_first_and_its_shared_layer_once() {
    let registry = DockerRegistry::start();
    let bench = Bench::new(ME);
    let shared = bench.large("shared", 1 << 20, 1);
    let of = |platform| {
        fleet_oci::image::assemble(
            &Base::default(),
            platform,
            &fleet_oci::ImageConfig::default(),
            std::slice::from_ref(&shared),
        )
    };
    let images = fleet_oci::Platform::ALL.map(of);
    let upload = Upload::of_index(&Index::of(images.clone()).unwrap());
    let to = target(&registry.host, "org/app:d-1");
    let pushed = bench.client().push(&to, &upload, &bench.blobs, &|_| {}).await.unwrap();
    let configs: usize = images.iter().map(|image| image.config_json.len()).sum();
    assert_eq!(pushed.sent, shared.size + configs as u64);
    for image in &images {
        let reference = format!("{}/org/app:d-1", registry.host);
        assert_eq!(bench.client().resolve(&reference, image.platform).await.unwrap(), image.digest);
    }
    assert_eq!(bench.client().push(&to, &upload, &bench.blobs, &|_| {}).await.unwrap().requests, 1);
}

#[tokio::test]
async fn too_many_requests_and_outages_are_waited_for_as_long_as_the_registry_asks() {
    let registry = DockerRegistry::start();
    let proxy = Proxy::to(&registry.host);
    let bench = Bench::new(ME);
    let image = image(&[bench.large("a", 1 << 20, 1)], "a");
    proxy.fails("HEAD /v2/app/manifests/", Fault::Answer(429, "Retry-After: 7\n"));
    proxy.fails("HEAD /v2/app/blobs/", Fault::Answer(503, ""));
    proxy.fails("HEAD /v2/app/blobs/", Fault::Answer(502, ""));
    proxy.fails("POST /v2/app/blobs/uploads/", Fault::Cut(0));
    proxy.fails("PUT /v2/app/blobs/uploads/", Fault::Cut(1));
    proxy.fails("PUT /v2/app/manifests/", Fault::Answer(429, "Retry-After: 3\n"));
    bench.push(&bench.client(), &target(&proxy.host, "app:d-1"), &image).await.unwrap();
    assert_eq!(pulled(&registry.host, "app:d-1").await, Base::from(&image));
    let slept = bench.clock.slept.lock().unwrap().clone();
    assert!(slept.len() >= 6, "{slept:?}");
    assert_eq!((slept[0], slept[slept.len() - 1]), (Duration::from_secs(7), Duration::from_secs(3)));
    let told = bench.events.lock().unwrap();
    assert!(told.iter().any(|event| matches!(event, Event::Retrying { why, .. } if why.contains("429"))), "{told:?}");
}

#[tokio::test]
async fn a_registry_that_stays_away_is_given_up_and_one_that_asks_for_an_hour_at_once() {
    let registry = DockerRegistry::start();
    let proxy = Proxy::to(&registry.host);
    let bench = Bench::new(ME);
    (0..5).for_each(|_| proxy.fails("HEAD ", Fault::Answer(503, "")));
    let repository = format!("{}/app", proxy.host);
    let error = bench.client().exists(&repository, "1").await.unwrap_err();
    assert!(error.is_unreachable() && error.to_string().contains("503"), "{error}");
    assert_eq!(bench.clock.slept.lock().unwrap().len(), 4);
    proxy.fails("HEAD ", Fault::Answer(429, "Retry-After: 3600\n"));
    let error = bench.client().exists(&repository, "1").await.unwrap_err();
    assert!(error.to_string().contains("3600 s"), "{error}");
    assert_eq!(bench.clock.slept.lock().unwrap().len(), 4);
}
