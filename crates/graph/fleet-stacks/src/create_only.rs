//! [`TABLE`]: properties that a resource gets when it is made and can never change; another resource is put in its place.
//!
//! Source: the resource types' schemas as AWS publishes them (`createOnlyProperties`, `conditionalCreateOnlyProperties`).
//! A test compares the table with the schemas that cfn-lint ships, and with the types that we render.

/// One type's row. A path names everything below it too: `RootDirectory/Path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateOnly {
    /// For instance `AWS::EC2::Subnet`.
    pub kind: &'static str,
    /// A change replaces the resource.
    pub always: &'static [&'static str],
    /// A change may replace it; AWS decides by what else is set.
    pub perhaps: &'static [&'static str],
}

const fn row(kind: &'static str, always: &'static [&'static str], perhaps: &'static [&'static str]) -> CreateOnly {
    CreateOnly { kind, always, perhaps }
}

/// Every type that we render, by name.
pub const TABLE: [CreateOnly; 40] = [
    row("AWS::Backup::BackupPlan", &[], &[]),
    row("AWS::Backup::BackupSelection", &["BackupPlanId", "BackupSelection"], &[]),
    row("AWS::Backup::BackupVault", &["BackupVaultName", "EncryptionKeyArn"], &[]),
    row("AWS::CloudWatch::Alarm", &["AlarmName"], &[]),
    row("AWS::CloudWatch::Dashboard", &["DashboardName"], &[]),
    row("AWS::EC2::EIP", &["Address", "IpamPoolId", "NetworkBorderGroup", "TransferAddress"], &[]),
    row(
        "AWS::EC2::FlowLog",
        &[
            "DeliverCrossAccountRole",
            "DeliverLogsPermissionArn",
            "DestinationOptions",
            "LogDestination",
            "LogDestinationType",
            "LogFormat",
            "LogGroupName",
            "MaxAggregationInterval",
            "ResourceId",
            "ResourceType",
            "TagFieldSpecifications",
            "TrafficType",
        ],
        &[],
    ),
    row(
        "AWS::EC2::Instance",
        &[
            "AvailabilityZone",
            "CpuOptions",
            "ElasticGpuSpecifications",
            "ElasticInferenceAccelerators",
            "EnclaveOptions",
            "HibernationOptions",
            "HostResourceGroupArn",
            "ImageId",
            "Ipv6AddressCount",
            "Ipv6Addresses",
            "KeyName",
            "LaunchTemplate",
            "LicenseSpecifications",
            "NetworkInterfaces",
            "PlacementGroupName",
            "PrivateIpAddress",
            "SecurityGroups",
            "SubnetId",
        ],
        &[
            "AdditionalInfo",
            "Affinity",
            "BlockDeviceMappings",
            "EbsOptimized",
            "HostId",
            "InstanceType",
            "KernelId",
            "PrivateDnsNameOptions",
            "RamdiskId",
            "SecurityGroupIds",
            "Tenancy",
            "UserData",
        ],
    ),
    row("AWS::EC2::InternetGateway", &[], &[]),
    row(
        "AWS::EC2::NatGateway",
        &["AllocationId", "AvailabilityMode", "ConnectivityType", "PrivateIpAddress", "SubnetId", "VpcId"],
        &[],
    ),
    row(
        "AWS::EC2::Route",
        &["DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId", "RouteTableId"],
        &[],
    ),
    row("AWS::EC2::RouteTable", &["VpcId"], &[]),
    row("AWS::EC2::SecurityGroup", &["GroupDescription", "GroupName", "VpcId"], &[]),
    row(
        "AWS::EC2::SecurityGroupEgress",
        &[
            "CidrIp",
            "CidrIpv6",
            "DestinationPrefixListId",
            "DestinationSecurityGroupId",
            "FromPort",
            "GroupId",
            "IpProtocol",
            "ToPort",
        ],
        &[],
    ),
    row(
        "AWS::EC2::SecurityGroupIngress",
        &[
            "CidrIp",
            "CidrIpv6",
            "FromPort",
            "GroupId",
            "GroupName",
            "IpProtocol",
            "SourcePrefixListId",
            "SourceSecurityGroupId",
            "SourceSecurityGroupName",
            "SourceSecurityGroupOwnerId",
            "ToPort",
        ],
        &[],
    ),
    row(
        "AWS::EC2::Subnet",
        &[
            "AvailabilityZone",
            "AvailabilityZoneId",
            "CidrBlock",
            "Ipv4IpamPoolId",
            "Ipv4NetmaskLength",
            "Ipv6IpamPoolId",
            "Ipv6Native",
            "Ipv6NetmaskLength",
            "OutpostArn",
            "VpcId",
        ],
        &["Ipv6CidrBlock"],
    ),
    row("AWS::EC2::SubnetRouteTableAssociation", &["RouteTableId", "SubnetId"], &[]),
    row(
        "AWS::EC2::VPC",
        &["CidrBlock", "Ipv4IpamPoolId", "Ipv4NetmaskLength", "VpcEncryptionControl"],
        &["InstanceTenancy"],
    ),
    row(
        "AWS::EC2::VPCEndpoint",
        &[
            "DnsOptions/PrivateDnsPreference",
            "DnsOptions/PrivateDnsSpecifiedDomains",
            "ResourceConfigurationArn",
            "ServiceName",
            "ServiceNetworkArn",
            "ServiceRegion",
            "VpcEndpointType",
            "VpcId",
        ],
        &[],
    ),
    row("AWS::EC2::VPCGatewayAttachment", &["VpcId"], &[]),
    row("AWS::ECR::Repository", &["EncryptionConfiguration", "RepositoryName"], &[]),
    row("AWS::ECS::Cluster", &["ClusterName"], &[]),
    row("AWS::ECS::Service", &["Cluster", "Role", "SchedulingStrategy", "ServiceName"], &["LaunchType"]),
    row(
        "AWS::ECS::TaskDefinition",
        &[
            "ContainerDefinitions",
            "Cpu",
            "EnableFaultInjection",
            "EphemeralStorage",
            "ExecutionRoleArn",
            "Family",
            "InferenceAccelerators",
            "IpcMode",
            "Memory",
            "NetworkMode",
            "PidMode",
            "PlacementConstraints",
            "ProxyConfiguration",
            "RequiresCompatibilities",
            "RuntimePlatform",
            "TaskRoleArn",
            "Volumes",
        ],
        &[],
    ),
    row("AWS::EFS::AccessPoint", &["ClientToken", "FileSystemId", "PosixUser", "RootDirectory"], &[]),
    row("AWS::EFS::FileSystem", &["AvailabilityZoneName", "Encrypted", "KmsKeyId", "PerformanceMode"], &[]),
    row("AWS::EFS::MountTarget", &["FileSystemId", "IpAddress", "IpAddressType", "Ipv6Address", "SubnetId"], &[]),
    row("AWS::Events::Rule", &["Name"], &["EventBusName"]),
    row("AWS::IAM::InstanceProfile", &["InstanceProfileName", "Path"], &[]),
    row("AWS::IAM::ManagedPolicy", &["Description", "ManagedPolicyName", "Path"], &[]),
    row("AWS::IAM::OIDCProvider", &["Url"], &[]),
    row("AWS::IAM::Role", &["Path", "RoleName"], &[]),
    row("AWS::Logs::LogGroup", &["LogGroupName"], &[]),
    row("AWS::Logs::MetricFilter", &["FilterName", "LogGroupName"], &[]),
    row("AWS::Logs::ResourcePolicy", &["PolicyName"], &[]),
    row("AWS::S3::Bucket", &["BucketName", "BucketNamePrefix", "BucketNamespace"], &[]),
    row("AWS::S3::BucketPolicy", &["Bucket"], &[]),
    row("AWS::SecretsManager::Secret", &["Name"], &[]),
    row("AWS::ServiceDiscovery::PrivateDnsNamespace", &["Name", "Vpc"], &[]),
    row("AWS::ServiceDiscovery::Service", &["HealthCheckCustomConfig", "Name", "NamespaceId", "Type"], &[]),
];

/// The row of a type; `None` for one that we do not render.
#[must_use]
pub fn create_only(kind: &str) -> Option<&'static CreateOnly> {
    TABLE.binary_search_by(|row| row.kind.cmp(kind)).ok().and_then(|at| TABLE.get(at))
}
