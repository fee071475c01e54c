//! An account with one cluster, one network, one file system and one service in a stack, and an image of a static busybox in
//! its registry: what stories of tasks need, and nothing of ours but the emulator.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use aws_sdk_cloudformation::types::StackStatus;
use fleet_aws::{
    Account, Place,
    emulator::{Emulator, REQUIREMENTS, Start},
};
use fleet_sim::{free_port, venv};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// What the test image can do.
const PROGRAMS: [&str; 13] =
    ["sh", "test", "cat", "ls", "stat", "sleep", "touch", "mkdir", "rmdir", "wget", "nslookup", "grep", "false"];

pub const ACCOUNT: &str = "111122223333";
const REGION: &str = "us-east-1";
const STACK: &str = "rig";
/// How long anything may take on a machine that is busy with other tests.
const PATIENCE: Duration = Duration::from_secs(180);
const LOOK: Duration = Duration::from_millis(200);

/// Prints what it was given, then waits for SIGTERM.
pub const SERVE: &str = "echo started; trap 'echo bye; exit 0' TERM; while :; do sleep 0.1; done";

pub struct Rig {
    pub emulator: Emulator,
    pub port: u16,
    stacks: aws_sdk_cloudformation::Client,
    http: reqwest::Client,
    _folder: TempDir,
}

/// The engine that tests use.
pub fn engine() -> String {
    let given = std::env::var("DOCKER_HOST").ok().filter(|host| !host.is_empty());
    given.unwrap_or_else(|| "unix:///var/run/docker.sock".to_owned())
}

impl Rig {
    /// An account whose tasks run, with the image `box` in it.
    pub async fn new() -> Self {
        let rig = Self::with(Some(&engine())).await;
        rig.push_box().await;
        rig
    }

    pub async fn with(engine: Option<&str>) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { account: ACCOUNT.to_owned(), region: REGION.to_owned(), endpoint: None };
        let python: PathBuf = venv("ministack", &REQUIREMENTS.join(" ")).join("python");
        let port = free_port();
        let emulator = Emulator::start(Start { python: &python, folder: folder.path(), port, place: &place, engine })
            .await
            .unwrap();
        let credentials = aws_credential_types::Credentials::for_tests();
        let config = aws_config::defaults(aws_config::BehaviorVersion::latest())
            .credentials_provider(credentials)
            .region(aws_config::Region::from_static(REGION))
            .endpoint_url(emulator.endpoint())
            .load()
            .await;
        let stacks = aws_sdk_cloudformation::Client::new(&config);
        Self { emulator, port, stacks, http: reqwest::Client::new(), _folder: folder }
    }

    /// The account, as the program has it.
    pub async fn account(&self) -> Account {
        let endpoint = Some(self.emulator.endpoint());
        let place = Place { account: ACCOUNT.to_owned(), region: REGION.to_owned(), endpoint };
        Account::open(place, Arc::new(fleet_apply::Silent)).await
    }

    /// A call of a service that speaks JSON, as `ecs DescribeServices`.
    pub async fn ask(&self, call: &str, body: Value) -> Result<Value, String> {
        let (service, action) = call.split_once(' ').unwrap();
        let target = match service {
            "ecs" => "AmazonEC2ContainerServiceV20141113",
            "ecr" => "AmazonEC2ContainerRegistry_V20150921",
            "logs" => "Logs_20140328",
            "ssm" => "AmazonSSM",
            other => panic!("{other}"),
        };
        let signed = format!(
            "AWS4-HMAC-SHA256 Credential=key/20260101/{REGION}/{service}/aws4_request, SignedHeaders=host, Signature=0"
        );
        let request = self.http.post(self.emulator.endpoint()).header("authorization", signed);
        let request = request
            .header("x-amz-target", format!("{target}.{action}"))
            .header("content-type", "application/x-amz-json-1.1");
        let answer = request.body(body.to_string()).send().await.unwrap();
        let (status, text) = (answer.status(), answer.text().await.unwrap());
        if status.is_success() { Ok(serde_json::from_str(&text).unwrap()) } else { Err(text) }
    }

    /// The service of the stack.
    pub async fn service(&self) -> Value {
        let asked = json!({"cluster": "rig", "services": ["main"]});
        self.ask("ecs DescribeServices", asked).await.unwrap()["services"][0].clone()
    }

    /// Tasks of the cluster that are in this desired state.
    pub async fn tasks(&self, desired: &str) -> Vec<Value> {
        let arns = self.ask("ecs ListTasks", json!({"cluster": "rig", "desiredStatus": desired})).await.unwrap();
        if arns["taskArns"].as_array().unwrap().is_empty() {
            return Vec::new();
        }
        let asked = json!({"cluster": "rig", "tasks": arns["taskArns"]});
        self.ask("ecs DescribeTasks", asked).await.unwrap()["tasks"].as_array().unwrap().clone()
    }

    /// Runs the stack's definition once, with another command, to its end.
    pub async fn run(&self, command: &str) -> Value {
        let service = self.service().await;
        let asked = json!({
            "cluster": "rig", "taskDefinition": service["taskDefinition"], "launchType": "FARGATE",
            "networkConfiguration": service["networkConfiguration"],
            "overrides": {"containerOverrides": [{"name": "main", "command": [command]}]},
        });
        let started = self.ask("ecs RunTask", asked).await.unwrap();
        let arn = started["tasks"][0]["taskArn"].clone();
        self.until("the task to stop", async || {
            let asked = json!({"cluster": "rig", "tasks": [arn]});
            let task = self.ask("ecs DescribeTasks", asked).await.unwrap()["tasks"][0].clone();
            (task["lastStatus"] == "STOPPED").then_some(task)
        })
        .await
    }

    /// Output of tasks as CloudWatch has it, by task id.
    pub async fn output(&self) -> BTreeMap<String, Vec<String>> {
        let streams = self.ask("logs DescribeLogStreams", json!({"logGroupName": "/ecs/rig"})).await.unwrap();
        let mut output = BTreeMap::new();
        for stream in streams["logStreams"].as_array().unwrap() {
            let name = stream["logStreamName"].as_str().unwrap();
            let asked = json!({"logGroupName": "/ecs/rig", "logStreamName": name, "startFromHead": true});
            let events = self.ask("logs GetLogEvents", asked).await.unwrap();
            let lines = events["events"].as_array().unwrap().iter();
            let lines = lines.map(|event| event["message"].as_str().unwrap().to_owned()).collect();
            output.insert(name.strip_prefix("rig/main/").unwrap().to_owned(), lines);
        }
        output
    }

    pub async fn until<T>(&self, what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
        let until = tokio::time::Instant::now() + PATIENCE;
        while tokio::time::Instant::now() < until {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(LOOK).await;
        }
        panic!("waited in vain for {what}: {:#}", self.service().await);
    }

    /// Makes the stack, or changes it; returns how it ended.
    pub async fn deploy(&self, template: &Value) -> StackStatus {
        let body = template.to_string();
        if self.status().await.is_none() {
            self.stacks.create_stack().stack_name(STACK).template_body(body).send().await.unwrap();
        } else {
            self.stacks.update_stack().stack_name(STACK).template_body(body).send().await.unwrap();
        }
        self.settled().await.unwrap()
    }

    pub async fn delete(&self) {
        self.stacks.delete_stack().stack_name(STACK).send().await.unwrap();
        assert_eq!(self.settled().await, None);
    }

    async fn settled(&self) -> Option<StackStatus> {
        self.until("the stack", async || match self.status().await {
            Some(status) if status.as_str().ends_with("IN_PROGRESS") => None,
            status => Some(status),
        })
        .await
    }

    async fn status(&self) -> Option<StackStatus> {
        let stacks = self.stacks.describe_stacks().stack_name(STACK).send().await.ok()?;
        stacks.stacks().first()?.stack_status().cloned()
    }

    /// Why the stack failed, newest first.
    pub async fn reasons(&self) -> Vec<String> {
        let events = self.stacks.describe_stack_events().stack_name(STACK).send().await.unwrap();
        let failed = events
            .stack_events()
            .iter()
            .filter(|event| event.resource_status().is_some_and(|s| s.as_str().ends_with("FAILED")));
        failed.filter_map(|event| event.resource_status_reason().map(str::to_owned)).collect()
    }

    async fn push_box(&self) {
        self.ask("ecr CreateRepository", json!({"repositoryName": "box"})).await.unwrap();
        push_box(&self.emulator.endpoint(), "box", "/bin/false").await;
    }
}

/// Pushes an image of a static busybox to a repository of an emulated account, under the tag `1`; returns its digest.
pub async fn push_box(endpoint: &str, repository: &str, entry_point: &str) -> String {
    let http = reqwest::Client::new();
    let layer = fleet_sim::busybox(&PROGRAMS);
    let digest = |bytes: &[u8]| {
        let hash = Sha256::digest(bytes);
        format!("sha256:{}", hash.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    };
    let config = json!({
        "architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        "config": {"Entrypoint": [entry_point], "Env": ["PATH=/bin"]},
    })
    .to_string();
    let described = |kind: &str, bytes: &[u8]| json!({"mediaType": kind, "size": bytes.len(), "digest": digest(bytes)});
    let manifest = json!({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": described("application/vnd.oci.image.config.v1+json", config.as_bytes()),
        "layers": [described("application/vnd.oci.image.layer.v1.tar", &layer)],
    })
    .to_string();
    let registry = format!("{endpoint}/v2/{repository}");
    for blob in [layer.clone(), config.clone().into_bytes()] {
        let begun = http.post(format!("{registry}/blobs/uploads/")).send().await.unwrap();
        let place = begun.headers()["location"].to_str().unwrap().to_owned();
        let place = if place.starts_with('/') { format!("{endpoint}{place}") } else { place };
        let joint = if place.contains('?') { '&' } else { '?' };
        let upload = http.put(format!("{place}{joint}digest={}", digest(&blob))).body(blob).send().await.unwrap();
        assert!(upload.status().is_success(), "{upload:?}");
    }
    let put = http.put(format!("{registry}/manifests/1")).body(manifest.clone());
    let put = put.header("content-type", "application/vnd.oci.image.manifest.v1+json").send().await.unwrap();
    assert!(put.status().is_success(), "{put:?}");
    digest(manifest.as_bytes())
}

/// What the engine has of emulators on a port, by name: asked through the client that the emulator has.
pub async fn left(port: u16) -> Vec<String> {
    let python = venv("ministack", &REQUIREMENTS.join(" ")).join("python");
    let asked = tokio::process::Command::new(python).args(["-c", LEFT, &engine()]).output().await.unwrap();
    assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
    let ours = format!("fleet-emulator-{port}-");
    let names = String::from_utf8(asked.stdout).unwrap();
    names.lines().filter(|name| name.starts_with(&ours)).map(str::to_owned).collect()
}

/// Names of all containers, networks and volumes of an engine.
const LEFT: &str = "
import docker, sys
engine = docker.APIClient(base_url=sys.argv[1], version='auto')
for row in engine.containers(all=True):
    print(*(name.strip('/') for name in row['Names']))
for row in [*engine.networks(), *(engine.volumes()['Volumes'] or [])]:
    print(row['Name'])
";

/// A service of one task that runs a script in the image `box`, with a volume, a secret and a parameter: as agents are.
pub fn template(script: &str) -> Value {
    let mut document: Value = serde_json::from_str(include_str!("rig.json")).unwrap();
    *container(&mut document) = json!({
        "Name": "main",
        "Image": format!("{ACCOUNT}.dkr.ecr.{REGION}.amazonaws.com/box:1"),
        "EntryPoint": ["/bin/sh", "-c"],
        "Command": [script],
        "Environment": [{"Name": "PLAIN", "Value": "plain value"}],
        "Secrets": [{"Name": "FIELD", "ValueFrom": {"Fn::Sub": "${Secret}:secret::"}}],
        "MountPoints": [{"SourceVolume": "data", "ContainerPath": "/data", "ReadOnly": false}],
        "LogConfiguration": {"LogDriver": "awslogs", "Options": {
            "awslogs-group": {"Ref": "Logs"}, "awslogs-region": REGION, "awslogs-stream-prefix": "rig",
        }},
        "StopTimeout": 20,
    });
    document
}

pub fn container(document: &mut Value) -> &mut Value {
    &mut document["Resources"]["Task"]["Properties"]["ContainerDefinitions"][0]
}
