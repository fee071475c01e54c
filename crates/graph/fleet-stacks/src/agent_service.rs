//! [`agent_service`]: an agent as ECS takes it: a task definition and a service of its own, its role and its parameters.
//!
//! What only a deployed stack knows stays a placeholder (see [`AgentSpec`]), so that the texts are the same before and
//! after it was made. Deliberately absent: calls to AWS.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::Hash;
use fleet_objects::{AgentSpec, ContainerSpec, Content, HealthProbe, SecretUse, VolumeMount, directory};
use serde_json::{Value, json};

use crate::{
    agent::{AgentAccess, BedrockModel, agent_role},
    data::{self, SECRET_FIELD},
    environment::zone_letter,
    settings::{Settings, parameters_below},
    template::{json_text, tags},
};

/// Task definitions that AWS registers at once, and then each second ("Request throttling for the Amazon ECS API").
pub const REGISTRATIONS: (u32, u32) = (20, 1);
/// Services that AWS makes, updates or deletes at once, and then each second.
pub const SERVICE_WRITES: (u32, u32) = (50, 5);
/// What names of agents' services begin with; other services of the cluster are the stack's.
pub const SERVICE_PREFIX: &str = "agent-";
/// Name of an agent's container.
pub const CONTAINER: &str = "agent";
/// What variables begin with that hold what is a secret file on other targets; fleet-agent makes the file of it.
const FILE_VARIABLE: &str = "FLEET_FILE_";
/// The variable that holds the fleet secret, and the one that says of which epoch the password is that is derived from it.
const FLEET_SECRET: &str = "FLEET_SECRET";
const PASSWORD_EPOCH: &str = "FLEET_PASSWORD_EPOCH";
/// Where secret files are in a container.
const SECRETS: &str = "/fleet/secrets/";
/// Bounds of container health checks (ECS API reference, HealthCheck), in seconds.
const INTERVAL: (u32, u32) = (5, 300);
const TIMEOUT: (u32, u32) = (2, 60);
const START_PERIOD: (u32, u32) = (0, 300);
/// Seconds that a container of Fargate may take to stop, at most.
const STOP_SECONDS: u32 = 120;
/// What containers may do as root unless it is taken from them, without what fleet-agent needs (docs/reference/agent-runtime.md).
const NOT_NEEDED: [&str; 8] =
    ["AUDIT_WRITE", "FSETID", "MKNOD", "NET_BIND_SERVICE", "NET_RAW", "SETFCAP", "SETPCAP", "SYS_CHROOT"];

/// What an agent's service is rendered from.
#[derive(Clone, Debug)]
pub struct AgentPlan<'a> {
    /// Person id.
    pub agent: &'a str,
    /// What it runs.
    pub container: ContainerSpec,
    /// On spare capacity, which AWS takes back with two minutes' notice.
    pub spot: bool,
    /// Models that it may ask with its role.
    pub models: BTreeSet<BedrockModel>,
}

/// An agent's service.
#[must_use]
pub fn agent_service(settings: &Settings, plan: AgentPlan<'_>) -> AgentSpec {
    let role = agent_role(
        settings,
        &AgentAccess {
            agent: plan.agent,
            file_system: "{{FileSystemArn}}",
            access_point: "{{AccessPointArn}}",
            bucket: "{{ConfigBucket}}",
            models: plan.models.clone(),
        },
    );
    let mut own = tags(settings);
    own.insert("fleet:agent".to_owned(), plan.agent.to_owned());
    let role_arn = format!("arn:{}:iam::{}:role{}{}", settings.partition(), settings.account, role.path, role.name);
    let task = json_text(&task(settings, &plan, &role_arn, &own));
    let service = json_text(&service(settings, &plan, &own));
    let parameters = secrets(&plan.container).filter(|(_, secret)| !is_derived_inside(settings, secret));
    let parameters = parameters.map(|(_, secret)| (parameter(settings, plan.agent, secret), secret.clone()));
    AgentSpec {
        task,
        service,
        role,
        stacks: vec![settings.environment.clone(), data::name(settings)],
        folder: format!("/agents/{}", plan.agent),
        tags: own,
        parameters: parameters.collect(),
        container: plan.container,
    }
}

/// Seconds that AWS's rates alone take to make or roll so many agents.
#[must_use]
pub fn least_seconds(agents: u64) -> u64 {
    let seconds = |(burst, per_second): (u32, u32)| agents.saturating_sub(burst.into()).div_ceil(per_second.into());
    seconds(REGISTRATIONS).max(seconds(SERVICE_WRITES))
}

/// A person's id as ECS takes it in names: it knows no dots. Ids have no capitals, so none are lost.
#[must_use]
pub fn ecs_id(agent: &str) -> String {
    agent.replace('_', "U").replace('.', "_")
}

/// The id that [`ecs_id`] was made of.
#[must_use]
pub fn agent_of(ecs_id: &str) -> String {
    ecs_id.replace('_', ".").replace('U', "_")
}

/// The family of an agent's task definition: an agent that is made otherwise has another one, so that the service tells by
/// which derivation its task was made.
#[must_use]
pub fn family(scope: &str, agent: &str, hash: &Hash) -> String {
    format!("{scope}-{}-{hash}", ecs_id(agent))
}

/// The hash at the end of a task definition's ARN: `…:task-definition/anycompany-dev-aaron_phillips-<hash>:3`.
#[must_use]
pub fn hash_of(task_definition: &str) -> Option<Hash> {
    let family = task_definition.rsplit_once(':').map_or(task_definition, |(family, _)| family);
    family.rsplit_once('-')?.1.parse().ok()
}

fn pairs<'a>(names: (&str, &str), of: impl IntoIterator<Item = (&'a String, &'a String)>) -> Vec<Value> {
    of.into_iter().map(|(name, value)| json!({names.0: name, names.1: value})).collect()
}

fn task(settings: &Settings, plan: &AgentPlan<'_>, role_arn: &str, tags: &BTreeMap<String, String>) -> Value {
    json!({
        "family": "{{Family}}",
        "taskRoleArn": role_arn,
        "executionRoleArn": "{{AgentExecutionRoleArn}}",
        "networkMode": "awsvpc",
        "requiresCompatibilities": ["FARGATE"],
        "cpu": plan.container.size.cpu.to_string(),
        "memory": plan.container.size.memory_mib.to_string(),
        "runtimePlatform": {
            "cpuArchitecture": if settings.arm { "ARM64" } else { "X86_64" },
            "operatingSystemFamily": "LINUX",
        },
        "containerDefinitions": [container(settings, plan)],
        "volumes": own_volumes(&plan.container).map(|volume| file_system(&volume.volume)).collect::<Vec<_>>(),
        "tags": pairs(("key", "value"), tags),
    })
}

/// What an agent writes. What it only reads is the directory, which comes from the bucket.
fn own_volumes(container: &ContainerSpec) -> impl Iterator<Item = &VolumeMount> {
    container.volumes.iter().filter(|volume| !volume.read_only)
}

fn file_system(volume: &str) -> Value {
    json!({"name": volume_name(volume), "efsVolumeConfiguration": {
        "fileSystemId": "{{FileSystemId}}",
        "transitEncryption": "ENABLED",
        "authorizationConfig": {
            "accessPointId": "{{AccessPoint}}",
            "iam": "ENABLED",
        },
    }})
}

/// Names of volumes have no dots.
fn volume_name(volume: &str) -> String {
    ecs_id(volume)
}

fn container(settings: &Settings, plan: &AgentPlan<'_>) -> Value {
    let spec = &plan.container;
    let mut environment = spec.env.clone();
    environment.extend(epoch(settings, spec));
    environment.insert("AWS_REGION".to_owned(), settings.region.clone());
    environment.insert("FLEET_BUNDLE".to_owned(), "s3://{{ConfigBucket}}/{{BundleKey}}".to_owned());
    environment.insert("FLEET_BUNDLE_HASH".to_owned(), "{{BundleHash}}".to_owned());
    environment.insert("FLEET_DIRECTORY".to_owned(), format!("s3://{{{{ConfigBucket}}}}/{}", directory::OBJECT));
    let secrets = secrets(spec).map(|(name, secret)| {
        if is_derived_inside(settings, secret) {
            // The value of one key of the secret, which is JSON.
            return json!({"name": FLEET_SECRET, "valueFrom": format!("{{{{FleetSecretArn}}}}:{SECRET_FIELD}::")});
        }
        let from = settings.arn("ssm", &format!("parameter{}", parameter(settings, plan.agent, secret)));
        json!({"name": format!("{FILE_VARIABLE}{name}"), "valueFrom": from})
    });
    let mounts = own_volumes(spec).map(|volume| {
        json!({
            "sourceVolume": volume_name(&volume.volume), "containerPath": volume.path, "readOnly": volume.read_only,
        })
    });
    let mut container = json!({
        "name": CONTAINER,
        "image": "{{Image}}",
        "essential": true,
        "environment": pairs(("name", "value"), &environment),
        "secrets": secrets.collect::<Vec<_>>(),
        "mountPoints": mounts.collect::<Vec<_>>(),
        "stopTimeout": spec.stop_grace_seconds.min(STOP_SECONDS),
        "linuxParameters": {"capabilities": {"drop": NOT_NEEDED}},
        "logConfiguration": {"logDriver": "awslogs", "options": {
            "awslogs-group": "{{AgentLogGroup}}",
            "awslogs-region": settings.region,
            "awslogs-stream-prefix": plan.agent,
        }},
    });
    if let Some(command) = &spec.command {
        container["command"] = json!(command);
    }
    if let Some(probe) = &spec.health {
        container["healthCheck"] = health(probe);
    }
    container
}

fn health(probe: &HealthProbe) -> Value {
    let within = |value: u32, (least, most): (u32, u32)| value.clamp(least, most);
    let command: Vec<&str> = ["CMD"].into_iter().chain(probe.command.iter().map(String::as_str)).collect();
    json!({
        "command": command,
        "interval": within(probe.interval_seconds, INTERVAL),
        "timeout": within(probe.timeout_seconds, TIMEOUT),
        "startPeriod": within(probe.start_period_seconds, START_PERIOD),
        "retries": probe.retries,
    })
}

/// One task, ever: the old one ends before the new one starts.
fn service(settings: &Settings, plan: &AgentPlan<'_>, tags: &BTreeMap<String, String>) -> Value {
    let provider = if plan.spot { "FARGATE_SPOT" } else { "FARGATE" };
    let subnets: Vec<String> =
        (0..usize::from(settings.zones)).map(|zone| format!("{{{{PrivateSubnet{}}}}}", zone_letter(zone))).collect();
    json!({
        "cluster": "{{ClusterName}}",
        "serviceName": format!("{SERVICE_PREFIX}{}", ecs_id(plan.agent)),
        "taskDefinition": "{{TaskDefinition}}",
        "desiredCount": 1,
        "capacityProviderStrategy": [{"capacityProvider": provider, "weight": 1}],
        "deploymentConfiguration": {
            "minimumHealthyPercent": 0, "maximumPercent": 100,
            "deploymentCircuitBreaker": {"enable": true, "rollback": true},
        },
        "availabilityZoneRebalancing": "DISABLED",
        "networkConfiguration": {"awsvpcConfiguration": {
            "assignPublicIp": "DISABLED", "securityGroups": ["{{AgentGroup}}"], "subnets": subnets,
        }},
        "enableECSManagedTags": true,
        "propagateTags": "SERVICE",
        "tags": pairs(("key", "value"), tags),
    })
}

/// Secret files by the name that they have.
fn secrets(container: &ContainerSpec) -> impl Iterator<Item = (&str, &SecretUse)> {
    container.files.iter().filter_map(|file| match &file.content {
        Content::Secret { secret } => Some((file.path.strip_prefix(SECRETS)?, secret)),
        Content::Text { .. } | Content::Filled { .. } => None,
    })
}

/// Does fleet-agent derive it from the fleet secret? Else it comes in a parameter.
const fn is_derived_inside(settings: &Settings, secret: &SecretUse) -> bool {
    settings.agents_get_fleet_secret && matches!(secret, SecretUse::Password { .. })
}

/// The epoch of a password that is derived inside; the first one goes without saying.
fn epoch(settings: &Settings, container: &ContainerSpec) -> Option<(String, String)> {
    secrets(container).find_map(|(_, secret)| match secret {
        SecretUse::Password { epoch, .. } if settings.agents_get_fleet_secret && *epoch > 0 => {
            Some((PASSWORD_EPOCH.to_owned(), epoch.to_string()))
        }
        _ => None,
    })
}

/// The parameter that holds a secret. Passwords of another epoch are other parameters: a task that is returned to finds its
/// own. What an operator provides is one for all agents.
fn parameter(settings: &Settings, agent: &str, secret: &SecretUse) -> String {
    let below = |name: &str| parameters_of(&settings.fleet, &settings.environment, name);
    match secret {
        SecretUse::Password { epoch, .. } => format!("{}/password/{epoch}", below(agent)),
        SecretUse::Key { label } => format!("{}/{label}", below(agent)),
        SecretUse::Operator { name } => below(name),
    }
}

/// Where the parameters are that are one agent's own.
#[must_use]
pub fn parameters_of(fleet: &str, environment: &str, agent: &str) -> String {
    format!("{}/agents/{agent}", parameters_below(fleet, environment))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_told_from_the_name_of_its_service() {
        for (id, name) in [("aaron.phillips", "aaron_phillips"), ("a_b.c-d", "aUb_c-d"), ("a._b", "a_Ub")] {
            assert_eq!((ecs_id(id).as_str(), agent_of(name).as_str()), (name, id));
        }
    }

    #[test]
    fn a_thousand_agents_take_a_quarter_of_an_hour_whatever_we_do() {
        assert_eq!([1, 20, 21, 1000].map(least_seconds), [0, 0, 1, 980]);
    }

    #[test]
    fn a_task_definition_tells_its_hash() {
        let hash = Hash::of(b"agent");
        let family = family("anycompany-dev", "aaron.phillips", &hash);
        assert_eq!(hash_of(&format!("arn:aws:ecs:us-east-1:111122223333:task-definition/{family}:12")), Some(hash));
        assert_eq!(hash_of("arn:aws:ecs:us-east-1:111122223333:task-definition/anycompany-dev-homeserver:3"), None);
    }
}
