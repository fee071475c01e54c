//! [`Roll`]: carries out the [`Step`]s of one container, and returns to the former container when the new one fails.

use std::time::Duration;

use fleet_apply::{Applied, Event, ProviderError, Ready, Scope};
use fleet_derivation::Hash;
use fleet_model::Address;
use fleet_plan::ContainerSpec;

use crate::{
    EngineError,
    calls::Calls,
    files,
    observe::FORMER,
    recover::{Pair, Step},
    spec::{Making, create_body, uploads},
    wait,
};

/// How long a former container, which ran before, may take to run again.
const FORMER_RUNS_WITHIN: Duration = Duration::from_secs(60);

/// One container on its way to what is wanted.
pub(crate) struct Roll<'a> {
    pub calls: Calls<'a>,
    pub scope: &'a Scope,
    pub address: &'a Address,
    pub spec: &'a ContainerSpec,
    pub hash: Hash,
    /// Present when the steps make a container.
    pub image_id: Option<String>,
    pub ready: &'a Ready<'a>,
    /// Container name.
    pub name: String,
    /// Id under `name`.
    pub current: Option<String>,
    /// Id under `<name>.former`.
    pub former: Option<String>,
    /// This run made the current one.
    pub made: bool,
}

/// Why a step did not succeed.
enum Trouble {
    /// The engine refused or is gone.
    Engine(EngineError),
    /// The files could not be archived.
    Files(files::ArchiveError),
    /// It does not become healthy.
    Unhealthy(String),
}

impl From<EngineError> for Trouble {
    fn from(error: EngineError) -> Self {
        Self::Engine(error)
    }
}

impl Roll<'_> {
    /// Carries out the steps that `recover::steps` named for `pair`.
    pub(crate) async fn run(mut self, pair: Pair, steps: &[Step]) -> Result<Applied, ProviderError> {
        self.current = pair.current.map(|p| p.id);
        self.former = pair.former.map(|p| p.id);
        for step in steps {
            let Err(trouble) = self.step(*step).await else { continue };
            return Err(match (step, trouble) {
                // A name that is taken: another run works on the same object. It goes on, this one must not undo it.
                (_, Trouble::Engine(error @ (EngineError::Conflict { .. } | EngineError::Unreachable { .. }))) => {
                    error.at(self.address)
                }
                (Step::Make | Step::Start | Step::Restart | Step::Await, trouble) => self.back(trouble).await,
                (Step::SetAside, Trouble::Engine(error)) => self.still_current(error).await,
                (_, trouble) => self.failed(&describe(&trouble), Vec::new()),
            });
        }
        Ok(if steps.iter().any(|s| s.writes()) {
            Applied::Changed { output: None }
        } else {
            Applied::Unchanged { output: None }
        })
    }

    fn progress(&self, what: &str) {
        self.calls.events.emit(Event::Progress { address: self.address.clone(), what: what.to_owned() });
    }

    async fn step(&mut self, step: Step) -> Result<(), Trouble> {
        match step {
            Step::RemoveCurrent => {
                self.remove(self.current.clone()).await?;
                self.current = None;
            }
            Step::DropFormer => {
                self.remove(self.former.clone()).await?;
                self.former = None;
            }
            Step::StopFormer => {
                if let Some(id) = &self.former {
                    self.calls.stop(id, None).await?;
                }
            }
            Step::SetAside => self.set_aside().await?,
            Step::Restore => self.restore().await?,
            Step::Make => self.make().await?,
            Step::Start => self.wake(false).await?,
            Step::Restart => self.wake(true).await?,
            Step::Await => {
                self.progress("waiting until it is healthy");
                let Some(id) = &self.current else { return Ok(()) };
                let within = Duration::from_secs(self.spec.healthy_within_seconds.into());
                wait::until_healthy(self.calls, id, within).await?.map_err(Trouble::Unhealthy)?;
            }
        }
        Ok(())
    }

    async fn remove(&self, id: Option<String>) -> Result<(), EngineError> {
        let Some(id) = id else { return Ok(()) };
        self.calls.stop(&id, None).await?;
        self.calls.remove(&id).await
    }

    async fn set_aside(&mut self) -> Result<(), EngineError> {
        let Some(id) = self.current.clone() else { return Ok(()) };
        self.progress("stopping the former container");
        // Its own grace time: what it was created with.
        self.calls.stop(&id, None).await?;
        self.calls.rename(&id, &format!("{}{FORMER}", self.name)).await?;
        self.former = self.current.take();
        Ok(())
    }

    async fn restore(&mut self) -> Result<(), EngineError> {
        let Some(id) = self.former.clone() else { return Ok(()) };
        self.calls.rename(&id, &self.name).await?;
        self.current = self.former.take();
        Ok(())
    }

    async fn wake(&self, stop_first: bool) -> Result<(), EngineError> {
        let Some(id) = &self.current else { return Ok(()) };
        self.progress(if stop_first { "restarting the container" } else { "starting the container" });
        if stop_first {
            self.calls.stop(id, None).await?;
        }
        self.calls.start(id).await
    }

    async fn make(&mut self) -> Result<(), Trouble> {
        self.progress("creating the container");
        for volume in &self.spec.volumes {
            let owner = (!volume.read_only).then_some(self.address);
            self.calls.ensure_volume(self.scope, &volume.volume, owner).await?;
        }
        let without = files::not_given(&self.spec.files, self.ready.secrets);
        let making = Making {
            scope: self.scope,
            address: self.address,
            hash: self.hash,
            image_id: self.image_id.as_deref().unwrap_or_default(),
            spec: self.spec,
            without: &without,
        };
        let id = self.calls.create(&self.name, create_body(self.calls.engine, &making)).await?;
        self.current = Some(id.clone());
        self.made = true;
        for (place, files) in uploads(self.spec) {
            let tar = files::archive(&files, self.ready.secrets).map_err(Trouble::Files)?;
            self.calls.upload(&id, &place, tar).await?;
        }
        self.calls.start(&id).await?;
        Ok(())
    }

    /// The new one failed: the former one runs again, or there is none and the failure is told.
    async fn back(&mut self, trouble: Trouble) -> ProviderError {
        let mut lines = vec![];
        if let Some(id) = &self.current {
            // Removed by another run that works on the same object: it goes on, this one must not undo its work.
            if let Ok(None) = self.calls.inspect(id).await {
                return ProviderError::Stale {
                    address: self.address.clone(),
                    why: "its new container was removed by somebody else while it was starting".to_owned(),
                };
            }
            lines = self.calls.engine.last_lines(id).await;
        }
        let mut why = files::redact(vec![describe(&trouble)], &self.spec.files, self.ready.secrets).join("");
        let lines = files::redact(lines, &self.spec.files, self.ready.secrets);
        if self.former.is_none() {
            // A container that this run made for the first time is removed; its volumes stay. One that was there
            // before stays as it is, for a person to look at.
            if self.made
                && let Err(error) = self.remove(self.current.clone()).await
            {
                why = format!("{why}; its container could not be removed: {error}");
            }
            return self.failed(&why, lines);
        }
        self.progress("returning to the former container");
        match self.return_to_former().await {
            Ok(Ok(())) => ProviderError::RolledBack { address: self.address.clone(), why, last_lines: lines },
            Ok(Err(again)) => {
                self.failed(&format!("{why}; and the former container does not run either: {again}"), lines)
            }
            Err(error) => self.failed(&format!("{why}; and the former container could not be started: {error}"), lines),
        }
    }

    async fn return_to_former(&mut self) -> Result<Result<(), String>, EngineError> {
        let failed = self.current.take();
        self.remove(failed).await?;
        self.restore().await?;
        let Some(id) = self.current.clone() else { return Ok(Err("it is gone".to_owned())) };
        self.calls.start(&id).await?;
        wait::until_healthy(self.calls, &id, FORMER_RUNS_WITHIN).await
    }

    /// Setting the container aside failed: it keeps its place, unless another run has set it aside already.
    async fn still_current(&self, error: EngineError) -> ProviderError {
        let Some(id) = &self.current else { return error.at(self.address) };
        match self.calls.inspect(id).await {
            Ok(Some(container)) if container.name.as_deref().unwrap_or_default().ends_with(FORMER) => {
                ProviderError::Stale {
                    address: self.address.clone(),
                    why: "another run is replacing its container at this moment".to_owned(),
                }
            }
            Ok(Some(_)) => match self.calls.start(id).await {
                Ok(()) => error.at(self.address),
                Err(second) => {
                    self.failed(&format!("{error}; and it could not be started again: {second}"), Vec::new())
                }
            },
            Ok(None) => ProviderError::Stale {
                address: self.address.clone(),
                why: "its container was removed by somebody else".to_owned(),
            },
            Err(_) => error.at(self.address),
        }
    }

    fn failed(&self, why: &str, last_lines: Vec<String>) -> ProviderError {
        let help = why.contains("port is already allocated").then(|| {
            "another program or container listens on that port of 127.0.0.1: stop it, or declare another port"
                .to_owned()
        });
        ProviderError::Failed { address: self.address.clone(), why: why.to_owned(), help, last_lines }
    }
}

fn describe(trouble: &Trouble) -> String {
    match trouble {
        Trouble::Engine(error) => error.to_string(),
        Trouble::Files(error) => error.to_string(),
        Trouble::Unhealthy(why) => why.clone(),
    }
}
