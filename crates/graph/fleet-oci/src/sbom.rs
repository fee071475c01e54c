//! [`sbom`]: the packages of an image as a CycloneDX 1.6 bill of materials.
//!
//! CycloneDX and not SPDX, because SPDX demands a date and a unique namespace: two of the same content would differ.
//! The image's digest is not in it: the artifact that carries the bill names its image, and images of the same packages
//! have the same bill, which is sent once.

use serde::Serialize;

use crate::{
    digest::{Algorithm, Digest},
    image::json,
    materials::Material,
};

/// Media type of the bill.
pub const SBOM_TYPE: &str = "application/vnd.cyclonedx+json";

/// The bill's text. `name` is the image's repository; `materials` come from [`crate::materials::materials`]. An image that
/// an engine built is not known to be made of these alone: its bill says that it is incomplete.
#[must_use]
pub fn sbom(name: &str, materials: &[Material], complete: bool) -> String {
    json(&Bill {
        schema: "http://cyclonedx.org/schema/bom-1.6.schema.json",
        bom_format: "CycloneDX",
        spec_version: "1.6",
        version: 1,
        metadata: Metadata {
            component: Component {
                kind: "container",
                reference: name,
                name,
                version: None,
                hashes: Vec::new(),
                purl: None,
            },
        },
        components: materials.iter().map(Component::of).collect(),
        compositions: if complete {
            Vec::new()
        } else {
            vec![Composition { aggregate: "incomplete", assemblies: [name] }]
        },
    })
}

/// Field order is byte order of the bill: do not sort.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Bill<'a> {
    #[serde(rename = "$schema")]
    schema: &'static str,
    bom_format: &'static str,
    spec_version: &'static str,
    version: u32,
    metadata: Metadata<'a>,
    components: Vec<Component<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    compositions: Vec<Composition<'a>>,
}

#[derive(Serialize)]
struct Composition<'a> {
    aggregate: &'static str,
    assemblies: [&'a str; 1],
}

#[derive(Serialize)]
struct Metadata<'a> {
    component: Component<'a>,
}

#[derive(Serialize)]
struct Component<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    #[serde(rename = "bom-ref")]
    reference: &'a str,
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    hashes: Vec<Hash<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    purl: Option<&'a str>,
}

#[derive(Serialize)]
struct Hash<'a> {
    alg: &'static str,
    content: &'a str,
}

impl<'a> Hash<'a> {
    fn of(digest: &'a Digest) -> Self {
        let alg = match digest.algorithm() {
            Algorithm::Sha256 => "SHA-256",
            Algorithm::Sha512 => "SHA-512",
        };
        Self { alg, content: digest.hex() }
    }
}

impl<'a> Component<'a> {
    fn of(material: &'a Material) -> Self {
        Self {
            kind: if material.is_image { "container" } else { "library" },
            reference: &material.purl,
            name: &material.name,
            version: Some(material.version.clone()).filter(|version| !version.is_empty()),
            hashes: material.digest.iter().map(Hash::of).collect(),
            purl: Some(&material.purl),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::materials::{materials, sample};

    #[test]
    fn the_bill_of_a_fixed_image_never_changes() {
        let bill = sbom("fleet/agent", &materials([&sample()]), true);
        let read: serde_json::Value = serde_json::from_str(&bill).unwrap();
        assert_eq!(read["components"].as_array().unwrap().len(), 5);
        assert_eq!(read["components"][0]["hashes"][0]["content"], Digest::sha256(b"libstdc++6").hex());
        assert_eq!(read["components"][2]["hashes"][0]["alg"], "SHA-512");
        assert_eq!(
            Digest::sha256(bill.as_bytes()).to_string(),
            "sha256:fc8be361e582605a2f1178da12e587325089ebbdcb4187ef055d58d2614b5f46",
            "{bill}"
        );
    }

    #[test]
    fn the_bill_of_what_an_engine_built_says_that_there_may_be_more() {
        let read: serde_json::Value = serde_json::from_str(&sbom("fleet/agent", &[], false)).unwrap();
        assert_eq!(
            read["compositions"],
            serde_json::json!([{"aggregate": "incomplete", "assemblies": ["fleet/agent"]}])
        );
        assert_eq!(read["metadata"]["component"]["bom-ref"], "fleet/agent");
    }
}
