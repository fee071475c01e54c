//! [`about`]: what is said about an image beside it: provenance and the bill of its packages.

use std::{collections::BTreeMap, path::Path, process::Stdio};

use fleet_derivation::Input;
use fleet_graph::image::{PlannedImage, repository};
use fleet_oci::{
    Image, ImageRecipe, Referrer,
    attestation::{Subject, artifact},
    materials::materials,
    provenance::{Built, PROVENANCE_TYPE, Revision, provenance},
    sbom::{SBOM_TYPE, sbom},
};

/// What the statements are read off.
pub struct About<'a> {
    /// Fleet name.
    pub fleet: &'a str,
    /// The image with its derivations.
    pub planned: &'a PlannedImage,
    /// Recipes of it and of all that it stands on.
    pub recipes: &'a [&'a ImageRecipe],
    /// Packages whose install scripts ran.
    pub scripts: &'a [String],
    /// Of the project, where it is known.
    pub revision: Option<&'a Revision>,
}

/// The statements about an image. The same inputs at the same revision give the same bytes.
pub fn about(about: &About<'_>, image: &Image) -> Vec<Referrer> {
    let name = &about.planned.spec.name;
    let repository = repository(about.fleet, name);
    let materials = materials(about.recipes.iter().copied());
    let provenance = provenance(
        &image.digest,
        &Built {
            repository: &repository,
            image: name,
            platform: image.platform,
            derivation: &about.planned.hash.to_string(),
            inputs: inputs(about.planned),
            materials: &materials,
            scripts: about.scripts,
            revision: about.revision.cloned(),
            version: env!("CARGO_PKG_VERSION"),
        },
    );
    let bill = sbom(&repository, &image.digest, &materials);
    let subject = Subject::of_image(image);
    [(PROVENANCE_TYPE, provenance), (SBOM_TYPE, bill)]
        .map(|(kind, text)| artifact(kind, text.as_bytes(), &subject))
        .into()
}

/// Layers by their derivations' hashes, files by theirs.
fn inputs(planned: &PlannedImage) -> BTreeMap<String, (&'static str, String)> {
    let all = planned.derivations.iter().flat_map(|derivation| &derivation.inputs);
    all.filter_map(|(name, input)| match input {
        Input::Derivation { hash, .. } => Some((name.clone(), ("blake3", hash.to_string()))),
        Input::File { path, hash, .. } => Some((path.to_string(), ("blake3", hash.to_string()))),
        Input::Value { .. } | Input::Secret { .. } => None,
    })
    .collect()
}

/// The commit that the project is at; `None` without git, or outside a repository.
pub async fn revision(root: &Path) -> Option<Revision> {
    let commit = git(root, &["rev-parse", "HEAD"]).await?;
    let changed = !git(root, &["status", "--porcelain", "--", "."]).await?.is_empty();
    Some(Revision { commit, changed })
}

async fn git(root: &Path, arguments: &[&str]) -> Option<String> {
    let mut command = tokio::process::Command::new("git");
    let command = command.arg("-C").arg(root).args(arguments).stdin(Stdio::null()).stderr(Stdio::null());
    let output = command.output().await.ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
