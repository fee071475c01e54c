//! The world moves by itself: the next plan names it, and `apply` mends it and nothing else.

use fleet_tests::{Fleet, engine::docker};

/// Exactly this is planned, with a reason that holds `reason`; afterwards nothing is left to do.
#[track_caller]
fn seen_and_mended(fleet: &Fleet, address: &str, reason: &str) {
    let planned: Vec<String> = fleet.planned().into_keys().collect();
    assert_eq!(planned, [address]);
    let reasons = fleet.reasons(address);
    assert!(reasons.iter().any(|text| text.contains(reason)), "`{reason}` is not in {reasons:?}");
    fleet.applied();
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
    let status = fleet.status_json();
    for object in status["objects"].as_array().expect("objects") {
        assert_ne!(object["state"], "missing", "{object}");
        assert_ne!(object["state"], "stopped", "{object}");
    }
}

#[test]
fn a_stopped_or_removed_container_runs_again() {
    let fleet = Fleet::light("drift");
    fleet.applied();
    let before = fleet.lives();

    docker(&["stop", "-t", "5", &fleet.container("dora.director")]);
    seen_and_mended(&fleet, "agent/dora.director", "stopped");
    docker(&["rm", "-f", &fleet.container("sam.seller")]);
    seen_and_mended(&fleet, "agent/sam.seller", "is gone from the container engine");
    let after = fleet.lives();
    for untouched in ["agent/vera.vp", "service/homeserver"] {
        assert_eq!(before[untouched], after[untouched]);
    }

    // The homeserver itself: accounts and rooms cannot be seen meanwhile, and are what they were afterwards.
    let rooms = fleet.homeserver().rooms();
    docker(&["stop", "-t", "30", &fleet.container("homeserver")]);
    let planned = fleet.planned();
    assert!(planned.contains_key("service/homeserver"), "{planned:?}");
    fleet.applied();
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
    assert_eq!(fleet.homeserver().rooms(), rooms);
}

#[test]
fn a_deleted_room_and_a_member_who_left_are_put_right() {
    let fleet = Fleet::light("rooms");
    fleet.applied();
    let (lives, homeserver) = (fleet.lives(), fleet.homeserver());

    let room = homeserver.room("all-employees").expect("the room");
    let member = "@dora.director:light.test".to_owned();
    let dora = homeserver.signed_in_as(&member);
    let ways: [&dyn Fn(); 2] = [&|| dora.leave(&room), &|| homeserver.kick(&room, &member)];
    for goes in ways {
        assert!(homeserver.members(&room).contains(&member));
        goes();
        assert!(!homeserver.members(&room).contains(&member));
        seen_and_mended(&fleet, "room/all-employees", "dora.director");
        assert_eq!(homeserver.room("all-employees"), Some(room.clone()));
        assert!(homeserver.members(&room).contains(&member));
    }

    homeserver.delete_room(&room);
    assert_eq!(homeserver.room("all-employees"), None);
    seen_and_mended(&fleet, "room/all-employees", "is gone from the homeserver");
    let again = homeserver.room("all-employees").expect("the room again");
    assert_ne!(again, room);
    assert!(homeserver.members(&again).contains(&member));
    assert_eq!(fleet.lives(), lives, "rooms are no container's business");
}
