//! [`DirectorySpec`]: the org directory, which agents read while they run: who works here and how to reach them.

use fleet_derivation::Hash;
use fleet_model::{Address, Kind};
use serde::{Deserialize, Serialize};

/// Where it is in the config bucket of an environment on AWS.
pub const OBJECT: &str = "directory/people.json";

/// Its one address, `directory/people`.
#[must_use]
pub fn address() -> Address {
    Address::new(Kind::Directory, "people")
}

/// The org directory: files of the volume `directory`, delivered without rolling anybody.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DirectorySpec {
    /// The directory document, JSON.
    pub document: String,
    /// An image that exists at the target, for the container that holds the volume while it is written; of no use where
    /// there is no volume.
    pub image: Address,
    /// That image's derivation hash.
    pub image_hash: Hash,
}
