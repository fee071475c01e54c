//! The program as a person meets it: wrong input is named with a remedy, and nothing is touched.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use fleet_sim::free_port;
use fleet_tests::{
    Fleet, Output,
    run::{self, Running, eventually},
};
use tempfile::TempDir;

/// An empty folder with no project above it.
fn empty() -> TempDir {
    TempDir::new().expect("a folder")
}

fn fleetctl(folder: &Path, arguments: &[&str]) -> Output {
    let mut command = run::command(folder, &folder.join("home"));
    Running::start(command.args(arguments)).wait()
}

#[test]
fn what_the_command_line_gets_wrong_is_said_with_a_remedy() {
    let fleet = Fleet::light("cli");
    fleet.run(&["frobnicate"]).expect(64).says("frobnicate");
    fleet.run(&["plan", "--no-such-option"]).expect(64);
    fleet.run(&["plan", "-e", "moon"]).expect(64).says("moon").says("local");
    fleet.run(&["why", "agent"]).expect(64);
    fleet.run(&["why", "agent/nobody"]).expect(1).says("agent/nobody").says("agent/vera.vp");
    fleet.run(&["logs", "room/all-employees"]).expect(64).says("room/all-employees").says("agent/NAME");
    fleet.run(&["password", "vera.vp"]).expect(64).says("helen.ceo");
    fleet.run(&["connect", "--open"]).expect(64).says("has no web client");
    fleet.run(&["connect", "--homeserver-port", "1"]).expect(64).says("publishes its own ports");
    let port = format!("http://127.0.0.1:{}", fleet.port);
    assert_eq!(fleet.run(&["connect", "--format", "json"]).expect(0).json()["homeserver"], port.as_str());
    fleet.run(&["lock", "--only", "image/nothing"]).expect(64).says("image/agent");
    fleet.run(&["explain", "no::such::code"]).expect(64);
    fleet.run(&["explain", "fleet::org::reporting-cicle"]).expect(64).says("fleet::org::reporting-cycle");
    fleet.run(&["why", "agent/vera.vp", "--generation", "99"]).expect(64).says("no generation 99");
    fleet.run(&["say", "all-employees", "hello", "--wait", "18446744073709551615"]).expect(64).says("86400");
    let pick = |counts: &[&str]| fleet.run(&[&["org", "pick", "--department", "Engineering"], counts].concat());
    pick(&["--vp", "0", "--directors", "1"]).expect(0).says("deploy \"dora.director\"\n");
    pick(&["--vp", "1", "--ics", "1"]).expect(0).says("deploy \"vera.vp\" \"ivan.ic\"\n");
    pick(&["--vp", "1", "--directors", "2"]).expect(1).says("has only 1 of level director");
    let unasked = fleet.run(&["apply"]);
    unasked.expect(64).says("--auto-approve").says("nothing was changed");
    assert_eq!(fleet.ids().len(), 0);
    fleet.run(&["destroy", "--purge", "--auto-approve"]).expect(0).says("nothing is there");
}

#[test]
fn who_names_an_image_to_lock_learns_that_its_registry_was_out_of_reach() {
    let fleet = Fleet::light("unpinned");
    let far = "images {\n    image \"far\" { base \"127.0.0.1:1/far:1\"; entrypoint \"/bin/far\" }\n";
    fleet.edit("fleet.kdl", "images {\n", far);
    fleet.run(&["lock", "--only", "image/far"]).expect(69).says("127.0.0.1:1").says("it stays without a pin");
    fleet.run(&["lock", "--check"]).expect(1).says("image far: the base 127.0.0.1:1/far:1");
}

#[test]
fn connect_shows_the_web_client_in_the_browser_that_there_is_and_does_without_one() {
    let fleet = Fleet::light("browser");
    let (web, programs) = (free_port(), fleet.path("bin"));
    let homeserver = format!("port={}\n", fleet.port);
    fleet.edit("fleet.kdl", &homeserver, &format!("{homeserver}    web image=\"agent\" port={web}\n"));
    fs::create_dir(&programs).expect("a folder");
    let connect = || {
        let mut command = fleet.command(&["connect", "--open"]);
        fleet.finish(Running::start(command.env("PATH", &programs)))
    };
    let page = format!("http://127.0.0.1:{web}");
    connect().expect(0).says("no browser can be started (xdg-open: ").says(&format!("; open {page}"));

    let (shown, browser) = (fleet.path("shown"), programs.join("xdg-open"));
    fs::write(&browser, format!("#!/bin/sh\necho \"$@\" > {}\n", shown.display())).expect("a file");
    fs::set_permissions(&browser, fs::Permissions::from_mode(0o755)).expect("a program");
    let connected = connect();
    connected.expect(0).says(&page);
    assert!(!connected.stderr.contains("no browser"), "{}", connected.stderr);
    let asked = || fs::read_to_string(&shown).is_ok_and(|asked| asked == format!("{page}\n"));
    eventually("the browser was asked for the page", Duration::from_secs(30), asked);
}

#[test]
fn without_an_engine_every_place_is_named_and_nothing_is_installed_where_one_is_chosen() {
    let fleet = Fleet::light("noengine");
    for arguments in [&["quickstart", "--yes"][..], &["plan"], &["apply", "--auto-approve"], &["status"]] {
        let mut command = fleet.command(arguments);
        command.env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
        let output = fleet.finish(Running::start(&mut command));
        output.expect(69).says("unix:///nonexistent/engine.sock: there is no such socket").says("DOCKER_HOST");
    }
    let mut elsewhere = fleet.command(&["status"]);
    elsewhere.env("DOCKER_HOST", "tcp://192.0.2.1:2375");
    fleet.finish(Running::start(&mut elsewhere)).expect(69).says("ssh -L");
    // What needs no engine works without one.
    let mut offline = fleet.command(&["plan", "--offline"]);
    offline.env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    fleet.finish(Running::start(&mut offline)).expect(0).says("agent/vera.vp");
}

#[test]
fn without_a_project_the_first_step_is_named() {
    let folder = empty();
    fleetctl(folder.path(), &["check"]).expect(1).says("there is no fleet.kdl").says("fleetctl init");
    fleetctl(folder.path(), &["-C", "nowhere", "plan"]).expect(1).says("nowhere");
}

#[test]
fn init_makes_a_project_that_checks_and_is_in_the_standard_layout() {
    let folder = empty();
    fleetctl(folder.path(), &["init", "--name", "Bad Name!"]).expect(64);
    assert!(!folder.path().join("fleet.kdl").exists());
    fleetctl(folder.path(), &["init", "--name", "small"]).expect(0).says("fleetctl check");
    for file in ["templates/SOUL.md", "images/homeserver/start.py"] {
        let ours = fs::read(fleet_tests::sources::workspace().join(file)).expect("a file of the repository");
        assert_eq!(fs::read(folder.path().join(file)).expect(file), ours);
    }
    fleetctl(folder.path(), &["check"]).expect(0).says("is right");
    fleetctl(folder.path(), &["fmt", "--check"]).expect(0);
    fleetctl(folder.path(), &["lock", "--check"]).expect(0);
    fleetctl(folder.path(), &["plan", "--offline"]).expect(0).says("agent/first.agent");
    fleetctl(folder.path(), &["init"]).expect(1).says("already");
}

#[test]
fn every_mistake_is_shown_at_once_with_code_place_and_help() {
    let fleet = Fleet::light("mistakes");
    fleet.edit("fleet.kdl", "reports-to=\"dora.director\"", "reports-to=\"dora.directer\"");
    fleet.edit("fleet.kdl", "heartbeat \"30m\"", "hartbeat \"30m\"");
    let output = fleet.run(&["plan"]);
    output.expect(1).says("dora.directer").says("dora.director").says("hartbeat").says("heartbeat").says("2 errors");
    output.says("fleet.kdl:");
    let code = output.stderr.split_whitespace().find(|word| word.starts_with("fleet::")).expect("a code").to_owned();
    fleet.run(&["explain", &code]).expect(0).says(&code);
    fleet.run(&["explain"]).expect(0).says(&code);
}

#[test]
fn fmt_says_what_would_change_and_changes_only_the_layout() {
    let fleet = Fleet::light("fmt");
    fleet.run(&["fmt", "--check"]).expect(0);
    fleet.edit("fleet.kdl", "    heartbeat \"30m\"", "  heartbeat    \"30m\"   // half an hour");
    fleet.run(&["fmt", "--check"]).expect(1).says("fleet.kdl would change");
    fleet.run(&["fmt"]).expect(0);
    fleet.run(&["fmt", "--check"]).expect(0);
    let text = fs::read_to_string(fleet.path("fleet.kdl")).expect("fleet.kdl");
    assert!(text.contains("        heartbeat \"30m\" // half an hour\n"), "{text}");
    assert!(text.starts_with("// A fleet for tests"), "comments stay: {text}");
    fleet.run(&["check"]).expect(0);
}

#[test]
fn graph_show_and_completions_are_data_on_stdout() {
    let fleet = Fleet::light("show");
    fleet.run(&["show"]).expect(0).says("vera.vp");
    let graph = fleet.run(&["graph", "--format", "json"]);
    graph.expect(0);
    assert!(graph.json().to_string().contains("agent/vera.vp"));
    fleet.run(&["graph", "--format", "dot"]).expect(0).says("digraph");
    for shell in ["bash", "zsh", "fish"] {
        assert!(fleet.run(&["completions", shell]).expect(0).stdout.contains("fleetctl"));
    }
}

/// An environment on AWS beside the local one, with a limit and a time for which logs are kept.
const CLOUD: &str = "
environment \"cloud\" extends=\"local\" {
    target \"aws\" account=\"111122223333\" region=\"us-east-1\"
    logs retention=\"7d\"
    limits agents=50
}
";

/// Hashes of derivations, by address, of the cloud's stacks.
fn stacks(fleet: &Fleet) -> std::collections::BTreeMap<String, String> {
    let graph = fleet.run(&["graph", "-e", "cloud", "--format", "json"]);
    let graph = graph.expect(0).json();
    let all = graph["derivations"].as_array().expect("derivations").iter().map(|entry| {
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        (text(&entry["derivation"]["address"]), text(&entry["hash"]))
    });
    all.filter(|(address, _)| address.starts_with("stack/")).collect()
}

#[test]
fn an_environment_on_aws_shows_its_stacks() {
    let fleet = Fleet::light("stacks");
    let text = fs::read_to_string(fleet.path("fleet.kdl")).expect("fleet.kdl");
    fs::write(fleet.path("fleet.kdl"), text + CLOUD).expect("fleet.kdl");
    fleet.run(&["show", "-e", "cloud"]).expect(0).says("stack/cloud-data").says("of 500 resources");
    let template = fleet.run(&["show", "stack/cloud", "-e", "cloud"]);
    let document: serde_json::Value = serde_json::from_str(&template.expect(0).stdout).expect("a template");
    assert_eq!(document["Resources"]["Vpc"]["Properties"]["CidrBlock"], "10.0.0.0/16");
    fleet.run(&["show", "stack/moon", "-e", "cloud"]).expect(64).says("stack/cloud-data");
    fleet.run(&["show", "stack/local"]).expect(64).says("not on AWS");
    fleet.run(&["show", "stack/bootstrap", "-e", "cloud"]).expect(64).says("--repository");
    let account = fleet.run(&["show", "stack/bootstrap", "-e", "cloud", "--repository", "small/fleet"]);
    account.expect(0).says("repo:small/fleet:environment:cloud");

    fleet.run(&["diff", "--offline", "-e", "cloud"]).expect(0).says("stack/cloud").says("AWS::EC2::VPC");

    fleet.edit("fleet.kdl", "limits agents=50", "network cidr=\"10.0.0.0/20\"; limits agents=100000");
    fleet.run(&["plan", "--offline", "-e", "cloud"]).expect(1).says("fleet::environment::no-stack").says("10.0.0.0/20");
    fleet.run(&["explain", "fleet::environment::no-stack"]).expect(0).says("too narrow");
    // Beside it, what is wrong with an image is found in the same run.
    fleet.edit("fleet.kdl", "packages \"coreutils\" \"dash\"", "packages \"coreutils\" \"bash\"");
    let both = fleet.run(&["plan", "--offline", "-e", "cloud"]);
    both.expect(1).says("fleet::environment::no-stack").says("fleet::images::not-locked").says("2 errors");
}

#[test]
fn a_stack_changes_with_its_template_and_not_with_every_setting() {
    let fleet = Fleet::light("cutoff");
    let text = fs::read_to_string(fleet.path("fleet.kdl")).expect("fleet.kdl");
    fs::write(fleet.path("fleet.kdl"), text + CLOUD).expect("fleet.kdl");
    let before = stacks(&fleet);
    assert_eq!(before.keys().collect::<Vec<_>>(), ["stack/cloud", "stack/cloud-data", "stack/shared"]);
    fleet.edit("fleet.kdl", "limits agents=50", "limits agents=60");
    assert_eq!(stacks(&fleet), before, "the subnets are as wide as before");
    fleet.edit("fleet.kdl", "logs retention=\"7d\"", "logs retention=\"14d\"");
    let after = stacks(&fleet);
    assert_ne!(after["stack/cloud"], before["stack/cloud"]);
    assert_eq!(after["stack/shared"], before["stack/shared"]);
    assert_eq!(after["stack/cloud-data"], before["stack/cloud-data"]);
}

#[test]
fn mistakes_in_templates_skills_and_images_are_all_found_in_one_run() {
    let folder = empty();
    let at = |name: &str| folder.path().join(name);
    fleetctl(folder.path(), &["init", "--name", "small"]).expect(0);
    let append = |name: &str, text: &str| {
        let before = fs::read_to_string(at(name)).expect("a file");
        fs::write(at(name), before + text).expect("a file");
    };
    append("templates/SOUL.md", "{{ agent.salary }}\n");
    append("templates/HEARTBEAT.md", "{{ flet.name }}\n");
    append("templates/roles/vp.md", "{% if agent.team %}\n"); // no vp is deployed
    fs::write(at("templates/skills/people/logo.png"), b"\x89PNG\xff\xfe").expect("a file");
    let kdl = fs::read_to_string(at("fleet.kdl")).expect("fleet.kdl");
    fs::write(at("fleet.kdl"), kdl.replace("node \"24.21.0\"", "node \"24.21.1\"")).expect("fleet.kdl");
    let output = fleetctl(folder.path(), &["check"]);
    output
        .expect(1)
        .says("templates/SOUL.md")
        .says("templates/HEARTBEAT.md")
        .says("templates/roles/vp.md")
        .says("logo.png");
    output.says("24.21.1").says("fleetctl lock --only image/agent").says("4 errors");
    for code in ["fleet::workspace::template", "fleet::workspace::skill-not-text", "fleet::images::not-locked"] {
        output.says(code);
        fleetctl(folder.path(), &["explain", code]).expect(0).says(code);
    }
    // Whoever builds it is refused, by the same diagnostic.
    fleetctl(folder.path(), &["plan", "--offline"]).expect(1).says("5 errors").says("fleet::images::not-locked");
    // A lock that has it, of a Node that the package does not run on.
    fs::write(at("fleet.kdl"), kdl.replace("node \"24.21.0\"", "node \"18.20.0\"")).expect("fleet.kdl");
    let lock = fs::read_to_string(at("fleet.lock")).expect("fleet.lock");
    fs::write(at("fleet.lock"), lock.replace("\"24.21.0\"", "\"18.20.0\"")).expect("fleet.lock");
    fleetctl(folder.path(), &["check"]).expect(1).says("fleet::images::does-not-fit").says("18.20.0").says("5 errors");
}

#[test]
fn what_cannot_be_read_below_a_folder_is_named_and_not_left_out() {
    let folder = empty();
    let at = |name: &str| folder.path().join(name);
    fleetctl(folder.path(), &["init", "--name", "small"]).expect(0);
    let manifest = at("templates/skills/people/SKILL.md");
    fs::remove_file(&manifest).expect("a file");
    std::os::unix::fs::symlink("/nowhere/SKILL.md", &manifest).expect("a link");
    fs::write(at("templates/skills/people/note\\s.md"), "x").expect("a file");
    fs::write(at("templates/levels/vp.md"), b"caf\xe9\n").expect("a file");
    let output = fleetctl(folder.path(), &["check"]);
    output
        .expect(1)
        .says("fleet::file::unreadable")
        .says("templates/skills/people/SKILL.md cannot be read")
        .says("2 errors");
    assert!(!output.stderr.contains("has no SKILL.md"), "{}", output.stderr);
    fs::remove_file(at("templates/skills/people/note\\s.md")).expect("a file");
    fs::remove_file(&manifest).expect("a link");
    fs::write(&manifest, "x").expect("a file");
    fleetctl(folder.path(), &["check"]).expect(1).says("levels/vp.md").says("UTF-8").says("1 error ");
}

#[test]
fn fmt_shows_every_file_that_does_not_parse_and_lays_out_the_others() {
    let folder = empty();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("fleet.kdl"), "fleet \"tiny\"   domain=\"tiny.test\"\ninclude \"a.kdl\"\ninclude \"b.kdl\"\n")
        .expect("a file");
    fs::write(at("a.kdl"), "rooms { room \"a\" public=true { members \"*\" } }\n").expect("a file");
    fs::write(at("b.kdl"), "org {\n").expect("a file");
    let output = fleetctl(folder.path(), &["fmt"]);
    output.expect(1).says("a.kdl").says("b.kdl").says("fleet::language::syntax").says("a # is missing here");
    let laid_out = fs::read_to_string(at("fleet.kdl")).expect("a file");
    assert!(laid_out.starts_with("fleet \"tiny\" domain=\"tiny.test\"\n"), "{laid_out}");
    assert_eq!(fs::read_to_string(at("b.kdl")).expect("a file"), "org {\n");
}

#[test]
fn fmt_lays_out_the_root_and_what_it_includes_and_no_other_kdl() {
    let folder = empty();
    let at = |name: &str| folder.path().join(name);
    fleetctl(folder.path(), &["init", "--name", "small"]).expect(0);
    let kdl = fs::read_to_string(at("fleet.kdl")).expect("fleet.kdl");
    fs::write(at("fleet.kdl"), kdl + "include \"more.fleet\"\n").expect("a file");
    fs::write(at("more.fleet"), "// nothing   yet\n\n\n\n// but soon\n").expect("a file");
    let example = "settings   { on true }\n"; // KDL 1
    fs::write(at("templates/skills/people/example.kdl"), example).expect("a file");
    fleetctl(folder.path(), &["fmt", "--check"]).expect(1).says("more.fleet would change");
    fleetctl(folder.path(), &["fmt"]).expect(0);
    fleetctl(folder.path(), &["fmt", "--check"]).expect(0);
    assert_eq!(fs::read_to_string(at("templates/skills/people/example.kdl")).expect("a file"), example);
}

#[test]
fn a_lock_that_cannot_be_read_hides_nothing_and_is_written_anew() {
    let folder = empty();
    let at = |name: &str| folder.path().join(name);
    let kdl = "fleet \"tiny\" domain=\"tiny.test\"\nimages { image \"homeserver\" { copy \"fleet.kdl\" to=\"/x\" } }\n\
        environment \"local\" { target \"docker\"; network azs=2 }\n";
    fs::write(at("fleet.kdl"), kdl).expect("a file");
    let broken = "{\n  \"schema\": 1,\n  \"bases\": 5\n}\n";
    fs::write(at("fleet.lock"), broken).expect("a file");
    let output = fleetctl(folder.path(), &["check"]);
    output.expect(1).says("fleet::images::lock-syntax").says("[fleet.lock:3:").says("fleet::environment::no-effect");
    // Also beside mistakes in fleet.kdl.
    fs::write(at("fleet.kdl"), kdl.replace("target", "tarjet")).expect("a file");
    fleetctl(folder.path(), &["check"]).expect(1).says("[fleet.lock:3:").says("fleet::language::unknown-node");
    fs::write(at("fleet.kdl"), kdl).expect("a file");
    fleetctl(folder.path(), &["lock", "--only", "image/homeserver"]).expect(1).says("fleet::images::lock-syntax");
    assert_eq!(fs::read_to_string(at("fleet.lock")).expect("a file"), broken);
    fs::write(at("fleet.lock"), "{\"schema\": 99}\n").expect("a file");
    fleetctl(folder.path(), &["lock"]).expect(1).says("schema 99");
    fs::write(at("fleet.lock"), broken).expect("a file");
    fleetctl(folder.path(), &["lock"]).expect(0).says("fleet.lock written");
    fleetctl(folder.path(), &["check"]).expect(0);
}

#[test]
fn what_a_containerfile_starts_from_is_pinned_or_the_lock_does_not_fit() {
    let folder = empty();
    let at = |name: &str| folder.path().join(name);
    let kdl = "fleet \"tiny\" domain=\"tiny.test\"\nimages { image \"homeserver\" { containerfile \"box/Containerfile\" } }\n\
        environment \"local\" { target \"docker\" }\n";
    let containerfile =
        "FROM \\\n  registry.test/a:1 AS one\nRUN <<EOF\nFROM registry.test/b:1\nEOF\nFROM One\nRUN true\n";
    fs::create_dir(at("box")).expect("a folder");
    fs::write(at("box/Containerfile"), containerfile).expect("a file");
    fs::write(at("fleet.kdl"), kdl).expect("a file");
    fleetctl(folder.path(), &["lock", "--check"]).expect(1).says("registry.test/a:1");
    let pin = format!("{{\"digest\": \"sha256:{}\"}}", "ab".repeat(32));
    let lock = format!(
        "{{\"schema\": 1, \"bases\": {{\"registry.test/a:1\": {{\"linux/amd64\": {pin}, \"linux/arm64\": {pin}}}}}}}"
    );
    fs::write(at("fleet.lock"), lock).expect("a file");
    fleetctl(folder.path(), &["lock", "--check"]).expect(0).says("fleet.lock fits");
    fs::write(at("box/Containerfile"), "ARG V=1\nFROM registry.test/a:$V\nRUN true\n").expect("a file");
    fleetctl(folder.path(), &["lock"]).expect(1).says("fleet::images::unpinned").says("box/Containerfile:2");
}

#[test]
fn what_is_damaged_is_named_with_a_remedy() {
    let folder = empty();
    let at = |name: &str| folder.path().join(name);
    fleetctl(folder.path(), &["init", "--name", "small"]).expect(0);
    fs::write(at("fleet.lock"), b"\xff\xfe").expect("a file");
    fleetctl(folder.path(), &["check"])
        .expect(1)
        .says("fleet::images::lock-syntax")
        .says("fleetctl lock")
        .says("1 error ");
    fs::write(at("fleet.lock"), "{\"schema\": 1, \"deb").expect("a file");
    fleetctl(folder.path(), &["check"]).expect(1).says("[fleet.lock:1:").says("fleetctl lock").says("1 error ");
    fleetctl(folder.path(), &["plan", "--offline"]).expect(1).says("fleet::images::lock-syntax");
    fs::remove_file(at("fleet.lock")).expect("a file");
    fleetctl(folder.path(), &["check"]).expect(0).says("fleet::images::not-locked");
    fleetctl(folder.path(), &["plan", "--offline"]).expect(1).says("fleet::images::not-locked");
    fs::write(at(".fleet/version"), b"\xff\x00").expect("a file");
    fleetctl(folder.path(), &["check"]).expect(1).says(".fleet").says("move the folder away");
    fs::remove_dir_all(at(".fleet")).expect("a folder");
    fs::write(at(".fleet"), "").expect("a file");
    fleetctl(folder.path(), &["check"]).expect(1).says(".fleet").says("move it away");
}
