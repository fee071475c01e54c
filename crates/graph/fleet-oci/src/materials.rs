//! [`materials`]: what came from elsewhere into an image, as package URLs with versions and hashes.
//!
//! Statements about an image ([`crate::sbom`], [`crate::provenance`]) are made of these; they are read off the recipe,
//! which pins them all, so the same recipe gives the same list.

use std::collections::BTreeSet;

use crate::{
    digest::Digest,
    lock::{DebPin, NpmPin, PipPin},
    recipe::{ImageRecipe, LayerRecipe},
};

/// One package, or one image that others stand on.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Material {
    /// Package URL (purl specification).
    pub purl: String,
    /// As its world names it.
    pub name: String,
    /// Exact version; of an image, empty.
    pub version: String,
    /// Of the package's archive, or of the image's manifest.
    pub digest: Option<Digest>,
    /// It is an image and not a package.
    pub is_image: bool,
}

/// Everything that the images of a chain (each standing on the one before it) take from elsewhere: sorted, each once.
#[must_use]
pub fn materials<'a>(recipes: impl IntoIterator<Item = &'a ImageRecipe>) -> Vec<Material> {
    let layers = recipes.into_iter().flat_map(|recipe| &recipe.layers);
    layers.flat_map(of_layer).collect::<BTreeSet<_>>().into_iter().collect()
}

fn of_layer(layer: &LayerRecipe) -> Vec<Material> {
    match layer {
        LayerRecipe::Base { reference, digest } => vec![image(reference, digest)],
        LayerRecipe::Debian { suite, packages, .. } => packages.iter().map(|pin| deb(suite, pin)).collect(),
        LayerRecipe::Node { package, .. } => vec![npm(package)],
        LayerRecipe::Npm { packages, .. } => packages.iter().map(npm).collect(),
        LayerRecipe::Pip { packages, .. } => packages.iter().map(pip).collect(),
        LayerRecipe::Containerfile { bases, .. } => bases.iter().map(|(name, digest)| image(name, digest)).collect(),
        LayerRecipe::Fetch { url, sha256, .. } => vec![fetched(url, sha256)],
        // What a project has itself is no material: its files are named by the derivation.
        _ => Vec::new(),
    }
}

fn deb(suite: &str, pin: &DebPin) -> Material {
    let (name, version) = (escaped(&pin.name), escaped(&pin.version));
    Material {
        purl: format!("pkg:deb/debian/{name}@{version}?arch={}&distro={}", escaped(&pin.architecture), escaped(suite)),
        name: pin.name.clone(),
        version: pin.version.clone(),
        digest: Some(pin.sha256.clone()),
        is_image: false,
    }
}

fn npm(pin: &NpmPin) -> Material {
    let name = pin.name.split('/').map(escaped).collect::<Vec<_>>().join("/");
    Material {
        purl: format!("pkg:npm/{name}@{}", escaped(&pin.version)),
        name: pin.name.clone(),
        version: pin.version.clone(),
        digest: Digest::from_integrity(&pin.integrity).ok(),
        is_image: false,
    }
}

fn pip(pin: &PipPin) -> Material {
    Material {
        purl: format!("pkg:pypi/{}@{}", escaped(&pin.name), escaped(&pin.version)),
        name: pin.name.clone(),
        version: pin.version.clone(),
        digest: Some(pin.sha256.clone()),
        is_image: false,
    }
}

/// The place is not told: addresses may hold credentials, and a mirror is as good.
fn fetched(url: &str, digest: &Digest) -> Material {
    let path = url.split(['?', '#']).next().unwrap_or(url);
    let name = path.trim_end_matches('/').rsplit('/').next().unwrap_or(path);
    Material {
        purl: format!("pkg:generic/{}?checksum={digest}", escaped(name)),
        name: name.to_owned(),
        version: String::new(),
        digest: Some(digest.clone()),
        is_image: false,
    }
}

fn image(reference: &str, digest: &Digest) -> Material {
    let local = ["oci:", "docker-archive:", "engine:"].iter().find_map(|kind| reference.strip_prefix(kind));
    if let Some(local) = local {
        return Material { is_image: true, name: reference.to_owned(), ..fetched(local, digest) };
    }
    let (repository, tag) = match reference.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
        _ => (reference, None),
    };
    let last = repository.rsplit('/').next().unwrap_or(repository);
    let tag = tag.map(|tag| format!("&tag={}", escaped(tag))).unwrap_or_default();
    Material {
        purl: format!(
            "pkg:oci/{}@{}?repository_url={}{tag}",
            escaped(last),
            escaped(&digest.to_string()),
            repository.split('/').map(escaped).collect::<Vec<_>>().join("/"),
        ),
        name: reference.to_owned(),
        version: String::new(),
        digest: Some(digest.clone()),
        is_image: true,
    }
}

/// Percent-encoded as package URLs want it: letters, digits and `.-_~` stay.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b".-_~".contains(&byte);
    text.bytes().map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") }).collect()
}

/// A recipe with a package of every kind, for the tests of statements.
#[cfg(test)]
pub(crate) fn sample() -> ImageRecipe {
    use std::collections::BTreeMap;

    let sha256 = |text: &str| Digest::sha256(text.as_bytes());
    let deb = |name: &str, version: &str| DebPin {
        name: name.into(),
        version: version.into(),
        architecture: "amd64".into(),
        archive: "debian".into(),
        pool_path: format!("pool/main/{name}"),
        size: 1,
        sha256: sha256(name),
    };
    let npm = |path: &str| NpmPin {
        path: path.into(),
        name: "@scope/tool".into(),
        version: "1.2.3".into(),
        integrity: "sha512-3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw=="
            .into(),
        ..NpmPin::default()
    };
    let pip =
        PipPin { name: "attrs".into(), version: "25.4.0".into(), filename: "a.whl".into(), sha256: sha256("attrs") };
    ImageRecipe {
        name: "agent".into(),
        platform: crate::Platform::LinuxAmd64,
        layers: vec![
            LayerRecipe::Base { reference: "registry.example:5000/os/base:12".into(), digest: sha256("base") },
            LayerRecipe::Debian {
                suite: "bookworm".into(),
                architecture: "amd64".into(),
                packages: vec![deb("libstdc++6", "12.2.0-14+deb12u1"), deb("openssl", "1:3.0~rc1-1")],
                users: Vec::new(),
            },
            serde_json::from_value(serde_json::json!({
                "kind": "npm", "to": "/opt", "request": BTreeMap::from([("@scope/tool", "1.2.3")]),
                "packages": [npm("node_modules/@scope/tool"), npm("node_modules/x/node_modules/@scope/tool")],
            }))
            .unwrap(),
            serde_json::from_value(serde_json::json!({
                "kind": "pip", "to": "/opt/py", "python": "3.11", "packages": [pip],
            }))
            .unwrap(),
        ],
        config: crate::ImageConfig::default(),
        compression: crate::Compression::Zstd,
        mtime: crate::write_tar::MTIME,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_package_is_named_once_in_its_own_world_and_escaped() {
        let found: Vec<String> = materials([&sample(), &sample()]).into_iter().map(|material| material.purl).collect();
        let base = format!(
            "pkg:oci/base@sha256%3A{}?repository_url=registry.example%3A5000/os/base&tag=12",
            Digest::sha256(b"base").hex()
        );
        assert_eq!(
            found,
            [
                "pkg:deb/debian/libstdc%2B%2B6@12.2.0-14%2Bdeb12u1?arch=amd64&distro=bookworm",
                "pkg:deb/debian/openssl@1%3A3.0~rc1-1?arch=amd64&distro=bookworm",
                "pkg:npm/%40scope/tool@1.2.3",
                &base,
                "pkg:pypi/attrs@25.4.0",
            ]
        );
    }
}
