//! Everything that crosses crates, told as stories about the built program. One test program holds them all: each more would be
//! linked by itself, and wait for the slowest story of the one before it. `./tests/run killed::` runs those of `killed.rs`.

#[path = "../../../crates/backend/fleet-registry/tests/support/bench.rs"]
mod bench;
#[path = "../../../crates/backend/fleet-registry/tests/support/certificates.rs"]
mod certificates;
#[path = "../../../crates/backend/fleet-registry/tests/support/docker_registry.rs"]
mod docker_registry;
#[path = "../../../crates/backend/fleet-registry/tests/support/proxy.rs"]
mod proxy;
#[path = "../../../crates/backend/fleet-matrix/tests/real/world.rs"]
#[allow(dead_code, reason = "it belongs to other stories too")]
mod world;

mod apply_twice;
mod architecture;
mod aws;
mod aws_faults;
mod aws_state;
mod bad_image;
mod changes;
mod checkouts;
mod command_line;
mod documents;
mod drift;
mod engine_images;
mod history;
mod images;
mod interrupted;
mod killed;
mod late_diagnostics;
mod manager;
mod models;
mod no_secrets;
mod one_volume;
mod real_agents;
mod registry;
mod rehearsal;
mod saved_plan;
mod shipped_fleet;
mod stale_context;
mod streams;
mod verify;
