//! [`Manager`]: the side inside the network. It takes objects of work one at a time, makes them true, tells how it goes, and
//! writes down what it sees, after work and again and again.
//!
//! Killed anywhere, the next one goes on: what ended well is kept, what was begun is finished whatever it looks like by
//! now, what was not begun is held to the version that it was planned against.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use async_trait::async_trait;
use fleet_apply::{Clock, Event, Events, Execution, Provider, Scope, Secrets, Silent, execute};
use fleet_model::{Address, model::Rollout};
use fleet_plan::State;

use crate::{
    journal::{Journal, Journaled, Past},
    mailbox::{MailError, Mailbox},
    protocol::{self, Due, End, Line, Refused, Seen, Work},
};

/// Who makes accounts and rooms.
#[async_trait]
pub trait Homeserver: Send + Sync {
    /// Makes them and sees them.
    fn provider(&self) -> &dyn Provider;

    /// Signs out whom it signed in for the work that just ended.
    ///
    /// # Errors
    /// What went wrong, for the log.
    async fn finish(&self) -> Result<(), String>;
}

/// How often a manager does what.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Looks for work.
    pub poll: Duration,
    /// Looks at accounts and rooms when nobody asks.
    pub refresh: Duration,
    /// Says at least this often that it is there while it works.
    pub heartbeat: Duration,
    /// Waits this long for a homeserver that does not answer before it tries what it was given.
    pub patience: Duration,
    /// Work that stands on an older observation is ignored: nobody waits for it any more.
    pub oldest: Duration,
}

impl Pace {
    /// Of the service. At five seconds, looking costs about as much in a month as a cup of coffee.
    pub const SERVICE: Self = Self {
        poll: Duration::from_secs(5),
        refresh: Duration::from_secs(60),
        heartbeat: Duration::from_secs(15),
        patience: Duration::from_secs(300),
        oldest: Duration::from_secs(24 * 60 * 60),
    };
}

/// While it works, what it notes is written at least this often.
const WRITE_EVERY: Duration = Duration::from_secs(1);
/// A clock may be ahead of ours by this much (AWS refuses requests that are off by more).
const CLOCKS_DIFFER: Duration = Duration::from_secs(15 * 60);

/// The side inside the network.
pub struct Manager {
    /// Fleet, environment, Matrix domain.
    pub scope: Scope,
    /// Where work comes from.
    pub mailbox: Mailbox,
    /// Who makes it.
    pub homeserver: Arc<dyn Homeserver>,
    /// For the executor; accounts and rooms use none of them from there.
    pub secrets: Secrets,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// How often.
    pub pace: Pace,
    /// Its own log.
    pub events: Arc<dyn Events>,
    /// Its version.
    pub tool: String,
    /// Called every few seconds as long as it goes on, idle or at work, for whoever watches over it.
    pub alive: Box<dyn Fn() + Send + Sync>,
}

/// What a manager keeps between rounds. Losing it costs some reads.
#[derive(Debug, Default)]
struct Memory {
    /// Work that is over or was refused.
    settled: BTreeSet<String>,
    /// What was asked for last.
    wanted: Vec<Address>,
    /// When to look again.
    look_at: Option<SystemTime>,
}

impl Manager {
    /// Works until `stop` is set; a change that is under way then is finished first.
    pub async fn run(&self, stop: &AtomicBool) {
        let mut memory = Memory::default();
        // What was wanted before a restart still is.
        match self.mailbox.seen(&self.scope.fleet, &self.scope.environment).await {
            Ok(Some(Ok(seen))) => memory.wanted = seen.wanted,
            Ok(Some(Err(why))) => self.tell(format!("{} is ignored: {why}", protocol::OBSERVED)),
            Ok(None) => {}
            Err(error) => self.tell(error.to_string()),
        }
        self.tell(format!("manager {} works for {}", self.tool, self.scope.name("*")));
        while !stop.load(Ordering::SeqCst) {
            (self.alive)();
            if let Err(error) = self.round(&mut memory, stop).await {
                self.tell(error.to_string());
                self.clock.sleep(self.pace.heartbeat).await;
            }
            self.clock.sleep(self.pace.poll).await;
        }
    }

    fn tell(&self, text: String) {
        self.events.emit(Event::Notice { text });
    }

    /// Does all work that waits; then looks around where that is due.
    async fn round(&self, memory: &mut Memory, stop: &AtomicBool) -> Result<(), MailError> {
        let ids = self.mailbox.work_ids().await?;
        memory.settled.retain(|id| ids.contains(id));
        for id in ids {
            if stop.load(Ordering::SeqCst) {
                return Ok(());
            }
            if !memory.settled.contains(&id) {
                self.handle(&id, memory, stop).await?;
            }
        }
        if memory.look_at.is_none_or(|due| due <= self.clock.now()) {
            self.look(memory).await?;
        }
        Ok(())
    }

    /// One object of work.
    async fn handle(&self, id: &str, memory: &mut Memory, stop: &AtomicBool) -> Result<(), MailError> {
        let past = Past::read(&self.mailbox, id).await?;
        if past.over {
            memory.settled.insert(id.to_owned());
            return Ok(());
        }
        let work = match self.open(id).await? {
            None => return Ok(()),
            Some(Ok(work)) => work,
            Some(Err(why)) => {
                self.tell(format!("{} is ignored: {why}", protocol::work_object(id)));
                memory.settled.insert(id.to_owned());
                return Ok(());
            }
        };
        self.tell(format!("work {}: {} changes", short(id), work.changes.len()));
        let journal = Journal::after(&self.mailbox, id, &past);
        memory.wanted.clone_from(&work.wanted);
        let whole = tokio::select! {
            whole = self.make(&work, &past, &journal, stop) => whole?,
            never = self.beat(id, &journal) => match never {},
        };
        if let Err(why) = self.homeserver.finish().await {
            self.tell(format!("a helper session could not be signed out: {why}"));
        }
        if !whole {
            journal.flush().await?;
            return Ok(());
        }
        // Seen first, over second: whoever waits for the end finds what was seen after it.
        self.look(memory).await?;
        journal.note(Line::Summary { ends: ends(&work, &past, &journal) });
        journal.flush().await?;
        memory.settled.insert(id.to_owned());
        Ok(())
    }

    /// Reads and checks an object of work; `None` where it is gone.
    async fn open(&self, id: &str) -> Result<Option<Result<Work, Refused>>, MailError> {
        let bytes = match self.mailbox.get(&protocol::work_object(id)).await {
            Ok(bytes) => bytes,
            Err(error @ MailError::TooLarge { .. }) => return Ok(Some(Err(Refused::Shape(error.to_string())))),
            Err(error) => return Err(error),
        };
        let Some(bytes) = bytes else { return Ok(None) };
        let opened = Work::open(&self.mailbox.key, id, &bytes).and_then(|work| {
            work.check_scope(&self.scope.fleet, &self.scope.environment)?;
            self.check_age(&work)?;
            Ok(work)
        });
        Ok(Some(opened))
    }

    fn check_age(&self, work: &Work) -> Result<(), Refused> {
        let base = SystemTime::UNIX_EPOCH + Duration::from_millis(work.base);
        let now = self.clock.now();
        let old = now.duration_since(base).is_ok_and(|age| age > self.pace.oldest);
        let ahead = base.duration_since(now).is_ok_and(|ahead| ahead > CLOCKS_DIFFER);
        if old || ahead {
            Err(Refused::Elsewhere("another time: it is too old, or a clock is wrong".to_owned()))
        } else {
            Ok(())
        }
    }

    /// Makes what is due; false when it was asked to stop before the end.
    async fn make(
        &self,
        work: &Work,
        past: &Past,
        journal: &Journal<'_>,
        stop: &AtomicBool,
    ) -> Result<bool, MailError> {
        journal.note(Line::Alive { what: format!("manager {} has the work", self.tool) });
        journal.flush().await?;
        if work.changes.is_empty() {
            return Ok(true);
        }
        let state = self.patiently(work, journal, stop).await;
        let plan = work.plan(due(work, past, &state));
        let provider = Journaled { provider: self.homeserver.provider(), journal };
        let execution = Execution {
            plan: &plan,
            providers: &[&provider],
            secrets: &self.secrets,
            rollout: Rollout::default(),
            events: &*self.events,
            // Accounts and rooms have no derivations here.
            recorder: &Silent,
            stop,
        };
        let report = execute(&execution, BTreeMap::new()).await;
        // Whoever took over must not be told that this is over.
        journal.flush().await?;
        Ok(report.is_complete() || !report.interrupted)
    }

    /// What is there, once the homeserver answers; else what can be said.
    async fn patiently(&self, work: &Work, journal: &Journal<'_>, stop: &AtomicBool) -> State {
        let end = self.clock.now() + self.pace.patience;
        loop {
            let state = self.observe(&work.wanted).await;
            if state.unseen.is_empty() || self.clock.now() >= end || stop.load(Ordering::SeqCst) {
                return state;
            }
            journal.note(Line::Alive { what: format!("waits for the homeserver: {}", state.unseen.join("; ")) });
            self.clock.sleep(self.pace.poll).await;
        }
    }

    /// Writes what is noted while work goes on, and that somebody is there; tells those whose work waits.
    async fn beat(&self, id: &str, journal: &Journal<'_>) -> Infallible {
        let mut quiet_since = self.clock.now();
        loop {
            self.clock.sleep(WRITE_EVERY.min(self.pace.poll)).await;
            (self.alive)();
            // What cannot be written now is kept, and written with the next piece.
            if matches!(journal.flush().await, Ok(true)) {
                quiet_since = self.clock.now();
            }
            if self.clock.now().duration_since(quiet_since).unwrap_or_default() >= self.pace.heartbeat {
                journal.note(Line::Alive { what: "is at work".to_owned() });
                quiet_since = self.clock.now();
                if let Err(error) = self.tell_waiting(id).await {
                    self.tell(error.to_string());
                }
            }
        }
    }

    async fn tell_waiting(&self, current: &str) -> Result<(), MailError> {
        for id in self.mailbox.work_ids().await?.iter().filter(|id| *id != current) {
            let past = Past::read(&self.mailbox, id).await?;
            if past.over || !matches!(self.open(id).await?, Some(Ok(_))) {
                continue;
            }
            let journal = Journal::after(&self.mailbox, id, &past);
            journal.note(Line::Alive { what: format!("waits until work {} is done", short(current)) });
            journal.flush().await?;
        }
        Ok(())
    }

    async fn observe(&self, wanted: &[Address]) -> State {
        // An error is what there is to see: it is told to whoever plans.
        self.homeserver.provider().observe(wanted).await.unwrap_or_else(|error| State {
            unseen: vec![format!("the manager cannot see accounts and rooms: {error}")],
            ..State::default()
        })
    }

    /// Looks at everything that is wanted, and writes it down.
    async fn look(&self, memory: &mut Memory) -> Result<(), MailError> {
        let now = self.clock.now();
        let seen = Seen {
            fleet: self.scope.fleet.clone(),
            environment: self.scope.environment.clone(),
            at: millis(now),
            tool: self.tool.clone(),
            wanted: memory.wanted.clone(),
            state: self.observe(&memory.wanted).await,
        };
        self.mailbox.put(protocol::OBSERVED, seen.seal(&self.mailbox.key)).await?;
        memory.look_at = Some(now + self.pace.refresh);
        Ok(())
    }
}

/// What is left to do, with the versions to hold it to.
fn due(work: &Work, past: &Past, state: &State) -> Vec<Due> {
    let left = work.changes.iter().filter(|due| !past.ends.get(&due.address).is_some_and(End::is_good));
    let held = |due: &Due| {
        let mut due = due.clone();
        // Half done by whoever was here before: the plan cannot know what it looks like now.
        if past.begun.contains(&due.address) {
            due.expect = state.objects.get(&due.address).map(|seen| seen.version.clone());
            // Nor what a request that outlived that run makes of it meanwhile.
            due.if_changed = true;
        }
        due
    };
    left.map(held).collect()
}

/// How each change ended, over all managers that had a part in it.
fn ends(work: &Work, past: &Past, journal: &Journal<'_>) -> BTreeMap<Address, End> {
    let mut now = journal.ends();
    let end = |due: &Due| {
        let before = past.ends.get(&due.address).filter(|end| end.is_good()).cloned();
        let end = now.remove(&due.address).or(before).unwrap_or(End::Skipped);
        (due.address.clone(), end)
    };
    work.changes.iter().map(end).collect()
}

/// The beginning of an id, for messages.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Milliseconds since 1970.
pub(crate) fn millis(time: SystemTime) -> u64 {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
