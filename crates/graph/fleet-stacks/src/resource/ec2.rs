//! Network and the bastion's instance.

use super::{Tag, properties};
use crate::{template::Handle, value::Text};

properties! {
    /// The network.
    Vpc = "AWS::EC2::VPC" {
        cidr_block: String,
        enable_dns_hostnames: bool,
        enable_dns_support: bool,
        tags: Vec<Tag>,
    }
    /// A part of it in one availability zone.
    Subnet = "AWS::EC2::Subnet" {
        vpc_id: Text,
        cidr_block: String,
        availability_zone: Text,
        map_public_ip_on_launch: bool,
        tags: Vec<Tag>,
    }
    /// The way out for public addresses.
    InternetGateway = "AWS::EC2::InternetGateway" { tags: Vec<Tag> }
    /// Joins gateway and network.
    VpcGatewayAttachment = "AWS::EC2::VPCGatewayAttachment" { vpc_id: Text, internet_gateway_id: Text }
    /// A public address.
    Eip = "AWS::EC2::EIP" { domain: &'static str, tags: Vec<Tag> }
    /// The way out for private addresses.
    NatGateway = "AWS::EC2::NatGateway" { subnet_id: Text, allocation_id: Text, tags: Vec<Tag> }
    /// Where packets go.
    RouteTable = "AWS::EC2::RouteTable" { vpc_id: Text, tags: Vec<Tag> }
    /// One way.
    Route = "AWS::EC2::Route" {
        route_table_id: Text,
        destination_cidr_block: &'static str,
        gateway_id: Option<Text>,
        nat_gateway_id: Option<Text>,
    }
    /// Which subnet goes by which table.
    SubnetRouteTableAssociation = "AWS::EC2::SubnetRouteTableAssociation" { subnet_id: Text, route_table_id: Text }
    /// A service of AWS inside the network.
    VpcEndpoint = "AWS::EC2::VPCEndpoint" {
        vpc_id: Text,
        service_name: String,
        vpc_endpoint_type: &'static str,
        private_dns_enabled: Option<bool>,
        subnet_ids: Vec<Text>,
        security_group_ids: Vec<Text>,
        route_table_ids: Vec<Text>,
        tags: Vec<Tag>,
    }
    /// A firewall around network interfaces.
    SecurityGroup = "AWS::EC2::SecurityGroup" {
        group_description: String,
        vpc_id: Text,
        security_group_egress: Vec<EgressRule>,
        tags: Vec<Tag>,
    }
    /// What a group lets out to addresses. One that is declared replaces AWS's rule that lets everything out.
    EgressRule {
        cidr_ip: &'static str,
        ip_protocol: &'static str,
        from_port: u16,
        to_port: u16,
        description: &'static str,
    }
    /// What a group lets in from another one.
    SecurityGroupIngress = "AWS::EC2::SecurityGroupIngress" {
        group_id: Text,
        source_security_group_id: Text,
        ip_protocol: &'static str,
        from_port: u16,
        to_port: u16,
        description: &'static str,
    }
    /// What a group lets out to another one.
    SecurityGroupEgress = "AWS::EC2::SecurityGroupEgress" {
        group_id: Text,
        destination_security_group_id: Text,
        ip_protocol: &'static str,
        from_port: u16,
        to_port: u16,
        description: &'static str,
    }
    /// A machine.
    Instance = "AWS::EC2::Instance" {
        image_id: Text,
        instance_type: &'static str,
        subnet_id: Text,
        security_group_ids: Vec<Text>,
        iam_instance_profile: Text,
        metadata_options: MetadataOptions,
        block_device_mappings: Vec<BlockDevice>,
        tags: Vec<Tag>,
    }
    /// Credentials only for who asks with a session.
    MetadataOptions { http_tokens: &'static str, http_put_response_hop_limit: u8 }
    /// A disk.
    BlockDevice { device_name: &'static str, ebs: Ebs }
    /// Its volume.
    Ebs { encrypted: bool, volume_type: &'static str }
    /// Who talked to whom.
    FlowLog = "AWS::EC2::FlowLog" {
        resource_id: Text,
        resource_type: &'static str,
        traffic_type: &'static str,
        log_destination_type: &'static str,
        log_group_name: Text,
        deliver_logs_permission_arn: Text,
        tags: Vec<Tag>,
    }
}

impl Handle<SecurityGroup> {
    /// `sg-…`.
    pub fn group_id(&self) -> Text {
        self.attribute("GroupId")
    }
}

impl Handle<Eip> {
    /// `eipalloc-…`.
    pub fn allocation_id(&self) -> Text {
        self.attribute("AllocationId")
    }
}
