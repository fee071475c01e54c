//! A project for one image, and the command that builds and pushes it: the program as people run it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, ensure};

use crate::{
    measure,
    peers::{BASE, Place, Target, command},
};

/// The built program: FLEETCTL, or the one beside this program.
///
/// # Errors
/// When there is none.
pub fn program() -> anyhow::Result<PathBuf> {
    let given = std::env::var_os("FLEETCTL").map(PathBuf::from);
    let beside = || Some(std::env::current_exe().ok()?.with_file_name("fleetctl"));
    let path = given.or_else(beside).context("FLEETCTL is not set")?;
    ensure!(path.is_file(), "{} is not there: cargo build --release -p fleetctl", path.display());
    Ok(path)
}

/// The folder that the context is in: nothing outside a project is part of its images.
fn project(target: &Target) -> PathBuf {
    target.context.parent().map_or_else(PathBuf::new, Path::to_owned)
}

/// Writes the project; the base is pinned as `fleetctl lock` does.
///
/// # Errors
/// When it cannot be written.
pub fn prepare(place: &Place, target: &Target) -> anyhow::Result<()> {
    let project = project(target);
    fs::create_dir_all(&project)?;
    write(&project, place, target)?;
    if target.base.is_some() {
        measure::run(&mut [at(&project, &["lock"])?])?;
    }
    Ok(())
}

fn write(project: &Path, place: &Place, target: &Target) -> anyhow::Result<()> {
    let base = if target.base.is_some() { format!("{}/{BASE}:v1", place.registry) } else { "scratch".to_owned() };
    let mut nodes = String::new();
    for (from, to) in target.layers {
        let from = if from.is_empty() { "context".to_owned() } else { format!("context/{from}") };
        nodes.push_str(&format!("        tree \"{from}\" to=\"{to}\"\n"));
    }
    let text = format!(
        "fleet \"bench\" domain=\"bench.test\"\nimages {{\n    image \"{name}\" {{\n        base \"{base}\"\n{nodes}        \
         env AGENT_MODE=\"{env}\"\n    }}\n}}\nenvironment \"local\" {{\n    target \"docker\"\n    \
         homeserver image=\"{name}\" kind=\"synapse\" port=16167\n}}\n",
        name = target.name,
        env = target.env,
    );
    let file = project.join("fleet.kdl");
    // As an editor does it: an unchanged file keeps its times.
    if fs::read_to_string(&file).ok().as_deref() != Some(&text) {
        fs::write(&file, text)?;
    }
    Ok(())
}

/// Builds and pushes, below a place of the tool's name and with these options.
///
/// # Errors
/// When the project cannot be written.
pub fn build(tool: &str, place: &Place, target: &Target, options: &[&str]) -> anyhow::Result<Vec<Command>> {
    let project = project(target);
    write(&project, place, target)?;
    let to = format!("registry:{}/{tool}", place.registry);
    Ok(vec![at(&project, &[&["build", target.name, "--to", &to], options].concat())?])
}

fn at(project: &Path, arguments: &[&str]) -> anyhow::Result<Command> {
    let program = program()?;
    let mut command = command(program.to_str().context("a path that is not UTF-8")?, &["-C"]);
    command.arg(project).args(arguments);
    Ok(command)
}
