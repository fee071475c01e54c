//! [`until_healthy`]: bounded waiting for a container, with early recognition of one that will not make it.

use std::time::Duration;

use bollard::models::{ContainerInspectResponse, ContainerStateStatusEnum, HealthStatusEnum};
use tokio::time::Instant;

use crate::{EngineError, EngineKind, calls::Calls};

const POLL: Duration = Duration::from_millis(200);
/// How long a container without a health probe must run undisturbed to count as serving.
const STEADY: Duration = Duration::from_millis(1500);

/// Podman has no daemon that would run health checks.
const PODMAN_PROBES: &str =
    "; its health check has said nothing: Podman runs health checks by timers of systemd, which must be running here";

/// What one look at a container tells.
#[derive(Debug, PartialEq, Eq)]
enum Look {
    /// It serves.
    Healthy,
    /// It runs and has no probe to ask.
    RunsWithoutProbe,
    /// Not yet.
    Wait,
    /// It runs, and the engine has restarted it: it died, and how can be seen when it dies again.
    Restarted,
    /// It will not make it, or not without help.
    Failed(String),
}

/// Waits until the container is healthy; `Ok(Err(why))` when it exits, is restarted by the engine, reports itself
/// unhealthy, or is not healthy within `within`.
///
/// # Errors
/// When the engine cannot be asked.
pub(crate) async fn until_healthy(
    calls: Calls<'_>,
    id: &str,
    within: Duration,
) -> Result<Result<(), String>, EngineError> {
    let began = Instant::now();
    let mut restarts_before = None;
    let mut steady_since = None;
    let mut restarted_since = None;
    loop {
        let Some(container) = calls.inspect(id).await? else {
            return Ok(Err("its container was removed by somebody else while it was starting".to_owned()));
        };
        let before = *restarts_before.get_or_insert(container.restart_count.unwrap_or(0));
        match look(&container, before) {
            Look::Healthy => return Ok(Ok(())),
            Look::Failed(why) => return Ok(Err(why)),
            Look::Wait => steady_since = None,
            Look::Restarted => {
                let since = *restarted_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= STEADY {
                    return Ok(Err("it ends again and again: the engine has restarted it".to_owned()));
                }
            }
            Look::RunsWithoutProbe => {
                let since = *steady_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= STEADY {
                    return Ok(Ok(()));
                }
            }
        }
        if began.elapsed() >= within {
            let said = match probe_output(&container) {
                Some(output) => format!("; its health check says: {output}"),
                None if calls.engine.kind == EngineKind::Podman => PODMAN_PROBES.to_owned(),
                None => String::new(),
            };
            return Ok(Err(format!("it was not healthy within {} s{said}", within.as_secs())));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn look(container: &ContainerInspectResponse, restarts_before: i64) -> Look {
    use ContainerStateStatusEnum as S;
    let Some(state) = &container.state else { return Look::Wait };
    let ended = || {
        let memory = if state.oom_killed == Some(true) { " because it ran out of memory" } else { "" };
        let error = state.error.as_deref().filter(|e| !e.is_empty()).map(|e| format!(": {e}")).unwrap_or_default();
        format!("it ended with exit code {}{memory}{error}", state.exit_code.unwrap_or_default())
    };
    match state.status {
        Some(S::EXITED | S::DEAD | S::RESTARTING) => return Look::Failed(ended()),
        Some(S::RUNNING) if container.restart_count.unwrap_or(0) > restarts_before => {
            // Between two deaths it looks alive, and the exit code of the last one is gone by then.
            return Look::Restarted;
        }
        Some(S::RUNNING) => {}
        _ => return Look::Wait,
    }
    match state.health.as_ref().and_then(|h| h.status) {
        Some(HealthStatusEnum::HEALTHY) => Look::Healthy,
        Some(HealthStatusEnum::UNHEALTHY) => {
            let said = probe_output(container).map(|o| format!(": {o}")).unwrap_or_default();
            Look::Failed(format!("its health check fails{said}"))
        }
        Some(HealthStatusEnum::STARTING) => Look::Wait,
        _ => Look::RunsWithoutProbe,
    }
}

/// The last line that the last probe printed.
fn probe_output(container: &ContainerInspectResponse) -> Option<String> {
    let log = container.state.as_ref()?.health.as_ref()?.log.as_ref()?;
    let output = log.last()?.output.as_deref()?.trim();
    output.lines().last().filter(|l| !l.is_empty()).map(|l| l.chars().take(300).collect())
}

#[cfg(test)]
mod tests {
    use bollard::models::{ContainerState, Health};

    use super::*;

    fn container(
        status: ContainerStateStatusEnum,
        health: Option<HealthStatusEnum>,
        restarts: i64,
    ) -> ContainerInspectResponse {
        ContainerInspectResponse {
            restart_count: Some(restarts),
            state: Some(ContainerState {
                status: Some(status),
                exit_code: Some(7),
                health: health.map(|status| Health { status: Some(status), ..Health::default() }),
                ..ContainerState::default()
            }),
            ..ContainerInspectResponse::default()
        }
    }

    #[test]
    fn death_is_recognised_at_once_also_between_two_restarts() {
        use ContainerStateStatusEnum as S;
        for status in [S::EXITED, S::RESTARTING, S::DEAD] {
            assert_eq!(look(&container(status, None, 0), 0), Look::Failed("it ended with exit code 7".to_owned()));
        }
        assert_eq!(look(&container(S::RUNNING, None, 3), 0), Look::Restarted);
        assert_eq!(look(&container(S::RUNNING, None, 3), 3), Look::RunsWithoutProbe, "restarts of long ago");
    }

    #[test]
    fn the_probe_decides_where_there_is_one() {
        use ContainerStateStatusEnum as S;
        assert_eq!(look(&container(S::RUNNING, Some(HealthStatusEnum::HEALTHY), 0), 0), Look::Healthy);
        assert_eq!(look(&container(S::RUNNING, Some(HealthStatusEnum::STARTING), 0), 0), Look::Wait);
        assert!(matches!(look(&container(S::RUNNING, Some(HealthStatusEnum::UNHEALTHY), 0), 0), Look::Failed(_)));
    }
}
