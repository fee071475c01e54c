//! [`Sharing`]: what a team shares of an environment on AWS, whoever applies it from wherever: history and lease in the state
//! bucket of the account.
//!
//! The lease is taken only when something is to be changed: an apply with nothing to do writes nothing.

use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use fleet_aws::Account;
use fleet_model::model::Target;
use fleet_store::{
    Depth, GenerationError, HeldLease, History, Holder, LeaseError, Leased, LocalHistory, SharedHistory,
};
use tokio::{sync::oneshot, task::JoinHandle};

use crate::{
    cloud, context::Context, error::Failure, exit::Exit, interrupts::Interrupts, pipeline::Prepared, ui::out::tell,
    world::unobservable,
};

/// A lease is renewed this often: well within its term, also when one attempt or two fail.
const RENEW_EVERY: Duration = Duration::from_secs(30);

/// History and lease of one environment on AWS.
pub struct Sharing {
    environment: String,
    /// In the state bucket; `None` where nobody has prepared the account.
    shared: Option<SharedHistory>,
    /// What this checkout has of it.
    copied: LocalHistory,
    by: Holder,
}

impl Sharing {
    /// Finds the state bucket and copies what is new there.
    ///
    /// # Errors
    /// A bucket that cannot be read.
    pub async fn open(account: &Account, prepared: &Prepared, depth: Depth) -> Result<Self, Failure> {
        let (scope, store) = (&prepared.scope, &prepared.opened.store);
        let name = prepared.history_name();
        let bucket = account.state_bucket(scope).await.map_err(unobservable)?;
        let shared = bucket.map(|bucket| {
            SharedHistory::new(bucket, (&scope.fleet, &scope.environment), Arc::clone(store), name.clone())
        });
        let sharing = Self {
            environment: scope.environment.clone(),
            shared,
            copied: LocalHistory::new(Arc::clone(store), name),
            by: holder(prepared, ""),
        };
        sharing.refresh(depth).await?;
        Ok(sharing)
    }

    async fn refresh(&self, depth: Depth) -> Result<(), Failure> {
        let Some(shared) = &self.shared else { return Ok(()) };
        shared
            .refresh(depth)
            .await
            .map_err(|error: GenerationError| Failure::caused(Exit::Failed, "the state bucket cannot be read", &error))
    }

    /// What is recorded.
    pub fn history(&self) -> &dyn History {
        match &self.shared {
            Some(shared) => shared,
            None => &self.copied,
        }
    }

    /// What is in the state bucket; `None` where nobody has prepared the account.
    pub const fn shared(&self) -> Option<&SharedHistory> {
        self.shared.as_ref()
    }

    /// What a person should know before they apply.
    pub fn remark(&self) -> Option<String> {
        self.shared.is_none().then(|| {
            format!(
                "the account has no state bucket, so there is no history to compare with; apply needs one: fleetctl bootstrap -e {} --repository OWNER/NAME",
                self.environment
            )
        })
    }

    /// See [`crate::world::Outside::may_change`].
    ///
    /// # Errors
    /// No state bucket; exit code 8 when somebody else is at work.
    pub async fn may_change(&self) -> Result<(), Failure> {
        if self.shared.is_none() {
            return Err(Failure::new(
                Exit::Failed,
                "the account is not prepared: it has no state bucket to record in what is applied, and nobody could see who is at work",
            )
            .hint(format!(
                "its administrator prepares it once: fleetctl bootstrap -e {} --repository OWNER/NAME",
                self.environment
            )));
        }
        self.nobody_works().await
    }

    /// Refuses while somebody else changes the environment from elsewhere. Only reads; without a state bucket nobody can tell.
    ///
    /// # Errors
    /// Exit code 8 when somebody else is at work.
    pub async fn nobody_works(&self) -> Result<(), Failure> {
        let Some(shared) = &self.shared else { return Ok(()) };
        match shared.holder(SystemTime::now()).await.map_err(|error| untakable(&error))? {
            Some(holder) => Err(held(&self.environment, Some(&holder))),
            None => Ok(()),
        }
    }

    /// See [`crate::world::Outside::keep_out`]. Without a state bucket there is nobody to keep out.
    ///
    /// # Errors
    /// Exit code 8 when somebody else was faster.
    pub async fn keep_out(&self, context: &Context, what: &str) -> Result<Option<Kept>, Failure> {
        let Some(shared) = &self.shared else { return Ok(None) };
        let by = Holder { what: doing(what, &self.environment), ..self.by.clone() };
        match shared.ask_lease(&by, SystemTime::now()).await.map_err(|error| untakable(&error))? {
            Leased::Held(holder) => Err(held(&self.environment, holder.as_ref())),
            Leased::Ours(lease) => {
                let kept = Kept::new(lease, Arc::clone(&context.interrupts));
                // What was recorded since we looked belongs to whoever had the lease until now.
                if let Err(failure) = self.refresh(Depth::Newest).await {
                    kept.release().await;
                    return Err(failure);
                }
                Ok(Some(kept))
            }
        }
    }

    /// Does something that nobody else may do at the same time, and that may be broken off anywhere: a person who asks, and
    /// the loss of the lease, end it at once.
    ///
    /// # Errors
    /// Exit code 8 when somebody else is at work, or took over; that of the signal when it was broken off; its own.
    pub async fn alone<T>(
        &self,
        context: &Context,
        what: &str,
        doing: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let kept = self.keep_out(context, what).await?;
        let done = context.interrupts.unless_asked(doing).await;
        if let Some(kept) = kept {
            kept.release().await;
        }
        done.unwrap_or_else(|| {
            Err(Failure::new(context.interrupts.exit(), format!("{what} was broken off"))
                .hint("what was removed is gone; the same command, run again, goes on"))
        })
    }
}

/// Copies what is recorded of an environment on AWS, for who tells of it. Where that cannot be read, what this checkout saw last
/// is told of, and a person is told so.
///
/// # Errors
/// Never for an environment of another target; an environment that is not declared.
pub async fn recall(context: &Context, prepared: &Prepared) -> Result<(), Failure> {
    if prepared.environment()?.target == Target::Docker {
        return Ok(());
    }
    let opened = async {
        let (account, _) = cloud::account(context, prepared).await?;
        Sharing::open(&account, prepared, Depth::All).await
    };
    let why = match opened.await {
        Ok(sharing) if sharing.shared.is_some() => None,
        Ok(_) => Some("there is none in the account".to_owned()),
        Err(failure) => Some(format!("{}: {}", failure.message, failure.causes.join(": "))),
    };
    context.tell_notes(&prepared.opened.store);
    if let Some(why) = why {
        tell!("warning: this is what this checkout saw last of the state bucket; {why}");
    }
    Ok(())
}

/// A lease that is renewed until it is released.
pub struct Kept {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Kept {
    fn new(lease: Box<dyn HeldLease>, interrupts: Arc<Interrupts>) -> Self {
        let (stop, stopped) = oneshot::channel();
        Self { stop, task: tokio::spawn(keep(lease, stopped, interrupts)) }
    }

    /// Lets others work.
    pub async fn release(self) {
        let _ = self.stop.send(());
        let _ = self.task.await;
    }
}

async fn keep(mut lease: Box<dyn HeldLease>, mut stopped: oneshot::Receiver<()>, interrupts: Arc<Interrupts>) {
    loop {
        tokio::select! {
            _ = &mut stopped => break,
            () = tokio::time::sleep(RENEW_EVERY) => {}
        }
        match lease.renew(SystemTime::now()).await {
            Ok(()) => {}
            Err(error @ LeaseError::Lost { .. }) => {
                tell!("stopping: {error}; nothing further is begun");
                interrupts.overtaken();
                return;
            }
            Err(error) => tell!("warning: {error}; tried again in {} s", RENEW_EVERY.as_secs()),
        }
    }
    if let Err(error) = lease.release().await {
        tell!("warning: {error}; it runs out by itself within minutes");
    }
}

/// This process, as leases name it.
pub fn holder(prepared: &Prepared, what: &str) -> Holder {
    Holder::this_process(crate::machine::user(), doing(what, &prepared.scope.environment))
}

fn doing(what: &str, environment: &str) -> String {
    format!("{what} -e {environment}")
}

/// Somebody else works on the environment: who, where, since when, and what to do.
pub fn held(environment: &str, holder: Option<&Holder>) -> Failure {
    let Some(holder) = holder else {
        return Failure::new(Exit::LeaseHeld, format!("somebody is working on {environment}"))
            .hint("wait for it to end, and run this again");
    };
    let Holder { who, host, pid, since, what, until } = holder;
    let since = crate::ui::time(*since);
    let failure = Failure::new(
        Exit::LeaseHeld,
        format!("{who} on {host} (process {pid}, `{what}`, since {since}) is working on {environment}"),
    );
    match until {
        None => failure.hint("wait for it to end; the lease ends with its process, there is nothing to unlock"),
        Some(until) => failure.hint(format!(
            "wait for it to end; if it was killed, its lease runs out by itself soon after {}, there is nothing to unlock",
            crate::ui::time(*until)
        )),
    }
}

fn untakable(error: &LeaseError) -> Failure {
    Failure::caused(Exit::Failed, "the lease cannot be taken", error)
}
