//! The fuzz target for `fleet.kdl`: mutates whole projects for FLEET_FUZZ_SECONDS (5 when not said) and fails on the
//! first panic, hang or broken promise, with the seed that shows it again (FLEET_FUZZ_SEED=<seed> runs that one).
//!
//! Mutations know the language: they move lines between projects, exchange texts for texts that collide with others,
//! numbers for extremes, and unbalance braces. An ordinary test, so that it runs with the stable toolchain.

use std::path::PathBuf;

use fleet_fuzz::{Random, fuzz};
use fleet_model::{FormatError, Severity, check, format, resolve};

#[expect(dead_code, reason = "shared with the other tests, which use all of it")]
#[path = "it/project.rs"]
mod project;

const TEXTS: &[&str] = &[
    "\"\"",
    "\"ceo\"",
    "\"*\"",
    "\"maria.silva\"",
    "\"ana.costa\"",
    "\"Sales\"",
    "\"FP&A\"",
    "\"{team}\"",
    "\"{department}\"",
    "\"docker\"",
    "\"aws\"",
    "\"local\"",
    "\"agent\"",
    "\"homeserver\"",
    "\"5m\"",
    "\"off\"",
    "\"../x\"",
    "\"people.csv\"",
    "\"more.kdl\"",
    "\"fleet.kdl\"",
    "\"templates\"",
    "\"ollama/llama3.1\"",
    "\"vp,ic\"",
    "\"日本\"",
    "\"\\u{10FFFF}\"",
    "#true",
    "#null",
    "0",
    "-1",
    "18446744073709551616",
    "1.5",
    "0xffff_ffff",
    "\"scratch\"",
    "\"localhost/a:1\"",
    "\"\"\"\n  x\n  \"\"\"",
];
const SIGNS: &[&str] =
    &["{", "}", "\"", ";", "\n", "/-", "/*", "*/", "\\\n", "(", ")", "=", "#", "\u{feff}", "\r", "\u{2028}", " "];
const ROWS: &[&str] = &[
    "ana.costa,Ana,VP,vp,Sales,North,maria.silva",
    ",,,,,,",
    "x",
    "\"",
    "rui.lima,,,ic,FP&A,&,ana.costa",
    "a,b,c,d,e,f,g,h",
    "eva,,,ceo,,,eva",
    "maria.silva,,,ic,Sales,,rui.lima",
];

/// Every project of the golden diagnostics, and the examples of the language reference.
fn corpus() -> Vec<String> {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for entry in std::fs::read_dir(here.join("tests/diagnostics")).expect("tests/diagnostics") {
        all.extend(std::fs::read_to_string(entry.expect("an entry").path().join("fleet.kdl")).ok());
    }
    let reference = std::fs::read_to_string(here.join("../../../docs/reference/language.md")).expect("language.md");
    all.extend(reference.split("```kdl\n").skip(1).filter_map(|block| block.split("```").next()).map(str::to_owned));
    all.sort();
    assert!(all.len() > 60, "a corpus of {} projects", all.len());
    all
}

/// A place between two characters.
fn boundary(random: &mut Random, text: &str) -> usize {
    text.floor_char_boundary(random.below(text.len() + 1))
}

fn word<'w>(random: &mut Random, from: &[&'w str]) -> &'w str {
    from[random.below(from.len())]
}

fn mutate(random: &mut Random, text: &mut String, other: &str) {
    let at = boundary(random, text);
    match random.below(9) {
        0 => text.insert_str(at, word(random, SIGNS)),
        1 => text.insert_str(at, word(random, TEXTS)),
        2 => exchange_text(random, text),
        3 => {
            let lines: Vec<&str> = other.lines().collect();
            let line = lines.get(random.below(lines.len())).copied().unwrap_or_default();
            let start = text[..at].rfind('\n').map_or(0, |newline| newline + 1);
            text.insert_str(start, &format!("{line}\n"));
        }
        4 => {
            let end = text.ceil_char_boundary((at + random.below(40)).min(text.len()));
            text.replace_range(at..end, "");
        }
        5 => {
            let end = text.ceil_char_boundary((at + random.below(200)).min(text.len()));
            let copied = text[at..end].to_owned();
            text.insert_str(at, &copied);
        }
        6 => {
            let end = text.ceil_char_boundary((at + 1).min(text.len()));
            let byte = char::from(random.below(128) as u8);
            text.replace_range(at..end, &byte.to_string());
        }
        7 => text.push_str(other),
        _ => text.truncate(at),
    }
}

/// Exchanges one quoted text for another word of the language.
fn exchange_text(random: &mut Random, text: &mut String) {
    let quotes: Vec<usize> = text.match_indices('"').map(|(at, _)| at).collect();
    if quotes.len() < 2 {
        return;
    }
    let first = random.below(quotes.len() - 1);
    text.replace_range(quotes[first]..=quotes[first + 1], word(random, TEXTS));
}

/// One project and everything that must hold for it.
fn one(seed: u64, corpus: &[String]) -> String {
    let mut random = Random(seed);
    let mut text = corpus[random.below(corpus.len())].clone();
    for _ in 0..=random.below(6) {
        let other = &corpus[random.below(corpus.len())];
        mutate(&mut random, &mut text, other);
    }
    let mut rows = "id,name,title,level,department,team,reports_to\n".to_owned();
    for _ in 0..random.below(4) {
        rows.push_str(word(&mut random, ROWS));
        rows.push('\n');
    }
    let included = if random.below(4) == 0 { "include \"fleet.kdl\"\n" } else { "org { }\n" };
    let files = [
        ("fleet.kdl", text.as_str()),
        ("more.kdl", included),
        ("people.csv", &rows),
        ("templates/roles/vp.md", "Report to #all-employees."),
        ("templates/roles/ic.md", "x"),
        ("templates/skills/people/SKILL.md", "x"),
    ];
    let checked = check(&project::path("fleet.kdl"), &project::tree(&files));
    project::render(&checked);
    let wrong = checked.diagnostics.iter().any(|one| one.severity == Severity::Error);
    assert_eq!(checked.model.is_none(), wrong, "a model exactly when there is no error");
    if let Some(model) = &checked.model {
        for name in model.environments.keys() {
            resolve(model, name).expect("what was checked can be resolved");
        }
    }
    match format(&text) {
        Ok(once) => {
            assert_eq!(format(&once).expect("what was formatted parses"), once, "formatting twice is formatting once");
        }
        Err(FormatError::WouldChange) => panic!("formatting would have changed the meaning of:\n{text}"),
        Err(FormatError::Syntax(_) | FormatError::TooDeep) => {}
    }
    text
}

#[test]
fn fuzz_fleet_kdl() {
    let corpus = corpus();
    fuzz("projects", None, |seed| drop(one(seed, &corpus)));
}
