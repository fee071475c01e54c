//! Stories about registries: real ones, slow ones, and ones that lie. One test program, since each more would be linked by itself.

#[path = "../support/bench.rs"]
mod bench;
#[path = "../support/certificates.rs"]
mod certificates;
#[path = "../support/docker_registry.rs"]
mod docker_registry;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../../../fleet-packages/tests/support.rs"]
mod support;
#[path = "../support/tokens.rs"]
mod tokens;

mod asking;
mod interrupted;
mod pulling;
mod pushing;
