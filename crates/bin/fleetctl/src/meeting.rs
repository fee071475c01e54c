//! [`Meeting`]: where the operator's side meets the manager of an environment on AWS: its config bucket, and the key that
//! comes of its fleet secret. Looked for when it is needed: an environment may be about to be made.

use std::sync::Arc;

use async_trait::async_trait;
use fleet_apply::{ProviderError, Scope, SystemClock};
use fleet_aws::Account;
use fleet_manager::{Mailbox, Reach, RemoteMatrix, Waits, protocol::Key};
use tokio::sync::OnceCell;

/// Finds bucket and key once.
struct Meeting {
    account: Account,
    scope: Scope,
    found: OnceCell<Mailbox>,
}

#[async_trait]
impl Reach for Meeting {
    async fn reach(&self) -> Result<Option<Mailbox>, ProviderError> {
        if let Some(mailbox) = self.found.get() {
            return Ok(Some(mailbox.clone()));
        }
        let Some((bucket, secret)) = self.account.bucket_and_secret(&self.scope).await? else { return Ok(None) };
        let mailbox = Mailbox::new(bucket, Key::of(&secret));
        Ok(Some(self.found.get_or_init(async || mailbox).await.clone()))
    }
}

/// Accounts and rooms of an environment by way of its manager.
pub fn remote(account: Account, scope: Scope) -> RemoteMatrix {
    let name = scope.whole();
    let look_at = format!(
        "look at its service, `aws ecs describe-services --cluster {name} --services manager`, and at its log, \
         `aws logs tail /ecs/{name}/manager`; it ignores what is not signed with the fleet secret of this environment"
    );
    let meeting = Meeting { account, scope: scope.clone(), found: OnceCell::new() };
    RemoteMatrix::new(scope, Arc::new(meeting), Arc::new(SystemClock), Waits::SERVICE, look_at)
}
