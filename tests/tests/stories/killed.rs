//! `kill -9` of `apply` at random moments, then `apply`: the same end state, nothing twice, nothing orphaned.
//!
//! The moments come from a seed that is printed; `FLEET_SEED=…` repeats them as far as a machine's pace allows.

use std::{
    collections::BTreeMap,
    env, thread,
    time::{Duration, Instant, SystemTime},
};

use fleet_tests::{
    Fleet,
    engine::{self, docker},
    run::Running,
};
use serde_json::Value;

/// Runs killed from an empty machine, and runs killed in the middle of a change.
const ROUNDS: (usize, usize) = (4, 8);
/// At least so many must have been killed at work; rounds are added until they were, up to the second number.
const AT_WORK: (usize, usize) = (6, 24);

/// Everything that there is of a fleet, under names that do not depend on when it was made.
#[derive(Debug, PartialEq, Eq)]
struct World {
    containers: Vec<String>,
    volumes: Vec<String>,
    networks: Vec<String>,
    rooms: Vec<(String, String, u64)>,
    devices: BTreeMap<String, Vec<String>>,
}

impl World {
    fn of(fleet: &Fleet) -> Self {
        let label = format!("label=dev.fleetctl.fleet={}", fleet.name);
        let list = |what: &str| -> Vec<String> {
            let mut names: Vec<String> =
                docker(&[what, "ls", "--format", "{{.Name}}", "--filter", &label]).lines().map(str::to_owned).collect();
            names.sort();
            names
        };
        let homeserver = fleet.homeserver();
        let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
        let mut rooms: Vec<(String, String, u64)> = homeserver
            .rooms()
            .values()
            .map(|room| {
                (text(&room["canonical_alias"]), text(&room["name"]), room["joined_members"].as_u64().unwrap_or(0))
            })
            .collect();
        rooms.sort();
        let trials: Vec<String> =
            engine::images(&fleet.name).into_iter().filter(|tag| tag.contains(":trial")).collect();
        assert!(trials.is_empty(), "left by a killed run: {trials:?}");
        assert!(fleet.ids().len() == 4, "{:?}", fleet.ids());
        Self {
            containers: engine::names(&fleet.name),
            volumes: list("volume"),
            networks: list("network"),
            rooms,
            devices: homeserver.devices(),
        }
    }
}

/// Applies and kills that after a part of the time it would take; whether it was still at work.
fn killed_after(fleet: &Fleet, delay: Duration) -> bool {
    let began = Instant::now();
    let mut apply = Running::start(&mut fleet.command(&["apply", "--auto-approve"]));
    thread::sleep(delay.saturating_sub(began.elapsed()));
    let was_running = apply.kill();
    let output = fleet.finish(apply);
    let last = output.stderr.lines().last().unwrap_or_default();
    println!("killed after {delay:?}: {} at `{}`", if was_running { "at work" } else { "had ended" }, last.trim());
    was_running
}

/// What killed runs did is recorded by the next one: of everything that runs, `why` knows what made it so, and the history
/// alone tells that nothing is due.
#[track_caller]
fn is_recorded(fleet: &Fleet) {
    fleet.run(&["plan", "--offline", "--detailed-exitcode"]).expect(0);
    let status = fleet.status_json();
    let objects = status["objects"].as_array().expect("objects");
    let running: Vec<_> = objects.iter().filter(|object| object["state"] == "running").collect();
    assert_eq!(running.len(), 4, "{status:#}");
    for object in running {
        let address = object["address"].as_str().expect("an address");
        let why = fleet.run(&["why", address, "--format", "json"]).expect(0).json();
        assert_eq!(why["last"]["after"], object["hash"], "{address}: {why:#}");
        assert_eq!(why["due"], Value::Null, "{address}: {why:#}");
    }
}

#[test]
fn whenever_apply_is_killed_the_next_one_ends_where_it_would_have() {
    let given = env::var("FLEET_SEED").ok().and_then(|seed| seed.parse().ok());
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a clock");
    let seed = given.unwrap_or_else(|| u64::from(now.subsec_nanos()));
    println!("FLEET_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let fleet = Fleet::light("killed");
    let longest = fleet.applied().took;
    let clean = World::of(&fleet);

    fleet.run(&["destroy", "--purge", "--auto-approve"]).expect(0);
    engine::remove_all(&fleet.name);
    let mut kills = 0;
    for _ in 0..ROUNDS.0 {
        kills += usize::from(killed_after(&fleet, longest.mul_f64(random.f64())));
    }
    fleet.applied();
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
    is_recorded(&fleet);
    assert_eq!(World::of(&fleet), clean);

    let (mut model, mut topic, mut image) =
        (Toggle::new("small", "large"), Toggle::new("News that", "Words that"), Toggle::new("well", "fine"));
    let mut round = 0;
    while round < ROUNDS.1 || (kills < AT_WORK.0 && round < AT_WORK.1) {
        let before = fleet.lives();
        match round % 3 {
            0 => model.turn(&fleet, |name| format!("model \"local/{name}\"\n        skills")),
            1 => image.turn(&fleet, |name| format!("env LIGHT_MODE=\"{name}\"")),
            _ => topic.turn(&fleet, |name| format!("{name} concerns everybody")),
        }
        kills += usize::from(killed_after(&fleet, Duration::from_millis(random.u64(50..6000))));
        fleet.applied();
        fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
        is_recorded(&fleet);
        assert_eq!(World::of(&fleet), clean);
        assert_eq!(fleet.lives()["service/homeserver"], before["service/homeserver"]);
        round += 1;
    }
    println!("{kills} of {} were at work when they were killed", ROUNDS.0 + round);
    assert!(kills >= AT_WORK.0, "too few were killed at work: {kills}");
}

/// A text of `fleet.kdl` that is one of two.
struct Toggle(&'static str, &'static str);

impl Toggle {
    const fn new(now: &'static str, next: &'static str) -> Self {
        Self(now, next)
    }

    fn turn(&mut self, fleet: &Fleet, text: impl Fn(&str) -> String) {
        fleet.edit("fleet.kdl", &text(self.0), &text(self.1));
        std::mem::swap(&mut self.0, &mut self.1);
    }
}
