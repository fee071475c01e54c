//! The fuzz target for image configs of strangers. See `fleet_fuzz::fuzz`.

use fleet_fuzz::{Random, fuzz, scrambled};
use fleet_oci::{
    Digest, ImageConfig, LayerDescriptor, Platform,
    image::{Base, assemble, read_config},
};

const WORDS: [&str; 14] = [
    "null",
    "[]",
    "{}",
    "\"\"",
    "-1",
    "1e999",
    "true",
    "[[[[[[[[",
    "{\"a\":{\"a\":{\"a\":",
    "\"sha256:\"",
    "\"\\ud800\"",
    "\"a=b=c\"",
    "\"=\"",
    ",",
];

fn seeds() -> Vec<Vec<u8>> {
    let layer = |name: &str| LayerDescriptor {
        media_type: "application/vnd.oci.image.layer.v1.tar+zstd".into(),
        digest: Digest::sha256(name.as_bytes()),
        diff_id: Digest::sha256(b"unpacked"),
        size: 3,
        uncompressed: 1024,
    };
    let settings = ImageConfig {
        env: [("PATH".to_owned(), "/usr/bin".to_owned())].into(),
        entrypoint: vec!["/bin/x".into()],
        user: Some("1000:1000".into()),
        exposed_ports: ["8008/tcp".to_owned()].into(),
        labels: [("a".to_owned(), "b".to_owned())].into(),
        ..ImageConfig::default()
    };
    let ours = assemble(&Base::default(), Platform::LinuxAmd64, &settings, &[layer("a"), layer("b")]);
    let docker = r#"{"architecture":"amd64","config":{"Hostname":"","Env":["A=b","PATH=/bin"],"Cmd":["sh","-c","x"],
        "Volumes":{"/data":{}},"ExposedPorts":{"80/tcp":{}},"WorkingDir":"","Entrypoint":null,"OnBuild":null,"Labels":null,
        "Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":30000000000,"Retries":3},"Shell":["/bin/ash","-c"]},
        "created":"2024-01-01T00:00:00Z","history":[{"created":"x","created_by":"y","empty_layer":true}],"os":"linux",
        "rootfs":{"type":"layers","diff_ids":["sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"]}}"#;
    vec![ours.config_json.into_bytes(), docker.as_bytes().to_vec()]
}

#[test]
fn fuzz_config() {
    let seeds = seeds();
    fuzz("configs", Some(32 << 20), |seed| {
        let mut random = Random(seed);
        let mut bytes = scrambled(&mut random, &seeds, &WORDS);
        if random.below(50) == 0 {
            // Depth that would overflow a recursive reader's stack.
            bytes.splice(0..0, b"[".repeat(100_000));
        }
        let Ok((config, _)) = read_config(&bytes) else { return };
        // What was taken from a base is written into our own configs, and must be readable there.
        let image = assemble(&Base { config, layers: Vec::new() }, Platform::LinuxArm64, &ImageConfig::default(), &[]);
        let (again, _) = read_config(image.config_json.as_bytes()).unwrap();
        assert_eq!(again, image.config);
    });
}
