//! [`MatrixProvider`]: accounts and rooms of one homeserver behind the engine's [`Provider`].

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use fleet_apply::{Applied, Event, Events, Provider, ProviderError, Ready, Scope};
use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use fleet_plan::{Action, Change, Desired, State};
use fleet_secret::FleetSecret;
use futures::future::BoxFuture;

use crate::{account, delete, error::CallError, observe, room, session::Session};

/// What sort of homeserver it is, and so how accounts are made and seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Synapse: shared-secret registration and the admin API.
    Synapse,
    /// Any homeserver with token registration, by the client-server API alone; Conduit is one. Accounts that nobody
    /// declares cannot be listed there, and direct-message rooms are seen as they were when they were completed.
    Conduit,
}

/// Where the homeserver is and how to work with it.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Fleet, environment, Matrix domain.
    pub scope: Scope,
    /// The operator port: `http://127.0.0.1:6167`.
    pub url: String,
    /// What it is.
    pub flavour: Flavour,
    /// How we are signed in.
    pub login: Login,
}

/// How the service account is signed in. On some homeservers (Conduit) a device has one token: who logs in on it signs out
/// whoever did before.
#[derive(Clone, Debug)]
pub enum Login {
    /// On the one device of who makes accounts and rooms. The token is kept in this file (mode 0600), outside `.fleet/` and
    /// every build context.
    Kept(PathBuf),
    /// On a device of its own, signed out by [`MatrixProvider::finish`]: for who is a guest where a manager is signed in.
    ForOneRun,
}

/// Accounts and rooms of one homeserver.
pub struct MatrixProvider {
    pub(crate) session: Session,
    pub(crate) events: Arc<dyn Events>,
}

impl MatrixProvider {
    /// Calls nobody yet. `events` sees the calls of [`Provider::observe`] and of the methods below; those of
    /// [`Provider::apply`] go to the events given there.
    ///
    /// # Errors
    /// [`CallError::Local`] when the domain is not one.
    pub fn new(settings: Settings, secret: FleetSecret, events: Arc<dyn Events>) -> Result<Self, CallError> {
        Ok(Self { session: Session::new(settings, secret)?, events })
    }

    /// Signs out every identity that was used beside the service account, and where the login was [`Login::ForOneRun`] that
    /// one, too. Call it when a run ends, however it ends; later use of the provider signs in again.
    ///
    /// # Errors
    /// The first failure; every identity is tried.
    pub async fn finish(&self) -> Result<(), CallError> {
        self.session.finish(&*self.events).await
    }

    /// Does something for which we must be signed in. Where somebody signed us out since we were (an administrator, or
    /// another login on the same device), once more, signed in again: a manager lives for months. Not where it has
    /// `begun` to change something: what is half done looks like somebody else's change to who planned it.
    ///
    /// Boxed: of what an `AsyncFn` returns nobody can say that it may move between threads.
    pub(crate) async fn signed_in<'a, T, E: SignedOut>(
        &self,
        begun: impl Fn() -> bool,
        doing: impl Fn() -> BoxFuture<'a, Result<T, E>>,
    ) -> Result<T, E> {
        let times = self.session.times_signed_out().await;
        match doing().await {
            Err(error) if error.is_signed_out() => {
                self.session.forget(times).await;
                if begun() { Err(error) } else { doing().await }
            }
            outcome => outcome,
        }
    }

    async fn make(&self, run: &Run<'_>) -> Result<bool, Trouble> {
        match (run.change.action, &run.change.desired) {
            (Action::Delete, _) if run.change.address.kind == Kind::Account => delete::account(run).await,
            (Action::Delete, _) => delete::room(run).await,
            (_, Some(Desired::Account(desired))) => account::converge(run, desired).await,
            (_, Some(Desired::Room(desired))) => room::converge(run, desired).await,
            _ => Err(Trouble::call(CallError::Local("the change says nothing about an account or a room".to_owned()))),
        }
    }
}

/// Events of one change, and whether it wrote anything yet but to sign in.
struct Watched<'a> {
    events: &'a dyn Events,
    wrote: AtomicBool,
}

impl Events for Watched<'_> {
    fn emit(&self, event: Event) {
        if matches!(&event, Event::Call { write: true, call, .. } if !call.ends_with("/login")) {
            self.wrote.store(true, Ordering::Relaxed);
        }
        self.events.emit(event);
    }
}

/// An error that may say that we are no longer signed in.
pub(crate) trait SignedOut {
    /// It does.
    fn is_signed_out(&self) -> bool;
}

impl SignedOut for CallError {
    fn is_signed_out(&self) -> bool {
        Self::is_signed_out(self)
    }
}

impl SignedOut for Trouble {
    fn is_signed_out(&self) -> bool {
        matches!(self, Self::Call(error) if error.is_signed_out())
    }
}

#[async_trait]
impl Provider for MatrixProvider {
    fn name(&self) -> &'static str {
        "matrix"
    }

    fn owns(&self, address: &Address) -> bool {
        matches!(address.kind, Kind::Account | Kind::Room)
    }

    async fn observe(&self, wanted: &[Address]) -> Result<State, ProviderError> {
        let wanted: Vec<Address> = wanted.iter().filter(|address| self.owns(address)).cloned().collect();
        let look = || -> BoxFuture<'_, _> { Box::pin(observe::observe(&self.session, &*self.events, &wanted)) };
        self.signed_in(|| false, look).await.map_err(CallError::general)
    }

    async fn apply(&self, change: &Change, _: &Ready<'_>, events: &dyn Events) -> Result<Applied, ProviderError> {
        let watched = Watched { events, wrote: AtomicBool::new(false) };
        let run = Run { session: &self.session, events: &watched, change };
        let begun = || watched.wrote.load(Ordering::Relaxed);
        match self.signed_in(begun, || -> BoxFuture<'_, _> { Box::pin(self.make(&run)) }).await {
            Ok(true) => Ok(Applied::Changed { output: None }),
            Ok(false) => Ok(Applied::Unchanged { output: None }),
            Err(Trouble::Call(error)) => Err(error.about(&change.address)),
            Err(Trouble::Stale(why)) => Err(ProviderError::Stale { address: change.address.clone(), why }),
            Err(Trouble::Foreign { why, help }) => Err(ProviderError::failed(&change.address, why).help(help)),
        }
    }
}

/// One change being made.
pub(crate) struct Run<'a> {
    pub session: &'a Session,
    pub events: &'a dyn Events,
    pub change: &'a Change,
}

/// Why a change was not made.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// A call failed.
    Call(CallError),
    /// The object moved since it was planned.
    Stale(String),
    /// Somebody else's object is in the way.
    Foreign { why: String, help: String },
}

impl Trouble {
    pub fn call(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl From<CallError> for Trouble {
    fn from(error: CallError) -> Self {
        Self::Call(error)
    }
}

impl Run<'_> {
    /// Refuses when the object is not the one the plan was made against. `found` is its present version, if it exists.
    pub fn check_unmoved(&self, found: Option<&str>) -> Result<(), Trouble> {
        let planned = self.change.expect.as_deref();
        if self.change.if_changed || planned == found {
            return Ok(());
        }
        match (planned, found) {
            // Made since then: by us, else the caller refuses it. Completing it is what was planned.
            (None, _) => Ok(()),
            (Some(_), None) => Err(Trouble::Stale("it is gone".to_owned())),
            (Some(_), Some(_)) => Err(Trouble::Stale("it is not as it was when the plan was made".to_owned())),
        }
    }
}

/// The version of an object: changes whenever what is compared of it changes.
pub(crate) fn version(actual: &Desired, id: &str, unfinished: Option<&str>) -> String {
    // These are plain data with string keys; serialising them cannot fail.
    let text = serde_json::to_string(&(actual, id, unfinished)).unwrap_or_default();
    Hash::of(text.as_bytes()).short()
}
