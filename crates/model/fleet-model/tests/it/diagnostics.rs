//! Every diagnostic has a folder under `tests/diagnostics` with a project that shows it and the report in
//! `expected.txt`, to be read like prose.

use std::{collections::BTreeSet, fs, path::PathBuf};

use fleet_model::{codes, explain, late, nearest_code};

use crate::project;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/diagnostics")
}

/// `fleet::org::no-manager` is shown by `org.no-manager`, and by `org.no-manager.<more>`.
fn folders() -> Vec<(String, PathBuf)> {
    let mut all: Vec<(String, PathBuf)> = fs::read_dir(root())
        .expect("tests/diagnostics")
        .map(|entry| entry.expect("an entry").path())
        .map(|path| (path.file_name().expect("a name").to_string_lossy().into_owned(), path))
        .collect();
    all.sort();
    all
}

fn code_of(folder: &str) -> String {
    let parts: Vec<&str> = folder.split('.').take(2).collect();
    format!("fleet::{}", parts.join("::"))
}

#[test]
fn every_case_reports_what_its_golden_file_says() {
    let mut wrong = Vec::new();
    for (name, folder) in folders() {
        let checked = project::check_folder(&folder);
        let code = code_of(&name);
        if !checked.diagnostics.iter().any(|one| one.code == code) {
            wrong.push(format!("{name} does not report {code}, but:\n{}", project::render(&checked)));
        }
        if let Err(difference) = project::golden(&folder.join("expected.txt"), &project::render(&checked)) {
            wrong.push(difference);
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_code_has_a_case_and_every_case_a_code() {
    let shown: BTreeSet<String> = folders().iter().map(|(name, _)| code_of(name)).collect();
    // What later stages find has its cases in tests/tests/stories/late_diagnostics.rs.
    let known = codes().iter().map(|one| one.code).filter(|code| !late::ALL.contains(code));
    let known: BTreeSet<String> = known.map(str::to_owned).collect();
    assert_eq!(known.difference(&shown).collect::<Vec<_>>(), Vec::<&String>::new(), "codes without a case");
    assert_eq!(shown.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "cases without a code");
}

#[test]
fn every_diagnostic_says_how_to_mend_it() {
    for (name, folder) in folders() {
        for one in project::check_folder(&folder).diagnostics {
            assert!(one.help.as_ref().is_some_and(|help| !help.is_empty()), "{name}: {} has no help", one.message);
        }
    }
}

#[test]
fn every_code_is_explained_once_and_found_without_its_prefix() {
    let names: BTreeSet<&str> = codes().iter().map(|one| one.code).collect();
    assert_eq!(names.len(), codes().len());
    for one in codes() {
        assert_eq!(explain(one.code), Some(one));
        assert_eq!(explain(one.code.trim_start_matches("fleet::")), Some(one));
        assert!(one.text.contains("```"), "{} shows no example", one.code);
    }
    assert_eq!(explain("fleet::no::such"), None);
    assert_eq!(explain("unknown-word").map(|one| one.code), Some("fleet::language::unknown-word"));
    assert_eq!(nearest_code("unkown-wrd"), Some("fleet::language::unknown-word"));
    assert_eq!(nearest_code("fleet::org::reporting-cicle"), Some("fleet::org::reporting-cycle"));
    assert_eq!(nearest_code("fleet::entirely::different"), None);
}

/// No code is written in the source that `codes()` does not know: they all come from one file.
#[test]
fn codes_are_written_in_one_place() {
    let source = include_str!("../../src/code.rs");
    let written: BTreeSet<&str> = source.split('"').filter(|text| text.starts_with("fleet::")).collect();
    let known: BTreeSet<&str> = codes().iter().map(|one| one.code).collect();
    assert_eq!(written, known);
}

#[test]
fn what_may_be_a_secret_is_never_shown() {
    for (name, secret) in [
        ("models.not-a-secret-name", "sk-live-1234567890"),
        ("models.not-a-secret-name.starred-out-beside-others", "sk-live-1234567890"),
        ("models.bad-url", "hunter2hunter2"),
        ("images.fetch-url", "hunter2hunter2"),
        ("environment.bad-registry", "hunter2hunter2"),
    ] {
        let folder = root().join(name);
        let text = fs::read_to_string(folder.join("fleet.kdl")).expect("a project");
        assert!(text.contains(secret), "{name} should hold {secret}");
        let shown = project::render(&project::check_folder(&folder));
        let pieces = secret.as_bytes().windows(8).map(|piece| String::from_utf8_lossy(piece).into_owned());
        for piece in pieces {
            assert!(!shown.contains(&piece), "{name} shows {piece}:\n{shown}");
        }
    }
}
