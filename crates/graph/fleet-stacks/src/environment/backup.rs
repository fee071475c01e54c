//! A copy of the file system every night.

use super::{Parts, role};
use crate::{
    iam::{Policy, Statement, trust_for},
    resource::backup::{BackupPlan, BackupSelection, Lifecycle, Plan, Rule, Selection},
    template::Template,
    value::{Text, text},
};

/// Every night at five, UTC.
const EVERY_NIGHT: &str = "cron(0 5 * * ? *)";
/// Minutes within which a backup begins.
const START_MINUTES: u32 = 60;
/// Minutes within which it ends.
const COMPLETION_MINUTES: u32 = 480;

/// Adds plan, selection and role.
pub fn add(parts: &Parts<'_>, vault: Text, days: u32, template: &mut Template) {
    let settings = parts.settings;
    let files = text![settings.arn("elasticfilesystem", "file-system/"), parts.file_system.clone()];
    let into = text![settings.arn("backup", "backup-vault:"), vault.clone()];
    // What AWSBackupServiceRolePolicyForBackup allows for EFS, on this file system and this vault only.
    let policy = Policy::of([
        Statement::allow(
            "ReadTheFileSystem",
            &["elasticfilesystem:Backup", "elasticfilesystem:DescribeTags"],
            [files.clone()],
        ),
        Statement::allow("IntoTheVault", &["backup:DescribeBackupVault", "backup:CopyIntoBackupVault"], [into]),
        Statement::allow("TagRecoveryPoints", &["backup:TagResource"], [settings.arn("backup", "recovery-point:*")]),
    ]);
    let trust = trust_for("backup.amazonaws.com", &settings.account);
    let acts_as = template.add("BackupRole", role(parts, "Makes backups of the file system", trust, policy));
    let plan = template.add(
        "BackupPlan",
        BackupPlan {
            backup_plan: Plan {
                backup_plan_name: settings.name(),
                backup_plan_rule: vec![Rule {
                    rule_name: "nightly",
                    target_backup_vault: vault,
                    schedule_expression: EVERY_NIGHT,
                    start_window_minutes: START_MINUTES,
                    completion_window_minutes: COMPLETION_MINUTES,
                    lifecycle: Lifecycle { delete_after_days: days },
                }],
            },
        },
    );
    template.add(
        "BackupSelection",
        BackupSelection {
            backup_plan_id: plan.plan_id(),
            backup_selection: Selection {
                selection_name: "files",
                iam_role_arn: acts_as.arn(),
                resources: vec![files],
            },
        },
    );
}
