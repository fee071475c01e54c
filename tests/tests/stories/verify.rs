//! Whether an apply would work, asked before it is begun: the program, an emulated account, the container engine.

use fleet_tests::{
    cloud::{Cloud, declare},
    fleet::Fleet,
    run::Running,
};
use serde_json::{Value, json};

fn findings(cloud: &Cloud, exit: i32) -> Value {
    cloud.run(&["verify", "--format", "json"]).expect(exit).json()["findings"].clone()
}

fn of<'f>(findings: &'f Value, what: &str) -> &'f Value {
    let all = findings.as_array().expect("findings");
    all.iter().find(|finding| finding["what"] == what).unwrap_or_else(|| panic!("{what} is not in {findings:#}"))
}

#[test]
fn an_account_where_everything_fits_is_told_line_by_line_and_nothing_is_written() {
    let cloud = Cloud::new("fits");
    let verified = cloud.run(&["verify", "--events", "events"]);
    verified
        .expect(0)
        .says("account 111122223333, as fleet.kdl has it; arn:aws:iam::111122223333:")
        .says("boundary of roles")
        .says("is made with stack/cloud-data")
        .says("5 there, 0 taken by others; needs 1")
        .says("is for linux/")
        .says("cloud: 22 as needed");
    assert!(!verified.stdout.contains("to do:"), "{}", verified.stdout);
    assert_eq!(cloud.writes(), Vec::<String>::new());
    assert!(
        cloud.count("servicequotas GetAWSDefaultServiceQuota") > 5,
        "nobody asked for more than AWS gives everybody"
    );

    // What it made itself is not in its own way. The VPC that every account begins with, and its gateway, are others'.
    cloud.apply().expect(3);
    let own = [("L-0263D0A3", 1), ("L-F678F1CE", 2), ("L-A4707A72", 2)];
    cloud.runtime.block_on(cloud.emulator().has_quotas(&own)).expect("quotas");
    let found = findings(&cloud, 0);
    for what in ["elastic IPs", "VPCs", "internet gateways"] {
        assert_eq!(of(&found, what)["verdict"], "ok", "{found:#}");
    }
    assert_eq!(of(&found, "fleet secret")["found"], "is there, with its field `secret`");
    assert_eq!(of(&found, "roles of agents")["found"], "3 are there and tasks can act as them, 0 are to be made");
}

#[test]
fn a_quota_that_is_too_small_is_named_with_what_to_ask_aws_for() {
    let cloud = Cloud::new("too-small");
    let small = [("L-0263D0A3", 0), ("L-3032A538", 1)];
    cloud.runtime.block_on(cloud.emulator().has_quotas(&small)).expect("quotas");
    cloud
        .run(&["verify"])
        .expect(1)
        .says("FAILED")
        .says("to do:")
        .says("elastic IPs: ask AWS for 1 of \"EC2-VPC Elastic IPs\" (L-0263D0A3) in Service Quotas")
        .says("--service-code ec2 --quota-code L-0263D0A3 --desired-value 1 --region us-east-1")
        .says("\"Fargate On-Demand vCPU resource count\" (L-3032A538)")
        .says("2 would make `apply` fail");
}

#[test]
fn an_account_that_nobody_prepared_is_told_who_prepares_it() {
    let cloud = Cloud::empty("unprepared");
    let found = findings(&cloud, 1);
    assert_eq!(of(&found, "boundary of roles")["verdict"], "failed");
    assert!(of(&found, "boundary of roles")["remedy"].to_string().contains("fleetctl bootstrap"));
    let role = format!("role {}-apply", cloud.fleet.name);
    assert_eq!(of(&found, &role)["verdict"], "warning", "who deploys from a machine needs none");
}

#[test]
fn a_fleet_secret_that_lost_its_field_is_named_without_its_value() {
    let cloud = Cloud::new("field");
    cloud.apply().expect(3);
    let name = format!("{}/cloud/fleet-secret", cloud.fleet.name);
    let value = json!({"value": "correct horse battery staple"}).to_string();
    cloud.ask("secretsmanager", "secretsmanager.PutSecretValue", &json!({"SecretId": name, "SecretString": value}));
    let verified = cloud.run(&["verify"]);
    verified.expect(1).says("has no field `secret`; its fields: value").says("{\"secret\": …}");
    assert!(!verified.stdout.contains("horse") && !verified.stderr.contains("horse"), "{verified:?}");

    let gone = json!({"SecretId": name, "ForceDeleteWithoutRecovery": true});
    cloud.ask("secretsmanager", "secretsmanager.DeleteSecret", &gone);
    cloud.run(&["verify"]).expect(1).says("is gone, and stack/cloud-data stands");
}

#[test]
fn what_may_not_be_looked_at_is_told_and_the_rest_is_looked_at() {
    use fleet_aws::emulator::Fault::Deny;
    let cloud = Cloud::new("denied");
    let denied = [("ec2 DescribeAddresses", Deny), ("iam GetPolicy", Deny), ("secretsmanager DescribeSecret", Deny)];
    cloud.runtime.block_on(cloud.emulator().answer_badly(&denied)).expect("faults");
    let found = findings(&cloud, 0);
    for what in ["boundary of roles", "fleet secret"] {
        let finding = of(&found, what);
        assert_eq!(finding["verdict"], "unseen", "{finding}");
        assert!(finding["found"].to_string().contains("is not allowed"), "{finding}");
    }
    let half = of(&found, "elastic IPs")["found"].to_string();
    assert!(
        half.contains("5 there, what others take could not be looked at: DescribeAddresses is not allowed"),
        "{half}"
    );
    assert_eq!(of(&found, "VPCs")["verdict"], "ok");
}

#[test]
fn models_of_bedrock_are_asked_for_and_never_invoked() {
    let cloud = Cloud::new("models");
    let provider = "models {\n    provider \"amazon-bedrock\" kind=\"bedrock\" region=\"eu-west-1\"\n";
    cloud.fleet.edit("fleet.kdl", "models {\n", provider);
    let model = |id: &str| format!("model \"amazon-bedrock/{id}\"");
    cloud.fleet.edit("fleet.kdl", "model \"local/small\"", &model("us.anthropic.claude-3-haiku-20240307-v1:0"));
    let found = findings(&cloud, 0);
    let finding = of(&found, "model us.anthropic.claude-3-haiku-20240307-v1:0 in eu-west-1");
    assert_eq!(finding["verdict"], "warning", "its maker's agreement is not accepted");
    assert!(finding["remedy"].to_string().contains("model catalog of Amazon Bedrock"), "{finding}");

    cloud.fleet.edit("fleet.kdl", "us.anthropic.claude-3-haiku-20240307-v1:0", "nobody.nothing-v1:0");
    cloud.run(&["verify"]).expect(1).says("model nobody.nothing-v1:0 in eu-west-1").says("there is none");
    assert!(cloud.asked().iter().all(|asked| !asked.contains("/invoke")), "{:?}", cloud.asked());
}

#[test]
fn credentials_of_another_account_are_named_and_nothing_else_is_asked() {
    let cloud = Cloud::empty("another");
    let fleet = Fleet::of_files("another-account");
    declare(&fleet, "", "registry \"127.0.0.1:1\"");
    let mut command = fleet.command(&["verify", "-e", "cloud"]);
    command.env("AWS_ENDPOINT_URL", cloud.emulator().endpoint()).env("AWS_EC2_METADATA_DISABLED", "true");
    command.env("AWS_ACCESS_KEY_ID", "999988887777").env("AWS_SECRET_ACCESS_KEY", "anything");
    let refused = fleet.finish(Running::start(&mut command));
    refused
        .expect(77)
        .says("the credentials are of account 999988887777")
        .says("environment is in account 111122223333");
    assert_eq!(cloud.asked(), ["sts GetCallerIdentity"]);
}

#[test]
fn an_environment_on_this_machine_is_told_what_it_runs_on() {
    let fleet = Fleet::of_files("here");
    fleet
        .run(&["verify"])
        .expect(0)
        .says("container engine")
        .says("image/agent")
        .says("memory")
        .says("model provider local")
        .says("nothing answers at");
    let mut command = fleet.command(&["verify"]);
    command.env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    fleet.finish(Running::start(&mut command)).expect(69).says("no container engine answers");
}
