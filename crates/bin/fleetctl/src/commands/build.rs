//! `build` and `gc`: images without deploying, and the store without what nobody needs.

use fleet_model::{Address, Kind};
use fleet_objects::Desired;
use fleet_plan::Plan;

use crate::{
    cli::{Format, Global},
    commands::apply,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::{self, Prepared},
    project::Opened,
    world::World,
};

/// `fleetctl build`.
///
/// # Errors
/// Anything that keeps an image from being made; with `check` also two builds that differ.
pub async fn build(context: &Context, environment: &str, names: &[String], check: bool) -> Outcome {
    let prepared = Prepared::new(context, environment)?;
    for name in names {
        if !prepared.resolved.images.contains(name) {
            let known: Vec<&str> = prepared.resolved.images.iter().map(String::as_str).collect();
            return Err(Failure::new(Exit::Usage, format!("environment {environment} uses no image `{name}`"))
                .hint(format!("it uses: {}", known.join(", "))));
        }
    }
    let _lease = apply::lease(&prepared, "build")?;
    let world = World::connect(context, &prepared).await?;
    if check {
        return reproducible(context, &prepared, &world, names).await;
    }
    let state = world.observe_images().await?;
    let instance = prepared.instance(&state.outputs)?;
    let whole = prepared.plan(&instance, &state)?;
    let wanted = |address: &Address| address.kind == Kind::Image && (names.is_empty() || names.contains(&address.name));
    let changes = whole.changes.iter().filter(|change| wanted(&change.address)).cloned().collect();
    let plan = Plan { changes, notes: Vec::new(), ..whole.clone() };
    let planned = pipeline::Planned { instance, state, plan: whole };
    if plan.is_empty() {
        if !context.json() {
            print_out("nothing to build: every image is in the engine\n");
        }
        world.finish().await;
        return Ok(apply::finish(context, &plan, &fleet_apply::Report::default()));
    }
    let report = apply::run(context, &prepared, &world, &plan, &planned).await?;
    Ok(apply::finish(context, &plan, &report))
}

/// Makes every layer again in an empty store elsewhere and compares digests.
async fn reproducible(context: &Context, prepared: &Prepared, world: &World, names: &[String]) -> Outcome {
    let instance = prepared.instance(&std::collections::BTreeMap::new())?;
    let mut differs = false;
    let mut compared = Vec::new();
    let say = |line: String| if !context.json() { print_out(&line) };
    let place = tempfile::tempdir().map_err(|error| Failure::caused(Exit::Failed, "no room for a second build", &error))?;
    let store = fleet_store::Store::open(place.path())
        .map_err(|error| Failure::caused(Exit::Failed, "no room for a second build", &error))?;
    let again = crate::images::ImageProvider {
        engine: world.images.engine.clone(),
        fleet: world.images.fleet.clone(),
        store: std::sync::Arc::new(store),
        sources: std::sync::Arc::clone(&world.images.sources),
        agent: world.images.agent.clone(),
        project: world.images.project.clone(),
        registries: world.images.registries.clone(),
    };
    for (address, desired) in &instance.desired {
        let (Desired::Image(spec), Some(derivation)) = (desired, instance.graph.get(address)) else { continue };
        if !names.is_empty() && !names.contains(&address.name) {
            continue;
        }
        if matches!(spec.recipe.layers.as_slice(), [fleet_oci::LayerRecipe::Containerfile { .. }]) {
            compared.push(serde_json::json!({"address": address, "same": null}));
            say(format!("{address}: built by the engine from a Containerfile, not reproducible\n"));
            continue;
        }
        let failed = |error: fleet_apply::ProviderError| Failure::caused(Exit::Failed, "a build failed", &error);
        let first = world.images.assemble(spec, derivation, &*context.console).await.map_err(failed)?;
        let second = again.assemble(spec, derivation, &*context.console).await.map_err(failed)?;
        compared.push(serde_json::json!({
            "address": address, "same": first.digest == second.digest, "first": first.digest, "second": second.digest,
        }));
        if first.digest == second.digest {
            say(format!("{address}: {} both times\n", first.digest));
        } else {
            differs = true;
            say(format!("{address}: {} and then {}\n", first.digest, second.digest));
            for (a, b) in first.layers.iter().zip(&second.layers).filter(|(a, b)| a.digest != b.digest) {
                say(format!("  a layer differs: {} and {}\n", a.digest, b.digest));
            }
        }
    }
    if context.json() {
        print_json(&serde_json::json!({"schema": 1, "images": compared}));
    }
    if differs { Err(Failure::new(Exit::Failed, "the same inputs gave different images")) } else { Ok(Exit::Done) }
}

/// `fleetctl gc`.
///
/// # Errors
/// A store that cannot be collected.
pub fn gc(global: &Global, keep: usize) -> Outcome {
    let root = Opened::find_root(global)?;
    let store = fleet_store::Store::open(&root)
        .map_err(|error| Failure::caused(Exit::Failed, "the store cannot be opened", &error))?;
    let collected = store.gc(keep).map_err(|error| Failure::caused(Exit::Failed, "nothing was collected", &error))?;
    if global.format == Format::Json {
        print_json(&serde_json::json!({
            "schema": 1, "removed": collected.removed, "bytes": collected.bytes, "kept": collected.kept,
        }));
        return Ok(Exit::Done);
    }
    print_out(&format!(
        "removed {} files, {} MB; kept {} files\n",
        collected.removed,
        collected.bytes >> 20,
        collected.kept
    ));
    Ok(Exit::Done)
}
