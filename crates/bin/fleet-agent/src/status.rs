//! [`Status`]: what the agent is doing, for `GET /health` and for whoever reads the container's health log.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use http::StatusCode;
use serde::Serialize;

use crate::{http::Answer, layout::Kept, models::Probe};

/// "Healthy" from a look longer ago than this is not believed: the supervisor itself hangs.
const STALE: Duration = Duration::from_secs(30);

/// Where the agent is on its way; shown in lower case with dashes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Reading its inputs.
    Starting,
    /// Another container has the volume.
    WaitingForLock,
    /// The homeserver does not answer.
    WaitingForHomeserver,
    /// The homeserver does not let it in.
    LoggingIn,
    /// OpenClaw is coming up.
    StartingOpenclaw,
    /// OpenClaw and Matrix answer.
    Healthy,
    /// OpenClaw runs but says that something is wrong.
    Unhealthy,
    /// OpenClaw stopped; it is started again after a pause.
    Restarting,
    /// The container was asked to stop.
    Stopping,
}

/// What is known, as `GET /health` shows it. Never a secret.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    schema: u32,
    /// Where it is.
    pub state: State,
    /// Why it is not further; empty when healthy.
    pub reason: String,
    agent: String,
    /// Starts of OpenClaw after the first.
    pub restarts: u32,
    /// Generated files that the agent had edited, and where its versions are.
    pub edited: Vec<Kept>,
    /// Rooms that could not be joined yet.
    pub rooms_pending: Vec<String>,
    /// Model servers as last seen.
    pub models: Vec<Probe>,
}

struct Inner {
    report: Report,
    looked: Instant,
}

/// The report, shared.
#[derive(Clone)]
pub struct Status(Arc<Mutex<Inner>>);

impl Status {
    /// Of an agent that starts.
    pub fn new(agent: &str) -> Self {
        let report = Report {
            schema: 1,
            state: State::Starting,
            reason: "reading its inputs".to_owned(),
            agent: agent.to_owned(),
            restarts: 0,
            edited: Vec::new(),
            rooms_pending: Vec::new(),
            models: Vec::new(),
        };
        Self(Arc::new(Mutex::new(Inner { report, looked: Instant::now() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the agent is now, and why it is not further. `true`: this is news.
    pub fn set(&self, state: State, reason: impl Into<String>) -> bool {
        let mut inner = self.inner();
        let reason = reason.into();
        let news = inner.report.state != state || inner.report.reason != reason;
        (inner.report.state, inner.report.reason, inner.looked) = (state, reason, Instant::now());
        news
    }

    /// Where the agent is.
    pub fn state(&self) -> State {
        self.inner().report.state
    }

    /// Changes the rest of the report.
    pub fn update(&self, change: impl FnOnce(&mut Report)) {
        change(&mut self.inner().report);
    }

    /// 200 when healthy, else 503; the report either way.
    pub fn answer(&self) -> Answer {
        let inner = self.inner();
        let mut report = inner.report.clone();
        if report.state == State::Healthy && inner.looked.elapsed() > STALE {
            report.state = State::Unhealthy;
            report.reason = format!("OpenClaw was last looked at {} s ago", inner.looked.elapsed().as_secs());
        }
        let status = if report.state == State::Healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Answer { status, body: serde_json::json!(report).to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_healthy_is_200_and_the_reason_is_always_there() {
        let status = Status::new("@a:b.c");
        assert_eq!(status.answer().status, 503);
        assert!(status.set(State::WaitingForLock, "box-1 pid 1 has it"));
        assert!(!status.set(State::WaitingForLock, "box-1 pid 1 has it"), "no news");
        let answer = status.answer();
        assert!(
            answer.body.contains(r#""state":"waiting-for-lock""#) && answer.body.contains("box-1"),
            "{}",
            answer.body
        );
        status.set(State::Healthy, "");
        assert_eq!(status.answer().status, 200);
    }
}
