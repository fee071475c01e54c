//! [`provenance`]: what an image was built from, as an in-toto statement (v1) with SLSA provenance (v1).
//!
//! The only place where a revision of the project stands: in the image it would make two of one content. There is no
//! time in it either, so that the same inputs give the same statement.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use crate::{digest::Digest, image::json, materials::Material, platform::Platform};

/// Media type of the statement.
pub const PROVENANCE_TYPE: &str = "application/vnd.in-toto+json";
/// What its predicate is.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// Who builds, as a URI.
pub const BUILDER: &str = "urn:fleetctl";
/// How `externalParameters` and `internalParameters` are to be read, as a URI.
pub const BUILD_TYPE: &str = "urn:fleetctl:derivation:1";

/// What is known of a build beside its result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Built<'a> {
    /// `<fleet>/<image>`
    pub repository: &'a str,
    /// Name in `fleet.kdl`.
    pub image: &'a str,
    /// For which platform; `None`: an index of several, whose images are among `inputs`.
    pub platform: Option<Platform>,
    /// Hash of the derivation; the tag is `d-<this>`.
    pub derivation: &'a str,
    /// Hashes of everything that the derivation takes directly: input's name → (hash function, hex).
    pub inputs: BTreeMap<String, (&'static str, String)>,
    /// Packages and bases.
    pub materials: &'a [Material],
    /// Packages whose install scripts ran; with any, nobody can promise the same bytes again.
    pub scripts: &'a BTreeSet<String>,
    /// Containerfiles that a container engine built it from; what their steps took from elsewhere is not known, and nobody
    /// can promise the same bytes again.
    pub containerfiles: &'a BTreeSet<String>,
    /// The engines that did, where they are known.
    pub engines: &'a BTreeSet<String>,
    /// Of the project, where it is known.
    pub revision: Option<Revision>,
    /// Version of the builder.
    pub version: &'a str,
}

/// A revision of the project.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revision {
    /// Git commit, hex.
    pub commit: String,
    /// Files were changed since.
    pub changed: bool,
}

/// The statement's text about the manifest with this digest.
#[must_use]
pub fn provenance(digest: &Digest, built: &Built<'_>) -> String {
    let revision = built.revision.iter().map(|revision| Dependency {
        name: Some("project"),
        digest: BTreeMap::from([("gitCommit", revision.commit.as_str())]),
        annotations: revision.changed.then(|| BTreeMap::from([("changed", true)])),
        ..Dependency::default()
    });
    let materials = built.materials.iter().map(|material| Dependency {
        uri: Some(&material.purl),
        digest: material.digest.iter().map(|digest| (digest.algorithm().name(), digest.hex())).collect(),
        ..Dependency::default()
    });
    let inputs = built.inputs.iter().map(|(name, (function, hex))| Dependency {
        name: Some(name),
        digest: BTreeMap::from([(*function, hex.as_str())]),
        ..Dependency::default()
    });
    json(&Statement {
        kind: "https://in-toto.io/Statement/v1",
        subject: [Subject {
            name: built.repository,
            digest: BTreeMap::from([(digest.algorithm().name(), digest.hex())]),
        }],
        predicate_type: PREDICATE,
        predicate: Predicate {
            build_definition: Definition {
                build_type: BUILD_TYPE,
                external_parameters: External { image: built.image, platform: built.platform },
                internal_parameters: Internal {
                    derivation: built.derivation,
                    reproducible: built.scripts.is_empty() && built.containerfiles.is_empty(),
                    install_scripts: built.scripts,
                    containerfiles: built.containerfiles,
                    container_engines: built.engines,
                },
                resolved_dependencies: revision.chain(inputs).chain(materials).collect(),
            },
            run_details: Run {
                builder: Builder { id: BUILDER, version: BTreeMap::from([("fleetctl", built.version)]) },
            },
        },
    })
}

/// Field order is byte order of the statement: do not sort.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Statement<'a> {
    #[serde(rename = "_type")]
    kind: &'static str,
    subject: [Subject<'a>; 1],
    predicate_type: &'static str,
    predicate: Predicate<'a>,
}

#[derive(Serialize)]
struct Subject<'a> {
    name: &'a str,
    digest: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Predicate<'a> {
    build_definition: Definition<'a>,
    run_details: Run<'a>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Definition<'a> {
    build_type: &'static str,
    external_parameters: External<'a>,
    internal_parameters: Internal<'a>,
    resolved_dependencies: Vec<Dependency<'a>>,
}

#[derive(Serialize)]
struct External<'a> {
    image: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    platform: Option<Platform>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Internal<'a> {
    derivation: &'a str,
    reproducible: bool,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    install_scripts: &'a BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    containerfiles: &'a BTreeSet<String>,
    #[serde(skip_serializing_if = "BTreeSet::is_empty")]
    container_engines: &'a BTreeSet<String>,
}

#[derive(Default, Serialize)]
struct Dependency<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uri: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    digest: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    annotations: Option<BTreeMap<&'static str, bool>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Run<'a> {
    builder: Builder<'a>,
}

#[derive(Serialize)]
struct Builder<'a> {
    id: &'static str,
    version: BTreeMap<&'static str, &'a str>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::materials::{materials, sample};

    fn set(words: &[&str]) -> BTreeSet<String> {
        words.iter().map(|word| (*word).to_owned()).collect()
    }

    fn statement(scripts: &[&str], containerfiles: &[&str], revision: Option<Revision>) -> String {
        let materials = materials([&sample()]);
        let engines = set(if containerfiles.is_empty() { &[] } else { &["Docker 20.10.24"] });
        let built = Built {
            repository: "fleet/agent",
            image: "agent",
            platform: Some(Platform::LinuxAmd64),
            derivation: "abc",
            inputs: BTreeMap::from([("layer.0.debian".to_owned(), ("blake3", "00ff".to_owned()))]),
            materials: &materials,
            scripts: &set(scripts),
            containerfiles: &set(containerfiles),
            engines: &engines,
            revision,
            version: "1.0.0",
        };
        provenance(&Digest::sha256(b"manifest"), &built)
    }

    #[test]
    fn the_statement_of_a_fixed_build_never_changes() {
        let revision = Revision { commit: "1234".into(), changed: true };
        let text = statement(&[], &[], Some(revision));
        let read: serde_json::Value = serde_json::from_str(&text).unwrap();
        let definition = &read["predicate"]["buildDefinition"];
        assert_eq!(definition["internalParameters"]["reproducible"], true);
        assert_eq!(definition["resolvedDependencies"][0]["digest"]["gitCommit"], "1234");
        assert_eq!(definition["resolvedDependencies"][0]["annotations"]["changed"], true);
        assert_eq!(definition["resolvedDependencies"].as_array().unwrap().len(), 7);
        assert_eq!(
            Digest::sha256(text.as_bytes()).to_string(),
            "sha256:da4f8bf9a00fbf6cb1ea9564e9fc3892855632c909e6ba62386c421932d28e48",
            "{text}"
        );
    }

    #[test]
    fn an_image_that_others_programs_made_promises_nothing() {
        let internal = |scripts: &[&str], containerfiles: &[&str]| {
            let read: serde_json::Value = serde_json::from_str(&statement(scripts, containerfiles, None)).unwrap();
            read["predicate"]["buildDefinition"]["internalParameters"].clone()
        };
        let scripted = serde_json::json!({"derivation": "abc", "reproducible": false, "installScripts": ["esbuild"]});
        assert_eq!(internal(&["esbuild"], &[]), scripted);
        let built = serde_json::json!({
            "derivation": "abc", "reproducible": false, "containerfiles": ["images/a/Containerfile"],
            "containerEngines": ["Docker 20.10.24"],
        });
        assert_eq!(internal(&[], &["images/a/Containerfile"]), built);
    }
}
