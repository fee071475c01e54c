//! [`SharedHistory`]: the history of an environment in an object store that every checkout reaches.
//!
//! ```text
//! <fleet>/<environment>/generations/00000001.json.zst   one apply, with the derivations that no former one came with
//! <fleet>/<environment>/lease.json                      who works on it now
//! ```
//!
//! What was read is copied into `.fleet/`, under a name of its own: that roots what `gc` keeps, and answers when nobody is to
//! be asked. The object store is what counts: what it does not have is removed from the copy.

mod prune;

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use fleet_derivation::Derivation;
use fleet_plan::Generation;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{ObjectStore, path::Path};
use serde::{Deserialize, Serialize};

use crate::{
    GenerationError, HeldLease, History, Holder, LeaseError, Leased, NumberedGeneration, Store,
    generations::{decode, encode, failed},
    shared_lease::Desk,
    shelf::Shelf,
};

pub use prune::Surplus;

/// The form of a record.
const SCHEMA: u32 = 1;
/// Generations that are asked for at once.
const AT_ONCE: usize = 16;

/// One object.
#[derive(Serialize, Deserialize)]
struct Record {
    schema: u32,
    /// Whoever wrote it knows it again by this, after an answer that was lost.
    nonce: u64,
    generation: Generation,
    derivations: Vec<Derivation>,
}

/// How much of a history is copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Depth {
    /// The newest generation that can be read.
    Newest,
    /// All generations.
    All,
}

/// An environment's history in an object store.
#[derive(Clone)]
pub struct SharedHistory {
    environment: String,
    shelf: Shelf,
    desk: Desk,
    store: Arc<Store>,
    /// What the copy in the store is called.
    copy: String,
}

impl SharedHistory {
    /// Of an environment of a fleet. What is read is copied into `store` under the name `copy`.
    #[must_use]
    pub fn new(
        objects: Arc<dyn ObjectStore>,
        (fleet, environment): (&str, &str),
        store: Arc<Store>,
        copy: impl Into<String>,
    ) -> Self {
        let folder = Path::from_iter([fleet, environment]);
        Self {
            environment: environment.to_owned(),
            shelf: Shelf::new(Arc::clone(&objects), folder.clone().join("generations")),
            desk: Desk::new(objects, folder.join("lease.json"), environment),
            store,
            copy: copy.into(),
        }
    }

    /// Brings the copy up to date.
    ///
    /// # Errors
    /// [`GenerationError::Store`].
    pub async fn refresh(&self, depth: Depth) -> Result<(), GenerationError> {
        let there = self.numbers().await?;
        let mut here = self.store.generation_numbers(&self.copy)?;
        // Whether the copy is of this history shows in the newest generation that both have.
        if let Some(common) = here.iter().rev().copied().find(|number| there.contains(number)) {
            let copied = self.store.generation(&self.copy, common)?;
            if copied.is_none() || self.fetch(common).await? != copied {
                self.forget(&mut here, |_| true)?;
            }
        }
        self.forget(&mut here, |number| !there.contains(&number))?;
        let missing = there.iter().rev().copied();
        match depth {
            Depth::Newest => {
                for number in missing {
                    if here.contains(&number) || self.read(number).await?.is_some() {
                        break;
                    }
                }
            }
            Depth::All => {
                let reads = missing.filter(|number| !here.contains(number)).map(|number| self.read(number));
                stream::iter(reads).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
            }
        }
        Ok(())
    }

    /// Removes what does not belong into the copy.
    fn forget(&self, here: &mut Vec<u64>, which: impl Fn(u64) -> bool) -> Result<(), GenerationError> {
        for number in here.extract_if(.., |number| which(*number)) {
            self.store.remove_generation(&NumberedGeneration { environment: self.copy.clone(), number })?;
        }
        Ok(())
    }

    /// A generation as it is there; what it derives from goes into the store.
    async fn fetch(&self, number: u64) -> Result<Option<Generation>, GenerationError> {
        let Some(record) = self.record(number).await? else { return Ok(None) };
        if let Err(error) = self.store.put_derivations(&record.derivations) {
            self.store.note(format!("what generation {number} derives from could not be copied: {error}"));
        }
        Ok(Some(record.generation))
    }

    async fn record(&self, number: u64) -> Result<Option<Record>, GenerationError> {
        let bytes = self.shelf.get(number).await.map_err(failed("read", &self.environment))?;
        let Some(bytes) = bytes else { return Ok(None) };
        let skipped = |why: String| {
            self.store.note(format!(
                "{} in the state bucket cannot be read ({why}); it was skipped",
                self.shelf.place(number)
            ));
        };
        match decode::<Record>(&bytes) {
            Ok(record) if record.schema == SCHEMA => return Ok(Some(record)),
            Ok(record) => skipped(format!("it has schema {}, this fleetctl knows {SCHEMA}", record.schema)),
            Err(why) => skipped(why),
        }
        Ok(None)
    }

    /// The copy is for later: what keeps it from being written keeps nothing else from being done.
    fn keep(&self, generation: &Generation) {
        if let Err(error) = self.store.copy_generation(&self.copy, generation) {
            self.store.note(format!("generation {} could not be copied: {error}", generation.number));
        }
    }
}

#[async_trait]
impl History for SharedHistory {
    async fn numbers(&self) -> Result<Vec<u64>, GenerationError> {
        let listed = self.shelf.list().await.map_err(failed("list", &self.environment))?;
        for stranger in listed.strangers {
            self.store.note(format!("{stranger} in the state bucket is not a generation; it was left alone"));
        }
        Ok(listed.numbers)
    }

    async fn read(&self, number: u64) -> Result<Option<Generation>, GenerationError> {
        let found = self.fetch(number).await?;
        if let Some(generation) = &found {
            self.keep(generation);
        }
        Ok(found)
    }

    async fn write(&self, generation: &Generation, derivations: &[Derivation]) -> Result<(), GenerationError> {
        let (number, nonce) = (generation.number, fastrand::u64(..));
        let record =
            Record { schema: SCHEMA, nonce, generation: generation.clone(), derivations: derivations.to_vec() };
        let put = self.shelf.put_new(number, encode(number, &record)?).await;
        let written = match put.map_err(failed("write", &self.environment))? {
            true => true,
            // An answer may have been lost: then what the second attempt met is our own.
            false => self.record(number).await?.is_some_and(|there| there.nonce == nonce),
        };
        if !written {
            return Err(GenerationError::Taken { environment: self.environment.clone(), number });
        }
        self.keep(generation);
        Ok(())
    }

    async fn ask_lease(&self, holder: &Holder, now: SystemTime) -> Result<Leased<Box<dyn HeldLease>>, LeaseError> {
        self.desk.ask(holder, now).await
    }

    async fn holder(&self, now: SystemTime) -> Result<Option<Holder>, LeaseError> {
        self.desk.holder(now).await
    }
}
