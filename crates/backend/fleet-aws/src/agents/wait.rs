//! Waiting for an agent's deployment, to its end or to a limit; and the way back.

use std::time::Duration;

use fleet_apply::ProviderError;
use fleet_plan::AgentSpec;
use fleet_stacks::agent_service::CONTAINER;
use serde_json::json;

use super::Doing;
use crate::{
    pauses::Pauses,
    services::{Deployment, Running},
};

/// Beside the time that an agent has to become healthy: the old task stops, Fargate finds room and pulls the image.
const START: Duration = Duration::from_secs(300);
/// How long a former task, which ran before, may take to run again.
const FORMER_WITHIN: Duration = Duration::from_secs(600);
/// A task stops within two minutes.
const STOPS_WITHIN: Duration = Duration::from_secs(300);
/// Lines of a failed task's log that an error shows.
const LAST_LINES: usize = 12;

/// How a deployment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It is what runs, and healthy.
    Done,
    /// It is on its way.
    Going,
    /// ECS gave it up, and there is nothing to return to.
    GaveUp,
    /// ECS returns, or has returned, to the former one.
    Back,
    /// Somebody names a third one.
    Theirs,
    /// The service is gone.
    Gone,
}

impl Doing<'_> {
    /// Waits until the service runs this task definition and it is healthy.
    ///
    /// # Errors
    /// When it does not become so: the former one runs again, or there is none.
    pub(super) async fn wait_for(
        &self,
        spec: &AgentSpec,
        wanted: &str,
        former: Option<&str>,
    ) -> Result<(), ProviderError> {
        let within = START + Duration::from_secs(spec.container.healthy_within_seconds.into());
        let mut pauses = Pauses::within(within);
        let mut told = String::new();
        loop {
            let now = self.look().await?;
            match standing(now.as_ref(), wanted, former) {
                Standing::Done => return Ok(()),
                Standing::Going => {}
                Standing::GaveUp => return Err(self.given_up(wanted, &reason(now.as_ref(), wanted)).await),
                Standing::Back => return Err(self.returned(wanted, former, &reason(now.as_ref(), wanted)).await),
                Standing::Theirs => return Err(self.stale("somebody else rolls it at this moment")),
                Standing::Gone => return Err(self.stale("its service was removed while it was starting")),
            }
            if let Some(now) = &now {
                self.tell(now, &mut told);
            }
            if !pauses.pause().await {
                let why = format!("it is not healthy after {} s", within.as_secs());
                return Err(self.too_late(wanted, former, &why).await);
            }
        }
    }

    /// How it goes, where that changed.
    fn tell(&self, now: &Running, told: &mut String) {
        let state = format!("{} pending, {} running", now.pending_count, now.running_count);
        if *told != state {
            self.progress(format!("waits until it is healthy: {state}"));
            *told = state;
        }
    }

    /// Nothing ran before: what crashes is not left crashing.
    async fn given_up(&self, wanted: &str, why: &str) -> ProviderError {
        let (why, last_lines) = self.explained(wanted, why).await;
        let stopped = self.account().set_service(&self.cluster, &self.service, &json!({"desiredCount": 0})).await;
        let why = match stopped {
            Ok(()) => why,
            Err(error) => format!("{why}; and it could not be stopped: {error}"),
        };
        ProviderError::failed(&self.change.address, why).last_words(last_lines)
    }

    /// ECS did not give it up in time: we do.
    async fn too_late(&self, wanted: &str, former: Option<&str>, why: &str) -> ProviderError {
        let Some(former) = former else { return self.given_up(wanted, why).await };
        self.progress("returns to the former task definition");
        let back = json!({"taskDefinition": former, "desiredCount": 1});
        if let Err(error) = self.account().set_service(&self.cluster, &self.service, &back).await {
            let (why, last_lines) = self.explained(wanted, why).await;
            let why = format!("{why}; and the former one could not be started: {error}");
            return ProviderError::failed(&self.change.address, why).last_words(last_lines);
        }
        self.returned(wanted, Some(former), why).await
    }

    /// Waits until the former one runs again.
    async fn returned(&self, wanted: &str, former: Option<&str>, why: &str) -> ProviderError {
        let address = self.change.address.clone();
        let (why, last_lines) = self.explained(wanted, why).await;
        let former = former.unwrap_or_default();
        let mut pauses = Pauses::within(FORMER_WITHIN);
        loop {
            match self.look().await {
                Err(error) => return error,
                Ok(now) => match standing(now.as_ref(), former, None) {
                    Standing::Done => return ProviderError::RolledBack { address, why, last_lines },
                    Standing::Going => {}
                    _ => break,
                },
            }
            if !pauses.pause().await {
                break;
            }
        }
        let why = format!("{why}; and the former one does not run either");
        ProviderError::failed(&address, why).last_words(last_lines)
    }

    /// Why the task of a definition failed, and its last words.
    async fn explained(&self, task_definition: &str, why: &str) -> (String, Vec<String>) {
        let place = (self.cluster.as_str(), self.service.as_str());
        let Ok(Some(stopped)) = self.account().last_stopped(place, task_definition).await else {
            return (why.to_owned(), Vec::new());
        };
        let group = match self.outputs().await {
            Ok(outputs) => outputs.get("AgentLogGroup").cloned().unwrap_or_default(),
            Err(_) => String::new(),
        };
        let stream = format!("{}/{CONTAINER}/{}", self.agent(), stopped.task);
        let lines = self.account().last_lines(&group, &stream, LAST_LINES).await;
        (format!("{why}; its last task ended: {}", stopped.reason), lines)
    }

    /// Waits until a service that is being removed is gone.
    ///
    /// # Errors
    /// When it does not go.
    pub(super) async fn drained(&self) -> Result<(), ProviderError> {
        let mut pauses = Pauses::within(STOPS_WITHIN);
        while self.look().await?.is_some_and(|now| now.status == "DRAINING") {
            if !pauses.pause().await {
                let failed = self.failed("its service is being removed and does not go");
                return Err(failed.help("run the same command again"));
            }
        }
        Ok(())
    }

    /// Waits until nothing of it runs.
    ///
    /// # Errors
    /// When it does not stop.
    pub(super) async fn stopped(&self) -> Result<(), ProviderError> {
        let mut pauses = Pauses::within(STOPS_WITHIN);
        while self.look().await?.is_some_and(|now| now.running_count + now.pending_count > 0) {
            if !pauses.pause().await {
                return Err(self.failed("its task does not stop").help("run the same command again"));
            }
        }
        Ok(())
    }
}

fn standing(now: Option<&Running>, wanted: &str, former: Option<&str>) -> Standing {
    let Some(now) = now.filter(|now| now.status == "ACTIVE") else { return Standing::Gone };
    let Some(primary) = now.primary() else { return Standing::Going };
    match primary.rollout_state.as_str() {
        _ if primary.task_definition != wanted => match former {
            Some(former) if primary.task_definition == former => Standing::Back,
            _ => Standing::Theirs,
        },
        "COMPLETED" if now.running_count >= now.desired_count.max(1) => Standing::Done,
        // With a former one ECS returns to it by itself.
        "FAILED" if former.is_none() => Standing::GaveUp,
        _ => Standing::Going,
    }
}

/// What ECS says of the deployment.
fn reason(now: Option<&Running>, wanted: &str) -> String {
    let ours = |deployment: &&Deployment| deployment.task_definition == wanted;
    let said = now.and_then(|now| now.deployments.iter().find(ours)).map(|ours| ours.rollout_state_reason.clone());
    said.filter(|text| !text.is_empty()).unwrap_or_else(|| "ECS gave its deployment up".to_owned())
}

#[cfg(test)]
mod tests {
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    fn service(primary: &str, rollout: &str, running: u32) -> Running {
        Running::deserialize(json!({
            "serviceName": "agent-b", "status": "ACTIVE", "taskDefinition": primary, "desiredCount": 1,
            "runningCount": running,
            "deployments": [
                {"id": "1", "status": "PRIMARY", "taskDefinition": primary, "rolloutState": rollout},
                {"id": "2", "status": "ACTIVE", "taskDefinition": "new", "rolloutState": "FAILED",
                 "rolloutStateReason": "tasks failed to start."},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn only_our_own_deployment_that_is_complete_and_runs_is_success() {
        let of = |now: &Running, former| standing(Some(now), "new", former);
        assert_eq!(of(&service("new", "COMPLETED", 1), Some("old")), Standing::Done);
        assert_eq!(of(&service("new", "COMPLETED", 0), Some("old")), Standing::Going);
        assert_eq!(of(&service("new", "IN_PROGRESS", 1), Some("old")), Standing::Going);
        // A rollback that is complete looks like success to whoever only looks at the service.
        assert_eq!(of(&service("old", "COMPLETED", 1), Some("old")), Standing::Back);
        assert_eq!(of(&service("third", "COMPLETED", 1), Some("old")), Standing::Theirs);
        assert_eq!(of(&service("new", "FAILED", 0), None), Standing::GaveUp);
        assert_eq!(of(&service("new", "FAILED", 0), Some("old")), Standing::Going);
        assert_eq!(standing(None, "new", None), Standing::Gone);
    }

    #[test]
    fn what_ecs_says_of_our_deployment_is_passed_on() {
        assert_eq!(reason(Some(&service("old", "COMPLETED", 1)), "new"), "tasks failed to start.");
        assert_eq!(reason(None, "new"), "ECS gave its deployment up");
    }
}
