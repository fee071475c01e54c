//! The directory that ships: its shape, and that it is what the generator prints.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

fn rows() -> Vec<Vec<String>> {
    let mut reader = csv::Reader::from_path(root().join("org/people.csv")).expect("org/people.csv");
    reader.records().map(|row| row.expect("a row").iter().map(str::to_owned).collect()).collect()
}

fn counted(column: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for row in rows() {
        *counts.entry(row[column].clone()).or_insert(0) += 1;
    }
    counts
}

#[test]
fn the_company_has_the_shape_of_the_one_it_replaces() {
    let levels = [("ceo", 1), ("vp", 9), ("director", 28), ("manager", 156), ("ic", 807)];
    assert_eq!(counted(3), levels.map(|(level, n)| (level.to_owned(), n)).into());
    let departments = [
        ("", 1),
        ("Customer Success", 70),
        ("Engineering", 350),
        ("Finance", 50),
        ("Legal", 30),
        ("Marketing", 100),
        ("Operations", 80),
        ("People", 40),
        ("Product", 80),
        ("Sales", 200),
    ];
    assert_eq!(counted(4), departments.map(|(name, n)| (name.to_owned(), n)).into());
    assert_eq!(counted(0).len(), 1001, "ids are unique");
}

#[test]
fn nobody_has_more_than_the_people_that_a_manager_can_lead() {
    let mut reports = counted(6);
    reports.remove("");
    let managers: Vec<String> =
        rows().into_iter().filter(|row| row[3] == "manager").map(|row| row[0].clone()).collect();
    assert!(managers.iter().all(|id| reports.get(id).is_some_and(|n| *n >= 5)), "every manager leads five or more");
}

#[test]
fn the_directory_is_what_the_generator_prints() {
    // Cargo builds examples before it runs integration tests, beside them.
    let test = std::env::current_exe().expect("this test's path");
    let example = test.ancestors().nth(2).expect("target/release").join("examples/anycompany");
    let printed = Command::new(&example).output().unwrap_or_else(|error| panic!("{}: {error}", example.display()));
    let shipped = fs::read(root().join("org/people.csv")).expect("org/people.csv");
    assert!(printed.stdout == shipped, "org/people.csv is not what the generator prints");
}
