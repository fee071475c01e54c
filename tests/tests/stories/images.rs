//! Images past the program that makes them: what `build --to` writes is read by skopeo, umoci, the container engine and
//! the OCI image specification's own schemas.

use std::{
    collections::BTreeSet,
    fs,
    net::TcpStream,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime},
};

use fleet_sim::{free_port, venv};
use fleet_store::{Algorithm, Store};
use fleet_tests::{
    Fleet,
    engine::{self, docker, try_docker},
    fleet::{copy_folder, work},
    run::{Running, eventually},
    sources::workspace,
};
use serde_json::{Value, json};

/// Runs a command; it must work.
#[track_caller]
fn tool(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program} is not installed: {error}"));
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    assert!(output.status.success(), "{program} {}: {}", arguments.join(" "), text(&output.stderr));
    text(&output.stdout)
}

#[track_caller]
fn json_file(path: &Path) -> Value {
    let bytes = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&bytes).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[track_caller]
fn blob(layout: &Path, digest: &Value) -> PathBuf {
    let (algorithm, hex) = digest.as_str().expect("a digest").split_once(':').expect("a digest");
    layout.join("blobs").join(algorithm).join(hex)
}

/// What a layout's index says under a name.
#[track_caller]
fn entry(layout: &Path, name: &str) -> Value {
    let index = json_file(&layout.join("index.json"));
    let entries = index["manifests"].as_array().cloned().unwrap_or_default();
    let found = entries.iter().find(|entry| entry["annotations"]["org.opencontainers.image.ref.name"] == name);
    found.unwrap_or_else(|| panic!("no `{name}` in {index}")).clone()
}

/// Lines `repository@digest` as `build` prints them: the digest of an image.
#[track_caller]
fn printed(output: &str, repository: &str) -> String {
    let line = output.lines().find_map(|line| line.strip_prefix(&format!("{repository}@")));
    line.unwrap_or_else(|| panic!("no {repository} in {output}")).to_owned()
}

/// Every manifest, config and index of a layout, against the specification's schemas.
#[track_caller]
fn validate(layout: &Path) -> usize {
    let script = workspace().join("tests/fixtures/oci_schema.py");
    let python = venv("jsonschema", "jsonschema==4.26.0").join("python");
    let said = tool(&python.to_string_lossy(), &[&script.to_string_lossy(), &layout.to_string_lossy()]);
    said.trim().parse().unwrap_or_else(|_| panic!("the validator said {said}"))
}

#[test]
fn a_layout_is_read_by_skopeo_and_by_the_specification_s_schemas() {
    let fleet = Fleet::of_files("layout");
    let out = fleet.path("out/images");
    let to = format!("oci:{}", out.display());
    let built = fleet.run(&["build", "--to", &to]);
    built.expect(0);
    let repository = format!("{}/agent", fleet.name);
    let digest = printed(&built.stdout, &repository);
    assert_eq!(entry(&out, "agent")["digest"], *digest);
    // Three images: a manifest, a config and two statements each, and the index of them all.
    assert_eq!(validate(&out), 1 + 3 * 4);

    let inspected: Value = serde_json::from_str(&tool("skopeo", &["inspect", &format!("{to}:agent")])).expect("JSON");
    assert_eq!(inspected["Digest"], *digest);
    assert_eq!(inspected["Created"], "1970-01-01T00:00:01Z");
    assert!(inspected["Env"].as_array().expect("env").contains(&Value::from("GREETING=hello from a file")));
    let copied = fleet.path("out/copied");
    tool("skopeo", &["copy", "--quiet", &format!("{to}:agent"), &format!("dir:{}", copied.display())]);
    let manifest = json_file(&copied.join("manifest.json"));
    let original = json_file(&blob(&out, &entry(&out, "agent")["digest"]));
    assert_eq!(manifest["layers"], original["layers"], "skopeo verified every blob while it copied");

    // Again, and only one image more: nothing moves.
    let before = fs::read(out.join("index.json")).expect("a file");
    fleet.run(&["build", "agent", "--to", &to]).expect(0);
    let after = json_file(&out.join("index.json"));
    let names = |index: &Value| -> BTreeSet<String> {
        index["manifests"].as_array().expect("a list").iter().map(|entry| entry["digest"].to_string()).collect()
    };
    assert_eq!(names(&after), names(&serde_json::from_slice(&before).expect("JSON")));
}

#[test]
fn an_archive_is_loaded_by_the_engine_and_runs() {
    let fleet = Fleet::of_files("archive");
    let file = fleet.path("images.tar");
    let to = format!("docker-archive:{}", file.display());
    let built = fleet.run(&["build", "agent", "box", "--to", &to, "--format", "json"]);
    let images = built.expect(0).json()["images"].as_array().expect("images").clone();
    let loaded = docker(&["load", "--input", &file.to_string_lossy()]);
    for image in &images {
        let place = image["places"][0]["reference"].as_str().expect("a reference");
        assert!(loaded.contains(place), "{place} in {loaded}");
    }
    let agent = images.iter().find(|image| image["name"] == "agent").expect("the agent's image");
    let reference = agent["places"][0]["reference"].as_str().expect("a reference");
    assert_eq!(docker(&["run", "--rm", reference]), "these are the words");
    assert_eq!(docker(&["run", "--rm", "--entrypoint", "/app/greet", reference]), "hello from a file");
    let said = docker(&["run", "--rm", "--entrypoint", "/bin/busybox", reference, "cat", "a name with ünicode.txt"]);
    assert_eq!(said, "names with spaces survive");
    assert_eq!(agent["reproducible"], true);
    let (worked, _, _) = try_docker(&["image", "inspect", reference]);
    assert!(worked);
}

#[test]
fn statements_name_the_image_they_are_about_and_what_it_was_made_of() {
    let fleet = Fleet::of_files("statements");
    let git = |arguments: &[&str]| {
        let folder = fleet.path("");
        let folder = folder.to_string_lossy();
        let settings = ["-C", &folder, "-c", "user.name=a", "-c", "user.email=a@example.com"];
        tool("git", &[&settings[..], arguments].concat()).trim().to_owned()
    };
    git(&["init", "--quiet"]);
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "first"]);
    let (one, two) = (fleet.path("../one"), fleet.path("../two"));
    let build = |out: &Path| {
        let built = fleet.run(&["build", "agent", "--to", &format!("oci:{}", out.display()), "--format", "json"]);
        built.expect(0).json()["images"][0].clone()
    };
    let first = build(&one);
    let commit = git(&["rev-parse", "HEAD"]);
    let platform = first["platforms"].as_object().expect("platforms").values().next().expect("one").clone();
    let mut kinds = BTreeSet::new();
    for statement in platform["statements"].as_array().expect("statements") {
        let artifact = json_file(&blob(&one, statement));
        assert_eq!(artifact["subject"]["digest"], platform["digest"]);
        let content = json_file(&blob(&one, &artifact["layers"][0]["digest"]));
        let kind = artifact["artifactType"].as_str().expect("a type").to_owned();
        if kind == "application/vnd.in-toto+json" {
            let definition = &content["predicate"]["buildDefinition"];
            let dependencies = definition["resolvedDependencies"].as_array().expect("a list");
            assert_eq!(dependencies[0]["digest"]["gitCommit"], *commit);
            assert_eq!(dependencies[0].get("annotations"), None, "nothing was changed since the commit");
            let files: BTreeSet<&str> = dependencies.iter().filter_map(|d| d["name"].as_str()).collect();
            assert!(files.contains("images/app/greet"), "{files:?}");
            assert_eq!(definition["internalParameters"]["derivation"], platform["derivation"]);
        }
        kinds.insert(kind);
    }
    assert_eq!(kinds, ["application/vnd.cyclonedx+json", "application/vnd.in-toto+json"].map(String::from).into());

    // Another revision of the same content is the same image, with another statement about it.
    fs::write(fleet.path("NOTES"), "nothing that an image is made of").expect("a file");
    git(&["add", "."]);
    git(&["commit", "--quiet", "--message", "second"]);
    let second = build(&two);
    assert_eq!(second["digest"], first["digest"]);
    assert_ne!(second["platforms"], first["platforms"]);
}

#[test]
fn one_index_holds_both_platforms_of_an_image_of_files() {
    let fleet = Fleet::of_files("platforms");
    let out = fleet.path("../out");
    let to = format!("oci:{}", out.display());
    let platforms = "linux/amd64,linux/arm64";
    let built = fleet.run(&["build", "homeserver", "--platform", platforms, "--to", &to]);
    built.expect(0);
    let entry = entry(&out, "homeserver");
    assert_eq!(entry["mediaType"], "application/vnd.oci.image.index.v1+json");
    assert_eq!(entry["digest"], *printed(&built.stdout, &format!("{}/homeserver", fleet.name)));
    // Two manifests, two configs, their index, two statements for each of the three, and the layout's index.
    assert_eq!(validate(&out), 2 + 2 + 1 + 6 + 1);
    let index = json_file(&out.join("index.json"));
    let listed = index["manifests"].as_array().expect("a list").iter();
    let subjects: Vec<Value> = listed
        .filter(|entry| entry.get("artifactType").is_some() || entry["annotations"].get("dev.fleetctl.about").is_some())
        .map(|entry| json_file(&blob(&out, &entry["digest"]))["subject"]["digest"].clone())
        .collect();
    assert_eq!(subjects.iter().filter(|subject| **subject == entry["digest"]).count(), 2, "{subjects:?}");
    for architecture in ["amd64", "arm64"] {
        let arguments = ["--override-arch", architecture, "inspect", &format!("{to}:homeserver")];
        let inspected: Value = serde_json::from_str(&tool("skopeo", &arguments)).expect("JSON");
        assert_eq!(inspected["Architecture"], architecture);
    }
    let archive = format!("docker-archive:{}", fleet.path("a.tar").display());
    fleet.run(&["build", "--platform", platforms, "--to", &archive]).expect(64).says("one platform");
}

#[test]
fn an_image_built_twice_in_different_places_is_the_same_and_nothing_of_it_stays() {
    let fleet = Fleet::of_files("check");
    let checked = fleet.run(&["build", "--check"]);
    checked.expect(0);
    assert_eq!(checked.stdout.matches("both times").count(), 3, "{}", checked.stdout);
    let digest = |fleet: &Fleet| {
        let to = format!("oci:{}", fleet.path("../out").display());
        let built = fleet.run(&["build", "agent", "--to", &to]);
        built.expect(0);
        printed(&built.stdout, &format!("{}/agent", fleet.name))
    };
    let ours = digest(&fleet);
    assert!(checked.stdout.contains(&ours), "what is built here is what was built there: {ours}\n{}", checked.stdout);
    let scratch: Vec<_> = fs::read_dir(fleet.path(".fleet/tmp")).expect("a folder").collect();
    assert!(scratch.is_empty(), "{scratch:?}");
    // Another checkout, of another fleet's name even: an image is its content.
    assert_eq!(digest(&Fleet::of_files("other")), ours);
}

#[test]
fn checks_decide_in_the_engine_only_and_elsewhere_it_is_said_that_nobody_ran_them() {
    let fleet = Fleet::of_files("checks");
    fleet.edit(
        "fleet.kdl",
        "        entrypoint \"/bin/busybox\"\n    }\n    image \"agent\"",
        "        entrypoint \"/bin/busybox\"\n        check \"/bin/busybox\" \"false\"\n    }\n    image \"agent\"",
    );
    let (out, none) = (fleet.path("../out"), fleet.path("../none"));
    let built = fleet.run(&["build", "box", "homeserver", "--to", &format!("oci:{}", out.display())]);
    built
        .expect(0)
        .says("image/box: its checks are not run, which needs an engine: add `--to engine` to have them decide");
    assert!(!built.stderr.contains("image/homeserver: its checks"), "it has none: {}", built.stderr);
    entry(&out, "box");

    let refused = fleet.run(&["build", "box", "--to", "engine", "--to", &format!("oci:{}", none.display())]);
    refused.expect(1).says("its check `/bin/busybox false` ended with exit code 1");
    assert!(!refused.stderr.contains("its checks are not run"), "{}", refused.stderr);
    assert!(!none.exists(), "what fails its checks goes nowhere");
}

#[test]
fn a_place_that_holds_something_else_is_refused_before_anything_is_written() {
    let fleet = Fleet::of_files("refused");
    fs::create_dir_all(fleet.path("out")).expect("a folder");
    fs::write(fleet.path("out/mine"), "precious").expect("a file");
    let to = format!("oci:{}", fleet.path("out").display());
    fleet.run(&["build", "box", "--to", &to]).expect(1).says("no OCI layout");
    let left: Vec<_> =
        fs::read_dir(fleet.path("out")).expect("a folder").map(|e| e.expect("one").file_name()).collect();
    assert_eq!(left, ["mine"]);
    // Said before anything is made.
    for (place, help) in [("docker-archive:images", "name a file"), ("docker-archive:none/a.tar", "mkdir -p none")] {
        let refused = fleet.run(&["build", "agent", "--to", place]);
        refused.expect(1).says(&format!("{place} cannot be written")).says(help);
    }
    fleet.run(&["build", "agent", "--to", "registry"]).expect(64).says("declares no registry");
    assert!(!fleet.path(".fleet/blobs/sha256").exists(), "nothing was made");
    fleet.run(&["build", "--to", "tarball:x"]).expect(64).says("docker-archive:FILE");
    fleet.run(&["build", "nobody", "--to", &to]).expect(64).says("uses no image `nobody`");
}

/// Digests of the layers of an image in a layout.
#[track_caller]
fn layers(layout: &Path, name: &str) -> Vec<String> {
    let manifest = json_file(&blob(layout, &entry(layout, name)["digest"]));
    let layers = manifest["layers"].as_array().expect("layers").clone();
    layers.iter().map(|layer| layer["digest"].as_str().expect("a digest").to_owned()).collect()
}

/// Which of these blobs are in the project's store.
fn stored(fleet: &Fleet, digests: &[String]) -> Vec<bool> {
    digests.iter().map(|digest| in_store(fleet, digest).is_file()).collect()
}

/// Where a blob is in the project's store.
fn in_store(fleet: &Fleet, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    fleet.path(&format!(".fleet/blobs/sha256/{}/{hex}", &hex[..2]))
}

#[test]
fn a_layer_that_was_damaged_in_the_store_is_written_nowhere_and_the_next_run_has_it_anew() {
    let fleet = Fleet::of_files("damaged");
    let place = |name: &str| fleet.path(&format!("../{name}"));
    let build =
        |kind: &str, name: &str| fleet.run(&["build", "agent", "--to", &format!("{kind}:{}", place(name).display())]);
    build("oci", "right").expect(0);
    let right = layers(&place("right"), "agent");
    let layer = right.last().expect("a layer");
    for (kind, name) in [("oci", "layout"), ("docker-archive", "archive.tar")] {
        let mut bytes = fs::read(in_store(&fleet, layer)).expect("a blob");
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(in_store(&fleet, layer), bytes).expect("a blob");
        build(kind, name).expect(1).says(layer).says("was damaged in .fleet/").says("run the same command again");
        assert!(!place(name).exists(), "nothing is left half done");
        build(kind, name).expect(0);
    }
    assert_eq!(layers(&place("layout"), "agent"), right);
    validate(&place("layout"));
    // In a layout that is there, what is too short is replaced.
    fs::write(blob(&place("layout"), &json!(layer)), "short").expect("a blob");
    build("oci", "layout").expect(0);
    validate(&place("layout"));
}

/// Lets two hours pass for every file of a folder: what is young is never collected.
fn age(folder: &Path) {
    let long_ago = SystemTime::now() - Duration::from_secs(2 * 60 * 60);
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            age(&path);
        } else {
            let file = fs::File::options().append(true).open(&path).expect("a file");
            file.set_modified(long_ago).expect("a time");
        }
    }
}

#[test]
fn a_build_that_is_rooted_keeps_its_layers_and_what_was_written_elsewhere_needs_none() {
    let fleet = Fleet::of_files("collected");
    let layout = |name: &str| fleet.path(&format!("../{name}"));
    let write = |name: &str| fleet.run(&["build", "agent", "--to", &format!("oci:{}", layout(name).display())]);
    fleet.run(&["build"]).expect(0);
    write("first").expect(0);
    let first = layers(&layout("first"), "agent");
    age(&fleet.path(".fleet"));
    fleet.run(&["gc"]).expect(0);
    assert_eq!(stored(&fleet, &first), [true; 2], "a build into the engine is a generation");

    // A generation also keeps what it changed from: the first build is needed by none after two more.
    for name in ["second", "third"] {
        fs::write(fleet.path("images/app/deep/words.txt"), format!("the words of the {name}")).expect("a file");
        fleet.run(&["build"]).expect(0);
        write(name).expect(0);
    }
    let third = layers(&layout("third"), "agent");
    assert_eq!(third[0], first[0], "the image below did not change");
    age(&fleet.path(".fleet"));
    fleet.run(&["gc", "--keep", "1"]).expect(0);
    assert_eq!((stored(&fleet, &first), stored(&fleet, &third)), (vec![true, false], vec![true; 2]));
    // The first layout lost nothing: its layers are its own.
    validate(&layout("first"));

    let other = Fleet::of_files("unrooted");
    let out = other.path("../out");
    other.run(&["build", "agent", "--to", &format!("oci:{}", out.display())]).expect(0);
    age(&other.path(".fleet"));
    other.run(&["gc"]).expect(0);
    assert_eq!(stored(&other, &layers(&out, "agent")), [false; 2], "a layout needs no root");
    validate(&out);
}

#[test]
fn scripts_that_were_not_run_are_listed_also_when_every_layer_was_made_before() {
    let fleet = Fleet::light("notes");
    let listed = "image/agent: libc6: maintainer scripts not run: ";
    // What the project was begun with has put everything into the engine.
    fleet.run(&["build"]).expect(0).says("nothing to build").says(listed);
    let to = format!("oci:{}", fleet.path("../out").display());
    fleet.run(&["build", "agent", "--to", &to]).expect(0).says(listed);
    let homeserver = fleet.run(&["build", "homeserver", "--to", &to]);
    homeserver.expect(0).says("image/homeserver: ");
    assert!(!homeserver.stderr.contains("image/agent: "), "{}", homeserver.stderr);
}

#[test]
fn what_fleet_lock_pins_and_fleet_kdl_fetches_is_kept_before_anything_was_built_of_it() {
    let fleet = Fleet::of_files("rooted");
    let store = Store::open(&fleet.path("")).expect("a store");
    let [pinned, fetched, other] = ["pinned", "fetched", "of nobody"]
        .map(|text| store.put_blob(Algorithm::Sha256, text.as_bytes()).expect("a blob").to_string());
    drop(store);
    let package = json!({
        "name": "tool", "version": "1", "architecture": "all", "archive": "debian", "pool_path": "pool/tool.deb", "size": 6,
        "sha256": pinned,
    });
    let debian = json!({"suite": "bookworm", "request": ["tool"], "release_date": "", "packages": [package]});
    let lock = json!({"schema": 1, "debian": {"agent": {"amd64": debian}}});
    fs::write(fleet.path("fleet.lock"), lock.to_string()).expect("a file");
    let hex = fetched.trim_start_matches("sha256:");
    let fetch = format!("fetch \"https://files.example.com/tool\" sha256=\"{hex}\" to=\"/tool\"");
    fleet.edit("fleet.kdl", "image \"homeserver\" {", &format!("image \"homeserver\" {{\n        {fetch}"));
    let all = [pinned, fetched, other];
    age(&fleet.path(".fleet"));
    fleet.run(&["gc"]).expect(0);
    assert_eq!(stored(&fleet, &all), [true, true, false]);

    // With a mistake in fleet.kdl, what it fetched is still kept; without a fleet.lock that can be read, all is.
    fleet.edit("fleet.kdl", "images {", "imagse {");
    age(&fleet.path(".fleet"));
    fleet.run(&["gc"]).expect(0);
    assert_eq!(stored(&fleet, &all), [true, true, false]);
    fs::write(fleet.path("fleet.lock"), "{").expect("a file");
    fleet.run(&["gc"]).expect(1).says("fleet.lock");
    fs::remove_file(fleet.path("fleet.lock")).expect("a file");
    fleet.run(&["gc"]).expect(0);
    assert_eq!(stored(&fleet, &all), [false, true, false]);
}

/// Debian's `docker-registry` on a free port of loopback, with a folder of its own.
struct Registry {
    process: Child,
    port: u16,
}

impl Registry {
    fn start(folder: &Path) -> Self {
        let port = free_port();
        fs::create_dir_all(folder).expect("a folder");
        let config = folder.join("config.yml");
        let text = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            folder.join("data").display()
        );
        fs::write(&config, text).expect("a file");
        let mut command = Command::new("docker-registry");
        let process = command.arg("serve").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let process = process.unwrap_or_else(|error| panic!("docker-registry is not installed: {error}"));
        let registry = Self { process, port };
        eventually("the registry listens", Duration::from_secs(60), || TcpStream::connect(("127.0.0.1", port)).is_ok());
        registry
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn what_is_pushed_is_pulled_and_run_by_the_engine_and_found_with_its_statements() {
    let fleet = Fleet::of_files("pushed");
    // Docker 20.10 loads no zstd from a registry.
    fleet.edit("fleet.kdl", "target \"docker\"", "target \"docker\" compression=\"gzip\"");
    let registry = Registry::start(&fleet.path("../registry"));
    let place = format!("127.0.0.1:{}/fleets", registry.port);
    let build = || fleet.run(&["build", "agent", "box", "--to", &format!("registry:{place}"), "--format", "json"]);
    let built = build();
    let images = built.expect(0).json()["images"].as_array().expect("images").clone();
    let agent = images.iter().find(|image| image["name"] == "agent").expect("the agent's image");
    let reference = agent["places"][0]["reference"].as_str().expect("a reference");
    let repository = format!("{place}/{}/agent", fleet.name);
    let digest = agent["digest"].as_str().expect("a digest");
    assert_eq!(reference, format!("{repository}@{digest}"));

    let tagged = format!("docker://{repository}:{}", agent["tag"].as_str().expect("a tag"));
    let inspected = tool("skopeo", &["inspect", "--tls-verify=false", &tagged]);
    assert_eq!(serde_json::from_str::<Value>(&inspected).expect("JSON")["Digest"], *digest);
    assert_eq!(docker(&["run", "--rm", reference]), "these are the words");
    docker(&["rmi", "--force", reference]);

    // This registry has no referrers API: the statements are under the tag that stands in for it.
    let fallback = format!("docker://{repository}:{}", digest.replace(':', "-"));
    let raw = tool("skopeo", &["inspect", "--raw", "--tls-verify=false", &fallback]);
    let listed = serde_json::from_str::<Value>(&raw).expect("JSON")["manifests"].as_array().expect("a list").clone();
    let listed: BTreeSet<String> = listed.iter().map(|entry| entry["digest"].to_string()).collect();
    let platform = agent["platforms"].as_object().expect("platforms").values().next().expect("one");
    assert_eq!(listed, platform["statements"].as_array().expect("a list").iter().map(Value::to_string).collect());

    build().expect(0).says("is there");
}

#[test]
fn where_nothing_is_to_be_said_an_image_is_the_same_and_stands_alone() {
    let fleet = Fleet::of_files("silent");
    let registry = Registry::start(&fleet.path("../registry"));
    let place = format!("127.0.0.1:{}", registry.port);
    let out = fleet.path("../out");
    let (to_registry, to_layout) = (format!("registry:{place}"), format!("oci:{}", out.display()));
    let build = |more: &[&str]| {
        let all = [&["build", "agent", "--format", "json", "--to", &to_registry, "--to", &to_layout], more].concat();
        fleet.run(&all).expect(0).json()["images"][0].clone()
    };
    let silent = build(&["--no-statements"]);
    let digest = silent["digest"].as_str().expect("a digest");
    assert_eq!(silent["statements"], Value::from(Vec::<Value>::new()));
    // The image's manifest and config, and the index.
    assert_eq!(validate(&out), 1 + 2);
    let tags = format!("docker://{place}/{}/agent", fleet.name);
    let listed = tool("skopeo", &["list-tags", "--tls-verify=false", &tags]);
    let listed = serde_json::from_str::<Value>(&listed).expect("JSON")["Tags"].clone();
    assert_eq!(listed, Value::from(vec![silent["tag"].clone()]), "no list of statements, which has a tag of its own");
    // The tag is there: a push that has something to say has nothing left to do.
    let told = build(&[]);
    assert_eq!(told["digest"], digest);
    assert_eq!(entry(&out, "agent")["digest"], digest);
    assert_eq!(validate(&out), 1 + 4, "a layout gets them when it is written again");
}

#[test]
fn layers_of_a_target_that_wants_gzip_are_unpacked_by_umoci() {
    let fleet = Fleet::of_files("gzip");
    fleet.edit("fleet.kdl", "target \"docker\"", "target \"docker\" compression=\"gzip\"");
    let out = fleet.path("../out");
    fleet.run(&["build", "agent", "--to", &format!("oci:{}", out.display())]).expect(0);
    validate(&out);
    // An engine takes the layout, too.
    let (layout, loaded) = (format!("oci:{}:agent", out.display()), format!("{}/from-layout:1", fleet.name));
    tool("skopeo", &["copy", &layout, &format!("docker-daemon:{loaded}")]);
    assert_eq!(docker(&["run", "--rm", &loaded]), "these are the words");
    docker(&["rmi", "--force", &loaded]);
    let bundle = fleet.path("../bundle");
    tool("umoci", &["unpack", "--image", &format!("{}:agent", out.display()), &bundle.to_string_lossy()]);
    let read = |path: &str| fs::read_to_string(bundle.join("rootfs").join(path)).expect("a file");
    assert_eq!(read("app/deep/words.txt"), "these are the words\n");
    assert_eq!(read("app/a name with ünicode.txt"), "names with spaces survive\n");
    let mode = fs::metadata(bundle.join("rootfs/app/greet")).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o755);
}

/// What has to be fetched is shared with other tests.
fn share_packages(fleet: &Fleet) {
    for folder in ["blobs", "tmp"] {
        let shared = work().join("store").join(folder);
        fs::create_dir_all(&shared).expect("a folder");
        fs::create_dir_all(fleet.path(".fleet")).expect("a folder");
        symlink(shared, fleet.path(".fleet").join(folder)).expect("a link");
    }
}

/// The fleet of files with an image that has Node and esbuild, whose install script puts the native program in the place of
/// a small one in JavaScript.
fn with_scripts(story: &str) -> Fleet {
    let fleet = Fleet::of_files(story);
    share_packages(&fleet);
    let text = fs::read_to_string(workspace().join("fleet.lock")).expect("the repository's lock");
    let lock: Value = serde_json::from_str(&text).expect("JSON");
    let version = lock["node"]["agent"]["version"].as_str().expect("a version").to_owned();
    let from = "    image \"homeserver\" {\n        copy \"images/app\" to=\"/app\"\n";
    let layers = format!(
        "    image \"homeserver\" {{
        debian \"bookworm\" {{
            packages \"coreutils\" \"dash\" \"libstdc++6\"
        }}
        node \"{version}\"
        npm to=\"/opt/tool\" {{
            package \"esbuild\" \"0.25.9\"
            allow-scripts \"esbuild\"
        }}
"
    );
    fleet.edit("fleet.kdl", from, &layers);
    let mut debian = lock["debian"]["agent"].clone();
    for pins in debian.as_object_mut().expect("pins").values_mut() {
        pins["request"] = json!(["coreutils", "dash", "libstdc++6"]);
    }
    let native = |cpu: &str, integrity: &str| {
        let name = format!("@esbuild/linux-{cpu}");
        json!({
            "path": format!("node_modules/{name}"), "name": name, "version": "0.25.9", "integrity": integrity,
            "os": ["linux"], "cpu": [cpu], "optional": true,
        })
    };
    let packages = [
        native(
            "arm64",
            "sha512-BlB7bIcLT3G26urh5Dmse7fiLmLXnRlopw4s8DalgZ8ef79Jj4aUcYbk90g8iCa2467HX8SAIidbL7gsqXHdRw==",
        ),
        native(
            "x64",
            "sha512-iSwByxzRe48YVkmpbgoxVzn76BXjlYFXC7NvLYq+b+kDjyyk30J0JY47DIn8z1MO3K0oSl9fZoRmZPQI4Hklzg==",
        ),
        json!({
            "path": "node_modules/esbuild", "name": "esbuild", "version": "0.25.9", "bin": {"esbuild": "bin/esbuild"},
            "integrity":
                "sha512-CRbODhYyQx3qp7ZEwzxOk4JBqmD/seJrzPa/cGjY1VtIn5E09Oi9/dB4JwctnfZ8Q8iT7rioVv5k/FNT/uf54g==",
            "has_install_script": true,
        }),
    ];
    let npm = json!({"request": {"esbuild": "0.25.9"}, "packages": packages});
    let lock = json!({
        "schema": lock["schema"], "debian": {"homeserver": debian}, "node": {"homeserver": lock["node"]["agent"]},
        "npm": {"homeserver": {"/opt/tool": npm}},
    });
    fs::write(fleet.path("fleet.lock"), lock.to_string()).expect("a file");
    fleet
}

#[test]
fn an_install_script_runs_in_the_image_without_a_network_and_is_told_of_everywhere() {
    let fleet = with_scripts("scripts");
    let file = fleet.path("../tool.tar");
    let to = format!("docker-archive:{}", file.display());
    let built = fleet.run(&["build", "homeserver", "--to", &to, "--format", "json"]);
    built.says("running install scripts of esbuild");
    let image = built.expect(0).json()["images"][0].clone();
    assert_eq!(image["reproducible"], false);
    assert_eq!(image["install_scripts"], json!(["esbuild"]));
    docker(&["load", "--quiet", "--input", &file.to_string_lossy()]);
    let reference = image["places"][0]["reference"].as_str().expect("a reference");
    let run = |program: &[&str]| docker(&[&["run", "--rm", "--network", "none", reference][..], program].concat());
    assert_eq!(run(&["/opt/tool/node_modules/.bin/esbuild", "--version"]), "0.25.9");
    let program = "/opt/tool/node_modules/esbuild/bin/esbuild";
    assert!(
        run(&["/usr/bin/head", "--bytes", "4", program]).contains("ELF"),
        "the script put the native program there"
    );

    // Made once and then kept: another build of the same inputs is the same image.
    let again = fleet.run(&["build", "homeserver", "--to", &format!("oci:{}", fleet.path("../out").display())]);
    again.expect(0).says("not reproducible: runs install scripts of esbuild");
    assert!(again.stdout.contains(image["digest"].as_str().expect("a digest")), "{}", again.stdout);
    let scripts_of = |artifact: &Value| {
        artifact.get("artifactType")?;
        let content = json_file(&blob(&fleet.path("../out"), &artifact["layers"][0]["digest"]));
        content.pointer("/predicate/buildDefinition/internalParameters/installScripts").cloned()
    };
    let index = json_file(&fleet.path("../out/index.json"));
    let entries = index["manifests"].as_array().expect("a list").iter();
    let told = entries.filter_map(|entry| scripts_of(&json_file(&blob(&fleet.path("../out"), &entry["digest"]))));
    assert_eq!(told.collect::<Vec<_>>(), [json!(["esbuild"])]);
    let checked = fleet.run(&["build", "homeserver", "--check"]);
    checked.expect(0).says("not reproducible: runs install scripts of esbuild");
}

#[test]
fn an_image_stands_on_one_from_a_layout_or_from_an_archive_of_the_engine() {
    let fleet = Fleet::of_files("local-bases");
    let layout = format!("oci:{}", fleet.path("bases/box").display());
    fleet.run(&["build", "box", "--to", &layout]).expect(0);
    fleet.run(&["build", "box"]).expect(0);
    let tag = engine::images(&fleet.name).into_iter().find(|tag| tag.contains("/box:d-")).expect("the image's tag");
    docker(&["save", "--output", &fleet.path("bases/box.tar").to_string_lossy(), &tag]);

    let build = |base: &str| {
        fleet.run(&["lock", "--only", "image/agent"]).expect(0);
        let built =
            fleet.run(&["build", "agent", "--to", &format!("docker-archive:{}", fleet.path("a.tar").display())]);
        built.expect(0);
        docker(&["load", "--quiet", "--input", &fleet.path("a.tar").to_string_lossy()]);
        let tag = engine::images(&fleet.name).into_iter().find(|tag| tag.contains("/agent:d-")).expect("a tag");
        assert_eq!(docker(&["run", "--rm", &tag]), "these are the words", "{base}");
        docker(&["rmi", "--force", &tag]);
        printed(&built.stdout, &format!("{}/agent", fleet.name))
    };
    fleet.edit("fleet.kdl", "base image=\"box\"", "base \"oci:bases/box#box\"");
    let on_layout = build("layout");
    fleet.edit("fleet.kdl", "base \"oci:bases/box#box\"", &format!("base \"docker-archive:bases/box.tar#{tag}\""));
    let on_archive = build("archive");
    assert_eq!(on_layout, on_archive, "the same image below, wherever it was read from");
    fleet.run(&["build", "agent", "--check"]).expect(0).says("both times");

    // Another image in the archive's place is not what the lock pins.
    let file = format!("docker-archive:{}", fleet.path("bases/box.tar").display());
    fleet.edit("fleet.kdl", &format!("#{tag}\""), "\"");
    fleet.run(&["lock", "--only", "image/agent"]).expect(0);
    fleet.run(&["build", "homeserver", "--to", &file]).expect(0);
    fleet.run(&["build", "agent", "--to", &layout]).expect(1).says("fleet.lock pins");
}

#[test]
fn files_bear_the_time_that_source_date_epoch_says_and_the_same_time_gives_the_same_image() {
    let fleet = Fleet::of_files("epoch");
    let built = |name: &str, epoch: Option<&str>| {
        let out = fleet.path(name);
        let mut command = fleet.command(&["build", "homeserver", "--to", &format!("oci:{}", out.display())]);
        command.env_remove("SOURCE_DATE_EPOCH").envs(epoch.map(|time| ("SOURCE_DATE_EPOCH", time)));
        let output = fleet.finish(Running::start(&mut command));
        let digest = printed(&output.expect(0).stdout, &format!("{}/homeserver", fleet.name));
        let layer = layers(&out, "homeserver").remove(0);
        let tar = zstd::decode_all(&fs::read(blob(&out, &Value::String(layer))).expect("a layer")[..]).expect("zstd");
        let mut archive = tar_list(&tar);
        archive.dedup();
        (digest, archive)
    };
    let (plain, [dated, again]) = (built("plain", None), ["a", "b"].map(|name| built(name, Some("1700000000"))));
    assert_eq!(plain.1, ["1970-01-01 00:00:01"]);
    assert_eq!(dated.1, ["2023-11-14 22:13:20"]);
    assert_eq!(dated.0, again.0);
    assert_ne!(dated.0, plain.0);
    let mut command = fleet.command(&["build", "homeserver", "--to", "oci:nowhere"]);
    command.env("SOURCE_DATE_EPOCH", "yesterday");
    fleet.finish(Running::start(&mut command)).expect(64).says("SOURCE_DATE_EPOCH");
}

/// Times of the entries of a tar, as `tar` shows them.
fn tar_list(tar: &[u8]) -> Vec<String> {
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    std::io::Write::write_all(&mut file, tar).expect("room");
    let listed = tool("tar", &["--utc", "--full-time", "-tvf", &file.path().to_string_lossy()]);
    let times = listed.lines().map(|line| line.split_whitespace().skip(3).take(2).collect::<Vec<_>>().join(" "));
    times.collect()
}

#[test]
fn memory_does_not_grow_with_the_size_of_a_layer() {
    let fleet = Fleet::of_files("memory");
    let file = fleet.path("images/app/large");
    let peak = |megabytes: u64, name: &str| {
        // What compresses well and what does not, in turns; more of it than memory may have.
        let mut random = fastrand::Rng::with_seed(megabytes);
        let noise: Vec<u8> = (0..1 << 20).map(|_| random.u8(..)).collect();
        let mut out = std::io::BufWriter::new(fs::File::create(&file).expect("a file"));
        for n in 0..megabytes {
            let piece = if n % 4 == 0 { &noise[..] } else { &[n as u8; 1 << 20][..] };
            std::io::Write::write_all(&mut out, piece).expect("room");
        }
        drop(out);
        let mut command =
            fleet.command(&["build", "homeserver", "--to", &format!("oci:{}", fleet.path(name).display())]);
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("the program");
        let used = wait4::Wait4::wait4(child).expect("a child");
        assert!(used.status.success());
        used.rusage.maxrss / 1_000_000
    };
    let (small, large) = (peak(8, "small"), peak(512, "large"));
    assert!(large < 150, "{large} MB for a layer of 512 MB, {small} MB for one of 8 MB");
}

#[test]
fn every_package_that_is_pinned_is_unpacked_for_both_platforms() {
    let fleet = Fleet::of_files("pins");
    share_packages(&fleet);
    for folder in ["templates", "images", "org"] {
        copy_folder(&workspace().join(folder), &fleet.path(folder));
    }
    fs::copy(workspace().join("fleet.lock"), fleet.path("fleet.lock")).expect("a file");
    let kdl = fs::read_to_string(workspace().join("fleet.kdl")).expect("a file");
    // The agent runtime is compiled for one platform only; it is no package.
    let kdl =
        kdl.lines().filter(|line| !line.trim_start().starts_with("fleet-agent to=")).collect::<Vec<_>>().join("\n");
    let kdl = kdl.replace("fleet \"anycompany\"", &format!("fleet \"{}\"", fleet.name));
    fs::write(fleet.path("fleet.kdl"), kdl).expect("a file");
    let to = format!("oci:{}", fleet.path("../out").display());
    let platforms = ["--platform", "linux/amd64,linux/arm64", "--to", &to, "--format", "json"];
    let built = fleet.run(&[&["build", "agent", "homeserver"][..], &platforms].concat());
    let images = built.expect(0).json()["images"].as_array().expect("images").clone();
    assert_eq!(images.len(), 2);
    for image in images {
        assert_eq!(image["platforms"].as_object().expect("platforms").len(), 2, "{image}");
    }
}
