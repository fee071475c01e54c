//! An agent removed: its service, parameters and role. Its folder, with its memory, stays.

use fleet_apply::{Applied, ProviderError};
use fleet_stacks::{agent::role_name, agent_service::parameters_of};
use serde_json::json;

use super::{Doing, observe::version};

impl Doing<'_> {
    /// Removes it. The service goes last: as long as it is there, the next run knows that something is left to do.
    pub(super) async fn remove(&self) -> Result<Applied, ProviderError> {
        let Some(now) = self.look().await? else { return Ok(Applied::Unchanged { output: None }) };
        if now.desired_count > 0 {
            if Some(version(&now)) != self.change.expect {
                return Err(self.stale("somebody else changed its service"));
            }
            self.progress("stops its task");
            let none = json!({"desiredCount": 0});
            self.account().set_service(&self.cluster, &self.service, &none).await.map_err(|error| self.aws(error))?;
        }
        self.stopped().await?;
        let scope = &self.provider.scope;
        let path = parameters_of(&scope.fleet, &scope.environment, self.agent());
        self.account().remove_parameters_below(&path).await.map_err(|error| self.aws(error))?;
        let role = role_name(&scope.name(self.agent()));
        self.account().remove_role(&role).await.map_err(|error| self.aws(error))?;
        self.account().delete_service(&self.cluster, &self.service).await.map_err(|error| self.aws(error))?;
        self.progress("removed its service, role and parameters; its memory is kept");
        Ok(Applied::Changed { output: None })
    }
}
