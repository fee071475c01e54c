//! What an environment's history and lease do, wherever they are kept: one suite, for `.fleet/` and for a bucket of an emulated
//! account; and what only a bucket does, which several machines reach.

use std::{
    collections::BTreeMap,
    process::Command,
    sync::Arc,
    time::{Duration, SystemTime},
};

use fleet_apply::Silent;
use fleet_aws::{
    Account, Place,
    emulator::{Emulator, REQUIREMENTS, Start},
};
use fleet_derivation::Derivation;
use fleet_model::{Address, Kind};
use fleet_plan::Generation;
use fleet_sim::{free_port, venv};
use fleet_store::{
    Depth, GenerationError, HeldLease, History, Holder, LeaseError, Leased, LocalHistory, SharedHistory, Store, append,
};
use tempfile::TempDir;

const BUCKET: &str = "fleet-state";
/// Longer than any lease is good, and than clocks may differ.
const LONG: Duration = Duration::from_secs(3600);

/// An account with a bucket.
struct Cloud {
    emulator: Emulator,
    account: Account,
    folder: TempDir,
}

impl Cloud {
    async fn new() -> Self {
        let (folder, port) = (tempfile::tempdir().expect("a folder"), free_port());
        let place = Place { account: "111122223333".to_owned(), region: "us-east-1".to_owned(), endpoint: None };
        let python = venv("ministack", &REQUIREMENTS.join(" ")).join("python");
        let emulated = folder.path().join("emulator");
        let start = Start { python: &python, folder: &emulated, port, place: &place, engine: None };
        let emulator = Emulator::start(start).await.expect("an emulator");
        let place = Place { endpoint: Some(emulator.endpoint()), ..place };
        let cloud = Self { account: Account::open(place, Arc::new(Silent)).await, emulator, folder };
        cloud.ask(reqwest::Method::PUT, BUCKET).await;
        cloud
    }

    async fn ask(&self, method: reqwest::Method, path: &str) {
        let as_whom = "AWS4-HMAC-SHA256 Credential=111122223333/20260101/us-east-1/s3/aws4_request, SignedHeaders=host, Signature=0";
        let url = format!("{}/{path}", self.emulator.endpoint());
        let answer = reqwest::Client::new().request(method, url).header("authorization", as_whom).send().await;
        assert!(answer.expect("an answer").status().is_success(), "{path}");
    }

    /// The history of an environment, as a checkout of its own sees it.
    fn checkout(&self, name: &str, environment: &str) -> (SharedHistory, Arc<Store>) {
        let store = store(&self.folder, name);
        let bucket = self.account.bucket(BUCKET, self.account.place.endpoint.as_deref()).expect("a bucket");
        (SharedHistory::new(bucket, ("acme", environment), Arc::clone(&store), "copy"), store)
    }
}

fn store(folder: &TempDir, name: &str) -> Arc<Store> {
    let project = folder.path().join(name);
    std::fs::create_dir_all(&project).expect("a folder");
    Arc::new(Store::open(&project).expect("a store"))
}

fn derivation(value: &str) -> Derivation {
    let mut derivation = Derivation::new(Address::new(Kind::Service, "web"));
    derivation.value("port", value, None);
    derivation
}

fn generation(environment: &str, number: u64, derived: &Derivation) -> Generation {
    Generation {
        schema: 1,
        number,
        environment: environment.to_owned(),
        finished: 1,
        who: Some("ada".to_owned()),
        host: None,
        objects: BTreeMap::from([(derived.address.clone(), derived.hash())]),
        outputs: BTreeMap::new(),
        entries: Vec::new(),
    }
}

async fn ours(history: &dyn History, who: &str, now: SystemTime) -> Box<dyn HeldLease> {
    match history.ask_lease(&Holder::this_process(who, "apply"), now).await.expect("an answer") {
        Leased::Ours(lease) => lease,
        Leased::Held(holder) => panic!("{who} does not get it: {holder:?}"),
    }
}

/// What every history does. `first` and `second` are of two environments.
async fn keeps_its_promises(first: &dyn History, second: &dyn History) {
    // Numbers grow for each environment by itself, and what was written is read.
    assert_eq!(first.numbers().await.expect("numbers"), Vec::<u64>::new());
    assert!(first.read(1).await.expect("an answer").is_none());
    let one = derivation("1");
    let written = append(first, generation("first", 0, &one), std::slice::from_ref(&one)).await.expect("written");
    assert_eq!(written.number, 1);
    assert_eq!(first.read(1).await.expect("an answer"), Some(written));
    assert!(second.numbers().await.expect("numbers").is_empty());
    append(second, generation("second", 0, &one), &[]).await.expect("written");

    // Of two writers of one number one wins, the other learns it, and nothing of the first is lost.
    let two = [generation("first", 2, &one), generation("first", 2, &derivation("2"))];
    let (left, right) = tokio::join!(first.write(&two[0], &[]), first.write(&two[1], &[]));
    let (winner, loser) = if left.is_ok() { (&two[0], right) } else { (&two[1], left) };
    let refused = loser.expect_err("only one");
    assert!(matches!(refused, GenerationError::Taken { number: 2, .. }), "{refused}");
    assert!(refused.to_string().contains("generation 2 of first is there already"), "{refused}");
    assert_eq!(first.read(2).await.expect("an answer").as_ref(), Some(winner));
    assert!(matches!(first.write(winner, &[]).await, Err(GenerationError::Taken { .. })), "also what is the same");

    // Who only wants the next one gets it.
    let all = (0..8).map(|_| append(first, generation("first", 0, &one), &[]));
    for appended in futures::future::join_all(all).await {
        appended.expect("written");
    }
    assert_eq!(first.numbers().await.expect("numbers"), (1..=10).collect::<Vec<_>>());

    // One at a time, and the other learns who; environments are independent; what was given back is free.
    let now = SystemTime::now();
    assert_eq!(first.holder(now).await.expect("an answer"), None);
    let lease = ours(first, "ada", now).await;
    let Leased::Held(Some(holder)) =
        first.ask_lease(&Holder::this_process("ben", "apply"), now).await.expect("an answer")
    else {
        panic!("two hold one lease")
    };
    assert_eq!((holder.who.as_str(), holder.pid), ("ada", std::process::id()));
    assert_eq!(first.holder(now).await.expect("an answer"), Some(holder));
    ours(second, "ben", now).await.release().await.expect("released");
    lease.release().await.expect("released");
    assert_eq!(first.holder(now).await.expect("an answer"), None);
    let mut again = ours(first, "ben", now).await;
    again.renew(now).await.expect("renewed");
    again.release().await.expect("released");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_keeps_the_promises_of_a_history() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = store(&folder, "project");
    let of = |environment: &str| LocalHistory::new(Arc::clone(&store), environment);
    keeps_its_promises(&of("first"), &of("second")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bucket_keeps_the_promises_of_a_history() {
    let cloud = Cloud::new().await;
    keeps_its_promises(&cloud.checkout("one", "first").0, &cloud.checkout("one", "second").0).await;
    cloud.emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ran_out_is_taken_over_and_its_former_holder_learns_it() {
    let cloud = Cloud::new().await;
    let (ada, _) = cloud.checkout("ada", "dev");
    let (ben, _) = cloud.checkout("ben", "dev");
    let now = SystemTime::now();
    let mut former = ours(&ada, "ada", now).await;
    // As long as it is renewed it stays hers.
    former.renew(now + LONG).await.expect("renewed");
    let holder = ben.holder(now + LONG).await.expect("an answer").expect("held");
    assert!(holder.until.is_some_and(|until| until > holder.since));
    assert_eq!(ben.holder(now + LONG * 2).await.expect("an answer"), None);
    let lease = ours(&ben, "ben", now + LONG * 2).await;

    let Err(lost) = former.renew(now + LONG * 2).await else { panic!("two hold one lease") };
    assert!(matches!(&lost, LeaseError::Lost { by: Some(by), .. } if by.who == "ben"), "{lost}");
    assert!(lost.to_string().contains("the lease on dev ran out and was taken over by ben on "), "{lost}");
    // What she gives back is not his.
    former.release().await.expect("nothing to do");
    assert_eq!(ada.holder(now + LONG * 2).await.expect("an answer").map(|by| by.who).as_deref(), Some("ben"));
    lease.release().await.expect("released");
    cloud.emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_who_ask_at_once_one_gets_it_and_a_process_of_this_machine_that_is_gone_holds_nothing() {
    let cloud = Cloud::new().await;
    let (ada, _) = cloud.checkout("ada", "dev");
    let (ben, _) = cloud.checkout("ben", "dev");
    let now = SystemTime::now();
    let (by_ada, by_ben) = (Holder::this_process("ada", "apply"), Holder::this_process("ben", "apply"));
    let (left, right) = tokio::join!(ada.ask_lease(&by_ada, now), ben.ask_lease(&by_ben, now));
    let held = [left.expect("an answer"), right.expect("an answer")];
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for one in held {
        match one {
            Leased::Ours(lease) => ours.push(lease),
            Leased::Held(by) => theirs.push(by.expect("a name").who),
        }
    }
    assert_eq!((ours.len(), theirs.len()), (1, 1));
    ours.remove(0).release().await.expect("released");

    let mut ended = Command::new("true").spawn().expect("a process");
    let gone = Holder { pid: ended.id(), ..by_ada };
    ended.wait().expect("it ended");
    assert!(matches!(ada.ask_lease(&gone, now).await, Ok(Leased::Ours(_))));
    assert_eq!(ben.holder(now).await.expect("an answer"), None, "kill -9 keeps nobody");
    assert!(matches!(ben.ask_lease(&by_ben, now).await, Ok(Leased::Ours(_))));
    cloud.emulator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_checkout_has_generations_and_what_they_derive_from_and_a_new_bucket_empties_its_copy() {
    let cloud = Cloud::new().await;
    let (ada, _) = cloud.checkout("ada", "dev");
    let derived: Vec<Derivation> = ["1", "2", "3"].map(derivation).into();
    for one in &derived {
        append(&ada, generation("dev", 0, one), std::slice::from_ref(one)).await.expect("written");
    }
    let (ben, store) = cloud.checkout("ben", "dev");
    ben.refresh(Depth::Newest).await.expect("refreshed");
    assert_eq!(store.generation_numbers("copy").expect("numbers"), [3]);
    assert_eq!(store.derivation(&derived[2].hash()).expect("an answer").as_ref(), Some(&derived[2]));
    ben.refresh(Depth::All).await.expect("refreshed");
    assert_eq!(store.generation_numbers("copy").expect("numbers"), [1, 2, 3]);
    assert_eq!(store.derivation(&derived[0].hash()).expect("an answer").as_ref(), Some(&derived[0]));
    assert_eq!(store.latest_generation("copy").expect("an answer").map(|one| one.number), Some(3));

    // What is torn or of a later version is skipped, said, and its number not used again.
    cloud.ask(reqwest::Method::PUT, &format!("{BUCKET}/acme/dev/generations/00000004.json.zst")).await;
    ben.refresh(Depth::Newest).await.expect("refreshed");
    assert_eq!(store.latest_generation("copy").expect("an answer").map(|one| one.number), Some(3));
    let notes = store.take_notes().join("\n");
    assert!(notes.contains("acme/dev/generations/00000004.json.zst in the state bucket cannot be read"), "{notes}");
    assert_eq!(append(&ben, generation("dev", 0, &derived[0]), &[]).await.expect("written").number, 5);

    // Those that are too many go; what the others derive from stays, wherever it was.
    let Err(torn) = ada.surplus(2).await else { panic!("one that counts is torn") };
    assert!(matches!(torn, GenerationError::Damaged { number: 4, .. }), "{torn}");
    cloud.ask(reqwest::Method::DELETE, &format!("{BUCKET}/acme/dev/generations/00000004.json.zst")).await;
    let surplus = ada.surplus(2).await.expect("what is too much");
    assert_eq!(surplus.numbers, [1, 2]);
    ada.prune(&surplus).await.expect("removed");
    let (cy, fresh) = cloud.checkout("cy", "dev");
    cy.refresh(Depth::All).await.expect("refreshed");
    assert_eq!(fresh.generation_numbers("copy").expect("numbers"), [3, 5]);
    let known = |index: usize| fresh.derivation(&derived[index].hash()).expect("an answer").is_some();
    assert_eq!([known(0), known(1), known(2)], [true, false, true], "of the first, the fifth was made");

    // The account was prepared anew: what is there counts, not what was copied.
    for number in [3, 5] {
        let object = format!("{BUCKET}/acme/dev/generations/{number:08}.json.zst");
        cloud.ask(reqwest::Method::DELETE, &object).await;
    }
    append(&ada, generation("dev", 0, &derived[1]), &[]).await.expect("written");
    ben.refresh(Depth::Newest).await.expect("refreshed");
    assert_eq!(store.generation_numbers("copy").expect("numbers"), [1]);
    let newest = store.latest_generation("copy").expect("an answer").expect("one");
    assert_eq!(newest.objects[&derived[1].address], derived[1].hash());
    cloud.emulator.stop().await;
}
