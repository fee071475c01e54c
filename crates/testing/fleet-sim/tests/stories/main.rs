//! Plans carried out against the in-memory provider. One test program, since each more would be linked by itself.

mod contract;
mod execute;
mod stacks;
