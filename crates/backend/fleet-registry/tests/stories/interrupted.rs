//! The registry killed in the middle of uploads: nothing is visible, and the next push goes on.

use std::sync::{Arc, Mutex};

use crate::bench::{Always, Bench, PLATFORM, image, target};
use crate::docker_registry::{DockerRegistry, PASSWORD, USER};
use crate::proxy::{Fault, Proxy};
use fleet_oci::image::Base;

const ME: Always = Always(USER, PASSWORD);
const ROUNDS: u64 = 6;

#[tokio::test(flavor = "multi_thread")]
async fn a_registry_killed_at_random_moments_of_an_upload_ends_complete_and_shows_nothing_before() {
    let seed = std::env::var("FLEET_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("FLEET_SEED={seed} repeats this");
    let mut random = fastrand::Rng::with_seed(seed);
    let registry = Arc::new(Mutex::new(DockerRegistry::start()));
    let host = registry.lock().unwrap().host.clone();
    let proxy = Proxy::to(&host);
    let bench = Bench::new(ME);
    for round in 0..ROUNDS {
        let layers = [
            bench.large("a", 4 << 20, round),
            bench.large("b", 2 << 20, !round),
            bench.large("c", 300 << 10, round + 100),
        ];
        let image = image(&layers, &format!("round {round}"));
        let all = layers.iter().map(|layer| layer.size).sum::<u64>()
            + (image.config_json.len() + image.manifest_json.len()) as u64;
        let repository = format!("app{round}");
        let to = target(&proxy.host, &format!("{repository}:d-1"));
        let victim = Arc::clone(&registry);
        proxy.after_bytes(random.u64(1..=all), move || victim.lock().unwrap().kill());
        let first = bench.push(&bench.client(), &to, &image).await;
        proxy.after_bytes(u64::MAX, || {});
        registry.lock().unwrap().kill();
        registry.lock().unwrap().start_again();
        // It may not be able to say what it noted of the tag; to nobody it shows the image then.
        let there = bench.client().exists(&format!("{host}/{repository}"), "d-1").await.unwrap_or(None);
        match first {
            // The answer to the last request came before the end.
            Ok(_) => assert_eq!(there, Some(image.digest.clone())),
            // Its last request may have been carried out although its answer was lost.
            Err(_) => assert!(there.is_none() || there == Some(image.digest.clone()), "{there:?}"),
        }
        let pushed = bench.push(&bench.client(), &to, &image).await.unwrap();
        assert_eq!(pushed.digest, image.digest);
        let fresh = Bench::new(ME);
        let reference = format!("{host}/{repository}:d-1");
        let pulled = fresh.client().pull(&reference, &image.digest, PLATFORM, Arc::clone(&fresh.store)).await.unwrap();
        assert_eq!(pulled, Base::from(&image));
    }
}

#[tokio::test]
async fn what_a_registry_that_was_killed_can_no_longer_tell_is_sent_again() {
    let registry = DockerRegistry::start();
    let made = |words: &str| {
        let bench = Bench::new(ME);
        let layers = [bench.large("a", 2 << 20, 1), bench.large("b", 2 << 20, 2)];
        (image(&layers, words), layers, bench)
    };
    let (first, layers, bench) = made("first");
    bench.push(&bench.client(), &target(&registry.host, "app:d-1"), &first).await.unwrap();
    // Killed between making a file and writing it: what it noted of a layer, and of the tag.
    let (layer, tag) = (format!("_layers/sha256/{}/link", layers[0].digest.hex()), "_manifests/tags/d-1/current/link");
    for (torn, words, version, sent) in [(layer.as_str(), "second", "d-2", true), (tag, "first", "d-1", false)] {
        registry.tear("app", torn);
        let (image, _, bench) = made(words);
        let reference = format!("{}/app:{version}", registry.host);
        let pushed = bench.push(&bench.client(), &target(&registry.host, &format!("app:{version}")), &image).await;
        assert_eq!(pushed.unwrap().sent > 2 << 20, sent, "{torn}");
        let reader = Bench::new(ME);
        let pulled = reader.client().pull(&reference, &image.digest, PLATFORM, Arc::clone(&reader.store)).await;
        assert_eq!(pulled.unwrap(), Base::from(&image), "{torn}");
    }
}

#[tokio::test]
async fn a_push_that_ends_half_way_leaves_nothing_visible_and_the_next_sends_only_the_rest() {
    let registry = DockerRegistry::start();
    let proxy = Proxy::to(&registry.host);
    let mut bench = Bench::new(ME);
    bench.config.parallel = 1;
    let (first, second) = (bench.large("a", 2 << 20, 1), bench.large("b", 1 << 20, 2));
    let image = image(&[first.clone(), second.clone()], "a");
    // It ends after the blobs, before the manifest.
    let to = target(&proxy.host, "app:d-1");
    proxy.fails("PUT /v2/app/manifests/", Fault::Answer(400, ""));
    let refused = bench.push(&bench.client(), &to, &image).await.unwrap_err();
    assert!(refused.to_string().contains("400"), "{refused}");
    let repository = format!("{}/app", registry.host);
    assert_eq!(bench.client().exists(&repository, "d-1").await.unwrap(), None);
    let pushed = bench.push(&bench.client(), &to, &image).await.unwrap();
    assert_eq!((pushed.sent, pushed.skipped), (0, 3));
    assert_eq!(bench.client().exists(&repository, "d-1").await.unwrap(), Some(image.digest));
    let uploads = registry.asked().iter().filter(|asked| asked.request.starts_with("PUT /v2/app/blobs/")).count();
    assert_eq!(uploads, 3, "each blob was sent once");
}
