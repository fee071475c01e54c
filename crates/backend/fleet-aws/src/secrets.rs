//! Values that services read from Parameter Store: derived from the fleet secret, written once, never changed here.
//!
//! The fleet secret is made by AWS with the data stack and read only to derive from it. No value is told to anybody.

use std::collections::BTreeMap;

use fleet_secret::{FleetSecret, Secret};
use fleet_stacks::SECRET_FIELD;
use serde_json::{Value, json};

use crate::{account::Account, error::AwsError, rates::Rate, signed::Service};

/// Names that one GetParameters takes (SSM API reference).
pub(crate) const NAMES_AT_ONCE: usize = 10;
/// The output of a data stack that names its fleet secret.
pub(crate) const SECRET_OUTPUT: &str = "FleetSecretArn";
/// In place of a secret that the operator has not given: ECS starts no task whose parameter is missing, and a parameter
/// cannot be empty. fleet-agent takes it for nothing.
pub(crate) const NOT_GIVEN: &str = "unset";
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
            let answer = self.ask_parameters("GetParameters", &json!({"Names": names})).await?;
            missing.extend(texts(&answer["InvalidParameters"]));
        }
        Ok(missing)
    }

    /// Writes a parameter that is not there.
    pub(crate) async fn put_parameter(&self, name: &str, value: &Secret) -> Result<(), SecretError> {
        match self.write_parameter(name, value, false).await {
            // A lost answer, or somebody else: the value is the same.
            Err(SecretError::Aws(error)) if error.code() == "ParameterAlreadyExists" => Ok(()),
            done => done,
        }
    }

    /// Gives a parameter this value, unless it has it. Returns whether it was written.
    pub(crate) async fn set_parameter(&self, name: &str, value: &Secret) -> Result<bool, SecretError> {
        let wanted = value.expose_str().map_err(|_| SecretError::NoText(name.to_owned()))?;
        match self.ask_parameters("GetParameter", &json!({"Name": name, "WithDecryption": true})).await {
            Ok(answer) if answer["Parameter"]["Value"] == *wanted => return Ok(false),
            Ok(_) => {}
            Err(error) if error.code() == "ParameterNotFound" => {}
            Err(error) => return Err(error.into()),
        }
        self.write_parameter(name, value, true).await.map(|()| true)
    }

    async fn write_parameter(&self, name: &str, value: &Secret, overwrite: bool) -> Result<(), SecretError> {
        let value = value.expose_str().map_err(|_| SecretError::NoText(name.to_owned()))?;
        let put = json!({"Name": name, "Value": value, "Type": "SecureString", "Overwrite": overwrite});
        Ok(self.ask_parameters("PutParameter", &put).await.map(drop)?)
    }

    /// Names of all parameters below a path.
    pub(crate) async fn parameters_below(&self, path: &str) -> Result<Vec<String>, AwsError> {
        let (mut names, mut next) = (Vec::new(), Value::Null);
        loop {
            let mut ask = json!({"Path": path, "Recursive": true});
            if next.is_string() {
                ask["NextToken"] = next;
            }
            let page = self.ask_parameters("GetParametersByPath", &ask).await?;
            names.extend(page["Parameters"].as_array().into_iter().flatten().filter_map(|found| text(&found["Name"])));
            next = page["NextToken"].clone();
            if next.as_str().is_none_or(str::is_empty) {
                return Ok(names);
            }
        }
    }

    /// Removes every parameter below a path. Returns how many there were.
    pub(crate) async fn remove_parameters_below(&self, path: &str) -> Result<usize, AwsError> {
        let names = self.parameters_below(path).await?;
        for names in names.chunks(NAMES_AT_ONCE) {
            self.ask_parameters("DeleteParameters", &json!({"Names": names})).await?;
        }
        Ok(names.len())
    }

    /// The fleet secret, to derive from.
    pub(crate) async fn fleet_secret(&self, arn: &str) -> Result<FleetSecret, SecretError> {
        let answer = self.ask_secrets("GetSecretValue", &json!({"SecretId": arn})).await?;
        let shape = || SecretError::Shape(arn.to_owned());
        let document: Value =
            serde_json::from_str(answer["SecretString"].as_str().unwrap_or_default()).map_err(|_| shape())?;
        let value = document[SECRET_FIELD].as_str().ok_or_else(shape)?;
        FleetSecret::new(Secret::new(value.as_bytes().to_vec())).map_err(|_| shape())
    }

    /// Removes a secret for good, at once: within the days that AWS would keep it, none of the same name could be made. One that
    /// is gone is right.
    pub(crate) async fn remove_secret(&self, arn: &str) -> Result<(), AwsError> {
        let body = json!({"SecretId": arn, "ForceDeleteWithoutRecovery": true});
        match self.ask_secrets("DeleteSecret", &body).await {
            Err(error) if error.code() == "ResourceNotFoundException" => Ok(()),
            done => done.map(drop),
        }
    }

    /// The machine image that a new bastion gets.
    pub(crate) async fn newest_machine_image(&self) -> Result<String, AwsError> {
        const CALL: &str = "GetParameter";
        let answer = self.ask_parameters(CALL, &json!({"Name": NEWEST_MACHINE_IMAGE})).await?;
        text(&answer["Parameter"]["Value"]).ok_or_else(|| AwsError::Refused {
            call: CALL,
            code: "NoValue".to_owned(),
            why: format!("{NEWEST_MACHINE_IMAGE} has no value"),
        })
    }

    pub(crate) async fn ask_secrets(&self, call: &'static str, body: &Value) -> Result<Value, AwsError> {
        self.signed.json((Service::Secrets, "secretsmanager"), (call, Rate::Unknown), body).await
    }

    pub(crate) async fn ask_parameters(&self, call: &'static str, body: &Value) -> Result<Value, AwsError> {
        self.signed.json((Service::Parameters, "AmazonSSM"), (call, Rate::Unknown), body).await
    }
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn texts(value: &Value) -> impl Iterator<Item = String> {
    value.as_array().into_iter().flatten().filter_map(text)
}
