//! [`Desk`]: where the lease of an environment lies that several machines share: one object, changed by compare-and-set.
//!
//! It runs out unless it is renewed, so a killed holder keeps nobody for long. One of this machine whose process is gone is
//! taken over at once. Clocks of different machines are allowed to differ a little ([`SKEW`]).

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutPayload, UpdateVersion, path::Path};
use rustix::{io::Errno, process::Pid};
use serde::{Deserialize, Serialize};

use crate::{HeldLease, Holder, LeaseError, Leased};

/// The form of the object.
const SCHEMA: u32 = 1;
/// For how long a lease is good without being renewed.
const TERM: Duration = Duration::from_secs(120);
/// By this much the clocks of two machines may differ.
const SKEW: Duration = Duration::from_secs(30);

/// What the object says.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Written {
    schema: u32,
    /// Nobody, once it was released.
    holder: Option<Holder>,
    /// One lease, from being taken to being released: whoever holds it knows it again by this.
    nonce: u64,
    /// Where the process id of the holder means something.
    machine: Option<String>,
}

impl Written {
    /// Is somebody at work?
    fn is_held(&self, now: SystemTime) -> bool {
        let Some(holder) = &self.holder else { return false };
        let ran_out = holder.until.is_none_or(|until| seconds(now) > until.saturating_add(SKEW.as_secs()));
        let gone = self.machine.is_some() && self.machine == machine() && !runs(holder.pid);
        !ran_out && !gone
    }
}

/// Where one lease lies.
#[derive(Clone)]
pub(crate) struct Desk {
    objects: Arc<dyn ObjectStore>,
    place: Path,
    environment: String,
}

impl Desk {
    pub fn new(objects: Arc<dyn ObjectStore>, place: Path, environment: &str) -> Self {
        Self { objects, place, environment: environment.to_owned() }
    }

    pub async fn holder(&self, now: SystemTime) -> Result<Option<Holder>, LeaseError> {
        let found = self.look().await?.filter(|(written, _)| written.is_held(now));
        Ok(found.and_then(|(written, _)| written.holder))
    }

    pub async fn ask(&self, holder: &Holder, now: SystemTime) -> Result<Leased<Box<dyn HeldLease>>, LeaseError> {
        let mode = match self.look().await? {
            Some((written, _)) if written.is_held(now) => return Ok(Leased::Held(written.holder)),
            Some((_, version)) => PutMode::Update(version),
            None => PutMode::Create,
        };
        let holder = Holder { until: Some(seconds(now + TERM)), ..holder.clone() };
        let written = Written { schema: SCHEMA, holder: Some(holder), nonce: fastrand::u64(..), machine: machine() };
        match self.put(&written, mode).await? {
            Ok(version) => Ok(Leased::Ours(Box::new(SharedLease { desk: self.clone(), written, version }))),
            Err(by) => Ok(Leased::Held(by)),
        }
    }

    async fn look(&self) -> Result<Option<(Written, UpdateVersion)>, LeaseError> {
        let failed = |error: Error| self.failed("read", &error);
        let found = match self.objects.get(&self.place).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(failed(error)),
        };
        let version = UpdateVersion { e_tag: found.meta.e_tag.clone(), version: found.meta.version.clone() };
        let bytes = found.bytes().await.map_err(failed)?;
        let unknown = |why: String| LeaseError::Unknown { object: self.place.to_string(), why };
        let written: Written = serde_json::from_slice(&bytes).map_err(|error| unknown(error.to_string()))?;
        if written.schema != SCHEMA {
            return Err(unknown(format!("it has schema {}, and {SCHEMA} is known", written.schema)));
        }
        Ok(Some((written, version)))
    }

    /// Writes the object where it is still what was looked at, or was written by ourselves since, by an attempt whose answer
    /// was lost; else who wrote another one.
    async fn put(
        &self,
        written: &Written,
        mut mode: PutMode,
    ) -> Result<Result<UpdateVersion, Option<Holder>>, LeaseError> {
        let text = serde_json::to_string(written).map_err(|error| LeaseError::Bucket {
            doing: "write",
            object: self.place.to_string(),
            why: error.to_string(),
        })?;
        loop {
            match self.objects.put_opts(&self.place, PutPayload::from(text.clone()), mode.into()).await {
                Ok(put) => return Ok(Ok(put.into())),
                Err(Error::AlreadyExists { .. } | Error::Precondition { .. } | Error::NotFound { .. }) => {}
                Err(error) => return Err(self.failed("write", &error)),
            }
            match self.look().await? {
                Some((there, version)) if there.nonce == written.nonce && there.holder == written.holder => {
                    return Ok(Ok(version));
                }
                // An earlier renewal of ours: nobody else writes this number, so that there is an end to it.
                Some((there, version)) if there.nonce == written.nonce => mode = PutMode::Update(version),
                there => return Ok(Err(there.and_then(|(there, _)| there.holder))),
            }
        }
    }

    fn failed(&self, doing: &'static str, error: &Error) -> LeaseError {
        LeaseError::Bucket { doing, object: self.place.to_string(), why: error.to_string() }
    }
}

/// A lease that is ours until it runs out.
struct SharedLease {
    desk: Desk,
    written: Written,
    version: UpdateVersion,
}

#[async_trait]
impl HeldLease for SharedLease {
    async fn renew(&mut self, now: SystemTime) -> Result<(), LeaseError> {
        let mut written = self.written.clone();
        if let Some(holder) = &mut written.holder {
            holder.until = Some(seconds(now + TERM));
        }
        match self.desk.put(&written, PutMode::Update(self.version.clone())).await? {
            Ok(version) => {
                (self.written, self.version) = (written, version);
                Ok(())
            }
            Err(by) => Err(LeaseError::Lost { environment: self.desk.environment.clone(), by }),
        }
    }

    async fn release(self: Box<Self>) -> Result<(), LeaseError> {
        // Not removed: that would not be compared with what is there.
        let released = Written { holder: None, ..self.written };
        self.desk.put(&released, PutMode::Update(self.version)).await.map(drop)
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// Names where process ids of this process mean something: this start of this machine, and the namespace within it. `None`
/// where that cannot be told.
fn machine() -> Option<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    let namespace = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let named = format!("{} {}", boot.trim(), namespace.display());
    Some(blake3::hash(named.as_bytes()).to_hex().to_string())
}

/// Is there a process of this id?
fn runs(pid: u32) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(Errno::SRCH))
}
