//! The reader's front door: about one line per arrow.
//!
//! ```text
//! fleet.kdl ─▶ Model ─▶ DerivationGraph ─▶ Plan ─▶ apply ─▶ the world
//!                                            ▲                  │
//!                                          State ◀── observe ◀──┘
//! ```

mod record;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicBool},
};

use fleet_apply::{Execution, Recorder, Report, Scope, execute};
use fleet_derivation::{Derivation, Hash, Input};
use fleet_docker::Engine;
use fleet_graph::{Inputs, Instance, Problem, image::PlannedImage, instantiate};
use fleet_model::{
    Address, Diagnostic, Origin, SourceTree,
    model::{Environment, Image, Layer, Model, Recipe, Target},
    resolved::Resolved,
};
use fleet_oci::{Lock, Platform};
use fleet_plan::{Change, Entry, Generation, Health, Note, Observed, Outcome, Plan, RunState, State};
use fleet_planner::{Known, Planning};
use fleet_store::{Output, Pin, Store};

use crate::{
    assembly::Assembler,
    cli::Global,
    context::Context,
    error::Failure,
    exit::Exit,
    programs::Programs,
    project::{FLEET_KDL, FLEET_LOCK, Opened, refused, report},
    ui::out::to_stderr,
    world::Outside,
};

pub use record::catch_up;

/// A project read and checked, and what one environment makes of it.
pub struct Prepared {
    /// The project.
    pub opened: Opened,
    /// fleet.kdl ─▶ Model.
    pub model: Model,
    /// What the environment makes of it.
    pub resolved: Resolved,
    /// `fleet.lock`.
    pub lock: Lock,
    /// Names.
    pub scope: Scope,
    /// What the target runs.
    pub platform: Platform,
    /// The agent runtime.
    pub agent: Programs,
    /// This program, for the manager.
    pub fleetctl: Programs,
    /// `SOURCE_DATE_EPOCH`.
    pub source_date_epoch: Option<u64>,
    global: Global,
}

impl Prepared {
    /// Reads and checks everything that one environment needs.
    ///
    /// # Errors
    /// Every mistake in `fleet.kdl`, an unknown environment, no agent runtime.
    pub fn new(context: &Context, environment: &str) -> Result<Self, Failure> {
        let opened = Opened::open(&context.global)?;
        let model = opened.model(&context.global)?;
        Self::of(context, opened, model, environment)
    }

    /// The same of a project that was read and checked already.
    ///
    /// # Errors
    /// An unknown environment, a lock file that cannot be read, no agent runtime.
    pub fn of(context: &Context, opened: Opened, model: Model, environment: &str) -> Result<Self, Failure> {
        let resolved = fleet_model::resolve(&model, environment)
            .map_err(|error| Failure::caused(Exit::Usage, "there is no such environment", &error))?;
        let lock = opened.lock()?;
        let declared = model.environments.get(environment);
        let platform = declared
            .and_then(|declared| fleet_graph::stacks::platform(&model, declared))
            .unwrap_or_else(crate::machine::own_platform);
        // Looked for once per run, and only where an image has it: hashing its sources asks the compiler for its version,
        // which takes longer than all the rest of a small build.
        let agent = match context.agent.get() {
            Some(agent) => agent.clone(),
            None if has_layer(&model, |layer| matches!(layer, Layer::FleetAgent { .. })) => {
                Programs::find(&opened.files, platform)
                    .map_err(|error| Failure::caused(Exit::Failed, "there is no agent runtime", &error))?
            }
            None => Programs::default(),
        };
        let _ = context.agent.set(agent.clone());
        let fleetctl = if has_layer(&model, |layer| matches!(layer, Layer::Fleetctl { .. })) {
            Programs::of_fleetctl(&opened.files)
                .map_err(|error| Failure::caused(Exit::Failed, "there is no fleetctl for the manager", &error))?
        } else {
            Programs::default()
        };
        let scope = Scope {
            fleet: model.fleet.name.clone(),
            environment: environment.to_owned(),
            domain: model.fleet.domain.clone(),
        };
        let _ = opened.files.save_cache();
        context.tell_notes(&opened.store);
        let source_date_epoch = crate::machine::source_date_epoch()?;
        let global = context.global.clone();
        Ok(Self { opened, model, resolved, lock, scope, platform, agent, fleetctl, source_date_epoch, global })
    }

    /// The environment's declaration.
    ///
    /// # Errors
    /// Never for an environment that [`Self::new`] accepted.
    pub fn environment(&self) -> Result<&Environment, Failure> {
        self.model
            .environments
            .get(&self.scope.environment)
            .ok_or_else(|| Failure::new(Exit::Usage, format!("there is no environment {}", self.scope.environment)))
    }

    /// Refuses what this version does on the docker target only.
    ///
    /// # Errors
    /// For a target other than `docker`.
    pub fn require_docker(&self) -> Result<(), Failure> {
        match self.environment()?.target {
            Target::Docker => Ok(()),
            Target::Aws { .. } => Err(Failure::new(
                Exit::Failed,
                format!("environment {} is on aws, where this version does not do this", self.scope.environment),
            )
            .hint("docs/reference/aws.md says what commands do there")),
        }
    }

    /// Makes this environment's images into the project's store. Install scripts run in `engine`.
    ///
    /// # Errors
    /// Registry settings of this machine that cannot be used.
    pub fn assembler(&self, engine: Option<Engine>) -> Result<Assembler, Failure> {
        Ok(Assembler {
            fleet: self.scope.fleet.clone(),
            engine,
            store: Arc::clone(&self.opened.store),
            agent: self.agent.clone(),
            fleetctl: self.fleetctl.clone(),
            project: self.opened.root.clone(),
            registries: crate::world::registries()?,
            sources: self.contexts(),
            described: false,
            kept: None,
        })
    }

    /// Files for the contexts of Containerfiles; nothing where there is none.
    fn contexts(&self) -> Arc<SourceTree> {
        let from_one = |image: &Image| matches!(image.recipe, Recipe::Containerfile(_));
        if self.model.images.values().any(from_one) { Arc::new(self.opened.tree.clone()) } else { Arc::default() }
    }

    /// Model ─▶ DerivationGraph, with the outputs that are known.
    ///
    /// # Errors
    /// Every problem with templates, images and the lock, shown at once.
    pub fn instance(&self, outputs: &BTreeMap<Hash, String>) -> Result<Instance, Failure> {
        self.instantiated(outputs).map_err(|found| self.refuse(&found))
    }

    /// The same, with problems as diagnostics.
    ///
    /// # Errors
    /// Every problem at once.
    pub fn instantiated(&self, outputs: &BTreeMap<Hash, String>) -> Result<Instance, Vec<Diagnostic>> {
        self.derive(&self.resolved, outputs, instantiate)
    }

    /// Only some images and what they stand on, with nothing known beforehand: what `build --to` makes.
    ///
    /// # Errors
    /// Every problem of these images, shown at once.
    pub fn images(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, PlannedImage>, Failure> {
        let resolved = Resolved { images: names.clone(), ..self.resolved.clone() };
        let made = self.derive(&resolved, &BTreeMap::new(), fleet_graph::image::images);
        made.map_err(|found| self.refuse(&found))
    }

    fn refuse(&self, found: &[Diagnostic]) -> Failure {
        for diagnostic in found {
            to_stderr(format_args!("{}", report(diagnostic, &self.global)));
            crate::ui::github::annotate(diagnostic);
        }
        refused(found, &format!("what environment {} is made of", self.scope.environment))
    }

    fn derive<T>(
        &self,
        resolved: &Resolved,
        outputs: &BTreeMap<Hash, String>,
        derive: impl FnOnce(&Inputs<'_>) -> Result<T, Vec<Problem>>,
    ) -> Result<T, Vec<Diagnostic>> {
        // `of` has found it there.
        let Some(environment) = self.model.environments.get(&self.scope.environment) else { return Err(Vec::new()) };
        let (agent_binaries, fleetctl_binaries) = (self.agent.hashes(), self.fleetctl.hashes());
        let inputs = Inputs {
            model: &self.model,
            environment,
            resolved,
            sources: &self.opened.tree,
            lock: &self.lock,
            platform: self.platform,
            agent_binaries: &agent_binaries,
            fleetctl_binaries: &fleetctl_binaries,
            source_date_epoch: self.source_date_epoch,
            outputs,
        };
        derive(&inputs).map_err(|problems| diagnostics(&problems, &self.opened.tree))
    }

    /// (graph, State) ─▶ Plan.
    ///
    /// # Errors
    /// A generation that cannot be read.
    pub fn plan(&self, instance: &Instance, state: &State) -> Result<Plan, Failure> {
        let last = self.last_generation()?.map(|generation| generation.objects).unwrap_or_default();
        let observed = state.objects.values().filter_map(|object| object.hash);
        let known = known(&self.opened.store, instance, last.values().copied().chain(observed));
        Ok(fleet_planner::plan(&Planning {
            fleet: &self.scope.fleet,
            environment: &self.scope.environment,
            graph: &instance.graph,
            desired: &instance.desired,
            state,
            known: &known,
            last: &last,
        }))
    }

    /// What the environment's history is called in `.fleet/`. On AWS that is a copy of what the state bucket of the account
    /// has, and another account has another one.
    #[must_use]
    pub fn history_name(&self) -> String {
        let environment = &self.scope.environment;
        match self.model.environments.get(environment).map(|declared| &declared.target) {
            Some(Target::Aws { account, region, .. }) => format!("{environment}@{account}-{region}"),
            Some(Target::Docker) | None => environment.clone(),
        }
    }

    /// The newest generation of the environment that this checkout knows. On AWS it knows what it read of the state bucket.
    ///
    /// # Errors
    /// One that cannot be read.
    pub fn last_generation(&self) -> Result<Option<Generation>, Failure> {
        self.opened
            .store
            .latest_generation(&self.history_name())
            .map_err(|error| Failure::caused(Exit::Failed, "the history cannot be read", &error))
    }

    /// The state as the last generation left it, for `--offline`.
    ///
    /// # Errors
    /// A generation that cannot be read.
    pub fn recorded_state(&self) -> Result<State, Failure> {
        let mut state = State::default();
        let Some(generation) = self.last_generation()? else { return Ok(state) };
        for (address, hash) in generation.objects {
            let recorded = Observed {
                hash: Some(hash),
                actual: None,
                run: RunState::Present,
                health: Health::None,
                id: String::new(),
                version: hash.to_string(),
                unfinished: None,
            };
            state.objects.insert(address, recorded);
        }
        state.outputs = generation.outputs;
        Ok(state)
    }
}

/// Problems as a person meets them: a template that breaks for many agents is one mistake.
fn diagnostics(problems: &[Problem], tree: &SourceTree) -> Vec<Diagnostic> {
    let mut found: BTreeMap<(&Option<Origin>, &str, &str), (&Problem, usize)> = BTreeMap::new();
    for problem in problems {
        found.entry((&problem.origin, problem.code, &problem.what)).or_insert((problem, 0)).1 += 1;
    }
    let one = |(problem, times): (&Problem, usize)| {
        let more = if times > 1 { format!(" and {} more", times - 1) } else { String::new() };
        let message = format!("{}{more}: {}", problem.address, problem.what);
        let at = problem.origin.as_ref().map(|origin| (origin, "here"));
        Diagnostic::of_line(problem.code, message, problem.help.clone(), at, tree)
    };
    found.into_values().map(one).collect()
}

/// Whether any image has such a layer.
fn has_layer(model: &Model, such: impl Fn(&Layer) -> bool) -> bool {
    model.images.values().any(|image| match &image.recipe {
        Recipe::Layers(recipe) => recipe.layers.iter().any(|layer| such(&layer.value)),
        Recipe::Containerfile(_) => false,
    })
}

/// A plan and what it was made from.
pub struct Planned {
    /// The graph and the objects.
    pub instance: Instance,
    /// What was seen.
    pub state: State,
    /// The plan.
    pub plan: Plan,
    /// Whether everything was looked at; `build` looks at images only.
    pub whole: bool,
}

/// observe ─▶ State ─▶ Plan, with reads only.
///
/// # Errors
/// See [`Prepared::instance`]; an outside system that cannot be read.
pub async fn plan(prepared: &Prepared, world: &dyn Outside) -> Result<Planned, Failure> {
    let outputs = world.observe_images().await?;
    let instance = prepared.instance(&outputs.outputs)?;
    let wanted: Vec<Address> = instance.desired.keys().cloned().collect();
    let state = outputs.merged(world.observe(&wanted).await?);
    let mut plan = prepared.plan(&instance, &state)?;
    plan.notes.extend(world.remarks().into_iter().map(|text| Note { address: None, text }));
    plan.notes.extend(beyond_note(&beyond(&plan, world)));
    Ok(Planned { instance, state, plan, whole: true })
}

/// Changes that no provider of the target takes: what this version does not do there.
#[must_use]
pub fn beyond<'p>(plan: &'p Plan, world: &dyn Outside) -> Vec<&'p Change> {
    let providers = world.providers();
    plan.changes.iter().filter(|change| !providers.iter().any(|provider| provider.owns(&change.address))).collect()
}

/// The same in words; nothing where there are none.
#[must_use]
pub fn beyond_note(beyond: &[&Change]) -> Option<Note> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for change in beyond {
        *counts.entry(change.address.kind.as_str()).or_default() += 1;
    }
    let counted: Vec<String> = counts.iter().map(|(kind, count)| format!("{count} of {kind}/…")).collect();
    (!counted.is_empty()).then(|| Note {
        address: None,
        text: format!("this version does not make on aws: {}; see docs/reference/aws.md", counted.join(", ")),
    })
}

/// Plan ─▶ apply ─▶ the world; then the record of it.
///
/// # Errors
/// A store that cannot be written. Failed changes are in the report.
pub async fn apply(
    prepared: &Prepared,
    world: &dyn Outside,
    plan: &Plan,
    planned: &Planned,
    stop: &AtomicBool,
) -> Result<Report, Failure> {
    let instance = &planned.instance;
    let store = &prepared.opened.store;
    catch_up(prepared, planned, world.history()).await?;
    // Before anything carries a hash, what the hash stands for is in the store.
    store.put_hashed(instance.graph.iter()).map_err(|error| unwritable(&error))?;
    let outputs = world.observe_images().await?.outputs;
    let recorder = StoreRecorder { store: Arc::clone(store) };
    let providers = world.providers();
    let beyond = beyond(plan, world);
    let within =
        Plan { changes: plan.changes.iter().filter(|c| !beyond.contains(c)).cloned().collect(), ..plan.clone() };
    let execution = Execution {
        plan: &within,
        providers: &providers,
        secrets: world.secrets(),
        rollout: prepared.environment()?.rollout,
        events: world.console(),
        recorder: &recorder,
        stop,
    };
    let mut report = execute(&execution, outputs).await;
    report.entries.extend(beyond.into_iter().map(|change| Entry::of(change, Outcome::Skipped)));
    world.finish().await;
    pin(store, &prepared.lock, Some(&prepared.model))?;
    record::applied(prepared, planned, &report, world.history()).await?;
    Ok(report)
}

/// Keeps from `gc` what `fleet.lock` pins and `fleet.kdl` fetches, whatever was built of it. Without a model, which mistakes in
/// `fleet.kdl` prevent, what was fetched stays kept as it was.
///
/// # Errors
/// A store that cannot be written.
pub fn pin(store: &Store, lock: &Lock, model: Option<&Model>) -> Result<(), Failure> {
    store.pin(FLEET_LOCK, &lock_pins(lock)).map_err(|error| unwritable(&error))?;
    let Some(model) = model else { return Ok(()) };
    let fetched: Vec<Pin> = fetched_pins(model).collect();
    store.pin(FLEET_KDL, &fetched).map_err(|error| unwritable(&error))
}

/// Packages that `fleet.lock` names stay in the store: a mirror may no longer have them when they are needed again.
#[must_use]
pub fn lock_pins(lock: &Lock) -> Vec<Pin> {
    let debian = lock.debian.values().flat_map(BTreeMap::values).flat_map(|l| &l.packages).map(|p| p.sha256.clone());
    let pip = lock.pip.values().flat_map(BTreeMap::values).flat_map(BTreeMap::values);
    let pip = pip.flat_map(|l| &l.packages).map(|p| p.sha256.clone());
    let npm = lock.npm.values().flat_map(BTreeMap::values).flat_map(|l| &l.packages);
    let npm = npm.chain(lock.node.values().flat_map(|l| l.platforms.values()));
    let npm = npm.filter_map(|pin| fleet_oci::Digest::from_integrity(&pin.integrity).ok());
    debian.chain(pip).chain(npm).filter_map(|digest| crate::blobs::blob_id(&digest)).map(Pin::Blob).collect()
}

/// So do files that `fetch` nodes name.
fn fetched_pins(model: &Model) -> impl Iterator<Item = Pin> {
    let layers = model.images.values().flat_map(|image| match &image.recipe {
        Recipe::Layers(recipe) => recipe.layers.as_slice(),
        Recipe::Containerfile(_) => &[],
    });
    layers.filter_map(|layer| match &layer.value {
        Layer::Fetch(fetched) => fleet_store::BlobId::sha256(&fetched.sha256).ok().map(Pin::Blob),
        _ => None,
    })
}

/// Derivations by hash: the graph's own, and from the store those asked for with everything they were made from.
#[must_use]
pub fn known(store: &Store, instance: &Instance, asked: impl Iterator<Item = Hash>) -> Known {
    let mut known: Known = instance.graph.iter().map(|derivation| (derivation.hash(), derivation.clone())).collect();
    let mut waiting: Vec<Hash> = asked.collect();
    while let Some(hash) = waiting.pop() {
        if known.contains_key(&hash) {
            continue;
        }
        // A derivation that is not in the store only makes a reason unknown.
        if let Ok(Some(derivation)) = store.derivation(&hash) {
            waiting.extend(derivation.inputs.values().filter_map(|input| match input {
                Input::Derivation { hash, .. } => Some(*hash),
                _ => None,
            }));
            known.insert(hash, derivation.into());
        }
    }
    known
}

fn unwritable(error: &dyn std::error::Error) -> Failure {
    Failure::caused(Exit::Failed, "the store .fleet/ cannot be written", error)
}

/// Writes what an execution learns into the store at once.
struct StoreRecorder {
    store: Arc<Store>,
}

impl Recorder for StoreRecorder {
    fn derivation(&self, derivation: &Derivation) {
        // Losing it costs an explanation later; the change itself must not fail for that.
        let _ = self.store.put_derivations([derivation]);
    }

    fn output(&self, derivation: &Hash, output: &str) {
        if !matches!(self.store.output(derivation), Ok(Some(_))) {
            let _ = self.store.put_output(derivation, &Output { digest: output.to_owned(), ..Output::default() });
        }
    }
}
