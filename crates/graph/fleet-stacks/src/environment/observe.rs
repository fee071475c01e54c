//! Alarms, the metric of failed agent tasks, and the dashboard.

use serde_json::{Value, json};

use super::Parts;
use crate::{
    iam::{Policy, Principal, Statement},
    resource::{
        ecs::Cluster,
        logs::{
            Alarm, Dashboard, Dimension, EventPattern, EventRule, EventTarget, LogGroup, LogResourcePolicy,
            MetricFilter, MetricTransformation, TaskDetail,
        },
    },
    settings::Settings,
    template::{Handle, Template, json_text},
    value::{Text, text},
};

/// Seconds that one point of a metric stands for.
const PERIOD: u32 = 300;
/// Percent of the cluster's reserved CPU or memory.
const BUSY_PERCENT: u64 = 85;
/// Failed tasks within a period that are more than a bad start.
const FAILURES: u64 = 3;
/// Credits, in bytes, of a file system that soon is slow: a tenth of what it begins with (2.1 TiB).
const LOW_CREDITS: u64 = 231_000_000_000;
const INSIGHTS: &str = "ECS/ContainerInsights";

/// Adds everything that watches.
pub fn add(parts: &Parts<'_>, cluster: &Handle<Cluster>, template: &mut Template) {
    failures(parts, cluster, template);
    let name = parts.settings.name();
    let of_cluster = || vec![Dimension { name: "ClusterName", value: Text::from(name.as_str()) }];
    let homeserver = Dimension { name: "ServiceName", value: Text::from("homeserver") };
    let of_files = vec![Dimension { name: "FileSystemId", value: parts.file_system.clone() }];
    let alarms = [
        (
            "CpuAlarm",
            Alarm {
                alarm_description: "The cluster's tasks use nearly all of their CPU",
                ..alarm(&name, "cpu", "AWS/ECS", "CPUUtilization", of_cluster())
            },
        ),
        (
            "MemoryAlarm",
            Alarm {
                alarm_description: "The cluster's tasks use nearly all of their memory",
                ..alarm(&name, "memory", "AWS/ECS", "MemoryUtilization", of_cluster())
            },
        ),
        (
            "FailureAlarm",
            Alarm {
                alarm_description: "Agent tasks end by themselves, again and again",
                statistic: "Sum",
                evaluation_periods: 1,
                threshold: FAILURES,
                ..alarm(&name, "task-failures", &namespace(parts.settings), FAILED, Vec::new())
            },
        ),
        (
            "HomeserverAlarm",
            Alarm {
                alarm_description: "No homeserver runs: nobody can talk",
                statistic: "Minimum",
                period: 60,
                threshold: 1,
                comparison_operator: "LessThanThreshold",
                treat_missing_data: "breaching",
                ..alarm(
                    &name,
                    "homeserver-down",
                    INSIGHTS,
                    "RunningTaskCount",
                    [of_cluster(), vec![homeserver]].concat(),
                )
            },
        ),
        (
            "CreditAlarm",
            Alarm {
                alarm_description: "The file system soon is slow: its burst credits run out",
                statistic: "Minimum",
                threshold: LOW_CREDITS,
                comparison_operator: "LessThanThreshold",
                ..alarm(&name, "burst-credits", "AWS/EFS", "BurstCreditBalance", of_files)
            },
        ),
    ];
    for (id, alarm) in alarms {
        template.add(id, alarm);
    }
    template.add("Dashboard", Dashboard { dashboard_name: name, dashboard_body: dashboard(parts) });
}

/// An alarm on a percentage; callers change what is different.
fn alarm(name: &str, what: &str, namespace: &str, metric_name: &'static str, dimensions: Vec<Dimension>) -> Alarm {
    Alarm {
        alarm_name: format!("{name}-{what}"),
        alarm_description: "",
        namespace: namespace.to_owned(),
        metric_name,
        dimensions,
        statistic: "Average",
        period: PERIOD,
        evaluation_periods: 3,
        threshold: BUSY_PERCENT,
        comparison_operator: "GreaterThanOrEqualToThreshold",
        treat_missing_data: "notBreaching",
    }
}

const FAILED: &str = "FailedTasks";

fn namespace(settings: &Settings) -> String {
    format!("Fleet/{}", settings.name())
}

/// ECS tells EventBridge of every task that ends by itself; a log group keeps the events, a filter counts them.
fn failures(parts: &Parts<'_>, cluster: &Handle<Cluster>, template: &mut Template) {
    let settings = parts.settings;
    // EventBridge writes only to groups below this prefix.
    let group = template.add(
        "FailureLogs",
        LogGroup {
            log_group_name: format!("/aws/events/{}-task-failures", settings.name()).into(),
            retention_in_days: settings.log_days,
        },
    );
    let write = Statement::allow("Events", &["logs:CreateLogStream", "logs:PutLogEvents"], [group.arn()]);
    let by = Principal::Service { service: "events.amazonaws.com".to_owned() };
    template.add(
        "FailureLogPolicy",
        LogResourcePolicy {
            policy_name: format!("{}-task-failures", settings.name()),
            policy_document: policy_text(&Policy::of([write.by(by)]), group.arn()),
        },
    );
    template.add(
        "FailureRule",
        EventRule {
            description: "Tasks that ended by themselves",
            event_pattern: EventPattern {
                source: vec!["aws.ecs"],
                detail_type: vec!["ECS Task State Change"],
                detail: TaskDetail {
                    cluster_arn: vec![cluster.arn()],
                    last_status: vec!["STOPPED"],
                    stop_code: vec!["EssentialContainerExited", "TaskFailedToStart"],
                },
            },
            targets: vec![EventTarget {
                id: "logs",
                arn: text![settings.arn("logs", "log-group:"), group.reference()],
            }],
        },
    );
    template.add(
        "FailureMetric",
        MetricFilter {
            log_group_name: group.reference(),
            filter_pattern: "",
            metric_transformations: vec![MetricTransformation {
                metric_name: FAILED,
                metric_namespace: namespace(settings),
                metric_value: "1",
                default_value: 0,
            }],
        },
    );
}

/// A policy that CloudFormation takes as a string, with the reference that is in it kept one.
fn policy_text(policy: &Policy, reference: Text) -> Text {
    let placeholder = json_text(&reference);
    let text = json_text(policy);
    match text.split_once(&placeholder) {
        Some((before, after)) => text![format!("{before}\""), reference, format!("\"{after}")],
        None => Text::from(text),
    }
}

fn dashboard(parts: &Parts<'_>) -> Text {
    const FILES: &str = "@files@";
    let (name, region) = (parts.settings.name(), &parts.settings.region);
    let widget = |x: u32, y: u32, title: &str, metrics: Value| {
        json!({"type": "metric", "x": x, "y": y, "width": 12, "height": 6, "properties": {
            "title": title, "region": region, "view": "timeSeries", "stat": "Average", "period": PERIOD, "metrics": metrics,
        }})
    };
    let in_cluster = |metric: &str| json!([INSIGHTS, metric, "ClusterName", name]);
    let body = json!({"widgets": [
        widget(0, 0, "CPU and memory, percent", json!([
            ["AWS/ECS", "CPUUtilization", "ClusterName", name], ["AWS/ECS", "MemoryUtilization", "ClusterName", name],
        ])),
        widget(12, 0, "Tasks", json!([in_cluster("TaskCount"), in_cluster("ServiceCount")])),
        widget(0, 6, "Homeserver", json!([
            [INSIGHTS, "RunningTaskCount", "ClusterName", name, "ServiceName", "homeserver"],
            [INSIGHTS, "CpuUtilized", "ClusterName", name, "ServiceName", "homeserver"],
            [INSIGHTS, "MemoryUtilized", "ClusterName", name, "ServiceName", "homeserver"],
        ])),
        widget(12, 6, "Failed tasks", json!([[namespace(parts.settings), FAILED, {"stat": "Sum"}]])),
        widget(0, 12, "File system: burst credits", json!([["AWS/EFS", "BurstCreditBalance", "FileSystemId", FILES]])),
        widget(12, 12, "File system: bytes", json!([
            ["AWS/EFS", "DataReadIOBytes", "FileSystemId", FILES, {"stat": "Sum"}],
            ["AWS/EFS", "DataWriteIOBytes", "FileSystemId", FILES, {"stat": "Sum"}],
        ])),
    ]});
    let text = json_text(&body);
    let mut parts_of_text = Vec::new();
    for (at, literal) in text.split(FILES).enumerate() {
        if at > 0 {
            parts_of_text.push(parts.file_system.clone());
        }
        parts_of_text.push(Text::from(literal));
    }
    Text::joined(parts_of_text)
}
