//! The docker provider against a real engine. Nothing is skipped: without an engine or a static busybox every test
//! fails and says what is missing.

mod build;
mod contract;
mod crash;
mod directory;
mod images;
mod life;
mod rollback;
mod world;
