//! [`Sample`]: how long a command took, how much memory it had at most, and how many requests it made.

use std::{
    fs,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use wait4::Wait4 as _;

/// One measurement.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Wall time of all commands.
    pub time: Duration,
    /// Largest peak of one process, bytes; with a daemon, the daemon's too.
    pub memory: u64,
    /// Requests to the registry.
    pub requests: usize,
}

/// Runs commands one after another.
///
/// # Errors
/// When one fails; with the end of what it said.
pub fn run(commands: &mut [Command]) -> anyhow::Result<Sample> {
    let mut sample = Sample::default();
    for command in commands {
        let log = tempfile::tempfile()?;
        let start = Instant::now();
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log.try_clone()?)
            .spawn()
            .with_context(|| format!("{} cannot be started", command.get_program().display()))?;
        let used = child.wait4()?;
        sample.time += start.elapsed();
        sample.memory = sample.memory.max(used.rusage.maxrss);
        ensure!(used.status.success(), "{command:?} failed:\n{}", end_of(log)?);
    }
    Ok(sample)
}

fn end_of(mut log: fs::File) -> anyhow::Result<String> {
    use std::io::{Read as _, Seek as _};
    let mut text = Vec::new();
    log.rewind()?;
    log.read_to_end(&mut text)?;
    let text = String::from_utf8_lossy(&text).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(15)..].join("\n"))
}

/// The process of this name, if it runs.
#[must_use]
pub fn process(name: &str) -> Option<u32> {
    fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let comm = fs::read_to_string(entry.path().join("comm")).ok()?;
        (comm.trim() == name).then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    })
}

/// Forgets a process's peak of memory (needs root).
pub fn reset_peak(process: u32) {
    let _ = fs::write(format!("/proc/{process}/clear_refs"), "5");
}

/// A process's peak of memory in bytes.
#[must_use]
pub fn peak(process: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) << 10
}

/// The middle one by time, with the largest memory of all.
#[must_use]
pub fn median(mut samples: Vec<Sample>) -> Option<Sample> {
    samples.sort_by_key(|sample| sample.time);
    let memory = samples.iter().map(|sample| sample.memory).max()?;
    Some(Sample { memory, ..samples[samples.len() / 2] })
}
