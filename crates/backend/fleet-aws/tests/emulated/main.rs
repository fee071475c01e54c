//! Stacks, agents and the directory on an emulated account: the real templates, the real client, real change sets and services; and tasks
//! that are containers.

mod agents;
mod cut;
mod destroy;
mod directory;
mod logs;
mod recovery;
mod rig;
mod stacks;
mod tasks;
mod tunnel;
mod world;
