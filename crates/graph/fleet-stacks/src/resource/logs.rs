//! Logs, metrics made of them, alarms and the dashboard.

use std::collections::BTreeMap;

use super::properties;
use crate::{template::Handle, value::Text};

properties! {
    /// Where output goes, for a while.
    LogGroup = "AWS::Logs::LogGroup" { log_group_name: Text, retention_in_days: u32 }
    /// Lets a service of AWS write to groups.
    LogResourcePolicy = "AWS::Logs::ResourcePolicy" { policy_name: String, policy_document: Text }
    /// Counts lines.
    MetricFilter = "AWS::Logs::MetricFilter" {
        log_group_name: Text,
        filter_pattern: &'static str,
        metric_transformations: Vec<MetricTransformation>,
    }
    /// Into which metric.
    MetricTransformation {
        metric_name: &'static str,
        metric_namespace: String,
        metric_value: &'static str,
        default_value: u8,
    }
    /// Sends events somewhere.
    EventRule = "AWS::Events::Rule" { description: &'static str, event_pattern: EventPattern, targets: Vec<EventTarget> }
    /// Which events.
    EventPattern {
        #[serde(rename = "source")] source: Vec<&'static str>,
        #[serde(rename = "detail-type")] detail_type: Vec<&'static str>,
        #[serde(rename = "detail")] detail: TaskDetail,
    }
    /// Which tasks.
    TaskDetail {
        #[serde(rename = "clusterArn")] cluster_arn: Vec<Text>,
        #[serde(rename = "lastStatus")] last_status: Vec<&'static str>,
        #[serde(rename = "stopCode")] stop_code: Vec<&'static str>,
    }
    /// Where to.
    EventTarget { id: &'static str, arn: Text }
    /// Tells when a number is where it should not be.
    Alarm = "AWS::CloudWatch::Alarm" {
        alarm_name: String,
        alarm_description: &'static str,
        namespace: String,
        metric_name: &'static str,
        dimensions: Vec<Dimension>,
        statistic: &'static str,
        period: u32,
        evaluation_periods: u8,
        threshold: u64,
        comparison_operator: &'static str,
        treat_missing_data: &'static str,
    }
    /// Of what.
    Dimension { name: &'static str, value: Text }
    /// What operators look at.
    Dashboard = "AWS::CloudWatch::Dashboard" { dashboard_name: String, dashboard_body: Text }
}

impl Handle<LogGroup> {
    /// Its ARN, with `:*` for its streams at the end.
    pub fn arn(&self) -> Text {
        self.attribute("Arn")
    }
}

/// Options of the `awslogs` driver.
pub fn awslogs(group: Text, region: &str, prefix: &'static str) -> BTreeMap<&'static str, Text> {
    BTreeMap::from([
        ("awslogs-group", group),
        ("awslogs-region", Text::from(region)),
        ("awslogs-stream-prefix", Text::from(prefix)),
    ])
}
