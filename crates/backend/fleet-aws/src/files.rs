//! Access points of the file system: an agent's own folder, kept for as long as anybody wants its memory.

use std::{collections::BTreeMap, time::Duration};

use serde::Deserialize;
use serde_json::{Value, json};
use url::form_urlencoded;

use crate::{
    account::Account,
    error::AwsError,
    pauses::Pauses,
    rates::Rate,
    signed::{Answer, Ask, Service},
};

/// The resources of the EFS API.
const ACCESS_POINTS: &str = "/2015-02-01/access-points";
const FILE_SYSTEMS: &str = "/2015-02-01/file-systems";
/// An access point is there within seconds.
const AVAILABLE_WITHIN: Duration = Duration::from_secs(60);
/// How often one is looked for that was asked for and is not told of.
const TRIES: usize = 3;
/// The folder's owner: fleet-agent, which runs as root, makes what is the agent's within it.
const OWNER: u32 = 0;
const MODE: &str = "0755";

/// An access point.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AccessPoint {
    #[serde(rename = "AccessPointId")]
    pub id: String,
    #[serde(rename = "AccessPointArn")]
    pub arn: String,
    #[serde(rename = "LifeCycleState", default)]
    pub state: String,
    #[serde(default)]
    root_directory: Folder,
    #[serde(default)]
    tags: Vec<Tag>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
struct Folder {
    #[serde(rename = "Path", default)]
    path: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

impl AccessPoint {
    /// A tag's value.
    pub(crate) fn tag(&self, key: &str) -> Option<&str> {
        self.tags.iter().find(|tag| tag.key == key).map(|tag| tag.value.as_str())
    }

    fn is_of(&self, folder: &str, tags: &BTreeMap<String, String>) -> bool {
        self.state != "deleting"
            && self.state != "deleted"
            && self.root_directory.path == folder
            && tags.iter().all(|(key, value)| self.tag(key) == Some(value.as_str()))
    }
}

impl Account {
    /// All access points of a file system; none where that is gone.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn access_points(&self, file_system: &str) -> Result<Vec<AccessPoint>, AwsError> {
        let (mut found, mut next) = (Vec::new(), None::<String>);
        loop {
            let query = [("FileSystemId", file_system), ("MaxResults", "1000")];
            let query = query.into_iter().chain(next.as_deref().map(|next| ("NextToken", next)));
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
            let target = format!("{ACCESS_POINTS}?{query}");
            let answer = match self.signed.ask(&ask("DescribeAccessPoints", "GET", target, Vec::new())).await {
                Err(error) if error.code() == "FileSystemNotFound" => return Ok(Vec::new()),
                answer => answer?.json(),
            };
            found.extend(answer["AccessPoints"].as_array().into_iter().flatten().filter_map(access_point));
            next = answer["NextToken"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(found);
            }
        }
    }

    /// The access point of a folder with these tags, made where there is none. Returns whether it was made.
    ///
    /// # Errors
    /// A call that fails; one that does not become available.
    pub(crate) async fn ensure_access_point(
        &self,
        file_system: &str,
        folder: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<(AccessPoint, bool), AwsError> {
        const CALL: &str = "CreateAccessPoint";
        let mut made = false;
        for _ in 0..TRIES {
            let known = self.access_points(file_system).await?.into_iter().find(|point| point.is_of(folder, tags));
            if let Some(known) = known {
                return Ok((self.available(file_system, known).await?, made));
            }
            let body = wanted(file_system, folder, tags).to_string().into_bytes();
            let answer = self.signed.ask(&ask(CALL, "POST", ACCESS_POINTS.to_owned(), body)).await;
            made = true;
            match answer {
                Ok(answer) => {
                    if let Some(point) = access_point(&answer.json()) {
                        return Ok((self.available(file_system, point).await?, true));
                    }
                }
                // An answer that was lost; somebody else was faster: it is found when we look again.
                Err(error) if error.may_be_done() || error.code() == "AccessPointAlreadyExists" => {}
                Err(error) => return Err(error),
            }
        }
        let why = format!("the access point for {folder} was asked for {TRIES} times and is not there");
        Err(AwsError::Refused { call: CALL, code: "NotThere".to_owned(), why })
    }

    /// Removes an access point; what is in its folder stays. One that is gone is right.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn remove_access_point(&self, id: &str) -> Result<(), AwsError> {
        let asked = ask("DeleteAccessPoint", "DELETE", format!("{ACCESS_POINTS}/{id}"), Vec::new());
        gone(self.signed.ask(&asked).await, "AccessPointNotFound")
    }

    /// Removes a file system with everything in it; one that is gone is right.
    ///
    /// # Errors
    /// A call that fails; one that is mounted somewhere.
    pub(crate) async fn remove_file_system(&self, id: &str) -> Result<(), AwsError> {
        let asked = ask("DeleteFileSystem", "DELETE", format!("{FILE_SYSTEMS}/{id}"), Vec::new());
        gone(self.signed.ask(&asked).await, "FileSystemNotFound")
    }

    async fn available(&self, file_system: &str, mut point: AccessPoint) -> Result<AccessPoint, AwsError> {
        let mut pauses = Pauses::within(AVAILABLE_WITHIN);
        while point.state != "available" {
            if point.state == "error" || !pauses.pause().await {
                let why = format!("the access point {} is {}", point.id, point.state);
                return Err(AwsError::Refused { call: "DescribeAccessPoints", code: "NotAvailable".to_owned(), why });
            }
            let all = self.access_points(file_system).await?;
            point = all.into_iter().find(|other| other.id == point.id).unwrap_or(point);
        }
        Ok(point)
    }
}

/// That it was removed before is as good as that it was removed now.
fn gone(done: Result<Answer, AwsError>, absent: &str) -> Result<(), AwsError> {
    match done {
        Err(error) if error.code() == absent => Ok(()),
        done => done.map(drop),
    }
}

fn ask(call: &'static str, method: &'static str, target: String, body: Vec<u8>) -> Ask {
    let headers = vec![("content-type", "application/json".to_owned())];
    // Whether it was made is seen by looking, not by asking twice.
    Ask {
        service: Service::Files,
        call,
        method,
        target,
        headers,
        body,
        rate: Rate::Unknown,
        repeatable: method != "POST",
    }
}

fn access_point(value: &Value) -> Option<AccessPoint> {
    AccessPoint::deserialize(value).ok()
}

/// Users are those of the container: what keeps agents apart are the folder and the role.
fn wanted(file_system: &str, folder: &str, tags: &BTreeMap<String, String>) -> Value {
    let name = folder.rsplit('/').next().unwrap_or_default();
    let mut all: Vec<Value> = tags.iter().map(|(key, value)| json!({"Key": key, "Value": value})).collect();
    all.push(json!({"Key": "Name", "Value": name}));
    json!({
        "ClientToken": token(&format!("{file_system}{folder}")),
        "FileSystemId": file_system,
        "RootDirectory": {"Path": folder, "CreationInfo": {"OwnerUid": OWNER, "OwnerGid": OWNER, "Permissions": MODE}},
        "Tags": all,
    })
}

/// A token by which AWS knows a request again: 64 characters at most.
pub(crate) fn token(of: &str) -> String {
    fleet_derivation::Hash::of(of.as_bytes()).to_string()
}
