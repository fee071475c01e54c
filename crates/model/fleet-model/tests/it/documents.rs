//! Documents: the reference of diagnostics is what the tool explains; examples of the language reference pass.

use std::{fmt::Write, path::PathBuf};

use fleet_model::codes;

use crate::project;

fn docs() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../docs/reference")
}

#[test]
fn the_reference_of_diagnostics_is_what_explain_says() {
    let mut text = String::from(
        "# Diagnostics\n\nWhat `fleetctl check` can find, as `fleetctl explain CODE` tells it. Made from the source by a test\n\
         (`FLEET_BLESS=1 cargo test --release -p fleet-model`); do not edit.\n",
    );
    for one in codes() {
        write!(text, "\n## {}\n\n**{}.** {}\n", one.code, one.title, one.text).expect("a String takes everything");
    }
    project::golden(&docs().join("diagnostics.md"), &text).unwrap_or_else(|error| panic!("{error}"));
}

#[test]
fn the_fleet_of_this_repository_passes_check() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..");
    let checked = project::check_folder(&root);
    assert!(checked.diagnostics.is_empty(), "{}", project::render(&checked));
    let model = checked.model.expect("no diagnostics, so a model");
    for name in model.environments.keys() {
        fleet_model::resolve(&model, name).unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Each ```kdl block of the language reference is a whole project, or a part of one named by its first comment.
#[test]
fn every_example_of_the_language_reference_passes_check() {
    let text = std::fs::read_to_string(docs().join("language.md")).expect("docs/reference/language.md");
    let mut examples = 0;
    for block in text.split("```kdl\n").skip(1) {
        let example = block.split("```").next().expect("split yields one");
        let whole =
            if example.contains("fleet \"") { example.to_owned() } else { format!("{SURROUNDINGS}\n{example}") };
        let people =
            "id,name,title,level,department,team,reports_to\nnew.hire,New Hire,,ic,Sales,Enterprise,ana.costa\n";
        let checked = project::check_texts(&[
            ("fleet.kdl", &whole),
            ("more.kdl", "// what differs\n"),
            ("org/people.csv", people),
            ("templates/skills/people/SKILL.md", "x"),
            ("templates/skills/matrix-messaging/SKILL.md", "x"),
            ("templates/roles/ceo.md", "x"),
            ("templates/roles/vp.md", "x"),
            ("templates/roles/director.md", "x"),
            ("templates/roles/ic.md", "x"),
            ("templates/roles/founder.md", "x"),
            ("images/web/config.json", "{}"),
            ("images/tools/Containerfile", "ARG BASE\nFROM ${BASE}\nRUN true\n"),
        ]);
        assert!(checked.diagnostics.is_empty(), "{example}\n{}", project::render(&checked));
        examples += 1;
    }
    assert!(examples >= 6, "only {examples} examples");
}

/// What a partial example may refer to.
const SURROUNDINGS: &str = "fleet \"tiny\" domain=\"tiny.test\"";
