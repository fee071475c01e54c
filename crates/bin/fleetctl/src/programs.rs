//! [`Program`]: where our own programs come from that go into images. The agent runtime: released beside this binary,
//! or the sources of a checkout. This program, for the manager: the one that runs, or one released beside it for another
//! platform.
//!
//! Its bytes are an input of the images that ask for it and of nothing else. From sources its hash is that of the
//! sources, lock file, toolchain and flags; paths are remapped, so that two checkouts agree on the bytes too.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
};

use fleet_derivation::{Derivation, Hash};
use fleet_model::{Address, Kind};
use fleet_oci::{Digest, Platform};
use fleet_store::{BlobId, RecordId, Store, combined_hash};
use serde::{Deserialize, Serialize};

/// What the runtime is compiled from, relative to the checkout.
const SOURCES: [&str; 4] = ["Cargo.toml", "Cargo.lock", "crates/bin/fleet-agent", "crates/model/fleet-secret"];

/// Where the runtime comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Program {
    /// A released binary.
    Released {
        /// The file.
        file: PathBuf,
        /// Hash of its bytes.
        hash: Hash,
    },
    /// To be compiled.
    Sources {
        /// The checkout.
        checkout: PathBuf,
        /// Hash of sources, lock file, toolchain and flags.
        hash: Hash,
    },
    /// This program itself.
    Running {
        /// Hash of the sources, lock file, toolchain and profile that it was compiled from: two checkouts agree.
        hash: Hash,
    },
}

/// A program of ours by platform, where there is one: this machine's own, and those that were released beside this binary.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programs(BTreeMap<Platform, Program>);

impl Programs {
    /// Looks for every platform; `own` must be there.
    ///
    /// # Errors
    /// [`ProgramError::Absent`] for `own`, and unreadable files.
    pub fn find(files: &fleet_store::Project, own: Platform) -> Result<Self, ProgramError> {
        let mut found = BTreeMap::from([(own, Program::find(files, own)?)]);
        for platform in Platform::ALL.into_iter().filter(|platform| *platform != own) {
            // Sources are compiled for this machine only.
            match Program::find(files, platform) {
                Ok(binary @ Program::Released { .. }) => drop(found.insert(platform, binary)),
                Ok(Program::Sources { .. } | Program::Running { .. }) | Err(ProgramError::Absent { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(found))
    }

    /// This program: the one that runs, and those that were released beside it.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub fn of_fleetctl(files: &fleet_store::Project) -> Result<Self, ProgramError> {
        let mut found = BTreeMap::new();
        for platform in Platform::ALL {
            if cfg!(target_os = "linux") && platform == crate::machine::own_platform() {
                found.insert(platform, Program::Running { hash: running(platform) });
                continue;
            }
            let file = beside("fleetctl", platform);
            if file.is_file() {
                let hash = files.cache().hash_file(&file)?.hash;
                found.insert(platform, Program::Released { file, hash });
            }
        }
        Ok(Self(found))
    }

    /// What enters the derivation of images.
    #[must_use]
    pub fn hashes(&self) -> BTreeMap<Platform, Hash> {
        self.0.iter().map(|(platform, binary)| (*platform, binary.hash())).collect()
    }

    /// The binary for a platform in the blob store, compiled if it is not there yet.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub async fn build(&self, store: &Store, platform: Platform) -> Result<Built, ProgramError> {
        let binary = self.0.get(&platform).ok_or(ProgramError::Absent { platform, beside: PathBuf::new() })?;
        binary.build(store, platform).await
    }
}

/// The binary in the blob store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Built {
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Its length.
    pub size: u64,
}

/// Why there is no runtime.
#[derive(Debug, thiserror::Error)]
pub enum ProgramError {
    /// Neither beside this binary nor in a checkout.
    #[error("the agent runtime for {platform} was found neither beside fleetctl ({beside}) nor as sources")]
    Absent {
        /// For which platform.
        platform: Platform,
        /// Where it was looked for.
        beside: PathBuf,
    },
    /// The sources cannot be compiled here.
    #[error("the agent runtime cannot be compiled: {why}")]
    Compile {
        /// What the compiler said, its last lines.
        why: String,
    },
    /// A file cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// Sources cannot be hashed.
    #[error(transparent)]
    Hash(#[from] fleet_store::HashError),
    /// The store refuses.
    #[error(transparent)]
    Blob(#[from] fleet_store::BlobError),
    /// The store refuses.
    #[error(transparent)]
    Object(#[from] fleet_store::ObjectError),
}

impl Program {
    /// Looks beside this binary, then for the checkout it was built from.
    ///
    /// # Errors
    /// [`ProgramError::Absent`] and unreadable files.
    pub fn find(files: &fleet_store::Project, platform: Platform) -> Result<Self, ProgramError> {
        let beside = beside("fleet-agent", platform);
        if beside.is_file() {
            let hash = files.cache().hash_file(&beside)?.hash;
            return Ok(Self::Released { file: beside, hash });
        }
        let checkout = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(3).map(Path::to_owned);
        let checkout = checkout.filter(|_| platform == crate::machine::own_platform());
        match checkout.filter(|folder| folder.join(SOURCES[2]).is_dir()) {
            Some(checkout) => {
                let hash = hash_sources(files, &checkout, platform)?;
                Ok(Self::Sources { checkout, hash })
            }
            None => Err(ProgramError::Absent { platform, beside }),
        }
    }

    /// What enters the derivation of images.
    #[must_use]
    pub const fn hash(&self) -> Hash {
        match self {
            Self::Released { hash, .. } | Self::Sources { hash, .. } | Self::Running { hash } => *hash,
        }
    }

    /// The binary in the blob store, compiled if it is not there yet.
    ///
    /// # Errors
    /// See [`ProgramError`].
    pub async fn build(&self, store: &Store, platform: Platform) -> Result<Built, ProgramError> {
        let record = RecordId { space: "agent-binary".to_owned(), key: self.hash().to_string() };
        if let Some(built) = store.get_record::<Built>(&record)?
            && BlobId::sha256(built.digest.hex()).is_ok_and(|id| store.blob_path(&id).is_some())
        {
            return Ok(built);
        }
        let file = match self {
            Self::Released { file, .. } => file.clone(),
            Self::Sources { checkout, .. } => compile(checkout, platform).await?,
            // Also where the file was replaced since it was started.
            Self::Running { .. } => PathBuf::from("/proc/self/exe"),
        };
        let bytes = std::fs::read(&file).map_err(|source| ProgramError::Read { path: file, source })?;
        let built = Built { digest: Digest::sha256(&bytes), size: bytes.len() as u64 };
        let blob = store.put_blob(fleet_store::Algorithm::Sha256, &bytes)?;
        store.put_record(&record, &built, &[blob])?;
        Ok(built)
    }
}

/// Where a released program is looked for.
fn beside(program: &str, platform: Platform) -> PathBuf {
    let name = format!("{program}-{}", platform.to_string().replace('/', "-"));
    std::env::current_exe().unwrap_or_default().with_file_name(name)
}

/// What this program was compiled from, as `build.rs` found it.
fn running(platform: Platform) -> Hash {
    let mut all = Derivation::new(Address::new(Kind::Source, "fleetctl"));
    all.value("sources", env!("FLEETCTL_SOURCES"), None);
    all.value("platform", platform.to_string(), None);
    all.hash()
}

fn hash_sources(files: &fleet_store::Project, checkout: &Path, platform: Platform) -> Result<Hash, ProgramError> {
    let mut all = Derivation::new(Address::new(Kind::Source, "fleet-agent"));
    for source in SOURCES {
        let hash = combined_hash(&files.cache().hash_path(&checkout.join(source))?);
        all.value(source, hash.to_string(), None);
    }
    all.value("platform", platform.to_string(), None);
    all.value("flags", rust_flags(Path::new("cargo-home"), Path::new("checkout")), None);
    let rustc = std::process::Command::new("rustc").arg("-vV").output();
    let toolchain = rustc.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    all.value("toolchain", toolchain.unwrap_or_default(), None);
    Ok(all.hash())
}

/// Flags separated as `CARGO_ENCODED_RUSTFLAGS` wants them. No path of this machine may enter the binary.
fn rust_flags(cargo_home: &Path, checkout: &Path) -> String {
    let remap = |from: &Path, to: &str| format!("--remap-path-prefix={}={to}", from.display());
    [remap(cargo_home, "/cargo"), remap(checkout, "/fleetctl")].join("\u{1f}")
}

async fn compile(checkout: &Path, platform: Platform) -> Result<PathBuf, ProgramError> {
    if platform != crate::machine::own_platform() {
        return Err(ProgramError::Compile {
            why: format!(
                "this machine compiles for itself only; put a released fleet-agent for {platform} beside fleetctl"
            ),
        });
    }
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo"))).unwrap_or_default();
    let target = checkout.join("target/fleet-agent");
    let output = tokio::process::Command::new("cargo")
        .args(["build", "--release", "--locked", "--quiet", "-p", "fleet-agent", "--target-dir"])
        .arg(&target)
        .current_dir(checkout)
        .env("CARGO_ENCODED_RUSTFLAGS", rust_flags(&cargo_home, checkout))
        .env("CARGO_INCREMENTAL", "0")
        .stdin(Stdio::null())
        .output()
        .await
        .map_err(|error| ProgramError::Compile { why: format!("cargo cannot be started: {error}") })?;
    if !output.status.success() {
        let text = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = text.lines().collect();
        return Err(ProgramError::Compile { why: lines[lines.len().saturating_sub(12)..].join("\n") });
    }
    Ok(target.join("release/fleet-agent"))
}
