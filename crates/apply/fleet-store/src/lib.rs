//! `.fleet/`: what one project keeps beside `fleet.kdl`, and how a project's files are read.
//!
//! The main type is [`Store`]. Losing the whole folder loses history and time, never correctness: what runs is found in
//! the outside systems.
//!
//! ```text
//! .fleet/                             mode 0700
//!   .gitignore                        `*`
//!   version                           `1 fleetctl 0.1.0`: the layout, and who wrote it
//!   lock                              flock: shared while a process uses the store, exclusive while one collects
//!   blobs/<algorithm>/<aa>/<hex>      content by hash ([`BlobId`])
//!   derivations/<aa>/<hash>.json      `Derivation`
//!   outputs/<aa>/<hash>.json          [`Output`]: what a derivation produced
//!   records/<space>/<aa>/<key>.json   [`Store::put_record`]: what is known of a layer, say
//!   generations/<environment>/<number>.json.zst
//!   pins/<name>.json                  roots beside generations ([`Pin`])
//!   leases/<environment>              flock and who holds it ([`Lease`])
//!   stat-cache, folder-cache          [`StatCache`]
//!   tmp/<pid>-…                       files being written; of dead processes swept after a day
//! ```
//!
//! Soundness rests on four rules. A file is written under `tmp/` and renamed into place, so a name shows either nothing or
//! everything ([`write_atomic`] does the same elsewhere, and what a kill leaves beside a file is swept after minutes). Names
//! are content or are made exactly once, so two writers agree or one of them is told. What is read is checked, and what does
//! not check is put aside as if it were missing and reported by [`Store::take_notes`]. Locks are `flock`s: they die with
//! their process.
//!
//! What a team shares of an environment is behind one trait, [`History`]: its generations and its lease, in this folder
//! ([`LocalHistory`]) or in an object store that all checkouts reach ([`SharedHistory`]).
//!
//! Deliberately absent: the secret values of a fleet (never here; see [`private_file`]), knowledge of any outside
//! system, and planning.

mod atomic;
mod blob;
mod blob_id;
mod folder_cache;
mod gc;
mod generations;
mod history;
mod ignore;
mod lease;
mod objects;
pub mod private_file;
mod project;
mod remembered;
mod shared;
mod shared_lease;
mod shelf;
mod side_by_side;
mod stamp;
mod stat_cache;
mod store;
mod walk;

pub use atomic::{WriteError, write_atomic};
pub use blob::{BlobError, BlobWriter};
pub use blob_id::{Algorithm, BlobId, NotABlobId};
pub use gc::{Collected, GcError};
pub use generations::{GenerationError, NumberedGeneration};
pub use history::{HeldLease, History, LocalHistory, append};
pub use ignore::{BadPattern, IgnoreRules};
pub use lease::{Holder, Lease, LeaseError, Leased};
pub use objects::{ObjectError, Output, Pin, RecordId};
pub use project::{Project, ProjectError};
pub use shared::{Depth, SharedHistory, Surplus};
pub use stat_cache::{HashError, HashedFile, StatCache, combined_hash};
pub use store::{DIRECTORY, OpenError, Store};
