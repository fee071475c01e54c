//! Whatever happens to an apply on AWS on its way, the next one ends where it would have: killed at any call, answered badly,
//! out of credentials.

use std::{collections::BTreeMap, fs};

use crate::proxy::{Moment, Proxy};
use fleet_aws::emulator::Fault;
use fleet_tests::{cloud::Cloud, run::Running};
use serde_json::{Value, json};

/// Applies that are killed, each some calls later than the one before.
const KILLS: usize = 20;
/// Calls between one death and the next: all of them cover a whole apply.
const STEP: usize = 3;

/// How many of each kind the account holds.
fn held(cloud: &Cloud) -> BTreeMap<&'static str, usize> {
    let count = |service: &str, target: &str, body: Value, list: &str| {
        cloud.ask(service, target, &body)[list].as_array().unwrap_or_else(|| panic!("{target}: no {list}")).len()
    };
    let cluster = format!("{}-cloud", cloud.fleet.name);
    BTreeMap::from([
        (
            "services",
            count("ecs", "AmazonEC2ContainerServiceV20141113.ListServices", json!({"cluster": cluster}), "serviceArns"),
        ),
        (
            "tasks",
            count(
                "ecs",
                "AmazonEC2ContainerServiceV20141113.ListTasks",
                json!({"cluster": cluster, "desiredStatus": "RUNNING"}),
                "taskArns",
            ),
        ),
        (
            "repositories",
            count("ecr", "AmazonEC2ContainerRegistry_V20150921.DescribeRepositories", json!({}), "repositories"),
        ),
        ("parameters", count("ssm", "AmazonSSM.DescribeParameters", json!({}), "Parameters")),
        ("secrets", count("secretsmanager", "secretsmanager.ListSecrets", json!({}), "SecretList")),
    ])
}

/// Numbers of the recorded generations, the newest first.
fn generations(cloud: &Cloud) -> Vec<u64> {
    let history = cloud.run(&["history", "--format", "json"]).expect(0).json();
    let generations = history["generations"].as_array().expect("generations").iter();
    generations.map(|generation| generation["number"].as_u64().expect("a number")).collect()
}

#[test]
fn an_apply_killed_at_any_of_twenty_calls_is_finished_by_the_next() {
    let whole = Cloud::new("not-killed");
    whole.apply().expect(3);
    let expected = held(&whole);
    drop(whole);

    let cloud = Cloud::new("killed-calls");
    let address = cloud.emulator().endpoint().trim_start_matches("http://").to_owned();
    let proxy = Proxy::to(&address);
    let text = fs::read_to_string(cloud.fleet.path("fleet.kdl")).expect("fleet.kdl");
    fs::write(cloud.fleet.path("fleet.kdl"), text.replace(&address, &proxy.host)).expect("fleet.kdl");
    let mut killed = 0;
    for nth in 1..=KILLS {
        let running = Running::start(&mut cloud.fleet.command(&["apply", "--auto-approve", "-e", "cloud"]));
        // The call is never made, or made and its answer never seen.
        let moment = if nth % 2 == 0 { Moment::Before } else { Moment::After };
        proxy.kills(running.id(), nth * STEP, moment);
        let output = cloud.fleet.finish(running);
        proxy.spares();
        killed += usize::from(output.code.is_none());
    }
    assert!(killed >= KILLS - 2, "{killed} of {KILLS} were killed at work");
    cloud.apply().expect(3);
    assert_eq!(held(&cloud), expected);
    let recorded = generations(&cloud);
    cloud.apply().expect(3).says("0 changed");
    assert_eq!(generations(&cloud), recorded, "nothing new is recorded");
    assert!(recorded.windows(2).all(|pair| pair[0] != pair[1]), "{recorded:?}");
}

#[test]
fn throttling_errors_of_services_and_lost_answers_cost_time_and_nothing_else() {
    let cloud = Cloud::new("bad-answers");
    cloud.answer_badly(&[
        ("cloudformation CreateChangeSet", Fault::Lose),
        ("cloudformation ExecuteChangeSet", Fault::Fail),
        ("ecr GetAuthorizationToken", Fault::Throttle),
        ("ssm PutParameter", Fault::Lose),
        ("ecs RegisterTaskDefinition", Fault::Throttle),
        ("ecs CreateService", Fault::Lose),
        ("POST /2015-02-01/access-points", Fault::Lose),
        ("ecs DescribeServices", Fault::Fail),
    ]);
    cloud.apply().expect(3);
    assert_eq!(cloud.count("ecs CreateService"), 4, "of three agents; what was lost was asked again");
    let held = held(&cloud);
    // Three agents, the homeserver and whatever else the stack runs.
    let clean = Cloud::new("good-answers");
    clean.apply().expect(3);
    assert_eq!(held, self::held(&clean));
    cloud.apply().expect(3).says("0 changed");
}

#[test]
fn credentials_that_run_out_end_an_apply_with_what_to_do_and_the_next_one_goes_on() {
    let cloud = Cloud::new("expired");
    cloud.answer_badly(&[("ecs CreateService", Fault::Expire)]);
    let ended = cloud.apply();
    ended.says("AWS does not accept the credentials: The security token included in the request is expired");
    ended.says("sign in again, then run the same command");
    assert_ne!(ended.code, Some(3), "it is not said that all went well");
    cloud.apply().expect(3);
    cloud.apply().expect(3).says("0 changed");

    cloud.answer_badly(&[("sts GetCallerIdentity", Fault::Expire)]);
    cloud.run(&["plan"]).expect(77).says("sign in again");
}

#[test]
fn a_wrong_clock_is_named_as_such() {
    let cloud = Cloud::new("clock");
    cloud.answer_badly(&[("sts GetCallerIdentity", Fault::Skew)]);
    let refused = cloud.apply();
    refused.expect(77).says("the clock of this machine is wrong: Signature expired").says("set it, then run the same");
    assert_eq!(cloud.count("cloudformation CreateChangeSet"), 0);
}

#[test]
fn two_environments_of_an_account_do_not_touch_each_other() {
    let cloud = Cloud::new("neighbours");
    let text = fs::read_to_string(cloud.fleet.path("fleet.kdl")).expect("fleet.kdl");
    let own = &text[text.find("\nenvironment \"cloud\"").expect("it is declared")..];
    let other = own.replace("environment \"cloud\"", "environment \"stage\"").replace("10.0.0.0/16", "10.9.0.0/16");
    fs::write(cloud.fleet.path("fleet.kdl"), format!("{text}{other}")).expect("fleet.kdl");
    let stage = |arguments: &[&str]| cloud.fleet.run(&[arguments, &["-e", "stage"]].concat());

    cloud.apply().expect(3);
    stage(&["apply", "--auto-approve"]).expect(3);
    cloud.apply().expect(3).says("0 changed");
    stage(&["apply", "--auto-approve"]).expect(3).says("0 changed");

    stage(&["destroy", "--purge", "--auto-approve"]).expect(0).says("stays: stack/shared");
    cloud.apply().expect(3).says("0 changed");
    cloud.run(&["status"]).expect(0).says("healthy");
}
