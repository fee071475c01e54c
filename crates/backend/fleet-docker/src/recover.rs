//! [`steps`]: from what exists of one container to what is wanted, whatever an interrupted run left behind.
//!
//! One object is at most two containers: the *current* one under its name, and the *former* one under
//! `<name>.former`, kept stopped until the current one is healthy. A container that was created and never started is
//! unfinished: its files may be missing. Because two containers never run on one volume, every order of steps stops or
//! removes one before it starts the other.
//!
//! | current | former | steps |
//! |---|---|---|
//! | none | none | make, await |
//! | none | wanted hash | restore, start, await |
//! | none | other hash | make, await, drop former |
//! | never started | any | remove current, then as without it |
//! | wanted, running | none / some | await [, drop former]; unhealthy: restart first |
//! | wanted, stopped | none / some | start, await [, drop former] |
//! | other hash, serves or alone | some | drop former, then as alone |
//! | other hash | none | set aside (stop, rename), make, await, drop former |
//! | other hash, does not serve | some | remove current (the former is the last good one), make, await, drop former |

use fleet_derivation::Hash;
use fleet_plan::Health;

/// How far a container's life has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// Created and never started: its files may not have been placed.
    Created,
    /// Running.
    Running,
    /// Exits and is restarted by the engine, over and over.
    Restarting,
    /// Ran once and does not run.
    Stopped,
}

/// One container as the list call shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Present {
    /// Container id.
    pub id: String,
    /// The hash in its label; `None` when the label is missing or no hash.
    pub hash: Option<Hash>,
    /// How far its life has come.
    pub life: Life,
    /// Health.
    pub health: Health,
    /// A secret that was not set when the container was made, and is now: it is made anew, whatever its hash says.
    pub late: Option<String>,
}

impl Present {
    /// It runs and nothing says that it does not serve.
    #[must_use]
    pub fn serves(&self) -> bool {
        self.life == Life::Running && matches!(self.health, Health::Healthy | Health::None)
    }
}

/// The containers of one object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pair {
    /// Under its name.
    pub current: Option<Present>,
    /// Under `<name>.former`.
    pub former: Option<Present>,
}

impl Pair {
    /// Compare-and-set token: the ids, current first. Restarts and health do not change it.
    #[must_use]
    pub fn version(&self) -> String {
        let id = |p: &Option<Present>| p.as_ref().map_or("", |p| &p.id).to_owned();
        match &self.former {
            None => id(&self.current),
            Some(_) => format!("{}+{}", id(&self.current), id(&self.former)),
        }
    }

    /// What an interrupted run left, in words for people; `None`: nothing.
    #[must_use]
    pub fn unfinished(&self) -> Option<String> {
        if let Some(name) = self.current.as_ref().and_then(|current| current.late.as_ref()) {
            return Some(format!("{name} was not set when its container was made, and is now"));
        }
        let text = match (&self.current, &self.former) {
            (Some(c), _) if c.life == Life::Created => "its container was created and not started",
            (None, Some(_)) => "its former container was set aside and no new one was made",
            (Some(_), Some(_)) => "its former container is kept until the new one has proved healthy",
            (Some(c), None) if c.life == Life::Running && c.health == Health::Starting => {
                "it has not become healthy yet"
            }
            _ => return None,
        };
        Some(text.to_owned())
    }
}

/// One step. Each is safe to be the last one before a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Removes the current container, stopping it gracefully if it runs.
    RemoveCurrent,
    /// Stops the current container gracefully and renames it to `<name>.former`.
    SetAside,
    /// Removes the former container, stopping it gracefully if it runs.
    DropFormer,
    /// Stops the former container, which nobody should have started.
    StopFormer,
    /// Renames the former container back.
    Restore,
    /// Creates the new container, places its files, starts it.
    Make,
    /// Starts the current container.
    Start,
    /// Restarts the current container.
    Restart,
    /// Waits until the current container is healthy; otherwise the former one returns.
    Await,
}

impl Step {
    /// It writes to the engine.
    #[must_use]
    pub const fn writes(self) -> bool {
        !matches!(self, Self::Await)
    }
}

/// What brings `pair` to one healthy container with hash `wanted`.
#[must_use]
pub fn steps(pair: &Pair, wanted: Hash) -> Vec<Step> {
    let mut steps = Vec::new();
    if pair.former.as_ref().is_some_and(|f| matches!(f.life, Life::Running | Life::Restarting)) {
        steps.push(Step::StopFormer);
    }
    let current = match &pair.current {
        Some(c) if c.life == Life::Created => {
            steps.push(Step::RemoveCurrent);
            None
        }
        other => other.as_ref(),
    };
    match (current, &pair.former) {
        (None, None) => steps.extend([Step::Make, Step::Await]),
        (None, Some(f)) if f.hash == Some(wanted) && f.life != Life::Created => {
            steps.extend([Step::Restore, Step::Start, Step::Await]);
        }
        (None, Some(_)) => steps.extend([Step::Make, Step::Await, Step::DropFormer]),
        (Some(c), former) if c.hash == Some(wanted) => {
            steps.extend(waking(c));
            steps.push(Step::Await);
            steps.extend(former.as_ref().map(|_| Step::DropFormer));
        }
        (Some(c), Some(_)) if !c.serves() => {
            steps.extend([Step::RemoveCurrent, Step::Make, Step::Await, Step::DropFormer]);
        }
        (Some(_), former) => {
            steps.extend(former.as_ref().map(|_| Step::DropFormer));
            steps.extend([Step::SetAside, Step::Make, Step::Await, Step::DropFormer]);
        }
    }
    steps
}

/// What a container with the right hash needs before it can be waited for.
fn waking(current: &Present) -> Option<Step> {
    match (current.life, current.health) {
        (Life::Running, Health::Unhealthy) | (Life::Restarting, _) => Some(Step::Restart),
        (Life::Running, _) => None,
        (Life::Stopped | Life::Created, _) => Some(Step::Start),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: &[u8] = b"new";
    const OLD: &[u8] = b"old";

    fn present(hash: &[u8], life: Life, health: Health) -> Option<Present> {
        Some(Present { id: format!("{hash:?}{life:?}"), hash: Some(Hash::of(hash)), life, health, late: None })
    }
    fn plan(current: Option<Present>, former: Option<Present>) -> Vec<Step> {
        steps(&Pair { current, former }, Hash::of(NEW))
    }
    use Health::{Healthy, Starting, Unhealthy};
    use Step::{Await, DropFormer, Make, RemoveCurrent, Restart, Restore, SetAside, Start, StopFormer};

    #[test]
    fn nothing_there_is_made_and_awaited() {
        assert_eq!(plan(None, None), [Make, Await]);
    }

    #[test]
    fn what_is_right_is_only_awaited_and_nothing_is_written() {
        let steps = plan(present(NEW, Life::Running, Healthy), None);
        assert_eq!(steps, [Await]);
        assert!(!steps.iter().any(|s| s.writes()));
    }

    #[test]
    fn what_differs_is_set_aside_and_kept_until_the_new_one_is_healthy() {
        let all = [SetAside, Make, Await, DropFormer];
        assert_eq!(plan(present(OLD, Life::Running, Healthy), None), all);
        assert_eq!(plan(present(OLD, Life::Stopped, Health::None), None), all, "killed after the stop");
    }

    #[test]
    fn killed_after_the_rename_it_goes_on_with_the_new_one() {
        assert_eq!(plan(None, present(OLD, Life::Stopped, Health::None)), [Make, Await, DropFormer]);
    }

    #[test]
    fn killed_after_the_rename_and_no_longer_wanted_the_former_one_returns() {
        assert_eq!(plan(None, present(NEW, Life::Stopped, Health::None)), [Restore, Start, Await]);
    }

    #[test]
    fn a_container_that_never_started_is_made_again_because_its_files_may_be_missing() {
        assert_eq!(plan(present(NEW, Life::Created, Health::None), None), [RemoveCurrent, Make, Await]);
        assert_eq!(
            plan(present(NEW, Life::Created, Health::None), present(OLD, Life::Stopped, Health::None)),
            [RemoveCurrent, Make, Await, DropFormer]
        );
    }

    #[test]
    fn killed_while_waiting_the_wait_is_taken_up_and_the_former_one_dropped_after_it() {
        let former = || present(OLD, Life::Stopped, Health::None);
        assert_eq!(plan(present(NEW, Life::Running, Starting), former()), [Await, DropFormer]);
        assert_eq!(plan(present(NEW, Life::Running, Healthy), former()), [Await, DropFormer]);
        assert_eq!(plan(present(NEW, Life::Restarting, Unhealthy), former()), [Restart, Await, DropFormer]);
    }

    #[test]
    fn a_third_version_replaces_a_failed_second_and_keeps_the_first_as_the_one_to_return_to() {
        let second = present(b"second", Life::Running, Unhealthy);
        let first = present(OLD, Life::Stopped, Health::None);
        assert_eq!(plan(second, first.clone()), [RemoveCurrent, Make, Await, DropFormer]);
        let second = present(b"second", Life::Running, Healthy);
        assert_eq!(plan(second, first), [DropFormer, SetAside, Make, Await, DropFormer]);
    }

    #[test]
    fn two_containers_never_run_on_one_volume_even_if_somebody_started_the_former_one() {
        let steps = plan(None, present(OLD, Life::Running, Healthy));
        assert_eq!(steps, [StopFormer, Make, Await, DropFormer]);
    }

    #[test]
    fn stopped_is_started_and_unhealthy_is_restarted() {
        assert_eq!(plan(present(NEW, Life::Stopped, Health::None), None), [Start, Await]);
        assert_eq!(plan(present(NEW, Life::Running, Unhealthy), None), [Restart, Await]);
    }

    /// Whatever is found, a step list ends with one container of the wanted hash and nothing beside it, and never
    /// starts one while the other runs.
    #[test]
    fn every_state_leads_to_one_container_and_never_to_two_running_ones() {
        let mut containers = vec![None];
        for hash in [NEW, OLD, b"third"] {
            for life in [Life::Created, Life::Running, Life::Restarting, Life::Stopped] {
                for health in [Healthy, Starting, Unhealthy, Health::None] {
                    containers.push(present(hash, life, health));
                }
            }
        }
        for current in &containers {
            for former in &containers {
                walk(current.clone(), former.clone());
            }
        }
    }

    /// Executes the steps on a model of the engine.
    fn walk(mut current: Option<Present>, mut former: Option<Present>) {
        let runs = |p: &Option<Present>| p.as_ref().is_some_and(|p| matches!(p.life, Life::Running | Life::Restarting));
        let set = |p: &mut Option<Present>, life| {
            if let Some(p) = p {
                p.life = life;
            }
        };
        let start = (current.clone(), former.clone());
        for step in plan(current.clone(), former.clone()) {
            match step {
                RemoveCurrent => current = None,
                SetAside => {
                    assert!(former.is_none() && current.is_some(), "{start:?}");
                    former = current.take();
                    set(&mut former, Life::Stopped);
                }
                DropFormer => former = None,
                StopFormer => set(&mut former, Life::Stopped),
                Restore => {
                    assert!(current.is_none(), "{start:?}");
                    current = former.take();
                }
                Make => {
                    assert!(current.is_none() && !runs(&former), "{start:?}");
                    current = present(NEW, Life::Running, Starting);
                }
                Start | Restart => {
                    assert!(!runs(&former), "{start:?}");
                    set(&mut current, Life::Running);
                }
                Await => assert!(runs(&current), "{start:?}"),
            }
        }
        assert!(former.is_none(), "{start:?}");
        assert_eq!(current.and_then(|c| c.hash), Some(Hash::of(NEW)), "{start:?}");
    }
}
