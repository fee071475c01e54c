//! [`create_body`]: a [`ContainerSpec`] as the engine's create call wants it. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HealthConfig, HostConfig, HostConfigLogConfig, Mount, MountType,
    NetworkingConfig, PortBinding, RestartPolicy, RestartPolicyNameEnum,
};
use fleet_apply::Scope;
use fleet_derivation::Hash;
use fleet_model::Address;
use fleet_plan::{ContainerSpec, HealthProbe, PlacedFile};

use crate::{Engine, EngineKind, labels};

const SECOND: i64 = 1_000_000_000;

/// What a container is made from.
pub(crate) struct Making<'a> {
    pub scope: &'a Scope,
    pub address: &'a Address,
    pub hash: Hash,
    pub image_id: &'a str,
    pub spec: &'a ContainerSpec,
    /// Names of the operator's secrets that it is made without.
    pub without: &'a BTreeSet<String>,
}

/// The body of the create call. Holds no secret: files are uploaded afterwards.
pub(crate) fn create_body(engine: &Engine, making: &Making<'_>) -> ContainerCreateBody {
    let spec = making.spec;
    let network = making.scope.name("net");
    let mut all = labels::of(making.scope, Some(making.address), Some(making.hash));
    if !making.without.is_empty() {
        let names: Vec<&str> = making.without.iter().map(String::as_str).collect();
        all.insert(labels::WITHOUT.to_owned(), names.join(","));
    }
    let endpoint =
        EndpointSettings { aliases: Some(spec.aliases.iter().cloned().collect()), ..EndpointSettings::default() };
    ContainerCreateBody {
        image: Some(making.image_id.to_owned()),
        hostname: Some(spec.hostname.clone()),
        env: Some(spec.env.iter().map(|(k, v)| format!("{k}={v}")).collect()),
        cmd: spec.command.clone(),
        healthcheck: spec.health.as_ref().map(health),
        labels: Some(all),
        stop_timeout: Some(spec.stop_grace_seconds.into()),
        exposed_ports: Some(spec.ports.iter().map(|p| format!("{}/tcp", p.container)).collect()),
        volumes: Some(writable_folders(spec).into_iter().collect()),
        networking_config: Some(NetworkingConfig {
            endpoints_config: Some(HashMap::from([(network.clone(), endpoint)])),
        }),
        host_config: Some(host_config(engine, making, network)),
        ..ContainerCreateBody::default()
    }
}

fn host_config(engine: &Engine, making: &Making<'_>, network: String) -> HostConfig {
    let spec = making.spec;
    // An engine refuses a limit above the processors it has; such a limit would not limit anything either.
    let cpu = spec.size.cpu.min(engine.cpus.saturating_mul(1024));
    HostConfig {
        network_mode: Some(network),
        nano_cpus: Some(i64::from(cpu) * SECOND / 1024),
        memory: Some(i64::from(spec.size.memory_mib) << 20),
        restart_policy: Some(RestartPolicy {
            name: Some(RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        security_opt: Some(vec!["no-new-privileges".to_owned()]),
        readonly_rootfs: Some(spec.read_only_root),
        tmpfs: spec.read_only_root.then(|| HashMap::from([("/tmp".to_owned(), String::new())])),
        extra_hosts: spec.host_gateway.then(|| vec!["host.docker.internal:host-gateway".to_owned()]),
        mounts: Some(spec.volumes.iter().map(|v| mount(making.scope, v)).collect()),
        port_bindings: Some(
            spec.ports
                .iter()
                .map(|port| {
                    let binding =
                        PortBinding { host_ip: Some("127.0.0.1".to_owned()), host_port: Some(port.host.to_string()) };
                    (format!("{}/tcp", port.container), Some(vec![binding]))
                })
                .collect(),
        ),
        // Without a limit a talkative agent fills the disk.
        log_config: (engine.kind == EngineKind::Docker).then(|| HostConfigLogConfig {
            typ: Some("json-file".to_owned()),
            config: Some(HashMap::from([
                ("max-size".to_owned(), "10m".to_owned()),
                ("max-file".to_owned(), "3".to_owned()),
            ])),
        }),
        ..HostConfig::default()
    }
}

fn mount(scope: &Scope, volume: &fleet_plan::VolumeMount) -> Mount {
    Mount {
        typ: Some(MountType::VOLUME),
        source: Some(scope.name(&volume.volume)),
        target: Some(volume.path.clone()),
        read_only: Some(volume.read_only),
        ..Mount::default()
    }
}

/// Folders that get an anonymous volume, removed with the container: an engine refuses to place files on a read-only
/// root, so the folders of placed files are volumes there (which the engine fills from the image).
fn writable_folders(spec: &ContainerSpec) -> BTreeSet<String> {
    if !spec.read_only_root {
        return BTreeSet::new();
    }
    spec.files.iter().filter(|f| mounted_at(spec, &f.path).is_none()).filter_map(|f| folder(&f.path)).collect()
}

/// Which files are unpacked where: all at `/`, or, under a read-only root, each in the volume that it lies in. The
/// paths of the files are relative to that place and begin with `/`.
pub(crate) fn uploads(spec: &ContainerSpec) -> BTreeMap<String, Vec<PlacedFile>> {
    let mut uploads: BTreeMap<String, Vec<PlacedFile>> = BTreeMap::new();
    for file in &spec.files {
        let place = if spec.read_only_root {
            mounted_at(spec, &file.path).map(str::to_owned).or_else(|| folder(&file.path)).unwrap_or_default()
        } else {
            String::new()
        };
        let path = file.path.strip_prefix(&place).unwrap_or(&file.path).to_owned();
        let place = if place.is_empty() { "/".to_owned() } else { place };
        uploads.entry(place).or_default().push(PlacedFile { path, ..file.clone() });
    }
    uploads
}

fn folder(path: &str) -> Option<String> {
    path.rsplit_once('/').map(|(folder, _)| folder.to_owned()).filter(|folder| !folder.is_empty())
}

/// The declared volume that a path lies in.
fn mounted_at<'a>(spec: &'a ContainerSpec, path: &str) -> Option<&'a str> {
    let places = spec.volumes.iter().map(|v| v.path.trim_end_matches('/'));
    places.filter(|place| path.strip_prefix(place).is_some_and(|rest| rest.starts_with('/'))).max_by_key(|p| p.len())
}

fn health(probe: &HealthProbe) -> HealthConfig {
    let mut test = vec!["CMD".to_owned()];
    test.extend(probe.command.iter().cloned());
    HealthConfig {
        test: Some(test),
        interval: Some(i64::from(probe.interval_seconds) * SECOND),
        timeout: Some(i64::from(probe.timeout_seconds) * SECOND),
        start_period: Some(i64::from(probe.start_period_seconds) * SECOND),
        retries: Some(probe.retries.into()),
        start_interval: None,
    }
}
