//! [`Healthcheck`]: how an engine probes the containers of an image. Docker's addition to the OCI config, which engines
//! read there; kept of images that others made, and never declared by us: a fleet's own probes are its containers'.

use serde::{Deserialize, Serialize};

use crate::recipe::Inputs;

/// `HEALTHCHECK` of a Containerfile.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["CMD-SHELL", "…"]`, `["CMD", …]`; `["NONE"]` switches off what a base has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<Vec<String>>,
    /// Nanoseconds between two probes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<i64>,
    /// Nanoseconds that one may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<i64>,
    /// Nanoseconds in which a failure does not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_period: Option<i64>,
    /// Nanoseconds between two probes in that time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_interval: Option<i64>,
    /// Failures in a row until it counts as unhealthy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retries: Option<i64>,
}

impl Healthcheck {
    pub(crate) fn add_hash_inputs(&self, inputs: &mut Inputs) {
        self.test.iter().flatten().for_each(|word| inputs.add("health.test", word));
        for (field, value) in [
            ("health.interval", self.interval),
            ("health.timeout", self.timeout),
            ("health.start-period", self.start_period),
            ("health.start-interval", self.start_interval),
            ("health.retries", self.retries),
        ] {
            value.iter().for_each(|value| inputs.add(field, value));
        }
    }
}
