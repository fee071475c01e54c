//! The fuzz target for manifests and indexes. See `fleet_fuzz::fuzz`.

use fleet_fuzz::{Random, fuzz, scrambled};
use fleet_oci::Platform;

use crate::manifest::{Document, Kind, MAXIMUM_LAYERS, MAXIMUM_MANIFEST};

const DIGEST: &str = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
const WORDS: [&str; 16] = [
    "null",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "18446744073709551616",
    "1e999",
    "true",
    "[[[[[[[[",
    "{\"manifests\":[{\"manifests\":",
    "\"sha256:\"",
    "\"sha512:00\"",
    "\"../../x\"",
    "\"\\ud800\"",
    ",",
    "\"manifests\":[],",
];

fn seeds() -> Vec<Vec<u8>> {
    let blob =
        |kind: &str| format!(r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{DIGEST}","size":7}}"#);
    let layer = blob("layer.v1.tar+zstd");
    let layers = [layer.as_str(); 3].join(",");
    let image = format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{layers}]}}"#,
        blob("config.v1+json"),
    );
    let entry = |architecture: &str| {
        format!(
            r#"{{"mediaType":"x","size":1,"digest":"{DIGEST}","platform":{{"os":"linux","architecture":"{architecture}"}}}}"#
        )
    };
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{},{},{layer}]}}"#, entry("arm64"), entry("amd64"));
    vec![image.into_bytes(), index.into_bytes()]
}

#[test]
fn fuzz_manifest() {
    let seeds = seeds();
    fuzz("manifests", Some(64 << 20), |seed| {
        let mut random = Random(seed);
        let mut bytes = scrambled(&mut random, &seeds, &WORDS);
        match random.below(200) {
            // Depth that would overflow a recursive reader's stack.
            0 => drop(bytes.splice(0..0, b"{\"layers\":".repeat(50_000))),
            1 => bytes.resize(MAXIMUM_MANIFEST + 1, b' '),
            _ => {}
        }
        let platform = *random.pick(&[Platform::LinuxAmd64, Platform::LinuxArm64]);
        if let Ok(Kind::Image { layers, .. }) = Document::parse(&bytes, platform) {
            assert!(layers.len() <= MAXIMUM_LAYERS && bytes.len() <= MAXIMUM_MANIFEST);
        }
    });
}
