//! What a role may do on Amazon Bedrock: exactly the models that are declared.

use std::collections::BTreeSet;

use crate::{agent::BedrockModel, iam::Statement, value::Text};

const INVOKE: [&str; 2] = ["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"];
/// Geographies of inference profiles and the regions that each may send a request to (Bedrock user guide, "Supported
/// Regions and models for inference profiles").
const GEOGRAPHIES: [(&str, &str); 7] = [
    ("us.", "us-*"),
    ("us-gov.", "us-gov-*"),
    ("eu.", "eu-*"),
    ("apac.", "ap-*"),
    ("jp.", "ap-northeast-*"),
    ("au.", "ap-southeast-*"),
    ("ca.", "ca-*"),
];
/// Prefix of inference profiles that send a request anywhere.
const GLOBAL: &str = "global.";

/// Statements for models; none when there are none. A foundation model behind an inference profile is allowed only by way
/// of that profile.
pub(crate) fn statements(partition: &str, account: &str, models: &BTreeSet<BedrockModel>) -> Vec<Statement> {
    let model = |region: &str, id: &str| format!("arn:{partition}:bedrock:{region}::foundation-model/{id}");
    let (profiles, plain): (Vec<_>, Vec<_>) = models.iter().partition(|model| behind(&model.id).is_some());
    let mut statements = Vec::new();
    if !plain.is_empty() {
        let on = plain.iter().map(|plain| model(&plain.region, &plain.id));
        statements.push(Statement::allow("DeclaredModels", &INVOKE, on));
    }
    for (at, profile) in profiles.into_iter().enumerate() {
        let Some((regions, id)) = behind(&profile.id) else { continue };
        let arn = format!("arn:{partition}:bedrock:{}:{account}:inference-profile/{}", profile.region, profile.id);
        statements.push(Statement::allow(format!("InferenceProfile{at}"), &INVOKE, [arn.clone()]));
        let mut on = vec![model(&profile.region, id)];
        // A global profile asks for the model without a region (user guide, "Global cross-Region inference").
        on.push(model(regions, id));
        let through = Statement::allow(format!("ModelOfInferenceProfile{at}"), &INVOKE, on);
        statements.push(through.when("StringEquals", "bedrock:InferenceProfileArn", Text::from(arn)));
    }
    statements
}

/// Regions and model of an inference profile's id.
pub(crate) fn behind(id: &str) -> Option<(&'static str, &str)> {
    if let Some(model) = id.strip_prefix(GLOBAL) {
        return Some(("", model));
    }
    GEOGRAPHIES.iter().find_map(|(prefix, regions)| Some((*regions, id.strip_prefix(prefix)?)))
}
