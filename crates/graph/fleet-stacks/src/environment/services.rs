//! The cluster, the names in it, and what runs in it from the stack: homeserver and web client. Agents are made one by
//! one outside of CloudFormation; their log group and the role that starts them are here.

use fleet_model::model::{HomeserverKind, Size};
use fleet_objects::StackParameter;
use serde_json::json;

use super::{
    Parts,
    firewall::{Firewall, HOMESERVER_PORT, Role as Side, WEB_PORT},
    network::Network,
    reads, role,
    storage::Storage,
};
use crate::{
    iam::{Policy, Statement, trust_for},
    resource::{
        ecs::{
            Awsvpc, Capacity, CircuitBreaker, Cluster, ClusterSetting, Container, DeploymentConfiguration,
            DiscoveryService, DnsConfig, DnsRecord, EfsAuthorization, EfsVolume, HealthCheck, LogConfiguration,
            MountPoint, NetworkConfiguration, PortMapping, PrivateDnsNamespace, Registry, RuntimePlatform,
            SecretVariable, Service, TaskDefinition, Variable, Volume,
        },
        iam::Role,
        logs::{LogGroup, awslogs},
    },
    settings::{Web, parameters_below},
    template::{Handle, Template, json_text},
    value::{Text, text},
};

/// Seconds for which an address may be remembered.
const DNS_SECONDS: u16 = 10;
/// Seconds between SIGTERM and SIGKILL for who has something to write down.
pub(super) const STOP_SECONDS: u16 = 30;
/// User and group of Synapse in its image.
const SYNAPSE_UID: u32 = 991;
/// The homeserver in the private zone, whichever it is (architecture seed).
const HOMESERVER_NAME: &str = "conduit";
/// The web client in the private zone, for tunnels: its tasks have other addresses each time.
const WEB_NAME: &str = "web";
pub(super) const TASKS: &str = "ecs-tasks.amazonaws.com";

/// The homeserver as agents of the environment reach it.
#[must_use]
pub fn homeserver_url(domain: &str) -> String {
    let (host, port) = homeserver_host(domain);
    format!("http://{host}:{port}")
}

/// Name and port of the homeserver within the network.
#[must_use]
pub fn homeserver_host(domain: &str) -> (String, u16) {
    (format!("{HOMESERVER_NAME}.{domain}"), HOMESERVER_PORT)
}

/// Name and port of the web client within the network.
#[must_use]
pub fn web_host(domain: &str) -> (String, u16) {
    (format!("{WEB_NAME}.{domain}"), WEB_PORT)
}

/// Where services are put.
pub struct Place<'p> {
    /// Subnets.
    pub network: &'p Network,
    /// Groups.
    pub firewall: &'p Firewall,
    /// Folders.
    pub storage: &'p Storage,
    /// The cluster.
    pub cluster: &'p Handle<Cluster>,
    /// The private zone.
    pub zone: &'p Handle<PrivateDnsNamespace>,
}

/// Adds the cluster.
pub fn cluster(parts: &Parts<'_>, template: &mut Template) -> Handle<Cluster> {
    let cluster = template.add(
        "Cluster",
        Cluster {
            cluster_name: parts.settings.name(),
            cluster_settings: vec![ClusterSetting { name: "containerInsights", value: "enabled" }],
            capacity_providers: vec!["FARGATE", "FARGATE_SPOT"],
            default_capacity_provider_strategy: vec![on_demand()],
        },
    );
    template.output("ClusterName", cluster.reference());
    cluster
}

const fn on_demand() -> Capacity {
    Capacity { capacity_provider: "FARGATE", weight: 1 }
}

/// Adds the private zone.
pub fn zone(parts: &Parts<'_>, network: &Network, template: &mut Template) -> Handle<PrivateDnsNamespace> {
    let zone = PrivateDnsNamespace { name: parts.settings.domain.clone(), vpc: network.vpc.clone() };
    template.add("Namespace", zone)
}

/// Adds a name to the zone, under which a service's tasks are found.
fn found_as(name: &'static str, id: &str, place: &Place<'_>, template: &mut Template) -> Registry {
    let dns_records = vec![DnsRecord { r#type: "A", ttl: DNS_SECONDS }];
    let dns_config = DnsConfig { routing_policy: "MULTIVALUE", dns_records };
    let namespace_id = place.zone.namespace_id();
    let service = template.add(id, DiscoveryService { name, namespace_id, dns_config });
    Registry { registry_arn: service.arn() }
}

/// Adds the homeserver.
pub fn homeserver(parts: &Parts<'_>, place: &Place<'_>, template: &mut Template) {
    let declared = &parts.settings.homeserver;
    let image = image_parameter(template, "HomeserverImage", &declared.image);
    let logs = log_group(parts, template, "Homeserver");
    let keys = keys(declared.kind);
    for (_, label) in keys {
        template.needs_key(parameter(parts, label), label_of(label));
    }
    let secrets: Vec<_> = keys.iter().map(|(name, label)| secret(parts, name, label)).collect();
    let readable =
        keys.iter().map(|(_, label)| parts.settings.arn("ssm", &format!("parameter{}", parameter(parts, label))));
    let starts = execution_role(parts, &logs, &[&declared.image], readable.collect());
    let starts = template.add("HomeserverExecutionRole", starts);
    let acts = template.add("HomeserverRole", homeserver_role(parts, place.storage));
    let container = Container {
        name: "homeserver",
        image,
        essential: true,
        environment: environment(parts, declared.kind),
        secrets,
        port_mappings: vec![PortMapping { container_port: HOMESERVER_PORT, protocol: "tcp" }],
        mount_points: vec![MountPoint { source_volume: "data", container_path: "/data", read_only: false }],
        health_check: health(declared.kind),
        stop_timeout: Some(STOP_SECONDS),
        log_configuration: log_to(parts, &logs, "homeserver"),
    };
    let volume = EfsVolume {
        filesystem_id: parts.file_system.clone(),
        transit_encryption: "ENABLED",
        authorization_config: EfsAuthorization {
            access_point_id: place.storage.homeserver.reference(),
            iam: "ENABLED",
        },
    };
    let task = TaskDefinition {
        task_role_arn: Some(acts.arn()),
        volumes: vec![Volume { name: "data", efs: volume }],
        ..task(parts, "homeserver", declared.size, starts.arn(), container)
    };
    let task = template.add("HomeserverTask", task);
    let found = found_as(HOMESERVER_NAME, "HomeserverName", place, template);
    let service = Service {
        // Its database has one writer: the old task ends before the new one starts.
        deployment_configuration: rolls(0, 100),
        availability_zone_rebalancing: "DISABLED",
        service_registries: vec![found],
        ..service(place, "homeserver", Side::Homeserver, task.reference())
    };
    template.add_after("HomeserverService", service, place.storage.mounts.clone());
}

/// Adds the web client.
pub fn web(parts: &Parts<'_>, web: &Web, place: &Place<'_>, template: &mut Template) {
    let image = image_parameter(template, "WebImage", &web.image);
    let logs = log_group(parts, template, "Web");
    let starts = template.add("WebExecutionRole", execution_role(parts, &logs, &[&web.image], Vec::new()));
    let container = Container {
        name: "web",
        image,
        essential: true,
        environment: Vec::new(),
        secrets: Vec::new(),
        port_mappings: vec![PortMapping { container_port: WEB_PORT, protocol: "tcp" }],
        mount_points: Vec::new(),
        health_check: None,
        stop_timeout: None,
        log_configuration: log_to(parts, &logs, "web"),
    };
    let task = template.add("WebTask", task(parts, "web", web.size, starts.arn(), container));
    let found = found_as(WEB_NAME, "WebName", place, template);
    let service = service(place, "web", Side::Web, task.reference());
    template.add("WebService", Service { service_registries: vec![found], ..service });
}

/// Adds what every agent's task has in common.
pub fn agents(parts: &Parts<'_>, template: &mut Template) {
    let settings = parts.settings;
    let logs = log_group(parts, template, "Agent");
    let images: Vec<&str> = settings.images.iter().map(String::as_str).collect();
    let passwords = settings.arn("ssm", &format!("parameter{}/*", parameter(parts, "agents")));
    // Keys of models are parameters either way.
    let starts = execution_role(parts, &logs, &images, vec![passwords]);
    let starts =
        if settings.agents_get_fleet_secret { starts.also(reads(parts.fleet_secret(template))) } else { starts };
    let starts = template.add("AgentExecutionRole", starts);
    template.output("AgentExecutionRoleArn", starts.arn());
    template.output("AgentLogGroup", logs.reference());
}

pub(super) fn image_parameter(template: &mut Template, id: &str, image: &str) -> Text {
    let source = StackParameter::Image { image: image.to_owned() };
    template.parameter(id, "String", "Image by digest", source)
}

pub(super) fn log_group(parts: &Parts<'_>, template: &mut Template, role: &str) -> Handle<LogGroup> {
    template.add(
        format!("{role}Logs"),
        LogGroup {
            log_group_name: crate::log_group(&parts.settings.name(), &role.to_lowercase()).into(),
            retention_in_days: parts.settings.log_days,
        },
    )
}

pub(super) fn log_to(parts: &Parts<'_>, group: &Handle<LogGroup>, prefix: &'static str) -> LogConfiguration {
    LogConfiguration { log_driver: "awslogs", options: awslogs(group.reference(), &parts.settings.region, prefix) }
}

/// Name of a parameter with a value that is derived from the fleet secret; `fleetctl` writes it.
fn parameter(parts: &Parts<'_>, label: &str) -> String {
    format!("{}/{label}", parameters_below(&parts.settings.fleet, &parts.settings.environment))
}

fn secret(parts: &Parts<'_>, name: &str, label: &str) -> SecretVariable {
    SecretVariable {
        name: name.to_owned(),
        value_from: parts.settings.arn("ssm", &format!("parameter{}", parameter(parts, label))).into(),
    }
}

/// Keys that a homeserver gets: variable, and the label they are derived under.
fn keys(kind: HomeserverKind) -> &'static [(&'static str, &'static str)] {
    match kind {
        HomeserverKind::Conduit => &[("CONDUIT_REGISTRATION_TOKEN", "homeserver/registration-token")],
        HomeserverKind::Synapse => &[
            ("FLEET_KEY_SYNAPSE_REGISTRATION_SHARED_SECRET", "homeserver/synapse-registration-shared-secret"),
            ("FLEET_KEY_SYNAPSE_MACAROON_SECRET", "homeserver/synapse-macaroon-secret"),
            ("FLEET_KEY_SYNAPSE_FORM_SECRET", "homeserver/synapse-form-secret"),
        ],
    }
}

/// Under which label a key is derived: the one that every target uses.
fn label_of(parameter: &'static str) -> &'static str {
    parameter.trim_start_matches("homeserver/")
}

fn environment(parts: &Parts<'_>, kind: HomeserverKind) -> Vec<Variable> {
    let variable = |name: &str, value: String| Variable { name: name.to_owned(), value: value.into() };
    match kind {
        // Closed in its image; opened to who has the token.
        HomeserverKind::Conduit => vec![variable("CONDUIT_ALLOW_REGISTRATION", "true".to_owned())],
        HomeserverKind::Synapse => {
            let declared = json!({
                "schema": 1, "server_name": parts.settings.domain, "port": HOMESERVER_PORT, "data": "/data",
                "uid": SYNAPSE_UID, "gid": SYNAPSE_UID,
            });
            vec![variable("FLEET_HOMESERVER", json_text(&declared))]
        }
    }
}

/// Conduit's image has no probe of its own; that it keeps running is all that can be seen from inside.
fn health(kind: HomeserverKind) -> Option<HealthCheck> {
    let command = ["CMD", "/usr/bin/python3", "/opt/homeserver/start.py", "health"].map(str::to_owned).to_vec();
    match kind {
        HomeserverKind::Conduit => None,
        HomeserverKind::Synapse => {
            Some(HealthCheck { command, interval: 10, timeout: 5, retries: 5, start_period: 90 })
        }
    }
}

/// Its own folder, and nothing else.
fn homeserver_role(parts: &Parts<'_>, storage: &Storage) -> Role {
    let files = text![parts.settings.arn("elasticfilesystem", "file-system/"), parts.file_system.clone()];
    let own = ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite"];
    let policy = Policy::of([Statement::allow("OwnFolder", &own, [files]).when(
        "StringEquals",
        "elasticfilesystem:AccessPointArn",
        storage.homeserver.arn(),
    )]);
    role(parts, "The homeserver", trust_for(TASKS, &parts.settings.account), policy)
}

/// What ECS itself may do to start a task: pull its images, read its secrets, write its output.
pub(super) fn execution_role(
    parts: &Parts<'_>,
    logs: &Handle<LogGroup>,
    images: &[&str],
    parameters: Vec<String>,
) -> Role {
    let settings = parts.settings;
    let repositories =
        images.iter().map(|image| settings.arn("ecr", &format!("repository/{}/{image}", settings.fleet)));
    let pull = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
    let mut statements = vec![
        Statement::allow_without_resource("RegistryLogin", &["ecr:GetAuthorizationToken"]),
        Statement::allow("PullImages", &pull, repositories),
        Statement::allow("WriteLogs", &["logs:CreateLogStream", "logs:PutLogEvents"], [logs.arn()]),
    ];
    if !parameters.is_empty() {
        statements.push(Statement::allow("ReadSecrets", &["ssm:GetParameters"], parameters));
    }
    role(parts, "Starts tasks", trust_for(TASKS, &settings.account), Policy::of(statements))
}

pub(super) fn task(
    parts: &Parts<'_>,
    what: &str,
    size: Size,
    execution_role_arn: Text,
    container: Container,
) -> TaskDefinition {
    TaskDefinition {
        family: format!("{}-{what}", parts.settings.name()),
        cpu: size.cpu.to_string(),
        memory: size.memory_mib.to_string(),
        network_mode: "awsvpc",
        requires_compatibilities: vec!["FARGATE"],
        runtime_platform: RuntimePlatform {
            cpu_architecture: if parts.settings.arm { "ARM64" } else { "X86_64" },
            operating_system_family: "LINUX",
        },
        execution_role_arn,
        task_role_arn: None,
        container_definitions: vec![container],
        volumes: Vec::new(),
    }
}

pub(super) const fn rolls(minimum_healthy_percent: u16, maximum_percent: u16) -> DeploymentConfiguration {
    let deployment_circuit_breaker = CircuitBreaker { enable: true, rollback: true };
    DeploymentConfiguration { minimum_healthy_percent, maximum_percent, deployment_circuit_breaker }
}

/// A service of one task that may overlap with its successor.
pub(super) fn service(place: &Place<'_>, service_name: &'static str, side: Side, task_definition: Text) -> Service {
    Service {
        service_name,
        cluster: place.cluster.reference(),
        task_definition,
        desired_count: 1,
        capacity_provider_strategy: vec![on_demand()],
        deployment_configuration: rolls(100, 200),
        availability_zone_rebalancing: "ENABLED",
        network_configuration: NetworkConfiguration {
            awsvpc_configuration: Awsvpc {
                assign_public_ip: "DISABLED",
                security_groups: vec![place.firewall.group(side)],
                subnets: place.network.private.clone(),
            },
        },
        service_registries: Vec::new(),
        propagate_tags: "SERVICE",
        managed_tags: true,
    }
}
