//! Services and tasks of ECS, as far as agents need them.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{account::Account, error::AwsError, rates::Rate, signed::Service};

/// Begins the names of ECS's calls.
pub(crate) const ECS: (Service, &str) = (Service::Ecs, "AmazonEC2ContainerServiceV20141113");
/// Begins the names of CloudWatch Logs' calls.
pub(crate) const LOGS: (Service, &str) = (Service::Logs, "Logs_20140328");
/// Services that one DescribeServices takes (API reference).
pub(crate) const SERVICES_AT_ONCE: usize = 10;
/// How often a task definition is looked for that was registered and is not told of.
const TRIES: usize = 3;
/// Fields of CreateService that UpdateService does not take.
const ONLY_WHEN_MADE: [&str; 3] = ["clientToken", "serviceName", "tags"];

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Running {
    pub service_name: String,
    pub status: String,
    #[serde(default)]
    pub task_definition: String,
    #[serde(default)]
    pub desired_count: u32,
    #[serde(default)]
    pub running_count: u32,
    #[serde(default)]
    pub pending_count: u32,
    #[serde(default)]
    pub deployments: Vec<Deployment>,
}

/// One of its deployments.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deployment {
    pub id: String,
    pub status: String,
    pub task_definition: String,
    #[serde(default)]
    pub running_count: u32,
    #[serde(default)]
    pub rollout_state: String,
    #[serde(default)]
    pub rollout_state_reason: String,
}

impl Running {
    /// The deployment that counts.
    pub(crate) fn primary(&self) -> Option<&Deployment> {
        self.deployments.iter().find(|deployment| deployment.status == "PRIMARY")
    }
}

/// Why a task stopped.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stopped {
    /// Its id, which is in the name of its log stream.
    pub task: String,
    /// ECS's words.
    pub reason: String,
}

impl Account {
    /// ARNs of a cluster's services; none where there is no such cluster.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn services(&self, cluster: &str) -> Result<Vec<String>, AwsError> {
        let (mut found, mut next) = (Vec::new(), Value::Null);
        loop {
            let mut body = json!({"cluster": cluster, "maxResults": 100});
            if next.is_string() {
                body["nextToken"] = next;
            }
            let answer = match self.signed.json(ECS, ("ListServices", Rate::ServiceReads), &body).await {
                Err(error) if error.code() == "ClusterNotFoundException" => return Ok(Vec::new()),
                answer => answer?,
            };
            found.extend(texts(&answer["serviceArns"]));
            next = answer["nextToken"].clone();
            if !next.is_string() {
                return Ok(found);
            }
        }
    }

    /// Up to ten services by name or ARN; those that are gone are not among them.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn describe(&self, cluster: &str, names: &[String]) -> Result<Vec<Running>, AwsError> {
        let body = json!({"cluster": cluster, "services": names});
        let answer = match self.signed.json(ECS, ("DescribeServices", Rate::ServiceReads), &body).await {
            Err(error) if error.code() == "ClusterNotFoundException" => return Ok(Vec::new()),
            answer => answer?,
        };
        let services = answer["services"].as_array().into_iter().flatten();
        Ok(services.filter_map(|one| Running::deserialize(one).ok()).filter(|one| one.status != "INACTIVE").collect())
    }

    /// A task definition of this family, registered where there is none. Returns its ARN, and whether it was registered.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn ensure_task_definition(&self, family: &str, task: &Value) -> Result<(String, bool), AwsError> {
        const CALL: &str = "RegisterTaskDefinition";
        let mut registered = false;
        for _ in 0..TRIES {
            if let Some(known) = self.task_definition(family).await? {
                return Ok((known, registered));
            }
            registered = true;
            match self.signed.json(ECS, (CALL, Rate::TaskDefinitionWrites), task).await {
                Ok(answer) => {
                    if let Some(arn) = answer["taskDefinition"]["taskDefinitionArn"].as_str() {
                        return Ok((arn.to_owned(), true));
                    }
                }
                // Where it was done and the answer lost, the family is found when we look again.
                Err(error) if error.may_be_done() => {}
                Err(error) => return Err(error),
            }
        }
        let why = format!("{family} was registered {TRIES} times and is not there");
        Err(AwsError::Refused { call: CALL, code: "NotThere".to_owned(), why })
    }

    async fn task_definition(&self, family: &str) -> Result<Option<String>, AwsError> {
        let body = json!({"taskDefinition": family});
        match self.signed.json(ECS, ("DescribeTaskDefinition", Rate::TaskDefinitionReads), &body).await {
            Ok(answer) => {
                let found = &answer["taskDefinition"];
                let active = found["status"] == "ACTIVE";
                Ok(found["taskDefinitionArn"].as_str().filter(|_| active).map(str::to_owned))
            }
            // There is no code of its own for a family that is not there.
            Err(error) if error.code() == "ClientException" => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a service, or a new deployment of the one that is there.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn put_service(&self, service: &Value, exists: bool) -> Result<(), AwsError> {
        let mut body = service.clone();
        if exists {
            body["service"] = body["serviceName"].take();
            // It goes with a change of where tasks run, and never makes a second deployment.
            body["forceNewDeployment"] = json!(true);
            if let Some(fields) = body.as_object_mut() {
                fields.retain(|name, _| !ONLY_WHEN_MADE.contains(&name.as_str()));
            }
        }
        let call = if exists { "UpdateService" } else { "CreateService" };
        self.signed.json(ECS, (call, Rate::ServiceWrites), &body).await.map(drop)
    }

    /// Changes how many tasks a service has, and which.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn set_service(&self, cluster: &str, name: &str, more: &Value) -> Result<(), AwsError> {
        let mut body = json!({"cluster": cluster, "service": name});
        for (field, value) in more.as_object().into_iter().flatten() {
            body[field] = value.clone();
        }
        self.signed.json(ECS, ("UpdateService", Rate::ServiceWrites), &body).await.map(drop)
    }

    /// Removes a service with what runs of it; one that is gone is right.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn delete_service(&self, cluster: &str, name: &str) -> Result<(), AwsError> {
        let body = json!({"cluster": cluster, "service": name, "force": true});
        match self.signed.json(ECS, ("DeleteService", Rate::ServiceWrites), &body).await {
            Err(error) if ["ServiceNotFoundException", "ServiceNotActiveException"].contains(&error.code()) => Ok(()),
            done => done.map(drop),
        }
    }

    /// The task of a service that stopped last, of one task definition.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn last_stopped(
        &self,
        (cluster, service): (&str, &str),
        task_definition: &str,
    ) -> Result<Option<Stopped>, AwsError> {
        let body = json!({"cluster": cluster, "serviceName": service, "desiredStatus": "STOPPED", "maxResults": 100});
        let listed = self.signed.json(ECS, ("ListTasks", Rate::TaskReads), &body).await?;
        let tasks: Vec<String> = texts(&listed["taskArns"]).collect();
        if tasks.is_empty() {
            return Ok(None);
        }
        let body = json!({"cluster": cluster, "tasks": tasks});
        let described = self.signed.json(ECS, ("DescribeTasks", Rate::TaskReads), &body).await?;
        let ours = described["tasks"].as_array().into_iter().flatten();
        let ours = ours.filter(|task| task["taskDefinitionArn"] == task_definition);
        Ok(ours.max_by_key(|task| moment(&task["stoppedAt"])).map(stopped))
    }

    /// The last lines of a task's log; none where there is no log.
    pub(crate) async fn last_lines(&self, group: &str, stream: &str, lines: usize) -> Vec<String> {
        let body = json!({"logGroupName": group, "logStreamName": stream, "limit": lines, "startFromHead": false});
        // What cannot be read must not hide what it would explain.
        let Ok(answer) = self.signed.json(LOGS, ("GetLogEvents", Rate::Unknown), &body).await else {
            return Vec::new();
        };
        let events = answer["events"].as_array().into_iter().flatten();
        events.filter_map(|event| event["message"].as_str()).map(|line| line.trim_end().to_owned()).collect()
    }
}

pub(crate) fn texts(list: &Value) -> impl Iterator<Item = String> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned)
}

/// Seconds since 1970 in thousandths.
fn moment(value: &Value) -> u64 {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a time of this century")]
    value.as_f64().map_or(0, |seconds| (seconds * 1000.0) as u64)
}

/// Why it stopped: what ECS says of the task, and of its container.
fn stopped(task: &Value) -> Stopped {
    let arn = task["taskArn"].as_str().unwrap_or_default();
    let mut parts = Vec::new();
    parts.extend(task["stoppedReason"].as_str().filter(|text| !text.is_empty()).map(str::to_owned));
    for container in task["containers"].as_array().into_iter().flatten() {
        parts.extend(container["exitCode"].as_i64().map(|code| format!("exit code {code}")));
        parts.extend(container["reason"].as_str().filter(|text| !text.is_empty()).map(str::to_owned));
    }
    Stopped { task: arn.rsplit('/').next().unwrap_or_default().to_owned(), reason: parts.join("; ") }
}

/// Replaces `{{Name}}` in every text of a document. Names that nothing gives a value to come back.
pub(crate) fn filled(document: &Value, values: &BTreeMap<String, String>) -> Result<Value, Vec<String>> {
    let mut missing = Vec::new();
    let filled = fill(document, values, &mut missing);
    if missing.is_empty() { Ok(filled) } else { Err(missing) }
}

fn fill(value: &Value, values: &BTreeMap<String, String>, missing: &mut Vec<String>) -> Value {
    match value {
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(name, value)| (name.clone(), fill(value, values, missing))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| fill(item, values, missing)).collect()),
        Value::String(text) => Value::String(fill_text(text, values, missing)),
        other => other.clone(),
    }
}

fn fill_text(text: &str, values: &BTreeMap<String, String>, missing: &mut Vec<String>) -> String {
    let mut parts = text.split("{{");
    let mut filled = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once("}}") {
            Some((name, rest)) => {
                match values.get(name) {
                    Some(value) => filled.push_str(value),
                    None => missing.push(name.to_owned()),
                }
                filled.push_str(rest);
            }
            None => filled.push_str(part),
        }
    }
    filled
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_are_filled_in_wherever_they_are_and_those_without_a_value_are_named() {
        let document = json!({"a": ["{{Bucket}}/x/{{Key}}", 1], "b": {"c": "{{Bucket}}"}});
        let values = BTreeMap::from([("Bucket".to_owned(), "b-1".to_owned()), ("Key".to_owned(), "k".to_owned())]);
        assert_eq!(filled(&document, &values).unwrap(), json!({"a": ["b-1/x/k", 1], "b": {"c": "b-1"}}));
        assert_eq!(filled(&document, &BTreeMap::new()).unwrap_err(), ["Bucket", "Key", "Bucket"]);
    }

    #[test]
    fn why_a_task_stopped_is_told_in_full() {
        let task = json!({
            "taskArn": "arn:aws:ecs:us-east-1:111122223333:task/anycompany-dev/0123",
            "stoppedReason": "Essential container in task exited",
            "containers": [{"exitCode": 78}],
        });
        let told = stopped(&task);
        assert_eq!(
            (told.task.as_str(), told.reason.as_str()),
            ("0123", "Essential container in task exited; exit code 78")
        );
    }
}
