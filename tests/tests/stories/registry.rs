//! Images that we pushed, in others' hands; images that others hold, in ours: real registries that want a password, have a
//! certificate of their own, or stand in for another.

use std::{
    fs::{self, Permissions},
    net::{IpAddr, Ipv4Addr, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use crate::bench::{Bench, PLATFORM, target};
use crate::certificates::Authority;
use crate::docker_registry::{DockerRegistry, PASSWORD, USER};
use fleet_oci::{
    Compression, Image, ImageConfig, Node, Tree,
    image::{Base, assemble},
    layer::write_layer,
};
use fleet_registry::DockerConfig;
use fleet_store::Algorithm;
use fleet_tests::{
    Fleet, Output,
    cloud::Cloud,
    engine::{docker, try_docker},
    run::{self, Running},
};

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

/// A project whose only image of interest stands on this base.
fn project(base: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fleetctl(folder.path(), &["init", "--name", "small"], &[]).expect(0);
    let file = folder.path().join("fleet.kdl");
    let text = fs::read_to_string(&file).expect("fleet.kdl");
    let image = format!("images {{\n    image \"tools\" {{ base \"{base}\" }}");
    assert_eq!(text.matches("images {").count(), 1, "{text}");
    fs::write(&file, text.replace("images {", &image)).expect("fleet.kdl");
    folder
}

fn fleetctl(folder: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = run::command(folder, &folder.join("home"));
    command.args(arguments).env("DOCKER_CONFIG", folder.join("nobody")).envs(variables.iter().copied());
    Running::start(&mut command).wait()
}

const LOCK: [&str; 3] = ["lock", "--only", "image/tools"];

/// A program `docker-credential-NAME` in a folder, that gives the password to whoever names the registry on its stdin, as
/// Docker's own do.
fn helper(folder: &Path, name: &str, host: &str) {
    let helper = folder.join(format!("docker-credential-{name}"));
    let script = format!(
        "#!/bin/sh\nread -r host\n[ \"$1 $host\" = 'get {host}' ] || exit 1\nprintf '{{\"Username\":\"{USER}\",\"Secret\":\"{PASSWORD}\"}}'\n",
    );
    fs::write(&helper, script).expect("a helper");
    fs::set_permissions(&helper, Permissions::from_mode(0o755)).expect("a helper");
}

#[tokio::test]
async fn a_base_of_a_private_registry_is_pinned_as_whom_docker_says_or_its_helper() {
    let registry = DockerRegistry::start();
    let home = signed_in(&registry);
    let bench = Bench::new(DockerConfig::at(home.path().join("config.json")));
    let image = runnable(&bench, Compression::Zstd);
    bench.push(&bench.client(), &target(&registry.host, "org/base:1"), &image).await.expect("a push");
    let digest = image.digest.to_string();
    let base = format!("{}/org/base:1", registry.host);
    let locked = |folder: &Path| fs::read_to_string(folder.join("fleet.lock")).unwrap_or_default().contains(&digest);

    let project = project(&base);
    let at = project.path();
    fleetctl(at, &LOCK, &[])
        .expect(1)
        .says("it wants to know who asks")
        .says(&format!("docker login {}", registry.host));
    assert!(!locked(at));
    fleetctl(at, &LOCK, &[("DOCKER_CONFIG", &home.path().display().to_string())]).expect(0);
    assert!(locked(at));

    // A helper that gives the password to whoever names the registry on its stdin.
    fs::remove_file(at.join("fleet.lock")).expect("fleet.lock");
    helper(home.path(), "test", &registry.host);
    let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap_or_default());
    let helped = at.join("helped");
    fs::create_dir(&helped).expect("a folder");
    fs::write(helped.join("config.json"), r#"{"credsStore": "test"}"#).expect("a file");
    let asked = [("DOCKER_CONFIG", helped.to_str().expect("text")), ("PATH", path.as_str())];
    let output = fleetctl(at, &LOCK, &asked);
    output.expect(0);
    assert!(locked(at));
    assert!(!format!("{output:?}").contains(PASSWORD));
}

#[tokio::test]
async fn a_base_comes_from_the_mirror_that_the_environment_names() {
    let (mirror, unreachable) = (DockerRegistry::open(), "127.0.0.1:1");
    let bench = Bench::new(fleet_registry::Nobody);
    let image = runnable(&bench, Compression::Zstd);
    bench.push(&bench.client(), &target(&mirror.host, "cache/org/base:1"), &image).await.expect("a push");
    let project = project(&format!("{unreachable}/org/base:1"));
    let at = project.path();
    let mirrors = format!("{unreachable}={}/cache", mirror.host);
    fleetctl(at, &LOCK, &[("FLEETCTL_REGISTRY_MIRRORS", &mirrors)]).expect(0);
    assert!(fs::read_to_string(at.join("fleet.lock")).expect("fleet.lock").contains(&image.digest.to_string()));
    let nonsense = fleetctl(at, &LOCK, &[("FLEETCTL_REGISTRY_MIRRORS", "https://mirror.example")]);
    nonsense.expect(64).says("FLEETCTL_REGISTRY_MIRRORS").says("docker.io=mirror.example:5000/cache");
}

/// This machine's address on the engine's bridge, which every machine with an engine has: that from which it would speak to a
/// container there. An engine that made the bridge in this life tells its subnet, and not the address.
fn bridge_address() -> IpAddr {
    let subnet = docker(&["network", "inspect", "bridge", "--format", "{{(index .IPAM.Config 0).Subnet}}"]);
    let (network, _) = subnet.split_once('/').expect("a subnet");
    let network: Ipv4Addr = network.parse().expect("an address");
    let [a, b, c, _] = network.octets();
    let socket = UdpSocket::bind("0.0.0.0:0").expect("a socket");
    socket.connect((Ipv4Addr::new(a, b, c, 2), 9)).expect("a way to the bridge");
    socket.local_addr().expect("an address").ip()
}

#[tokio::test]
async fn a_registry_with_a_certificate_of_the_house_is_spoken_to_where_ssl_cert_file_names_its_ca() {
    // TLS is spoken beyond loopback only.
    let address = bridge_address().to_string();
    let folder = tempfile::tempdir().expect("a folder");
    let Authority { ca, http } = Authority::for_address(folder.path(), &address);
    let registry = DockerRegistry::at(&address, folder, ("", &http));
    let mut bench = Bench::new(fleet_registry::Nobody);
    bench.config.ca_bundle = Some(ca.clone());
    let image = runnable(&bench, Compression::Zstd);
    bench.push(&bench.client(), &target(&registry.host, "org/base:1"), &image).await.expect("a push");

    let project = project(&format!("{}/org/base:1", registry.host));
    let at = project.path();
    let locked = || fs::read_to_string(at.join("fleet.lock")).unwrap_or_default().contains(&image.digest.to_string());
    fleetctl(at, &LOCK, &[]).says(&registry.host).says("certificate").says("CA settings");
    assert!(!locked());
    let trusted = [("SSL_CERT_FILE", ca.to_str().expect("text"))];
    fleetctl(at, &LOCK, &trusted).expect(0);
    assert!(locked());

    // And an image on it: what it stands on is there already, the rest is pushed.
    let fleet = on_base("house", &format!("{}/org/base:1", registry.host));
    let build = ["build", "box", "--to", &format!("registry:{}/pushed", registry.host)];
    with(&fleet, &LOCK_BOX, &trusted).expect(0);
    with(&fleet, &build, &[]).says(&registry.host).says("certificate");
    assert_eq!(registry.count("POST", "/v2/pushed/", 202), 0);
    with(&fleet, &build, &trusted).expect(0);
    let layer = format!("/v2/org/base/blobs/{}", image.layers[0].digest);
    assert_eq!(registry.count("GET", &layer, 200), 0, "mounted, and never fetched: {:?}", registry.asked());
    with(&fleet, &["build", "box", "--to", &format!("oci:{}", fleet.path("../out").display())], &[])
        .says("certificate");
    with(&fleet, &["build", "box", "--to", &format!("oci:{}", fleet.path("../out").display())], &trusted).expect(0);
    assert_eq!(registry.count("GET", &layer, 200), 1, "fetched where it is needed: {:?}", registry.asked());
    assert_eq!(registry.count("PUT", &format!("/v2/pushed/{}/box/manifests/d-", fleet.name), 201), 1);
}

/// A fleet of files whose image `box` stands on an image in a registry.
fn on_base(story: &str, base: &str) -> Fleet {
    let fleet = Fleet::of_files(story);
    fleet.edit("fleet.kdl", "    image \"box\" {\n", &format!("    image \"box\" {{\n        base \"{base}\"\n"));
    fleet
}

const LOCK_BOX: [&str; 3] = ["lock", "--only", "image/box"];

/// Runs the program in a fleet's project with more variables, and as nobody unless they say who.
fn with(fleet: &Fleet, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = fleet.command(arguments);
    command.env("DOCKER_CONFIG", fleet.path("../nobody")).envs(variables.iter().copied());
    fleet.finish(Running::start(&mut command))
}

#[test]
fn on_aws_the_layers_of_a_private_base_go_from_its_registry_to_the_account_s_and_are_not_stored_here() {
    let registry = DockerRegistry::start();
    let home = signed_in(&registry);
    let bench = Bench::new(DockerConfig::at(home.path().join("config.json")));
    let image = runnable(&bench, Compression::Zstd);
    let to = target(&registry.host, "org/base:1");
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(bench.push(&bench.client(), &to, &image)).expect("a push");
    let cloud = Cloud::new("streamed");
    let base = format!("    image \"box\" {{\n        base \"{}/org/base:1\"\n", registry.host);
    cloud.fleet.edit("fleet.kdl", "    image \"box\" {\n", &base);
    let docker = [("DOCKER_CONFIG", home.path().to_str().expect("text"))];
    with(&cloud.fleet, &LOCK_BOX, &docker).expect(0);
    with(&cloud.fleet, &["apply", "--auto-approve", "-e", "cloud"], &docker).expect(3);
    let layer = &image.layers[0].digest;
    assert!(registry.count("GET", &format!("/v2/org/base/blobs/{layer}"), 200) >= 1, "{:?}", registry.asked());
    let stored = cloud.fleet.path(&format!(".fleet/blobs/sha256/{}/{}", &layer.hex()[..2], layer.hex()));
    assert!(!stored.exists(), "it only went through");
    with(&cloud.fleet, &["apply", "--auto-approve", "-e", "cloud"], &docker).expect(3).says("0 changed");
}

#[test]
fn a_push_is_made_as_whom_the_helper_of_that_registry_says() {
    let registry = DockerRegistry::start();
    let fleet = Fleet::of_files("helper");
    let home = tempfile::tempdir().expect("a folder");
    helper(home.path(), "x", &registry.host);
    let config = serde_json::json!({"credHelpers": {registry.host.clone(): "x", "other.example": "absent"}});
    fs::write(home.path().join("config.json"), config.to_string()).expect("a file");
    let build = ["build", "agent", "--to", &format!("registry:{}/org", registry.host)];
    let refused = with(&fleet, &build, &[]);
    refused.says(&format!("docker login {}", registry.host));
    assert_ne!(refused.code, Some(0));
    assert_eq!(registry.count("POST", "", 202), 0);

    let path = format!("{}:{}", home.path().display(), std::env::var("PATH").unwrap_or_default());
    let asked = [("DOCKER_CONFIG", home.path().to_str().expect("text")), ("PATH", path.as_str())];
    let pushed = with(&fleet, &build, &asked);
    pushed.expect(0);
    assert!(!format!("{pushed:?}").contains(PASSWORD), "a password is told to nobody");
    let digest = pushed.stdout.trim().rsplit('@').next().expect("a digest").to_owned();
    let reference = format!("docker://{}/org/{}/agent@{digest}", registry.host, fleet.name);
    let creds = format!("{USER}:{PASSWORD}");
    let options = ["inspect", "--tls-verify=false", "--creds", &creds, "--format", "{{.Digest}}", &reference];
    assert_eq!(ran(Command::new("skopeo").args(options)).trim(), digest);

    // Of a helper that is not there it is said who names it, and nothing is tried as nobody.
    let config = serde_json::json!({"credHelpers": {registry.host.clone(): "absent"}});
    fs::write(home.path().join("config.json"), config.to_string()).expect("a file");
    let before = registry.asked().len();
    let absent = with(&fleet, &build, &asked);
    absent.says(&home.path().join("config.json").display().to_string()).says("cannot be run; is it installed?");
    assert_ne!(absent.code, Some(0));
    let tried = registry.asked().split_off(before);
    assert!(tried.iter().all(|asked| asked.status != 201 && asked.status != 202), "{tried:?}");
}

#[tokio::test]
async fn a_mirror_serves_the_base_and_gets_nothing_of_what_is_pushed() {
    let (mirror, place, unreachable) = (DockerRegistry::open(), DockerRegistry::open(), "127.0.0.1:1");
    let bench = Bench::new(fleet_registry::Nobody);
    let image = runnable(&bench, Compression::Zstd);
    bench.push(&bench.client(), &target(&mirror.host, "cache/org/base:1"), &image).await.expect("a push");
    let fleet = on_base("mirrored", &format!("{unreachable}/org/base:1"));
    // The target has a mirror, too: it is for pulls.
    let mirrors = format!("{unreachable}={host}/cache,{}={host}/cache", place.host, host = mirror.host);
    let mirrors = [("FLEETCTL_REGISTRY_MIRRORS", mirrors.as_str())];
    with(&fleet, &LOCK_BOX, &mirrors).expect(0);
    let before = mirror.asked().len();
    let pushed = with(&fleet, &["build", "box", "--to", &format!("registry:{}/org", place.host)], &mirrors);
    pushed.expect(0);
    let asked = mirror.asked().split_off(before);
    assert!(asked.iter().any(|asked| asked.request.starts_with("GET /v2/cache/org/base/blobs/")), "{asked:?}");
    assert!(asked.iter().all(|asked| asked.request.starts_with("GET ")), "{asked:?}");
    let repository = format!("/v2/org/{}/box/", fleet.name);
    assert_eq!(place.count("PUT", &format!("{repository}manifests/d-"), 201), 1);
    let raw = format!(
        "docker://{}/org/{}/box@{}",
        place.host,
        fleet.name,
        pushed.stdout.trim().rsplit('@').next().expect("a digest")
    );
    let manifest = ran(Command::new("skopeo").args(["inspect", "--raw", "--tls-verify=false", &raw]));
    let manifest: serde_json::Value = serde_json::from_str(&manifest).expect("JSON");
    assert_eq!(manifest["layers"][0]["digest"], image.layers[0].digest.to_string(), "the base's own layer is below");
}
