//! [`Calls`]: the engine's calls that a change is made of, each told as an event and each safe to repeat.

use std::time::Duration;

use bollard::{
    body_full,
    models::{
        ContainerCreateBody, ContainerInspectResponse, ContainerSummary, NetworkCreateRequest, Volume,
        VolumeCreateRequest,
    },
    query_parameters::{
        CreateContainerOptions, ListContainersOptions, ListNetworksOptions, ListVolumesOptions, RemoveContainerOptions,
        RenameContainerOptions, StopContainerOptions, UploadToContainerOptions,
    },
};
use bytes::Bytes;
use fleet_apply::{Event, Events, Scope};
use fleet_model::Address;

use crate::{Engine, EngineError, engine::settled, labels};

/// How long a container that somebody else is removing may take to be gone.
const REMOVED_WITHIN: Duration = Duration::from_secs(20);

/// An engine, and who is told about every call to it.
#[derive(Clone, Copy)]
pub(crate) struct Calls<'a> {
    pub engine: &'a Engine,
    pub events: &'a dyn Events,
}

impl Calls<'_> {
    pub(crate) fn note(&self, call: &str, write: bool) {
        self.events.emit(Event::Call { system: "docker".to_owned(), call: call.to_owned(), write });
    }

    /// Containers of the scope, or of one address in it, running or not: one call.
    pub(crate) async fn list(
        &self,
        scope: &Scope,
        address: Option<&Address>,
    ) -> Result<Vec<ContainerSummary>, EngineError> {
        self.note("GET /containers/json", false);
        let filters = Some(labels::filter(scope, address));
        let options = ListContainersOptions { all: true, filters, ..ListContainersOptions::default() };
        let list = settled(|| self.engine.client.list_containers(Some(options.clone()))).await;
        let list = list.map_err(self.engine.failed("listing containers"))?;
        Ok(list.into_iter().filter(|c| c.labels.as_ref().is_some_and(|l| labels::belongs(scope, l))).collect())
    }

    /// Volumes of the scope: one call.
    pub(crate) async fn volumes(&self, scope: &Scope) -> Result<Vec<Volume>, EngineError> {
        self.note("GET /volumes", false);
        let options = ListVolumesOptions { filters: Some(labels::filter(scope, None)) };
        let list =
            self.engine.client.list_volumes(Some(options)).await.map_err(self.engine.failed("listing volumes"))?;
        Ok(list.volumes.unwrap_or_default().into_iter().filter(|v| labels::belongs(scope, &v.labels)).collect())
    }

    /// `None`: it does not exist.
    pub(crate) async fn inspect(&self, id: &str) -> Result<Option<ContainerInspectResponse>, EngineError> {
        self.note("GET /containers/{id}/json", false);
        let found = settled(|| self.engine.client.inspect_container(id, None)).await;
        match found.map_err(self.engine.failed("inspecting a container")) {
            Ok(container) => Ok(Some(container)),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Creates and returns the id. A name that is taken is [`EngineError::Conflict`].
    pub(crate) async fn create(&self, name: &str, body: ContainerCreateBody) -> Result<String, EngineError> {
        self.note(&format!("POST /containers/create?name={name}"), true);
        let options = CreateContainerOptions { name: Some(name.to_owned()), ..CreateContainerOptions::default() };
        let created = self.engine.client.create_container(Some(options), body).await;
        Ok(created.map_err(self.engine.failed(&format!("creating container {name}")))?.id)
    }

    /// Unpacks a tar in a container that does not run yet.
    pub(crate) async fn upload(&self, id: &str, folder: &str, tar: Bytes) -> Result<(), EngineError> {
        self.note("PUT /containers/{id}/archive", true);
        let options = UploadToContainerOptions { path: folder.to_owned(), ..UploadToContainerOptions::default() };
        let uploaded = self.engine.client.upload_to_container(id, Some(options), body_full(tar)).await;
        uploaded.map_err(self.engine.failed("placing files in the container"))
    }

    pub(crate) async fn start(&self, id: &str) -> Result<(), EngineError> {
        self.note("POST /containers/{id}/start", true);
        self.engine.client.start_container(id, None).await.map_err(self.engine.failed("starting the container"))
    }

    /// Stops gracefully; what is stopped or gone already is fine.
    pub(crate) async fn stop(&self, id: &str, grace_seconds: Option<u32>) -> Result<(), EngineError> {
        self.note("POST /containers/{id}/stop", true);
        // Without `t` the engine uses the stop timeout that the container was created with.
        let t = grace_seconds.and_then(|s| i32::try_from(s).ok());
        let stopped = self.engine.client.stop_container(id, Some(StopContainerOptions { signal: None, t })).await;
        gone_is_fine(stopped.map_err(self.engine.failed("stopping the container")))
    }

    pub(crate) async fn rename(&self, id: &str, name: &str) -> Result<(), EngineError> {
        self.note(&format!("POST /containers/{{id}}/rename?name={name}"), true);
        let options = RenameContainerOptions { name: name.to_owned() };
        let renamed = self.engine.client.rename_container(id, options).await;
        renamed.map_err(self.engine.failed(&format!("renaming the container to {name}")))
    }

    /// Removes a container with its anonymous volumes; named volumes stay. What is gone already is fine.
    pub(crate) async fn remove(&self, id: &str) -> Result<(), EngineError> {
        self.note("DELETE /containers/{id}", true);
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        let removed = self.engine.client.remove_container(id, Some(options)).await;
        match removed.map_err(self.engine.failed("removing the container")) {
            // Somebody else is removing it: its name is free only when they are done.
            Err(EngineError::Conflict { .. }) => self.wait_until_gone(id).await,
            other => gone_is_fine(other),
        }
    }

    async fn wait_until_gone(&self, id: &str) -> Result<(), EngineError> {
        let end = tokio::time::Instant::now() + REMOVED_WITHIN;
        while self.inspect(id).await?.is_some() {
            if tokio::time::Instant::now() >= end {
                return Err(EngineError::Refused {
                    what: "removing the container".to_owned(),
                    why: format!("its removal is in progress for more than {} s", REMOVED_WITHIN.as_secs()),
                });
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        Ok(())
    }

    /// Makes a volume if it is not there; `owner` is whose memory it is.
    pub(crate) async fn ensure_volume(
        &self,
        scope: &Scope,
        volume: &str,
        owner: Option<&Address>,
    ) -> Result<(), EngineError> {
        let name = scope.name(volume);
        self.note("GET /volumes/{name}", false);
        match self.engine.client.inspect_volume(&name).await.map_err(self.engine.failed("inspecting a volume")) {
            Ok(_) => return Ok(()),
            Err(EngineError::NotFound { .. }) => {}
            Err(other) => return Err(other),
        }
        self.note(&format!("POST /volumes/create {name}"), true);
        let request = VolumeCreateRequest {
            name: Some(name.clone()),
            labels: Some(labels::of(scope, owner, None)),
            ..VolumeCreateRequest::default()
        };
        let made = self.engine.client.create_volume(request).await;
        made.map(|_| ()).map_err(self.engine.failed(&format!("creating volume {name}")))
    }

    /// Makes the scope's network if it is not there.
    pub(crate) async fn ensure_network(&self, scope: &Scope) -> Result<(), EngineError> {
        if !self.networks(scope).await?.is_empty() {
            return Ok(());
        }
        let name = scope.name("net");
        self.note(&format!("POST /networks/create {name}"), true);
        let request = NetworkCreateRequest {
            name: name.clone(),
            driver: Some("bridge".to_owned()),
            labels: Some(labels::of(scope, None, None)),
            ..NetworkCreateRequest::default()
        };
        let made = self.engine.client.create_network(request).await;
        match made.map_err(self.engine.failed(&format!("creating network {name}"))) {
            Ok(_) | Err(EngineError::Conflict { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Ids of the scope's networks: one, unless two runs raced on an engine that allows twins.
    pub(crate) async fn networks(&self, scope: &Scope) -> Result<Vec<(String, String)>, EngineError> {
        self.note("GET /networks", false);
        let options = ListNetworksOptions { filters: Some(labels::filter(scope, None)) };
        let list =
            self.engine.client.list_networks(Some(options)).await.map_err(self.engine.failed("listing networks"))?;
        let ours = list.into_iter().filter(|n| n.labels.as_ref().is_some_and(|l| labels::belongs(scope, l)));
        Ok(ours.filter_map(|n| Some((n.id?, n.name?))).collect())
    }
}

fn gone_is_fine(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(EngineError::NotFound { .. }) => Ok(()),
        other => other,
    }
}
