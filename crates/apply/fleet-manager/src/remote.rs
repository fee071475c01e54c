//! [`RemoteMatrix`]: the operator's side, a provider of accounts and rooms like the one that speaks to a homeserver itself.
//!
//! All changes of a plan are one object of work, handed over when the first of them is asked for; deletions are another
//! one, since agents are removed in between. What was seen comes from the manager's own object, with its age.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use fleet_apply::{Applied, Clock, Events, Provider, ProviderError, Ready, Scope, Silent};
use fleet_model::Address;
use fleet_plan::{Action, Change, State};

use crate::{
    follow::Follow,
    mailbox::{MailError, Mailbox},
    manager::{millis, short},
    protocol::{self, Due, Refused, Seen, Work, is_ours},
};

/// Finds the place where operator and manager meet.
#[async_trait]
pub trait Reach: Send + Sync {
    /// The mailbox; `None` while the environment has no bucket or no fleet secret yet.
    ///
    /// # Errors
    /// When that cannot be found out.
    async fn reach(&self) -> Result<Option<Mailbox>, ProviderError>;
}

/// A place that is known already.
#[async_trait]
impl Reach for Mailbox {
    async fn reach(&self) -> Result<Option<Mailbox>, ProviderError> {
        Ok(Some(self.clone()))
    }
}

/// How long the operator's side waits.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// Looks for progress.
    pub poll: Duration,
    /// Nothing heard for this long is an error.
    pub silence: Duration,
    /// An observation that is older than this is asked for anew before anything is applied.
    pub fresh: Duration,
}

impl Waits {
    /// For the service: it says every 15 s that it is there, and looks around every 60 s.
    pub const SERVICE: Self =
        Self { poll: Duration::from_secs(1), silence: Duration::from_secs(90), fresh: Duration::from_secs(120) };
}

/// A plan stands on an observation for no longer than this; the manager ignores work that stands on one of a day ago.
const BASE_LASTS: Duration = Duration::from_secs(12 * 60 * 60);
/// For messages.
const MANAGER: &str = "service/manager";

/// Accounts and rooms of a homeserver that only its own network reaches.
pub struct RemoteMatrix {
    scope: Scope,
    reach: Arc<dyn Reach>,
    clock: Arc<dyn Clock>,
    waits: Waits,
    /// Where a person looks when the manager is silent.
    look_at: String,
    /// Ask for a new observation where the one that is there is old.
    asks: AtomicBool,
    known: Mutex<Known>,
    followed: tokio::sync::Mutex<BTreeMap<String, Arc<tokio::sync::Mutex<Follow>>>>,
}

#[derive(Default)]
struct Known {
    /// Changes of the plan that is being executed.
    due: Vec<Due>,
    wanted: Vec<Address>,
    /// When the observation was made that plans stand on.
    base: Option<u64>,
    remark: Option<String>,
}

impl RemoteMatrix {
    /// `look_at` says where a person looks when the manager is silent: its service, its log group.
    #[must_use]
    pub fn new(scope: Scope, reach: Arc<dyn Reach>, clock: Arc<dyn Clock>, waits: Waits, look_at: String) -> Self {
        let (known, followed) = (Mutex::default(), tokio::sync::Mutex::default());
        Self { scope, reach, clock, waits, look_at, asks: AtomicBool::new(false), known, followed }
    }

    /// For who is about to change something: an observation that is old, or of other things, is asked for anew. That is
    /// a write, so looking alone never does it.
    pub fn ask(&self) {
        self.asks.store(true, Ordering::Relaxed);
    }

    /// How old what was observed is, for people.
    #[must_use]
    pub fn remark(&self) -> Option<String> {
        self.known().remark.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn seen(&self, mailbox: &Mailbox) -> Result<Option<Seen>, ProviderError> {
        match mailbox.seen(&self.scope.fleet, &self.scope.environment).await.map_err(unreadable)? {
            None => Ok(None),
            Some(Ok(seen)) => Ok(Some(seen)),
            Some(Err(Refused::Schema(schema))) => Err(ProviderError::Denied {
                system: MANAGER.to_owned(),
                why: format!(
                    "what it saw has schema {schema}: it is another version than this fleetctl; apply to renew it"
                ),
            }),
            Some(Err(why)) => Err(ProviderError::Denied {
                system: MANAGER.to_owned(),
                why: format!(
                    "{} cannot be trusted: {why}; remove it, and look who can write to the bucket",
                    protocol::OBSERVED
                ),
            }),
        }
    }

    /// What was seen, fresh where that was asked for and the manager answers.
    async fn look(&self, mailbox: &Mailbox, wanted: &[Address]) -> Result<State, ProviderError> {
        let Some(mut seen) = self.seen(mailbox).await? else {
            return Ok(unseen(format!("{MANAGER} has not looked around yet: accounts and rooms are seen once it has")));
        };
        let serves = covers(&seen, wanted) && self.age(&seen) <= self.waits.fresh && seen.state.unseen.is_empty();
        if self.asks.load(Ordering::Relaxed) && !serves {
            match self.fresh(mailbox).await {
                Ok(()) => seen = self.seen(mailbox).await?.unwrap_or(seen),
                // Applying may be what mends it; nothing is taken for granted meanwhile.
                Err(ProviderError::Unreachable { why, .. }) => {
                    return Ok(unseen(format!("{MANAGER} does not answer: {why}")));
                }
                Err(error) => return Err(error),
            }
        }
        let mut remark = format!("accounts and rooms are as {MANAGER} saw them {} ago", ago(self.age(&seen)));
        if !covers(&seen, wanted) {
            remark += ", when something else was declared";
        }
        let mut known = self.known();
        known.base = Some(seen.at);
        known.remark = Some(remark);
        Ok(seen.state)
    }

    fn age(&self, seen: &Seen) -> Duration {
        let at = SystemTime::UNIX_EPOCH + Duration::from_millis(seen.at);
        self.clock.now().duration_since(at).unwrap_or_default()
    }

    /// Has the manager look around.
    async fn fresh(&self, mailbox: &Mailbox) -> Result<(), ProviderError> {
        let follow = self.hand_over(mailbox, Vec::new(), millis(self.clock.now())).await?;
        let mut follow = follow.lock().await;
        while !follow.over {
            self.hear(&mut follow, &Silent).await?;
        }
        Ok(())
    }

    /// Writes an object of work, once.
    async fn hand_over(
        &self,
        mailbox: &Mailbox,
        changes: Vec<Due>,
        base: u64,
    ) -> Result<Arc<tokio::sync::Mutex<Follow>>, ProviderError> {
        let wanted = self.known().wanted.clone();
        let Scope { fleet, environment, .. } = self.scope.clone();
        let (id, text) = Work { fleet, environment, base, changes, wanted }.seal(&mailbox.key);
        let mut followed = self.followed.lock().await;
        if let Some(follow) = followed.get(&id) {
            return Ok(Arc::clone(follow));
        }
        // One that is there already is the same work, from somebody else or from a run that was interrupted.
        mailbox.put_new(&protocol::work_object(&id), text).await.map_err(unreadable)?;
        let follow = Follow::new(mailbox.clone(), id.clone(), self.clock.now());
        let follow = Arc::new(tokio::sync::Mutex::new(follow));
        followed.insert(id, Arc::clone(&follow));
        Ok(follow)
    }

    /// Reads on, or waits a little; an error when nothing was heard for too long.
    async fn hear(&self, follow: &mut Follow, events: &dyn Events) -> Result<(), ProviderError> {
        if follow.read(events).await.map_err(unreadable)? {
            follow.heard = self.clock.now();
            return Ok(());
        }
        if self.clock.now().duration_since(follow.heard).unwrap_or_default() > self.waits.silence {
            let (seconds, work, look_at) = (self.waits.silence.as_secs(), short(&follow.id), &self.look_at);
            let why = format!("nothing was heard of work {work} for {seconds} s; {look_at}");
            return Err(ProviderError::Unreachable { system: MANAGER.to_owned(), why });
        }
        self.clock.sleep(self.waits.poll).await;
        Ok(())
    }

    /// The changes that are handed over together with this one, and what they stand on.
    fn together_with(&self, change: &Change) -> (Vec<Due>, u64) {
        let known = self.known();
        let deletes = |action: Action| action == Action::Delete;
        let alike = known.due.iter().filter(|due| deletes(due.action) == deletes(change.action));
        let mut changes: Vec<Due> = alike.cloned().collect();
        if !changes.iter().any(|due| due.address == change.address) {
            changes = vec![Due::of(change)];
        }
        (changes, known.base.unwrap_or_else(|| millis(self.clock.now())))
    }
}

#[async_trait]
impl Provider for RemoteMatrix {
    fn name(&self) -> &'static str {
        "manager"
    }

    fn owns(&self, address: &Address) -> bool {
        is_ours(address)
    }

    async fn observe(&self, wanted: &[Address]) -> Result<State, ProviderError> {
        let wanted: Vec<Address> = wanted.iter().filter(|address| is_ours(address)).cloned().collect();
        self.known().wanted.clone_from(&wanted);
        match self.reach.reach().await {
            Ok(Some(mailbox)) => self.look(&mailbox, &wanted).await,
            // Who may only plan has no secret, and so cannot tell whether what the manager wrote is true.
            Err(ProviderError::Denied { why, .. }) => {
                Ok(unseen(format!("accounts and rooms could not be seen: {why}")))
            }
            Err(error) => Err(error),
            Ok(None) => Ok(unseen(format!("{MANAGER} is not there yet: accounts and rooms are seen once it is"))),
        }
    }

    fn begin(&self, changes: &[&Change]) {
        let mut known = self.known();
        known.due = changes.iter().map(|change| Due::of(change)).collect();
        // Where nothing was seen, or long ago, the present time stands for it: one for all changes.
        let now = millis(self.clock.now());
        let lasts = u64::try_from(BASE_LASTS.as_millis()).unwrap_or(u64::MAX);
        known.base = known.base.filter(|base| now.saturating_sub(*base) < lasts).or(Some(now));
    }

    async fn apply(&self, change: &Change, _: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        let address = &change.address;
        let failed = |why: &str| ProviderError::failed(address, why).help(&self.look_at);
        let mailbox = self.reach.reach().await?;
        let mailbox =
            mailbox.ok_or_else(|| failed("the environment has no bucket or no fleet secret to hand it over with"))?;
        let (changes, base) = self.together_with(change);
        let all = changes.len();
        let follow = self.hand_over(&mailbox, changes, base).await?;
        loop {
            // Whoever has it reads for all.
            let mut follow = follow.lock().await;
            // The last of them waits for the summary: by then the manager has looked at what came of all, and who plans next
            // sees that.
            if let Some(end) = follow.ends.get(address).filter(|_| follow.over || follow.ends.len() < all) {
                return end.clone().result(address);
            }
            if follow.over {
                return Err(failed("the manager's summary does not mention it"));
            }
            self.hear(&mut follow, events).await?;
        }
    }
}

fn unseen(text: String) -> State {
    State { unseen: vec![text], ..State::default() }
}

fn covers(seen: &Seen, wanted: &[Address]) -> bool {
    wanted.iter().all(|address| seen.wanted.contains(address))
}

#[allow(clippy::needless_pass_by_value, reason = "used as a function for map_err")]
fn unreadable(error: MailError) -> ProviderError {
    let why = error.to_string();
    ProviderError::Unreachable { system: "the config bucket".to_owned(), why }
}

/// A length of time as people say it.
fn ago(age: Duration) -> String {
    match age.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
