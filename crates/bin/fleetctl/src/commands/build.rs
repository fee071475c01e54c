//! `build`: images without deploying.

mod check;
mod compare;
mod make;
mod registry;
mod sink;
mod statements;
mod telling;

use std::collections::BTreeSet;

use fleet_apply::{Event, Events as _};
use fleet_model::{Address, Kind, model::Recipe};
use fleet_oci::Platform;
use fleet_plan::Plan;

pub use sink::Sink;
pub use telling::Tellings;

use crate::{
    cli::BuildArgs,
    commands::apply,
    context::{Context, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::{self, Prepared},
    world::{Outside as _, World},
};

/// `fleetctl build`.
///
/// # Errors
/// Anything that keeps an image from being made or written; with `--check` also two builds that differ.
pub async fn build(context: &Context, args: &BuildArgs) -> Outcome {
    let mut prepared = Prepared::new(context, &args.environment.environment)?;
    let wanted = wanted(&prepared, &args.images)?;
    let platforms = platforms(&prepared, args)?;
    if args.check {
        return check::check(context, &prepared, &wanted, &platforms).await;
    }
    args.to.iter().try_for_each(|sink| sink::usable(&prepared, sink))?;
    let _lease = apply::lease(&prepared, "build")?;
    let elsewhere: Vec<&Sink> = args.to.iter().filter(|sink| **sink != Sink::Engine).collect();
    if elsewhere.is_empty() || elsewhere.len() < args.to.len() {
        let exit = into_engine(context, &prepared, &args.images, elsewhere.is_empty()).await?;
        if exit == Exit::Done && elsewhere.is_empty() {
            tell_notes(context, make::notes(&mut prepared, &wanted, &platforms)?);
        }
        if exit != Exit::Done || elsewhere.is_empty() {
            return Ok(exit);
        }
    }
    if elsewhere.len() == args.to.len() {
        unchecked(context, &prepared, &wanted);
    }
    let only_registries = elsewhere.iter().all(|sink| matches!(sink, Sink::Registry(_)));
    let statements = !args.no_statements;
    let wanted = make::Wanted { names: &wanted, platforms: &platforms, only_registries, statements };
    let (made, notes) = make::make(context, &mut prepared, wanted).await?;
    let mut references = Vec::new();
    for sink in &elsewhere {
        references.push(sink::write(context, &prepared, sink, &made).await?);
    }
    sink::tell(context, &made, &elsewhere, &references).await;
    tell_notes(context, notes);
    // The process ends here: what it knows of thousands of files is not taken apart first.
    std::mem::forget((prepared, made));
    Ok(Exit::Done)
}

/// Lists what was left out of images (scripts of packages that were not run), also of layers that were made earlier.
fn tell_notes(context: &Context, notes: BTreeSet<String>) {
    for text in notes {
        context.console.emit(Event::Notice { text });
    }
}

/// Says of which images nobody runs the checks: that needs an engine, and other places do without one. What an engine builds
/// it checks, too.
fn unchecked(context: &Context, prepared: &Prepared, names: &BTreeSet<String>) {
    for (name, image) in prepared.model.images.iter().filter(|(name, _)| names.contains(*name)) {
        if !image.checks.is_empty() && matches!(image.recipe, Recipe::Layers(_)) {
            let text = format!(
                "image/{name}: its checks are not run, which needs an engine: add `--to engine` to have them decide"
            );
            context.console.emit(Event::Notice { text });
        }
    }
}

/// The images that are asked for; without names, all of the environment.
fn wanted(prepared: &Prepared, names: &[String]) -> Result<BTreeSet<String>, Failure> {
    let used = &prepared.resolved.images;
    match names.iter().find(|name| !used.contains(*name)) {
        Some(name) => {
            let known: Vec<&str> = used.iter().map(String::as_str).collect();
            let environment = &prepared.scope.environment;
            Err(Failure::new(Exit::Usage, format!("environment {environment} uses no image `{name}`"))
                .hint(format!("it uses: {}", known.join(", "))))
        }
        None if names.is_empty() => Ok(used.clone()),
        None => Ok(names.iter().cloned().collect()),
    }
}

/// The platforms that are asked for; without any, this machine's. Some places hold only one.
fn platforms(prepared: &Prepared, args: &BuildArgs) -> Result<BTreeSet<Platform>, Failure> {
    let asked: BTreeSet<Platform> = args.platform.iter().copied().collect();
    if asked.is_empty() {
        return Ok(BTreeSet::from([prepared.platform]));
    }
    let to_engine = !args.check && (args.to.is_empty() || args.to.contains(&Sink::Engine));
    if to_engine && asked != BTreeSet::from([prepared.platform]) {
        return Err(Failure::new(Exit::Usage, format!("the engine here runs {}", prepared.platform))
            .hint("name another place for other platforms: --to oci:DIR, --to registry"));
    }
    let archive = args.to.iter().any(|sink| matches!(sink, Sink::DockerArchive(_)));
    if archive && asked.len() > 1 {
        return Err(Failure::new(Exit::Usage, "a docker archive holds images for one platform")
            .hint("make one archive for each platform, or an OCI layout for both: --to oci:DIR"));
    }
    Ok(asked)
}

/// Builds, loads and checks; recorded as a generation, which keeps what was built from `gc`.
async fn into_engine(context: &Context, prepared: &Prepared, names: &[String], only: bool) -> Outcome {
    let world = World::connect(context, prepared).await?;
    let state = world.observe_images().await?;
    let instance = prepared.instance(&state.outputs)?;
    let whole = prepared.plan(&instance, &state)?;
    let wanted = |address: &Address| address.kind == Kind::Image && (names.is_empty() || names.contains(&address.name));
    let changes = whole.changes.iter().filter(|change| wanted(&change.address)).cloned().collect();
    let plan = Plan { changes, notes: Vec::new(), ..whole.clone() };
    let planned = pipeline::Planned { instance, state, plan: whole, whole: false };
    if plan.is_empty() {
        world.finish().await;
        pipeline::catch_up(prepared, &planned, world.history()).await?;
        if !only {
            return Ok(Exit::Done);
        }
        if !context.json() {
            print_out("nothing to build: every image is in the engine\n");
        }
        return Ok(apply::finish(context, &plan, &fleet_apply::Report::default(), &[]));
    }
    let report = apply::run(context, prepared, &world, &plan, &planned).await?;
    let told = only || !report.is_complete();
    Ok(if told { apply::finish(context, &plan, &report, &[]) } else { Exit::Done })
}
