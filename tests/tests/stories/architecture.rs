//! The arrows and the purity of design §9, and the rules of thumb that we hold ourselves to, as tests.
//!
//! Every rule is a function from manifests or sources to sentences, each naming a place and what to do; one test per rule
//! shows that the workspace keeps it and that a small bad sample does not. No rule has a list of exceptions.

use std::collections::BTreeSet;

use fleet_tests::sources::{Dependency, Manifest, Source, functions, manifests, sources, used_paths, words, workspace};

type Any = anyhow::Result<()>;

/// Stages in order; an arrow points from a later to an earlier one or stays within one.
const STAGES: [&str; 6] = ["model", "graph", "plan", "apply", "backend", "bin"];
const PURE: [&str; 3] = ["model", "graph", "plan"];
/// Effects share nouns, not verbs.
const VERBS: [&str; 4] = ["fleet-graph", "fleet-planner", "kdl", "minijinja"];
/// A dependency that is fenced off, and the crates that it belongs to.
const FENCES: [(&str, &[&str]); 9] = [
    ("aws-config", &["fleet-aws"]),
    ("bollard", &["fleet-docker"]),
    ("ruma", &["fleet-matrix", "fleet-agent"]),
    ("debian-packaging", &["fleet-packages"]),
    ("docker_credential", &["fleet-registry"]),
    ("object_store", &["fleet-store", "fleet-manager", "fleet-aws"]),
    ("kdl", &["fleet-model"]),
    ("minijinja", &["fleet-graph"]),
    ("clap", &["fleetctl"]),
];
/// What a pure crate has no use for: each brings async, files, the clock or the network.
const IMPURE: [&str; 12] = [
    "async-trait",
    "fs4",
    "futures",
    "http",
    "indicatif",
    "object_store",
    "reqwest",
    "rustix",
    "tempfile",
    "terminal_size",
    "tokio",
    "tokio-util",
];
const IMPURE_PATHS: [&str; 12] = [
    "std::env",
    "std::fs",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "tokio",
];
const IMPURE_WORDS: [&str; 7] = ["HashMap", "HashSet", "Instant", "RandomState", "SystemTime", "async", "tokio"];
const PRINTING: [&str; 5] = ["dbg!", "eprint!", "eprintln!", "print!", "println!"];
const UNFINISHED: [&str; 3] = [".unwrap()", "todo!", "unimplemented!"];

fn stage_number(stage: &str) -> Option<usize> {
    STAGES.iter().position(|known| *known == stage)
}

/// Every dependency with the manifest that has it.
fn arrows(manifests: &[Manifest]) -> impl Iterator<Item = (&Manifest, &Dependency)> {
    manifests.iter().flat_map(|manifest| manifest.dependencies.iter().map(move |dependency| (manifest, dependency)))
}

fn stage_of<'a>(manifests: &'a [Manifest], name: &str) -> Option<&'a str> {
    manifests.iter().find(|manifest| manifest.name == name).map(|manifest| manifest.stage.as_str())
}

fn wrong_arrows(manifests: &[Manifest]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, dependency) in arrows(manifests) {
        let Some(to) = stage_of(manifests, &dependency.name) else { continue };
        let allowed = match (stage_number(&from.stage), stage_number(to)) {
            // Test helpers see everything, and are seen by tests only.
            (None, Some(_)) => true,
            (_, None) => dependency.only_tests() || stage_number(&from.stage).is_none(),
            (Some(from), Some(to)) => to <= from,
        };
        if !allowed {
            wrong.push(format!(
                "{} ({}) depends on {} ({to}): arrows point from later to earlier stages, {}; move what is shared to the earlier one",
                from.name, from.stage, dependency.name, STAGES.join(" < ")
            ));
        }
    }
    wrong
}

fn unknown_stages(manifests: &[Manifest]) -> Vec<String> {
    let known = |stage: &str| stage_number(stage).is_some() || matches!(stage, "testing" | "tests");
    let wrong = manifests.iter().filter(|manifest| !known(&manifest.stage));
    wrong.map(|m| format!("{} is in crates/{}, which is no stage of design §9", m.name, m.stage)).collect()
}

fn verbs_in_effects(manifests: &[Manifest]) -> Vec<String> {
    let wrong = arrows(manifests)
        .filter(|(from, to)| matches!(&*from.stage, "apply" | "backend") && VERBS.contains(&&*to.name));
    wrong
        .map(|(from, to)| {
            format!(
                "{} depends on {}: an executor must not be able to re-plan; take what it makes as a value",
                from.name, to.name
            )
        })
        .collect()
}

fn backends_that_know_each_other(manifests: &[Manifest]) -> Vec<String> {
    let wrong = arrows(manifests)
        .filter(|(from, to)| from.stage == "backend" && stage_of(manifests, &to.name) == Some("backend"));
    wrong
        .map(|(from, to)| {
            format!(
                "{} depends on {}: backends do not know each other; join them in bin/ or behind a trait of apply/",
                from.name, to.name
            )
        })
        .collect()
}

fn holes_in_fences(manifests: &[Manifest]) -> Vec<String> {
    let mut wrong = Vec::new();
    for (from, to) in arrows(manifests).filter(|(from, _)| stage_number(&from.stage).is_some()) {
        if let Some((_, owners)) =
            FENCES.iter().find(|(name, owners)| *name == to.name && !owners.contains(&&*from.name))
        {
            wrong.push(format!(
                "{} depends on {}: only {} may; use what that offers",
                from.name,
                to.name,
                owners.join(", ")
            ));
        }
        if to.name == "anyhow" && from.stage != "bin" && !to.only_tests() {
            wrong.push(format!(
                "{} depends on anyhow: outside bin/ and tests every operation has its own thiserror enum",
                from.name
            ));
        }
    }
    wrong
}

fn impure_dependencies(manifests: &[Manifest]) -> Vec<String> {
    let wrong = arrows(manifests)
        .filter(|(from, to)| PURE.contains(&&*from.stage) && IMPURE.contains(&&*to.name) && !to.only_tests());
    wrong
        .map(|(from, to)| {
            format!(
                "{} is pure and depends on {}: the edge reads inputs into values and hands them in",
                from.name, to.name
            )
        })
        .collect()
}

/// Places in the shipped code of some files where a line satisfies `bad`.
fn lines_where<'a>(source: &'a Source, bad: impl Fn(&str) -> bool + 'a) -> impl Iterator<Item = (usize, &'a str)> {
    source.shipped.lines().enumerate().filter(move |(_, line)| bad(line)).map(|(at, line)| (at + 1, line.trim()))
}

fn impure_code(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| PURE.contains(&source.stage()) && source.ships()) {
        let remedy = "pure stages have no async, clock, environment, files, randomness or output: take it as an argument, return it as a value; BTreeMap and BTreeSet keep order";
        for path in used_paths(&source.shipped) {
            if IMPURE_PATHS.iter().any(|bad| path == *bad || path.starts_with(&format!("{bad}::"))) {
                wrong.push(format!("{} uses {path}: {remedy}", source.path));
            }
        }
        let bad = |line: &str| {
            words(line).any(|word| IMPURE_WORDS.contains(&word))
                || PRINTING.iter().any(|print| has_macro(line, print))
                || (!line.trim_start().starts_with("use ") && IMPURE_PATHS.iter().any(|path| line.contains(path)))
        };
        wrong.extend(lines_where(source, bad).map(|(at, line)| format!("{}:{at}: `{line}`: {remedy}", source.path)));
        for (at, line) in source.text.lines().enumerate() {
            let shipped = source.shipped.lines().nth(at).unwrap_or_default();
            let reads = has_macro(shipped, "env!") && !line.contains("env!(\"CARGO_PKG_");
            if reads || has_macro(shipped, "option_env!") {
                wrong.push(format!("{}:{}: `{}`: {remedy}", source.path, at + 1, line.trim()));
            }
        }
    }
    wrong
}

/// Is this macro used, as a word of its own? `print!` is not in `eprint!`.
fn has_macro(line: &str, name: &str) -> bool {
    line.match_indices(name)
        .any(|(at, _)| line[..at].chars().next_back().is_none_or(|c| !c.is_alphanumeric() && c != '_'))
}

fn unfinished_code(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources.iter().filter(|source| source.path.starts_with("crates/") && source.path.contains("/src/")) {
        let remedy = "shipped code neither panics nor waits to be written; return an error that says what to do";
        let bad = |line: &str| UNFINISHED.iter().any(|unfinished| line.contains(unfinished));
        wrong.extend(lines_where(source, bad).map(|(at, line)| format!("{}:{at}: `{line}`: {remedy}", source.path)));
        // `Option::expect` and `Result::expect` take one argument; a method of ours with two is another thing.
        for (at, call) in source.shipped.match_indices(".expect(") {
            if arguments(&source.shipped[at + call.len()..]) == 1 {
                let line = source.shipped[..at].matches('\n').count() + 1;
                wrong.push(format!("{}:{line}: `.expect(…)`: {remedy}", source.path));
            }
        }
    }
    wrong
}

/// How many arguments a call has whose opening parenthesis was just read.
fn arguments(code: &str) -> usize {
    let (mut depth, mut count, mut empty) = (0_usize, 0, true);
    for letter in code.chars() {
        match letter {
            ')' if depth == 0 => break,
            ',' if depth == 0 => (count, empty) = (count + 1, true),
            '(' | '[' | '{' => (depth, empty) = (depth + 1, false),
            ')' | ']' | '}' => depth = depth.saturating_sub(1),
            letter => empty = empty && letter.is_whitespace(),
        }
    }
    count + usize::from(!empty)
}

fn too_long(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        let lines = source.text.lines().count();
        if lines > 800 {
            wrong.push(format!(
                "{} has {lines} lines; 400 are wanted and 800 the end: split it where a reader would",
                source.path
            ));
        }
        for (name, at, lines) in functions(&source.code).into_iter().filter(|(.., lines)| *lines > 70) {
            wrong.push(format!(
                "{}:{at}: `{name}` has {lines} lines; 40 are wanted and 70 the end: name its steps",
                source.path
            ));
        }
    }
    wrong
}

fn skipped_tests(sources: &[Source]) -> Vec<String> {
    let mut wrong = Vec::new();
    for source in sources {
        for (at, line) in source.code.lines().enumerate().filter(|(_, line)| line.contains("#[ignore")) {
            wrong.push(format!(
                "{}:{}: `{}`: nothing is skipped; what cannot run fails and says why",
                source.path,
                at + 1,
                line.trim()
            ));
        }
    }
    wrong
}

fn mod_files(sources: &[Source]) -> Vec<String> {
    let wrong = sources.iter().filter(|source| source.path.ends_with("/mod.rs"));
    wrong
        .map(|source| format!("{}: name the file after its module and put it beside the folder", source.path))
        .collect()
}

fn missing_from_the_map(manifests: &[Manifest], map: &str) -> Vec<String> {
    let crates = manifests.iter().filter(|manifest| manifest.stage != "tests");
    crates
        .filter(|manifest| !map.contains(&format!("| `{}` | {}", manifest.name, manifest.stage)))
        .map(|manifest| format!("crates/README.md has no row `{}` of stage {}", manifest.name, manifest.stage))
        .collect()
}

fn holds(broken: Vec<String>) {
    assert!(broken.is_empty(), "{} places break this rule:\n{}", broken.len(), broken.join("\n"));
}

fn manifest(name: &str, stage: &str, dependencies: &[&str]) -> Manifest {
    let dependencies = dependencies.iter().map(|name| Dependency { name: (*name).to_owned(), kind: None }).collect();
    Manifest { name: name.to_owned(), stage: stage.to_owned(), dependencies }
}

fn in_crate(stage: &str, text: &str) -> [Source; 1] {
    [Source::new(&format!("crates/{stage}/sample/src/lib.rs"), text)]
}

#[test]
fn arrows_point_from_later_to_earlier_stages() -> Any {
    let bad = [manifest("fleet-model", "model", &["fleet-plan"]), manifest("fleet-plan", "plan", &["fleet-model"])];
    assert_eq!(wrong_arrows(&bad).len(), 1);
    assert_eq!(wrong_arrows(&[manifest("a", "bin", &["sim"]), manifest("sim", "testing", &["a"])]).len(), 1);
    assert_eq!(unknown_stages(&[manifest("a", "misc", &[])]).len(), 1);
    holds(wrong_arrows(&manifests()?));
    holds(unknown_stages(&manifests()?));
    Ok(())
}

#[test]
fn effects_cannot_plan_render_or_parse() -> Any {
    assert_eq!(verbs_in_effects(&[manifest("fleet-apply", "apply", &["fleet-planner", "fleet-plan", "kdl"])]).len(), 2);
    holds(verbs_in_effects(&manifests()?));
    Ok(())
}

#[test]
fn backends_do_not_know_each_other() -> Any {
    let bad = [manifest("fleet-docker", "backend", &["fleet-matrix"]), manifest("fleet-matrix", "backend", &["ruma"])];
    assert_eq!(backends_that_know_each_other(&bad).len(), 1);
    holds(backends_that_know_each_other(&manifests()?));
    Ok(())
}

#[test]
fn heavy_dependencies_stay_behind_their_fences() -> Any {
    let bad = [manifest("fleetctl", "bin", &["bollard", "anyhow"]), manifest("fleet-store", "apply", &["anyhow"])];
    assert_eq!(holes_in_fences(&bad).len(), 2);
    holds(holes_in_fences(&manifests()?));
    Ok(())
}

#[test]
fn pure_crates_depend_on_nothing_impure() -> Any {
    assert_eq!(impure_dependencies(&[manifest("fleet-plan", "plan", &["tokio", "reqwest", "serde"])]).len(), 2);
    holds(impure_dependencies(&manifests()?));
    Ok(())
}

#[test]
fn pure_code_is_pure() -> Any {
    for bad in [
        "async fn a() {}",
        "use std::{collections::BTreeMap, fs};",
        "fn a() { std::env::var(\"A\"); }",
        "fn a(at: SystemTime) {}",
        "type A = std::collections::HashSet<u8>;",
        "fn a() { println!(\"a\"); }",
        "fn a() { std::process::exit(1) }",
        "const A: &str = env!(\"HOME\");",
        "#[cfg(test)]\nmod tests { fn a() {} }\nfn b() { std::fs::read(\"a\"); }",
    ] {
        assert_eq!(impure_code(&in_crate("graph", bad)).len(), 1, "{bad}");
    }
    for good in [
        "// println!\nfn a() -> &'static str { \"std::fs\" }",
        "const A: &str = env!(\"CARGO_PKG_VERSION\");",
        "#[cfg(test)]\nmod tests { use std::fs; fn a() { println!(); } }",
        "/// Reads no `HashMap`.\nfn fingerprint() {}",
    ] {
        assert_eq!(impure_code(&in_crate("graph", good)), Vec::<String>::new(), "{good}");
    }
    assert!(impure_code(&in_crate("apply", "async fn a() {}")).is_empty(), "effects are what apply is for");
    holds(impure_code(&sources()?));
    Ok(())
}

#[test]
fn shipped_code_neither_panics_on_purpose_nor_is_unfinished() -> Any {
    for bad in [
        "fn a() { b().unwrap(); }",
        "fn a() { b().expect(\"b\"); }",
        "fn a() { todo!() }",
        "fn a() { unimplemented!() }",
    ] {
        assert_eq!(unfinished_code(&in_crate("bin", bad)).len(), 1, "{bad}");
    }
    assert_eq!(unfinished_code(&in_crate("bin", "fn a() { b\n.expect(\n&format!(\"{}, {}\", c, d),\n) }")).len(), 1);
    let good = "fn a() { b().unwrap_or_default(); reader.expect(node, &SHAPE); }\n#[cfg(test)]\nmod tests { fn c() { b().unwrap() } }";
    assert!(unfinished_code(&in_crate("bin", good)).is_empty());
    holds(unfinished_code(&sources()?));
    Ok(())
}

#[test]
fn files_and_functions_are_short() -> Any {
    assert_eq!(too_long(&in_crate("bin", &"\n".repeat(801))).len(), 1);
    let function = |lines: usize| format!("fn a() {{\n{}}}\n", "    b();\n".repeat(lines - 2));
    assert_eq!(too_long(&in_crate("bin", &function(71))).len(), 1);
    assert!(too_long(&in_crate("bin", &function(70))).is_empty());
    holds(too_long(&sources()?));
    Ok(())
}

/// Packages that the program is compiled with other features than the tests: `./tests/run` would compile each twice, and all
/// that stands on it.
fn compiled_twice(program: &str, tests: &str) -> Vec<String> {
    // What was listed before bears a mark.
    let packages = |listed: &str| -> BTreeSet<String> {
        listed.lines().map(|line| line.trim_end_matches(" (*)").to_owned()).collect()
    };
    let other = packages(tests);
    let told = |line: &String| {
        format!(
            "{line}: the tests have it with other features; list all of them in Cargo.toml's [workspace.dependencies]"
        )
    };
    packages(program).iter().filter(|line| !other.contains(*line)).map(told).collect()
}

fn cargo_tree(arguments: &[&str]) -> anyhow::Result<String> {
    let mut cargo = std::process::Command::new(env!("CARGO"));
    cargo
        .current_dir(workspace())
        .args(["tree", "--locked", "--prefix", "none", "--format", "{p} {f}"])
        .args(arguments);
    let output = cargo.output()?;
    anyhow::ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[test]
fn nothing_is_compiled_twice() -> Any {
    assert_eq!(compiled_twice("a v1.0.0 fs\nb v2.0.0 \n", "a v1.0.0 fs,net\nb v2.0.0  (*)\n").len(), 1);
    let program = cargo_tree(&["--package", "fleetctl", "--edges", "normal,build"])?;
    let tests = cargo_tree(&["--workspace", "--edges", "normal,build,dev"])?;
    assert!(program.lines().count() > 100, "{program}");
    holds(compiled_twice(&program, &tests));
    Ok(())
}

#[test]
fn no_test_is_skipped() -> Any {
    assert_eq!(skipped_tests(&in_crate("bin", "#[test]\n#[ignore = \"slow\"]\nfn a() {}")).len(), 1);
    holds(skipped_tests(&sources()?));
    Ok(())
}

#[test]
fn modules_have_names() -> Any {
    assert_eq!(mod_files(&[Source::new("crates/bin/a/src/b/mod.rs", "")]).len(), 1);
    holds(mod_files(&sources()?));
    Ok(())
}

#[test]
fn the_map_of_the_crates_is_complete() -> Any {
    let map = std::fs::read_to_string(workspace().join("crates/README.md"))?;
    assert_eq!(missing_from_the_map(&[manifest("fleet-new", "plan", &[])], &map).len(), 1);
    holds(missing_from_the_map(&manifests()?, &map));
    Ok(())
}
