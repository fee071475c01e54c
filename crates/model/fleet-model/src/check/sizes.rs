//! Sizes: CPU and memory pairs that the target really has.

use std::collections::BTreeMap;

use crate::{
    code,
    context::Context,
    diagnostic::Draft,
    model::{Environment, Model, Size, Target},
    origin::Origin,
    resolve::Layers,
};

/// What OpenClaw needs to start and to hold a conversation, in MiB.
const OPENCLAW_MEMORY_MIB: u32 = 1024;

/// Fargate's pairs: CPU units, then least, most and step of memory in MiB.
/// Source: AWS, "Task CPU and memory" of Amazon ECS on Fargate (2026).
const FARGATE: [(u32, u32, u32, u32); 7] = [
    (256, 512, 2048, 512),
    (512, 1024, 4096, 1024),
    (1024, 2048, 8192, 1024),
    (2048, 4096, 16_384, 1024),
    (4096, 8192, 30_720, 1024),
    (8192, 16_384, 61_440, 4096),
    (16_384, 32_768, 122_880, 8192),
];

/// Checks the size of every agent and service, each declaration once per target.
pub(crate) fn check(ctx: &mut Context<'_>, model: &Model) {
    if ctx.gaps.text {
        return;
    }
    for environment in model.environments.values() {
        let mut sizes: BTreeMap<(Option<&Origin>, u32, u32), bool> = BTreeMap::new();
        for id in environment.deploy.keys() {
            let Some(person) = model.org.people.get(id) else { continue };
            let (size, origin) = Layers::of(model, environment, person).size();
            sizes.insert((origin, size.cpu, size.memory_mib), true);
        }
        let homeserver = &environment.homeserver;
        let services = [(homeserver.origin.as_ref(), homeserver.size)];
        let web = environment.web.iter().map(|web| (Some(&web.origin), web.size));
        let manager = environment.manager.iter().map(|manager| (Some(&manager.origin), manager.size));
        for (origin, size) in services.into_iter().chain(web).chain(manager) {
            sizes.entry((origin, size.cpu, size.memory_mib)).or_insert(false);
        }
        for ((origin, cpu, memory_mib), agent) in sizes {
            one(ctx, environment, (origin, Size { cpu, memory_mib }), agent);
        }
    }
}

fn one(ctx: &mut Context<'_>, environment: &Environment, (origin, size): (Option<&Origin>, Size), agent: bool) {
    let origin = origin.unwrap_or(&environment.origin);
    let place = ctx.files.place_of(origin);
    if let (Target::Aws { .. }, Err(help)) = (&environment.target, fargate(size)) {
        ctx.report(
            Draft::error(
                code::BAD_SIZE,
                format!("Fargate has no size of {} CPU units with {} MiB", size.cpu, size.memory_mib),
            )
            .maybe_at(place, format!("used in environment `{}`", environment.name))
            .help(help),
        );
    }
    if agent && size.memory_mib < OPENCLAW_MEMORY_MIB {
        ctx.report(
            Draft::warning(code::LITTLE_MEMORY, format!("{} MiB are little for an agent", size.memory_mib))
                .maybe_at(place, format!("used in environment `{}`", environment.name))
                .help(format!(
                    "OpenClaw needs about {OPENCLAW_MEMORY_MIB} MiB; with less it may be killed while it answers"
                )),
        );
    }
}

fn fargate(size: Size) -> Result<(), String> {
    let Some((_, least, most, step)) = FARGATE.iter().find(|(cpu, ..)| *cpu == size.cpu) else {
        let known: Vec<String> = FARGATE.iter().map(|(cpu, ..)| cpu.to_string()).collect();
        return Err(format!("cpu is one of {}", known.join(", ")));
    };
    // The smallest has three sizes that are no even steps.
    if size.cpu == 256 {
        let fits = [512, 1024, 2048].contains(&size.memory_mib);
        return if fits { Ok(()) } else { Err("with cpu=256, memory-mib is 512, 1024 or 2048".to_owned()) };
    }
    if (*least..=*most).contains(&size.memory_mib) && (size.memory_mib - least).is_multiple_of(*step) {
        return Ok(());
    }
    Err(format!("with cpu={}, memory-mib goes from {least} to {most} in steps of {step}", size.cpu))
}
