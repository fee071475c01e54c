//! [`RegistryConfig`]: everything that a [`crate::Client`] is told about the machine and the person it works for.

use std::{path::PathBuf, sync::Arc};

use fleet_apply::{Clock, SystemClock};

use crate::{
    credentials::{Credentials, DockerConfig, Nobody},
    mirrors::{MirrorError, Mirrors},
};

/// Requests to one registry at a time, unless told otherwise.
const PARALLEL: usize = 4;

/// How registries are spoken to.
#[derive(Clone)]
pub struct RegistryConfig {
    /// Who we are.
    pub credentials: Arc<dyn Credentials>,
    /// Other places to pull from.
    pub mirrors: Mirrors,
    /// A PEM file of certificate authorities that are trusted beside the machine's own (`SSL_CERT_FILE` and the system's
    /// bundle are always read).
    pub ca_bundle: Option<PathBuf>,
    /// Blobs that are pulled or pushed at a time.
    pub parallel: usize,
    /// TLS also on loopback. Otherwise loopback, and nothing else, is spoken to in plain HTTP.
    pub tls_on_loopback: bool,
    /// Time and chance.
    pub clock: Arc<dyn Clock>,
}

impl Default for RegistryConfig {
    /// A stranger without mirrors.
    fn default() -> Self {
        Self {
            credentials: Arc::new(Nobody),
            mirrors: Mirrors::default(),
            ca_bundle: None,
            parallel: PARALLEL,
            tls_on_loopback: false,
            clock: Arc::new(SystemClock),
        }
    }
}

impl RegistryConfig {
    /// As this user of this machine: docker's credentials (`DOCKER_CONFIG`, else `~/.docker`) and the mirrors in
    /// `FLEETCTL_REGISTRY_MIRRORS`.
    ///
    /// # Errors
    /// When the variable cannot be read.
    pub fn from_machine() -> Result<Self, MirrorError> {
        let docker = DockerConfig::of_this_user().map(|config| Arc::new(config) as Arc<dyn Credentials>);
        let mirrors = std::env::var(Mirrors::VARIABLE).unwrap_or_default().parse()?;
        Ok(Self { credentials: docker.unwrap_or_else(|| Arc::new(Nobody)), mirrors, ..Self::default() })
    }
}
