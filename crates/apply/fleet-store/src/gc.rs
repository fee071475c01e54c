//! Collection: removing what no root needs.
//!
//! Roots are the last generations of every environment and the pins. From a root everything reachable is kept:
//! derivations through their inputs, outputs with their records and blobs, records under the hash of a kept
//! derivation, and blobs of source files.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use fleet_derivation::{Hash, Input};
use fleet_plan::Generation;

use crate::{
    Algorithm, BlobId, GenerationError, NumberedGeneration, ObjectError, Pin, RecordId, Store,
    objects::{files_of, unescaped},
    store::older_than,
};

/// Younger files are never collected: they may be there for a generation that is not written yet.
const YOUNG: Duration = Duration::from_secs(60 * 60);

/// What a collection did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Files removed.
    pub removed: usize,
    /// Their bytes.
    pub bytes: u64,
    /// Files kept.
    pub kept: usize,
    /// Generations removed because newer ones fill the number to keep.
    pub generations: Vec<NumberedGeneration>,
}

/// Why nothing, or not everything, was collected. Running it again is safe.
#[derive(Debug, thiserror::Error)]
pub enum GcError {
    /// Another process uses the store.
    #[error("another fleetctl process uses {}; nothing was removed: wait until it ends and run gc again", .path.display())]
    InUse {
        /// The store.
        path: PathBuf,
    },
    /// A root could not be read, so what it needs is unknown. Nothing was removed.
    #[error("cannot tell what is needed, so nothing was removed: {0}")]
    Object(#[from] ObjectError),
    /// As above.
    #[error("cannot tell what is needed, so nothing was removed: {0}")]
    Generation(#[from] GenerationError),
    /// A generation that counts is damaged. Without it, what it alone needs would go.
    #[error(
        "generation {} of {} cannot be read, so what it needs is unknown and nothing was removed: \
         restore {}, or remove it and run gc again",
        .which.number, .which.environment, .path.display()
    )]
    Damaged {
        /// Which.
        which: NumberedGeneration,
        /// Its file.
        path: PathBuf,
    },
    /// A file could not be removed.
    #[error("cannot remove {}: {source}{}", .path.display(), crate::atomic::remedy(.source))]
    Remove {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// What is kept.
#[derive(Default)]
struct Live {
    derivations: BTreeSet<Hash>,
    records: BTreeSet<RecordId>,
    blobs: BTreeSet<BlobId>,
}

impl Store {
    /// Removes what neither the last `keep_generations` (at least one) generations of any environment nor a pin needs,
    /// except what was written within the last hour, and older generations.
    ///
    /// # Errors
    /// [`GcError::InUse`] while another process has the store open; otherwise see [`GcError`].
    pub fn gc(&self, keep_generations: usize) -> Result<Collected, GcError> {
        // Trading our shared lock for the exclusive one fails while anybody else has a shared one, and may lose ours.
        if self.lock.try_lock().is_err() {
            let _ = self.lock.lock_shared();
            return Err(GcError::InUse { path: self.root().to_owned() });
        }
        let result = self.collect(keep_generations.max(1));
        let _ = self.lock.lock_shared();
        result
    }

    fn collect(&self, keep: usize) -> Result<Collected, GcError> {
        let (roots, expired) = self.roots(keep)?;
        let live = self.reachable(roots)?;
        let mut collected = Collected::default();
        // Generations first: were we killed in between, no generation would name what is gone.
        for generation in expired {
            self.remove_generation(&generation)?;
            collected.generations.push(generation);
        }
        self.sweep(&live, &mut collected)?;
        Ok(collected)
    }

    /// What to start from, and the generations that are too many.
    fn roots(&self, keep: usize) -> Result<(Vec<Pin>, Vec<NumberedGeneration>), GcError> {
        let mut roots = self.pins()?;
        roots.extend(self.young());
        let mut expired = Vec::new();
        for environment in self.generation_environments()? {
            let numbers = self.generation_numbers(&environment)?;
            let (old, recent) = numbers.split_at(numbers.len().saturating_sub(keep));
            expired.extend(
                old.iter().map(|number| NumberedGeneration { environment: environment.clone(), number: *number }),
            );
            for number in recent {
                let Some(generation) = self.generation(&environment, *number)? else {
                    let which = NumberedGeneration { environment, number: *number };
                    return Err(GcError::Damaged { path: self.generation_file(&which), which });
                };
                roots.extend(named_by(&generation).map(Pin::Derivation));
            }
        }
        Ok((roots, expired))
    }

    /// What was written a moment ago, for a generation that is not there yet, is a root: what it needs may be old.
    fn young(&self) -> Vec<Pin> {
        let is_young = |path: &PathBuf| fs::metadata(path).is_ok_and(|metadata| !older_than(&metadata, YOUNG));
        let mut young = Vec::new();
        for folder in ["derivations", "outputs"] {
            let files = self.object_files(folder).into_iter().filter(is_young);
            young.extend(files.filter_map(|path| stem(&path).parse().ok()).map(Pin::Derivation));
        }
        for folder in files_of(&self.root().join("records")) {
            let files = files_of(&folder).into_iter().flat_map(|shard| files_of(&shard)).filter(is_young);
            let space = unescaped(&stem(&folder));
            young
                .extend(files.map(|path| Pin::Record(RecordId { space: space.clone(), key: unescaped(&stem(&path)) })));
        }
        young
    }

    fn reachable(&self, mut waiting: Vec<Pin>) -> Result<Live, GcError> {
        let mut live = Live::default();
        let spaces: Vec<String> =
            files_of(&self.root().join("records")).iter().map(|path| unescaped(&stem(path))).collect();
        while let Some(next) = waiting.pop() {
            match next {
                Pin::Blob(blob) => drop(live.blobs.insert(blob)),
                Pin::Record(id) => {
                    if !live.records.contains(&id) {
                        live.blobs.extend(self.record_blobs(&id)?);
                        live.records.insert(id);
                    }
                }
                Pin::Derivation(hash) => {
                    if live.derivations.insert(hash) {
                        waiting.extend(self.needed_by(&hash, &spaces)?);
                    }
                }
            }
        }
        Ok(live)
    }

    /// What one derivation needs directly.
    fn needed_by(&self, hash: &Hash, spaces: &[String]) -> Result<Vec<Pin>, GcError> {
        let mut needed = Vec::new();
        for input in self.derivation(hash)?.into_iter().flat_map(|d| d.inputs.into_values()) {
            match input {
                Input::Derivation { hash, .. } => needed.push(Pin::Derivation(hash)),
                Input::File { hash, .. } => {
                    needed.extend(BlobId::new(Algorithm::Blake3, &hash.to_string()).ok().map(Pin::Blob))
                }
                Input::Value { .. } | Input::Secret { .. } => {}
            }
        }
        if let Some(output) = self.output(hash)? {
            needed.extend(output.records.into_iter().map(Pin::Record));
            needed.extend(output.blobs.into_iter().map(Pin::Blob));
        }
        for space in spaces {
            let id = RecordId { space: space.clone(), key: hash.to_string() };
            if self.record_place(&id).exists() {
                needed.push(Pin::Record(id));
            }
        }
        Ok(needed)
    }

    fn sweep(&self, live: &Live, collected: &mut Collected) -> Result<(), GcError> {
        let derivations: BTreeSet<String> = live.derivations.iter().map(ToString::to_string).collect();
        for folder in ["derivations", "outputs"] {
            for path in self.object_files(folder) {
                remove_unless(derivations.contains(&stem(&path)), &path, collected)?;
            }
        }
        let records: BTreeSet<PathBuf> = live.records.iter().map(|id| self.record_place(id)).collect();
        for space in files_of(&self.root().join("records")) {
            for path in files_of(&space).into_iter().flat_map(|shard| files_of(&shard)) {
                remove_unless(records.contains(&path), &path, collected)?;
            }
        }
        let blobs: BTreeSet<(&str, &str)> = live.blobs.iter().map(|id| (id.algorithm().as_str(), id.hex())).collect();
        for folder in files_of(&self.root().join("blobs")) {
            let algorithm = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            for path in files_of(&folder).into_iter().flat_map(|shard| files_of(&shard)) {
                let hex = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
                remove_unless(blobs.contains(&(algorithm, hex)), &path, collected)?;
            }
        }
        Ok(())
    }
}

/// Derivations that a generation names.
pub(crate) fn named_by(generation: &Generation) -> impl Iterator<Item = Hash> {
    let changed = generation.entries.iter().flat_map(|entry| [entry.before, entry.after]).flatten();
    generation.objects.values().chain(generation.outputs.keys()).copied().chain(changed)
}

/// A file's name without its extension; empty when it is not text.
fn stem(path: &Path) -> String {
    path.file_stem().and_then(|stem| stem.to_str()).map(str::to_owned).unwrap_or_default()
}

fn remove_unless(keep: bool, path: &Path, collected: &mut Collected) -> Result<(), GcError> {
    let failed = |source| GcError::Remove { path: path.to_owned(), source };
    let metadata = fs::symlink_metadata(path).map_err(failed)?;
    if keep || metadata.is_dir() || !older_than(&metadata, YOUNG) {
        collected.kept += 1;
        return Ok(());
    }
    fs::remove_file(path).map_err(failed)?;
    collected.removed += 1;
    collected.bytes += metadata.len();
    Ok(())
}
