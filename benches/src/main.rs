//! Benchmarks beside peers, in one run: `cargo run --release -p fleet-benches -- images`.
//!
//! [`images`] prints docs/reference/performance.md's table for this machine. Tests never assert times; this program
//! never fails because something is slow.

mod agents;
mod contexts;
mod fleetctl;
mod floor;
mod http;
mod images;
mod measure;
mod peers;
mod registry;
mod stat;

use std::process::ExitCode;

use anyhow::bail;

const USAGE: &str = "usage: cargo run --release -p fleet-benches -- images [ONLY-TOOL…]
       cargo run --release -p fleet-benches -- agents

Tools: fleetctl, fleetctl-silent, floor, floor-telling, docker, buildah, umoci. Needs docker-registry (Debian's package of that
name) and the built fleetctl (or FLEETCTL=its path); what else is not installed is left out and said.
FLEET_BENCH_RUNS=n   runs after the warm-up (7; 3 for the large cases)
FLEET_BENCH_AGENTS=n how many agents `agents` has (10,000)
FLEET_BENCH_CASES=…  only cases whose name has this text
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["images", tools @ ..] => images::run(tools),
        ["agents"] => agents::run(),
        ["floor", job] => floor::run(job.as_ref()),
        _ => {
            eprint!("{USAGE}");
            return ExitCode::from(64);
        }
    };
    let outcome = outcome.and_then(|right| if right { Ok(()) } else { bail!("a correctness probe failed") });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fleet-benches: {error:#}");
            ExitCode::FAILURE
        }
    }
}
