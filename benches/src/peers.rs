//! [`Tool`]: fleetctl, the floor and the peers, each as the commands that build and push one image.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use fleet_oci::{Compression, ImageConfig, image::Base};

use crate::{
    fleetctl,
    floor::Job,
    measure::{self, Sample},
};

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tool {
    /// Ours.
    Fleetctl,
    /// The same without statements, as the floor and the peers: `build --no-statements`.
    Silent,
    /// Nothing that is not needed.
    Floor,
    /// The same, and a provenance statement and a bill of packages attached to what it pushes, as fleetctl does.
    Telling,
    /// `docker build` with BuildKit and `docker push`.
    Docker,
    /// `buildah build --layers` and `buildah push`.
    Buildah,
    /// `umoci insert` and `skopeo copy`.
    Umoci,
}

/// All, in the order of the table.
pub const TOOLS: [Tool; 7] =
    [Tool::Floor, Tool::Telling, Tool::Fleetctl, Tool::Silent, Tool::Docker, Tool::Buildah, Tool::Umoci];

/// An image of the benchmark.
#[derive(Clone, Debug)]
pub struct Target {
    /// Last part of the repository.
    pub name: &'static str,
    /// The build context.
    pub context: PathBuf,
    /// Folders of the context (empty: all of it) and where they go; a layer each.
    pub layers: &'static [(&'static str, &'static str)],
    /// Environment.
    pub env: String,
    /// What it stands on.
    pub base: Option<Base>,
}

/// What changed since the last build.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Nothing,
    /// One variable of the environment.
    Environment,
    /// One file, in the last layer.
    File,
    /// It is the first build.
    Everything,
}

/// Where everything is.
pub struct Place {
    /// `127.0.0.1:5000`
    pub registry: String,
    /// Files of the tools.
    pub work: PathBuf,
}

/// Repository of the base image.
pub const BASE: &str = "base";
/// And of buildah's.
const BUILDAH_BASE: &str = "base-buildah";

impl Tool {
    /// As on the command line and in the table.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fleetctl => "fleetctl",
            Self::Silent => "fleetctl-silent",
            Self::Floor => "floor",
            Self::Telling => "floor-telling",
            Self::Docker => "docker",
            Self::Buildah => "buildah",
            Self::Umoci => "umoci",
        }
    }

    /// Somebody else's: it may fail here, and the others are measured all the same.
    #[must_use]
    pub const fn is_peer(self) -> bool {
        matches!(self, Self::Docker | Self::Buildah | Self::Umoci)
    }

    /// Whether it is ours that is measured.
    #[must_use]
    pub const fn is_fleetctl(self) -> bool {
        matches!(self, Self::Fleetctl | Self::Silent)
    }

    /// Why it cannot be measured here; `None` when it can.
    #[must_use]
    pub fn missing(self) -> Option<String> {
        let answers = |program: &str, arguments: &[&str]| {
            let mut command = Command::new(program);
            command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            command.status().is_ok_and(|status| status.success())
        };
        let absent = |what: &str| Some(format!("{what} is not installed or does not answer"));
        match self {
            Self::Floor | Self::Telling => None,
            Self::Fleetctl | Self::Silent => fleetctl::program().err().map(|error| error.to_string()),
            Self::Docker if docker().is_none() => {
                Some("no docker command line here builds with BuildKit against a running engine".to_owned())
            }
            Self::Buildah if !answers("buildah", &["--version"]) => absent("buildah"),
            Self::Umoci if !answers("umoci", &["--version"]) || !answers("skopeo", &["--version"]) => {
                absent("umoci or skopeo")
            }
            _ => None,
        }
    }

    /// Before the first build of an image by this tool.
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn prepare(self, place: &Place, target: &Target) -> anyhow::Result<()> {
        match self {
            Self::Fleetctl | Self::Silent => fleetctl::prepare(place, target),
            Self::Umoci => {
                let layout = self.files(place, target);
                if layout.exists() {
                    return Ok(());
                }
                fs::create_dir_all(place.work.join(self.name()))?;
                if target.base.is_some() {
                    let from = format!("docker://{}/{BASE}:v1", place.registry);
                    let to = format!("oci:{}:base", layout.display());
                    measure::run(&mut [command("skopeo", &["copy", "--src-tls-verify=false", &from, &to])])?;
                } else {
                    measure::run(&mut [
                        command("umoci", &["init", "--layout", &layout.display().to_string()]),
                        command("umoci", &["new", "--image", &format!("{}:base", layout.display())]),
                    ])?;
                }
                Ok(())
            }
            _ => {
                fs::create_dir_all(self.files(place, target))?;
                if self == Self::Buildah && target.base.is_some() { buildah_base(place) } else { Ok(()) }
            }
        }
    }

    /// Builds and pushes.
    ///
    /// # Errors
    /// When a command fails.
    pub fn build(self, place: &Place, target: &Target, change: Change) -> anyhow::Result<Sample> {
        let files = self.files(place, target);
        let reference = format!("{}/{}/{}:v1", place.registry, self.name(), target.name);
        let commands = match self {
            Self::Fleetctl => fleetctl::build(self.name(), place, target, &[])?,
            Self::Silent => fleetctl::build(self.name(), place, target, &["--no-statements"])?,
            Self::Floor => vec![floor(&job(place, target, &files), &files)?],
            Self::Telling => {
                let repository = format!("{}/{}", self.name(), target.name);
                vec![floor(&Job { repository, telling: true, ..job(place, target, &files) }, &files)?]
            }
            Self::Docker => vec![
                docker_build(place, target, &files, &reference)?,
                command(docker().context("docker")?, &["push", "--quiet", &reference]),
            ],
            Self::Buildah => buildah(place, target, &files, &reference)?,
            Self::Umoci => umoci(target, &files, &reference, change),
        };
        measured(self, commands)
    }

    fn files(self, place: &Place, target: &Target) -> PathBuf {
        place.work.join(self.name()).join(target.name)
    }

    /// Removes what lies outside our folders.
    pub fn clean(self, place: &Place, names: &[&str]) {
        if self == Self::Docker {
            let tags = names.iter().map(|name| format!("{}/docker/{name}:v1", place.registry));
            for tag in tags.chain([format!("{}/{BASE}:v1", place.registry)]) {
                let _ = measure::run(&mut [command(docker().unwrap_or("docker"), &["image", "rm", "--force", &tag])]);
            }
        }
    }
}

/// With the daemon's memory, where there is one.
fn measured(tool: Tool, mut commands: Vec<Command>) -> anyhow::Result<Sample> {
    let daemon = (tool == Tool::Docker).then(|| measure::process("dockerd")).flatten();
    daemon.into_iter().for_each(measure::reset_peak);
    let sample = measure::run(&mut commands)?;
    Ok(Sample { memory: sample.memory + daemon.map_or(0, measure::peak), ..sample })
}

/// A command with its arguments.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

/// The job of the floor for an image.
#[must_use]
pub fn job(place: &Place, target: &Target, files: &Path) -> Job {
    let env = ("AGENT_MODE".to_owned(), target.env.clone());
    Job {
        registry: place.registry.clone(),
        repository: format!("floor/{}", target.name),
        layers: target.layers.iter().map(|(from, to)| (target.context.join(from), (*to).to_owned())).collect(),
        base: target.base.clone().map(|base| (BASE.to_owned(), base)),
        config: ImageConfig { env: [env].into(), ..ImageConfig::default() },
        compression: Compression::Zstd,
        telling: false,
        state: files.join("state.json"),
    }
}

/// The command that does a job of the floor.
///
/// # Errors
/// When the job cannot be written down.
pub fn floor(job: &Job, files: &Path) -> anyhow::Result<Command> {
    let path = files.join("job.json");
    fs::write(&path, serde_json::to_vec(job)?)?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("floor").arg(path);
    Ok(command)
}

/// A docker command line whose `build` uses BuildKit: Debian's own does, later ones need a plugin.
fn docker() -> Option<&'static str> {
    static FOUND: std::sync::OnceLock<Option<&'static str>> = std::sync::OnceLock::new();
    *FOUND.get_or_init(|| {
        ["/usr/bin/docker", "docker"].into_iter().find(|program| {
            let Ok(folder) = tempfile::tempdir() else { return false };
            let file = fs::write(folder.path().join("Dockerfile"), "FROM scratch\nLABEL probe=1\n");
            let mut build = command(program, &["build", "--quiet"]);
            build.arg(folder.path()).env("DOCKER_BUILDKIT", "1");
            file.is_ok() && measure::run(&mut [build]).is_ok()
        })
    })
}

fn dockerfile(place: &Place, target: &Target, base: &str) -> String {
    let mut text = match &target.base {
        Some(_) => format!("FROM {}/{base}:v1\n", place.registry),
        None => "FROM scratch\n".to_owned(),
    };
    for (from, to) in target.layers {
        let from = if from.is_empty() { "." } else { from };
        text.push_str(&format!("COPY {from} {to}/\n"));
    }
    text.push_str(&format!("ENV AGENT_MODE={}\n", target.env));
    text
}

fn docker_build(place: &Place, target: &Target, files: &Path, reference: &str) -> anyhow::Result<Command> {
    let file = files.join("Dockerfile");
    fs::write(&file, dockerfile(place, target, BASE))?;
    let mut build = command(docker().context("docker")?, &["build", "--quiet", "--tag", reference]);
    build.arg("--file").arg(file).arg(&target.context).env("DOCKER_BUILDKIT", "1");
    Ok(build)
}

/// buildah with a store of its own: what it leaves goes with our folder.
fn buildah_command(place: &Place, arguments: &[&str]) -> Command {
    let mut command = Command::new("buildah");
    command.arg("--root").arg(place.work.join("buildah-root")).arg("--runroot").arg(place.work.join("buildah-run"));
    command.args(["--storage-driver", "overlay"]).args(arguments);
    command
}

fn buildah(place: &Place, target: &Target, files: &Path, reference: &str) -> anyhow::Result<Vec<Command>> {
    let file = files.join("Dockerfile");
    fs::write(&file, dockerfile(place, target, BUILDAH_BASE))?;
    let options = ["build", "--layers", "--isolation", "chroot", "--quiet", "--tls-verify=false", "--tag", reference];
    let mut build = buildah_command(place, &options);
    build.arg("--file").arg(file).arg(&target.context);
    Ok(vec![build, buildah_command(place, &["push", "--quiet", "--tls-verify=false", reference])])
}

/// Debian's buildah builds on nothing whose config has no history, which the specification leaves out at will: it gets
/// a base of the same files that it made itself.
fn buildah_base(place: &Place) -> anyhow::Result<()> {
    let files = place.work.join(BUILDAH_BASE);
    fs::create_dir_all(&files)?;
    let context = place.work.join("projects/fat/context");
    let target = Target { name: BUILDAH_BASE, context, layers: &[("", "/app")], env: "base".into(), base: None };
    let reference = format!("{}/{BUILDAH_BASE}:v1", place.registry);
    measure::run(&mut buildah(place, &target, &files, &reference)?).map(drop)
}

/// umoci has no cache: whoever uses it inserts what they know has changed.
fn umoci(target: &Target, files: &Path, reference: &str, change: Change) -> Vec<Command> {
    let image = |tag: &str| format!("{}:{tag}", files.display());
    let last = target.layers.len() - 1;
    let first = match change {
        Change::Everything => 0,
        Change::File => last,
        Change::Environment | Change::Nothing => last + 1,
    };
    let step = |n: usize| if n == 0 { "base".to_owned() } else { format!("step-{n}") };
    let mut commands = Vec::new();
    for (n, (folder, to)) in target.layers.iter().enumerate().skip(first) {
        let mut insert = command("umoci", &["insert", "--image", &image(&step(n)), "--tag", &step(n + 1)]);
        insert.arg(target.context.join(folder)).arg(to);
        commands.push(insert);
    }
    if change != Change::Nothing {
        let env = format!("--config.env=AGENT_MODE={}", target.env);
        commands.push(command("umoci", &["config", "--image", &image(&step(last + 1)), "--tag", "whole", &env]));
    }
    let to = format!("docker://{reference}");
    commands.push(command("skopeo", &["copy", "--dest-tls-verify=false", &format!("oci:{}", image("whole")), &to]));
    commands
}
