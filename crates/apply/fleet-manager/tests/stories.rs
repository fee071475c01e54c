//! Operator and manager, with a bucket in memory between them and a homeserver that is `fleet-sim`'s. With a real
//! homeserver and a process that is really killed: `tests/tests/stories/manager.rs`.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use fleet_apply::{Events, Execution, Provider, ProviderError, Report, Scope, Secrets, Silent, SystemClock, execute};
use fleet_derivation::Hash;
use fleet_manager::{
    Homeserver, Mailbox, Manager, Pace, RemoteMatrix, Waits,
    protocol::{self, Key, Seen, Work},
};
use fleet_model::{Address, Kind, model::Rollout};
use fleet_plan::{AccountSpec, Action, Desired, Outcome, Plan, RoomSpec, State};
use fleet_secret::{FleetSecret, Secret};
use fleet_sim::{CallLog, SimProvider, World, contract::change, killed};
use futures::TryStreamExt;
use object_store::{GetOptions, ObjectStore, ObjectStoreExt, PutMode, memory::InMemory, path::Path};

const SECRET: &str = "Vb3!nYk7-Pd4*hGc6";
/// Long enough for a loaded machine; what ends sooner does not wait for it.
const LONG: Duration = Duration::from_secs(120);
const SHORT: Duration = Duration::from_millis(20);

fn secret(value: &str) -> FleetSecret {
    FleetSecret::new(Secret::new(value)).unwrap()
}

fn scope() -> Scope {
    Scope { fleet: "acme".to_owned(), environment: "dev".to_owned(), domain: "acme.test".to_owned() }
}

struct Sim(SimProvider);

#[async_trait]
impl Homeserver for Sim {
    fn provider(&self) -> &dyn Provider {
        &self.0
    }

    async fn finish(&self) -> Result<(), String> {
        Ok(())
    }
}

/// A bucket, a homeserver, and what is declared.
#[derive(Clone)]
struct Place {
    bucket: Arc<InMemory>,
    world: World,
    wanted: BTreeMap<Address, Desired>,
}

fn account(name: &str) -> (Address, Desired) {
    let spec = AccountSpec { matrix_id: format!("@{name}:acme.test"), display_name: name.to_owned(), epoch: 0 };
    (Address::new(Kind::Account, name), Desired::Account(spec))
}

fn room(alias: &str, topic: &str, members: &[&str]) -> (Address, Desired) {
    let spec = RoomSpec {
        alias: alias.to_owned(),
        name: alias.to_owned(),
        topic: topic.to_owned(),
        members: members.iter().map(|name| format!("@{name}:acme.test")).collect(),
        power: BTreeMap::new(),
        public: false,
        direct: false,
    };
    (Address::new(Kind::Room, alias), Desired::Room(spec))
}

impl Place {
    fn new() -> Self {
        let wanted = [account("ann"), account("bob"), room("all", "News", &["ann", "bob"]), room("team", "", &["ann"])];
        Self { bucket: Arc::default(), world: World::default(), wanted: wanted.into() }
    }

    fn mailbox(&self, value: &str) -> Mailbox {
        let store: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(&self.bucket);
        Mailbox::new(store, Key::of(&secret(value)))
    }

    fn manager(&self, events: Arc<dyn Events>) -> Manager {
        Manager {
            scope: scope(),
            mailbox: self.mailbox(SECRET),
            homeserver: Arc::new(Sim(self.world.provider())),
            secrets: Secrets { fleet: secret(SECRET), operator: BTreeMap::new() },
            clock: Arc::new(SystemClock),
            pace: Pace { poll: SHORT, refresh: LONG, heartbeat: SHORT, patience: SHORT, oldest: LONG },
            events,
            tool: "0.1".to_owned(),
            alive: Box::new(|| ()),
        }
    }

    /// Runs a manager until the story is told.
    async fn managed<T>(&self, story: impl Future<Output = T>) -> T {
        let (manager, stop) = (self.manager(Arc::new(Silent)), AtomicBool::new(false));
        let story = async {
            let told = story.await;
            stop.store(true, Ordering::SeqCst);
            told
        };
        tokio::join!(story, manager.run(&stop)).0
    }

    fn operator(&self) -> RemoteMatrix {
        self.operator_with(SECRET, LONG)
    }

    fn operator_with(&self, value: &str, silence: Duration) -> RemoteMatrix {
        let waits = Waits { poll: SHORT, silence, fresh: LONG };
        let reach = Arc::new(self.mailbox(value));
        RemoteMatrix::new(scope(), reach, Arc::new(SystemClock), waits, "see /ecs/acme-dev/manager".to_owned())
    }

    /// What a planner would find to do.
    fn plan(&self, state: &State) -> Plan {
        let seen = |address: &Address| state.objects.get(address);
        let mut changes: Vec<_> = self
            .wanted
            .iter()
            .filter(|(address, desired)| seen(address).and_then(|seen| seen.actual.as_ref()) != Some(*desired))
            .map(|(address, desired)| change(address, seen(address), Some(desired)))
            .collect();
        let unwanted = state.objects.keys().filter(|address| !self.wanted.contains_key(*address));
        changes.extend(unwanted.map(|address| change(address, seen(address), None)));
        let (fleet, environment) = ("acme".to_owned(), "dev".to_owned());
        Plan { schema: 1, fleet, environment, graph: Hash::of(b""), changes, unchanged: 0, notes: Vec::new() }
    }

    async fn observe(&self, operator: &RemoteMatrix) -> State {
        let wanted: Vec<Address> = self.wanted.keys().cloned().collect();
        operator.observe(&wanted).await.unwrap()
    }

    /// Observe, plan, apply.
    async fn apply(&self, operator: &RemoteMatrix) -> Report {
        let state = self.observe(operator).await;
        run(operator, &self.plan(&state)).await
    }

    async fn objects(&self) -> BTreeMap<String, String> {
        let listed: Vec<_> = self.bucket.list(None).try_collect().await.unwrap();
        let mut objects = BTreeMap::new();
        for meta in listed {
            let bytes =
                self.bucket.get_opts(&meta.location, GetOptions::default()).await.unwrap().bytes().await.unwrap();
            objects.insert(meta.location.to_string(), String::from_utf8(bytes.to_vec()).unwrap());
        }
        objects
    }

    async fn work(&self) -> Vec<Work> {
        let key = Key::of(&secret(SECRET));
        let objects = self.objects().await;
        let of_work = objects.iter().filter_map(|(name, text)| {
            let id = name.strip_prefix("manager/work/")?.strip_suffix(".json")?;
            Some(Work::open(&key, id, text.as_bytes()).unwrap())
        });
        of_work.filter(|work| !work.changes.is_empty()).collect()
    }

    async fn put(&self, object: &str, text: String) {
        self.bucket.put_opts(&Path::from(object), text.into(), PutMode::Overwrite.into()).await.unwrap();
    }

    async fn remove(&self, prefix: &str) {
        for name in self.objects().await.keys().filter(|name| name.starts_with(prefix)) {
            self.bucket.delete(&Path::from(name.as_str())).await.unwrap();
        }
    }

    /// The homeserver is as declared.
    async fn is_right(&self) -> bool {
        let state = self.world.provider().observe(&[]).await.unwrap();
        self.plan(&state).changes.is_empty()
    }
}

async fn run(operator: &RemoteMatrix, plan: &Plan) -> Report {
    let secrets = Secrets { fleet: secret(SECRET), operator: BTreeMap::new() };
    let execution = Execution {
        plan,
        providers: &[operator],
        secrets: &secrets,
        rollout: Rollout::default(),
        events: &Silent,
        recorder: &Silent,
        stop: &AtomicBool::new(false),
    };
    execute(&execution, BTreeMap::new()).await
}

fn outcomes(report: &Report) -> Vec<Outcome> {
    report.entries.iter().map(|entry| entry.outcome.clone()).collect()
}

#[tokio::test]
async fn what_is_handed_over_is_made_and_the_second_time_nothing_is_handed_over() {
    let place = Place::new();
    let story = async {
        let report = place.apply(&place.operator()).await;
        assert_eq!(outcomes(&report), vec![Outcome::Done; 4]);
        assert_eq!(place.work().await.len(), 1, "all changes are one object of work");
        let (writes, objects) = (place.world.writes(), place.objects().await);

        let operator = place.operator();
        operator.ask();
        let report = place.apply(&operator).await;
        assert!(report.entries.is_empty(), "{report:?}");
        assert!(operator.remark().unwrap().starts_with("accounts and rooms are as service/manager saw them "));
        assert_eq!(place.world.writes(), writes);
        assert_eq!(place.objects().await, objects, "looking at what is fresh writes nothing");
    };
    place.managed(story).await;
    assert!(place.is_right().await);
}

#[tokio::test]
async fn deletions_are_handed_over_after_everything_else() {
    let mut place = Place::new();
    place.managed(async { drop(place.apply(&place.operator()).await) }).await;
    place.wanted.remove(&Address::new(Kind::Account, "bob"));
    place.wanted.insert(room("all", "Old news", &["ann"]).0, room("all", "Old news", &["ann"]).1);
    place.managed(async { assert_eq!(outcomes(&place.apply(&place.operator()).await), vec![Outcome::Done; 2]) }).await;
    let work = place.work().await;
    let alone = |action| work.iter().any(|work| work.changes.len() == 1 && work.changes[0].action == action);
    assert!(alone(Action::Delete) && alone(Action::Update), "{work:?}");
    assert!(place.is_right().await);
}

#[tokio::test]
async fn forged_and_altered_work_is_ignored() {
    let place = Place::new();
    // Signed with another secret; signed by us and altered; signed by us for another environment; no work at all.
    let work = |environment: &str| Work {
        fleet: "acme".to_owned(),
        environment: environment.to_owned(),
        base: u64::try_from(std::time::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap(),
        changes: place.plan(&State::default()).changes.iter().map(protocol::Due::of).collect(),
        wanted: Vec::new(),
    };
    let (id, forged) = work("dev").seal(&Key::of(&secret("somebody else's secret")));
    place.put(&protocol::work_object(&id), forged).await;
    let (_, ours) = work("dev").seal(&Key::of(&secret(SECRET)));
    let altered = ours.replace("ann", "eve");
    assert_ne!(altered, ours);
    place.put(&protocol::work_object(&format!("a{}", &id[1..])), altered).await;
    let (elsewhere, text) = work("production").seal(&Key::of(&secret(SECRET)));
    place.put(&protocol::work_object(&elsewhere), text).await;
    let (old, text) = Work { base: 7, ..work("dev") }.seal(&Key::of(&secret(SECRET)));
    place.put(&protocol::work_object(&old), text).await;
    place.put("manager/work/nonsense.json", "{".to_owned()).await;

    place
        .managed(async {
            // The manager has been through all of it once it has done what came after.
            let operator = place.operator();
            let nothing = Plan { changes: Vec::new(), ..place.plan(&State::default()) };
            drop(run(&operator, &nothing).await);
            let only = Plan { changes: vec![change(&account("ann").0, None, Some(&account("ann").1))], ..nothing };
            assert_eq!(outcomes(&run(&operator, &only).await), [Outcome::Done]);
        })
        .await;
    assert_eq!(place.world.writes(), 1, "only what we signed for this environment, now");
}

#[tokio::test]
async fn forged_progress_and_observations_count_for_nothing() {
    let place = Place::new();
    place.managed(async { drop(place.apply(&place.operator()).await) }).await;
    let seen = place.objects().await.remove(protocol::OBSERVED).unwrap();
    let altered = seen.replace("News", "Lies");
    assert_ne!(altered, seen);
    place.put(protocol::OBSERVED, altered).await;
    let refused = place.operator().observe(&[]).await.unwrap_err();
    assert!(matches!(refused, ProviderError::Denied { .. }), "{refused}");
    assert!(refused.to_string().contains("cannot be trusted"), "{refused}");
    place.put(protocol::OBSERVED, seen).await;

    // Somebody says that work is done before a manager has seen it.
    let mut more = place.clone();
    more.wanted.extend([account("cy")]);
    let operator = more.operator();
    let plan = more.plan(&more.observe(&operator).await);
    let forge = async {
        while more.work().await.len() < 2 {
            tokio::time::sleep(SHORT).await;
        }
        let ends = BTreeMap::from([(account("cy").0, protocol::End::Done)]);
        let wrong = Key::of(&secret("somebody else's secret"));
        for name in
            more.objects().await.into_keys().filter(|name| name.starts_with("manager/work/")).collect::<Vec<_>>()
        {
            let id = name.trim_start_matches("manager/work/").trim_end_matches(".json");
            let piece = protocol::seal_piece(&wrong, id, 900, &[protocol::Line::Summary { ends: ends.clone() }]);
            more.put(&protocol::piece_object(id, 900), piece).await;
        }
        more.managed(async {
            while !more.is_right().await {
                tokio::time::sleep(SHORT).await;
            }
        })
        .await;
    };
    let (report, ()) = tokio::join!(run(&operator, &plan), forge);
    assert_eq!(outcomes(&report), [Outcome::Done]);
    assert!(more.is_right().await);
}

#[tokio::test]
async fn a_manager_killed_before_any_write_is_followed_by_one_that_finishes() {
    for n in 0.. {
        let place = Place::new();
        // Rooms that change: half changed, they are not what was planned against.
        let mut before = place.clone();
        before.wanted = [account("ann"), room("all", "Old", &["eve"]), room("team", "Old", &[])].into();
        before.managed(async { drop(before.apply(&before.operator()).await) }).await;

        let operator = place.operator();
        let mut wanted = place.clone();
        wanted.wanted.insert(account("eve").0, account("eve").1);
        let plan = wanted.plan(&wanted.observe(&operator).await);
        let doomed = place.manager(Arc::new(CallLog::dying_before(n)));
        let stop = AtomicBool::new(false);
        let succession = async {
            let died = killed(doomed.run(&stop)).await.is_none();
            if died {
                let told = async {
                    while !stop.load(Ordering::SeqCst) {
                        tokio::time::sleep(SHORT).await;
                    }
                };
                wanted.managed(told).await;
            }
            died
        };
        let told = async {
            let report = run(&operator, &plan).await;
            stop.store(true, Ordering::SeqCst);
            report
        };
        let (report, died) = tokio::join!(told, succession);
        assert!(report.is_complete(), "killed before write {n}: {report:?}");
        assert!(wanted.is_right().await);
        if !died {
            assert!(n > 5, "only {n} writes?");
            return;
        }
    }
}

#[tokio::test]
async fn lost_progress_costs_another_look_and_no_write() {
    let place = Place::new();
    place.managed(async { drop(place.apply(&place.operator()).await) }).await;
    let mut more = place.clone();
    more.wanted.extend([account("cy"), room("new", "", &["cy"])]);
    let (one, other) = (more.operator(), more.operator());
    let plan = more.plan(&more.observe(&one).await);
    assert_eq!(more.plan(&more.observe(&other).await), plan);
    more.managed(async { assert_eq!(outcomes(&run(&one, &plan).await), [Outcome::Done, Outcome::Done]) }).await;
    let (writes, id) = (more.world.writes(), one_id(&more, account("cy").0).await);

    // All but the last piece: the summary says it all, even where no manager is there any more.
    let folder = protocol::progress_folder(&id);
    let pieces: Vec<String> = more.objects().await.into_keys().filter(|name| name.starts_with(&folder)).collect();
    assert!(pieces.len() > 1, "{pieces:?}");
    for piece in &pieces[..pieces.len() - 1] {
        more.remove(piece).await;
    }
    assert_eq!(outcomes(&run(&other, &plan).await), [Outcome::Done, Outcome::Done]);

    // All of it: the next manager does the work again, and everything is right.
    more.remove("manager/progress/").await;
    more.managed(async {
        let seen = async || {
            Seen::open(&Key::of(&secret(SECRET)), "acme", "dev", more.objects().await[protocol::OBSERVED].as_bytes())
        };
        while !more.objects().await.keys().any(|name| name.starts_with(&folder)) {
            tokio::time::sleep(SHORT).await;
        }
        assert_eq!(seen().await.unwrap().state.objects.len(), 6);
    })
    .await;
    assert_eq!(more.world.writes(), writes);
    assert!(more.is_right().await);
}

/// Id of the object of work that is about something.
async fn one_id(place: &Place, address: Address) -> String {
    let work = place.work().await.into_iter().find(|work| work.changes.iter().any(|due| due.address == address));
    work.unwrap().seal(&Key::of(&secret(SECRET))).0
}

#[tokio::test]
async fn the_same_plan_of_two_operators_is_done_once_and_both_are_told() {
    let place = Place::new();
    place.managed(async { drop(place.apply(&place.operator()).await) }).await;
    let mut more = place.clone();
    more.wanted.extend([account("cy"), room("new", "", &["cy"])]);
    let (one, other) = (more.operator(), more.operator());
    let plans = (more.plan(&more.observe(&one).await), more.plan(&more.observe(&other).await));
    more.managed(async {
        let (first, second) = tokio::join!(run(&one, &plans.0), run(&other, &plans.1));
        assert_eq!(outcomes(&first), [Outcome::Done, Outcome::Done]);
        assert_eq!(outcomes(&second), outcomes(&first));
    })
    .await;
    assert_eq!(more.work().await.len(), 2, "that of the first apply, and one for both");
}

#[tokio::test]
async fn of_two_different_plans_the_second_is_refused_what_the_first_has_changed() {
    let place = Place::new();
    place.managed(async { drop(place.apply(&place.operator()).await) }).await;
    let (mut one, mut other) = (place.clone(), place.clone());
    one.wanted.extend([room("all", "One", &["ann", "bob"])]);
    other.wanted.extend([room("all", "Other", &["ann", "bob"]), account("cy")]);
    let (first, second) = (place.operator(), place.operator());
    let plans = (one.plan(&one.observe(&first).await), other.plan(&other.observe(&second).await));
    place
        .managed(async {
            assert_eq!(outcomes(&run(&first, &plans.0).await), [Outcome::Done]);
            let ends = outcomes(&run(&second, &plans.1).await);
            assert!(matches!(ends[..], [Outcome::Done, Outcome::Stale { .. }]), "{ends:?}");
        })
        .await;
    assert!(one.world.provider().observe(&[]).await.unwrap().objects.contains_key(&account("cy").0));
}

#[tokio::test]
async fn whoever_applies_something_else_asks_for_a_fresh_look_first() {
    let place = Place::new();
    place
        .managed(async {
            drop(place.apply(&place.operator()).await);
            place.world.vanish(&account("bob").0);
            let mut more = place.clone();
            more.wanted.extend([account("cy")]);
            let looking = more.observe(&more.operator()).await;
            assert!(looking.objects.contains_key(&account("bob").0), "who only looks is told what was seen last");
            let asking = more.operator();
            asking.ask();
            assert!(!more.observe(&asking).await.objects.contains_key(&account("bob").0));
            assert!(!asking.remark().unwrap().contains("something else"));
        })
        .await;
}

#[tokio::test]
async fn a_manager_that_is_silent_is_an_error_that_says_where_to_look() {
    let place = Place::new();
    let operator = place.operator_with(SECRET, SHORT);
    assert_eq!(place.observe(&operator).await.unseen.len(), 1, "nobody has looked around yet");
    let report = place.apply(&operator).await;
    assert!(report.unreachable);
    let Outcome::Failed { why } = &report.entries[0].outcome else { panic!("{report:?}") };
    assert!(why.contains("service/manager") && why.contains("see /ecs/acme-dev/manager"), "{why}");
    // Who asks for a fresh look and gets none does not fail: applying may be what mends it.
    let seen = place.managed(async { drop(place.apply(&place.operator()).await) });
    seen.await;
    let mut more = place.clone();
    more.wanted.extend([account("cy")]);
    let asking = more.operator_with(SECRET, SHORT);
    asking.ask();
    let state = more.observe(&asking).await;
    assert!(state.unseen[0].contains("does not answer"), "{state:?}");
}

#[tokio::test]
async fn no_object_holds_a_secret() {
    let place = Place::new();
    place.managed(async { drop(place.apply(&place.operator()).await) }).await;
    let fleet = secret(SECRET);
    let mut values = vec![SECRET.to_owned()];
    for label in [protocol::KEY_LABEL, "synapse-registration-shared-secret", "registration-token"] {
        values.push(fleet.key_for(label).expose_str().unwrap().to_owned());
    }
    for name in ["ann", "bob", "fleetctl"] {
        values.push(fleet.password(&format!("@{name}:acme.test"), 0).expose_str().unwrap().to_owned());
    }
    let objects = place.objects().await;
    assert!(objects.len() >= 3, "{objects:?}");
    for (name, text) in objects {
        assert!(!values.iter().any(|value| text.contains(value)), "{name}");
    }
}
