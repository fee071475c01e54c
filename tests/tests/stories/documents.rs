//! What is written for people: every link leads somewhere, and every command and exit code has its place.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use fleet_tests::sources::workspace;

/// Every page of the repository.
fn pages() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting: Vec<PathBuf> =
        ["README.md", "CHANGELOG.md", "docs", "crates", "tests", "images", "environments", "templates"]
            .map(|name| workspace().join(name))
            .into();
    while let Some(path) = waiting.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("a folder of the repository");
            waiting
                .extend(entries.map(|entry| entry.expect("an entry").path()).filter(|path| !path.ends_with("target")));
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
    found
}

/// Targets of `[text](target)`, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut fenced = false;
    let prose: Vec<&str> = text
        .lines()
        .filter(|line| {
            let fence = line.trim_start().starts_with("```");
            fenced ^= fence;
            !fenced && !fence
        })
        .collect();
    let prose = prose.join("\n");
    prose.match_indices("](").filter_map(|(at, _)| Some(prose[at + 2..].split_once(')')?.0.to_owned())).collect()
}

/// The anchors of a page, as GitHub makes them of its headings.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    let anchor = |heading: &str| {
        let kept =
            heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c)).collect::<String>();
        kept.replace(' ', "-")
    };
    headings.map(anchor).collect()
}

fn broken(page: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { page.to_owned() } else { page.parent().expect("a folder").join(file) };
    let name = page.strip_prefix(workspace()).unwrap_or(page).display().to_string();
    if !path.exists() {
        return Some(format!("{name}: {target} leads nowhere"));
    }
    let known = || anchors(&fs::read_to_string(&path).expect("a page")).contains(anchor);
    (!anchor.is_empty() && !known()).then(|| format!("{name}: {target} has no such heading"))
}

#[test]
fn every_link_of_every_page_leads_somewhere() {
    let pages = pages();
    assert!(pages.len() > 20, "only {} pages", pages.len());
    let mut found = Vec::new();
    let mut count = 0;
    for page in &pages {
        let text = fs::read_to_string(page).expect("a page");
        let links = links(&text);
        count += links.len();
        found.extend(links.iter().filter_map(|target| broken(page, target)));
    }
    assert!(count > 30, "only {count} links");
    assert!(found.is_empty(), "{}", found.join("\n"));
    assert_eq!(broken(&pages[0], "no/such/page.md").map(|text| text.contains("leads nowhere")), Some(true));
    assert_eq!(links("[a](b.md) and ```\n[c](d)\n```").len(), 1 + 1, "a fence begins its line");
}

#[test]
fn every_exit_code_is_documented_and_no_other() {
    let source = fs::read_to_string(workspace().join("crates/bin/fleetctl/src/exit.rs")).expect("exit.rs");
    let page = fs::read_to_string(workspace().join("docs/reference/exit-codes.md")).expect("exit-codes.md");
    let numbers =
        |text: &str| -> BTreeSet<u8> { text.split(',').filter_map(|part| part.trim().parse().ok()).collect() };
    let used: BTreeSet<u8> =
        source.lines().filter_map(|line| line.trim().strip_suffix(',')?.split_once(" = ")?.1.parse().ok()).collect();
    let told: BTreeSet<u8> =
        page.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()).flat_map(numbers).collect();
    assert!(used.len() >= 13, "{used:?}");
    // 7 is kept for a command that is to come.
    assert_eq!(told.difference(&used).copied().collect::<Vec<u8>>(), [7]);
    assert_eq!(used.difference(&told).count(), 0);
}
