//! The `<environment>` stack: network, cluster, services and what watches them. All of it can be made again.

mod backup;
mod bastion;
mod firewall;
mod manager;
mod network;
mod observe;
mod services;
mod storage;

use fleet_objects::StackParameter;

use crate::{
    data,
    iam::{Policy, Statement},
    resource::iam::{InlinePolicy, Role},
    settings::Settings,
    template::{RenderError, Rendered, Template, tags},
    value::Text,
};

pub(crate) use network::letter as zone_letter;
pub use services::{homeserver_host, homeserver_url, web_host};

/// What the parts of the stack take from one another.
struct Parts<'s> {
    settings: &'s Settings,
    /// Id of the file system, of the data stack.
    file_system: Text,
}

impl Parts<'_> {
    /// ARN of the fleet secret, which the data stack has.
    fn fleet_secret(&self, template: &mut Template) -> Text {
        let from = StackParameter::Output { stack: data::name(self.settings), output: "FleetSecretArn".to_owned() };
        template.parameter("FleetSecretArn", "String", "Fleet secret of the data stack", from)
    }
}

/// Lets ECS read the fleet secret for a task that it starts.
fn reads(fleet_secret: Text) -> Statement {
    Statement::allow("ReadFleetSecret", &["secretsmanager:GetSecretValue"], [fleet_secret])
}

/// Renders it.
///
/// # Errors
/// [`RenderError`].
pub fn environment(settings: &Settings) -> Result<Rendered, RenderError> {
    let name = &settings.environment;
    let mut template = Template::new(name, format!("The fleet {} in {name}", settings.fleet), tags(settings));
    let from = |output: &str| StackParameter::Output { stack: data::name(settings), output: output.to_owned() };
    let file_system =
        template.parameter("FileSystemId", "String", "File system of the data stack", from("FileSystemId"));
    let parts = Parts { settings, file_system };

    let network = network::add(&parts, &mut template)?;
    let firewall = firewall::add(&parts, &network, &mut template);
    network::endpoints(&parts, &network, &firewall, &mut template);
    let storage = storage::add(&parts, &network, &firewall, &mut template);
    let cluster = services::cluster(&parts, &mut template);
    let zone = services::zone(&parts, &network, &mut template);
    let place =
        services::Place { network: &network, firewall: &firewall, storage: &storage, cluster: &cluster, zone: &zone };
    services::homeserver(&parts, &place, &mut template);
    if let Some(web) = &settings.web {
        services::web(&parts, web, &place, &mut template);
    }
    if let Some(manager) = &settings.manager {
        manager::add(&parts, manager, &place, &mut template);
    }
    services::agents(&parts, &mut template);
    bastion::add(&parts, &network, &firewall, &mut template);
    observe::add(&parts, &cluster, &mut template);
    if let Some(days) = settings.backup_days {
        let vault =
            template.parameter("BackupVaultName", "String", "Backup vault of the data stack", from("BackupVaultName"));
        backup::add(&parts, vault, days, &mut template);
    }
    template.finish()
}

/// A role of this environment, within its path and under the account's boundary.
fn role(parts: &Parts<'_>, description: &'static str, trust: Policy, policy: Policy) -> Role {
    Role {
        role_name: None,
        path: parts.settings.role_path(),
        description,
        assume_role_policy_document: trust,
        permissions_boundary: Some(parts.settings.boundary().into()),
        max_session_duration: None,
        policies: vec![InlinePolicy { policy_name: "own", policy_document: policy }],
        managed_policy_arns: Vec::new(),
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use fleet_model::model::{HomeserverKind, Size};

    use crate::settings::{Homeserver, Manager, Settings, Web};

    /// Environment `dev` of the architecture seed.
    pub(crate) fn settings() -> Settings {
        Settings {
            fleet: "anycompany".to_owned(),
            environment: "dev".to_owned(),
            domain: "anycompany.corp".to_owned(),
            account: "111122223333".to_owned(),
            region: "us-east-1".to_owned(),
            images: ["agent", "conduit", "element"].map(str::to_owned).into(),
            cidr: "10.0.0.0/16".parse().unwrap(),
            zones: 2,
            nat_gateways: 1,
            agents: 50,
            arm: false,
            homeserver: Homeserver {
                image: "conduit".to_owned(),
                kind: HomeserverKind::Conduit,
                size: Size { cpu: 1024, memory_mib: 2048 },
            },
            web: Some(Web { image: "element".to_owned(), size: Size { cpu: 256, memory_mib: 512 } }),
            manager: Some(Manager {
                image: "manager".to_owned(),
                program: Some("/usr/local/bin/fleetctl".to_owned()),
                size: Size { cpu: 256, memory_mib: 512 },
            }),
            agents_get_fleet_secret: false,
            log_days: 7,
            backup_days: Some(7),
        }
    }
}
