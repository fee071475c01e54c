//! `images`: the cases of docs/reference/performance.md, tool beside tool in one run.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context as _, ensure};
use fleet_oci::{Compression, image::Base};

use crate::{
    contexts::{self, BUNDLE, EDITED},
    floor::{self, Job},
    http::Connection,
    measure::{self, Sample, median},
    peers::{self, BASE, Change, Place, TOOLS, Target, Tool, job},
    registry::Registry,
};

/// A row of the table.
struct Case {
    name: &'static str,
    image: &'static str,
    change: Change,
    /// How many times faster than BuildKit fleetctl means to be.
    goal: Option<f64>,
}

const CASES: [Case; 9] = [
    Case { name: "no-op, 5 files", image: "cfg", change: Change::Nothing, goal: None },
    Case { name: "no-op, 3,000 files", image: "split", change: Change::Nothing, goal: Some(8.0) },
    Case { name: "config only, 1 of 5 files", image: "cfg", change: Change::File, goal: Some(4.0) },
    Case { name: "environment only", image: "cfg", change: Change::Environment, goal: Some(4.0) },
    Case { name: "1 file of 3,000, layers declared", image: "split", change: Change::File, goal: Some(5.0) },
    Case { name: "1 file of 3,000, one folder", image: "fat", change: Change::File, goal: Some(2.5) },
    Case { name: "194 MB in one file, a line of it", image: "bundle", change: Change::File, goal: Some(2.5) },
    Case { name: "environment only, 3,000 files", image: "split", change: Change::Environment, goal: None },
    Case { name: "cold, 3,000 files", image: "cold", change: Change::Everything, goal: None },
];

const SPLIT: &[(&str, &str)] = &[("node_modules", "/app/node_modules"), ("src", "/app/src")];
const WHOLE: &[(&str, &str)] = &[("", "/app")];
const CONFIGURATION: &[(&str, &str)] = &[("", "/etc/agent")];

struct Bench {
    place: Place,
    registry: Registry,
    base: Base,
    tools: Vec<Tool>,
    failures: Failures,
    edits: u32,
}

/// Peers that failed, each with why: they are not asked again, and the others are measured.
#[derive(Default)]
struct Failures(Vec<(Tool, String)>);

impl Failures {
    fn has(&self, tool: Tool) -> bool {
        self.0.iter().any(|(failed, _)| *failed == tool)
    }

    /// What a tool did; `None` when it is a peer and failed. What we wrote ourselves must not.
    fn of<T>(&mut self, tool: Tool, outcome: anyhow::Result<T>) -> anyhow::Result<Option<T>> {
        match outcome {
            Ok(done) => Ok(Some(done)),
            Err(error) if tool.is_peer() => {
                eprintln!("{} fails and is measured no further: {error:#}", tool.name());
                self.0.push((tool, format!("{error:#}")));
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Measures and prints; false when a correctness probe failed.
///
/// # Errors
/// When the benchmark cannot be set up or a tool fails.
pub fn run(only: &[&str]) -> anyhow::Result<bool> {
    let folder = tempfile::Builder::new().prefix("fleet-benches-").tempdir()?;
    let mut bench = Bench::set_up(folder.path(), only)?;
    let mut rows = Vec::new();
    let wanted = std::env::var("FLEET_BENCH_CASES").unwrap_or_default();
    for case in CASES.iter().filter(|case| case.name.contains(&wanted)) {
        eprintln!("{}", case.name);
        rows.push((case, bench.case(case)?));
    }
    println!("{}", table(&bench.tools, &rows, &bench.failures));
    let right = bench.probe()?;
    for tool in &bench.tools {
        tool.clean(&bench.place, &["cfg", "split", "fat", "bundle", "cold", "probe"]);
    }
    Ok(right)
}

fn runs(case: &Case) -> usize {
    let given = std::env::var("FLEET_BENCH_RUNS").ok().and_then(|text| text.parse().ok());
    let large = case.change == Change::Everything || matches!(case.image, "fat" | "bundle");
    given.unwrap_or(if large { 3 } else { 7 })
}

impl Bench {
    fn set_up(folder: &Path, only: &[&str]) -> anyhow::Result<Self> {
        let work = folder.canonicalize()?;
        eprintln!("making the contexts in {}", work.display());
        for image in ["split", "fat"] {
            contexts::application(&context(&work, image), 1)?;
        }
        contexts::bundle(&context(&work, "bundle"), 1)?;
        contexts::configuration(&context(&work, "cfg"), 2)?;
        let registry = Registry::start(&work.join("registry"))?;
        let place = Place { registry: registry.host.clone(), work };
        let mut tools = Vec::new();
        for tool in TOOLS.into_iter().filter(|tool| only.is_empty() || only.contains(&tool.name())) {
            match tool.missing() {
                None => tools.push(tool),
                Some(why) => eprintln!("{} is left out: {why}", tool.name()),
            }
        }
        let context = context(&place.work, "fat");
        let target = Target { name: BASE, context, layers: WHOLE, env: "base".into(), base: None };
        let base = push_base(&place, &target)?;
        Ok(Self { place, registry, base, tools, failures: Failures::default(), edits: 0 })
    }

    fn target(&self, image: &'static str) -> Target {
        let env = "1".to_owned();
        let context = context(&self.place.work, image);
        match image {
            "cfg" => Target { name: image, context, layers: CONFIGURATION, env, base: Some(self.base.clone()) },
            "fat" | "bundle" => Target { name: image, context, layers: WHOLE, env, base: None },
            _ => Target { name: image, context, layers: SPLIT, env, base: None },
        }
    }

    /// The samples of every tool. Tools take turns, so that what else the machine does falls on all of them.
    fn case(&mut self, case: &Case) -> anyhow::Result<Vec<(Tool, Sample)>> {
        let mut samples = vec![Vec::new(); self.tools.len()];
        let mut target = self.target(case.image);
        if case.change != Change::Everything {
            for tool in self.able() {
                let built = tool
                    .prepare(&self.place, &target)
                    .and_then(|()| tool.build(&self.place, &target, Change::Everything));
                self.failures.of(tool, built)?;
            }
            // Until then a file counts as just written, and careful tools read it again.
            std::thread::sleep(Duration::from_secs(3));
        }
        for run in 0..=runs(case) {
            for (n, tool) in self.tools.clone().into_iter().enumerate() {
                if self.failures.has(tool) {
                    continue;
                }
                let changed = self.change(case.change, &mut target, &tool, run);
                let before = self.registry.requests();
                let built = changed.and_then(|()| tool.build(&self.place, &target, case.change));
                let Some(sample) = self.failures.of(tool, built)? else { continue };
                let requests = self.registry.requests() - before;
                // The first is the warm-up; a cold build has none.
                if run > 0 || case.change == Change::Everything {
                    samples[n].push(Sample { requests, ..sample });
                }
            }
        }
        let measured = self.tools.iter().copied().zip(samples).filter(|(tool, _)| !self.failures.has(*tool));
        Ok(measured.filter_map(|(tool, all)| Some((tool, median(all)?))).collect())
    }

    /// Tools that have not failed.
    fn able(&self) -> Vec<Tool> {
        self.tools.iter().copied().filter(|tool| !self.failures.has(*tool)).collect()
    }

    fn change(&mut self, change: Change, target: &mut Target, tool: &Tool, run: usize) -> anyhow::Result<()> {
        self.edits += 1;
        let edit = self.edits;
        match change {
            Change::Nothing => {}
            Change::Environment => target.env = edit.to_string(),
            Change::File => match target.name {
                "cfg" => append(&target.context.join("agent.json"), edit)?,
                "bundle" => overwrite(&target.context.join(BUNDLE), edit)?,
                _ => append(&target.context.join(EDITED), edit)?,
            },
            Change::Everything => {
                // Nobody has seen a byte of it, in a repository that is new.
                let name: &'static str = Box::leak(format!("cold-{}-{run}", tool.name()).into_boxed_str());
                if target.name != "cold" {
                    fs::remove_dir_all(self.place.work.join("projects").join(target.name))?;
                }
                let context = context(&self.place.work, name);
                contexts::application(&context, 1_000 + u64::from(edit))?;
                *target = Target { name, context, layers: SPLIT, env: "1".to_owned(), base: None };
                tool.prepare(&self.place, target)?;
                // What writing 194 MB left to the disk is not the tool's work.
                let _ = Command::new("sync").status();
            }
        }
        Ok(())
    }

    /// An edit of the same length whose mtime is put back, as unpackers and `touch -d` do: who ships the new file?
    fn probe(&mut self) -> anyhow::Result<bool> {
        let mut right = true;
        for tool in self.able() {
            let seen = self.sees_a_same_size_edit(tool);
            let Some(seen) = self.failures.of(tool, seen)? else { continue };
            println!(
                "same-size edit, mtime put back: {} {}",
                tool.name(),
                if seen { "ships the new file" } else { "ships the OLD file" }
            );
            right &= seen || !tool.is_fleetctl();
        }
        Ok(right)
    }

    fn sees_a_same_size_edit(&self, tool: Tool) -> anyhow::Result<bool> {
        let context = context(&self.place.work, "probe");
        fs::create_dir_all(&context)?;
        let file = context.join("answer");
        let target = Target { name: "probe", context, layers: WHOLE, env: "1".into(), base: None };
        fs::write(&file, "AAAA1111")?;
        let before = fs::metadata(&file)?.modified()?;
        tool.prepare(&self.place, &target)?;
        // Older than any clock's tick, so that nobody reads it again for being young.
        std::thread::sleep(Duration::from_secs(3));
        tool.build(&self.place, &target, Change::Everything)?;
        tool.build(&self.place, &target, Change::Nothing)?;
        let old = self.published(tool, &target)?;
        ensure!(old.contains("\"tags\""), "{} pushed nothing that can be found: {old}", tool.name());
        rewrite(&file, "BBBB2222", before)?;
        tool.build(&self.place, &target, Change::File)?;
        Ok(self.published(tool, &target)? != old)
    }

    /// Everything that a tool's repository shows under tags.
    fn published(&self, tool: Tool, target: &Target) -> anyhow::Result<String> {
        let mut registry = Connection::open(&self.registry.host)?;
        let fleet = if tool.is_fleetctl() { "bench/" } else { "" };
        let repository = format!("/v2/{}/{fleet}{}", tool.name(), target.name);
        let mut get = |method: &str, path: &str| {
            registry.ask(method, &format!("{repository}/{path}"), "text/plain", (0, &mut std::io::empty()))
        };
        let tags = String::from_utf8_lossy(&get("GET", "tags/list")?.body).into_owned();
        Ok(tags + &get("HEAD", "manifests/v1")?.digest)
    }
}

/// The build context of an image: in a folder of its own, that may have other files beside.
fn context(work: &Path, image: &str) -> PathBuf {
    work.join("projects").join(image).join("context")
}

/// Pushes the base, gzip as registries have it, and says what it is. In a process of its own: what this one once held in
/// memory would count as the peak of every process that it starts.
fn push_base(place: &Place, target: &Target) -> anyhow::Result<Base> {
    let files = place.work.join("base");
    fs::create_dir_all(&files)?;
    let job = Job { repository: BASE.to_owned(), compression: Compression::Gzip, ..job(place, target, &files) };
    measure::run(&mut [peers::floor(&job, &files)?])?;
    Ok(Base::from(&floor::pushed(&job)?))
}

fn append(file: &Path, edit: u32) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let kept = text.split("// edit ").next().unwrap_or_default();
    Ok(fs::write(file, format!("{kept}// edit {edit}\n"))?)
}

/// A line in the middle of a large file, which keeps its length.
fn overwrite(file: &Path, edit: u32) -> anyhow::Result<()> {
    let file = fs::File::options().write(true).open(file)?;
    let middle = file.metadata()?.len() / 2;
    Ok(file.write_all_at(format!("// edit {edit:08}\n").as_bytes(), middle)?)
}

fn rewrite(file: &Path, text: &str, mtime: SystemTime) -> anyhow::Result<()> {
    fs::write(file, text)?;
    Ok(fs::File::options().write(true).open(file)?.set_modified(mtime)?)
}

/// Milliseconds, memory and requests; how many times the floor that says as much, and how many times as fast as BuildKit.
fn table(tools: &[Tool], rows: &[(&Case, Vec<(Tool, Sample)>)], failures: &Failures) -> String {
    let mut text = String::from("| case | ");
    let title = |tool: &Tool| format!("{} ms (MB, requests) | ", tool.name());
    text.extend(tools.iter().map(title));
    let ratios = [
        (Tool::Silent, Tool::Floor),
        (Tool::Fleetctl, Tool::Telling),
        (Tool::Docker, Tool::Silent),
        (Tool::Docker, Tool::Fleetctl),
    ];
    ratios.iter().for_each(|(a, b)| text.push_str(&format!("{} / {} | ", a.name(), b.name())));
    text.push_str("goal |\n|---|");
    text.extend(tools.iter().map(|_| "---|"));
    text.extend(ratios.iter().map(|_| "---|"));
    text.push_str("---|\n");
    for (case, samples) in rows {
        let of = |tool: Tool| samples.iter().find(|(other, _)| *other == tool).map(|(_, sample)| *sample);
        text.push_str(&format!("| {} | ", case.name));
        for tool in tools {
            let none = if failures.has(*tool) { "failed | " } else { "- | " };
            text.push_str(&of(*tool).map_or(none.to_owned(), |sample| {
                let ms = sample.time.as_secs_f64() * 1000.0;
                format!("{ms:.0} ({}, {}) | ", sample.memory / 1_000_000, sample.requests)
            }));
        }
        let ratio = |a: Tool, b: Tool| Some(of(a)?.time.as_secs_f64() / of(b)?.time.as_secs_f64());
        let shown = |ratio: Option<f64>| ratio.map_or("-".to_owned(), |ratio| format!("{ratio:.1}"));
        let goal = case.goal.map_or(String::new(), |goal| format!("≥ {goal}"));
        ratios.iter().for_each(|(a, b)| text.push_str(&format!("{} | ", shown(ratio(*a, *b)))));
        text.push_str(&format!("{goal} |\n"));
    }
    for (tool, why) in &failures.0 {
        let last = why.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or_default();
        text.push_str(&format!("\n{} failed: {last}\n", tool.name()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_fails_is_told_of_in_its_column_and_the_others_are_measured() {
        let mut failures = Failures::default();
        let broken = || -> anyhow::Result<u32> { anyhow::bail!("buildah build failed:\nnetavark is missing") };
        assert!(failures.of(Tool::Buildah, broken()).is_ok_and(|done| done.is_none()));
        assert!(failures.of(Tool::Docker, Ok(1)).is_ok_and(|done| done == Some(1)));
        for ours in [Tool::Fleetctl, Tool::Silent, Tool::Floor, Tool::Telling] {
            assert!(failures.of(ours, broken()).is_err(), "{ours:?}");
        }
        let sample = Sample { time: Duration::from_millis(7), memory: 3_000_000, requests: 1 };
        let rows = [(&CASES[0], vec![(Tool::Docker, sample)])];
        let text = table(&[Tool::Docker, Tool::Buildah, Tool::Umoci], &rows, &failures);
        assert!(text.contains("| 7 (3, 1) | failed | - |"), "{text}");
        assert!(text.ends_with("buildah failed: netavark is missing\n"), "{text}");
    }
}
