//! What the stacks of every kind of fleet look like, and what AWS's own linter says of them.

mod agents;
mod demand;
mod lint;
mod matrix;
mod policies;
mod shape;
