//! [`Log`]: what an agent or a service printed, of all its tasks, from CloudWatch Logs; and what it prints from now on.
//!
//! Deliberately absent: how often to ask for more.

use std::collections::BTreeMap;

use fleet_apply::Scope;
use fleet_model::{Address, Kind};
use fleet_stacks::{agent_service::CONTAINER, log_group};
use serde_json::{Value, json};

use crate::{account::Account, error::AwsError, rates::Rate, services::LOGS};

/// Lines that are read at least, so that those of the last moment are known when more is asked for.
const SEED: usize = 200;
/// Lines that one call gives (CloudWatch Logs API reference).
const AT_ONCE: usize = 10_000;
/// Lines of one stream come in order, those of several within this, in thousandths of a second.
const LATE: i64 = 60_000;
/// What CloudWatch Logs says of a group or stream that is not there.
const ABSENT: &str = "ResourceNotFoundException";

/// A line.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Line {
    /// Thousandths of a second since 1970.
    at: i64,
    stream: String,
    text: String,
}

/// What an agent or a service printed.
pub struct Log {
    account: Account,
    group: String,
    /// Begins the names of its streams: one per task.
    prefix: String,
    /// Where asking for more begins.
    from: i64,
    /// Lines since then that were read, and how often each.
    seen: BTreeMap<Line, usize>,
}

impl Log {
    /// Of an agent or a service; `None` for what prints nothing. Nothing is asked yet.
    #[must_use]
    pub fn of(account: Account, scope: &Scope, address: &Address) -> Option<Self> {
        let (role, prefix) = match address.kind {
            Kind::Agent => ("agent", format!("{}/{CONTAINER}/", address.name)),
            Kind::Service => (address.name.as_str(), format!("{0}/{0}/", address.name)),
            _ => return None,
        };
        let group = log_group(&scope.whole(), role);
        Some(Self { account, group, prefix, from: 0, seen: BTreeMap::new() })
    }

    /// The last lines, oldest first; `None` where it never printed anything.
    ///
    /// # Errors
    /// A call that fails.
    pub async fn last(&mut self, lines: usize) -> Result<Option<Vec<String>>, AwsError> {
        let streams = self.streams().await?;
        if streams.is_empty() {
            return Ok(None);
        }
        let wanted = lines.max(SEED);
        let mut read: Vec<Line> = Vec::new();
        for stream in streams {
            read.extend(self.last_of(&stream, wanted - read.len()).await?);
            if read.len() >= wanted {
                break;
            }
        }
        // By time alone: lines of one moment stay as they were printed.
        read.sort_by_key(|line| line.at);
        self.from = read.last().map_or(0, |line| line.at);
        for line in read.iter().filter(|line| line.at >= self.from) {
            *self.seen.entry(line.clone()).or_default() += 1;
        }
        let before = read.len().saturating_sub(lines);
        Ok(Some(read.split_off(before).into_iter().map(|line| line.text).collect()))
    }

    /// What was printed since, none of it twice.
    ///
    /// # Errors
    /// A call that fails.
    pub async fn more(&mut self) -> Result<Vec<String>, AwsError> {
        let read = self.since(self.from).await?;
        let (mut counts, mut new) = (BTreeMap::<Line, usize>::new(), Vec::new());
        for line in read {
            let count = counts.entry(line.clone()).or_default();
            *count += 1;
            if *count > self.seen.get(&line).copied().unwrap_or_default() {
                new.push(line);
            }
        }
        for (line, count) in counts {
            let known = self.seen.entry(line).or_default();
            *known = count.max(*known);
        }
        new.sort_by_key(|line| line.at);
        let newest = self.seen.keys().next_back().map_or(self.from, |line| line.at);
        self.from = self.from.max(newest - LATE);
        let from = self.from;
        self.seen.retain(|line, _| line.at >= from);
        Ok(new.into_iter().map(|line| line.text).collect())
    }

    /// Names of its streams, the one that was begun last first.
    async fn streams(&self) -> Result<Vec<String>, AwsError> {
        let (mut found, mut next) = (Vec::new(), Value::Null);
        loop {
            let mut body = json!({"logGroupName": self.group, "logStreamNamePrefix": self.prefix});
            if next.is_string() {
                body["nextToken"] = next;
            }
            let answer = match self.account.signed.json(LOGS, ("DescribeLogStreams", Rate::Unknown), &body).await {
                Err(error) if error.code() == ABSENT => return Ok(Vec::new()),
                answer => answer?,
            };
            for stream in answer["logStreams"].as_array().into_iter().flatten() {
                let began = stream["creationTime"].as_i64().unwrap_or_default();
                found.extend(stream["logStreamName"].as_str().map(|name| (began, name.to_owned())));
            }
            next = answer["nextToken"].clone();
            if !next.is_string() {
                break;
            }
        }
        found.sort_unstable_by(|one, other| other.cmp(one));
        Ok(found.into_iter().map(|(_, name)| name).collect())
    }

    /// The last lines of one stream, oldest first.
    async fn last_of(&self, stream: &str, lines: usize) -> Result<Vec<Line>, AwsError> {
        let (mut read, mut token) = (Vec::<Line>::new(), None::<String>);
        while read.len() < lines {
            let limit = (lines - read.len()).min(AT_ONCE);
            let mut body =
                json!({"logGroupName": self.group, "logStreamName": stream, "limit": limit, "startFromHead": false});
            if let Some(token) = &token {
                body["nextToken"] = json!(token);
            }
            let answer = match self.account.signed.json(LOGS, ("GetLogEvents", Rate::Unknown), &body).await {
                Err(error) if error.code() == ABSENT => break,
                answer => answer?,
            };
            let mut page: Vec<Line> = events(&answer, stream).collect();
            page.append(&mut read);
            read = page;
            // A page may be empty and not be the last: the last one is where the token stays as it is.
            let next = answer["nextBackwardToken"].as_str().map(str::to_owned);
            if next.is_none() || next == token {
                break;
            }
            token = next;
        }
        Ok(read)
    }

    async fn since(&self, from: i64) -> Result<Vec<Line>, AwsError> {
        let (mut read, mut next) = (Vec::new(), Value::Null);
        loop {
            let mut body = json!({"logGroupName": self.group, "logStreamNamePrefix": self.prefix, "startTime": from});
            if next.is_string() {
                body["nextToken"] = next;
            }
            let answer = match self.account.signed.json(LOGS, ("FilterLogEvents", Rate::Unknown), &body).await {
                // It went with its environment; it may come again.
                Err(error) if error.code() == ABSENT => return Ok(read),
                answer => answer?,
            };
            read.extend(events(&answer, "").filter(|line| line.stream.starts_with(&self.prefix)));
            next = answer["nextToken"].clone();
            if !next.is_string() {
                return Ok(read);
            }
        }
    }
}

/// Events of an answer; `stream` where they do not say theirs.
fn events<'a>(answer: &'a Value, stream: &'a str) -> impl Iterator<Item = Line> + 'a {
    answer["events"].as_array().into_iter().flatten().filter_map(move |event| {
        Some(Line {
            at: event["timestamp"].as_i64()?,
            stream: event["logStreamName"].as_str().unwrap_or(stream).to_owned(),
            text: event["message"].as_str()?.trim_end().to_owned(),
        })
    })
}

impl Account {
    /// Names of log groups that begin so.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn log_groups(&self, prefix: &str) -> Result<Vec<String>, AwsError> {
        let (mut found, mut next) = (Vec::new(), Value::Null);
        loop {
            let mut body = json!({"logGroupNamePrefix": prefix});
            if next.is_string() {
                body["nextToken"] = next;
            }
            let answer = self.signed.json(LOGS, ("DescribeLogGroups", Rate::Unknown), &body).await?;
            let groups = answer["logGroups"].as_array().into_iter().flatten();
            found.extend(groups.filter_map(|group| group["logGroupName"].as_str()).map(str::to_owned));
            next = answer["nextToken"].clone();
            if !next.is_string() {
                return Ok(found);
            }
        }
    }
}
