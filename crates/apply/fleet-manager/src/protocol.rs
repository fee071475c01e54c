//! What operator and manager write into the config bucket: [`Work`], [`Line`]s of progress, and what was [`Seen`]. All
//! values, pure; each object is vouched for with a [`Key`] (docs/decisions, the manager by signed objects).
//!
//! | object | written by | holds |
//! |---|---|---|
//! | `manager/work/<id>.json` | operator, once | a sealed [`Work`]; the id is the hash of its text |
//! | `manager/progress/<id>/000001.ndjson`, … | manager, each once | a [`Head`], then [`Line`]s; the last of all is a summary |
//! | `manager/observed.json` | manager, again and again | a sealed [`Seen`] |

mod progress;
mod sealed;
mod seen;
mod work;

pub use fleet_plan::manager::{OBSERVED, PROGRESS, WORK};

pub use self::{
    progress::{End, Head, Line, open_piece, piece_number, piece_object, progress_folder, seal_piece},
    sealed::{Key, Refused},
    seen::Seen,
    work::{Due, Work, is_ours, work_object},
};

/// Version of every object.
pub const SCHEMA: u32 = 1;
/// What the key is derived for.
pub const KEY_LABEL: &str = "manager-work";

#[cfg(test)]
fn key(secret: &str) -> Key {
    use fleet_secret::{FleetSecret, Secret};

    Key::of(&FleetSecret::new(Secret::new(secret)).unwrap())
}
