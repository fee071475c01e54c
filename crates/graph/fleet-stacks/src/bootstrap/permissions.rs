//! What the roles of `bootstrap` may do, and the most that any role of the fleet can.

use fleet_objects::directory;

use super::{Bootstrap, named, workflow_roles};
use crate::{
    iam::{Policy, Statement},
    settings::boundary_name,
};

/// Everything that some role of a fleet does; a test compares this with the roles that we render.
pub(super) fn boundary(settings: &Bootstrap) -> Policy {
    let fleet = &settings.fleet;
    Policy::of([
        Statement::allow("Files", &FILES, named(settings, "elasticfilesystem", &["file-system/*"])),
        Statement::allow("Bundles", &["s3:GetObject"], [settings.bucket_arn(&format!("{fleet}-*/bundles/*"))]),
        read_directory(settings),
        Statement::allow(
            "Manager",
            &["s3:GetObject", "s3:PutObject"],
            [settings.bucket_arn(&format!("{fleet}-*/manager/*"))],
        ),
        Statement::allow("ManagerWork", &["s3:ListBucket"], [settings.bucket_arn(&format!("{fleet}-*"))]),
        Statement::allow(
            "FleetSecret",
            &["secretsmanager:GetSecretValue"],
            named(settings, "secretsmanager", &["secret:{fleet}/*"]),
        ),
        Statement::allow("Models", &["bedrock:InvokeModel", "bedrock:InvokeModelWithResponseStream"], models(settings)),
        Statement::allow("Images", &PULL, named(settings, "ecr", &["repository/{fleet}/*"])),
        Statement::allow("Secrets", &["ssm:GetParameters"], named(settings, "ssm", &["parameter/{fleet}/*"])),
        Statement::allow("WriteLogs", &WRITE_LOGS, groups(settings)),
        Statement::allow(
            "Backups",
            &BACKUP,
            named(settings, "backup", &["backup-vault:{fleet}-*", "recovery-point:*"]),
        ),
        Statement::allow("Sessions", &["ssm:UpdateInstanceInformation"], named(settings, "ec2", &["instance/*"])),
        Statement::allow_without_resource(
            "LoginSessionsAndLogGroups",
            &[
                "ecr:GetAuthorizationToken",
                "logs:DescribeLogGroups",
                "ssmmessages:CreateControlChannel",
                "ssmmessages:CreateDataChannel",
                "ssmmessages:OpenControlChannel",
                "ssmmessages:OpenDataChannel",
            ],
        ),
    ])
}

const FILES: [&str; 5] = [
    "elasticfilesystem:Backup",
    "elasticfilesystem:ClientMount",
    "elasticfilesystem:ClientRootAccess",
    "elasticfilesystem:ClientWrite",
    "elasticfilesystem:DescribeTags",
];
const PULL: [&str; 3] = ["ecr:BatchCheckLayerAvailability", "ecr:BatchGetImage", "ecr:GetDownloadUrlForLayer"];
const WRITE_LOGS: [&str; 3] = ["logs:CreateLogStream", "logs:DescribeLogStreams", "logs:PutLogEvents"];
const BACKUP: [&str; 3] = ["backup:CopyIntoBackupVault", "backup:DescribeBackupVault", "backup:TagResource"];

fn models(settings: &Bootstrap) -> Vec<String> {
    let partition = crate::settings::partition(&settings.region);
    vec![
        format!("arn:{partition}:bedrock:*::foundation-model/*"),
        format!("arn:{partition}:bedrock:*:{}:inference-profile/*", settings.account),
    ]
}

fn groups(settings: &Bootstrap) -> Vec<crate::value::Text> {
    named(
        settings,
        "logs",
        &["log-group:/aws/events/{fleet}-*", "log-group:/ecs/{fleet}-*", "log-group:/fleet/{fleet}-*"],
    )
}

fn read_directory(settings: &Bootstrap) -> Statement {
    let object = settings.bucket_arn(&format!("{}-*/{}", settings.fleet, directory::OBJECT));
    Statement::allow("Directory", &["s3:GetObject"], [object])
}

/// Reads what a plan compares with. No secret, no bundle, no log.
pub(super) fn plan(settings: &Bootstrap) -> Policy {
    let state =
        [settings.bucket_arn(&settings.state_bucket()), settings.bucket_arn(&format!("{}/*", settings.state_bucket()))];
    let policy = Policy::of([
        Statement::allow("State", &["s3:GetObject", "s3:ListBucket"], state),
        read_directory(settings),
        // Of what is not there, S3 says so only to whom it lists the bucket; to others it says "forbidden".
        Statement::allow(
            "WhetherItIsThere",
            &["s3:ListBucket"],
            [settings.bucket_arn(&format!("{}-*", settings.fleet))],
        ),
        Statement::allow("Stacks", &READ_STACKS, named(settings, "cloudformation", &["stack/{fleet}-*"])),
        Statement::allow(
            "Images",
            &["ecr:BatchGetImage", "ecr:DescribeImages", "ecr:DescribeRepositories"],
            named(settings, "ecr", &["repository/{fleet}/*"]),
        ),
        Statement::allow(
            "Services",
            &["ecs:DescribeClusters", "ecs:DescribeServices", "ecs:DescribeTasks"],
            named(settings, "ecs", &["cluster/{fleet}-*", "service/{fleet}-*/*", "task/{fleet}-*/*"]),
        ),
        Statement::allow(
            "AccessPoints",
            &["elasticfilesystem:DescribeAccessPoints"],
            named(settings, "elasticfilesystem", &["access-point/*", "file-system/*"]),
        ),
        Statement::allow("Roles", &["iam:GetRole", "iam:GetRolePolicy"], [fleet_roles(settings)]),
        Statement::allow_without_resource(
            "Lists",
            &["ecr:GetAuthorizationToken", "ecs:DescribeTaskDefinition", "ecs:ListServices", "ecs:ListTaskDefinitions"],
        ),
    ])
    // That it is there, not what is in it.
    .also(Statement::allow(
        "FleetSecret",
        &["secretsmanager:DescribeSecret"],
        named(settings, "secretsmanager", &["secret:{fleet}/*"]),
    ))
    .also(Statement::allow_without_resource("QuotasAndWhatIsTaken", &VERIFY));
    looks(settings).into_iter().fold(policy, Policy::also)
}

/// What `bootstrap` made, and profiles of models: for `verify`.
fn looks(settings: &Bootstrap) -> [Statement; 3] {
    let roles = workflow_roles(&settings.fleet).map(|name| settings.iam(&format!("role/{name}")));
    let boundary = settings.iam(&format!("policy/{}", boundary_name(&settings.fleet)));
    [
        Statement::allow("WorkflowRoles", &["iam:GetRole"], roles),
        Statement::allow("Boundary", &["iam:GetPolicy"], [boundary]),
        Statement::allow("Profiles", &["bedrock:GetInferenceProfile"], models(settings)),
    ]
}

/// What `verify` asks of an account beside what a plan reads.
const VERIFY: [&str; 9] = [
    "bedrock:GetFoundationModelAvailability",
    "ec2:DescribeAddresses",
    "ec2:DescribeInternetGateways",
    "ec2:DescribeNetworkInterfaces",
    "ec2:DescribeVpcs",
    "iam:GetAccountSummary",
    "iam:ListRoles",
    "servicequotas:GetAWSDefaultServiceQuota",
    "servicequotas:GetServiceQuota",
];

const READ_STACKS: [&str; 4] = [
    "cloudformation:DescribeStackEvents",
    "cloudformation:DescribeStacks",
    "cloudformation:GetTemplate",
    "cloudformation:ListStackResources",
];

fn fleet_roles(settings: &Bootstrap) -> String {
    settings.iam(&format!("role/fleet/{}/*", settings.fleet))
}

/// Makes, changes and removes everything that is the fleet's. Roles only under the boundary.
pub(super) fn apply(settings: &Bootstrap) -> Policy {
    let mut statements = vec![
        Statement::allow("Stacks", &["cloudformation:*"], named(settings, "cloudformation", &["stack/{fleet}-*"])),
        Statement::allow("Buckets", &["s3:*"], {
            let name = &settings.fleet;
            [settings.bucket_arn(&format!("{name}-*")), settings.bucket_arn(&format!("{name}-*/*"))]
        }),
        Statement::allow("Images", &["ecr:*"], named(settings, "ecr", &["repository/{fleet}/*"])),
        Statement::allow(
            "Tasks",
            &["ecs:*"],
            named(
                settings,
                "ecs",
                &["cluster/{fleet}-*", "service/{fleet}-*/*", "task/{fleet}-*/*", "task-definition/{fleet}-*:*"],
            ),
        ),
        Statement::allow("Secrets", &["secretsmanager:*"], named(settings, "secretsmanager", &["secret:{fleet}/*"])),
        Statement::allow(
            "Parameters",
            &["ssm:*Parameter*", "ssm:*Tags*"],
            named(settings, "ssm", &["parameter/{fleet}/*"]),
        ),
        Statement::allow("Logs", &["logs:*"], groups(settings)),
        Statement::allow("Watching", &["cloudwatch:*"], named(settings, "cloudwatch", &["alarm:{fleet}-*"])),
        Statement::allow("Events", &["events:*"], named(settings, "events", &["rule/{fleet}-*"])),
        Statement::allow(
            "Vaults",
            &["backup:*"],
            named(settings, "backup", &["backup-vault:{fleet}-*", "backup-plan:*", "recovery-point:*"]),
        ),
        Statement::allow(
            "Files",
            &["elasticfilesystem:*"],
            named(settings, "elasticfilesystem", &["access-point/*", "file-system/*"]),
        ),
        Statement::allow("Network", &NETWORK, [settings.arn("ec2", "*/*")]),
        Statement::allow(
            "Names",
            &["servicediscovery:*"],
            named(settings, "servicediscovery", &["namespace/*", "service/*"]),
        ),
        Statement::allow(
            "Dashboards",
            &["cloudwatch:DeleteDashboards", "cloudwatch:GetDashboard", "cloudwatch:PutDashboard"],
            [format!(
                "arn:{}:cloudwatch::{}:dashboard/{}-*",
                crate::settings::partition(&settings.region),
                settings.account,
                settings.fleet
            )],
        ),
        Statement::allow_without_resource("ListsAndCreation", &WITHOUT_RESOURCE),
    ];
    statements.extend(roles(settings));
    statements.extend(looks(settings));
    Policy::of(statements)
}

/// The network is one region's; its resources have no names that a policy could go by before they exist.
const NETWORK: [&str; 22] = [
    "ec2:AllocateAddress",
    "ec2:Associate*",
    "ec2:Attach*",
    "ec2:Authorize*",
    "ec2:CreateFlowLogs",
    "ec2:CreateInternetGateway",
    "ec2:CreateNatGateway",
    "ec2:CreateRoute*",
    "ec2:CreateSecurityGroup",
    "ec2:CreateSubnet",
    "ec2:CreateTags",
    "ec2:CreateVpc*",
    "ec2:Delete*",
    "ec2:Detach*",
    "ec2:Disassociate*",
    "ec2:Modify*",
    "ec2:ReleaseAddress",
    "ec2:Replace*",
    "ec2:Revoke*",
    "ec2:RunInstances",
    "ec2:TerminateInstances",
    "ec2:UpdateSecurityGroup*",
];
/// Actions that the service authorization reference lists without a resource type.
const WITHOUT_RESOURCE: [&str; 28] = [
    "backup:CreateBackupPlan",
    "backup:ListBackupVaults",
    "bedrock:GetFoundationModelAvailability",
    "cloudformation:ListStacks",
    "ec2:Describe*",
    "ecr:GetAuthorizationToken",
    "ecs:CreateCluster",
    "ecs:DeregisterTaskDefinition",
    "ecs:DescribeTaskDefinition",
    "ecs:ListServices",
    "ecs:ListTaskDefinitionFamilies",
    "ecs:ListTaskDefinitions",
    "elasticfilesystem:CreateFileSystem",
    "iam:GetAccountSummary",
    "iam:ListRoles",
    "logs:DeleteResourcePolicy",
    "logs:DescribeLogGroups",
    "logs:DescribeResourcePolicies",
    "logs:PutResourcePolicy",
    "route53:ChangeResourceRecordSets",
    "route53:CreateHostedZone",
    "route53:DeleteHostedZone",
    "route53:GetHostedZone",
    "servicediscovery:CreatePrivateDnsNamespace",
    "servicediscovery:GetOperation",
    "servicediscovery:ListNamespaces",
    "servicequotas:GetAWSDefaultServiceQuota",
    "servicequotas:GetServiceQuota",
];

/// Making a role, or giving one more, needs the boundary on it. Nothing may change the boundary, or these two roles.
fn roles(settings: &Bootstrap) -> [Statement; 4] {
    let boundary = settings.iam(&format!("policy/{}", boundary_name(&settings.fleet)));
    let give = ["iam:AttachRolePolicy", "iam:CreateRole", "iam:PutRolePermissionsBoundary", "iam:PutRolePolicy"];
    let take = [
        "iam:AddRoleToInstanceProfile",
        "iam:CreateInstanceProfile",
        "iam:DeleteInstanceProfile",
        "iam:DeleteRole",
        "iam:DeleteRolePolicy",
        "iam:DetachRolePolicy",
        "iam:GetInstanceProfile",
        "iam:GetRole",
        "iam:GetRolePolicy",
        "iam:ListRolePolicies",
        "iam:RemoveRoleFromInstanceProfile",
        "iam:TagInstanceProfile",
        "iam:TagRole",
        "iam:UpdateAssumeRolePolicy",
        "iam:UpdateRole",
    ];
    let profiles = settings.iam(&format!("instance-profile/fleet/{}/*", settings.fleet));
    let services = ["backup", "ec2", "ecs-tasks", "vpc-flow-logs"].map(|name| format!("{name}.amazonaws.com"));
    let pass = Statement::allow("LendRoles", &["iam:PassRole"], [fleet_roles(settings)]);
    let pass =
        services.into_iter().fold(pass, |pass, service| pass.when("StringEquals", "iam:PassedToService", service));
    [
        Statement::allow("BoundedRoles", &give, [fleet_roles(settings)]).when(
            "StringEquals",
            "iam:PermissionsBoundary",
            boundary,
        ),
        Statement::allow("OwnRoles", &take, [fleet_roles(settings), profiles]),
        pass,
        Statement::allow(
            "RolesOfServices",
            &["iam:CreateServiceLinkedRole"],
            [settings.iam("role/aws-service-role/*")],
        ),
    ]
}
