//! [`Machine`]: what this process finds around itself, read once and handed in as values.

use std::{collections::BTreeMap, path::PathBuf};

use fleet_apply::{Scope, Secrets};
use fleet_model::model::{Model, ModelProviderKind};
use fleet_oci::{Platform, write_tar::LATEST_MTIME};
use fleet_secret::{FleetSecret, Secret};
use fleet_store::private_file;

use crate::{error::Failure, exit::Exit};

/// Environment variables and folders.
#[derive(Clone, Debug)]
pub struct Machine {
    /// Where files of the operator go that must survive `.fleet/`: the fleet secret. `None` without a home folder.
    config: Option<PathBuf>,
    /// Where files go that can be made again: access tokens.
    state: Option<PathBuf>,
    /// Where programs go that can be installed again: the emulator.
    cache: Option<PathBuf>,
}

impl Machine {
    /// Reads the environment. A missing home folder only matters to who needs a secret.
    #[must_use]
    pub fn read() -> Self {
        let folder = |variable: &str, below_home: &str| {
            let set = std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
            set.or_else(|| std::env::home_dir().map(|home| home.join(below_home)))
        };
        let own = |folder: Option<PathBuf>| folder.map(|folder| folder.join("fleetctl"));
        Self {
            config: own(folder("XDG_CONFIG_HOME", ".config")),
            state: own(folder("XDG_STATE_HOME", ".local/state")),
            cache: own(folder("XDG_CACHE_HOME", ".cache")),
        }
    }

    /// Where the fleet secret of an environment is kept when `FLEET_SECRET` does not give it.
    ///
    /// # Errors
    /// Without a home folder.
    pub fn secret_file(&self, scope: &Scope) -> Result<PathBuf, Failure> {
        Ok(self.config.as_ref().ok_or_else(homeless)?.join(scope.name("secret")))
    }

    /// Where the service account's access token is kept.
    ///
    /// # Errors
    /// Without a home folder.
    pub fn token_file(&self, scope: &Scope) -> Result<PathBuf, Failure> {
        Ok(self.state.as_ref().ok_or_else(homeless)?.join(scope.name("matrix-token")))
    }

    /// What a manager touches as long as it goes on.
    ///
    /// # Errors
    /// A machine without a home.
    pub fn manager_file(&self, scope: &Scope) -> Result<PathBuf, Failure> {
        Ok(self.state.as_ref().ok_or_else(homeless)?.join(scope.name("manager-alive")))
    }

    /// The secrets of an environment: `FLEET_SECRET`, else a file that is generated once.
    ///
    /// # Errors
    /// A secret that is too short, or a file that others can read.
    pub fn secrets(&self, scope: &Scope, model: &Model) -> Result<Secrets, Failure> {
        let value = match std::env::var("FLEET_SECRET") {
            Ok(value) if !value.is_empty() => Secret::new(value),
            _ => {
                let file = self.secret_file(scope)?;
                private_file::create_once(&file, generate)
                    .map_err(|error| Failure::caused(Exit::Failed, "the fleet secret cannot be read", &error))?
            }
        };
        let fleet = FleetSecret::new(value).map_err(|error| {
            Failure::caused(Exit::Failed, "the fleet secret is refused", &error)
                .hint("unset FLEET_SECRET to have one generated, or set a longer one")
        })?;
        Ok(Secrets { fleet, operator: operator_secrets(model) })
    }
}

impl Machine {
    /// For a target that has a fleet secret of its own: what is made here in its place is used for nothing and kept nowhere.
    /// What the operator provides is as everywhere.
    ///
    /// # Errors
    /// A machine without random numbers.
    pub fn operator_secrets(&self, model: &Model) -> Result<Secrets, Failure> {
        let fleet = FleetSecret::new(generate())
            .map_err(|error| Failure::caused(Exit::Failed, "this machine has no random numbers", &error))?;
        Ok(Secrets { fleet, operator: operator_secrets(model) })
    }

    /// Where programs are installed that can be installed again.
    ///
    /// # Errors
    /// Without a home folder.
    pub fn cache(&self) -> Result<PathBuf, Failure> {
        self.cache.clone().ok_or_else(homeless)
    }
}

fn homeless() -> Failure {
    Failure::new(Exit::Failed, "there is no home folder to keep the fleet secret and tokens in")
        .hint("set HOME, or XDG_CONFIG_HOME and XDG_STATE_HOME")
}

/// 32 random bytes as hex.
fn generate() -> Secret {
    use std::io::Read as _;
    let mut bytes = [0_u8; 32];
    // The kernel's generator; where even that cannot be read nothing on this machine is safe, and the short
    // result is refused by FleetSecret.
    let read = std::fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    if read.is_err() { Secret::new(Vec::new()) } else { Secret::new(hex(&bytes)) }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Values of the variables that model providers name as their keys.
fn operator_secrets(model: &Model) -> BTreeMap<String, Secret> {
    model
        .providers
        .values()
        .filter_map(|provider| match &provider.kind {
            ModelProviderKind::Bedrock { api_key, .. } | ModelProviderKind::OpenAi { api_key, .. } => api_key.as_ref(),
        })
        .filter_map(|name| Some((name.0.clone(), std::env::var(&name.0).ok().filter(|value| !value.is_empty())?)))
        .map(|(name, value)| (name, Secret::new(value)))
        .collect()
}

/// The platform of this machine's own processor; what a target without an answer of its own is assumed to run.
#[must_use]
pub fn own_platform() -> Platform {
    if std::env::consts::ARCH == "aarch64" { Platform::LinuxArm64 } else { Platform::LinuxAmd64 }
}

/// `SOURCE_DATE_EPOCH`: the time that files in layers bear, in seconds since 1970, where somebody set it.
///
/// # Errors
/// A value that is no such time.
pub fn source_date_epoch() -> Result<Option<u64>, Failure> {
    const NAME: &str = "SOURCE_DATE_EPOCH";
    let Some(value) = std::env::var_os(NAME).filter(|value| !value.is_empty()) else { return Ok(None) };
    value.to_str().and_then(archive_time).map(Some).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("{NAME} is not a time that an archive can hold"))
            .hint(format!("set it to whole seconds since 1970, at most {LATEST_MTIME}, or unset it"))
    })
}

/// Seconds since 1970 that the header of an archive's entry holds.
fn archive_time(text: &str) -> Option<u64> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|time| digits && *time <= LATEST_MTIME)
}

/// How a person calls this program from here: its bare name where the shell finds it, else its path.
#[must_use]
pub fn program() -> String {
    const NAME: &str = "fleetctl";
    let Ok(this) = std::env::current_exe() else { return NAME.to_owned() };
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|folder| folder.join(NAME)).find(|file| file.is_file());
    if found.and_then(|file| file.canonicalize().ok()).as_ref() == Some(&this) {
        return NAME.to_owned();
    }
    let here = std::env::current_dir().unwrap_or_default();
    match this.strip_prefix(&here) {
        Ok(relative) => format!("./{}", relative.display()),
        Err(_) => this.display().to_string(),
    }
}

/// The user that this process runs for, as leases and generations name them.
#[must_use]
pub fn user() -> String {
    let named = |variable: &str| std::env::var(variable).ok().filter(|name| !name.is_empty());
    named("USER").or_else(|| named("LOGNAME")).unwrap_or_else(|| "somebody".to_owned())
}

/// Whether this process may install packages.
#[must_use]
pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_whole_seconds_that_an_archive_can_hold() {
        assert_eq!(archive_time("1700000000"), Some(1_700_000_000));
        assert_eq!(archive_time("0"), Some(0));
        for bad in ["", "-1", "+1", "1.5", "yesterday", "8589934592", "99999999999999999999"] {
            assert_eq!(archive_time(bad), None, "{bad}");
        }
    }
}
