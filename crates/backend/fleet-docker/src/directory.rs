//! The org directory: files in the volume `directory`, which agents mount read-only at [`MOUNT`].
//!
//! A volume can only be written through a container, so a *holder* that is never started mounts it. An update makes
//! the next holder (`….next`), places `people.<hash>.json`, then the pointer `current` (the file's name as text), and
//! only then removes the old holder and takes its name: a holder under the plain name always means a finished
//! delivery. Agents' containers are not touched.
//!
//! Deliberately absent: removing former versions (an upload cannot delete). They are small, and `purge` removes all.

use std::future::Future;

use bollard::models::{ContainerCreateBody, ContainerSummary, HostConfig, Mount, MountType};
use fleet_apply::{Applied, ProviderError, Scope};
use fleet_derivation::Hash;
pub use fleet_plan::directory::address;
use fleet_plan::{Change, DirectorySpec, Health, Observed, RunState};

use crate::{
    EngineError,
    calls::Calls,
    files, labels,
    observe::{has_name, present, sorted},
};

/// Where holders and agents mount the volume.
pub const MOUNT: &str = "/fleet/directory";
/// Name of the volume within the scope.
pub const VOLUME: &str = "directory";
/// The file that names the present version.
pub const POINTER: &str = "current";
const NEXT: &str = ".next";

/// The holders: the finished one and one that an interrupted delivery left.
struct Holders {
    current: Option<(String, Option<Hash>)>,
    next: Option<String>,
}

impl Holders {
    fn among(scope: &Scope, list: &[ContainerSummary]) -> Self {
        let name = scope.name(VOLUME);
        let mut holders = Self { current: None, next: None };
        for container in list {
            let labels = sorted(container.labels.as_ref());
            if labels::address(&labels).as_ref() != Some(&address()) {
                continue;
            }
            let seen = present(container, &labels);
            if has_name(container, &name) {
                holders.current = Some((seen.id, seen.hash));
            } else if has_name(container, &format!("{name}{NEXT}")) {
                holders.next = Some(seen.id);
            }
        }
        holders
    }

    fn version(&self) -> Option<String> {
        self.current.as_ref().map(|(id, _)| id.clone()).or_else(|| self.next.clone())
    }
}

pub(crate) fn observed(scope: &Scope, list: &[ContainerSummary]) -> Option<Observed> {
    let holders = Holders::among(scope, list);
    let version = holders.version()?;
    Some(Observed {
        hash: holders.current.as_ref().and_then(|(_, hash)| *hash),
        actual: None,
        run: RunState::Present,
        health: Health::None,
        id: version.clone(),
        version,
        unfinished: holders.next.map(|_| "a delivery of the directory was interrupted".to_owned()),
    })
}

/// Delivers the document; `image` is awaited only when something must be written.
pub(crate) async fn deliver(
    scope: &Scope,
    calls: Calls<'_>,
    (change, spec, hash): (&Change, &DirectorySpec, Hash),
    image: impl Future<Output = Result<String, ProviderError>>,
) -> Result<Applied, ProviderError> {
    let at = |error: EngineError| error.at(&change.address);
    let holders = holders(scope, calls).await.map_err(at)?;
    if holders.next.is_none() && holders.current.as_ref().is_some_and(|(_, is)| *is == Some(hash)) {
        return Ok(Applied::Unchanged { output: None });
    }
    check_expected(change, &holders)?;
    let image = image.await?;
    if let Some(left) = &holders.next {
        calls.remove(left).await.map_err(at)?;
    }
    calls.ensure_volume(scope, VOLUME, Some(&address())).await.map_err(at)?;
    let name = scope.name(VOLUME);
    let id = calls.create(&format!("{name}{NEXT}"), holder(scope, &image, hash)).await.map_err(at)?;
    let file = format!("people.{}.json", Hash::of(spec.document.as_bytes()).short());
    for (path, text) in [(file.as_str(), spec.document.as_str()), (POINTER, file.as_str())] {
        let tar = files::archive_text(&format!("/{path}"), text)
            .map_err(|error| ProviderError::failed(&change.address, error.to_string()))?;
        calls.upload(&id, MOUNT, tar).await.map_err(at)?;
    }
    if let Some((old, _)) = &holders.current {
        calls.remove(old).await.map_err(at)?;
    }
    calls.rename(&id, &name).await.map_err(at)?;
    Ok(Applied::Changed { output: None })
}

/// Removes the holders; the volume stays until it is purged.
pub(crate) async fn remove(scope: &Scope, calls: Calls<'_>, change: &Change) -> Result<Applied, ProviderError> {
    let at = |error: EngineError| error.at(&change.address);
    let holders = holders(scope, calls).await.map_err(at)?;
    if holders.version().is_none() {
        return Ok(Applied::Unchanged { output: None });
    }
    check_expected(change, &holders)?;
    for id in holders.next.into_iter().chain(holders.current.map(|(id, _)| id)) {
        calls.remove(&id).await.map_err(at)?;
    }
    Ok(Applied::Changed { output: None })
}

async fn holders(scope: &Scope, calls: Calls<'_>) -> Result<Holders, EngineError> {
    let list = calls.list(scope, Some(&address())).await?;
    Ok(Holders::among(scope, &list))
}

fn check_expected(change: &Change, holders: &Holders) -> Result<(), ProviderError> {
    match (&change.expect, holders.version()) {
        (None, None) => Ok(()),
        (Some(expected), Some(is)) if *expected == is => Ok(()),
        // An interrupted delivery removed the planned holder and did not come to rename the next one.
        (Some(_), Some(_)) if holders.current.is_none() => Ok(()),
        (_, is) => Err(ProviderError::Stale {
            address: change.address.clone(),
            why: if is.is_some() { "another version of it was delivered" } else { "what was delivered is gone" }
                .to_owned(),
        }),
    }
}

fn holder(scope: &Scope, image: &str, hash: Hash) -> ContainerCreateBody {
    let mount = Mount {
        typ: Some(MountType::VOLUME),
        source: Some(scope.name(VOLUME)),
        target: Some(MOUNT.to_owned()),
        read_only: Some(false),
        ..Mount::default()
    };
    ContainerCreateBody {
        image: Some(image.to_owned()),
        // Never started; some engines want a command nevertheless.
        cmd: Some(vec!["/nothing".to_owned()]),
        labels: Some(labels::of(scope, Some(&address()), Some(hash))),
        network_disabled: Some(true),
        host_config: Some(HostConfig {
            mounts: Some(vec![mount]),
            network_mode: Some("none".to_owned()),
            ..HostConfig::default()
        }),
        ..ContainerCreateBody::default()
    }
}
