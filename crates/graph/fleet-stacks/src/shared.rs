//! The `shared` stack: one repository per image, for every environment of the fleet.

use serde_json::json;

use crate::{
    resource::storage::{LifecyclePolicy, Repository, Scanning},
    settings::Settings,
    template::{RenderError, Rendered, Template, fleet_tags, json_text},
    value::text,
};

/// The stack's name, in addresses.
pub const SHARED: &str = "shared";
/// More images than a repository can hold (ECR quotas: 100,000): the rule that uses it keeps, and never removes.
const MORE_THAN_ALL: u32 = 1_000_000;
/// Days after which something without any tag is removed.
const UNTAGGED_DAYS: u32 = 14;

/// Renders it. The same whichever environment of the fleet asks.
///
/// # Errors
/// [`RenderError`].
pub fn shared(settings: &Settings) -> Result<Rendered, RenderError> {
    let description = format!("Images of the fleet {}", settings.fleet);
    let mut template = Template::new(SHARED, description, fleet_tags(&settings.fleet));
    for image in &settings.images {
        let id = logical_id(image);
        let repository = template.keep(format!("Repository{id}"), repository(&settings.fleet, image));
        let host = format!("{}.dkr.ecr.{}.{}", settings.account, settings.region, suffix(settings.partition()));
        template.output(&format!("Uri{id}"), text![format!("{host}/"), repository.reference()]);
    }
    template.finish()
}

fn suffix(partition: &str) -> &'static str {
    if partition == "aws-cn" { "amazonaws.com.cn" } else { "amazonaws.com" }
}

/// `open-claw_agent` → `OpenClawAgent`.
pub(crate) fn logical_id(name: &str) -> String {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    words.map(|word| word[..1].to_ascii_uppercase() + &word[1..]).collect()
}

fn repository(fleet: &str, image: &str) -> Repository {
    Repository {
        repository_name: format!("{fleet}/{image}"),
        image_tag_mutability: "IMMUTABLE",
        image_scanning_configuration: Scanning { scan_on_push: true },
        lifecycle_policy: LifecyclePolicy { lifecycle_policy_text: lifecycle() },
        empty_on_delete: false,
    }
}

/// An image that a rule matches is out of reach of every later one: what is tagged by a derivation stays until `gc`,
/// which knows the generations, removes it.
fn lifecycle() -> String {
    json_text(&json!({"rules": [
        {
            "rulePriority": 1, "description": "what a derivation is tagged with is kept",
            "selection": {
                "tagStatus": "tagged", "tagPrefixList": ["d-"],
                "countType": "imageCountMoreThan", "countNumber": MORE_THAN_ALL,
            },
            "action": {"type": "expire"},
        },
        {
            "rulePriority": 2, "description": "what has no tag at all is left over from a push",
            "selection": {
                "tagStatus": "untagged", "countType": "sinceImagePushed", "countUnit": "days", "countNumber": UNTAGGED_DAYS,
            },
            "action": {"type": "expire"},
        },
    ]}))
}
