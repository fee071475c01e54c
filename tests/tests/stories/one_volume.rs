//! Two homeservers on one volume: one serves, the other waits and says so, and takes over when the first is gone.

use std::{process::Command, time::Duration};

use fleet_tests::{
    Fleet,
    engine::{docker, try_docker},
    run::eventually,
};

/// More than a busy machine needs to start a homeserver.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn a_second_homeserver_on_the_volume_waits_and_then_serves() {
    let fleet = Fleet::light("volume");
    fleet.applied();
    let first = fleet.container("homeserver");
    let second = fleet.container("second");
    let image = docker(&["inspect", "--format", "{{.Image}}", &first]);
    let label = format!("dev.fleetctl.fleet={}", fleet.name); // removed with the rest
    docker(&["create", "--name", &second, "--label", &label, "--volumes-from", &first, &image]);
    // What a container is given lies below /fleet.
    let copy = format!("docker cp {first}:/fleet - | docker cp - {second}:/");
    assert!(Command::new("sh").args(["-c", &copy]).status().expect("a shell").success());
    docker(&["start", &second]);

    let log = || {
        let (_, out, err) = try_docker(&["logs", &second]);
        format!("{out}\n{err}")
    };
    let healthy = |container: &str| try_docker(&["exec", container, "python3", "/opt/homeserver/start.py", "health"]).0;
    eventually("the second says that it waits", PATIENCE, || log().contains("waiting until it ends"));
    assert!(log().contains("another homeserver runs on this volume"), "{}", log());
    eventually("the first serves", PATIENCE, || healthy(&first));
    assert!(!healthy(&second), "{}", log());
    assert!(!log().contains("starts on port"), "{}", log());

    docker(&["stop", "-t", "30", &first]);
    eventually("the second serves", PATIENCE, || healthy(&second));
    assert!(log().contains("the volume is free now") && log().contains("starts on port"), "{}", log());
    docker(&["rm", "-f", &second]);
    fleet.applied();
    eventually("the first serves again", PATIENCE, || healthy(&first));
    fleet.run(&["plan", "--detailed-exitcode"]).expect(0);
}
