//! [`LockError`].

use super::SCHEMA;

/// Why the lock does not serve. Every message names the image and the command that mends it.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum LockError {
    /// Not JSON of this shape.
    #[error("fleet.lock cannot be read: {what}, at line {line}, column {column}")]
    Malformed {
        /// What is wrong, without the place.
        what: String,
        /// 1-based.
        line: usize,
        /// In bytes, 1-based; 0 where a line ends too early.
        column: usize,
    },
    /// Written by a newer fleetctl.
    #[error("fleet.lock has schema {0}, this fleetctl knows {SCHEMA}; use the version that wrote it")]
    Schema(u32),
    /// Nothing is pinned.
    #[error("image {image}: {what} is not in fleet.lock; run `fleetctl lock --only image/{image}`")]
    Missing {
        /// Name in `fleet.kdl`.
        image: String,
        /// What is missing, in words.
        what: String,
    },
    /// What is pinned answers another question.
    #[error(
        "image {image}: fleet.lock pins {what} for {locked}, fleet.kdl asks for {asked}; run `fleetctl lock --only image/{image}`"
    )]
    Stale {
        /// Name in `fleet.kdl`.
        image: String,
        /// Which part.
        what: String,
        /// The request in the lock.
        locked: String,
        /// The request in `fleet.kdl`.
        asked: String,
    },
    /// What is pinned does not answer its own question.
    #[error(
        "image {image}: fleet.lock was asked for {what}, and does not have it: a merge may have lost it; run `fleetctl lock --only image/{image}`"
    )]
    Torn {
        /// Name in `fleet.kdl`.
        image: String,
        /// What is not there.
        what: String,
    },
}
