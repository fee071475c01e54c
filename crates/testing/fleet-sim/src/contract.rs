//! What every provider must do, whatever stands behind it: made once, rolled once, refused when stale, finished after
//! a kill at any write, undone when unhealthy, deleted once.

use std::collections::BTreeMap;

use fleet_apply::{Applied, Events, Provider, ProviderError, Ready, Secrets};
use fleet_derivation::Hash;
use fleet_model::Address;
use fleet_plan::{Action, Change, Desired, Observed, RunState};

use crate::{CallLog, killed};

/// One object to hold a provider to its contract with. It must not exist at the beginning; it does not at the end.
pub struct Case<'a, P: Provider> {
    /// The provider.
    pub provider: &'a P,
    /// For its [`Ready`].
    pub secrets: &'a Secrets,
    /// The object.
    pub address: Address,
    /// Makes the object as it should be, for a version's name. Versions differ in nothing else.
    pub version: &'a (dyn Fn(&str) -> Desired + Sync),
    /// The same for versions that never become healthy; `None` for kinds without health.
    pub bad: Option<&'a (dyn Fn(&str) -> Desired + Sync)>,
}

/// The change that a planner would make of what is seen now; `desired` `None`: it is to go.
pub fn change(address: &Address, seen: Option<&Observed>, desired: Option<&Desired>) -> Change {
    let after = desired.map(|d| Hash::of(serde_json::to_string(d).unwrap_or_default().as_bytes()));
    Change {
        address: address.clone(),
        action: match (seen, desired) {
            (_, None) => Action::Delete,
            (None, Some(_)) => Action::Create,
            (Some(_), Some(Desired::Container(_))) => Action::Roll,
            (Some(_), Some(_)) => Action::Update,
        },
        if_changed: false,
        reasons: Vec::new(),
        before: seen.and_then(|s| s.hash),
        after,
        expect: seen.map(|s| s.version.clone()),
        desired: desired.cloned(),
        derivation: None,
        resources: Vec::new(),
    }
}

/// It is as the change says it should be, completely.
#[must_use]
pub fn is_right(seen: Option<&Observed>, change: &Change) -> bool {
    let Some(seen) = seen else { return change.desired.is_none() };
    let same = match seen.hash {
        Some(hash) => Some(hash) == change.after,
        None => seen.actual == change.desired,
    };
    same && seen.unfinished.is_none() && seen.run != RunState::Stopped
}

/// All of the contract.
///
/// # Panics
/// With the first clause that does not hold.
pub async fn provider_contract<P: Provider>(case: &Case<'_, P>) {
    assert!(case.seen().await.is_none(), "the object must not exist at the beginning");
    case.made_once().await;
    case.rolled_once().await;
    case.refused_when_stale().await;
    case.deleted_once().await;
    case.killed_while_making().await;
    case.killed_while_rolling().await;
    if case.bad.is_some() {
        case.undone_when_unhealthy().await;
    }
    case.deleted_once().await;
}

impl<P: Provider> Case<'_, P> {
    async fn seen(&self) -> Option<Observed> {
        let state = self.provider.observe(std::slice::from_ref(&self.address)).await;
        state.unwrap_or_else(|error| panic!("observing: {error}")).objects.remove(&self.address)
    }

    async fn planned(&self, desired: Option<&Desired>) -> Change {
        change(&self.address, self.seen().await.as_ref(), desired)
    }

    async fn apply(&self, change: &Change, events: &dyn Events) -> Result<Applied, ProviderError> {
        let outputs = BTreeMap::new();
        self.provider.apply(change, &Ready { outputs: &outputs, secrets: self.secrets }, events).await
    }

    /// Plans, applies and looks.
    async fn converge(&self, desired: &Desired, when: &str) {
        let planned = self.planned(Some(desired)).await;
        self.apply(&planned, &CallLog::default()).await.unwrap_or_else(|error| panic!("{when}: {error}"));
        let seen = self.seen().await;
        assert!(is_right(seen.as_ref(), &planned), "{when}: {seen:?}");
    }

    /// Doing it again changes nothing and writes nothing.
    async fn nothing_to_do(&self, desired: Option<&Desired>) {
        let before = self.seen().await;
        let log = CallLog::default();
        let planned = self.planned(desired).await;
        let again = self.apply(&planned, &log).await;
        assert!(matches!(again, Ok(Applied::Unchanged { .. })), "{again:?}");
        assert_eq!(log.writes(), Vec::<String>::new(), "doing it again wrote");
        assert_eq!(self.seen().await.map(|s| (s.id, s.version)), before.map(|s| (s.id, s.version)));
    }

    async fn made_once(&self) {
        let first = (self.version)("first");
        self.converge(&first, "making it").await;
        self.nothing_to_do(Some(&first)).await;
    }

    async fn rolled_once(&self) {
        let second = (self.version)("second");
        let before = self.seen().await.map(|s| s.version);
        self.converge(&second, "changing it").await;
        assert_ne!(self.seen().await.map(|s| s.version), before, "a change must change the version");
        self.nothing_to_do(Some(&second)).await;
    }

    async fn refused_when_stale(&self) {
        let (third, fourth) = ((self.version)("third"), (self.version)("fourth"));
        let old = self.planned(Some(&third)).await;
        self.converge(&fourth, "somebody else changes it").await;
        let (before, log) = (self.seen().await, CallLog::default());
        let refused = self.apply(&old, &log).await;
        assert!(matches!(refused, Err(ProviderError::Stale { .. })), "{refused:?}");
        assert_eq!(log.writes(), Vec::<String>::new(), "a refused change wrote");
        assert_eq!(self.seen().await, before);

        let old = self.planned(Some(&third)).await;
        self.deleted_once().await;
        let refused = self.apply(&old, &CallLog::default()).await;
        assert!(matches!(refused, Err(ProviderError::Stale { .. })), "it was deleted since: {refused:?}");
        assert_eq!(self.seen().await, None);
        self.converge(&third, "making it again").await;
    }

    async fn deleted_once(&self) {
        let gone = self.planned(None).await;
        let deleted = self.apply(&gone, &CallLog::default()).await;
        assert!(matches!(deleted, Ok(Applied::Changed { .. })), "{deleted:?}");
        assert_eq!(self.seen().await, None);
        self.nothing_to_do(None).await;
    }

    /// Applies and dies before write `n`; true: it died.
    async fn dies(&self, desired: &Desired, n: usize) -> bool {
        let planned = self.planned(Some(desired)).await;
        let log = CallLog::dying_before(n);
        killed(self.apply(&planned, &log)).await.is_none()
    }

    async fn killed_while_making(&self) {
        for n in 0.. {
            let desired = (self.version)(&format!("made {n}"));
            let died = self.dies(&desired, n).await;
            self.converge(&desired, &format!("after a kill before write {n} of making it")).await;
            if !died {
                assert!(n > 0, "making it writes nothing?");
                break;
            }
            self.deleted_once().await;
        }
    }

    async fn killed_while_rolling(&self) {
        for n in 0.. {
            let desired = (self.version)(&format!("rolled {n}"));
            let died = self.dies(&desired, n).await;
            let seen = self.seen().await;
            let change = self.planned(Some(&desired)).await;
            assert!(
                !died || !is_right(seen.as_ref(), &change),
                "half done and looks right, before write {n}: {seen:?}"
            );
            self.converge(&desired, &format!("after a kill before write {n} of changing it")).await;
            if !died {
                assert!(n > 0, "changing it writes nothing?");
                break;
            }
        }
    }

    async fn undone_when_unhealthy(&self) {
        let Some(bad) = self.bad else { return };
        let good = (self.version)("good");
        self.converge(&good, "a good version").await;
        let before = self.seen().await;
        for n in 0.. {
            let desired = bad(&format!("bad {n}"));
            let died = self.dies(&desired, n).await;
            let planned = self.planned(Some(&desired)).await;
            let undone = self.apply(&planned, &CallLog::default()).await;
            assert!(matches!(undone, Err(ProviderError::RolledBack { .. })), "before write {n}: {undone:?}");
            let seen = self.seen().await;
            let identity = |s: &Option<Observed>| s.as_ref().map(|s| (s.id.clone(), s.hash, s.version.clone()));
            assert_eq!(identity(&seen), identity(&before), "the former one must be back, before write {n}");
            assert!(is_right(seen.as_ref(), &change(&self.address, None, Some(&good))), "before write {n}: {seen:?}");
            if !died {
                break;
            }
        }
    }
}
