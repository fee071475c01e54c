//! How the fleet secret is, and what an operator provided before. Values are looked at and not told.

use std::collections::{BTreeMap, BTreeSet};

use fleet_plan::verify::{Provided, SecretState};
use fleet_secret::{FleetSecret, Secret};
use fleet_stacks::SECRET_FIELD;
use serde_json::{Value, json};

use crate::{
    account::Account,
    error::AwsError,
    secrets::{NAMES_AT_ONCE, NOT_GIVEN},
};

impl Account {
    /// How a secret is.
    pub(super) async fn secret_state(&self, name: &str) -> Result<SecretState, AwsError> {
        let id = json!({"SecretId": name});
        match self.ask_secrets("DescribeSecret", &id).await {
            Ok(found) if !found["DeletedDate"].is_null() => return Ok(SecretState::Leaving),
            Ok(_) => {}
            Err(error) if error.code() == "ResourceNotFoundException" => return Ok(SecretState::Absent),
            Err(error) => return Err(error),
        }
        match self.ask_secrets("GetSecretValue", &id).await {
            Ok(answer) => Ok(shape(answer["SecretString"].as_str().unwrap_or_default())),
            Err(error @ AwsError::Denied { .. }) => Ok(SecretState::Closed(error.to_string())),
            // It has no value at all.
            Err(error) if error.code() == "ResourceNotFoundException" => Ok(SecretState::Shapeless),
            Err(error) => Err(error),
        }
    }

    /// What each parameter holds.
    pub(super) async fn provided(&self, names: &BTreeSet<String>) -> Result<BTreeMap<String, Provided>, AwsError> {
        let names: Vec<&String> = names.iter().collect();
        let mut all: BTreeMap<String, Provided> =
            names.iter().map(|name| ((*name).clone(), Provided::Absent)).collect();
        for names in names.chunks(NAMES_AT_ONCE) {
            let answer = self.ask_parameters("GetParameters", &json!({"Names": names, "WithDecryption": true})).await?;
            for found in answer["Parameters"].as_array().into_iter().flatten() {
                let given = if found["Value"] == NOT_GIVEN { Provided::NotGiven } else { Provided::Given };
                all.insert(found["Name"].as_str().unwrap_or_default().to_owned(), given);
            }
        }
        Ok(all)
    }
}

fn shape(text: &str) -> SecretState {
    let Ok(Value::Object(fields)) = serde_json::from_str(text) else { return SecretState::Shapeless };
    match fields.get(SECRET_FIELD) {
        None => SecretState::NoField(fields.keys().cloned().collect()),
        Some(value) => match value.as_str().map(|value| FleetSecret::new(Secret::new(value.as_bytes().to_vec()))) {
            Some(Ok(_)) => SecretState::Right,
            _ => SecretState::TooShort,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_told_by_its_shape_and_never_by_its_value() {
        for (text, expected) in [
            ("", SecretState::Shapeless),
            ("\"0123456789abcdef\"", SecretState::Shapeless),
            (r#"{"value":"0123456789abcdef"}"#, SecretState::NoField(vec!["value".to_owned()])),
            (r#"{"secret":"0123456789abcde"}"#, SecretState::TooShort),
            (r#"{"secret":["0123456789abcdef"]}"#, SecretState::TooShort),
            (r#"{"secret":"0123456789abcdef"}"#, SecretState::Right),
        ] {
            assert_eq!(shape(text), expected, "{text}");
        }
    }
}
