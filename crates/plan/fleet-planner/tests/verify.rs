//! What facts of an account mean for an environment.

use std::collections::{BTreeMap, BTreeSet};

use fleet_model::model::{HomeserverKind, Size};
use fleet_plan::verify::{Access, Facts, Finding, SecretState, Unseen, Verdict};
use fleet_planner::verify::{Needs, verify};
use fleet_stacks::{Homeserver, Settings, agent::BedrockModel, environment, quota::Quota};

fn template() -> String {
    let settings = Settings {
        fleet: "anycompany".to_owned(),
        environment: "dev".to_owned(),
        domain: "anycompany.corp".to_owned(),
        account: "111122223333".to_owned(),
        region: "eu-west-1".to_owned(),
        images: ["agent".to_owned()].into(),
        cidr: "10.0.0.0/16".parse().unwrap(),
        zones: 2,
        nat_gateways: 2,
        agents: 9,
        arm: false,
        homeserver: Homeserver {
            image: "agent".to_owned(),
            kind: HomeserverKind::Conduit,
            size: Size { cpu: 1024, memory_mib: 2048 },
        },
        web: None,
        manager: None,
        agents_get_fleet_secret: false,
        log_days: 7,
        backup_days: None,
    };
    environment(&settings).unwrap().body
}

/// An account where everything is right and nothing is taken.
fn account() -> Facts {
    Facts {
        limits: Quota::ALL.into_iter().map(|quota| (quota, Ok(1000))).collect(),
        used: Quota::ALL.into_iter().map(|quota| (quota, Ok(0))).collect(),
        models: BTreeMap::new(),
        boundary: Ok(true),
        workflow_roles: BTreeMap::new(),
        trusts: Ok(BTreeMap::new()),
        secret: Ok(SecretState::Absent),
        parameters: Ok(BTreeMap::new()),
        deployed: Ok(BTreeMap::new()),
        agents: Ok(BTreeSet::new()),
    }
}

fn found(facts: &Facts) -> Vec<Finding> {
    let template = template();
    let arm = ["linux/arm64".to_owned()];
    let needs = Needs {
        environment: "dev",
        region: "eu-west-1",
        templates: BTreeMap::from([("dev", template.as_str())]),
        agents: BTreeMap::new(),
        platform: "linux/arm64",
        images: BTreeMap::from([("agent", &arm[..])]),
        given: BTreeSet::new(),
    };
    verify(&needs, facts)
}

fn of<'f>(found: &'f [Finding], what: &str) -> &'f Finding {
    found.iter().find(|finding| finding.what == what).unwrap()
}

#[test]
fn an_account_where_everything_fits_has_nothing_to_mend() {
    let found = found(&account());
    assert!(found.iter().all(|finding| finding.verdict == Verdict::Ok && finding.remedy.is_none()), "{found:#?}");
}

#[test]
fn what_others_took_is_not_there_any_more_and_the_remedy_names_what_to_ask_for() {
    let mut facts = account();
    facts.limits.insert(Quota::ElasticIps, Ok(5));
    facts.used.insert(Quota::ElasticIps, Ok(3));
    assert_eq!(of(&found(&facts), "elastic IPs").verdict, Verdict::Ok);
    facts.used.insert(Quota::ElasticIps, Ok(4));
    let found = found(&facts);
    let short = of(&found, "elastic IPs");
    assert_eq!((short.verdict, short.needed.as_deref()), (Verdict::Failed, Some("2")));
    assert_eq!(short.found, "5 there, 4 taken by others");
    let remedy = short.remedy.as_ref().unwrap();
    assert!(remedy.starts_with("ask AWS for 6 of \"EC2-VPC Elastic IPs\" (L-0263D0A3)"), "{remedy}");
    assert!(
        remedy.contains("--service-code ec2 --quota-code L-0263D0A3 --desired-value 6 --region eu-west-1"),
        "{remedy}"
    );
}

#[test]
fn what_an_environment_took_itself_is_there_for_it() {
    let mut facts = account();
    facts.limits.insert(Quota::ElasticIps, Ok(2));
    facts.used.insert(Quota::ElasticIps, Ok(2));
    assert_eq!(of(&found(&facts), "elastic IPs").verdict, Verdict::Failed);
    facts.deployed = Ok(BTreeMap::from([("dev".to_owned(), template())]));
    assert_eq!(of(&found(&facts), "elastic IPs").verdict, Verdict::Ok);
}

#[test]
fn what_could_not_be_looked_at_is_told_and_is_no_failure() {
    let denied = || Unseen { why: "GetServiceQuota is not allowed".to_owned() };
    let mut facts = account();
    facts.boundary = Err(denied());
    facts.trusts = Err(denied());
    facts.secret = Err(denied());
    facts.limits.insert(Quota::Vpcs, Err(denied()));
    facts.used.insert(Quota::ElasticIps, Err(denied()));
    let found = found(&facts);
    for what in ["boundary of roles", "roles of agents", "fleet secret", "VPCs"] {
        let finding = of(&found, what);
        assert_eq!((finding.verdict, finding.found.contains("is not allowed")), (Verdict::Unseen, true), "{finding:?}");
    }
    let half = of(&found, "elastic IPs");
    assert_eq!(half.verdict, Verdict::Ok);
    assert!(half.found.contains("what others take could not be looked at"), "{half:?}");
}

#[test]
fn a_secret_that_no_stack_made_or_that_lost_its_field_is_found_before_apply_meets_it() {
    let verdict = |secret, stands: bool| {
        let deployed = Ok(stands.then(|| ("dev-data".to_owned(), String::new())).into_iter().collect());
        of(&found(&Facts { secret: Ok(secret), deployed, ..account() }), "fleet secret").clone()
    };
    let stands_for = |secret| verdict(secret, true).verdict;
    assert_eq!(stands_for(SecretState::Right), Verdict::Ok);
    for wrong in [SecretState::Absent, SecretState::Leaving, SecretState::Shapeless, SecretState::TooShort] {
        assert_eq!(stands_for(wrong), Verdict::Failed);
    }
    let renamed = verdict(SecretState::NoField(vec!["value".to_owned()]), true);
    assert_eq!(renamed.found, "has no field `secret`; its fields: value");
    let closed = verdict(SecretState::Closed("no".to_owned()), true);
    assert_eq!(closed.verdict, Verdict::Unseen);
    assert_eq!(verdict(SecretState::Absent, false).verdict, Verdict::Ok);
    let left = verdict(SecretState::Right, false);
    assert_eq!(left.verdict, Verdict::Failed);
    assert!(left.found.contains("stack/dev-data, which makes it, is not"), "{left:?}");
}

#[test]
fn a_model_that_cannot_be_asked_fails_and_so_does_an_image_for_another_platform() {
    let model = BedrockModel { region: "us-east-1".to_owned(), id: "m.large-v1:0".to_owned() };
    let refused = Access::Refused("authorizationStatus is NOT_AUTHORIZED".to_owned());
    let facts = Facts { models: BTreeMap::from([(model, Ok(refused))]), ..account() };
    let found = found(&facts);
    let finding = of(&found, "model m.large-v1:0 in us-east-1");
    assert_eq!(finding.verdict, Verdict::Failed);
    let arm = ["linux/arm64".to_owned()];
    let template = template();
    let needs = Needs {
        environment: "dev",
        region: "eu-west-1",
        templates: BTreeMap::from([("dev", template.as_str())]),
        agents: BTreeMap::new(),
        platform: "linux/amd64",
        images: BTreeMap::from([("agent", &arm[..])]),
        given: BTreeSet::new(),
    };
    let found = verify(&needs, &facts);
    let image = of(&found, "image/agent");
    assert_eq!((image.verdict, image.needed.as_deref()), (Verdict::Failed, Some("linux/amd64")));
}
