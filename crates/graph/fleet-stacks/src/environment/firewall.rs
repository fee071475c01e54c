//! Security groups, one per role, and [`EDGES`]: who may talk to whom. Nothing else passes.

use std::collections::BTreeMap;

use super::{Parts, network::Network};
use crate::{
    resource::{
        ec2::{EgressRule, SecurityGroup, SecurityGroupEgress, SecurityGroupIngress},
        named,
    },
    template::{Handle, Template},
    value::Text,
};

/// Port of the homeserver.
pub const HOMESERVER_PORT: u16 = 6167;
/// Port of the web client.
pub const WEB_PORT: u16 = 8080;
const NFS: u16 = 2049;
const HTTPS: u16 = 443;
const HTTP: u16 = 80;

/// What a network interface is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Agents.
    Agent,
    /// The way in for operators.
    Bastion,
    /// Endpoints of AWS.
    Endpoints,
    /// Mount targets of the file system.
    Files,
    /// The homeserver.
    Homeserver,
    /// The manager.
    Manager,
    /// The web client.
    Web,
}

impl Role {
    const ALL: [Self; 7] =
        [Self::Agent, Self::Bastion, Self::Endpoints, Self::Files, Self::Homeserver, Self::Manager, Self::Web];

    const fn name(self) -> &'static str {
        match self {
            Self::Agent => "Agent",
            Self::Bastion => "Bastion",
            Self::Endpoints => "Endpoints",
            Self::Files => "Files",
            Self::Homeserver => "Homeserver",
            Self::Manager => "Manager",
            Self::Web => "Web",
        }
    }
}

/// One connection that may be opened.
pub struct Edge {
    from: Role,
    to: Role,
    port: u16,
    why: &'static str,
}

const fn edge(from: Role, to: Role, port: u16, why: &'static str) -> Edge {
    Edge { from, to, port, why }
}

/// Every connection inside the network.
pub const EDGES: [Edge; 11] = [
    edge(Role::Agent, Role::Homeserver, HOMESERVER_PORT, "agents talk in rooms"),
    edge(Role::Agent, Role::Files, NFS, "agents keep their memory"),
    edge(Role::Agent, Role::Endpoints, HTTPS, "agents start, log and think"),
    edge(Role::Bastion, Role::Homeserver, HOMESERVER_PORT, "operators reach the homeserver through a tunnel"),
    edge(Role::Bastion, Role::Web, WEB_PORT, "operators reach the web client through a tunnel"),
    edge(Role::Bastion, Role::Endpoints, HTTPS, "sessions where there is no NAT gateway"),
    edge(Role::Homeserver, Role::Files, NFS, "the homeserver keeps its database"),
    edge(Role::Homeserver, Role::Endpoints, HTTPS, "the homeserver starts and logs"),
    edge(Role::Manager, Role::Homeserver, HOMESERVER_PORT, "the manager makes accounts and rooms"),
    edge(Role::Manager, Role::Endpoints, HTTPS, "the manager starts and logs"),
    edge(Role::Web, Role::Endpoints, HTTPS, "the web client starts and logs"),
];

/// Ways out of the network. Layers of images come from S3, whose addresses are public even through its endpoint.
const OUTSIDE: [(Role, u16, &str); 6] = [
    (Role::Agent, HTTPS, "the web"),
    (Role::Agent, HTTP, "the web"),
    (Role::Bastion, HTTPS, "Session Manager"),
    (Role::Homeserver, HTTPS, "layers of images in S3"),
    (Role::Manager, HTTPS, "the config bucket and layers of images in S3"),
    (Role::Web, HTTPS, "layers of images in S3"),
];

/// The groups.
pub struct Firewall(BTreeMap<Role, Handle<SecurityGroup>>);

impl Firewall {
    /// Id of a role's group. Every role has one.
    pub fn group(&self, role: Role) -> Text {
        self.0.get(&role).map_or_else(|| Text::from(""), Handle::group_id)
    }
}

/// Adds the groups and a rule on either side of every edge.
pub fn add(parts: &Parts<'_>, network: &Network, template: &mut Template) -> Firewall {
    let present = |role: &Role| match role {
        Role::Manager => parts.settings.manager.is_some(),
        Role::Web => parts.settings.web.is_some(),
        _ => true,
    };
    let mut groups = BTreeMap::new();
    for role in Role::ALL.into_iter().filter(present) {
        let name = format!("{}-{}", parts.settings.name(), role.name().to_lowercase());
        let group = SecurityGroup {
            group_description: format!("{} of {}", role.name(), parts.settings.name()),
            vpc_id: network.vpc.clone(),
            security_group_egress: outside(role),
            tags: named(name),
        };
        groups.insert(role, template.add(format!("{}Group", role.name()), group));
    }
    for Edge { from, to, port, why } in EDGES.iter().filter(|edge| present(&edge.from) && present(&edge.to)) {
        let (Some(source), Some(target)) = (groups.get(from), groups.get(to)) else { continue };
        let name = format!("{}To{}", from.name(), to.name());
        template.add(
            format!("{name}Out"),
            SecurityGroupEgress {
                group_id: source.group_id(),
                destination_security_group_id: target.group_id(),
                ip_protocol: "tcp",
                from_port: *port,
                to_port: *port,
                description: why,
            },
        );
        template.add(
            format!("{name}In"),
            SecurityGroupIngress {
                group_id: target.group_id(),
                source_security_group_id: source.group_id(),
                ip_protocol: "tcp",
                from_port: *port,
                to_port: *port,
                description: why,
            },
        );
    }
    if let Some(agent) = groups.get(&Role::Agent) {
        template.output("AgentGroup", agent.group_id());
    }
    Firewall(groups)
}

fn outside(role: Role) -> Vec<EgressRule> {
    let rule = |cidr_ip, port, description| EgressRule {
        cidr_ip,
        ip_protocol: "tcp",
        from_port: port,
        to_port: port,
        description,
    };
    let rules: Vec<EgressRule> =
        OUTSIDE.iter().filter(|(of, ..)| *of == role).map(|(_, port, why)| rule("0.0.0.0/0", *port, *why)).collect();
    if rules.is_empty() {
        // A group without any rule would get AWS's own, which lets everything out. This one lets out nothing.
        return vec![rule("127.0.0.1/32", HTTPS, "nothing")];
    }
    rules
}
