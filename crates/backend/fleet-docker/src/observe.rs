//! What the engine's lists mean: containers and volumes of a scope as a [`State`]. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use bollard::models::{ContainerSummary, ContainerSummaryStateEnum, Volume};
use fleet_apply::Scope;
use fleet_model::{Address, Kind};
use fleet_plan::{Health, Observed, RunState, State};

use crate::{
    directory, labels,
    recover::{Life, Pair, Present},
};

/// Suffix of the name of a container that is kept until its successor is healthy.
pub(crate) const FORMER: &str = ".former";

/// The container name of an address: `<fleet>-<environment>-<name>`.
pub(crate) fn container_name(scope: &Scope, address: &Address) -> String {
    scope.name(&address.name)
}

/// The containers of each address, by the names that they carry. Others of the scope (a holder of the directory) are
/// left out.
///
/// A container that was made without a secret which is `given` now counts as one of another hash.
pub(crate) fn pairs(scope: &Scope, list: &[ContainerSummary], given: &BTreeSet<String>) -> BTreeMap<Address, Pair> {
    let mut pairs: BTreeMap<Address, Pair> = BTreeMap::new();
    for container in list {
        let labels = sorted(container.labels.as_ref());
        let Some(address) = labels::address(&labels).filter(|a| matches!(a.kind, Kind::Service | Kind::Agent)) else {
            continue;
        };
        let name = container_name(scope, &address);
        let mut present = present(container, &labels);
        present.late = labels::without(&labels).find(|name| given.contains(*name)).map(str::to_owned);
        if present.late.is_some() {
            present.hash = None;
        }
        let pair = pairs.entry(address).or_default();
        if has_name(container, &name) {
            pair.current = Some(present);
        } else if has_name(container, &format!("{name}{FORMER}")) {
            pair.former = Some(present);
        }
    }
    pairs.retain(|_, pair| *pair != Pair::default());
    pairs
}

/// One container of the list.
pub(crate) fn present(container: &ContainerSummary, labels: &BTreeMap<String, String>) -> Present {
    use ContainerSummaryStateEnum as S;
    let status = container.status.as_deref().unwrap_or_default();
    Present {
        id: container.id.clone().unwrap_or_default(),
        hash: labels::hash(labels),
        life: match container.state {
            Some(S::CREATED) => Life::Created,
            Some(S::RUNNING) => Life::Running,
            Some(S::RESTARTING) => Life::Restarting,
            _ => Life::Stopped,
        },
        // The list has no field for health before API 1.52; its text has had it since there is health.
        health: match status {
            s if s.contains("(healthy)") => Health::Healthy,
            s if s.contains("(unhealthy)") => Health::Unhealthy,
            s if s.contains("(health: starting)") || s.contains("(starting)") => Health::Starting,
            _ if container.state == Some(S::RESTARTING) => Health::Unhealthy,
            _ => Health::None,
        },
        late: None,
    }
}

pub(crate) fn has_name(container: &ContainerSummary, name: &str) -> bool {
    // The engine writes names with a leading slash.
    container.names.iter().flatten().any(|n| n.trim_start_matches('/') == name)
}

pub(crate) fn sorted(map: Option<&HashMap<String, String>>) -> BTreeMap<String, String> {
    map.into_iter().flatten().map(|(k, v)| (k.clone(), v.clone())).collect()
}

/// What the engine's lists said, and which of the operator's secrets there are.
pub(crate) struct Seen<'a> {
    pub scope: &'a Scope,
    pub containers: &'a [ContainerSummary],
    pub volumes: &'a [Volume],
    pub given: &'a BTreeSet<String>,
}

/// Everything of the scope. Containers are objects, wanted or not; a volume that nobody wants any more is an orphan:
/// it is somebody's memory, and only a person may remove it.
pub(crate) fn state(seen: &Seen<'_>, wanted: &[Address]) -> State {
    let Seen { scope, containers, volumes, given } = *seen;
    let mut state = State::default();
    for (address, pair) in pairs(scope, containers, given) {
        state.objects.insert(address, observed(&pair));
    }
    if let Some(directory) = directory::observed(scope, containers) {
        state.objects.insert(directory::address(), directory);
    }
    for volume in volumes {
        let labels = sorted(Some(&volume.labels));
        let Some(owner) = labels::address(&labels) else { continue };
        if !wanted.contains(&owner) {
            let text = format!(
                "volume {} is kept: it holds the memory of {owner}, which is not declared any more",
                volume.name
            );
            state.orphans.entry(owner).and_modify(|t| t.push_str(&format!("; {text}"))).or_insert(text);
        }
    }
    state
}

fn observed(pair: &Pair) -> Observed {
    let shown = pair.current.as_ref().or(pair.former.as_ref());
    let life = shown.map_or(Life::Stopped, |p| p.life);
    Observed {
        hash: shown.and_then(|p| p.hash),
        actual: None,
        run: match life {
            Life::Running | Life::Restarting => RunState::Running,
            Life::Created | Life::Stopped => RunState::Stopped,
        },
        health: shown.map_or(Health::None, |p| p.health),
        id: shown.map(|p| p.id.clone()).unwrap_or_default(),
        version: pair.version(),
        unfinished: pair.unfinished(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope() -> Scope {
        Scope { fleet: "f".to_owned(), environment: "e".to_owned(), domain: "d.test".to_owned() }
    }
    fn container(name: &str, state: ContainerSummaryStateEnum, status: &str) -> ContainerSummary {
        let address = Address::new(Kind::Agent, "ann");
        ContainerSummary {
            id: Some(format!("id-{name}")),
            names: Some(vec![format!("/{name}")]),
            labels: Some(labels::of(&scope(), Some(&address), Some(fleet_derivation::Hash::of(name.as_bytes())))),
            state: Some(state),
            status: Some(status.to_owned()),
            ..ContainerSummary::default()
        }
    }
    fn seen(list: &[ContainerSummary]) -> Observed {
        seen_with(list, &BTreeSet::new())
    }
    fn seen_with(list: &[ContainerSummary], given: &BTreeSet<String>) -> Observed {
        let seen = Seen { scope: &scope(), containers: list, volumes: &[], given };
        state(&seen, &[]).objects.remove(&Address::new(Kind::Agent, "ann")).expect("ann is seen")
    }

    #[test]
    fn health_is_read_from_the_list_so_that_one_call_shows_everything() {
        use ContainerSummaryStateEnum as S;
        for (state, status, run, health) in [
            (S::RUNNING, "Up 5 minutes (healthy)", RunState::Running, Health::Healthy),
            (S::RUNNING, "Up 2 seconds (health: starting)", RunState::Running, Health::Starting),
            (S::RUNNING, "Up 2 hours (unhealthy)", RunState::Running, Health::Unhealthy),
            (S::RUNNING, "Up 2 hours", RunState::Running, Health::None),
            (S::RESTARTING, "Restarting (1) 3 seconds ago", RunState::Running, Health::Unhealthy),
            (S::EXITED, "Exited (0) 3 seconds ago", RunState::Stopped, Health::None),
        ] {
            let observed = seen(&[container("f-e-ann", state, status)]);
            assert_eq!((observed.run, observed.health), (run, health), "{status}");
        }
    }

    #[test]
    fn what_an_interrupted_roll_left_is_told() {
        use ContainerSummaryStateEnum as S;
        let former = container("f-e-ann.former", S::EXITED, "Exited (0)");
        assert!(seen(std::slice::from_ref(&former)).unfinished.expect("unfinished").contains("set aside"));
        let both = seen(&[container("f-e-ann", S::RUNNING, "Up (healthy)"), former]);
        assert!(both.unfinished.is_some());
        assert_eq!((both.id.as_str(), both.version.as_str()), ("id-f-e-ann", "id-f-e-ann+id-f-e-ann.former"));
        assert!(seen(&[container("f-e-ann", S::CREATED, "Created")]).unfinished.is_some());
        assert_eq!(seen(&[container("f-e-ann", S::RUNNING, "Up 3 days (healthy)")]).unfinished, None);
    }

    #[test]
    fn the_memory_of_somebody_who_left_is_an_orphan_and_that_of_somebody_who_stays_is_not() {
        let ann = Address::new(Kind::Agent, "ann");
        let volume = Volume {
            name: "f-e-data-ann".to_owned(),
            labels: labels::of(&scope(), Some(&ann), None),
            ..Volume::default()
        };
        let seen = Seen { scope: &scope(), containers: &[], volumes: &[volume], given: &BTreeSet::new() };
        assert!(state(&seen, &[]).orphans[&ann].contains("f-e-data-ann"));
        assert!(state(&seen, &[ann]).orphans.is_empty());
    }

    #[test]
    fn a_container_made_without_a_secret_that_is_set_now_is_to_be_made_anew() {
        let mut made = container("f-e-ann", ContainerSummaryStateEnum::RUNNING, "Up (healthy)");
        made.labels.get_or_insert_default().insert(labels::WITHOUT.to_owned(), "A_KEY,B_KEY".to_owned());
        let list = [made];
        let before = seen_with(&list, &BTreeSet::from(["C_KEY".to_owned()]));
        assert!(before.hash.is_some() && before.unfinished.is_none());
        let now = seen_with(&list, &BTreeSet::from(["B_KEY".to_owned()]));
        assert_eq!(now.hash, None);
        assert!(now.unfinished.expect("a reason").starts_with("B_KEY was not set"));
    }
}
