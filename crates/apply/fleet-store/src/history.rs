//! [`History`]: what is recorded of one environment, and who works on it now; in `.fleet/` ([`LocalHistory`]) or where all
//! checkouts reach it ([`crate::SharedHistory`]).

use std::{sync::Arc, time::SystemTime};

use async_trait::async_trait;
use fleet_derivation::Derivation;
use fleet_plan::Generation;

use crate::{GenerationError, Holder, Lease, LeaseError, Leased, Store};

/// One environment's generations and lease.
#[async_trait]
pub trait History: Send + Sync {
    /// Numbers of its generations, ascending.
    ///
    /// # Errors
    /// [`GenerationError::Store`].
    async fn numbers(&self) -> Result<Vec<u64>, GenerationError>;

    /// One generation; `None` when it is not there or is damaged, which is noted in the store. What its objects derive from is
    /// in the store afterwards, as far as it was recorded.
    ///
    /// # Errors
    /// [`GenerationError::Store`].
    async fn read(&self, number: u64) -> Result<Option<Generation>, GenerationError>;

    /// Records a generation under the number that it has, with derivations that no former one came with.
    ///
    /// # Errors
    /// [`GenerationError::Taken`] where there is one of that number; otherwise see [`GenerationError`].
    async fn write(&self, generation: &Generation, derivations: &[Derivation]) -> Result<(), GenerationError>;

    /// Asks for the lease, without waiting. `now` is when.
    ///
    /// # Errors
    /// [`LeaseError`].
    async fn ask_lease(&self, holder: &Holder, now: SystemTime) -> Result<Leased<Box<dyn HeldLease>>, LeaseError>;

    /// Who holds the lease; `None` where nobody does. Only reads.
    ///
    /// # Errors
    /// [`LeaseError`].
    async fn holder(&self, now: SystemTime) -> Result<Option<Holder>, LeaseError>;
}

/// A lease that is ours.
#[async_trait]
pub trait HeldLease: Send {
    /// Keeps it for longer.
    ///
    /// # Errors
    /// [`LeaseError::Lost`] when somebody else has it by now; otherwise see [`LeaseError`]: it may be tried again.
    async fn renew(&mut self, now: SystemTime) -> Result<(), LeaseError>;

    /// Gives it back. One that somebody else took over stays theirs.
    ///
    /// # Errors
    /// [`LeaseError`]; then it runs out by itself.
    async fn release(self: Box<Self>) -> Result<(), LeaseError>;
}

/// Records a generation under the next free number and returns it with that number: the one it comes with is not looked at.
/// Whoever loses a number to somebody else takes the next one, so that nothing that was done is lost.
///
/// # Errors
/// [`GenerationError`].
pub async fn append(
    history: &dyn History,
    mut generation: Generation,
    derivations: &[Derivation],
) -> Result<Generation, GenerationError> {
    generation.number = history.numbers().await?.last().map_or(1, |last| last + 1);
    loop {
        match history.write(&generation, derivations).await {
            Ok(()) => return Ok(generation),
            Err(GenerationError::Taken { .. }) => generation.number += 1,
            Err(error) => return Err(error),
        }
    }
}

/// The history of an environment that only this checkout applies.
#[derive(Clone, Debug)]
pub struct LocalHistory {
    store: Arc<Store>,
    environment: String,
}

impl LocalHistory {
    /// Of an environment, in the project's store.
    #[must_use]
    pub fn new(store: Arc<Store>, environment: impl Into<String>) -> Self {
        Self { store, environment: environment.into() }
    }
}

#[async_trait]
impl History for LocalHistory {
    async fn numbers(&self) -> Result<Vec<u64>, GenerationError> {
        self.store.generation_numbers(&self.environment)
    }

    async fn read(&self, number: u64) -> Result<Option<Generation>, GenerationError> {
        self.store.generation(&self.environment, number)
    }

    async fn write(&self, generation: &Generation, derivations: &[Derivation]) -> Result<(), GenerationError> {
        // What a generation names is there before it is.
        self.store.put_derivations(derivations).map_err(|error| GenerationError::Store {
            doing: "write what derives for",
            environment: self.environment.clone(),
            why: error.to_string(),
        })?;
        self.store.write_generation(generation)
    }

    async fn ask_lease(&self, holder: &Holder, _: SystemTime) -> Result<Leased<Box<dyn HeldLease>>, LeaseError> {
        Ok(match self.store.lease(&self.environment, holder)? {
            Leased::Ours(lease) => Leased::Ours(Box::new(lease)),
            Leased::Held(holder) => Leased::Held(holder),
        })
    }

    async fn holder(&self, _: SystemTime) -> Result<Option<Holder>, LeaseError> {
        self.store.lease_holder(&self.environment)
    }
}

/// The lock ends with its process: there is nothing to renew.
#[async_trait]
impl HeldLease for Lease {
    async fn renew(&mut self, _: SystemTime) -> Result<(), LeaseError> {
        Ok(())
    }

    async fn release(self: Box<Self>) -> Result<(), LeaseError> {
        Ok(())
    }
}
