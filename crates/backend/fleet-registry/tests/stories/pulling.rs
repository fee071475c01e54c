//! Bases from registries that have several platforms, lie, or are gone.

use std::sync::Arc;

use crate::bench::Bench;
use crate::support::Server;
use fleet_oci::{
    Compression, Digest, Image, ImageConfig, LayerDescriptor, Node, Platform, Tree,
    image::{Base, assemble},
    layer::write_layer,
};
use fleet_registry::{Client, Nobody, RegistryError};
use fleet_store::{Algorithm, BlobId, Store};

const PLATFORM: Platform = Platform::LinuxArm64;

struct Registry {
    server: Server,
    image: Image,
    layer: Vec<u8>,
    bench: Bench,
}

impl Registry {
    /// A registry with `app:v1`, an index that has an image for one platform.
    fn start() -> Self {
        let mut tree = Tree::new();
        tree.insert("bin/app", Node::file(0o755, "elf")).unwrap();
        let (layer, descriptor) = write_layer(&tree, Compression::Gzip, Vec::new()).unwrap();
        let registry = Self { server: Server::start(), image: image(descriptor), layer, bench: Bench::new(Nobody) };
        registry.serve("org/app", &registry.image);
        registry
    }

    fn serve(&self, repository: &str, image: &Image) {
        let at = |rest: &str| format!("/v2/{repository}/{rest}");
        self.server.gives(&at("manifests/v1"), index(&image.digest));
        self.server.gives(&at(&format!("manifests/{}", image.digest)), image.manifest_json.clone());
        self.server.gives(&at(&format!("blobs/{}", image.config_digest)), image.config_json.clone());
        self.server.gives(&at(&format!("blobs/{}", image.layers[0].digest)), self.layer.clone());
    }

    fn reference(&self) -> String {
        format!("{}/org/app:v1", self.server.host)
    }

    fn client(&self) -> Client {
        self.bench.client()
    }

    async fn pull(&self, image: &Image) -> Result<Base, RegistryError> {
        self.client().pull(&self.reference(), &image.digest, PLATFORM, Arc::clone(&self.bench.store)).await
    }

    async fn resolve(&self) -> Result<Digest, RegistryError> {
        self.client().resolve(&self.reference(), PLATFORM).await
    }
}

/// An index with an image for another platform and this one for ours.
fn index(digest: &Digest) -> String {
    let index = serde_json::json!({"schemaVersion": 2, "manifests": [
        {"mediaType": "x", "size": 1, "digest": Digest::sha256(b"other"), "platform": {"os": "linux", "architecture": "s390x"}},
        {"mediaType": "x", "size": 1, "digest": digest, "platform": {"os": "linux", "architecture": "arm64"}},
    ]});
    index.to_string()
}

fn image(layer: LayerDescriptor) -> Image {
    let config = ImageConfig { user: Some("7".into()), cmd: vec!["app".into()], ..ImageConfig::default() };
    assemble(&Base::default(), PLATFORM, &config, &[layer])
}

fn has(store: &Store, digest: &Digest) -> bool {
    store.blob_path(&BlobId::new(Algorithm::Sha256, digest.hex()).unwrap()).is_some()
}

fn lies_about(error: &RegistryError, digest: &Digest) -> bool {
    matches!(error, RegistryError::Lies { wanted, .. } if wanted == digest)
        && error.to_string().contains(&digest.to_string())
}

#[tokio::test]
async fn a_base_is_pinned_and_pulled_once_with_its_settings() {
    let registry = Registry::start();
    let digest = registry.resolve().await.unwrap();
    assert_eq!(digest, registry.image.digest);
    let base = registry.pull(&registry.image).await.unwrap();
    assert_eq!(base, Base::from(&registry.image));
    assert!(has(&registry.bench.store, &base.layers[0].digest));
    let blobs = |asked: Vec<String>| asked.iter().filter(|request| request.contains("/blobs/")).count();
    assert_eq!(blobs(registry.server.asked()), 2);
    let before = registry.server.asked().len();
    assert_eq!(registry.pull(&registry.image).await.unwrap(), base);
    assert_eq!(registry.server.asked().len(), before, "what is there whole is asked of nobody");
    let (client, reference, other) = (registry.client(), registry.reference(), Bench::new(Nobody));
    let described = client.describe(&reference, &digest, PLATFORM, &registry.bench.store).await.unwrap();
    assert_eq!(described, base, "what was looked through is known");
    let first = client.describe(&reference, &digest, PLATFORM, &other.store).await.unwrap();
    assert_eq!((&first.config, &first.layers[0].digest), (&base.config, &base.layers[0].digest));
    let before = registry.server.asked().len();
    assert_eq!(client.describe(&reference, &digest, PLATFORM, &other.store).await.unwrap(), first);
    assert_eq!(registry.server.asked().len(), before, "nor is a description asked for twice");
}

#[tokio::test]
async fn a_platform_or_tag_that_is_not_there_is_absent() {
    let registry = Registry::start();
    let client = registry.client();
    let other = client.resolve(&registry.reference(), Platform::LinuxAmd64).await.unwrap_err();
    assert!(matches!(&other, RegistryError::Absent { what, .. } if what.contains("linux/amd64")), "{other}");
    let tag = client.resolve(&format!("{}/org/app:v2", registry.server.host), PLATFORM).await.unwrap_err();
    assert!(matches!(tag, RegistryError::Absent { .. }), "{tag:?}");
    // One image without an index around it, for arm64.
    registry.server.gives("/v2/org/app/manifests/v1", registry.image.manifest_json.clone());
    assert_eq!(client.resolve(&registry.reference(), PLATFORM).await.unwrap(), registry.image.digest);
    let other = client.resolve(&registry.reference(), Platform::LinuxAmd64).await.unwrap_err();
    assert!(matches!(&other, RegistryError::Absent { what, .. } if what.contains("only for linux/arm64")), "{other}");
}

#[tokio::test]
async fn a_registry_that_sends_other_bytes_is_named_and_nothing_is_kept() {
    let registry = Registry::start();
    let layer = &registry.image.layers[0].digest;
    let mut wrong = registry.layer.clone();
    wrong[20] ^= 1;
    let path = format!("/v2/org/app/blobs/{layer}");
    for bytes in [wrong, registry.layer[..50].to_vec(), [&registry.layer[..], b"more"].concat()] {
        registry.server.gives(&path, bytes);
        let error = registry.pull(&registry.image).await.unwrap_err();
        assert!(lies_about(&error, layer), "{error}");
        assert!(!has(&registry.bench.store, layer));
    }
    let config = format!("/v2/org/app/blobs/{}", registry.image.config_digest);
    for bytes in [registry.image.config_json.replace('7', "8"), format!("{} ", registry.image.config_json)] {
        registry.server.gives(&config, bytes);
        // A store that does not have the config yet.
        let fresh = Bench::new(Nobody);
        let (client, reference) = (fresh.client(), registry.reference());
        let pulled = client.pull(&reference, &registry.image.digest, PLATFORM, Arc::clone(&fresh.store));
        let error = pulled.await.unwrap_err();
        assert!(lies_about(&error, &registry.image.config_digest), "{error}");
    }
    let manifest = format!("/v2/org/app/manifests/{}", registry.image.digest);
    registry.server.gives(&manifest, registry.image.manifest_json.replace("gzip", "zstd"));
    let fresh = Bench::new(Nobody);
    let (client, reference) = (fresh.client(), registry.reference());
    let error = client.pull(&reference, &registry.image.digest, PLATFORM, Arc::clone(&fresh.store)).await.unwrap_err();
    assert!(lies_about(&error, &registry.image.digest), "{error}");
}

#[tokio::test]
async fn a_layer_that_is_not_what_its_config_says_is_refused() {
    let registry = Registry::start();
    let swapped = LayerDescriptor { diff_id: Digest::sha256(b"another tar"), ..registry.image.layers[0].clone() };
    let image = image(swapped);
    registry.serve("org/app", &image);
    let error = registry.pull(&image).await.unwrap_err();
    assert!(error.to_string().contains("the tar inside is"), "{error}");
}

/// A layer of these bytes that is all it says of itself, and what comes of pulling it.
async fn pulled(tar: &[u8]) -> (Digest, Result<Base, RegistryError>) {
    let mut registry = Registry::start();
    let mut gzip = fleet_oci::compress::BlockWriter::new(Vec::new(), Compression::Gzip);
    std::io::Write::write_all(&mut gzip, tar).unwrap();
    let (layer, made) = gzip.finish().unwrap();
    registry.layer = layer;
    let image = image(LayerDescriptor {
        media_type: Compression::Gzip.media_type().to_owned(),
        digest: made.digest.clone(),
        diff_id: made.diff_id,
        size: made.size,
        uncompressed: made.uncompressed,
    });
    registry.serve("org/app", &image);
    (made.digest, registry.pull(&image).await)
}

/// A tar of empty files and links whose names are written as they are given.
fn tar(entries: &[(u8, &str, &str)]) -> Vec<u8> {
    let mut tar = Vec::new();
    for (kind, name, link) in entries {
        let mut header = [0_u8; 512];
        header[..name.len()].copy_from_slice(name.as_bytes());
        header[100..107].copy_from_slice(b"0000644");
        header[124..135].copy_from_slice(b"00000000000");
        header[148..156].fill(b' ');
        header[156] = *kind;
        header[157..157 + link.len()].copy_from_slice(link.as_bytes());
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        tar.extend(header);
    }
    tar.extend([0; 1024]);
    tar
}

#[tokio::test]
async fn layers_with_names_and_links_that_leave_the_root_are_refused_by_name() {
    for bad in [
        tar(&[(b'0', "../etc/passwd", "")]),
        tar(&[(b'0', "/etc/passwd", "")]),
        tar(&[(b'1', "a", "../../etc/passwd")]),
        tar(&[(b'1', "a", "/etc/passwd")]),
        tar(&[(b'2', "a", "../.."), (b'0', "a/etc/passwd", "")]),
    ] {
        let (digest, answer) = pulled(&bad).await;
        let error = answer.unwrap_err();
        assert!(lies_about(&error, &digest) && error.to_string().contains("its entry"), "{error}");
    }
    let (_, good) = pulled(&tar(&[(b'2', "etc/mtab", "/proc/mounts"), (b'0', "a", "")])).await;
    good.unwrap();
}

#[tokio::test]
async fn a_layer_that_unpacks_to_far_more_than_its_size_is_refused_by_name() {
    let mut bomb = tar(&[(b'0', "zeros", "")]);
    bomb.resize(300 << 20, 0);
    let (digest, answer) = pulled(&bomb).await;
    let error = answer.unwrap_err();
    assert!(lies_about(&error, &digest) && error.to_string().contains("does not account for"), "{error}");
}

#[tokio::test]
async fn manifests_and_configs_beyond_all_bounds_are_not_read_to_their_end() {
    let registry = Registry::start();
    registry.server.gives("/v2/org/app/manifests/v1", vec![b' '; (4 << 20) + 1]);
    let error = registry.resolve().await.unwrap_err();
    assert!(error.to_string().contains("more than 4194304 bytes"), "{error}");
    let manifest = registry.image.manifest_json.replacen(
        &format!("\"size\":{}", registry.image.config_json.len()),
        "\"size\":99999999",
        1,
    );
    let large =
        Image { digest: Digest::sha256(manifest.as_bytes()), manifest_json: manifest, ..registry.image.clone() };
    registry.serve("org/app", &large);
    let error = registry.pull(&large).await.unwrap_err();
    assert!(error.to_string().contains("a config of 99999999 bytes"), "{error}");
}

#[tokio::test]
async fn indexes_around_indexes_end_somewhere() {
    let registry = Registry::start();
    // Honest digests, each naming the next: as near to a circle as hashes let anybody come.
    let mut digest = registry.image.digest.clone();
    for depth in 1..=5 {
        let text = index(&digest);
        digest = Digest::sha256(text.as_bytes());
        registry.server.gives(&format!("/v2/org/app/manifests/{digest}"), text);
        registry.server.gives("/v2/org/app/manifests/v1", index(&digest));
        let answer = registry.resolve().await;
        if depth < 3 {
            assert_eq!(answer.unwrap(), registry.image.digest, "{depth}");
        } else {
            assert!(answer.unwrap_err().to_string().contains("an index in an index"), "{depth}");
        }
    }
    // An index that names itself can only be a lie.
    let own = Digest::sha256(b"itself");
    registry.server.gives("/v2/org/app/manifests/v1", index(&own));
    registry.server.gives(&format!("/v2/org/app/manifests/{own}"), index(&own));
    assert!(lies_about(&registry.resolve().await.unwrap_err(), &own));
}

#[tokio::test]
async fn a_registry_out_of_reach_is_its_own_kind_of_error() {
    let closed = format!("127.0.0.1:{}", fleet_sim::free_port());
    let bench = Bench::new(Nobody);
    let error = bench.client().resolve(&format!("{closed}/org/app:v1"), PLATFORM).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    let busy = Server::start();
    busy.on("/v2/org/app/manifests/v1", [(503, vec![])]);
    let error = bench.client().resolve(&format!("{}/org/app:v1", busy.host), PLATFORM).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    assert_eq!(busy.asked().len(), 5);
}

/// Our registry, and another that stands before it.
fn mirrored() -> (Registry, Server) {
    let mut registry = Registry::start();
    let mirror = Server::start();
    registry.bench.config.mirrors = format!("{}={}/cache", registry.server.host, mirror.host).parse().unwrap();
    (registry, mirror)
}

#[tokio::test]
async fn a_mirror_is_asked_first_and_the_registry_for_what_it_lacks() {
    let (registry, mirror) = mirrored();
    let image = &registry.image;
    mirror.gives("/v2/cache/org/app/manifests/v1", index(&image.digest));
    mirror.gives(&format!("/v2/cache/org/app/manifests/{}", image.digest), image.manifest_json.clone());
    mirror.gives(&format!("/v2/cache/org/app/blobs/{}", image.config_digest), image.config_json.clone());
    assert_eq!(registry.resolve().await.unwrap(), image.digest);
    assert!(registry.server.asked().is_empty(), "{:?}", registry.server.asked());
    assert_eq!(registry.pull(image).await.unwrap(), Base::from(image));
    let layer = format!("/org/app/blobs/{} ", image.layers[0].digest);
    assert_eq!(registry.server.asked().len(), 1);
    assert!(registry.server.asked()[0].contains(&layer) && mirror.asked().iter().any(|asked| asked.contains(&layer)));
}

#[tokio::test]
async fn a_mirror_that_is_down_costs_one_attempt_and_one_that_lies_is_named() {
    let (mut registry, mirror) = mirrored();
    let image = registry.image.clone();
    let manifest = format!("/v2/cache/org/app/manifests/{}", image.digest);
    mirror.gives(&manifest, image.manifest_json.replace("gzip", "zstd"));
    let error = registry.pull(&image).await.unwrap_err();
    assert!(lies_about(&error, &image.digest) && error.to_string().contains(&mirror.host), "{error}");
    mirror.on(&manifest, [(503, vec![])]);
    let before = mirror.asked().len();
    registry.pull(&image).await.unwrap();
    let asked = mirror.asked();
    assert_eq!(asked[before..].iter().filter(|asked| asked.contains("/manifests/")).count(), 1, "{asked:?}");
    assert!(registry.bench.clock.slept.lock().unwrap().is_empty());
    registry.bench.config.mirrors = format!("{}=127.0.0.1:1", registry.server.host).parse().unwrap();
    assert_eq!(registry.resolve().await.unwrap(), image.digest);
}
