//! Values that services read from Parameter Store: derived from the fleet secret, written once, never changed here.
//!
//! The fleet secret is made by AWS with the data stack and read only to derive from it. No value is told to anybody.

use std::collections::BTreeMap;

use aws_sdk_ssm::types::ParameterType;
use fleet_secret::{FleetSecret, Secret};

use crate::{account::Account, error::AwsError};

/// Names that one GetParameters takes (SSM API reference).
const NAMES_AT_ONCE: usize = 10;
/// Parameter in which AWS publishes the newest Amazon Linux 2023 for x86-64.
const NEWEST_MACHINE_IMAGE: &str = "/aws/service/ami-amazon-linux-latest/al2023-ami-kernel-default-x86_64";

/// Why the fleet secret cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SecretError {
    /// A call failed.
    #[error(transparent)]
    Aws(#[from] AwsError),
    /// It is not what the data stack makes.
    #[error("the fleet secret {0} is not JSON of the form {{\"secret\": …}} with at least 16 characters")]
    Shape(String),
}

impl Account {
    /// Writes what is not there yet: names, and the labels of the keys they hold. Returns how many were written.
    pub(crate) async fn ensure_keys(
        &self,
        keys: &BTreeMap<String, String>,
        secret_arn: &str,
    ) -> Result<usize, SecretError> {
        let mut missing = Vec::new();
        for names in keys.keys().cloned().collect::<Vec<_>>().chunks(NAMES_AT_ONCE) {
            // Without decryption: that they are there is all we ask.
            let answer = self.parameters.get_parameters().set_names(Some(names.to_vec())).send().await;
            let answer = answer.map_err(|error| AwsError::of("GetParameters", error))?;
            missing.extend(answer.invalid_parameters().to_vec());
        }
        if missing.is_empty() {
            return Ok(0);
        }
        let secret = self.fleet_secret(secret_arn).await?;
        for (name, label) in keys.iter().filter(|(name, _)| missing.contains(name)) {
            let value = secret.key_for(label);
            let value = value.expose_str().map_err(|_| SecretError::Shape(secret_arn.to_owned()))?;
            let put = self.parameters.put_parameter().name(name).value(value).r#type(ParameterType::SecureString);
            match put.overwrite(false).send().await.map_err(|error| AwsError::of("PutParameter", error)) {
                Ok(_) => {}
                // A lost answer, or somebody else: the value is the same.
                Err(error) if error.code() == "ParameterAlreadyExists" => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(missing.len())
    }

    async fn fleet_secret(&self, arn: &str) -> Result<FleetSecret, SecretError> {
        let answer = self.secrets.get_secret_value().secret_id(arn).send().await;
        let answer = answer.map_err(|error| AwsError::of("GetSecretValue", error))?;
        let shape = || SecretError::Shape(arn.to_owned());
        let document: serde_json::Value =
            serde_json::from_str(answer.secret_string().unwrap_or_default()).map_err(|_| shape())?;
        let value = document["secret"].as_str().ok_or_else(shape)?;
        FleetSecret::new(Secret::new(value.as_bytes().to_vec())).map_err(|_| shape())
    }

    /// The machine image that a new bastion gets.
    pub(crate) async fn newest_machine_image(&self) -> Result<String, AwsError> {
        let answer = self.parameters.get_parameter().name(NEWEST_MACHINE_IMAGE).send().await;
        let answer = answer.map_err(|error| AwsError::of("GetParameter", error))?;
        let value = answer.parameter().and_then(|parameter| parameter.value()).map(str::to_owned);
        value.ok_or_else(|| AwsError::Refused {
            call: "GetParameter",
            code: "NoValue".to_owned(),
            why: format!("{NEWEST_MACHINE_IMAGE} has no value"),
        })
    }
}
