//! The backup vault: its recovery points, and its end.

use std::time::Duration;

use serde_json::Value;
use url::form_urlencoded;

use crate::{
    account::Account,
    error::AwsError,
    pauses::Pauses,
    rates::Rate,
    signed::{Ask, Service},
};

/// The resource of the AWS Backup API.
const VAULTS: &str = "/backup-vaults";
/// Recovery points are gone within this.
const GONE_WITHIN: Duration = Duration::from_secs(900);
/// What AWS Backup says of something that is not there.
const ABSENT: &str = "ResourceNotFoundException";

impl Account {
    /// ARNs of the recovery points in a vault; `None` where there is no such vault.
    ///
    /// # Errors
    /// A call that fails.
    pub(crate) async fn recovery_points(&self, vault: &str) -> Result<Option<Vec<String>>, AwsError> {
        // Of a vault that is not there AWS says "denied", as of one that is somebody else's: so the list is asked.
        let vaults = self.backups("ListBackupVaults", &format!("{VAULTS}/"), "BackupVaultList").await?;
        if !vaults.iter().any(|one| one["BackupVaultName"] == vault) {
            return Ok(None);
        }
        let path = format!("{VAULTS}/{}/recovery-points/", encoded(vault));
        let points = self.backups("ListRecoveryPointsByBackupVault", &path, "RecoveryPoints").await?;
        Ok(Some(points.iter().filter_map(|one| one["RecoveryPointArn"].as_str()).map(str::to_owned).collect()))
    }

    /// Removes every recovery point of a vault, then the vault; one that is gone is right. Returns how many there were.
    ///
    /// # Errors
    /// A call that fails; recovery points that do not go.
    pub(crate) async fn remove_vault(&self, vault: &str) -> Result<usize, AwsError> {
        const CALL: &str = "DeleteBackupVault";
        let Some(points) = self.recovery_points(vault).await? else { return Ok(0) };
        for point in &points {
            let path = format!("{VAULTS}/{}/recovery-points/{}", encoded(vault), encoded(point));
            self.gone("DeleteRecoveryPoint", path).await?;
        }
        let mut pauses = Pauses::within(GONE_WITHIN);
        while self.recovery_points(vault).await?.is_some_and(|left| !left.is_empty()) {
            if !pauses.pause().await {
                let why = format!("recovery points of {vault} are still being removed; run the same command again");
                return Err(AwsError::Refused { call: CALL, code: "NotEmpty".to_owned(), why });
            }
        }
        self.gone(CALL, format!("{VAULTS}/{}", encoded(vault))).await?;
        Ok(points.len())
    }

    async fn gone(&self, call: &'static str, target: String) -> Result<(), AwsError> {
        match self.signed.ask(&ask(call, "DELETE", target)).await {
            Err(error) if error.code() == ABSENT => Ok(()),
            done => done.map(drop),
        }
    }

    /// All of a list.
    async fn backups(&self, call: &'static str, path: &str, field: &str) -> Result<Vec<Value>, AwsError> {
        let (mut found, mut next) = (Vec::new(), None::<String>);
        loop {
            let query = next.as_deref().map(|next| ("nextToken", next));
            let query = [("maxResults", "1000")].into_iter().chain(query);
            let query = form_urlencoded::Serializer::new(String::new()).extend_pairs(query).finish();
            let answer = self.signed.ask(&ask(call, "GET", format!("{path}?{query}"))).await?.json();
            found.extend(answer[field].as_array().into_iter().flatten().cloned());
            next = answer["NextToken"].as_str().filter(|token| !token.is_empty()).map(str::to_owned);
            if next.is_none() {
                return Ok(found);
            }
        }
    }
}

fn ask(call: &'static str, method: &'static str, target: String) -> Ask {
    let (headers, body) = (Vec::new(), Vec::new());
    Ask { service: Service::Backup, call, method, target, headers, body, rate: Rate::Unknown, repeatable: true }
}

/// A part of a path: names and ARNs hold nothing that forms and paths encode differently.
fn encoded(part: &str) -> String {
    form_urlencoded::byte_serialize(part.as_bytes()).collect()
}
