//! The cluster, its services, and the names under which they are found.

use std::collections::BTreeMap;

use super::properties;
use crate::{template::Handle, value::Text};

properties! {
    /// Where tasks run.
    Cluster = "AWS::ECS::Cluster" {
        cluster_name: String,
        cluster_settings: Vec<ClusterSetting>,
        capacity_providers: Vec<&'static str>,
        default_capacity_provider_strategy: Vec<Capacity>,
    }
    /// For instance Container Insights.
    ClusterSetting { name: &'static str, value: &'static str }
    /// A share of the tasks.
    Capacity { capacity_provider: &'static str, weight: u8 }
    /// What a task is.
    TaskDefinition = "AWS::ECS::TaskDefinition" {
        family: String,
        cpu: String,
        memory: String,
        network_mode: &'static str,
        requires_compatibilities: Vec<&'static str>,
        runtime_platform: RuntimePlatform,
        execution_role_arn: Text,
        task_role_arn: Option<Text>,
        container_definitions: Vec<Container>,
        volumes: Vec<Volume>,
    }
    /// What it runs on.
    RuntimePlatform { cpu_architecture: &'static str, operating_system_family: &'static str }
    /// One container of a task.
    Container {
        name: &'static str,
        image: Text,
        essential: bool,
        environment: Vec<Variable>,
        secrets: Vec<SecretVariable>,
        port_mappings: Vec<PortMapping>,
        mount_points: Vec<MountPoint>,
        health_check: Option<HealthCheck>,
        stop_timeout: Option<u16>,
        log_configuration: LogConfiguration,
    }
    /// A variable.
    Variable { name: String, value: Text }
    /// A variable with a secret value: where ECS reads it when the task starts.
    SecretVariable { name: String, value_from: Text }
    /// A port it listens on.
    PortMapping { container_port: u16, protocol: &'static str }
    /// Where a volume is seen.
    MountPoint { source_volume: &'static str, container_path: &'static str, read_only: bool }
    /// How ECS tells that it serves.
    HealthCheck { command: Vec<String>, interval: u16, timeout: u16, retries: u8, start_period: u16 }
    /// Where its output goes.
    LogConfiguration { log_driver: &'static str, options: BTreeMap<&'static str, Text> }
    /// A volume.
    Volume {
        name: &'static str,
        #[serde(rename = "EFSVolumeConfiguration")] efs: EfsVolume,
    }
    /// A folder of a file system, through its access point and no other way.
    EfsVolume {
        filesystem_id: Text,
        transit_encryption: &'static str,
        authorization_config: EfsAuthorization,
    }
    /// By the task's role.
    EfsAuthorization {
        access_point_id: Text,
        #[serde(rename = "IAM")] iam: &'static str,
    }
    /// Keeps tasks running.
    Service = "AWS::ECS::Service" {
        service_name: &'static str,
        cluster: Text,
        task_definition: Text,
        desired_count: u16,
        capacity_provider_strategy: Vec<Capacity>,
        deployment_configuration: DeploymentConfiguration,
        availability_zone_rebalancing: &'static str,
        network_configuration: NetworkConfiguration,
        service_registries: Vec<Registry>,
        propagate_tags: &'static str,
        #[serde(rename = "EnableECSManagedTags")] managed_tags: bool,
    }
    /// How it rolls.
    DeploymentConfiguration {
        minimum_healthy_percent: u16,
        maximum_percent: u16,
        deployment_circuit_breaker: CircuitBreaker,
    }
    /// Gives up on a deployment that does not become healthy.
    CircuitBreaker { enable: bool, rollback: bool }
    /// Its interfaces.
    NetworkConfiguration { awsvpc_configuration: Awsvpc }
    /// Their network.
    Awsvpc { assign_public_ip: &'static str, security_groups: Vec<Text>, subnets: Vec<Text> }
    /// The name it is found under.
    Registry { registry_arn: Text }
    /// A zone of names inside the network.
    PrivateDnsNamespace = "AWS::ServiceDiscovery::PrivateDnsNamespace" { name: String, vpc: Text }
    /// One name of it.
    DiscoveryService = "AWS::ServiceDiscovery::Service" {
        name: &'static str,
        namespace_id: Text,
        dns_config: DnsConfig,
    }
    /// What the name means.
    DnsConfig { routing_policy: &'static str, dns_records: Vec<DnsRecord> }
    /// A kind of record and for how long it may be remembered.
    DnsRecord {
        r#type: &'static str,
        #[serde(rename = "TTL")] ttl: u16,
    }
}

impl Handle<Cluster> {
    /// Its ARN.
    pub fn arn(&self) -> Text {
        self.attribute("Arn")
    }
}

impl Handle<PrivateDnsNamespace> {
    /// `ns-…`.
    pub fn namespace_id(&self) -> Text {
        self.attribute("Id")
    }
}

impl Handle<DiscoveryService> {
    /// Its ARN.
    pub fn arn(&self) -> Text {
        self.attribute("Arn")
    }
}
