//! Looks at the declared model servers now and then, so that `fleetctl status` can say which one is out of reach.
//! Nothing depends on the answer: an agent without a model still runs and joins its rooms.

use std::{collections::BTreeMap, time::Duration};

use serde::Serialize;
use tokio::net::TcpStream;

use crate::{
    http::{self, SendError},
    log,
    status::Status,
};

/// How often.
const PAUSE: Duration = Duration::from_secs(60);
/// How long one look may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// One model server as last seen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Probe {
    /// Base URL as the container sees it.
    pub url: String,
    /// Somebody answers there.
    pub reachable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
}

/// Looks at `urls` until the program ends.
pub fn watch(urls: Vec<String>, status: Status) {
    if urls.is_empty() {
        return;
    }
    tokio::spawn(async move {
        let mut last = BTreeMap::new();
        loop {
            let mut probes = Vec::new();
            for url in &urls {
                let why = look(url).await.err();
                if last.insert(url.clone(), why.clone()) != Some(why.clone()) {
                    match &why {
                        None => log::info("model server answers", &[("url", url)]),
                        Some(why) => log::warn("model server does not answer", &[("url", url), ("why", why)]),
                    }
                }
                probes.push(Probe { url: url.clone(), reachable: why.is_none(), why });
            }
            status.update(|report| report.models = probes);
            tokio::time::sleep(PAUSE).await;
        }
    });
}

/// Any HTTP answer will do; of an HTTPS server only that it accepts a connection is seen.
async fn look(url: &str) -> Result<(), String> {
    let uri: ::http::Uri = url.parse().map_err(|e| format!("not a URL: {e}"))?;
    if uri.scheme_str() == Some("http") {
        let models = format!("{}/models", url.trim_end_matches('/'));
        return match http::get(&models, PATIENCE).await {
            Ok(answer) if answer.status().is_server_error() => Err(format!("it answers {}", answer.status())),
            Ok(_) => Ok(()),
            Err(error) => Err(reason(&error)),
        };
    }
    let (host, port) = (uri.host().unwrap_or_default().to_owned(), uri.port_u16().unwrap_or(443));
    let connect = TcpStream::connect((host.trim_matches(['[', ']']), port));
    match tokio::time::timeout(PATIENCE, connect).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(source)) => Err(reason(&SendError::Connect { host, port, source })),
        Err(_) => Err(SendError::Timeout(PATIENCE).to_string()),
    }
}

fn reason(error: &SendError) -> String {
    match error {
        SendError::Connect { source, .. } if source.kind() == std::io::ErrorKind::ConnectionRefused => {
            format!(
                "{error}; if it runs on the host, it may listen on 127.0.0.1 only, where containers cannot reach it"
            )
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_nobody_runs_is_explained() {
        let port = fleet_sim::free_port();
        let why = look(&format!("http://127.0.0.1:{port}/v1")).await.unwrap_err();
        assert!(why.contains("127.0.0.1 only"), "{why}");
    }
}
