//! [`DockerProvider::purge`]: everything of a scope goes, for `destroy`. Volumes only when asked: they are memory.

use bollard::query_parameters::RemoveVolumeOptions;
use fleet_apply::{Events, ProviderError};

use crate::{DockerProvider, EngineError, calls::Calls};

/// What was removed, by name, in the order in which it went.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Purged {
    /// Containers.
    pub containers: Vec<String>,
    /// Networks.
    pub networks: Vec<String>,
    /// Volumes, with everything in them.
    pub volumes: Vec<String>,
}

impl DockerProvider {
    /// What [`Self::purge`] would remove. Read-only.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn purgeable(&self, volumes: bool, events: &dyn Events) -> Result<Purged, ProviderError> {
        let calls = self.calls(events);
        let containers = calls.list(&self.scope, None).await.map_err(EngineError::anywhere)?;
        let name = |names: Vec<String>| names.first().map(|n| n.trim_start_matches('/').to_owned());
        let networks = calls.networks(&self.scope).await.map_err(EngineError::anywhere)?;
        let kept = if volumes { calls.volumes(&self.scope).await.map_err(EngineError::anywhere)? } else { Vec::new() };
        Ok(Purged {
            containers: containers.into_iter().filter_map(|c| name(c.names.unwrap_or_default())).collect(),
            networks: networks.into_iter().map(|(_, name)| name).collect(),
            volumes: kept.into_iter().map(|v| v.name).collect(),
        })
    }

    /// Removes every container and the network of the scope, and with `volumes` its volumes. Idempotent.
    ///
    /// # Errors
    /// When the engine does not answer or refuses; what was removed until then is gone.
    pub async fn purge(&self, volumes: bool, events: &dyn Events) -> Result<Purged, ProviderError> {
        let calls = self.calls(events);
        let found = self.purgeable(volumes, events).await?;
        self.remove_all(calls, &found).await.map_err(EngineError::anywhere)?;
        Ok(found)
    }

    async fn remove_all(&self, calls: Calls<'_>, found: &Purged) -> Result<(), EngineError> {
        // Agents and services get their own grace time, all at once: a fleet of a hundred must not take an hour.
        let stops = found.containers.iter().map(|name| async move {
            calls.stop(name, None).await?;
            calls.remove(name).await
        });
        for batch in chunks(stops, 16) {
            futures::future::try_join_all(batch).await?;
        }
        for (id, name) in calls.networks(&self.scope).await? {
            calls.note(&format!("DELETE /networks/{name}"), true);
            let removed = self.engine.client.remove_network(&id).await;
            match removed.map_err(self.engine.failed(&format!("removing network {name}"))) {
                Ok(()) | Err(EngineError::NotFound { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        for name in &found.volumes {
            calls.note(&format!("DELETE /volumes/{name}"), true);
            let removed = self.engine.client.remove_volume(name, Some(RemoveVolumeOptions { force: false })).await;
            match removed.map_err(self.engine.failed(&format!("removing volume {name}"))) {
                Ok(()) | Err(EngineError::NotFound { .. }) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(())
    }
}

fn chunks<T>(items: impl Iterator<Item = T>, size: usize) -> Vec<Vec<T>> {
    let mut batches: Vec<Vec<T>> = Vec::new();
    for item in items {
        match batches.last_mut() {
            Some(batch) if batch.len() < size => batch.push(item),
            _ => batches.push(vec![item]),
        }
    }
    batches
}
