//! What every test shares: a throw-away machine state, the built binaries, real services.

pub mod sources;
