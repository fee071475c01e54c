//! Bases from registries that have several platforms, lie, or are gone.

#[path = "../../fleet-packages/tests/support.rs"]
mod support;

use std::sync::Arc;

use fleet_oci::{
    Compression, Digest, Image, ImageConfig, LayerDescriptor, Node, Platform, Tree,
    image::{Base, assemble},
    layer::write_layer,
};
use fleet_registry::{RegistryError, pull, resolve};
use fleet_store::{Algorithm, BlobId, Store};
use support::Server;

const PLATFORM: Platform = Platform::LinuxArm64;

struct Registry {
    server: Server,
    image: Image,
    layer: Vec<u8>,
}

impl Registry {
    /// A registry with `app:v1`, an index that has an image for one platform.
    fn start() -> Self {
        let mut tree = Tree::new();
        tree.insert("bin/app", Node::file(0o755, "elf")).unwrap();
        let (layer, descriptor) = write_layer(&tree, Compression::Gzip, Vec::new()).unwrap();
        let registry = Self { server: Server::start(), image: image(descriptor), layer };
        registry.server.gives("/v2/", "{}");
        registry.serve(&registry.image);
        registry
    }

    fn serve(&self, image: &Image) {
        let index = serde_json::json!({"schemaVersion": 2, "manifests": [
            {"mediaType": "x", "size": 1, "digest": Digest::sha256(b"other"), "platform": {"os": "linux", "architecture": "s390x"}},
            {"mediaType": "x", "size": 1, "digest": image.digest, "platform": {"os": "linux", "architecture": "arm64"}},
        ]});
        self.server.gives("/v2/org/app/manifests/v1", index.to_string());
        self.server.gives(&format!("/v2/org/app/manifests/{}", image.digest), image.manifest_json.clone());
        self.server.gives(&format!("/v2/org/app/blobs/{}", image.config_digest), image.config_json.clone());
        self.server.gives(&format!("/v2/org/app/blobs/{}", image.layers[0].digest), self.layer.clone());
    }

    fn reference(&self) -> String {
        format!("{}/org/app:v1", self.server.host)
    }
}

fn image(layer: LayerDescriptor) -> Image {
    let config = ImageConfig { user: Some("7".into()), cmd: vec!["app".into()], ..ImageConfig::default() };
    assemble(&Base::default(), PLATFORM, &config, &[layer])
}

fn store() -> (tempfile::TempDir, Arc<Store>) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(folder.path()).unwrap();
    (folder, Arc::new(store))
}

fn has(store: &Store, digest: &Digest) -> bool {
    store.blob_path(&BlobId::new(Algorithm::Sha256, digest.hex()).unwrap()).is_some()
}

#[tokio::test]
async fn a_base_is_pinned_and_pulled_once_with_its_settings() {
    let registry = Registry::start();
    let (_folder, store) = store();
    let digest = resolve(&registry.reference(), PLATFORM).await.unwrap();
    assert_eq!(digest, registry.image.digest);
    let base = pull(&registry.reference(), &digest, PLATFORM, Arc::clone(&store)).await.unwrap();
    assert_eq!(base, Base::from(&registry.image));
    assert!(has(&store, &base.layers[0].digest));
    let blobs = |asked: Vec<String>| asked.iter().filter(|request| request.contains("/blobs/")).count();
    let before = blobs(registry.server.asked());
    pull(&registry.reference(), &digest, PLATFORM, store).await.unwrap();
    assert_eq!(blobs(registry.server.asked()), before, "blobs that are there are not fetched again");
}

#[tokio::test]
async fn a_platform_or_tag_that_is_not_there_is_absent() {
    let registry = Registry::start();
    let other = resolve(&registry.reference(), Platform::LinuxAmd64).await.unwrap_err();
    assert!(matches!(&other, RegistryError::Absent { what, .. } if what.contains("linux/amd64")), "{other}");
    let tag = resolve(&format!("{}/org/app:v2", registry.server.host), PLATFORM).await.unwrap_err();
    assert!(matches!(tag, RegistryError::Absent { .. }), "{tag:?}");
}

#[tokio::test]
async fn a_registry_that_sends_other_bytes_is_named_and_nothing_is_kept() {
    let registry = Registry::start();
    let (_folder, store) = store();
    let layer = &registry.image.layers[0].digest;
    let mut wrong = registry.layer.clone();
    wrong[20] ^= 1;
    let path = format!("/v2/org/app/blobs/{layer}");
    for bytes in [wrong, registry.layer[..50].to_vec(), [&registry.layer[..], b"more"].concat()] {
        registry.server.gives(&path, bytes);
        let error = pull(&registry.reference(), &registry.image.digest, PLATFORM, Arc::clone(&store)).await.unwrap_err();
        assert!(matches!(&error, RegistryError::Lies { what: "a layer", wanted, .. } if wanted == layer), "{error}");
        assert!(!has(&store, layer));
    }
    let manifest = format!("/v2/org/app/manifests/{}", registry.image.digest);
    registry.server.gives(&manifest, registry.image.manifest_json.replace("gzip", "zstd"));
    let error = pull(&registry.reference(), &registry.image.digest, PLATFORM, store).await.unwrap_err();
    assert!(matches!(error, RegistryError::Lies { what: "a manifest", .. }), "{error}");
}

#[tokio::test]
async fn a_layer_that_is_not_what_its_config_says_is_refused() {
    let registry = Registry::start();
    let (_folder, store) = store();
    let swapped = LayerDescriptor { diff_id: Digest::sha256(b"another tar"), ..registry.image.layers[0].clone() };
    let image = image(swapped);
    registry.serve(&image);
    let error = pull(&registry.reference(), &image.digest, PLATFORM, store).await.unwrap_err();
    assert!(error.to_string().contains("the tar inside is"), "{error}");
}

#[tokio::test]
async fn a_registry_out_of_reach_is_its_own_kind_of_error() {
    let closed = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let error = resolve(&format!("{closed}/org/app:v1"), PLATFORM).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
    let busy = Server::start();
    busy.gives("/v2/", "{}");
    busy.on("/v2/org/app/manifests/v1", [(503, vec![])]);
    let error = resolve(&format!("{}/org/app:v1", busy.host), PLATFORM).await.unwrap_err();
    assert!(error.is_unreachable(), "{error:?}");
}
