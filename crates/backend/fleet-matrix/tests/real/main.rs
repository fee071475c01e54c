//! The provider against a real homeserver: Synapse, started as its image starts it.

mod killed;
mod world;

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    sync::atomic::{AtomicUsize, Ordering},
    time::Duration,
};

use fleet_apply::{Applied, Event, Events, Provider, ProviderError};
use fleet_matrix::{Flavour, Login};
use fleet_model::{Address, Kind};
use fleet_plan::{Action, Desired, RoomSpec};
use serde_json::json;
use world::{DOMAIN, Fleet, World, account, apply, apply_with, change, changes, direct, room, run, secrets};

fn fleet() -> Fleet {
    Fleet::from([
        account("ann", "Ann Archer"),
        account("bob", "Bob Baker"),
        account("cy", "Cy Cook"),
        room("all-employees", &["ann", "bob", "cy"], |spec| {
            spec.name = "All Employees".to_owned();
            spec.topic = "Everybody".to_owned();
            spec.power.insert(format!("@ann:{DOMAIN}"), 50);
        }),
        room("frontend-team", &["ann", "bob"], |_| {}),
        direct("ann", "bob"),
    ])
}

fn edit(fleet: &mut Fleet, alias: &str, edit: impl FnOnce(&mut RoomSpec)) {
    match fleet.get_mut(&Address::new(Kind::Room, alias)) {
        Some(Desired::Room(spec)) => edit(spec),
        other => panic!("{alias} is {other:?}"),
    }
}

#[tokio::test]
async fn the_first_apply_makes_everything_and_the_second_writes_nothing_and_logs_nobody_in() {
    let world = World::closed().await;
    let done = run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    assert_eq!(done.len(), 6, "{done:?}");
    let first_writes = world.log.take_writes();
    let logins = first_writes.iter().filter(|call| call.ends_with("/login")).count();
    assert_eq!(
        logins, 3,
        "the service account once, and the two of the direct-message room once each: {first_writes:#?}"
    );
    let litter = world.litter();
    assert_eq!(litter, (1, 1), "only the service account's device and token stay");

    let provider = world.provider(Flavour::Synapse);
    let done = run(&provider, &fleet(), &world.log).await;
    assert_eq!(done, Vec::<String>::new());
    let calls = world.log.take();
    assert!(calls.iter().all(|call| call.starts_with("GET ")), "{calls:#?}");
    assert!(calls.len() <= 5 + 3, "one read per room and a few lists: {calls:#?}");
    assert_eq!(world.litter(), litter);
    assert!(world.login("ann", 0).await.is_some(), "the password is the derived one");
    let mode = std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(world.token_file()).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
}

#[tokio::test]
async fn what_was_changed_behind_our_back_is_seen_and_put_right() {
    let world = World::closed().await;
    run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    let (service, bob, ann) =
        (world.service_token(), world.login("bob", 0).await.unwrap(), world.login("ann", 0).await.unwrap());
    let (everybody, team, dm) =
        (world.room_id("all-employees").await, world.room_id("frontend-team").await, world.room_id("dm-ann-bob").await);

    world
        .call(
            "PUT",
            &format!("/_matrix/client/v3/profile/@ann:{DOMAIN}/displayname"),
            &ann,
            json!({"displayname": "Queen"}),
        )
        .await;
    world
        .call(
            "PUT",
            &format!("/_matrix/client/v3/rooms/{everybody}/state/m.room.topic/"),
            &service,
            json!({"topic": "Nobody"}),
        )
        .await;
    world.call("POST", &format!("/_matrix/client/v3/rooms/{everybody}/leave"), &bob, json!({})).await;
    world.call("POST", &format!("/_matrix/client/v3/rooms/{dm}/leave"), &bob, json!({})).await;
    world.call("DELETE", &format!("/_synapse/admin/v1/rooms/{team}"), &service, json!({"purge": true})).await;
    world.log.take();

    let done = run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    assert_eq!(
        done,
        ["update account/ann", "update room/all-employees", "update room/dm-ann-bob", "create room/frontend-team"]
    );
    let writes = world.log.take_writes();
    let sent = |what: &str| writes.iter().filter(|call| call.contains(what)).count();
    assert_eq!((sent("m.room.topic"), sent("m.room.name"), sent("m.room.power_levels")), (1, 0, 0), "{writes:#?}");

    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await, Vec::<String>::new());
    assert_eq!(world.room_id("all-employees").await, everybody);
    assert_eq!(world.room_id("dm-ann-bob").await, dm);
    assert_ne!(world.room_id("frontend-team").await, team, "a deleted room is made anew");
}

#[tokio::test]
async fn names_members_power_and_join_rules_follow_the_declaration() {
    let world = World::closed().await;
    let mut fleet = fleet();
    run(&world.provider(Flavour::Synapse), &fleet, &world.log).await;
    edit(&mut fleet, "all-employees", |spec| {
        spec.name = "Everyone".to_owned();
        spec.topic = String::new();
        spec.public = true;
        spec.power = [(format!("@cy:{DOMAIN}"), 25)].into();
    });
    edit(&mut fleet, "frontend-team", |spec| spec.members = BTreeSet::from([format!("@cy:{DOMAIN}")]));
    let done = run(&world.provider(Flavour::Synapse), &fleet, &world.log).await;
    assert_eq!(done, ["update room/all-employees", "update room/frontend-team"]);
    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet, &world.log).await, Vec::<String>::new());

    // The service account itself was sent away: a member lets it in again.
    let id = world.room_id("frontend-team").await;
    world.call("POST", &format!("/_matrix/client/v3/rooms/{id}/leave"), &world.service_token(), json!({})).await;
    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet, &world.log).await, ["update room/frontend-team"]);
    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet, &world.log).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_room_that_is_removed_loses_its_alias_and_its_members() {
    let world = World::closed().await;
    run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    let provider = world.provider(Flavour::Synapse);
    let rooms: Vec<Address> = fleet().into_keys().filter(|address| address.kind == Kind::Room).collect();
    // Declared rooms are seen whole, those that nobody declares any more by their record: both can be removed.
    let state = provider.observe(&rooms[1..]).await.unwrap();
    for address in &rooms {
        let remove = change(address, Action::Delete, Some(state.objects[address].version.clone()), None);
        assert_eq!(
            apply(&provider, &remove, &world.log).await.unwrap(),
            Applied::Changed { output: None },
            "{address}"
        );
        assert_eq!(
            apply(&provider, &remove, &world.log).await.unwrap(),
            Applied::Unchanged { output: None },
            "{address}"
        );
    }
    provider.finish().await.unwrap();
    assert_eq!(world.count("select count(*) from room_aliases"), 0);
    assert_eq!(world.count("select count(*) from local_current_membership where membership = 'join'"), 0);
    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await.len(), 3, "they can be made again");
}

#[tokio::test]
async fn an_account_that_is_removed_is_closed_and_comes_back_when_it_is_declared_again() {
    let world = World::closed().await;
    let everybody = fleet();
    run(&world.provider(Flavour::Synapse), &everybody, &world.log).await;
    let session = world.login("bob", 0).await.unwrap();

    let mut without = everybody.clone();
    without.remove(&Address::new(Kind::Account, "bob"));
    without.remove(&Address::new(Kind::Room, "dm-ann-bob"));
    edit(&mut without, "all-employees", |spec| spec.members.retain(|id| !id.starts_with("@bob:")));
    edit(&mut without, "frontend-team", |spec| spec.members.retain(|id| !id.starts_with("@bob:")));
    let done = run(&world.provider(Flavour::Synapse), &without, &world.log).await;
    assert_eq!(done, ["update room/all-employees", "update room/frontend-team", "delete account/bob"]);
    assert_eq!(run(&world.provider(Flavour::Synapse), &without, &world.log).await, Vec::<String>::new());
    assert!(world.login("bob", 0).await.is_none(), "the former password is no good");
    assert_eq!(
        world.count(&format!("select count(*) from access_tokens where user_id = '@bob:{DOMAIN}'")),
        0,
        "session {} ended",
        session.len()
    );
    assert_eq!(world.count(&format!("select count(*) from devices where hidden = 0 and user_id = '@bob:{DOMAIN}'")), 0);
    assert_eq!(
        world.count(&format!("select deactivated from users where name = '@bob:{DOMAIN}'")),
        0,
        "never deactivated"
    );
    assert_eq!(
        world.count(&format!(
            "select count(*) from local_current_membership where membership = 'join' and user_id = '@bob:{DOMAIN}'"
        )),
        0
    );

    let done = run(&world.provider(Flavour::Synapse), &everybody, &world.log).await;
    assert_eq!(
        done,
        ["create account/bob", "update room/all-employees", "update room/dm-ann-bob", "update room/frontend-team"]
    );
    assert_eq!(run(&world.provider(Flavour::Synapse), &everybody, &world.log).await, Vec::<String>::new());
    assert!(world.login("bob", 0).await.is_some());
}

#[tokio::test]
async fn a_password_of_another_epoch_ends_the_sessions_of_the_former_one() {
    let world = World::closed().await;
    let mut fleet = Fleet::from([account("ann", "Ann")]);
    run(&world.provider(Flavour::Synapse), &fleet, &world.log).await;
    world.login("ann", 0).await.unwrap();
    if let Some(Desired::Account(spec)) = fleet.get_mut(&Address::new(Kind::Account, "ann")) {
        spec.epoch = 3;
    }
    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet, &world.log).await, ["update account/ann"]);
    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet, &world.log).await, Vec::<String>::new());
    assert!(world.login("ann", 0).await.is_none());
    assert!(world.login("ann", 3).await.is_some());
}

#[tokio::test]
async fn a_room_whose_making_was_interrupted_is_completed_and_not_made_twice() {
    let world = World::closed().await;
    let accounts: Fleet = fleet().into_iter().filter(|(address, _)| address.kind == Kind::Account).collect();
    run(&world.provider(Flavour::Synapse), &accounts, &world.log).await;
    // Where a killed run stops: the room exists, members, marks and record are missing.
    let service = world.service_token();
    let half = world
        .call("POST", "/_matrix/client/v3/createRoom", &service, json!({"room_alias_name": "all-employees"}))
        .await;
    let ann = world.login("ann", 0).await.unwrap();
    let invited = json!({"room_alias_name": "dm-ann-bob", "is_direct": true, "preset": "trusted_private_chat", "invite": [format!("@bob:{DOMAIN}")]});
    let half_direct = world.call("POST", "/_matrix/client/v3/createRoom", &ann, invited).await;

    let done = run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    assert_eq!(done, ["update room/all-employees", "update room/dm-ann-bob", "create room/frontend-team"]);
    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await, Vec::<String>::new());
    assert_eq!(world.room_id("all-employees").await, half["room_id"]);
    assert_eq!(world.room_id("dm-ann-bob").await, half_direct["room_id"]);
    assert_eq!(world.count("select count(*) from rooms"), 3);
    let marked = world
        .call("GET", &format!("/_matrix/client/v3/user/@ann:{DOMAIN}/account_data/m.direct"), &ann, json!({}))
        .await;
    assert_eq!(marked[format!("@bob:{DOMAIN}")], json!([half_direct["room_id"]]));
}

#[tokio::test]
async fn a_direct_room_that_both_left_is_made_anew_under_its_alias() {
    let world = World::closed().await;
    run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    let former = world.room_id("dm-ann-bob").await;
    for name in ["ann", "bob"] {
        let token = world.login(name, 0).await.unwrap();
        world.call("POST", &format!("/_matrix/client/v3/rooms/{former}/leave"), &token, json!({})).await;
    }
    let done = run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    assert_eq!(done, ["create room/dm-ann-bob"]);
    assert_ne!(world.room_id("dm-ann-bob").await, former);
    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await, Vec::<String>::new());
}

#[tokio::test]
async fn strangers_rooms_and_accounts_are_listed_and_left_alone() {
    let world = World::closed().await;
    run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    let service = world.service_token();
    world
        .call("PUT", &format!("/_synapse/admin/v2/users/@zoe:{DOMAIN}"), &service, json!({"password": "zoe's own"}))
        .await;
    let ann = world.login("ann", 0).await.unwrap();
    world.call("POST", "/_matrix/client/v3/createRoom", &ann, json!({"room_alias_name": "book-club"})).await;

    let mut wanted = fleet();
    let provider = world.provider(Flavour::Synapse);
    let addresses: Vec<Address> = wanted.keys().cloned().collect();
    let state = provider.observe(&addresses).await.unwrap();
    let orphans: Vec<String> = state.orphans.keys().map(ToString::to_string).collect();
    assert_eq!(orphans, ["account/zoe", "room/book-club"]);
    assert!(changes(&wanted, &state).is_empty());

    // Declaring a room under an alias that somebody else has: said, not taken.
    let (address, desired) = room("book-club", &["bob"], |_| {});
    wanted.insert(address.clone(), desired.clone());
    let refused =
        apply(&provider, &change(&address, Action::Create, None, Some(desired)), &world.log).await.unwrap_err();
    let ProviderError::Failed { why, help, .. } = refused else { panic!("{refused:?}") };
    assert!(why.contains(&format!("#book-club:{DOMAIN} belongs to a room of @ann:{DOMAIN}")), "{why}");
    assert!(help.is_some());
}

#[tokio::test]
async fn what_moved_since_the_plan_was_made_is_not_touched() {
    let world = World::closed().await;
    run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    let provider = world.provider(Flavour::Synapse);
    let (address, mut desired) = fleet().into_iter().find(|(address, _)| address.name == "frontend-team").unwrap();
    let planned = provider.observe(std::slice::from_ref(&address)).await.unwrap().objects[&address].version.clone();
    if let Desired::Room(spec) = &mut desired {
        spec.topic = "Planned".to_owned();
    }
    let id = world.room_id("frontend-team").await;
    world
        .call(
            "PUT",
            &format!("/_matrix/client/v3/rooms/{id}/state/m.room.topic/"),
            &world.service_token(),
            json!({"topic": "Moved"}),
        )
        .await;
    let made = change(&address, Action::Update, Some(planned), Some(desired));
    let refused = apply(&provider, &made, &world.log).await.unwrap_err();
    assert!(matches!(refused, ProviderError::Stale { .. }), "{refused:?}");
}

#[tokio::test]
async fn a_change_made_twice_is_made_once() {
    let world = World::closed().await;
    let provider = world.provider(Flavour::Synapse);
    let planned = changes(&fleet(), &provider.observe(&[]).await.unwrap());
    for change in &planned {
        assert!(
            matches!(apply(&provider, change, &world.log).await, Ok(Applied::Changed { .. })),
            "{}",
            change.address
        );
    }
    provider.finish().await.unwrap();
    world.log.take();
    for change in &planned {
        let again = apply(&provider, change, &world.log).await.unwrap();
        assert_eq!(again, Applied::Unchanged { output: None }, "{}", change.address);
    }
    assert_eq!(world.log.take_writes(), Vec::<String>::new());
}

#[tokio::test]
async fn a_homeserver_that_does_not_run_is_told_as_unseen_and_a_wrong_secret_is_told_without_repeating_it() {
    let mut world = World::closed().await;
    run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    std::fs::remove_file(world.token_file()).unwrap();
    let wrong = "Jx8#qWv2-Lm5^tRz9";
    let error = world.provider_with(Flavour::Synapse, wrong).observe(&[]).await.unwrap_err();
    assert!(matches!(error, ProviderError::Denied { .. }), "{error:?}");
    let said = format!("{error} {error:?}");
    assert!(said.contains("set up with another secret"), "{said}");
    let derived = fleet_secret::FleetSecret::new(fleet_secret::Secret::new(wrong))
        .unwrap()
        .password(&format!("@fleetctl:{DOMAIN}"), 0);
    for secret in [wrong, derived.expose_str().unwrap(), world::SECRET] {
        assert!(!secret.as_bytes().windows(8).any(|piece| said.as_bytes().windows(8).any(|p| p == piece)), "{said}");
    }

    world.stop();
    let state = world.provider(Flavour::Synapse).observe(&[]).await.unwrap();
    assert!(state.objects.is_empty());
    assert!(state.unseen[0].contains("does not answer"), "{:?}", state.unseen);
}

#[tokio::test]
async fn without_an_admin_api_the_same_fleet_is_made_with_the_registration_token() {
    let world = World::with_token_registration().await;
    let done = run(&world.provider(Flavour::Conduit), &fleet(), &world.log).await;
    assert_eq!(done.len(), 6, "{done:?}");
    let calls = world.log.take();
    assert!(!calls.iter().any(|call| call.contains("_synapse")), "{calls:#?}");
    assert_eq!(world.litter(), (1, 1), "only the service account's device and token stay");

    assert_eq!(run(&world.provider(Flavour::Conduit), &fleet(), &world.log).await, Vec::<String>::new());
    assert_eq!(world.log.take_writes(), Vec::<String>::new());

    // Somebody left, somebody has another name, somebody goes and comes back.
    let bob = world.login("bob", 0).await.unwrap();
    let team = world.room_id("frontend-team").await;
    world.call("POST", &format!("/_matrix/client/v3/rooms/{team}/leave"), &bob, json!({})).await;
    world
        .call(
            "PUT",
            &format!("/_matrix/client/v3/profile/@bob:{DOMAIN}/displayname"),
            &bob,
            json!({"displayname": "King"}),
        )
        .await;
    world.call("POST", "/_matrix/client/v3/logout", &bob, json!({})).await;
    let mut without = fleet();
    without.remove(&Address::new(Kind::Account, "cy"));
    edit(&mut without, "all-employees", |spec| spec.members.retain(|id| !id.starts_with("@cy:")));
    let done = run(&world.provider(Flavour::Conduit), &without, &world.log).await;
    assert_eq!(
        done,
        ["update account/bob", "update room/all-employees", "update room/frontend-team", "delete account/cy"]
    );
    assert!(world.login("cy", 0).await.is_none());
    assert_eq!(world.litter(), (1, 1));
    let done = run(&world.provider(Flavour::Conduit), &fleet(), &world.log).await;
    assert_eq!(done, ["create account/cy", "update room/all-employees"]);
    assert!(world.login("cy", 0).await.is_some());
    assert_eq!(run(&world.provider(Flavour::Conduit), &fleet(), &world.log).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_person_speaks_mentions_somebody_and_hears_the_answer() {
    let world = World::closed().await;
    run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    let litter = world.litter();
    let provider = world.provider(Flavour::Synapse);
    let mut sent =
        provider.send_message(&format!("@ann:{DOMAIN}"), "frontend-team", "@bob hello, @nobody").await.unwrap();
    assert_eq!(sent.mentioned, [format!("@bob:{DOMAIN}")]);
    assert_eq!(sent.not_members, ["@nobody"]);
    assert_eq!(provider.replies_since(&mut sent, Duration::from_millis(300)).await.unwrap(), []);

    let bob = world.login("bob", 0).await.unwrap();
    let path = format!("/_matrix/client/v3/rooms/{}/send/m.room.message/t1", sent.room_id);
    world.call("PUT", &path, &bob, json!({"msgtype": "m.text", "body": "hello yourself"})).await;
    world.call("POST", "/_matrix/client/v3/logout", &bob, json!({})).await;
    let replies = provider.replies_since(&mut sent, Duration::from_secs(10)).await.unwrap();
    assert_eq!(
        replies.iter().map(|reply| (reply.name.as_str(), reply.text.as_str())).collect::<Vec<_>>(),
        [("bob", "hello yourself")]
    );
    provider.finish().await.unwrap();
    assert_eq!(world.litter(), litter);
    let error = provider.send_message(&format!("@ann:{DOMAIN}"), "no-such-room", "hello").await.unwrap_err();
    assert!(error.to_string().contains(&format!("there is no room #no-such-room:{DOMAIN}")), "{error}");
}

#[tokio::test]
async fn who_speaks_for_one_run_signs_nobody_out_and_leaves_nothing_behind() {
    for (world, flavour) in
        [(World::closed().await, Flavour::Synapse), (World::with_token_registration().await, Flavour::Conduit)]
    {
        let manager = world.provider(flavour);
        run(&manager, &fleet(), &world.log).await;
        let (devices, tokens) = world.litter();
        let guest = world.elsewhere(flavour, Login::ForOneRun);
        guest.send_message(&format!("@ann:{DOMAIN}"), "frontend-team", "hello").await.unwrap();
        assert!(world.litter().0 > devices, "it has a device of its own");
        guest.finish().await.unwrap();
        assert_eq!(world.litter(), (devices, tokens));
        world.log.take();
        assert_eq!(run(&manager, &fleet(), &world.log).await, Vec::<String>::new());
        assert_eq!(world.log.take_writes(), Vec::<String>::new(), "nobody had to log in");
    }
}

#[tokio::test]
async fn a_manager_that_somebody_signed_out_signs_in_again_and_goes_on() {
    let world = World::closed().await;
    let manager = world.provider(Flavour::Synapse);
    run(&manager, &fleet(), &world.log).await;
    let litter = world.litter();
    // As another login on the same device does on a Conduit, and an administrator anywhere.
    let sign_out = async || {
        world.call("POST", "/_matrix/client/v3/logout", &world.service_token(), json!({})).await;
        world.log.take();
    };
    sign_out().await;
    let state = manager.observe(&[]).await.unwrap();
    assert!(state.unseen.is_empty() && state.objects.len() >= 6, "{state:?}");

    // In the middle of changes that go on side by side: all notice, and one login is enough.
    let mut wanted = fleet();
    for alias in ["all-employees", "frontend-team"] {
        edit(&mut wanted, alias, |spec| spec.topic = "Another".to_owned());
    }
    wanted.extend([account("dan", "Dan Dyer")]);
    let all: Vec<Address> = wanted.keys().cloned().collect();
    let planned = changes(&wanted, &manager.observe(&all).await.unwrap());
    assert_eq!(planned.len(), 3, "{planned:?}");
    sign_out().await;
    let made = futures::future::join_all(planned.iter().map(|change| apply(&manager, change, &world.log))).await;
    for (made, change) in made.into_iter().zip(&planned) {
        assert_eq!(made.unwrap(), Applied::Changed { output: None }, "{}", change.address);
    }
    let writes = world.log.take_writes();
    let logins = writes.iter().filter(|call| call.ends_with("/login")).count();
    assert_eq!(logins, 1, "{writes:#?}");
    manager.finish().await.unwrap();
    assert_eq!(world.litter(), litter);
    assert_eq!(run(&manager, &wanted, &world.log).await, Vec::<String>::new());
}

#[tokio::test]
async fn who_is_signed_out_in_the_middle_of_a_change_fails_plainly_and_the_next_run_finishes_it() {
    let world = World::closed().await;
    let manager = world.provider(Flavour::Synapse);
    run(&manager, &fleet(), &world.log).await;
    let mut wanted = fleet();
    wanted.extend([account("dan", "Dan Dyer")]);
    let all: Vec<Address> = wanted.keys().cloned().collect();
    let planned = changes(&wanted, &manager.observe(&all).await.unwrap());
    let signing_out = SignedOutBefore { write: 2, writes: AtomicUsize::new(0), world: &world };
    let error = apply_with(&manager, &planned[0], &signing_out).await.unwrap_err();
    assert!(error.to_string().contains("M_UNKNOWN_TOKEN"), "what was half done is nobody else's change: {error}");
    assert_eq!(run(&manager, &wanted, &world.log).await.len(), 1);
    assert_eq!(run(&manager, &wanted, &world.log).await, Vec::<String>::new());
}

/// Signs the service account out just before a write.
struct SignedOutBefore<'w> {
    write: usize,
    writes: AtomicUsize,
    world: &'w World,
}

impl Events for SignedOutBefore<'_> {
    fn emit(&self, event: Event) {
        let writes = matches!(event, Event::Call { write: true, .. });
        if !writes || self.writes.fetch_add(1, Ordering::SeqCst) + 1 != self.write {
            return;
        }
        let address = self.world.url().replace("http://", "");
        let mut stream = std::net::TcpStream::connect(&address).unwrap();
        let token = self.world.service_token();
        let head =
            format!("POST /_matrix/client/v3/logout HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}");
        write!(stream, "{head}\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{{}}").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
}

#[tokio::test]
async fn of_two_homeservers_on_one_volume_one_serves_and_the_other_waits_and_says_so() {
    let mut world = World::closed().await;
    run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await;
    let (other, said) = world.start_another().await;
    assert!(said.starts_with("homeserver: another homeserver runs on this volume (host "), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
    world.hand_over(other).await;
    assert!(world.said("second").contains("the volume is free now"));
    assert_eq!(run(&world.provider(Flavour::Synapse), &fleet(), &world.log).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_homeserver_takes_variables_in_place_of_files_and_hands_no_key_on() {
    let world = World::from_variables().await;
    let provider = world.provider(Flavour::Synapse);
    assert!(!run(&provider, &fleet(), &world.log).await.is_empty());
    let environment = world.environment();
    assert!(environment.contains("HOME=") && !environment.contains("FLEET_KEY_"), "{environment}");
    assert!(!environment.contains(secrets().fleet.key_for("synapse-macaroon-secret").expose_str().unwrap()));
}
