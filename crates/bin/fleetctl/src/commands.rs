//! One module per command, or per group of commands that share everything.

pub mod apply;
pub mod bootstrap;
pub mod build;
pub mod connect;
pub mod destroy;
pub mod files;
pub mod gc;
pub mod inspect;
pub mod lock;
pub mod manager;
pub mod org;
pub mod plan;
pub mod quickstart;
pub mod rehearse;
pub mod stack;
pub mod status;
pub mod talk;
pub mod verify;
pub mod why;
