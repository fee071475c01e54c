//! Whether models of Amazon Bedrock can be asked (Bedrock API reference, "GetInferenceProfile",
//! "GetFoundationModelAvailability"). Nothing is invoked.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use fleet_plan::verify::{Access, Seen};
use fleet_stacks::agent::BedrockModel;
use serde_json::Value;
use url::form_urlencoded;

use super::unseen;
use crate::{
    account::{Account, Place},
    error::AwsError,
    rates::Rate,
    signed::{Ask, Service, Signed},
};

/// What is as it should be, field by field.
const RIGHT: [(&str, &str); 2] = [("authorizationStatus", "AUTHORIZED"), ("entitlementAvailability", "AVAILABLE")];

impl Account {
    /// Whether each can be asked in its region.
    pub(super) async fn model_access(&self, models: &BTreeSet<BedrockModel>) -> BTreeMap<BedrockModel, Seen<Access>> {
        let asked = models.iter().map(|model| async move {
            let place = Place { region: model.region.clone(), ..self.place.clone() };
            let there = Signed::new(place, self.credentials.clone(), Arc::clone(&self.events));
            (model.clone(), access(&there, model).await.map_err(unseen))
        });
        futures::future::join_all(asked).await.into_iter().collect()
    }
}

async fn access(there: &Signed, model: &BedrockModel) -> Result<Access, AwsError> {
    let foundation = model.foundation();
    let by_profile = foundation != model.id;
    if by_profile {
        let Some(profile) = look(there, "GetInferenceProfile", "inference-profiles", &model.id).await? else {
            return Ok(Access::Absent);
        };
        match profile["status"].as_str() {
            Some("ACTIVE") => {}
            other => return Ok(Access::Inactive(other.unwrap_or("without a status").to_owned())),
        }
    }
    let availability =
        look(there, "GetFoundationModelAvailability", "foundation-model-availability", foundation).await?;
    Ok(availability.map_or(Access::Absent, |found| judged(&found, by_profile)))
}

/// What an answer says. A profile asks for its model in other regions, too: whether it is in this one does not matter then.
fn judged(found: &Value, by_profile: bool) -> Access {
    let is = |(field, right): &(&'static str, &'static str)| found[*field] != *right;
    let region = ("regionAvailability", "AVAILABLE");
    let asked = RIGHT.into_iter().chain((!by_profile).then_some(region));
    let wrong: Vec<String> =
        asked.filter(|one| is(one)).map(|(field, _)| format!("{field} is {}", word(&found[field]))).collect();
    if !wrong.is_empty() {
        return Access::Refused(wrong.join(", "));
    }
    match &found["agreementAvailability"]["status"] {
        status if status == "AVAILABLE" => Access::Ready,
        status => Access::NoAgreement(word(status)),
    }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or("not said").to_owned()
}

/// `None`: there is no such thing.
async fn look(there: &Signed, call: &'static str, path: &str, id: &str) -> Result<Option<Value>, AwsError> {
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    let ask = Ask {
        service: Service::Models,
        call,
        method: "GET",
        target: format!("/{path}/{id}"),
        headers: Vec::new(),
        body: Vec::new(),
        rate: Rate::Unknown,
        repeatable: true,
    };
    match there.ask(&ask).await {
        Ok(answer) => Ok(Some(answer.json())),
        Err(error) if ["ResourceNotFoundException", "ValidationException"].contains(&error.code()) => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_model_can_be_asked_once_all_of_awss_answers_are_right() {
        let answer = |status: &str, authorized: &str, region: &str| {
            json!({
                "modelId": "m", "agreementAvailability": {"status": status}, "authorizationStatus": authorized,
                "entitlementAvailability": "AVAILABLE", "regionAvailability": region,
            })
        };
        assert_eq!(judged(&answer("AVAILABLE", "AUTHORIZED", "AVAILABLE"), false), Access::Ready);
        assert_eq!(judged(&answer("AVAILABLE", "AUTHORIZED", "NOT_AVAILABLE"), true), Access::Ready);
        let elsewhere = judged(&answer("AVAILABLE", "NOT_AUTHORIZED", "NOT_AVAILABLE"), false);
        let said = "authorizationStatus is NOT_AUTHORIZED, regionAvailability is NOT_AVAILABLE";
        assert_eq!(elsewhere, Access::Refused(said.to_owned()));
        let pending = judged(&answer("PENDING", "AUTHORIZED", "AVAILABLE"), false);
        assert_eq!(pending, Access::NoAgreement("PENDING".to_owned()));
        assert!(matches!(judged(&json!({}), false), Access::Refused(_)), "what is not said is not right");
    }
}
