//! Least privilege: what roles may do, and on what.

use std::collections::BTreeSet;

use fleet_objects::AgentRole;
use fleet_stacks::{
    agent::{AgentAccess, BedrockModel, agent_role},
    bootstrap,
};
use serde_json::Value;

use crate::matrix::{account, document, of_type, seed, templates};

/// Begins the `Sid` of a statement for which AWS leaves no choice.
const NO_CHOICE: &str = "AwsKnowsNoResourceFor";

fn strings(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(items) => items.iter().filter_map(Value::as_str).collect(),
        Value::String(text) => vec![text],
        _ => Vec::new(),
    }
}

/// Every statement of a document, wherever a policy is in it, also within text.
fn statements(value: &Value, into: &mut Vec<Value>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "Statement" {
                    into.extend(value.as_array().into_iter().flatten().cloned());
                }
                statements(value, into);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| statements(item, into)),
        Value::String(text) if text.contains("\"Statement\"") => {
            if let Ok(document) = serde_json::from_str::<Value>(text) {
                statements(&document, into);
            }
        }
        _ => {}
    }
}

fn thinking_of(models: &[&str]) -> AgentRole {
    let models = models.iter().map(|id| BedrockModel { region: "us-east-1".to_owned(), id: (*id).to_owned() });
    agent_role(
        &seed(),
        &AgentAccess {
            agent: "aaron.phillips",
            file_system: "arn:aws:elasticfilesystem:us-east-1:111122223333:file-system/fs-1",
            access_point: "arn:aws:elasticfilesystem:us-east-1:111122223333:access-point/fsap-1",
            bucket: "anycompany-dev-configbucket-1",
            models: models.collect(),
        },
    )
}

const MODELS: [&str; 3] = [
    "global.anthropic.claude-sonnet-4-5-20250929-v1:0",
    "us.anthropic.claude-sonnet-4-20250514-v1:0",
    "openai.gpt-oss-120b-1:0",
];

#[test]
fn every_statement_about_everything_says_why_aws_leaves_no_choice() {
    let mut all = Vec::new();
    for (_, rendered) in templates() {
        statements(&document(&rendered), &mut all);
    }
    let agent = thinking_of(&MODELS);
    statements(&Value::String(agent.policy), &mut all);
    assert!(all.len() > 500, "found only {} statements", all.len());
    for statement in &all {
        let sid = statement["Sid"].as_str().unwrap_or_default();
        let everything = strings(&statement["Resource"]).contains(&"*");
        assert_eq!(everything, sid.starts_with(NO_CHOICE), "{statement:#}");
        assert!(!strings(&statement["Action"]).contains(&"*"), "{statement:#}");
        // Whom a statement allows something is never everybody.
        assert!(statement["Effect"] != "Allow" || statement["Principal"] != "*", "{statement:#}");
    }
}

#[test]
fn no_role_that_we_render_can_do_more_than_the_boundary_allows() {
    let rendered = bootstrap(&account()).unwrap();
    let document = document(&rendered);
    let (_, boundary) = of_type(&document, "AWS::IAM::ManagedPolicy")[0];
    let mut allowed = Vec::new();
    statements(boundary, &mut allowed);
    let allowed: BTreeSet<&str> = allowed.iter().flat_map(|statement| strings(&statement["Action"])).collect();
    let mut used = Vec::new();
    statements(&Value::String(thinking_of(&MODELS).policy), &mut used);
    for (name, rendered) in templates().iter().filter(|(name, _)| name.ends_with(".dev")) {
        for (id, role) in of_type(&crate::matrix::document(rendered), "AWS::IAM::Role") {
            assert_eq!(
                role["PermissionsBoundary"], "arn:aws:iam::111122223333:policy/anycompany-boundary",
                "{name} {id}"
            );
            assert_eq!(role["Path"], "/fleet/anycompany/dev/", "{name} {id}");
            statements(&role["Policies"], &mut used);
        }
    }
    let used: BTreeSet<&str> = used.iter().flat_map(|statement| strings(&statement["Action"])).collect();
    assert_eq!(used.difference(&allowed).collect::<Vec<_>>(), Vec::<&&str>::new());
    assert_eq!(allowed.difference(&used).collect::<Vec<_>>(), Vec::<&&str>::new(), "nobody needs it");
}

#[test]
fn an_agents_role_is_its_own_folder_bundles_and_models() {
    let role = thinking_of(&MODELS);
    let policy: Value = serde_json::from_str(&role.policy).unwrap();
    insta::assert_json_snapshot!("agent_role", policy);
    let trust: Value = serde_json::from_str(&role.trust).unwrap();
    assert_eq!(trust["Statement"][0]["Principal"]["Service"], "ecs-tasks.amazonaws.com");
    assert_eq!(trust["Statement"][0]["Condition"]["StringEquals"]["aws:SourceAccount"][0], "111122223333");
    assert_eq!(role.name, "anycompany-dev-aaron.phillips");
}

#[test]
fn an_agent_that_thinks_elsewhere_may_ask_no_model_of_bedrock() {
    assert!(!thinking_of(&[]).policy.contains("bedrock"));
}

#[test]
fn workflows_act_only_as_what_their_repository_and_environment_allow() {
    let rendered = bootstrap(&account()).unwrap();
    let document = document(&rendered);
    let roles = of_type(&document, "AWS::IAM::Role");
    let subjects: Vec<_> = roles
        .iter()
        .map(|(id, role)| {
            let condition = &role["AssumeRolePolicyDocument"]["Statement"][0]["Condition"]["StringEquals"];
            assert_eq!(strings(&condition["token.actions.githubusercontent.com:aud"]), ["sts.amazonaws.com"]);
            (*id, strings(&condition["token.actions.githubusercontent.com:sub"]))
        })
        .collect();
    assert_eq!(
        subjects,
        [
            (
                "ApplyRole",
                vec!["repo:anycompany/fleet:environment:dev", "repo:anycompany/fleet:environment:production"]
            ),
            ("PlanRole", vec!["repo:anycompany/fleet:pull_request"]),
        ]
    );
}

/// IAM counts the characters of all inline policies of a role, and of one managed policy, without white space.
#[test]
fn policies_are_within_iams_limits() {
    for (name, rendered) in templates() {
        let document = document(&rendered);
        for (id, role) in of_type(&document, "AWS::IAM::Role") {
            let length = role["Policies"].to_string().len();
            assert!(length < 10_240, "{name} {id}: {length}");
        }
        for (id, policy) in of_type(&document, "AWS::IAM::ManagedPolicy") {
            let length = policy["PolicyDocument"].to_string().len();
            assert!(length < 6_144, "{name} {id}: {length}");
        }
    }
}

#[test]
fn the_plan_role_reads_no_secret_bundle_or_log() {
    let rendered = bootstrap(&account()).unwrap();
    let document = document(&rendered);
    let plan = of_type(&document, "AWS::IAM::Role").into_iter().find(|(id, _)| *id == "PlanRole").unwrap().1;
    let mut all = Vec::new();
    statements(&plan["Policies"], &mut all);
    let actions: Vec<&str> = all.iter().flat_map(|statement| strings(&statement["Action"])).collect();
    for action in actions {
        let (service, verb) = action.split_once(':').unwrap();
        // Whether the fleet secret is there, which `verify` asks, tells nothing of its value.
        let secret = ["secretsmanager", "ssm", "logs", "kms"].contains(&service);
        assert!(!secret || action == "secretsmanager:DescribeSecret", "{action}");
        assert!(["Get", "List", "Describe", "Batch"].iter().any(|start| verb.starts_with(start)), "{action}");
    }
    insta::assert_json_snapshot!("plan_role", plan["Policies"][0]["PolicyDocument"]["Statement"]);
    let objects = all.iter().find(|statement| statement["Sid"] == "State").unwrap();
    assert!(strings(&objects["Resource"]).iter().all(|arn| arn.contains("anycompany-state-")), "{objects:#}");
}
