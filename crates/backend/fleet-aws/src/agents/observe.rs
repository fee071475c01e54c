//! Which agents there are, and how they are: services ten at a time, and the folders of those that are gone.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_plan::{Health, Observed, RunState, State};
use fleet_stacks::agent_service::{SERVICE_PREFIX, agent_of, hash_of};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::AgentProvider;
use crate::{
    error::AwsError,
    services::{Running, SERVICES_AT_ONCE},
};

/// How many DescribeServices are under way at once.
const AT_ONCE: usize = 4;

impl AgentProvider {
    /// Reads them all.
    pub(super) async fn look_around(&self, wanted: &[Address]) -> Result<State, AwsError> {
        let mut state = State::default();
        let fleet = &self.scope.fleet;
        let data = self.account.outputs_of(&self.scope, &fleet_stacks::data_stack(&self.scope.environment)).await?;
        // Without a file system there is no environment, so no agent of it.
        let Some(file_system) = data.get("FileSystemId") else { return Ok(state) };
        state.objects = self.present().await?;
        for point in self.account.access_points(file_system).await? {
            let ours = point.tag("fleet:name") == Some(fleet)
                && point.tag("fleet:environment") == Some(&self.scope.environment);
            let Some(agent) = point.tag("fleet:agent").filter(|_| ours) else { continue };
            let address = Address::new(Kind::Agent, agent);
            if !wanted.contains(&address) && !state.objects.contains_key(&address) {
                state
                    .orphans
                    .insert(address, format!("is no agent any more; its memory is kept, in access point {}", point.id));
            }
        }
        Ok(state)
    }

    /// Agents that have a service.
    pub(crate) async fn present(&self) -> Result<BTreeMap<Address, Observed>, AwsError> {
        let services = self.running().await?;
        let agents = services.iter().filter_map(|service| {
            let agent = service.service_name.strip_prefix(SERVICE_PREFIX)?;
            Some((Address::new(Kind::Agent, agent_of(agent)), observed(service)))
        });
        Ok(agents.collect())
    }

    /// ARNs of all services that are an agent's, also while they are being removed.
    pub(super) async fn services(&self) -> Result<Vec<String>, AwsError> {
        let arns = self.account.services(&self.scope.whole()).await?;
        Ok(arns.into_iter().filter(|arn| is_agent(arn)).collect())
    }

    /// Hashes of the task definitions that services name, of whichever deployment.
    pub(crate) async fn definitions_in_use(&self) -> Result<BTreeSet<Hash>, AwsError> {
        let services = self.running().await?;
        let named = services.iter().flat_map(|service| {
            let deployed = service.deployments.iter().map(|deployment| &deployment.task_definition);
            deployed.chain([&service.task_definition])
        });
        Ok(named.filter_map(|arn| hash_of(arn)).collect())
    }

    async fn running(&self) -> Result<Vec<Running>, AwsError> {
        let cluster = &self.scope.whole();
        let agents = self.services().await?;
        let chunks: Vec<Vec<String>> = agents.chunks(SERVICES_AT_ONCE).map(<[String]>::to_vec).collect();
        let describe = |chunk: Vec<String>| async move { self.account.describe(cluster, &chunk).await };
        let described = stream::iter(chunks.into_iter().map(describe));
        let found: Vec<Vec<Running>> = described.buffered(AT_ONCE).try_collect().await?;
        Ok(found.into_iter().flatten().collect())
    }
}

fn is_agent(service: &str) -> bool {
    service.rsplit('/').next().is_some_and(|name| name.starts_with(SERVICE_PREFIX))
}

/// A service as the planner sees it.
pub(super) fn observed(service: &Running) -> Observed {
    let primary = service.primary();
    let stopped = service.desired_count == 0 || service.status == "DRAINING";
    let rolling = primary.is_some_and(|primary| primary.rollout_state == "IN_PROGRESS");
    let failed = primary.is_some_and(|primary| primary.rollout_state == "FAILED");
    let health = match () {
        () if stopped => Health::None,
        () if failed => Health::Unhealthy,
        () if rolling || service.pending_count > 0 => Health::Starting,
        () if service.running_count == 0 => Health::Unhealthy,
        () => Health::Healthy,
    };
    Observed {
        hash: hash_of(&service.task_definition),
        actual: None,
        run: if stopped { RunState::Stopped } else { RunState::Running },
        health,
        id: primary.map(|primary| primary.id.rsplit('/').next().unwrap_or_default().to_owned()).unwrap_or_default(),
        version: version(service),
        unfinished: (rolling && !stopped).then(|| "nobody waited for its last deployment".to_owned()),
    }
}

/// Changes whenever somebody changes the service, and not by itself.
pub(super) fn version(service: &Running) -> String {
    let deployment = service.primary().map(|primary| primary.id.as_str()).unwrap_or_default();
    format!("{} {deployment} {}", service.task_definition, service.desired_count)
}

#[cfg(test)]
mod tests {
    use fleet_derivation::Hash;
    use serde::Deserialize as _;
    use serde_json::json;

    use super::*;

    fn service(desired: u32, running: u32, rollout: &str) -> Running {
        let definition = format!("arn:aws:ecs:us-east-1:1:task-definition/a-dev-b-{}:1", Hash::of(b"x"));
        Running::deserialize(json!({
            "serviceName": "agent-b", "status": "ACTIVE", "taskDefinition": definition,
            "desiredCount": desired, "runningCount": running, "pendingCount": 0,
            "deployments": [{"id": "ecs-svc/12", "status": "PRIMARY", "taskDefinition": definition, "rolloutState": rollout}],
        }))
        .unwrap()
    }

    #[test]
    fn a_service_tells_its_hash_and_how_it_is() {
        let seen = observed(&service(1, 1, "COMPLETED"));
        assert_eq!((seen.hash, seen.run, seen.health), (Some(Hash::of(b"x")), RunState::Running, Health::Healthy));
        assert_eq!((seen.id.as_str(), seen.unfinished), ("12", None));
        assert_eq!(observed(&service(1, 0, "COMPLETED")).health, Health::Unhealthy);
        assert_eq!(observed(&service(1, 0, "FAILED")).health, Health::Unhealthy);
        assert_eq!(observed(&service(0, 0, "COMPLETED")).run, RunState::Stopped);
        let rolling = observed(&service(1, 0, "IN_PROGRESS"));
        assert!(rolling.health == Health::Starting && rolling.unfinished.is_some());
    }

    #[test]
    fn only_what_somebody_does_makes_another_version() {
        assert_eq!(version(&service(1, 0, "IN_PROGRESS")), version(&service(1, 1, "COMPLETED")));
        assert_ne!(version(&service(1, 1, "COMPLETED")), version(&service(0, 1, "COMPLETED")));
    }
}
