//! Values that services read from Parameter Store: derived from the fleet secret, written once, never changed here.
//!
//! The fleet secret is made by AWS with the data stack and read only to derive from it. No value is told to anybody.

use std::collections::BTreeMap;

use aws_sdk_ssm::types::ParameterType;
use fleet_secret::{FleetSecret, Secret};

use crate::{account::Account, error::AwsError};

/// Names that one GetParameters takes (SSM API reference).
const NAMES_AT_ONCE: usize = 10;
/// The output of a data stack that names its fleet secret.
pub(crate) const SECRET_OUTPUT: &str = "FleetSecretArn";
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
    /// What is to be written is not text.
    #[error("the value of {0} is not text")]
    NoText(String),
}

impl Account {
    /// Writes what is not there yet: names, and the labels of the keys they hold. Returns how many were written.
    pub(crate) async fn ensure_keys(
        &self,
        keys: &BTreeMap<String, String>,
        secret_arn: &str,
    ) -> Result<usize, SecretError> {
        let missing = self.missing_parameters(keys.keys().cloned().collect()).await?;
        if missing.is_empty() {
            return Ok(0);
        }
        let secret = self.fleet_secret(secret_arn).await?;
        for (name, label) in keys.iter().filter(|(name, _)| missing.contains(name)) {
            self.put_parameter(name, &secret.key_for(label)).await?;
        }
        Ok(missing.len())
    }

    /// Which of these parameters are not there.
    pub(crate) async fn missing_parameters(&self, names: Vec<String>) -> Result<Vec<String>, AwsError> {
        let mut missing = Vec::new();
        for names in names.chunks(NAMES_AT_ONCE) {
            // Without decryption: that they are there is all we ask.
            let answer = self.parameters.get_parameters().set_names(Some(names.to_vec())).send().await;
            let answer = answer.map_err(|error| AwsError::of("GetParameters", error))?;
            missing.extend(answer.invalid_parameters().to_vec());
        }
        Ok(missing)
    }

    /// Writes a parameter that is not there.
    pub(crate) async fn put_parameter(&self, name: &str, value: &Secret) -> Result<(), SecretError> {
        let value = value.expose_str().map_err(|_| SecretError::NoText(name.to_owned()))?;
        let put = self.parameters.put_parameter().name(name).value(value).r#type(ParameterType::SecureString);
        match put.overwrite(false).send().await.map_err(|error| AwsError::of("PutParameter", error)) {
            // A lost answer, or somebody else: the value is the same.
            Err(error) if error.code() == "ParameterAlreadyExists" => Ok(()),
            done => Ok(done.map(drop)?),
        }
    }

    /// Gives a parameter this value, unless it has it. Returns whether it was written.
    pub(crate) async fn set_parameter(&self, name: &str, value: &Secret) -> Result<bool, SecretError> {
        let wanted = value.expose_str().map_err(|_| SecretError::NoText(name.to_owned()))?;
        let answer = self.parameters.get_parameter().name(name).with_decryption(true).send().await;
        match answer.map_err(|error| AwsError::of("GetParameter", error)) {
            Ok(answer) if answer.parameter().and_then(|found| found.value()) == Some(wanted) => return Ok(false),
            Ok(_) => {}
            Err(error) if error.code() == "ParameterNotFound" => {}
            Err(error) => return Err(error.into()),
        }
        let put = self.parameters.put_parameter().name(name).value(wanted).r#type(ParameterType::SecureString);
        put.overwrite(true).send().await.map_err(|error| AwsError::of("PutParameter", error))?;
        Ok(true)
    }

    /// Names of all parameters below a path.
    pub(crate) async fn parameters_below(&self, path: &str) -> Result<Vec<String>, AwsError> {
        let mut pages = self.parameters.get_parameters_by_path().path(path).recursive(true).into_paginator().send();
        let mut names = Vec::new();
        while let Some(page) = pages.next().await {
            let page = page.map_err(|error| AwsError::of("GetParametersByPath", error))?;
            names.extend(page.parameters().iter().filter_map(|found| found.name()).map(str::to_owned));
        }
        Ok(names)
    }

    /// Removes every parameter below a path. Returns how many there were.
    pub(crate) async fn remove_parameters_below(&self, path: &str) -> Result<usize, AwsError> {
        let names = self.parameters_below(path).await?;
        for names in names.chunks(NAMES_AT_ONCE) {
            let asked = self.parameters.delete_parameters().set_names(Some(names.to_vec())).send().await;
            asked.map_err(|error| AwsError::of("DeleteParameters", error))?;
        }
        Ok(names.len())
    }

    /// The fleet secret, to derive from.
    pub(crate) async fn fleet_secret(&self, arn: &str) -> Result<FleetSecret, SecretError> {
        let answer = self.secrets.get_secret_value().secret_id(arn).send().await;
        let answer = answer.map_err(|error| AwsError::of("GetSecretValue", error))?;
        let shape = || SecretError::Shape(arn.to_owned());
        let document: serde_json::Value =
            serde_json::from_str(answer.secret_string().unwrap_or_default()).map_err(|_| shape())?;
        let value = document["secret"].as_str().ok_or_else(shape)?;
        FleetSecret::new(Secret::new(value.as_bytes().to_vec())).map_err(|_| shape())
    }

    /// Removes a secret for good, at once: within the days that AWS would keep it, none of the same name could be made. One that
    /// is gone is right.
    pub(crate) async fn remove_secret(&self, arn: &str) -> Result<(), AwsError> {
        let asked = self.secrets.delete_secret().secret_id(arn).force_delete_without_recovery(true).send().await;
        match asked.map_err(|error| AwsError::of("DeleteSecret", error)) {
            Err(error) if error.code() == "ResourceNotFoundException" => Ok(()),
            done => done.map(drop),
        }
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
