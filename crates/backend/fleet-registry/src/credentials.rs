//! [`Credentials`]: who we are to a registry. [`DockerConfig`] is what `docker login` leaves behind; clouds' own tokens
//! come from a caller's implementation.

use std::{fs::File, io::BufReader, path::PathBuf, time::Duration};

use async_trait::async_trait;
use docker_credential::{CredentialRetrievalError, DockerCredential, get_credential_from_reader};
use fleet_secret::Secret;

/// How long a credential helper may take: some ask a person.
const HELPER_TIME: Duration = Duration::from_secs(60);
/// How docker names Docker Hub in its configuration.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Who we are to a registry.
#[derive(Clone)]
pub enum Credential {
    /// A name and a password, or a token that is used like one.
    Password {
        /// Not secret.
        user: String,
        /// The password.
        password: Secret,
    },
    /// A token that is exchanged for others (OAuth's refresh token).
    Identity(Secret),
}

impl Credential {
    pub(crate) fn user(&self) -> String {
        match self {
            Self::Password { user, .. } => user.clone(),
            Self::Identity(_) => "of an identity token".to_owned(),
        }
    }
}

/// A source of credentials.
#[async_trait]
pub trait Credentials: Send + Sync {
    /// The credential for a registry (`ghcr.io`, `localhost:5000`), `None` to ask as a stranger. Called once for each
    /// registry, and again when the registry no longer accepts what was given.
    ///
    /// # Errors
    /// When there should be one and it cannot be had.
    async fn of(&self, registry: &str) -> Result<Option<Credential>, CredentialsError>;
}

/// Why a credential cannot be had. Carries none.
#[derive(Debug, thiserror::Error)]
#[error("the credentials for {registry} cannot be had: {why}")]
pub struct CredentialsError {
    /// For whom.
    pub registry: String,
    /// What went wrong, without anything secret.
    pub why: String,
}

/// A stranger everywhere.
#[derive(Clone, Copy, Debug, Default)]
pub struct Nobody;

#[async_trait]
impl Credentials for Nobody {
    async fn of(&self, _: &str) -> Result<Option<Credential>, CredentialsError> {
        Ok(None)
    }
}

/// Docker's `config.json`: `auths`, `credHelpers`, `credsStore`. Helpers are run as docker runs them:
/// `docker-credential-NAME get` with the registry on stdin.
#[derive(Clone, Debug)]
pub struct DockerConfig {
    file: PathBuf,
}

impl DockerConfig {
    /// This file, which need not exist.
    #[must_use]
    pub fn at(file: impl Into<PathBuf>) -> Self {
        Self { file: file.into() }
    }

    /// `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; `None` without a home folder.
    #[must_use]
    pub fn of_this_user() -> Option<Self> {
        let set = std::env::var_os("DOCKER_CONFIG").filter(|value| !value.is_empty()).map(PathBuf::from);
        let folder = set.or_else(|| Some(std::env::home_dir()?.join(".docker")))?;
        Some(Self::at(folder.join("config.json")))
    }

    fn look_up(&self, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        let failed = |why: String| CredentialsError { registry: registry.to_owned(), why };
        let names = if registry == "docker.io" { vec![DOCKER_HUB, registry] } else { vec![registry] };
        for name in names {
            let file = match File::open(&self.file) {
                Ok(file) => BufReader::new(file),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
                Err(error) => return Err(failed(format!("{}: {error}", self.file.display()))),
            };
            match get_credential_from_reader(file, name) {
                // Docker writes empty ones, too.
                Ok(DockerCredential::UsernamePassword(user, password)) if user.is_empty() && password.is_empty() => {}
                Ok(DockerCredential::UsernamePassword(user, password)) => {
                    return Ok(Some(Credential::Password { user, password: Secret::new(password) }));
                }
                Ok(DockerCredential::IdentityToken(token)) => {
                    return Ok(Some(Credential::Identity(Secret::new(token))));
                }
                Err(CredentialRetrievalError::NoCredentialConfigured) => {}
                Err(error) => {
                    if let Some(why) = self.words(error) {
                        return Err(failed(why));
                    }
                }
            }
        }
        Ok(None)
    }

    /// What went wrong; `None` when a helper only says that it has nothing. A helper's stdout is where the secret would
    /// be: it is looked at and never repeated.
    fn words(&self, error: CredentialRetrievalError) -> Option<String> {
        Some(match error {
            CredentialRetrievalError::HelperFailure { stdout, stderr, .. }
                if [&stdout, &stderr].iter().any(|said| said.contains("credentials not found")) =>
            {
                return None;
            }
            CredentialRetrievalError::HelperFailure { helper, .. } => {
                format!("{helper}, which {} names, failed; try `docker login`", self.file.display())
            }
            CredentialRetrievalError::HelperCommunicationError => {
                format!("the credential helper that {} names cannot be run; is it installed?", self.file.display())
            }
            CredentialRetrievalError::MalformedHelperResponse => {
                format!("the credential helper that {} names answers what cannot be read", self.file.display())
            }
            _ => format!("{} cannot be read; write it anew with `docker login`", self.file.display()),
        })
    }
}

#[async_trait]
impl Credentials for DockerConfig {
    async fn of(&self, registry: &str) -> Result<Option<Credential>, CredentialsError> {
        // Where there is nothing to read, nobody waits for a thread that finds that out.
        if matches!(self.file.try_exists(), Ok(false)) {
            return Ok(None);
        }
        let (config, name) = (self.clone(), registry.to_owned());
        let looking = tokio::task::spawn_blocking(move || config.look_up(&name));
        match tokio::time::timeout(HELPER_TIME, looking).await {
            Ok(Ok(found)) => found,
            Ok(Err(_)) => {
                Err(CredentialsError { registry: registry.to_owned(), why: "the look-up broke off".to_owned() })
            }
            Err(_) => {
                let why = format!("the credential helper did not answer within {} s", HELPER_TIME.as_secs());
                Err(CredentialsError { registry: registry.to_owned(), why })
            }
        }
    }
}
