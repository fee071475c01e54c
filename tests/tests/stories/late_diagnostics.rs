//! Every diagnostic of the later stages, which render templates and read the lock, as the built program shows it: a folder
//! of `fixtures/late` laid over the project in `base`, and the report in `expected.txt`, to be read like prose.
//! `FLEET_BLESS=1` accepts what is now.

use std::{collections::BTreeSet, env, fs, path::PathBuf};

use fleet_model::late;
use fleet_tests::{
    fleet::copy_folder,
    run::{self, Running},
    sources::workspace,
};

fn root() -> PathBuf {
    workspace().join("tests/fixtures/late")
}

/// Names of the folders: `images.not-locked` shows `fleet::images::not-locked`.
fn cases() -> BTreeSet<String> {
    let entries = fs::read_dir(root()).expect("tests/fixtures/late");
    let names = entries.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    names.filter(|name| name != "base").collect()
}

fn code_of(case: &str) -> String {
    format!("fleet::{}", case.replace('.', "::"))
}

/// What `check` shows of a case, without the line that says how many mistakes there are.
fn report(case: &str) -> String {
    let folder = tempfile::tempdir().expect("a folder");
    copy_folder(&root().join("base"), folder.path());
    copy_folder(&root().join(case), folder.path());
    let mut command = run::command(folder.path(), &folder.path().join("home"));
    let output = Running::start(command.arg("check")).wait();
    let shown = output.stderr.split("\nerror: ").next().unwrap_or_default();
    let lines: Vec<&str> = shown.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n").trim_end())
}

#[test]
fn every_case_reports_what_its_golden_file_says() {
    let mut wrong = Vec::new();
    for case in cases() {
        let (shown, file) = (report(&case), root().join(&case).join("expected.txt"));
        if !shown.contains(&code_of(&case)) {
            wrong.push(format!("{case} does not report {}, but:\n{shown}", code_of(&case)));
        }
        if env::var_os("FLEET_BLESS").is_some() {
            fs::write(&file, &shown).expect("a file");
        }
        if fs::read_to_string(&file).unwrap_or_default() != shown {
            wrong.push(format!("{} differs; FLEET_BLESS=1 accepts what is now:\n{shown}", file.display()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

#[test]
fn every_late_code_has_a_case_and_every_case_a_code() {
    let shown: BTreeSet<String> = cases().iter().map(|case| code_of(case)).collect();
    let known: BTreeSet<String> = late::ALL.iter().map(|code| (*code).to_owned()).collect();
    assert_eq!(shown, known);
}
