//! Images that a container engine builds from a Containerfile, past the engine: pushed, written, stood on by others.

use std::{fs, path::Path, process::Command};

use crate::docker_registry::DockerRegistry;
use fleet_tests::{
    Fleet, Output,
    engine::{self, docker},
    run::Running,
};
use serde_json::{Value, json};

const CONTAINERFILE: &str = r#"ARG BASE
FROM ${BASE}
ARG LOUDER
COPY words.txt /words.txt
RUN ["/bin/busybox", "sh", "-c", "busybox tr a-z A-Z < /words.txt > /loud.txt && busybox rm /bin/README && echo $LOUDER"]
ENV GREETING="hello there" PATH=/bin
LABEL org=any
EXPOSE 8080
VOLUME /data
HEALTHCHECK --interval=5s --retries=2 CMD ["/bin/busybox", "true"]
STOPSIGNAL SIGINT
WORKDIR /work
USER 1000
ENTRYPOINT ["/bin/busybox", "cat", "/loud.txt"]
"#;

/// The fleet of files, with an image that an engine builds on one of ours.
fn fleet(story: &str) -> Fleet {
    let fleet = Fleet::of_files(story);
    let from = "    image \"homeserver\" {\n        copy \"images/app\" to=\"/app\"\n    }\n";
    let built = "    image \"homeserver\" {
        containerfile \"images/built/Containerfile\" { base image=\"box\"; arg LOUDER=\"yes\" }
        check \"/bin/busybox\" \"test\" \"-f\" \"/loud.txt\"
    }\n";
    fleet.edit("fleet.kdl", from, built);
    fs::create_dir_all(fleet.path("images/built")).expect("a folder");
    fs::write(fleet.path("images/built/Containerfile"), CONTAINERFILE).expect("a file");
    fs::write(fleet.path("images/built/words.txt"), "these are the words\n").expect("a file");
    fleet
}

/// As on a machine without an engine.
fn without_engine(fleet: &Fleet, arguments: &[&str]) -> Output {
    let mut command = fleet.command(arguments);
    command.env("DOCKER_HOST", "unix:///nobody/listens/here.sock");
    fleet.finish(Running::start(&mut command))
}

#[track_caller]
fn skopeo(arguments: &[&str]) -> String {
    let output = Command::new("skopeo").args(arguments).output().expect("skopeo is installed");
    assert!(output.status.success(), "skopeo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[track_caller]
fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

fn tag(fleet: &Fleet, image: &str) -> Option<String> {
    engine::images(&fleet.name).into_iter().find(|tag| tag.contains(&format!("/{image}:d-")))
}

/// What `docker inspect` says of an image.
#[track_caller]
fn inspected(image: &str) -> Value {
    parsed(&docker(&["image", "inspect", image]))[0].clone()
}

#[test]
fn what_an_engine_built_is_pushed_with_the_layers_that_it_has_and_a_second_push_sends_nothing() {
    let fleet = fleet("engine-push");
    // Docker 20.10 loads no zstd from a registry.
    fleet.edit("fleet.kdl", "target \"docker\"", "target \"docker\" compression=\"gzip\"");
    let registry = DockerRegistry::open();
    let to = format!("registry:{}/fleets", registry.host);
    let built = fleet.run(&["build", "homeserver", "--to", &to, "--format", "json"]);
    let image = built.expect(0).json()["images"][0].clone();
    assert!(!built.stderr.contains("its checks are not run"), "the engine ran them: {}", built.stderr);
    assert_eq!(
        (&image["reproducible"], &image["containerfiles"]),
        (&json!(false), &json!(["images/built/Containerfile"]))
    );

    // The engine has it, checked; the base only lent its name.
    let there = inspected(&tag(&fleet, "homeserver").expect("the image's tag"));
    assert_eq!(engine::images(&fleet.name).len(), 1, "{:?}", engine::images(&fleet.name));
    let reference = image["places"][0]["reference"].as_str().expect("a reference");
    let config = parsed(&skopeo(&["inspect", "--tls-verify=false", "--config", &format!("docker://{reference}")]));
    assert_eq!(config["rootfs"]["diff_ids"], there["RootFS"]["Layers"], "layers are the engine's own");

    // Pulled anew, it is what was built, and runs the same.
    docker(&["pull", "--quiet", reference]);
    let pulled = inspected(reference);
    let settings =
        |image: &Value, names: &[&str]| names.iter().map(|name| image["Config"][*name].clone()).collect::<Vec<_>>();
    let names =
        ["Entrypoint", "Cmd", "Labels", "User", "WorkingDir", "StopSignal", "Healthcheck", "ExposedPorts", "Volumes"];
    assert_eq!(settings(&pulled, &names), settings(&there, &names));
    let environment = |image: &Value| {
        let mut all: Vec<String> =
            image["Config"]["Env"].as_array().expect("a list").iter().map(Value::to_string).collect();
        all.sort();
        all
    };
    assert_eq!(environment(&pulled), environment(&there));
    assert_eq!(docker(&["run", "--rm", "--network", "none", reference]), "THESE ARE THE WORDS");
    let listed = ["run", "--rm", "--network", "none", "--entrypoint", "/bin/busybox", reference, "ls", "/bin"];
    assert_eq!(docker(&listed), "busybox", "what a step removed is gone");
    docker(&["rmi", "--force", reference]);

    // Neither the engine nor a byte is needed for a second push.
    let uploads = || registry.asked().iter().filter(|asked| !asked.request.starts_with("HEAD")).count();
    let before = uploads();
    without_engine(&fleet, &["build", "homeserver", "--to", &to])
        .expect(0)
        .says("is there")
        .says("not reproducible: a container engine");
    assert_eq!(uploads(), before, "{:?}", registry.asked());
}

/// A layout's blob as JSON.
#[track_caller]
fn blob(layout: &Path, digest: &Value) -> Value {
    let name = digest.as_str().expect("a digest").replace(':', "/");
    parsed(&fs::read_to_string(layout.join("blobs").join(name)).expect("a blob"))
}

#[test]
fn what_an_engine_built_is_written_to_a_layout_and_stood_on_and_said_to_be_such() {
    let fleet = fleet("engine-layout");
    fleet.edit("fleet.kdl", "base image=\"box\"\n        copy", "base image=\"homeserver\"\n        copy");
    let out = fleet.path("../out");
    let to = format!("oci:{}", out.display());
    let (archive, file) =
        (format!("docker-archive:{}", fleet.path("../agent.tar").display()), fleet.path("../agent.tar"));
    let built = fleet.run(&["build", "agent", "homeserver", "--to", &to, "--to", &archive]);
    built.expect(0).says("not reproducible: a container engine builds it from images/built/Containerfile");
    for image in ["agent", "homeserver"] {
        let copy = format!("dir:{}", fleet.path(&format!("../{image}")).display());
        skopeo(&["copy", "--quiet", &format!("{to}:{image}"), &copy]);
    }
    docker(&["load", "--quiet", "--input", &file.to_string_lossy()]);
    let agent = tag(&fleet, "agent").expect("the image on it");
    assert_eq!(docker(&["run", "--rm", "--network", "none", &agent]), "these are the words");
    let below = ["run", "--rm", "--network", "none", "--entrypoint", "/bin/busybox", &agent, "cat", "/loud.txt"];
    assert_eq!(docker(&below), "THESE ARE THE WORDS");

    // Of what its steps took from elsewhere nothing is known, and the statements say so, of what stands on it too.
    let index = parsed(&fs::read_to_string(out.join("index.json")).expect("an index"));
    let entries = index["manifests"].as_array().expect("a list").iter();
    let statements: Vec<Value> = entries
        .map(|entry| blob(&out, &entry["digest"]))
        .filter(|manifest| manifest.get("subject").is_some())
        .map(|manifest| blob(&out, &manifest["layers"][0]["digest"]))
        .collect();
    let internal: Vec<&Value> =
        statements.iter().filter_map(|text| text.pointer("/predicate/buildDefinition/internalParameters")).collect();
    assert_eq!(internal.len(), 2, "{statements:?}");
    for parameters in internal {
        assert_eq!(parameters["reproducible"], false);
        assert_eq!(parameters["containerfiles"], json!(["images/built/Containerfile"]));
        assert!(parameters["containerEngines"][0].as_str().expect("an engine").starts_with("Docker "), "{parameters}");
    }
    let incomplete = statements.iter().filter(|text| text["compositions"][0]["aggregate"] == "incomplete").count();
    assert_eq!(incomplete, 2, "{statements:?}");
    fleet.run(&["build", "--check"]).expect(0).says("homeserver").says("not reproducible: a container engine");
}

#[test]
fn a_base_that_the_engine_has_is_pinned_and_taken_out_of_it_once() {
    let fleet = Fleet::of_files("engine-base");
    let name = format!("{}-base:1", fleet.name);
    let import = |words: &str| {
        let folder = fleet.path("../import");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("words.txt"), words).expect("a file");
        let tar = fleet.path("../import.tar");
        let made = Command::new("tar").arg("-cf").arg(&tar).arg("-C").arg(&folder).arg("words.txt").status();
        assert!(made.expect("tar runs").success());
        docker(&["import", "--change", "ENV TOLD=yes", &tar.to_string_lossy(), &name]);
    };
    let _gone = Untag(name.clone());
    let from = "    image \"homeserver\" {\n";
    fleet.edit("fleet.kdl", from, &format!("{from}        base \"engine:{name}\"\n"));

    // Nothing of that name: said, and nothing is written.
    let before = fs::read_to_string(fleet.path("fleet.lock")).ok();
    fleet.run(&["lock"]).expect(1).says(&format!("the engine has no image {name}; pull, load or build it"));
    assert_eq!(fs::read_to_string(fleet.path("fleet.lock")).ok(), before);

    import("first\n");
    fleet.run(&["lock"]).expect(0);
    let lock = fs::read_to_string(fleet.path("fleet.lock")).expect("a lock file");
    assert!(lock.contains(&format!("engine:{name}")), "{lock}");
    let out = fleet.path("../out");
    let to = format!("oci:{}", out.display());
    without_engine(&fleet, &["build", "homeserver", "--to", &to])
        .expect(69)
        .says(&format!("image homeserver stands on engine:{name}, which an engine has"));
    fleet.run(&["build", "homeserver", "--to", &to]).expect(0);
    let config = parsed(&skopeo(&["inspect", "--config", &format!("{to}:homeserver")]));
    let variables = config["config"]["Env"].as_array().expect("variables");
    assert!(variables.contains(&json!("TOLD=yes")), "the base's own settings: {config}");
    let layers = config["rootfs"]["diff_ids"].as_array().expect("layers");
    assert_eq!(layers[0], inspected(&name)["RootFS"]["Layers"][0], "the engine's layer is the first");

    // From now on no engine is asked, whatever it has under that name.
    import("second\n");
    fs::write(fleet.path("images/app/deep/words.txt"), "other words\n").expect("a file");
    without_engine(&fleet, &["build", "homeserver", "--to", &to]).expect(0);
    // An empty store takes it from the engine: what is there now is not what was pinned.
    fs::remove_dir_all(fleet.path(".fleet")).expect("the store goes");
    fleet
        .run(&["build", "homeserver", "--to", &to])
        .expect(1)
        .says(&format!("engine:{name} is sha256:"))
        .says("run `fleetctl lock` if that is meant");
    fleet.run(&["lock"]).expect(0);
    fleet.run(&["build", "homeserver", "--to", &to]).expect(0);
}

/// Removes an image's name from the engine, however a story ends.
struct Untag(String);

impl Drop for Untag {
    fn drop(&mut self) {
        drop(Command::new("docker").args(["image", "rm", "--force", &self.0]).output());
    }
}

#[test]
fn without_an_engine_it_is_said_what_needs_one_and_a_check_that_fails_lets_nothing_out() {
    let fleet = fleet("engine-none");
    let out = fleet.path("../out");
    let to = format!("oci:{}", out.display());
    let none = without_engine(&fleet, &["build", "homeserver", "--to", &to]);
    none.expect(69).says("no container engine answers").says("image homeserver, from images/built/Containerfile");
    // The others need none.
    without_engine(&fleet, &["build", "box", "--to", &to]).expect(0);

    fleet.edit("fleet.kdl", "\"-f\" \"/loud.txt\"", "\"-f\" \"/silent.txt\"");
    let refused = fleet.run(&["build", "homeserver", "--to", &format!("oci:{}", fleet.path("../none").display())]);
    refused.expect(1).says("its check `/bin/busybox test -f /silent.txt` ended with exit code 1");
    assert!(!fleet.path("../none").exists());
    assert_eq!(engine::images(&fleet.name), Vec::<String>::new(), "no name is left");

    // A step that fails is told with what it printed.
    fleet.edit("images/built/Containerfile", "&& echo $LOUDER", "&& echo it is broken here; exit 3");
    let failed = fleet.run(&["build", "homeserver", "--to", &to]);
    failed.expect(1).says("it is broken here");
}

#[test]
fn layers_that_only_the_engine_has_any_more_are_taken_from_it() {
    let fleet = Fleet::of_files("engine-has");
    fleet.run(&["build"]).expect(0);
    let to = |name: &str| format!("oci:{}", fleet.path(name).display());
    let first = fleet.run(&["build", "agent", "--to", &to("../first")]);
    first.expect(0);
    fs::remove_dir_all(fleet.path(".fleet")).expect("the store");
    fs::write(fleet.path("images/app/deep/words.txt"), "other words\n").expect("a file");
    fleet.run(&["build", "agent"]).expect(0);
    let tags: Vec<String> = engine::images(&fleet.name).into_iter().filter(|tag| tag.contains("/agent:d-")).collect();
    let said: Vec<String> = tags.iter().map(|tag| docker(&["run", "--rm", "--network", "none", tag])).collect();
    assert!(said.contains(&"other words".to_owned()) && said.contains(&"these are the words".to_owned()), "{said:?}");

    // What came from the engine is byte by byte what was made here before.
    fs::write(fleet.path("images/app/deep/words.txt"), "these are the words\n").expect("a file");
    let again = fleet.run(&["build", "agent", "--to", &to("../again")]);
    assert_eq!(again.expect(0).stdout, first.stdout);
}
