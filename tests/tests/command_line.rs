//! The program as a person meets it: wrong input is named with a remedy, and nothing is touched.

use std::{fs, path::Path};

use fleet_tests::{
    Fleet, Output,
    run::{self, Running},
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
    fleet.run(&["lock", "--only", "image/nothing"]).expect(64).says("image/agent");
    fleet.run(&["explain", "no::such::code"]).expect(64);
    let unasked = fleet.run(&["apply"]);
    unasked.expect(64).says("--auto-approve").says("nothing was changed");
    assert_eq!(fleet.ids().len(), 0);
    fleet.run(&["destroy", "--purge", "--auto-approve"]).expect(0).says("nothing is there");
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
