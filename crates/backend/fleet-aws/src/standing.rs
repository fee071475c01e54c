//! [`Standing`]: what runs of a cluster's services, for people. Deliberately absent: what to do about it.

use crate::{account::Account, error::AwsError, services::SERVICES_AT_ONCE};

/// How a service stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Standing {
    /// Its name.
    pub name: String,
    /// Tasks that run.
    pub running: u32,
    /// Tasks that are to run.
    pub desired: u32,
    /// `COMPLETED` once they run and are healthy; else `IN_PROGRESS` or `FAILED`.
    pub rollout: String,
    /// ECS's words about that; may be empty.
    pub why: String,
}

impl Account {
    /// Every service of a cluster, by name; none where there is no such cluster. Only reads.
    ///
    /// # Errors
    /// A call that fails.
    pub async fn standing(&self, cluster: &str) -> Result<Vec<Standing>, AwsError> {
        let mut found = Vec::new();
        for names in self.services(cluster).await?.chunks(SERVICES_AT_ONCE) {
            for service in self.describe(cluster, names).await? {
                let primary = service.primary().cloned();
                let (rollout, why) =
                    primary.map(|primary| (primary.rollout_state, primary.rollout_state_reason)).unwrap_or_default();
                let (running, desired) = (service.running_count, service.desired_count);
                found.push(Standing { name: service.service_name, running, desired, rollout, why });
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}
