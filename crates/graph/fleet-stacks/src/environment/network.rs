//! VPC, subnets, the ways out, endpoints and flow logs.

use super::{
    Parts,
    firewall::{Firewall, Role as Side},
    role,
};
use crate::{
    cidr::{DoesNotFit, Layout},
    iam::{Policy, Statement, trust_for},
    resource::{
        Tag,
        ec2::{
            Eip, FlowLog, InternetGateway, NatGateway, Route, RouteTable, Subnet, SubnetRouteTableAssociation, Vpc,
            VpcEndpoint, VpcGatewayAttachment,
        },
        logs::LogGroup,
        named,
    },
    template::Template,
    value::Text,
};

/// Services of AWS that tasks call from inside, with the name in the template.
const ENDPOINTS: [(&str, &str); 5] = [
    ("EcrApi", "ecr.api"),
    ("EcrDkr", "ecr.dkr"),
    ("Logs", "logs"),
    ("Secrets", "secretsmanager"),
    ("Bedrock", "bedrock-runtime"),
];
/// Beside those, where there is no other way out: sessions on the bastion, and parameters.
const ENDPOINTS_WITHOUT_NAT: [(&str, &str); 2] = [("Ssm", "ssm"), ("SsmMessages", "ssmmessages")];
const EVERYWHERE: &str = "0.0.0.0/0";

/// The network as the rest of the stack refers to it.
pub struct Network {
    /// The VPC.
    pub vpc: Text,
    /// Private subnets, one per zone.
    pub private: Vec<Text>,
    route_tables: Vec<Text>,
}

/// `A`, `B`, … for the zones.
pub fn letter(zone: usize) -> char {
    char::from(b'A' + u8::try_from(zone).unwrap_or(25).min(25))
}

/// Adds it.
///
/// # Errors
/// [`DoesNotFit`].
pub fn add(parts: &Parts<'_>, template: &mut Template) -> Result<Network, DoesNotFit> {
    let settings = parts.settings;
    let layout = Layout::of(settings)?;
    let name = settings.name();
    let vpc = template.add(
        "Vpc",
        Vpc {
            cidr_block: settings.cidr.to_string(),
            enable_dns_hostnames: true,
            enable_dns_support: true,
            tags: named(name.as_str()),
        },
    );
    let mut build = Build { template, vpc: vpc.reference(), name };
    let (public_routes, attached) = build.way_out();
    let mut nats = Vec::new();
    for (zone, cidr) in layout.public.iter().enumerate() {
        let subnet = build.subnet("Public", zone, cidr.to_string());
        build.goes_by("Public", zone, &subnet, &public_routes);
        if zone < usize::from(settings.nat_gateways) {
            nats.push(build.nat(zone, subnet, &attached));
        }
    }
    let mut network = Network { vpc: vpc.reference(), private: Vec::new(), route_tables: Vec::new() };
    for (zone, cidr) in layout.private.iter().enumerate() {
        let subnet = build.subnet("Private", zone, cidr.to_string());
        let table = build.private_routes(zone, nats.get(zone % nats.len().max(1)));
        build.goes_by("Private", zone, &subnet, &table);
        build.template.output(&format!("PrivateSubnet{}", letter(zone)), subnet.clone());
        network.route_tables.push(table);
        network.private.push(subnet);
    }
    flow_logs(parts, &network, template);
    Ok(network)
}

struct Build<'t> {
    template: &'t mut Template,
    vpc: Text,
    name: String,
}

impl Build<'_> {
    fn tags(&self, what: &str) -> Vec<Tag> {
        named(format!("{}-{}", self.name, what.to_lowercase()))
    }

    /// The internet gateway with the routes of public subnets, and the attachment that everything public waits for.
    fn way_out(&mut self) -> (Text, String) {
        let gateway = self.template.add("InternetGateway", InternetGateway { tags: named(self.name.as_str()) });
        let attached = self.template.add(
            "InternetGatewayAttachment",
            VpcGatewayAttachment { vpc_id: self.vpc.clone(), internet_gateway_id: gateway.reference() },
        );
        let table = RouteTable { vpc_id: self.vpc.clone(), tags: self.tags("public") };
        let table = self.template.add("PublicRoutes", table);
        let route = Route {
            route_table_id: table.reference(),
            destination_cidr_block: EVERYWHERE,
            gateway_id: Some(gateway.reference()),
            nat_gateway_id: None,
        };
        self.template.add_after("PublicDefaultRoute", route, vec![attached.id()]);
        (table.reference(), attached.id())
    }

    fn subnet(&mut self, side: &str, zone: usize, cidr_block: String) -> Text {
        let letter = letter(zone);
        let subnet = Subnet {
            vpc_id: self.vpc.clone(),
            cidr_block,
            availability_zone: Text::Zone(u8::try_from(zone).unwrap_or(u8::MAX)),
            map_public_ip_on_launch: false,
            tags: self.tags(&format!("{side}-{letter}")),
        };
        self.template.add(format!("{side}Subnet{letter}"), subnet).reference()
    }

    fn goes_by(&mut self, side: &str, zone: usize, subnet: &Text, table: &Text) {
        let association = SubnetRouteTableAssociation { subnet_id: subnet.clone(), route_table_id: table.clone() };
        self.template.add(format!("{side}RoutesOf{}", letter(zone)), association);
    }

    fn nat(&mut self, zone: usize, subnet_id: Text, attached: &str) -> Text {
        let letter = letter(zone);
        let tags = self.tags(&letter.to_string());
        let address = Eip { domain: "vpc", tags: tags.clone() };
        let address = self.template.add_after(format!("NatAddress{letter}"), address, vec![attached.to_owned()]);
        let gateway = NatGateway { subnet_id, allocation_id: address.allocation_id(), tags };
        self.template.add(format!("Nat{letter}"), gateway).reference()
    }

    fn private_routes(&mut self, zone: usize, nat: Option<&Text>) -> Text {
        let letter = letter(zone);
        let table = RouteTable { vpc_id: self.vpc.clone(), tags: self.tags(&format!("private-{letter}")) };
        let table = self.template.add(format!("PrivateRoutes{letter}"), table).reference();
        if let Some(nat) = nat {
            self.template.add(
                format!("PrivateDefaultRoute{letter}"),
                Route {
                    route_table_id: table.clone(),
                    destination_cidr_block: EVERYWHERE,
                    gateway_id: None,
                    nat_gateway_id: Some(nat.clone()),
                },
            );
        }
        table
    }
}

/// Adds the endpoints: they need the firewall, which needs the VPC.
pub fn endpoints(parts: &Parts<'_>, network: &Network, firewall: &Firewall, template: &mut Template) {
    let service = |name: &str| format!("com.amazonaws.{}.{name}", parts.settings.region);
    let without_nat = ENDPOINTS_WITHOUT_NAT.iter().filter(|_| parts.settings.nat_gateways == 0);
    for (id, name) in ENDPOINTS.iter().chain(without_nat) {
        template.add(
            format!("Endpoint{id}"),
            VpcEndpoint {
                vpc_id: network.vpc.clone(),
                service_name: service(name),
                vpc_endpoint_type: "Interface",
                private_dns_enabled: Some(true),
                subnet_ids: network.private.clone(),
                security_group_ids: vec![firewall.group(Side::Endpoints)],
                route_table_ids: Vec::new(),
                tags: named(format!("{}-{name}", parts.settings.name())),
            },
        );
    }
    template.add(
        "EndpointS3",
        VpcEndpoint {
            vpc_id: network.vpc.clone(),
            service_name: service("s3"),
            vpc_endpoint_type: "Gateway",
            private_dns_enabled: None,
            subnet_ids: Vec::new(),
            security_group_ids: Vec::new(),
            route_table_ids: network.route_tables.clone(),
            tags: named(format!("{}-s3", parts.settings.name())),
        },
    );
}

fn flow_logs(parts: &Parts<'_>, network: &Network, template: &mut Template) {
    let settings = parts.settings;
    let group = template.add(
        "FlowLogs",
        LogGroup {
            log_group_name: format!("/fleet/{}/flow", settings.name()).into(),
            retention_in_days: settings.log_days,
        },
    );
    let write = ["logs:CreateLogStream", "logs:PutLogEvents", "logs:DescribeLogStreams"];
    let policy = Policy::of([
        Statement::allow("WriteFlowLogs", &write, [group.arn()]),
        Statement::allow_without_resource("DescribeLogGroups", &["logs:DescribeLogGroups"]),
    ]);
    let trust = trust_for("vpc-flow-logs.amazonaws.com", &settings.account);
    let writer = template.add("FlowLogRole", role(parts, "Writes the network's flow logs", trust, policy));
    template.add(
        "FlowLog",
        FlowLog {
            resource_id: network.vpc.clone(),
            resource_type: "VPC",
            traffic_type: "ALL",
            log_destination_type: "cloud-watch-logs",
            log_group_name: group.reference(),
            deliver_logs_permission_arn: writer.arn(),
            tags: named(settings.name()),
        },
    );
}
