//! [`Surplus`]: generations of a shared history that are too many, and their removal.
//!
//! A record comes with the derivations that no former one came with, so what a generation derives from may be in a record that
//! goes. That is written into the oldest one that stays before anything goes: killed at any call, nothing that a generation
//! needs is missing, and the next run goes on.

use std::collections::{BTreeMap, BTreeSet};

use fleet_derivation::{Derivation, Hash, Input};
use fleet_plan::Generation;
use futures::{StreamExt as _, TryStreamExt as _, stream};

use super::{AT_ONCE, Record, SharedHistory};
use crate::{
    GenerationError, History as _,
    gc::named_by,
    generations::{encode, failed},
};

/// What [`SharedHistory::surplus`] found.
pub struct Surplus {
    /// Numbers of the generations that are too many, ascending.
    pub numbers: Vec<u64>,
    /// Those that stay.
    pub kept: Vec<Generation>,
    /// The oldest record that stays, with what it takes over; `None` where there is nothing to take over.
    carrier: Option<Record>,
}

impl SharedHistory {
    /// The generations beyond the last `keep` (at least one), and what the others need of them. Only reads.
    ///
    /// # Errors
    /// [`GenerationError::Damaged`] when one that stays cannot be read: what it needs is unknown then.
    pub async fn surplus(&self, keep: usize) -> Result<Surplus, GenerationError> {
        let numbers = self.numbers().await?;
        let (old, recent) = numbers.split_at(numbers.len().saturating_sub(keep.max(1)));
        let mut kept = Vec::new();
        for (number, record) in self.records(recent).await? {
            let damaged = || GenerationError::Damaged { environment: self.environment.clone(), number };
            kept.push(record.ok_or_else(damaged)?);
        }
        let carrier = if old.is_empty() { None } else { carrier(&kept, self.records(old).await?) };
        let kept = kept.into_iter().map(|record| record.generation).collect();
        Ok(Surplus { numbers: old.to_vec(), kept, carrier })
    }

    /// Removes them. Whoever asks holds the lease.
    ///
    /// # Errors
    /// [`GenerationError::Store`]; what is gone by then is gone, and nothing else misses it.
    pub async fn prune(&self, surplus: &Surplus) -> Result<(), GenerationError> {
        if let Some(record) = &surplus.carrier {
            let number = record.generation.number;
            let written = self.shelf.put(number, encode(number, record)?).await;
            written.map_err(failed("write", &self.environment))?;
        }
        for number in &surplus.numbers {
            self.shelf.remove(*number).await.map_err(failed("remove", &self.environment))?;
        }
        Ok(())
    }

    /// In the order of the numbers; `None` for what cannot be read.
    async fn records(&self, numbers: &[u64]) -> Result<Vec<(u64, Option<Record>)>, GenerationError> {
        let reads = numbers.iter().map(|number| async move { Ok((*number, self.record(*number).await?)) });
        stream::iter(reads).buffered(AT_ONCE).try_collect().await
    }
}

/// The oldest record that stays with what all of them derive from and only those have that go.
fn carrier(kept: &[Record], gone: Vec<(u64, Option<Record>)>) -> Option<Record> {
    let oldest = kept.first()?;
    let by_hash =
        |derivations: Vec<Derivation>| derivations.into_iter().map(|derivation| (derivation.hash(), derivation));
    let gone: BTreeMap<Hash, Derivation> =
        gone.into_iter().filter_map(|(_, record)| record).flat_map(|record| by_hash(record.derivations)).collect();
    let there: BTreeMap<Hash, Derivation> =
        kept.iter().flat_map(|record| by_hash(record.derivations.clone())).collect();
    let (mut seen, mut carried) = (BTreeSet::new(), Vec::new());
    let mut waiting: Vec<Hash> = kept.iter().flat_map(|record| named_by(&record.generation)).collect();
    while let Some(hash) = waiting.pop() {
        if !seen.insert(hash) {
            continue;
        }
        let found = there.get(&hash).or_else(|| gone.get(&hash));
        waiting.extend(found.iter().flat_map(|derivation| derivation.inputs.values()).filter_map(
            |input| match input {
                Input::Derivation { hash, .. } => Some(*hash),
                Input::File { .. } | Input::Value { .. } | Input::Secret { .. } => None,
            },
        ));
        carried.extend(found.filter(|_| !there.contains_key(&hash)).cloned());
    }
    if carried.is_empty() {
        return None;
    }
    carried.extend(oldest.derivations.iter().cloned());
    Some(Record { derivations: carried, generation: oldest.generation.clone(), ..*oldest })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use fleet_model::{Address, Kind};
    use object_store::local::LocalFileSystem;

    use super::*;
    use crate::{Depth, Store, append};

    type Any = Result<(), Box<dyn std::error::Error>>;

    fn derivation(value: &str, of: Option<&Derivation>) -> Derivation {
        let mut made = Derivation::new(Address::new(Kind::Agent, "ada"));
        made.value("model", value, None);
        if let Some(of) = of {
            made.input("image", Input::Derivation { address: of.address.clone(), hash: of.hash(), output: None }, None);
        }
        made
    }

    #[tokio::test]
    async fn what_kept_generations_derive_from_outlives_the_ones_that_brought_it() -> Any {
        let folder = tempfile::tempdir()?;
        let history = |name: &str| -> Result<(SharedHistory, Arc<Store>), Box<dyn std::error::Error>> {
            for folder in [folder.path().join(name), folder.path().join("bucket")] {
                std::fs::create_dir_all(folder)?;
            }
            let store = Arc::new(Store::open(&folder.path().join(name))?);
            let bucket = Arc::new(LocalFileSystem::new_with_prefix(folder.path().join("bucket"))?);
            Ok((SharedHistory::new(bucket, ("acme", "dev"), Arc::clone(&store), "copy"), store))
        };
        let (ada, _) = history("ada")?;
        let (image, other) = (derivation("image", None), derivation("other", None));
        let agents = ["one", "two", "three"].map(|value| derivation(value, Some(&image)));
        for (index, agent) in agents.iter().enumerate() {
            let generation = Generation {
                schema: 1,
                number: 0,
                environment: "dev".to_owned(),
                finished: 1,
                who: None,
                host: None,
                objects: BTreeMap::from([(agent.address.clone(), agent.hash())]),
                outputs: BTreeMap::new(),
                entries: Vec::new(),
            };
            let new = if index == 0 { vec![image.clone(), other.clone(), agent.clone()] } else { vec![agent.clone()] };
            append(&ada, generation, &new).await?;
        }
        let surplus = ada.surplus(2).await?;
        assert_eq!((surplus.numbers.as_slice(), surplus.kept.len()), ([1].as_slice(), 2));
        ada.prune(&surplus).await?;
        assert_eq!(ada.surplus(0).await?.numbers, [2], "one stays, whatever is asked");
        ada.prune(&ada.surplus(1).await?).await?;
        assert_eq!(ada.surplus(1).await?.numbers, Vec::<u64>::new());

        let (ben, store) = history("ben")?;
        ben.refresh(Depth::All).await?;
        assert_eq!(store.generation_numbers("copy")?, [3]);
        assert_eq!(store.derivation(&image.hash())?, Some(image), "carried twice");
        assert_eq!(store.derivation(&agents[2].hash())?.as_ref(), Some(&agents[2]));
        for gone in [&other, &agents[0], &agents[1]] {
            assert_eq!(store.derivation(&gone.hash())?, None);
        }
        Ok(())
    }
}
