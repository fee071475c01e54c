//! [`run`]: `check` and `plan --offline` of a fleet of ten thousand agents, whose people are rows of a directory file.
//!
//! Deliberately absent: a peer. What does the same with as many derivations is `nix-build`, which is on none of the
//! machines that this was made on; its measured times are in the decisions that set the budget.

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::Context as _;

use crate::{fleetctl, measure};

/// How many agents, unless `FLEET_BENCH_AGENTS` says.
const AGENTS: usize = 10_000;
/// Runs after the warm-up.
const RUNS: usize = 5;
/// Agents of one manager, managers of one director.
const SPAN: usize = 8;

const FLEET: &str = r#"fleet "bench" domain="bench.test"
templates "templates"
org {
    human "head" name="Helen Head" title="CEO" level="ceo"
    directory "people.csv"
    defaults {
        model "local/small"
        skills "people" "matrix-messaging" "task-management"
        heartbeat "30m"
        size cpu=1024 memory-mib=2048
    }
    department "Engineering" {
        person "vera.vale" name="Vera Vale" title="VP of Engineering" level="vp" reports-to="head"
    }
}
models {
    provider "local" kind="openai" base-url="http://127.0.0.1:11434/v1" { model "small" context=32768 max-tokens=4096 }
}
images {
    image "agent" { base "registry.bench.test/agent:1"; entrypoint "/bin/agent" }
    image "homeserver" { base "registry.bench.test/homeserver:1"; entrypoint "/bin/homeserver" }
}
rooms {
    room "all-employees" { members "*" }
    direct-messages "manager-report"
}
environment "local" {
    target "docker"
    homeserver image="homeserver" kind="synapse" port=16167
    deploy levels="vp,director,manager,ic"
}
"#;

/// Prints the table.
///
/// # Errors
/// When the project cannot be written or a command fails.
pub fn run() -> anyhow::Result<bool> {
    let agents = std::env::var("FLEET_BENCH_AGENTS").ok().and_then(|n| n.parse().ok()).unwrap_or(AGENTS);
    let folder = tempfile::tempdir()?;
    write(folder.path(), agents)?;
    println!("{agents} agents; wall time, the median of {RUNS} after one warm-up; peak memory\n");
    println!("| case | ms | MB |\n|---|---|---|");
    for (case, words) in [("check", &["check"][..]), ("plan --offline", &["plan", "--offline"])] {
        let mut samples = Vec::new();
        for run in 0..=RUNS {
            let mut command = Command::new(fleetctl::program()?);
            command.current_dir(folder.path()).args(words).env("XDG_STATE_HOME", folder.path().join("state"));
            let sample = measure::run(&mut [command])?;
            if run > 0 {
                samples.push(sample);
            }
        }
        let middle = measure::median(samples).context("no run")?;
        println!("| {case} | {} | {} |", middle.time.as_millis(), middle.memory >> 20);
    }
    Ok(true)
}

fn write(folder: &Path, agents: usize) -> anyhow::Result<()> {
    let repository = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    copy(&repository.join("templates"), &folder.join("templates"))?;
    fs::write(folder.join("fleet.kdl"), FLEET)?;
    fs::write(folder.join("people.csv"), people(agents))?;
    let pin = |name: &str, digit: &str| {
        format!(
            "\"registry.bench.test/{name}:1\":{{\"linux/amd64\":{{\"digest\":\"sha256:{0}\"}},\"linux/arm64\":{{\"digest\":\"sha256:{0}\"}}}}",
            digit.repeat(64)
        )
    };
    let lock = format!("{{\"schema\":1,\"bases\":{{{},{}}}}}", pin("agent", "0"), pin("homeserver", "1"));
    Ok(fs::write(folder.join("fleet.lock"), lock)?)
}

/// A tree of people below the vice president: every one of its levels has the span as many as the one above.
fn people(agents: usize) -> String {
    let mut rows = String::from("id,name,title,level,department,team,reports_to\n");
    for n in 1..agents {
        let (level, above) = match n {
            1..=SPAN => ("director", "vera.vale".to_owned()),
            _ if n <= SPAN + agents / SPAN => ("manager", format!("p{}", 1 + n % SPAN)),
            _ => ("ic", format!("p{}", SPAN + 1 + n % (agents / SPAN).max(1))),
        };
        let team = if level == "ic" { format!("Team {}", n % 40) } else { String::new() };
        let _ = writeln!(rows, "p{n},Person {n},Engineer {n},{level},Engineering,{team},{above}");
    }
    rows
}

fn copy(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
        }
    }
    Ok(())
}
