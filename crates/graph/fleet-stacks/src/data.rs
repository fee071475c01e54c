//! The `<environment>-data` stack: memory, rooms, the fleet secret and backups, kept together when the rest goes.

use crate::{
    iam::{Policy, Statement},
    resource::{
        backup::BackupVault,
        named,
        storage::{FileLifecycle, FileSystem, GenerateSecret, Secret},
    },
    settings::{Settings, data_stack},
    template::{RenderError, Rendered, Template, tags},
};

/// The field of the fleet secret, which is a JSON object.
pub const SECRET_FIELD: &str = "secret";
/// Letters and digits of the fleet secret: 62^48 are 285 bits.
const SECRET_LENGTH: u16 = 48;
/// Everything that an NFS client can do.
const CLIENT: [&str; 3] =
    ["elasticfilesystem:ClientMount", "elasticfilesystem:ClientWrite", "elasticfilesystem:ClientRootAccess"];

/// Name of the stack in addresses.
pub(crate) fn name(settings: &Settings) -> String {
    data_stack(&settings.environment)
}

/// Name of the fleet secret.
#[must_use]
pub fn secret_name(settings: &Settings) -> String {
    format!("{}/{}/fleet-secret", settings.fleet, settings.environment)
}

/// Renders it.
///
/// # Errors
/// [`RenderError`].
pub fn data(settings: &Settings) -> Result<Rendered, RenderError> {
    let description = format!("Data of {}: kept when the environment goes", settings.name());
    let mut template = Template::new(name(settings), description, tags(settings));
    let files = template.keep("FileSystem", file_system(settings));
    let secret = template.keep(
        "FleetSecret",
        Secret {
            name: secret_name(settings),
            description: "Everything secret of this environment is derived from it",
            generate_secret_string: GenerateSecret {
                secret_string_template: "{}",
                generate_string_key: SECRET_FIELD,
                password_length: SECRET_LENGTH,
                exclude_punctuation: true,
            },
        },
    );
    let vault = template.keep("BackupVault", BackupVault { backup_vault_name: settings.name() });
    template.output("FileSystemId", files.reference());
    template.output("FleetSecretArn", secret.reference());
    template.output("BackupVaultName", vault.reference());
    template.finish()
}

/// With a policy of its own EFS no longer lets everybody in: a client needs a role that allows it, and these two deny
/// what no role may: the whole file system, and plain text.
fn file_system(settings: &Settings) -> FileSystem {
    let any: [&str; 0] = [];
    FileSystem {
        encrypted: true,
        performance_mode: "generalPurpose",
        throughput_mode: "bursting",
        lifecycle_policies: vec![
            FileLifecycle { transition_to_ia: Some("AFTER_30_DAYS"), transition_to_primary_storage_class: None },
            FileLifecycle { transition_to_ia: None, transition_to_primary_storage_class: Some("AFTER_1_ACCESS") },
        ],
        file_system_policy: Policy::of([
            Statement::deny("OnlyThroughAnAccessPoint", &CLIENT, any).when(
                "Null",
                "elasticfilesystem:AccessPointArn",
                "true",
            ),
            Statement::deny("OnlyByTls", &CLIENT, any).when("Bool", "aws:SecureTransport", "false"),
        ]),
        file_system_tags: named(settings.name()),
    }
}
