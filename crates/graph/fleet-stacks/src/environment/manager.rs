//! The manager: our own program in the network, which makes accounts and rooms. It takes work from the config bucket and
//! writes there how it goes; it listens to nobody.

use fleet_objects::{
    ManagerSettings,
    manager::{MANAGER, OBSERVED, PROGRESS},
};

use super::{
    Parts,
    firewall::Role as Side,
    reads, role,
    services::{self, Place, STOP_SECONDS, TASKS},
};
use crate::{
    data::SECRET_FIELD,
    iam::{Policy, Statement, trust_for},
    resource::{
        ecs::{Container, HealthCheck, SecretVariable, Service, TaskDefinition, Variable},
        iam::Role,
    },
    settings::{Manager, Settings},
    template::{Template, json_text},
    value::{Text, text},
};

/// Adds it.
pub fn add(parts: &Parts<'_>, declared: &Manager, place: &Place<'_>, template: &mut Template) {
    let secret = parts.fleet_secret(template);
    let image = services::image_parameter(template, "ManagerImage", &declared.image);
    let logs = services::log_group(parts, template, "Manager");
    let starts = services::execution_role(parts, &logs, &[&declared.image], Vec::new());
    let starts = template.add("ManagerExecutionRole", starts.also(reads(secret.clone())));
    let acts = template.add("ManagerRole", manager_role(parts, place));
    let container = Container {
        name: "manager",
        image,
        essential: true,
        environment: vec![
            variable("FLEET_MANAGER", settings(parts.settings).into()),
            variable("FLEET_BUCKET", place.storage.bucket.reference()),
        ],
        // The value of one key of the secret, which is JSON.
        secrets: vec![SecretVariable {
            name: "FLEET_SECRET".to_owned(),
            value_from: text![secret, format!(":{SECRET_FIELD}::")],
        }],
        port_mappings: Vec::new(),
        mount_points: Vec::new(),
        health_check: declared.program.as_deref().map(health),
        stop_timeout: Some(STOP_SECONDS),
        log_configuration: services::log_to(parts, &logs, "manager"),
    };
    let task = services::task(parts, "manager", declared.size, starts.arn(), container);
    let task = template.add("ManagerTask", TaskDefinition { task_role_arn: Some(acts.arn()), ..task });
    let service = Service {
        // One at a time: a second one would stop when it finds that another one writes, and be right, but why begin.
        deployment_configuration: services::rolls(0, 100),
        availability_zone_rebalancing: "DISABLED",
        ..services::service(place, "manager", Side::Manager, task.reference())
    };
    template.add("ManagerService", service);
}

/// The program itself says whether the manager beside it goes on: its image has no shell.
fn health(program: &str) -> HealthCheck {
    let command = ["CMD", program, "manager", "--health"].map(str::to_owned).to_vec();
    HealthCheck { command, interval: 10, timeout: 10, retries: 3, start_period: 60 }
}

fn variable(name: &str, value: Text) -> Variable {
    Variable { name: name.to_owned(), value }
}

/// What it must know beside the bucket and the secret.
fn settings(settings: &Settings) -> String {
    json_text(&ManagerSettings {
        schema: ManagerSettings::SCHEMA,
        fleet: settings.fleet.clone(),
        environment: settings.environment.clone(),
        domain: settings.domain.clone(),
        account: settings.account.clone(),
        region: settings.region.clone(),
        kind: settings.homeserver.kind,
        homeserver: services::homeserver_url(&settings.domain),
    })
}

/// Reads work and what it wrote itself; writes progress and what it saw.
fn manager_role(parts: &Parts<'_>, place: &Place<'_>) -> Role {
    let bucket = place.storage.bucket.arn();
    let object = |name: String| text![bucket.clone(), format!("/{name}")];
    let policy = Policy::of([
        Statement::allow("ReadWork", &["s3:GetObject"], [object(format!("{MANAGER}*"))]),
        Statement::allow(
            "WriteProgress",
            &["s3:PutObject"],
            [object(format!("{PROGRESS}/*")), object(OBSERVED.to_owned())],
        ),
        Statement::allow("ListWork", &["s3:ListBucket"], [bucket.clone()]).when(
            "StringLike",
            "s3:prefix",
            format!("{MANAGER}*"),
        ),
    ]);
    role(parts, "The manager", trust_for(TASKS, &parts.settings.account), policy)
}
