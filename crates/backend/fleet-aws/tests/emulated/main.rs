//! Stacks and agents on an emulated account: the real templates, the real client, real change sets and services.

mod agents;
mod cut;
mod recovery;
mod stacks;
mod world;
