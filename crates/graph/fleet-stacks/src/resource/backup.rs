//! AWS Backup.

use super::properties;
use crate::{template::Handle, value::Text};

properties! {
    /// Where recovery points are.
    BackupVault = "AWS::Backup::BackupVault" { backup_vault_name: String }
    /// When they are made.
    BackupPlan = "AWS::Backup::BackupPlan" { backup_plan: Plan }
    /// Its content.
    Plan { backup_plan_name: String, backup_plan_rule: Vec<Rule> }
    /// One schedule.
    Rule {
        rule_name: &'static str,
        target_backup_vault: Text,
        schedule_expression: &'static str,
        start_window_minutes: u32,
        completion_window_minutes: u32,
        lifecycle: Lifecycle,
    }
    /// For how long.
    Lifecycle { delete_after_days: u32 }
    /// Of what.
    BackupSelection = "AWS::Backup::BackupSelection" { backup_plan_id: Text, backup_selection: Selection }
    /// Its content.
    Selection { selection_name: &'static str, iam_role_arn: Text, resources: Vec<Text> }
}

impl Handle<BackupPlan> {
    /// Its id.
    pub fn plan_id(&self) -> Text {
        self.attribute("BackupPlanId")
    }
}
