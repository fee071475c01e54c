//! Stacks on an emulated account: the real templates, the real client, real change sets.

mod cut;
mod recovery;
mod stacks;
mod world;
