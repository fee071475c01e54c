//! Images on the engine: list, load, tag, inspect, check, untag. Methods of [`Engine`].
//!
//! The one rule for names: `<fleet>/<image>:d-<derivation hash>`; everything runs by image id, so that a tag that
//! moves changes nothing.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use bollard::{
    models::{ContainerCreateBody, ContainerStateStatusEnum, ContainerSummary, HostConfig},
    query_parameters::{
        ImportImageOptions, ListContainersOptions, ListImagesOptions, RemoveContainerOptions, RemoveImageOptions,
        TagImageOptions,
    },
};
use bytes::Bytes;
use fleet_derivation::Hash;
use futures::{Stream, StreamExt};

use crate::{Engine, EngineError, EngineKind, engine::settled};

/// Label of a container that only runs a check; its value is the image id.
pub(crate) const CHECK: &str = "dev.fleetctl.check";
/// How many images are looked at for layers that need not be loaded again.
const REUSABLE: usize = 8;
/// A check container older than this belongs to nobody any more.
const CHECK_FORGOTTEN_SECONDS: i64 = 3600;

/// `<fleet>/<image>:d-<hash>`.
#[must_use]
pub fn tag(fleet: &str, image: &str, hash: Hash) -> String {
    format!("{fleet}/{image}:d-{hash}")
}

/// The image name and derivation hash in a tag of this fleet; `None` for every other tag.
#[must_use]
pub fn parse_tag(fleet: &str, tag: &str) -> Option<(String, Hash)> {
    // Podman puts one of these before names without a registry.
    let tag = ["localhost/", "docker.io/"].iter().find_map(|prefix| tag.strip_prefix(prefix)).unwrap_or(tag);
    let (name, hash) = tag.strip_prefix(fleet)?.strip_prefix('/')?.split_once(":d-")?;
    Some((name.to_owned(), hash.parse().ok()?))
}

/// How a check in an image ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckResult {
    /// 0 is success; `None`: it did not end in time and was stopped.
    pub exit_code: Option<i64>,
    /// The last lines that it printed.
    pub last_lines: Vec<String>,
}

impl Engine {
    /// Every image of a fleet that is on the engine: (name, derivation hash) → image id. One call.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn list_fleet_images(&self, fleet: &str) -> Result<BTreeMap<(String, Hash), String>, EngineError> {
        let filters = HashMap::from([("reference".to_owned(), vec![format!("{fleet}/*")])]);
        let options = ListImagesOptions { filters: Some(filters), ..ListImagesOptions::default() };
        let images = self.client.list_images(Some(options)).await.map_err(self.failed("listing images"))?;
        let mut found = BTreeMap::new();
        for image in images {
            for key in image.repo_tags.iter().filter_map(|t| parse_tag(fleet, t)) {
                found.insert(key, image.id.clone());
            }
        }
        Ok(found)
    }

    /// Loads a docker-archive (`docker save` format) as it streams in; its manifest says the tags.
    ///
    /// # Errors
    /// When the stream breaks or the engine refuses the archive; then nothing is tagged.
    pub async fn load(
        &self,
        archive: impl Stream<Item = std::io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), EngineError> {
        let options = ImportImageOptions { quiet: true, platform: None };
        let mut replies = Box::pin(self.client.import_image_stream(options, archive, None));
        while let Some(reply) = replies.next().await {
            reply.map_err(self.failed("loading an image"))?;
        }
        Ok(())
    }

    /// Gives an image (id or tag) another tag, `repository:tag`.
    ///
    /// # Errors
    /// When the image does not exist or the engine does not answer.
    pub async fn tag(&self, image: &str, tag: &str) -> Result<(), EngineError> {
        let (repo, name) = tag.rsplit_once(':').unwrap_or((tag, "latest"));
        let options = TagImageOptions { repo: Some(repo.to_owned()), tag: Some(name.to_owned()) };
        self.client.tag_image(image, Some(options)).await.map_err(self.failed(&format!("tagging an image {tag}")))
    }

    /// The id (`sha256:…`) of an image by tag or id; `None`: it is not on the engine.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn inspect_id(&self, image: &str) -> Result<Option<String>, EngineError> {
        Ok(self.inspect_image(image).await?.and_then(|i| i.id))
    }

    /// The diff ids (`sha256:…` of each uncompressed layer, lowest first) of an image; `None`: it is not on the engine.
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn layers(&self, image: &str) -> Result<Option<Vec<String>>, EngineError> {
        let found = self.inspect_image(image).await?;
        Ok(found.map(|i| i.root_fs.and_then(|r| r.layers).unwrap_or_default()))
    }

    /// Layers, as [`Self::layers`] gives them, of the newest images of this name in any fleet: what a load need not carry
    /// again. Empty where the engine reads every layer of a load anyway (only Docker's overlay2 store does not).
    ///
    /// # Errors
    /// When the engine does not answer.
    pub async fn reusable_chains(&self, name: &str) -> Result<Vec<Vec<String>>, EngineError> {
        let info = self.client.info().await.map_err(self.failed("asking for the storage driver"))?;
        if self.kind != EngineKind::Docker || info.driver.as_deref() != Some("overlay2") {
            return Ok(Vec::new());
        }
        let listed = self.client.list_images(None::<ListImagesOptions>).await.map_err(self.failed("listing images"))?;
        let ours = |tag: &String| {
            tag.split_once(":d-").is_some_and(|(repository, _)| repository.ends_with(&format!("/{name}")))
        };
        let mut found: Vec<(i64, String)> = listed
            .into_iter()
            .filter(|image| image.repo_tags.iter().any(ours))
            .map(|image| (image.created, image.id))
            .collect();
        found.sort();
        found.dedup();
        let mut chains = Vec::new();
        for (_, id) in found.into_iter().rev().take(REUSABLE) {
            chains.extend(self.layers(&id).await?);
        }
        Ok(chains)
    }

    async fn inspect_image(&self, image: &str) -> Result<Option<bollard::models::ImageInspect>, EngineError> {
        match self.client.inspect_image(image).await.map_err(self.failed(&format!("inspecting image {image}"))) {
            Ok(found) => Ok(Some(found)),
            Err(EngineError::NotFound { .. }) => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Takes a tag away; the image goes with its last tag. A tag that is not there is fine.
    ///
    /// # Errors
    /// [`EngineError::Conflict`] when a container uses the image and this is its last tag.
    pub async fn remove_image_tag(&self, tag: &str) -> Result<(), EngineError> {
        let options = RemoveImageOptions { force: false, noprune: false, platforms: None };
        match self
            .client
            .remove_image(tag, Some(options), None)
            .await
            .map_err(self.failed(&format!("removing image {tag}")))
        {
            Ok(_) | Err(EngineError::NotFound { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Runs `argv` in an image, without network, in place of its entry point, and removes the container.
    ///
    /// # Errors
    /// When the engine does not answer or cannot start it. A program that is missing in the image is exit code 127.
    pub async fn run_check(&self, image: &str, argv: &[String], timeout: Duration) -> Result<CheckResult, EngineError> {
        self.sweep_checks().await?;
        let [program, arguments @ ..] = argv else {
            return Ok(CheckResult { exit_code: Some(0), last_lines: Vec::new() });
        };
        let body = ContainerCreateBody {
            image: Some(image.to_owned()),
            entrypoint: Some(vec![program.clone()]),
            cmd: Some(arguments.to_vec()),
            labels: Some(HashMap::from([(CHECK.to_owned(), image.to_owned())])),
            network_disabled: Some(true),
            host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let created = self.client.create_container(None, body).await;
        let id = created.map_err(self.failed(&format!("creating a container to check {image}")))?.id;
        let result = self.run_to_end(&id, timeout).await;
        let removed = self.remove_check(&id).await;
        let result = result?;
        removed.map(|()| result)
    }

    pub(crate) async fn run_to_end(&self, id: &str, timeout: Duration) -> Result<CheckResult, EngineError> {
        match self.client.start_container(id, None).await.map_err(self.failed("starting a check")) {
            Ok(()) => {}
            // The engine cannot find or run the program: that is the check's answer, not trouble with the engine.
            Err(EngineError::Refused { why, .. } | EngineError::NotFound { why, .. }) => {
                return Ok(CheckResult { exit_code: Some(127), last_lines: vec![why] });
            }
            Err(other) => return Err(other),
        }
        let end = tokio::time::Instant::now() + timeout;
        loop {
            let container =
                settled(|| self.client.inspect_container(id, None)).await.map_err(self.failed("inspecting a check"))?;
            let state = container.state.unwrap_or_default();
            let ended = matches!(state.status, Some(ContainerStateStatusEnum::EXITED | ContainerStateStatusEnum::DEAD));
            if ended || tokio::time::Instant::now() >= end {
                let exit_code = if ended { state.exit_code } else { None };
                return Ok(CheckResult { exit_code, last_lines: self.last_lines(id).await });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub(crate) async fn remove_check(&self, id: &str) -> Result<(), EngineError> {
        let options = RemoveContainerOptions { v: true, force: true, link: false };
        match self.client.remove_container(id, Some(options)).await.map_err(self.failed("removing a check container")) {
            Ok(()) | Err(EngineError::NotFound { .. }) => Ok(()),
            Err(other) => Err(other),
        }
    }

    /// Removes check containers that a killed run left behind long ago.
    pub(crate) async fn sweep_checks(&self) -> Result<(), EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![CHECK.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..ListContainersOptions::default() };
        let list = settled(|| self.client.list_containers(Some(options.clone()))).await;
        let list = list.map_err(self.failed("listing check containers"))?;
        let newest = list.iter().filter_map(|c| c.created).max().unwrap_or_default();
        let forgotten = |c: &ContainerSummary| c.created.is_some_and(|at| newest - at > CHECK_FORGOTTEN_SECONDS);
        for id in list.iter().filter(|c| forgotten(c)).filter_map(|c| c.id.as_deref()) {
            self.remove_check(id).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tags_of_this_fleet_that_name_a_derivation_are_ours() {
        let hash = Hash::of(b"x");
        let ours = tag("any", "agent", hash);
        assert_eq!(parse_tag("any", &ours), Some(("agent".to_owned(), hash)));
        for registry in ["localhost", "docker.io"] {
            assert_eq!(parse_tag("any", &format!("{registry}/{ours}")), Some(("agent".to_owned(), hash)));
        }
        for other in ["any/agent:latest", "anybody/agent:d-0", "any/agent:d-123", "agent:d-1"] {
            assert_eq!(parse_tag("any", other), None, "{other}");
        }
    }
}
