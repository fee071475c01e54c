//! Environments on AWS, from the command line to an emulated account: the program that people run, real templates, real
//! images in a real repository. What runs in tasks is shown in `waves` only.

mod waves;

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fleet_sim::free_port;
use fleet_tests::{
    cloud::{Cloud, declare},
    engine,
    fleet::{Fleet, work},
    run::{self, Running, eventually},
    sources::workspace,
};

fn is_read(action: &str) -> bool {
    let verb = action.split(' ').nth(1).unwrap_or_default();
    action.starts_with("GET /")
        || action.starts_with("HEAD /")
        || ["Describe", "Get", "List", "BatchGet"].iter().any(|read| verb.starts_with(read))
}

#[test]
fn an_environment_on_aws_comes_from_nothing_and_the_second_apply_only_reads() {
    let cloud = Cloud::new("cloud");
    let plan = cloud.run(&["plan"]);
    plan.expect(0)
        .says("stack/cloud-data")
        .says("not there yet")
        .says("this version does not make on aws:")
        .says("of account/…")
        .says("agent/");

    let applied = cloud.apply();
    applied.expect(3).says("this version does not make on aws:").says("of account/…").says("docs/reference/aws.md");
    assert_eq!(cloud.count("cloudformation ExecuteChangeSet"), 3, "a stack each");
    let tagged = |asked: &String| asked.starts_with("PUT /v2/") && asked.contains("/manifests/d-");
    assert_eq!(
        cloud.asked().iter().filter(|asked| tagged(asked)).count(),
        3,
        "images of agents and homeserver, and what they stand on"
    );
    assert_eq!(cloud.count("ssm PutParameter"), 6, "what the homeserver reads, and a password each");
    for action in ["ecs RegisterTaskDefinition", "ecs CreateService", "POST /2015-02-01/access-points"] {
        // Two of them are the homeserver's, by its stack.
        assert_eq!(cloud.count(action), 3, "{action}");
    }
    assert!(cloud.writes().iter().any(|call| call.ends_with("CreateChangeSet")), "{:?}", cloud.writes());

    let before = cloud.asked().len();
    cloud.apply().expect(3).says("0 changed, 10 were right");
    let asked = cloud.asked().split_off(before);
    let writes: Vec<&String> = asked.iter().filter(|asked| !is_read(asked)).collect();
    assert!(asked.len() > 5 && writes.is_empty(), "{writes:?} of {asked:?}");
    assert!(cloud.writes().is_empty(), "our own count says the same");

    cloud
        .run(&["status"])
        .expect(0)
        .says("stack/cloud")
        .says("present")
        .says("directory/people")
        .says("0 of 4")
        .says("healthy");

    // A setting that changes resources in place.
    cloud.fleet.edit("fleet.kdl", "logs retention=\"7d\"", "logs retention=\"14d\"");
    cloud.run(&["plan"]).expect(0).says("logs.retention: 7d → 14d").says("resources are changed in place");
    cloud.apply().expect(3).says("1 changed");
    assert_eq!(cloud.count("cloudformation ExecuteChangeSet"), 4);

    // One that replaces nearly all of them is shown as such.
    cloud.fleet.edit("fleet.kdl", "cidr=\"10.0.0.0/16\"", "cidr=\"10.1.0.0/16\"");
    let plan = cloud.run(&["plan", "--format", "json"]).expect(0).json();
    let changes = plan["changes"].as_array().expect("changes").clone();
    let stack = changes.iter().find(|change| change["address"] == "stack/cloud").expect("the stack");
    let resources = stack["resources"].as_array().expect("resources");
    let vpc = resources.iter().find(|resource| resource["id"] == "Vpc").expect("the VPC");
    assert_eq!((vpc["action"].as_str(), vpc["replacement"].as_str()), (Some("modify"), Some("always")));
    cloud.run(&["plan"]).expect(0).says("1 AWS::EC2::VPC is replaced").says("of AWS::EC2::Subnet, each is replaced");
    cloud.run(&["diff"]).expect(0).says("AWS::EC2::Subnet PrivateSubnetA is replaced");
}

#[test]
fn a_changed_agent_is_rolled_and_a_removed_one_keeps_its_memory() {
    let cloud = Cloud::new("agents");
    cloud.apply().expect(3);
    let before = cloud.asked().len();
    cloud.fleet.edit("fleet.kdl", "\"dora.director\" \"sam.seller\"", "\"dora.director\"");
    cloud.run(&["plan"]).expect(0).says("agent/sam.seller").says("delete").says("directory/people");
    cloud.apply().expect(3).says("2 changed");
    let asked = cloud.asked().split_off(before);
    let count = |action: &str| asked.iter().filter(|asked| *asked == action).count();
    assert_eq!((count("ecs DeleteService"), count("ecs CreateService")), (1, 0), "{asked:?}");
    cloud.run(&["plan"]).expect(0).says("its memory is kept, in access point");

    // What only the former generation needs goes, and is shown before; what stands does not change by that.
    let gc = |more: &[&str]| cloud.run(&[&["gc", "--keep", "1"], more].concat());
    gc(&[]).expect(64).says("- generations      1").says("-cloud-sam_seller-").says("add --auto-approve");
    gc(&["--auto-approve"]).expect(0).says("generations removed: 1, task definitions: 1, templates: 0");
    assert_eq!(cloud.count("ecs DeregisterTaskDefinition"), 1);
    let history = cloud.run(&["history", "--format", "json"]).expect(0).json();
    assert_eq!(history["generations"].as_array().map(Vec::len), Some(1), "{history}");
    cloud.apply().expect(3).says("0 changed");
    let before = cloud.asked().len();
    gc(&["--auto-approve"]).expect(0).says("generations removed: 0, task definitions: 0");
    let asked = cloud.asked().split_off(before);
    assert!(asked.iter().all(|asked| is_read(asked)), "{asked:?}");
    cloud.fleet.run(&["gc", "-e", "local"]).expect(64).says("is not on aws");
}

#[test]
fn an_environment_is_removed_made_again_and_purged() {
    let cloud = Cloud::new("removed");
    cloud.run(&["destroy", "--auto-approve"]).expect(0).says("cloud: nothing is there");
    cloud.apply().expect(3);
    cloud.run(&["destroy"]).expect(64).says("- agent").says("sam.seller").says("add --auto-approve");
    let removed = cloud.run(&["destroy", "--auto-approve"]);
    removed
        .expect(0)
        .says("- bucket")
        .says("cloud: agents removed: 3, stacks: stack/cloud\n")
        .says("stays: stack/cloud-data with file system fs-")
        .says("(memory of 3 agents, rooms)")
        .says("stays: stack/shared with 3 repositories of images")
        .says("task definitions");
    assert_eq!(cloud.count("cloudformation DeleteStack"), 1);
    let again = cloud.run(&["destroy", "--auto-approve", "--format", "json"]).expect(0).json();
    assert_eq!((again["schema"].as_u64(), again["removed"].as_array().map(Vec::len)), (Some(1), Some(0)), "{again}");
    assert!(again["stays"][0]["what"].as_str().is_some_and(|what| what.starts_with("stack/cloud-data")), "{again}");

    // What was kept is found again: only what went is made.
    let (folders, stacks) =
        (cloud.count("POST /2015-02-01/access-points"), cloud.count("cloudformation ExecuteChangeSet"));
    cloud.apply().expect(3);
    assert_eq!(cloud.count("cloudformation ExecuteChangeSet") - stacks, 1);
    assert_eq!(cloud.count("POST /2015-02-01/access-points"), folders, "agents have their folders again");
    cloud.apply().expect(3).says("0 changed");

    let purged = cloud.run(&["destroy", "--purge", "--auto-approve", "--format", "json"]).expect(0).json();
    let list = |field: &str, key: &str| -> Vec<String> {
        let all = purged[field].as_array().expect("a list").iter();
        all.map(|one| one[key].as_str().unwrap_or_default().to_owned()).collect()
    };
    let kinds = list("removed", "kind");
    let expected = [
        "agent agent agent stack bucket parameters task-definitions file-system vault secret stack",
        "repository repository repository stack",
    ];
    assert_eq!(kinds.join(" "), expected.join(" "), "{purged}");
    assert_eq!(list("stays", "what"), ["stack/bootstrap"]);
    cloud.run(&["destroy", "--purge", "--auto-approve"]).expect(0).says("cloud: nothing is there");
    // From nothing, as the first time.
    cloud.apply().expect(3);
}

#[test]
fn logs_are_those_of_all_tasks_and_go_on_until_ctrl_c() {
    let cloud = Cloud::new("logs");
    cloud.run(&["logs", "agent/sam.seller"]).expect(1).says("there is no log of agent/sam.seller");
    cloud.apply().expect(3);
    let (group, stream) = (format!("/ecs/{}-cloud/agent", cloud.fleet.name), "sam.seller/agent/1");
    cloud.log("CreateLogStream", &serde_json::json!({"logGroupName": group, "logStreamName": stream}));
    let put = |text: &str| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a time").as_millis();
        let now = u64::try_from(now).expect("a time of this century");
        let events = serde_json::json!([{"timestamp": now, "message": text}]);
        cloud.log(
            "PutLogEvents",
            &serde_json::json!({"logGroupName": group, "logStreamName": stream, "logEvents": events}),
        );
    };
    put("one");
    put("two");
    assert_eq!(cloud.run(&["logs", "agent/sam.seller"]).expect(0).stdout, "one\ntwo\n");
    assert_eq!(cloud.run(&["logs", "agent/sam.seller", "--tail", "1"]).expect(0).stdout, "two\n");
    cloud.run(&["logs", "service/homeserver"]).expect(1).says("there is no log of service/homeserver");

    let mut command = cloud.fleet.command(&["logs", "agent/sam.seller", "-f", "-e", "cloud"]);
    let follows = Running::start(&mut command);
    let asked = |times: usize| {
        eventually("it asks for more", Duration::from_secs(30), || cloud.count("logs FilterLogEvents") >= times);
    };
    asked(1);
    put("three");
    asked(3);
    follows.signal("INT");
    let followed = cloud.fleet.finish(follows);
    assert_eq!(followed.expect(130).stdout, "one\ntwo\nthree\n");
}

#[test]
fn a_removal_that_was_broken_off_or_killed_is_finished_by_the_next_one() {
    let cloud = Cloud::new("cut-removal");
    cloud.apply().expect(3);
    // Asked to stop it stops between two calls, and lets others work.
    let mut command = cloud.fleet.command(&["destroy", "--auto-approve", "-e", "cloud"]);
    let removes = Running::start(&mut command);
    let leases = || cloud.asked().iter().filter(|asked| asked.starts_with("PUT /") && asked.contains("lease")).count();
    let (before, stopped) = (leases(), cloud.count("ecs UpdateService"));
    eventually("it removes", Duration::from_secs(60), || cloud.count("ecs UpdateService") > stopped);
    removes.signal("INT");
    let removes = cloud.fleet.finish(removes);
    removes.expect(130).says("stopping; again to stop at once").says("error: destroy was broken off").says("goes on");
    assert!(leases() - before >= 2, "taken, and given back: {:?}", cloud.asked());
    for pause in [100, 200, 300, 400, 500, 700] {
        let mut command = cloud.fleet.command(&["destroy", "--purge", "--auto-approve", "-e", "cloud"]);
        let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        thread::sleep(Duration::from_millis(pause));
        running.kill().expect("it is killed, or over");
        running.wait().expect("it ended");
    }
    cloud.run(&["destroy", "--purge", "--auto-approve"]).expect(0);
    cloud.run(&["destroy", "--purge", "--auto-approve"]).expect(0).says("cloud: nothing is there");
    cloud.apply().expect(3);
}

#[test]
fn a_new_image_changes_the_stack_that_runs_it() {
    let cloud = Cloud::new("new-image");
    cloud.apply().expect(3);
    fs::write(cloud.fleet.path("images/app/deep/words.txt"), "other words\n").expect("a file");
    // What it will be is known only once it was pushed.
    cloud
        .run(&["plan"])
        .expect(0)
        .says("image/homeserver")
        .says("stack/cloud")
        .says("AWS::ECS::TaskDefinition HomeserverTask is replaced");
    let before = cloud.asked().len();
    cloud.apply().expect(3);
    let asked = cloud.asked().split_off(before);
    let executed = asked.iter().filter(|asked| *asked == "cloudformation ExecuteChangeSet").count();
    assert_eq!(executed, 1, "only the one that runs it: {asked:?}");
    cloud.run(&["why", "stack/cloud"]).expect(0).says("words.txt");
}

#[test]
fn what_holds_data_is_not_replaced_without_leave() {
    let cloud = Cloud::new("leave");
    cloud.apply().expect(3);
    // An image that nobody declares any more has a repository that is kept, and left behind.
    let images = "    image \"spare\" {\n        copy \"images/app\" to=\"/spare\"\n    }\n";
    cloud.fleet.edit("fleet.kdl", "images {\n", &format!("images {{\n{images}"));
    cloud.apply().expect(3);
    cloud.fleet.edit("fleet.kdl", images, "");
    cloud.run(&["plan"]).expect(0).says("AWS::ECR::Repository RepositorySpare is removed; what it holds is kept");
    cloud.apply().expect(1).says("--allow-destroy stack/shared/RepositorySpare");
    cloud.run(&["plan"]).expect(0).says("RepositorySpare is removed");
    let allowed = cloud.run(&["apply", "--auto-approve", "--allow-destroy", "stack/shared/RepositorySpare"]);
    // The role that starts agents may pull one image less.
    allowed.expect(3).says("2 changed").says("image.spare removed");
    cloud.fleet.run(&["apply", "--auto-approve", "--allow-destroy", "stack/shared/X"]).expect(64).says("aws");
}

#[test]
fn an_account_is_prepared_once_by_its_administrator() {
    let cloud = Cloud::empty("prepared");
    let asked = ["bootstrap", "--repository", "acme/fleet"];
    cloud.run(&asked[..1]).expect(64).says("--repository OWNER/NAME");
    cloud.run(&["bootstrap", "--repository", "acme/*"]).expect(64).says("--repository OWNER/NAME");
    assert_eq!(cloud.count("cloudformation CreateChangeSet"), 0);

    let asked = [&asked[..], &["--auto-approve", "--events", "events"]].concat();
    let made = cloud.run(&asked);
    made.expect(0)
        .says("stack/bootstrap")
        .says("changes 6 resources")
        .says("state bucket")
        .says("-state-111122223333-us-east-1")
        .says("role/");
    assert_eq!(cloud.count("cloudformation ExecuteChangeSet"), 1);
    let again = cloud.run(&asked);
    again.expect(0).says("state bucket");
    assert_eq!(cloud.writes(), Vec::<String>::new(), "the provider that the stack made stays the stack's");
    assert_eq!(cloud.count("cloudformation ExecuteChangeSet"), 1);

    cloud.run(&["bootstrap", "--repository", "acme/other", "--auto-approve"]).expect(0).says("1 changed");
    cloud.fleet.run(&["bootstrap", "-e", "local", "--repository", "acme/fleet"]).expect(64).says("is not on AWS");
}

#[test]
fn a_provider_that_an_account_has_is_adopted() {
    let cloud = Cloud::empty("adopted");
    let emulator = cloud.emulator();
    let request = reqwest::Client::new().post(emulator.endpoint()).header("authorization", "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/iam/aws4_request, SignedHeaders=host, Signature=0").header("content-type", "application/x-www-form-urlencoded").body("Action=CreateOpenIDConnectProvider&Version=2010-05-08&Url=https%3A%2F%2Ftoken.actions.githubusercontent.com&ClientIDList.member.1=sts.amazonaws.com");
    let answer = cloud.runtime.block_on(request.send()).expect("an answer");
    assert!(answer.status().is_success(), "{answer:?}");
    let made = cloud.run(&["bootstrap", "--repository", "acme/fleet", "--auto-approve"]);
    made.expect(0).says("changes 5 resources").says("role of deployments");
    let again = cloud.run(&["bootstrap", "--repository", "acme/fleet", "--auto-approve", "--format", "json"]);
    assert!(again.expect(0).json()["outputs"]["ApplyRoleArn"].as_str().is_some_and(|arn| arn.contains(":role/")));
}

#[test]
fn a_rehearsal_needs_no_account_and_leaves_nothing_running() {
    let (fleet, port) = (Fleet::of_files("rehearsal"), free_port());
    declare(&fleet, &format!(" endpoint-url=\"http://127.0.0.1:{port}\""), &format!("registry \"127.0.0.1:{port}\""));
    let mut command = fleet.command(&["rehearse", "-e", "cloud"]);
    // Installed once for all tests of this machine. These images hold files alone: nothing in them can be run.
    command.env("XDG_CACHE_HOME", work().join("cache")).env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    let rehearsed = fleet.finish(Running::start(&mut command));
    rehearsed
        .expect(3)
        .says("no container engine answers")
        .says("tasks are on paper")
        .says("an empty account 111122223333")
        .says("4 cloudformation ExecuteChangeSet")
        .says("does not make on aws");
    std::net::TcpListener::bind(("127.0.0.1", port)).expect("nobody listens there any more");

    fleet.run(&["rehearse", "-e", "local"]).expect(64).says("it is not on aws").says("endpoint-url");
    fleet.edit("fleet.kdl", &format!(" endpoint-url=\"http://127.0.0.1:{port}\""), "");
    fleet.run(&["rehearse", "-e", "cloud"]).expect(64).says("it is in a real account");
}

#[test]
fn a_rehearsal_that_needs_an_engine_says_so_before_anything_is_started() {
    // The repository's own fleet, as a newcomer has it.
    let home = tempfile::tempdir_in(work()).expect("a folder");
    let mut command = run::command(&workspace(), home.path());
    command.arg("rehearse").env("DOCKER_HOST", "unix:///nonexistent/engine.sock");
    let refused = Running::start(&mut command).wait();
    refused
        .expect(69)
        .says("the manager does not run")
        .says("start Docker")
        .says("remove `manager` from environment rehearsal");
    assert!(!refused.stderr.contains("the emulated account"), "{}", refused.stderr);
}

#[test]
fn without_credentials_nothing_is_tried() {
    let fleet = Fleet::of_files("nobody");
    declare(&fleet, "", "registry \"127.0.0.1:1\"");
    for asked in
        [&["apply", "--auto-approve"][..], &["destroy", "--purge", "--auto-approve"], &["logs", "agent/sam.seller"]]
    {
        let mut command: Command = fleet.command(&[asked, &["-e", "cloud"]].concat());
        command.env("AWS_EC2_METADATA_DISABLED", "true");
        for variable in ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE", "AWS_WEB_IDENTITY_TOKEN_FILE"] {
            command.env_remove(variable);
        }
        let refused = fleet.finish(Running::start(&mut command));
        refused.expect(77).says("no AWS credentials were found").says("aws sso login");
    }
}

#[test]
fn what_an_engine_built_goes_to_the_account_and_a_new_machine_stands_on_what_is_there() {
    let cloud = Cloud::new("built");
    let fleet = &cloud.fleet;
    let from = "    image \"homeserver\" {\n        copy \"images/app\" to=\"/app\"\n    }\n";
    let built = "    image \"homeserver\" {\n        containerfile \"images/built/Containerfile\" { base image=\"box\"; }\n    }\n";
    fleet.edit("fleet.kdl", from, built);
    fs::create_dir_all(fleet.path("images/built")).expect("a folder");
    let steps = "ARG BASE\nFROM ${BASE}\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \"echo made > /made\"]\nENTRYPOINT [\"/bin/busybox\"]\n";
    fs::write(fleet.path("images/built/Containerfile"), steps).expect("a file");

    // Without an engine its build fails, says why, and what does not need it is made.
    let mut command = fleet.command(&["apply", "-e", "cloud", "--auto-approve"]);
    command.env("DOCKER_HOST", "unix:///nobody/listens/here.sock");
    let none = fleet.finish(Running::start(&mut command));
    none.says("a container engine builds it, from images/built/Containerfile, and none answers here")
        .says("start Docker");
    assert_ne!(none.code, Some(0));
    let pushed = |image: &str| {
        let part = format!("/{}/{image}/manifests/d-", fleet.name);
        cloud.asked().iter().filter(|asked| asked.starts_with("PUT /v2/") && asked.contains(&part)).count()
    };
    assert_eq!((pushed("homeserver"), pushed("box")), (0, 1));

    cloud.apply().expect(3);
    assert_eq!((pushed("homeserver"), pushed("box"), pushed("agent")), (1, 1, 1));
    // Beside each image stands what is said about it.
    let manifests = |image: &str| {
        let part = format!("/{}/{image}/manifests/sha256:", fleet.name);
        cloud.asked().iter().filter(|asked| asked.starts_with("PUT /v2/") && asked.contains(&part)).count()
    };
    assert_eq!((manifests("homeserver"), manifests("box"), manifests("agent")), (2, 2, 2), "{:?}", cloud.asked());
    cloud.apply().expect(3).says("0 changed");

    // Another machine has neither the store nor the engine's images: what an image stands on comes from the account.
    fs::remove_dir_all(fleet.path(".fleet")).expect("the store");
    engine::remove_all(&fleet.name);
    fs::write(fleet.path("images/app/deep/words.txt"), "other words\n").expect("a file");
    cloud.apply().expect(3);
    assert_eq!((pushed("homeserver"), pushed("box"), pushed("agent")), (1, 1, 2), "only what changed");
}
