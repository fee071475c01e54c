//! What the program writes where, and that nothing about its streams ends a run: readers that go away, disks that are full,
//! signals, colours, formats, GitHub Actions. None of it needs a container engine.

use std::{
    fs::{self, File, OpenOptions},
    net::TcpListener,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use fleet_tests::{
    Output,
    run::{self, Running, eventually},
};
use serde_json::Value;
use tempfile::TempDir;

/// A small project as `init` makes it.
fn project() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    fleetctl(folder.path(), &["init", "--name", "small"]).expect(0);
    folder
}

fn command(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = run::command(folder, &folder.join("home"));
    command.args(arguments);
    command
}

fn fleetctl(folder: &Path, arguments: &[&str]) -> Output {
    Running::start(&mut command(folder, arguments)).wait()
}

fn edit(folder: &Path, from: &str, to: &str) {
    let path = folder.join("fleet.kdl");
    let text = fs::read_to_string(&path).expect("fleet.kdl");
    assert!(text.contains(from), "{text}");
    fs::write(path, text.replace(from, to)).expect("fleet.kdl");
}

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"))).collect()
}

fn full() -> File {
    OpenOptions::new().write(true).open("/dev/full").expect("/dev/full")
}

/// A pipe that nobody reads any more.
fn abandoned() -> Stdio {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    writer.into()
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let project = project();
    for arguments in
        [&["show"][..], &["graph"], &["plan", "--offline"], &["completions", "bash"], &["man"], &["--help"]]
    {
        let status = command(project.path(), arguments).stdout(abandoned()).status().expect("it runs");
        assert_eq!(status.code(), Some(0), "{arguments:?}");
    }
    edit(project.path(), "level=\"ic\"", "level=\"icc\"");
    for arguments in [&["check"][..], &["plan"], &["plan", "--no-such-option"]] {
        let status = command(project.path(), arguments).stderr(abandoned()).status().expect("it runs");
        assert!(matches!(status.code(), Some(1 | 64)), "{arguments:?} ended with {status}");
    }
}

#[test]
fn output_that_cannot_be_written_is_a_failure_with_a_reason() {
    let project = project();
    for arguments in [&["show"][..], &["plan", "--offline", "--format", "json"], &["completions", "zsh"]] {
        let output = command(project.path(), arguments).stdout(full()).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {stderr}");
        assert!(stderr.contains("output could not be written"), "{stderr}");
    }
    edit(project.path(), "level=\"ic\"", "level=\"icc\"");
    let status = command(project.path(), &["check"]).stderr(full()).status().expect("it runs");
    assert_eq!(status.code(), Some(1), "nobody can be told, and it still ends with its own code");
}

#[test]
fn an_event_stream_begins_with_a_version_and_ends_with_a_summary() {
    let project = project();
    for (arguments, code, outcome) in [
        (&["check"][..], 0, "done"),
        (&["plan", "--offline", "--detailed-exitcode"], 2, "changes-present"),
        (&["plan", "-e", "moon"], 64, "usage"),
        (&["plan", "--offline", "-o", "nowhere/a.plan"], 1, "failed"),
    ] {
        fleetctl(project.path(), &[arguments, &["--events", "e.ndjson"]].concat()).expect(code);
        let events = lines(&fs::read_to_string(project.path().join("e.ndjson")).expect("events"));
        assert_eq!((&events[0]["event"], &events[0]["schema"]), (&"begin".into(), &1.into()));
        let last = events.last().expect("a last line");
        assert_eq!(
            (&last["event"], &last["exit"], &last["outcome"]),
            (&"summary".into(), &code.into(), &outcome.into())
        );
        assert_eq!(events.iter().filter(|event| event["event"] == "summary").count(), 1);
    }
}

#[test]
fn events_on_stdout_are_alone_there() {
    let project = project();
    let output = fleetctl(project.path(), &["plan", "--offline", "--events", "-"]);
    output.expect(0);
    let events = lines(&output.stdout);
    assert_eq!(events.first().map(|event| &event["event"]), Some(&"begin".into()));
    assert_eq!(events.last().map(|event| &event["outcome"]), Some(&"done".into()));
    assert!(output.stderr.contains("agent/first.agent"), "what people read goes to stderr: {}", output.stderr);
    fleetctl(project.path(), &["plan", "--offline", "--events", "-", "--format", "json"]).expect(64).says("--events");
}

#[test]
fn a_signal_ends_the_event_stream_too() {
    let project = project();
    // An engine that takes the call and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = format!("tcp://{}", silent.local_addr().expect("its address"));
    for (signal, code, outcome) in [("TERM", 143, "terminated"), ("INT", 130, "interrupted")] {
        let file = format!("{signal}.ndjson");
        let running = Running::start(command(project.path(), &["plan", "--events", &file]).env("DOCKER_HOST", &host));
        let begun = || fs::read_to_string(project.path().join(&file)).is_ok_and(|text| text.contains("begin"));
        eventually("it begins", Duration::from_secs(30), begun);
        std::thread::sleep(Duration::from_millis(500));
        running.signal(signal);
        running.wait().expect(code);
        let events = lines(&fs::read_to_string(project.path().join(&file)).expect("events"));
        assert_eq!(events.last().map(|event| &event["outcome"]), Some(&outcome.into()));
    }
}

#[test]
fn colour_follows_the_conventions() {
    let project = project();
    let coloured = |variables: &[(&str, &str)], arguments: &[&str]| {
        let mut command = command(project.path(), &[&["plan", "--offline"], arguments].concat());
        let output = Running::start(command.env_remove("NO_COLOR").envs(variables.iter().copied())).wait();
        output.expect(0);
        output.stdout.contains('\x1b')
    };
    assert!(!coloured(&[], &[]), "no terminal");
    assert!(coloured(&[("CLICOLOR_FORCE", "1")], &[]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "0")], &[]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "1")], &[]));
    assert!(!coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "0")], &[]), "any value of NO_COLOR counts");
    assert!(coloured(&[("CLICOLOR_FORCE", "1"), ("NO_COLOR", "")], &[]), "an empty one does not");
    assert!(coloured(&[("NO_COLOR", "1")], &["--color", "always"]), "the option wins");
    assert!(!coloured(&[("CLICOLOR_FORCE", "1")], &["--color", "never"]));
}

#[test]
fn a_format_that_a_command_does_not_have_is_refused() {
    let project = project();
    fleetctl(project.path(), &["plan", "--offline", "--format", "dot"]).expect(64).says("graph");
    fleetctl(project.path(), &["password", "you", "--format", "json"]).expect(64);
    for arguments in [
        &["check"][..],
        &["fmt", "--check"],
        &["show"],
        &["graph"],
        &["plan", "--offline"],
        &["diff", "--offline"],
        &["history"],
        &["why", "agent/first.agent"],
        &["lock", "--check"],
        &["org", "pick", "--department", "Engineering", "--vp", "0"],
        &["gc"],
        &["explain"],
        &["explain", "unknown-node"],
    ] {
        let output = fleetctl(project.path(), &[arguments, &["--format", "json"]].concat());
        output.expect(0);
        assert_eq!(output.json()["schema"], 1, "{arguments:?}");
    }
}

#[test]
fn check_lists_mistakes_for_programs() {
    let project = project();
    edit(project.path(), "level=\"ic\"", "level=\"icc\"");
    let output = fleetctl(project.path(), &["check", "--format", "json"]);
    output.expect(1);
    let found = output.json();
    assert_eq!(found["right"], false);
    let one = &found["diagnostics"][0];
    assert_eq!((&one["code"], &one["severity"]), (&"fleet::language::unknown-word".into(), &"error".into()));
    assert_eq!((&one["file"], &one["places"][0]["line"]), (&"fleet.kdl".into(), &one["line"]));
    assert!(one["help"].as_str().is_some_and(|help| help.contains("ic")));
}

#[test]
fn a_failure_is_data_for_programs_too() {
    let project = project();
    let output = fleetctl(project.path(), &["plan", "-e", "moon", "--format", "json"]);
    output.expect(64);
    let said = output.json();
    assert_eq!(
        (&said["schema"], &said["error"]["exit"], &said["error"]["outcome"]),
        (&1.into(), &64.into(), &"usage".into())
    );
    assert!(said["error"]["causes"][0].as_str().is_some_and(|text| text.contains("moon")), "{said}");
    assert!(output.stderr.contains("moon"), "people read the same: {}", output.stderr);
    // One value, never two: `check` has said everything already.
    edit(project.path(), "level=\"ic\"", "level=\"icc\"");
    assert_eq!(fleetctl(project.path(), &["check", "--format", "json"]).json()["right"], false);
}

#[test]
fn the_manual_is_a_page_and_one_for_each_command() {
    let folder = TempDir::new().expect("a folder");
    let page = fleetctl(folder.path(), &["man"]);
    page.expect(0);
    for needed in [".TH", "quickstart", "detailed", "explain"] {
        assert!(page.stdout.contains(needed) || needed == "detailed", "{needed}");
    }
    fleetctl(folder.path(), &["man", "plan"]).expect(0).says("detailed");
    fleetctl(folder.path(), &["man", "plam"]).expect(64).says("plam");
}

#[test]
fn github_gets_annotations_a_summary_and_an_output() {
    let project = project();
    let at = |name: &str| project.path().join(name);
    let run = |arguments: &[&str]| {
        let mut command = command(project.path(), arguments);
        let command = command.env("GITHUB_ACTIONS", "true").env("GITHUB_STEP_SUMMARY", at("summary.md"));
        Running::start(command.env("GITHUB_OUTPUT", at("output"))).wait()
    };
    run(&["plan", "--offline"]).expect(0);
    assert!(fs::read_to_string(at("summary.md")).expect("a summary").contains("agent/first.agent"));
    assert_eq!(fs::read_to_string(at("output")).expect("outputs"), "changes=9\n");
    edit(project.path(), "level=\"ic\"", "level=\"icc\"");
    let output = run(&["check"]);
    output.expect(1);
    let annotation = output.stderr.lines().find(|line| line.starts_with("::error ")).expect("an annotation");
    assert!(annotation.starts_with("::error file=fleet.kdl,line="), "{annotation}");
    assert!(annotation.contains("title=fleet%3A%3Alanguage%3A%3Aunknown-word::"), "{annotation}");
    assert!(annotation.contains("%0Ahelp: "), "{annotation}");
}

#[test]
fn a_project_that_cannot_be_written_can_be_looked_at() {
    let project = project();
    // The program and its runtime where somebody else may run them: this test may run as root, which may write anywhere.
    let program = project.path().join("bin/fleetctl");
    fs::create_dir(project.path().join("bin")).expect("a folder");
    fs::copy(run::fleetctl().expect("the program"), &program).expect("a copy");
    for platform in ["linux-amd64", "linux-arm64"] {
        fs::write(project.path().join("bin").join(format!("fleet-agent-{platform}")), "a runtime").expect("a file");
    }
    let nobody = |arguments: &[&str]| {
        let mut command = Command::new(&program);
        command.args(arguments).current_dir(project.path()).env_remove("HOME").env("NO_COLOR", "1");
        if fs::metadata("/proc/self").is_ok_and(|me| std::os::unix::fs::MetadataExt::uid(&me) == 0) {
            command.uid(65_534).gid(65_534);
        }
        Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped())).wait()
    };
    fs::set_permissions(project.path(), fs::Permissions::from_mode(0o555)).expect("permissions");
    let looked_at = |when: &str| {
        for arguments in [&["check"][..], &["show"], &["fmt", "--check"], &["graph"], &["plan", "--offline"]] {
            let output = nobody(arguments);
            assert_eq!(output.code, Some(0), "{when}, {arguments:?}: {}", output.stderr);
        }
    };
    looked_at("without a store");
    nobody(&["plan", "--offline"]).says("cannot be written here");
    fs::set_permissions(project.path(), fs::Permissions::from_mode(0o755)).expect("permissions");
    fleetctl(project.path(), &["check"]).expect(0);
    let unreadable = nobody(&["check"]);
    unreadable.expect(1).says("belongs to somebody else");
    // As on a read-only file system, or in a checkout of a continuous build.
    let store = project.path().join(".fleet");
    Command::new("chmod").args(["-R", "a+rX,a-w"]).arg(&store).status().expect("chmod runs");
    fs::set_permissions(project.path(), fs::Permissions::from_mode(0o555)).expect("permissions");
    looked_at("with one");
    Command::new("chmod").args(["-R", "u+w"]).arg(project.path()).status().expect("chmod runs");
}
