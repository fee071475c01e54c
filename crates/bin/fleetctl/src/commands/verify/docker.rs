//! `verify` of an environment on this machine: its container engine, what it has room for, and whether models answer.

use std::path::Path;

use fleet_model::model::Size;
use fleet_plan::verify::{Finding, Verdict};

use super::{identity, images};
use crate::{commands::status::model_problems, context::Context, error::Failure, pipeline::Prepared, world::World};

/// Bytes of a MiB.
const MIB: u64 = 1 << 20;
/// MiB that must be free for the images of an environment to be made and loaded: the shipped ones take half of it.
const FREE: u64 = 5 << 10;

/// What was found.
///
/// # Errors
/// No engine; a fleet secret that is refused.
pub async fn findings(context: &Context, prepared: &Prepared) -> Result<Vec<Finding>, Failure> {
    let world = World::connect(context, prepared).await?;
    let engine = world.docker.engine();
    let mut found =
        vec![identity("container engine", format!("{:?} {} at {}", engine.kind, engine.version, engine.endpoint))];
    found.extend(images(prepared)?.into_iter().map(|(image, declared)| platform(&engine.platform, image, declared)));
    found.push(memory(wanted(prepared)?, engine.memory));
    found.extend(disk(engine.root.as_deref()));
    let problems = model_problems(&prepared.model, &prepared.resolved, &world).await;
    found.extend(
        problems.into_iter().map(|problem| {
            Finding::new(Verdict::Warning, format!("model provider {}", problem.provider), problem.what)
        }),
    );
    Ok(found)
}

/// Room where the engine keeps images and volumes, where that is a folder of this machine.
fn disk(root: Option<&Path>) -> Option<Finding> {
    let root = root?;
    let stat = rustix::fs::statvfs(root).ok()?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize) / MIB;
    let (what, found) = ("disk", format!("{free} MiB free in {}", root.display()));
    let needed = format!("{FREE} MiB");
    Some(if free >= FREE {
        Finding::new(Verdict::Ok, what, found).needs(needed)
    } else {
        Finding::new(Verdict::Warning, what, found)
            .needs(needed)
            .remedy("make room: `fleetctl gc`, and `docker system prune` for what other programs left")
    })
}

/// The engine runs images of its own platform. Of others it may, where its kernel emulates them, slowly.
fn platform(engine: &str, image: &str, declared: &[String]) -> Finding {
    let what = format!("image/{image}");
    if declared.is_empty() || declared.iter().any(|one| one == engine) {
        return Finding::new(Verdict::Ok, what, format!("is for {engine}, as the engine is"));
    }
    Finding::new(Verdict::Failed, what, format!("is declared for {}", declared.join(", ")))
        .needs(engine)
        .remedy(format!("add {engine} to its `platform`"))
}

/// MiB that containers may take together.
fn wanted(prepared: &Prepared) -> Result<u64, Failure> {
    let environment = prepared.environment()?;
    let services = [Some(environment.homeserver.size), environment.web.as_ref().map(|web| web.size)];
    let agents = prepared.resolved.agents.values().map(|agent| agent.size.value);
    Ok(agents.chain(services.into_iter().flatten()).map(|size: Size| u64::from(size.memory_mib)).sum())
}

fn memory(wanted: u64, bytes: u64) -> Finding {
    let there = bytes / MIB;
    let needed = format!("{wanted} MiB at most");
    if bytes == 0 {
        return Finding::new(Verdict::Unseen, "memory", "the engine does not tell").needs(needed);
    }
    let found = format!("{there} MiB there");
    if wanted <= there {
        return Finding::new(Verdict::Ok, "memory", found).needs(needed);
    }
    Finding::new(Verdict::Warning, "memory", found)
        .needs(needed)
        .remedy("all containers at their limits do not fit: deploy fewer agents, or give them a smaller `size`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_than_there_is_is_a_warning_and_not_a_failure() {
        assert_eq!(memory(2048, 4096 * MIB).verdict, Verdict::Ok);
        assert_eq!(memory(8192, 4096 * MIB).verdict, Verdict::Warning);
        assert_eq!(memory(1, 0).verdict, Verdict::Unseen);
    }

    #[test]
    fn an_image_for_other_machines_alone_is_a_failure() {
        let arm = ["linux/arm64".to_owned()];
        assert_eq!(platform("linux/amd64", "agent", &arm).verdict, Verdict::Failed);
        assert_eq!(platform("linux/arm64", "agent", &arm).verdict, Verdict::Ok);
        assert_eq!(platform("linux/amd64", "agent", &[]).verdict, Verdict::Ok);
    }
}
