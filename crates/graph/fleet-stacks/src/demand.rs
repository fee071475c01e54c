//! [`Demand`]: how much of an account's quotas, addresses and sizes an environment takes, counted in what is rendered for it:
//! its templates, and its agents' task definitions and services.
//!
//! Deliberately absent: how much there is (observed by fleet-aws), and whether it is enough (fleet-planner).

use std::collections::BTreeMap;

use fleet_objects::AgentSpec;
use serde_json::Value;

use crate::quota::Quota;

/// Bytes of one task definition ("Amazon ECS service quotas").
pub const MAX_TASK_BYTES: usize = 64 * 1024;
/// Addresses of a subnet that AWS keeps for itself (Amazon VPC user guide, "Subnet sizing").
const KEPT: u64 = 5;
/// CPU units of a vCPU.
const UNITS: u64 = 1024;

/// What an environment takes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// By quota.
    pub counts: BTreeMap<Quota, u64>,
    /// Subnets, by the name that they have in the template.
    pub subnets: BTreeMap<String, Subnet>,
    /// The agent with the largest task definition, and its bytes.
    pub largest_task: Option<(String, usize)>,
}

/// Addresses of one subnet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subnet {
    /// `10.0.10.0/24`.
    pub cidr: String,
    /// That can be given away.
    pub addresses: u64,
    /// That are taken at most.
    pub needed: u64,
}

/// CPU units by where they run.
#[derive(Default)]
struct Units {
    on_demand: u64,
    spot: u64,
}

impl Units {
    fn add(&mut self, strategy: &Value, units: u64) {
        let provider = strategy[0]["CapacityProvider"].as_str().or_else(|| strategy[0]["capacityProvider"].as_str());
        let of = if provider == Some("FARGATE_SPOT") { &mut self.spot } else { &mut self.on_demand };
        *of += units;
    }
}

impl Demand {
    /// Of templates, rendered or deployed, and of agents. What is no template takes nothing.
    #[must_use]
    pub fn of<'a>(
        templates: impl IntoIterator<Item = &'a str>,
        agents: impl IntoIterator<Item = (&'a str, &'a AgentSpec)>,
    ) -> Self {
        let (mut demand, mut units, mut tasks) = (Self::default(), Units::default(), 0);
        for template in templates {
            let template: Value = serde_json::from_str(template).unwrap_or_default();
            let resources: BTreeMap<&str, &Value> =
                template["Resources"].as_object().into_iter().flatten().map(|(id, one)| (id.as_str(), one)).collect();
            for (id, resource) in &resources {
                demand.subnet(id, resource);
            }
            for resource in resources.values() {
                demand.resource(resource, &resources);
                tasks += service(resource, &resources, &mut units);
            }
        }
        for (name, agent) in agents {
            demand.agent(name, agent, &mut units);
            tasks += 1;
        }
        demand.add(Quota::NetworkInterfaces, tasks);
        demand.add(Quota::OnDemandCpus, units.on_demand.div_ceil(UNITS));
        demand.add(Quota::SpotCpus, units.spot.div_ceil(UNITS));
        demand.spread(tasks);
        demand
    }

    /// How much it takes of a quota.
    #[must_use]
    pub fn count(&self, quota: Quota) -> u64 {
        self.counts.get(&quota).copied().unwrap_or(0)
    }

    fn add(&mut self, quota: Quota, more: u64) {
        if more > 0 {
            *self.counts.entry(quota).or_default() += more;
        }
    }

    fn subnet(&mut self, id: &str, resource: &Value) {
        let cidr = resource["Properties"]["CidrBlock"].as_str().filter(|_| resource["Type"] == "AWS::EC2::Subnet");
        let length: Option<u32> = cidr.and_then(|cidr| cidr.split_once('/')?.1.parse().ok());
        let (Some(cidr), Some(length)) = (cidr, length) else { return };
        let size = 1_u64.checked_shl(32_u32.saturating_sub(length)).unwrap_or(0);
        let subnet = Subnet { cidr: cidr.to_owned(), addresses: size.saturating_sub(KEPT), needed: 0 };
        self.subnets.insert(id.to_owned(), subnet);
    }

    fn resource(&mut self, resource: &Value, all: &BTreeMap<&str, &Value>) {
        let properties = &resource["Properties"];
        match resource["Type"].as_str().unwrap_or_default() {
            "AWS::EC2::VPC" => self.add(Quota::Vpcs, 1),
            "AWS::EC2::InternetGateway" => self.add(Quota::InternetGateways, 1),
            "AWS::EC2::EIP" => self.add(Quota::ElasticIps, 1),
            "AWS::IAM::Role" => self.add(Quota::Roles, 1),
            "AWS::EFS::AccessPoint" => self.add(Quota::AccessPoints, 1),
            "AWS::ECS::Service" if all.contains_key(reference(&properties["Cluster"])) => self.add(Quota::Services, 1),
            "AWS::EC2::VPCEndpoint" if properties["VpcEndpointType"] == "Interface" => {
                self.add(Quota::InterfaceEndpoints, 1);
                let subnets: Vec<&Value> = properties["SubnetIds"].as_array().into_iter().flatten().collect();
                subnets.into_iter().for_each(|subnet| self.interface(subnet));
            }
            "AWS::EC2::Instance" | "AWS::EC2::NatGateway" | "AWS::EFS::MountTarget" => {
                self.interface(&properties["SubnetId"]);
            }
            _ => {}
        }
    }

    fn interface(&mut self, subnet: &Value) {
        self.add(Quota::NetworkInterfaces, 1);
        if let Some(subnet) = self.subnets.get_mut(reference(subnet)) {
            subnet.needed += 1;
        }
    }

    fn agent(&mut self, name: &str, agent: &AgentSpec, units: &mut Units) {
        self.add(Quota::Services, 1);
        self.add(Quota::Roles, 1);
        self.add(Quota::AccessPoints, 1);
        let service: Value = serde_json::from_str(&agent.service).unwrap_or_default();
        units.add(&service["capacityProviderStrategy"], u64::from(agent.container.size.cpu));
        if self.largest_task.as_ref().is_none_or(|(_, bytes)| *bytes < agent.task.len()) {
            self.largest_task = Some((name.to_owned(), agent.task.len()));
        }
    }

    /// ECS spreads tasks over the zones of their subnets. All of them are in the private ones.
    fn spread(&mut self, tasks: u64) {
        let private = |name: &str| name.starts_with("Private");
        let zones = self.subnets.keys().filter(|name| private(name)).count() as u64;
        for (_, subnet) in self.subnets.iter_mut().filter(|(name, _)| private(name)) {
            subnet.needed += tasks.div_ceil(zones.max(1));
        }
    }
}

/// Tasks of a service while it is rolled, each with its CPU units.
fn service(resource: &Value, all: &BTreeMap<&str, &Value>, units: &mut Units) -> u64 {
    if resource["Type"] != "AWS::ECS::Service" {
        return 0;
    }
    let properties = &resource["Properties"];
    let desired = properties["DesiredCount"].as_u64().unwrap_or(1);
    let percent = properties["DeploymentConfiguration"]["MaximumPercent"].as_u64().unwrap_or(200);
    let tasks = (desired * percent).div_ceil(100);
    let task = all.get(reference(&properties["TaskDefinition"])).map(|task| &task["Properties"]["Cpu"]);
    let cpu = task.and_then(|cpu| cpu.as_str()?.parse().ok()).unwrap_or(0);
    units.add(&properties["CapacityProviderStrategy"], tasks * cpu);
    tasks
}

fn reference(value: &Value) -> &str {
    value["Ref"].as_str().unwrap_or_default()
}
