//! Derivations of agents and images. One test program, since each more would be linked by itself.

mod agents;
mod images;
