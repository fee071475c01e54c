//! [`assemble`]: layers and settings become an [`Image`], the exact bytes of its config and manifest.
//!
//! Keys are written in one fixed order by our own types, because a digest is a digest of bytes. Nothing that varies
//! without the content is in them: no date, no revision; the history has a constant line for each layer, because tools that
//! build on an image refuse one without.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::{
    digest::{Digest, DigestError},
    healthcheck::Healthcheck,
    layer::LayerDescriptor,
    platform::Platform,
    recipe::Inputs,
};

/// When every image was made, as far as its config tells.
pub const CREATED: &str = "1970-01-01T00:00:01Z";
/// Media type of [`Image::manifest`].
pub const MANIFEST_TYPE: &str = "application/vnd.oci.image.manifest.v1+json";
/// Media type of [`Image::config_json`].
pub const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// What a container of the image starts with.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ImageConfig {
    /// Environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// `ENTRYPOINT`; empty keeps the base's.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// `CMD`; empty keeps the base's, unless an entry point is set.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// `name`, `uid` or `uid:gid`.
    #[serde(default)]
    pub user: Option<String>,
    /// Absolute.
    #[serde(default)]
    pub working_dir: Option<String>,
    /// `8008/tcp`
    #[serde(default)]
    pub exposed_ports: BTreeSet<String>,
    /// Absolute folders.
    #[serde(default)]
    pub volumes: BTreeSet<String>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// `SIGTERM`…
    #[serde(default)]
    pub stop_signal: Option<String>,
    /// Of images that others made; Docker's addition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// What runs the health check's `CMD-SHELL`; Docker's addition, empty for `/bin/sh -c`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
}

impl ImageConfig {
    pub(crate) fn add_hash_inputs(&self, inputs: &mut Inputs) {
        inputs.add_map("env", &self.env);
        self.entrypoint.iter().for_each(|word| inputs.add("entrypoint", word));
        self.cmd.iter().for_each(|word| inputs.add("cmd", word));
        for (field, value) in
            [("user", &self.user), ("working-dir", &self.working_dir), ("stop-signal", &self.stop_signal)]
        {
            value.iter().for_each(|value| inputs.add(field, value));
        }
        self.exposed_ports.iter().for_each(|port| inputs.add("port", port));
        self.volumes.iter().for_each(|volume| inputs.add("volume", volume));
        inputs.add_map("label", &self.labels);
        self.healthcheck.iter().for_each(|check| check.add_hash_inputs(inputs));
        self.shell.iter().for_each(|word| inputs.add("shell", word));
    }

    /// These settings over those of a base, as a Containerfile's instructions would apply.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        let mut merged = base.clone();
        merged.env.extend(self.env.clone());
        merged.labels.extend(self.labels.clone());
        merged.exposed_ports.extend(self.exposed_ports.iter().cloned());
        merged.volumes.extend(self.volumes.iter().cloned());
        if !self.entrypoint.is_empty() {
            merged.entrypoint.clone_from(&self.entrypoint);
            merged.cmd.clear();
        }
        if !self.cmd.is_empty() {
            merged.cmd.clone_from(&self.cmd);
        }
        if !self.shell.is_empty() {
            merged.shell.clone_from(&self.shell);
        }
        if self.healthcheck.is_some() {
            merged.healthcheck.clone_from(&self.healthcheck);
        }
        for (ours, theirs) in [
            (&self.user, &mut merged.user),
            (&self.working_dir, &mut merged.working_dir),
            (&self.stop_signal, &mut merged.stop_signal),
        ] {
            if ours.is_some() {
                theirs.clone_from(ours);
            }
        }
        merged
    }
}

/// A finished image for one platform.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Image {
    /// What it runs on.
    pub platform: Platform,
    /// Settings with the base's merged in.
    pub config: ImageConfig,
    /// Bottom to top.
    pub layers: Vec<LayerDescriptor>,
    /// The config blob.
    pub config_json: String,
    /// SHA-256 of the config blob: what Docker shows as the image's id.
    pub config_digest: Digest,
    /// The manifest.
    pub manifest_json: String,
    /// SHA-256 of the manifest: what registries and task definitions name.
    pub digest: Digest,
}

/// What an image stands on: another image's settings and layers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// Its settings.
    pub config: ImageConfig,
    /// Its layers, bottom to top.
    pub layers: Vec<LayerDescriptor>,
}

impl From<&Image> for Base {
    fn from(image: &Image) -> Self {
        Self { config: image.config.clone(), layers: image.layers.clone() }
    }
}

/// Puts an image together.
#[must_use]
pub fn assemble(base: &Base, platform: Platform, config: &ImageConfig, layers: &[LayerDescriptor]) -> Image {
    let config = config.over(&base.config);
    let layers: Vec<_> = base.layers.iter().chain(layers).cloned().collect();
    let config_json = json(&ConfigBlob::new(platform, &config, &layers));
    let config_digest = Digest::sha256(config_json.as_bytes());
    let manifest_json = manifest(config_json.len(), &config_digest, &layers);
    let digest = Digest::sha256(manifest_json.as_bytes());
    Image { platform, config, layers, config_json, config_digest, manifest_json, digest }
}

/// A manifest's exact bytes.
pub(crate) fn manifest(config_length: usize, config_digest: &Digest, layers: &[LayerDescriptor]) -> String {
    json(&Manifest {
        schema_version: 2,
        media_type: MANIFEST_TYPE,
        config: Descriptor { media_type: CONFIG_TYPE, digest: config_digest, size: config_length as u64 },
        layers: layers
            .iter()
            .map(|layer| Descriptor { media_type: &layer.media_type, digest: &layer.digest, size: layer.size })
            .collect(),
    })
}

/// A config blob from elsewhere that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not JSON of the shape.
    #[error("the image config cannot be read: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A diff id that is not a digest.
    #[error("the image config names a layer badly: {0}")]
    Digest(#[from] DigestError),
}

/// Reads a base's config blob (OCI or Docker): its settings, and the diff ids of its layers.
///
/// # Errors
/// [`ConfigError`].
pub fn read_config(bytes: &[u8]) -> Result<(ImageConfig, Vec<Digest>), ConfigError> {
    let blob: ForeignConfig = serde_json::from_slice(bytes)?;
    let diff_ids = blob.rootfs.diff_ids.iter().map(|id| id.parse()).collect::<Result<_, _>>()?;
    let run = blob.config.unwrap_or_default();
    let pairs = run.env.unwrap_or_default();
    let env = pairs.iter().filter_map(|pair| pair.split_once('=')).map(|(k, v)| (k.to_owned(), v.to_owned()));
    let keys = |map: Option<BTreeMap<String, serde_json::Value>>| map.unwrap_or_default().into_keys().collect();
    let text = |value: Option<String>| value.filter(|value| !value.is_empty());
    let config = ImageConfig {
        env: env.collect(),
        entrypoint: run.entrypoint.unwrap_or_default(),
        cmd: run.cmd.unwrap_or_default(),
        user: text(run.user),
        working_dir: text(run.working_dir),
        exposed_ports: keys(run.exposed_ports),
        volumes: keys(run.volumes),
        labels: run.labels.unwrap_or_default(),
        stop_signal: text(run.stop_signal),
        healthcheck: run.healthcheck,
        shell: run.shell.unwrap_or_default(),
    };
    Ok((config, diff_ids))
}

#[derive(Deserialize)]
struct ForeignConfig {
    config: Option<ForeignRun>,
    rootfs: ForeignRootfs,
}

#[derive(Deserialize)]
struct ForeignRootfs {
    diff_ids: Vec<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ForeignRun {
    env: Option<Vec<String>>,
    entrypoint: Option<Vec<String>>,
    cmd: Option<Vec<String>>,
    user: Option<String>,
    working_dir: Option<String>,
    exposed_ports: Option<BTreeMap<String, serde_json::Value>>,
    volumes: Option<BTreeMap<String, serde_json::Value>>,
    labels: Option<BTreeMap<String, String>>,
    stop_signal: Option<String>,
    healthcheck: Option<Healthcheck>,
    shell: Option<Vec<String>>,
}

/// Field order is byte order of the blob: do not sort.
#[derive(Serialize)]
struct ConfigBlob<'a> {
    created: &'static str,
    architecture: &'static str,
    os: &'static str,
    config: RunBlob<'a>,
    rootfs: Rootfs<'a>,
    history: Vec<History>,
}

/// A line of the history. `buildah` counts them, and takes an image only when there is one for each layer.
#[derive(Clone, Serialize)]
struct History {
    created: &'static str,
    created_by: &'static str,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct RunBlob<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    user: &'a Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    exposed_ports: BTreeMap<&'a str, Empty>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    env: Vec<String>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    entrypoint: &'a [String],
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    cmd: &'a [String],
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    volumes: BTreeMap<&'a str, Empty>,
    #[serde(skip_serializing_if = "Option::is_none")]
    working_dir: &'a Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: &'a BTreeMap<String, String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stop_signal: &'a Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    healthcheck: &'a Option<Healthcheck>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    shell: &'a [String],
}

#[derive(Serialize)]
struct Empty {}

#[derive(Serialize)]
struct Rootfs<'a> {
    r#type: &'static str,
    diff_ids: Vec<&'a Digest>,
}

impl<'a> ConfigBlob<'a> {
    fn new(platform: Platform, config: &'a ImageConfig, layers: &'a [LayerDescriptor]) -> Self {
        let set = |set: &'a BTreeSet<String>| set.iter().map(|key| (key.as_str(), Empty {})).collect();
        Self {
            created: CREATED,
            architecture: platform.architecture(),
            os: platform.os(),
            config: RunBlob {
                user: &config.user,
                exposed_ports: set(&config.exposed_ports),
                env: config.env.iter().map(|(key, value)| format!("{key}={value}")).collect(),
                entrypoint: &config.entrypoint,
                cmd: &config.cmd,
                volumes: set(&config.volumes),
                working_dir: &config.working_dir,
                labels: &config.labels,
                stop_signal: &config.stop_signal,
                healthcheck: &config.healthcheck,
                shell: &config.shell,
            },
            rootfs: Rootfs { r#type: "layers", diff_ids: layers.iter().map(|layer| &layer.diff_id).collect() },
            history: vec![History { created: CREATED, created_by: "fleetctl" }; layers.len()],
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a> {
    schema_version: u32,
    media_type: &'static str,
    config: Descriptor<'a>,
    layers: Vec<Descriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor<'a> {
    media_type: &'a str,
    digest: &'a Digest,
    size: u64,
}

/// Our own types have only text keys, so this cannot fail; an empty blob would be refused by every reader.
pub(crate) fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(name: &str) -> LayerDescriptor {
        LayerDescriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+zstd".into(),
            digest: Digest::sha256(name.as_bytes()),
            diff_id: Digest::sha256(format!("{name} unpacked").as_bytes()),
            size: 3,
            uncompressed: 1024,
        }
    }

    fn settings() -> ImageConfig {
        ImageConfig {
            env: BTreeMap::from([("PATH".into(), "/usr/bin".into())]),
            entrypoint: vec!["/bin/x".into()],
            user: Some("1000:1000".into()),
            exposed_ports: BTreeSet::from(["8008/tcp".into()]),
            ..ImageConfig::default()
        }
    }

    #[test]
    fn config_and_manifest_are_what_the_oci_types_read() {
        let image = assemble(&Base::default(), Platform::LinuxAmd64, &settings(), &[layer("a"), layer("b")]);
        let manifest = oci_spec::image::ImageManifest::from_reader(image.manifest_json.as_bytes()).unwrap();
        assert_eq!(manifest.layers().len(), 2);
        assert_eq!(manifest.config().digest().to_string(), image.config_digest.to_string());
        let config = oci_spec::image::ImageConfiguration::from_reader(image.config_json.as_bytes()).unwrap();
        assert_eq!(config.rootfs().diff_ids()[1], layer("b").diff_id.to_string());
        let made_a_layer = |line: &oci_spec::image::History| line.empty_layer() != Some(true);
        assert_eq!(config.history().iter().flatten().filter(|line| made_a_layer(line)).count(), 2, "a line a layer");
        let (read, diff_ids) = read_config(image.config_json.as_bytes()).unwrap();
        assert_eq!((read, diff_ids.len()), (settings(), 2));
    }

    #[test]
    fn the_digest_of_a_fixed_image_never_changes() {
        let image = assemble(&Base::default(), Platform::LinuxAmd64, &settings(), &[layer("a")]);
        assert_eq!(image.digest.to_string(), "sha256:173f7900805bc44ded93da3ccf42ad460fed86a808727497c157318a3d2bc358");
    }

    #[test]
    fn an_image_on_another_keeps_its_layers_below_and_its_settings_unless_overridden() {
        let healthcheck =
            Some(Healthcheck { test: Some(vec!["NONE".into()]), retries: Some(3), ..Healthcheck::default() });
        let shell = vec!["/bin/ash".to_owned(), "-c".to_owned()];
        let config = ImageConfig { healthcheck: healthcheck.clone(), shell: shell.clone(), ..settings() };
        let base = Base { config, layers: vec![layer("a")] };
        let own = ImageConfig { cmd: vec!["run".into()], ..ImageConfig::default() };
        let image = assemble(&base, Platform::LinuxAmd64, &own, &[layer("b")]);
        assert_eq!(image.layers, [layer("a"), layer("b")]);
        assert_eq!(image.config.entrypoint, ["/bin/x"]);
        assert_eq!(image.config.cmd, ["run"]);
        assert_eq!(image.config.user.as_deref(), Some("1000:1000"));
        let (read, _) = read_config(image.config_json.as_bytes()).unwrap();
        assert_eq!((read.healthcheck, read.shell), (healthcheck, shell));
    }
}
