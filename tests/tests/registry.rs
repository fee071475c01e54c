//! Images that we pushed, in others' hands. A real registry that wants a password.

#[path = "../../crates/backend/fleet-registry/tests/support/bench.rs"]
mod bench;
#[path = "../../crates/backend/fleet-registry/tests/support/docker_registry.rs"]
mod docker_registry;

use std::{fs, process::Command};

use bench::{Bench, PLATFORM, target};
use docker_registry::{DockerRegistry, PASSWORD, USER};
use fleet_oci::{
    Compression, Image, ImageConfig, Node, Tree,
    image::{Base, assemble},
    layer::write_layer,
};
use fleet_registry::DockerConfig;
use fleet_store::Algorithm;
use fleet_tests::engine::{docker, try_docker};

/// Runs a program; its stdout.
#[track_caller]
fn ran(command: &mut Command) -> String {
    let output = command.output().expect("an installed program");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Signs in as people do; the folder of the configuration that this leaves behind.
fn signed_in(registry: &DockerRegistry) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    let login = ["login", "-u", USER, "-p", PASSWORD, &registry.host];
    ran(Command::new("docker").args(login).env("DOCKER_CONFIG", folder.path()));
    folder
}

/// The smallest thing that says something.
fn runnable(bench: &Bench, compression: Compression) -> Image {
    let mut tree = Tree::new();
    tree.insert("bin/busybox", Node::file(0o755, fs::read("/bin/busybox").expect("busybox-static"))).expect("a path");
    let (blob, layer) = write_layer(&tree, compression, Vec::new()).expect("a layer");
    bench.store.put_blob(Algorithm::Sha256, &blob).expect("room");
    let config = ImageConfig {
        entrypoint: vec!["/bin/busybox".into(), "echo".into(), "it runs".into()],
        ..ImageConfig::default()
    };
    assemble(&Base::default(), PLATFORM, &config, &[layer])
}

#[tokio::test]
async fn what_we_push_is_pulled_by_docker_and_skopeo_and_runs() {
    let registry = DockerRegistry::start();
    let home = signed_in(&registry);
    let bench = Bench::new(DockerConfig::at(home.path().join("config.json")));
    for (tag, compression) in [("d-1", Compression::Zstd), ("d-2", Compression::Gzip)] {
        let image = runnable(&bench, compression);
        bench.push(&bench.client(), &target(&registry.host, &format!("org/app:{tag}")), &image).await.expect("a push");
        // The engine of Debian 12 (20.10) takes zstd for a broken tar; skopeo reads both.
        if compression == Compression::Gzip {
            let name = format!("{}/org/app@{}", registry.host, image.digest);
            ran(Command::new("docker").args(["pull", &name]).env("DOCKER_CONFIG", home.path()));
            let said = try_docker(&["run", "--rm", "--network", "none", &name]);
            let id = docker(&["inspect", "--format", "{{.Id}}", &name]);
            docker(&["rmi", "-f", &name]);
            assert_eq!((said.0, said.1.as_str()), (true, "it runs"), "{}", said.2);
            assert_eq!(id, image.config_digest.to_string());
        }
        let copy = tempfile::tempdir().expect("a folder");
        let from = format!("docker://{}/org/app:{tag}", registry.host);
        let to = format!("dir:{}", copy.path().display());
        let options = ["copy", "--src-tls-verify=false", "--src-creds", &format!("{USER}:{PASSWORD}")];
        ran(Command::new("skopeo").args(options).args([&from, &to]));
        assert_eq!(fs::read_to_string(copy.path().join("manifest.json")).expect("a manifest"), image.manifest_json);
    }
}
