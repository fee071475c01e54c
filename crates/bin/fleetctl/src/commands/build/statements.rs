//! [`Facts`]: what is said about an image beside it: provenance and the bill of its packages. [`Revision`]s are asked
//! for once, and only by those who need one.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
};

use fleet_derivation::Input;
use fleet_graph::image::PlannedImage;
use fleet_oci::{
    Platform, Referrer,
    attestation::{Subject, artifact},
    materials::Material,
    provenance::{Built, PROVENANCE_TYPE, Revision, provenance},
    sbom::{SBOM_TYPE, sbom},
};
use tokio::sync::OnceCell;

use super::make::Once;

/// Files that a provenance names one by one. Of an image with more, the derivations of its layers stand for them: the
/// list of a large tree would be longer than what changed in it.
const MAXIMUM_FILES: usize = 256;

/// What the statements about one manifest are made of.
pub struct Facts {
    /// What they are about.
    pub subject: Subject,
    /// Name in `fleet.kdl`.
    pub image: String,
    /// `<fleet>/<image>`
    pub repository: String,
    /// `None`: an index of several.
    pub platform: Option<Platform>,
    /// Hash of the derivation.
    pub derivation: String,
    /// Hashes of what it takes.
    pub inputs: BTreeMap<String, (&'static str, String)>,
    /// Packages and bases, of what it stands on too.
    pub materials: Vec<Material>,
    /// Why it cannot be made again byte by byte.
    pub once: Once,
}

impl Facts {
    /// The statements. The same inputs at the same revision give the same bytes.
    pub fn statements(&self, revision: Option<&Revision>) -> Vec<Referrer> {
        let provenance = provenance(
            &self.subject.digest,
            &Built {
                repository: &self.repository,
                image: &self.image,
                platform: self.platform,
                derivation: &self.derivation,
                inputs: self.inputs.clone(),
                materials: &self.materials,
                scripts: &self.once.scripts,
                containerfiles: &self.once.containerfiles,
                engines: &self.once.engines,
                revision: revision.cloned(),
                version: env!("CARGO_PKG_VERSION"),
            },
        );
        let bill = sbom(&self.repository, &self.materials, self.once.containerfiles.is_empty());
        [(PROVENANCE_TYPE, provenance), (SBOM_TYPE, bill)]
            .map(|(kind, text)| artifact(kind, text.as_bytes(), &self.subject))
            .into()
    }
}

/// Layers by their derivations' hashes, files by theirs.
pub fn inputs(planned: &PlannedImage) -> BTreeMap<String, (&'static str, String)> {
    let all = || planned.derivations.iter().flat_map(|derivation| &derivation.inputs);
    let files = all().filter(|(_, input)| matches!(input, Input::File { .. })).count();
    all()
        .filter_map(|(name, input)| match input {
            Input::Derivation { hash, .. } => Some((name.clone(), ("blake3", hash.to_string()))),
            Input::File { path, hash, .. } if files <= MAXIMUM_FILES => {
                Some((path.to_string(), ("blake3", hash.to_string())))
            }
            Input::File { .. } | Input::Value { .. } | Input::Secret { .. } => None,
        })
        .collect()
}

/// The commit that a project is at, as `git` says; looked up once, when it is first wanted.
#[derive(Clone)]
pub struct Commit {
    root: PathBuf,
    found: Arc<OnceCell<Option<Revision>>>,
}

impl Commit {
    /// Of the project in this folder. Nobody is asked yet.
    pub fn of(root: &Path) -> Self {
        Self { root: root.to_owned(), found: Arc::default() }
    }

    /// Starts to look, beside what else is done.
    pub fn wanted_soon(&self) {
        let own = self.clone();
        tokio::spawn(async move { drop(own.get().await) });
    }

    /// The commit; `None` without git, or outside a repository.
    pub async fn get(&self) -> Option<Revision> {
        self.found.get_or_init(|| revision(&self.root)).await.clone()
    }
}

/// One process, since statements wait for it: commit and changes in the form that git promises to keep
/// (git-status, "Porcelain Format Version 2").
async fn revision(root: &Path) -> Option<Revision> {
    if !is_in_repository(root) {
        return None;
    }
    let mut command = tokio::process::Command::new("git");
    let command = command.arg("-C").arg(root).args(["status", "--porcelain=v2", "--branch", "--", "."]);
    let output = command.stdin(Stdio::null()).stderr(Stdio::null()).output().await.ok()?;
    output.status.success().then(|| read_status(&String::from_utf8_lossy(&output.stdout)))?
}

/// Whether git would find one: most of its time goes into finding none.
fn is_in_repository(root: &Path) -> bool {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    std::env::var_os("GIT_DIR").is_some() || root.ancestors().any(|folder| folder.join(".git").exists())
}

/// `None` before the first commit.
fn read_status(text: &str) -> Option<Revision> {
    let commit = text.lines().find_map(|line| line.strip_prefix("# branch.oid "))?;
    let changed = text.lines().any(|line| !line.starts_with('#'));
    (commit != "(initial)").then(|| Revision { commit: commit.to_owned(), changed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_commit_is_changed_by_whatever_is_not_in_it() {
        let read = |rest: &str| read_status(&format!("# branch.oid 4f2a\n# branch.head main\n{rest}"));
        assert_eq!(read(""), Some(Revision { commit: "4f2a".to_owned(), changed: false }));
        assert_eq!(read("? new.txt\n"), Some(Revision { commit: "4f2a".to_owned(), changed: true }));
        assert_eq!(read_status("# branch.oid (initial)\n? new.txt\n"), None);
    }
}
