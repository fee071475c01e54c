//! Packages from servers that are slow, wrong, empty or gone.

mod support;

use std::{
    io::Write as _,
    path::Path,
    sync::{Arc, Mutex},
};

use fleet_oci::{
    Compression, Content, Digest, LayerRecipe, Meta, Node, Platform, Tree,
    digest::{Algorithm, Hasher},
    lock::{DebPin, NpmPin},
    recipe::{FileEntry, FileWhat, NpmCommands, NpmLinks},
    write_tar::write_tar,
};
use fleet_packages::{BlobCache as _, Event, FolderCache, RealizedLayer, Sources, Workshop, debian, realize_layer};
use support::Server;

const SNAPSHOT_SHA1: &str = "da39a3ee5e6b4b0d3255bfef95601890afd80709";

struct Bench {
    server: Server,
    workshop: Workshop,
    events: Arc<Mutex<Vec<Event>>>,
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let server = Server::start();
        let folder = tempfile::tempdir().unwrap();
        let events = Arc::<Mutex<Vec<Event>>>::default();
        let told = Arc::clone(&events);
        let cache = Arc::new(FolderCache::new(folder.path()));
        let mut workshop = Workshop::new(cache, Arc::new(move |event| told.lock().unwrap().push(event)));
        let at = |path: &str| format!("http://{}/{path}", server.host);
        workshop.sources = Sources {
            debian: at("debian"),
            debian_security: at("security"),
            debian_snapshot: at("snapshot"),
            debian_keyring: folder.path().join("no-keyring"),
            npm: at("npm"),
            pip: at("simple"),
        };
        Self { server, workshop, events, folder }
    }

    async fn realize(&self, recipe: &LayerRecipe) -> Result<RealizedLayer, String> {
        let made = realize_layer(&self.workshop, "agent", recipe, Compression::Zstd).await;
        made.map_err(|error| error.to_string())
    }
}

fn tar(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tree = Tree::new();
    for (path, text) in files {
        tree.insert(path, Node::File(Meta::root(0o755), Content::bytes(text.as_bytes()))).unwrap();
    }
    let mut bytes = Vec::new();
    write_tar(&tree, &mut bytes).unwrap();
    bytes
}

fn deb() -> Vec<u8> {
    let mut archive = ar::Builder::new(Vec::new());
    let control = tar(&[("control", "Package: tool\nVersion: 1\n"), ("postinst", "#!/bin/sh\nrm -rf /\n")]);
    for (name, bytes) in [("control.tar", control), ("data.tar", tar(&[("usr/bin/tool", "elf")]))] {
        archive.append(&ar::Header::new(name.into(), bytes.len() as u64), &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap()
}

fn pin(deb: &[u8]) -> DebPin {
    DebPin {
        name: "tool".into(),
        version: "1".into(),
        architecture: "amd64".into(),
        archive: "debian".into(),
        pool_path: "pool/main/t/tool.deb".into(),
        size: deb.len() as u64,
        sha256: Digest::sha256(deb),
    }
}

fn layer(pin: DebPin) -> LayerRecipe {
    LayerRecipe::Debian {
        suite: "bookworm".into(),
        architecture: "amd64".into(),
        packages: vec![pin],
        users: Vec::new(),
    }
}

#[tokio::test]
async fn a_busy_mirror_is_asked_again_and_a_second_build_asks_nobody() {
    let bench = Bench::new();
    let deb = deb();
    bench.server.on("/debian/pool/main/t/tool.deb", [(503, vec![]), (429, vec![]), (200, deb.clone())]);
    let made = bench.realize(&layer(pin(&deb))).await.unwrap();
    assert_eq!(made.notes, ["tool: maintainer scripts not run: postinst"]);
    let retries = bench.events.lock().unwrap().iter().filter(|event| matches!(event, Event::Retrying { .. })).count();
    assert_eq!((retries, bench.server.asked().len()), (2, 3));
    assert_eq!(bench.realize(&layer(pin(&deb))).await.unwrap(), made);
    assert_eq!(bench.server.asked().len(), 3);
}

#[tokio::test]
async fn a_package_that_left_the_mirror_comes_from_the_snapshot_archive() {
    let bench = Bench::new();
    let deb = deb();
    let files = format!(
        r#"{{"result":[{{"hash":"{}","architecture":"arm64"}},{{"hash":"{SNAPSHOT_SHA1}","architecture":"amd64"}}]}}"#,
        "0".repeat(40)
    );
    bench.server.gives("/snapshot/mr/binary/tool/1/binfiles", files);
    bench.server.gives(&format!("/snapshot/file/{SNAPSHOT_SHA1}"), deb.clone());
    bench.realize(&layer(pin(&deb))).await.unwrap();
}

#[tokio::test]
async fn a_package_that_is_nowhere_is_one_error_with_the_command_that_mends_it() {
    let bench = Bench::new();
    let message = bench.realize(&layer(pin(&deb()))).await.unwrap_err();
    for part in
        ["Debian package tool 1", "/debian/pool/main/t/tool.deb answered 404", "fleetctl lock --only image/agent"]
    {
        assert!(message.contains(part), "{part:?} is not in {message}");
    }
}

#[tokio::test]
async fn a_mirror_that_sends_other_bytes_is_not_believed() {
    let bench = Bench::new();
    let (right, mut wrong) = (deb(), deb());
    wrong[100] ^= 1;
    bench.server.gives("/debian/pool/main/t/tool.deb", wrong.clone());
    let message = bench.realize(&layer(pin(&right))).await.unwrap_err();
    assert!(message.contains("the source changed or lies"), "{message}");
    let cache = FolderCache::new(bench.folder.path());
    assert!(cache.get(&Digest::sha256(&right)).is_none() && cache.get(&Digest::sha256(&wrong)).is_none());
    bench.server.gives("/debian/pool/main/t/tool.deb", [&right[..], b"more"].concat());
    let message = bench.realize(&layer(pin(&right))).await.unwrap_err();
    assert!(message.contains("sends more than"), "{message}");
}

#[tokio::test]
async fn an_npm_tarball_is_found_where_the_registry_says_it_is() {
    let bench = Bench::new();
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(&tar(&[("package/index.js", "1"), ("package/.pending", "x")])).unwrap();
    let tarball = gzip.finish().unwrap();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(&tarball);
    let digest = hasher.finish();
    let document = format!(r#"{{"dist":{{"tarball":"http://{}/elsewhere.tgz"}}}}"#, bench.server.host);
    bench.server.gives("/npm/@s%2ftool/1.0.0", document);
    bench.server.gives("/elsewhere.tgz", tarball);
    let package = NpmPin {
        path: "node_modules/@s/tool".into(),
        name: "@s/tool".into(),
        version: "1.0.0".into(),
        integrity: integrity(&digest),
        ..NpmPin::default()
    };
    let recipe = LayerRecipe::Npm {
        to: "/opt/x".into(),
        request: [("@s/tool".to_owned(), "1.0.0".to_owned())].into(),
        packages: vec![package],
        omit: vec!["node_modules/@s/tool/.pending".into(), "node_modules/typo".into()],
        links: NpmLinks::Own,
        allow_scripts: Vec::new(),
    };
    let made = bench.realize(&recipe).await.unwrap();
    assert_eq!(made.notes, ["omit \"node_modules/typo\": there is no such file in /opt/x"]);
    assert_eq!(bench.server.asked()[0], "GET /npm/@s/tool/-/tool-1.0.0.tgz HTTP/1.1");
    let tree = unpacked(&bench, &made);
    assert!(tree.get("opt/x/node_modules/@s/tool/index.js").is_some());
    assert!(tree.get("opt/x/node_modules/@s/tool/.pending").is_none());
}

fn integrity(digest: &Digest) -> String {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    let bytes: Vec<u8> = (0..64).map(|at| u8::from_str_radix(&digest.hex()[2 * at..2 * at + 2], 16).unwrap()).collect();
    format!("sha512-{}", STANDARD.encode(bytes))
}

fn unpacked(bench: &Bench, made: &RealizedLayer) -> Tree {
    let blob = FolderCache::new(bench.folder.path()).get(&made.descriptor.digest).unwrap();
    let file = std::io::BufReader::new(std::fs::File::open(blob).unwrap());
    let tar = fleet_oci::compress::unpacked(&made.descriptor.media_type, file).unwrap();
    let whole = |path: &str| Some(path.to_owned());
    fleet_oci::read_tar::read_tar(tar, fleet_oci::read_tar::Modes::Kept, &mut fleet_oci::MemorySink, whole).unwrap()
}

#[tokio::test]
async fn files_of_the_store_and_files_of_the_recipe_make_the_same_layer_anywhere() {
    let bytes = vec![7; 5000];
    let entry = |what| FileEntry { path: "/etc/x".into(), mode: 0o640, uid: 0, gid: 991, what };
    let (one, other) = (Bench::new(), Bench::new());
    let cache = FolderCache::new(other.folder.path());
    let mut file = cache.scratch().unwrap();
    file.write_all(&bytes).unwrap();
    cache.put(&Digest::sha256(&bytes), file).unwrap();
    let blob = FileWhat::Blob { digest: Digest::sha256(&bytes), size: 5000 };
    let by_blob = other.realize(&LayerRecipe::Files { entries: vec![entry(blob.clone())] }).await.unwrap();
    let inline = one.realize(&LayerRecipe::Files { entries: vec![entry(FileWhat::Inline(bytes))] }).await.unwrap();
    assert_eq!(by_blob, inline);
    let missing = one.realize(&LayerRecipe::Files { entries: vec![entry(blob)] }).await.unwrap_err();
    assert!(missing.contains("/etc/x") && missing.contains("is not in the store"), "{missing}");
}

fn fetch(bench: &Bench, sha256: Digest, unpack: bool) -> LayerRecipe {
    let url = format!("http://{}/dl/tool.tgz", bench.server.host);
    LayerRecipe::Fetch { url, sha256, to: "/opt/tool".into(), executable: !unpack, unpack }
}

#[tokio::test]
async fn a_fetched_file_is_taken_once_and_kept_as_a_file_or_unpacked() {
    let bench = Bench::new();
    let archive = tar(&[("tool-1/bin/tool", "elf")]);
    let sha256 = Digest::sha256(&archive);
    bench.server.gives("/dl/tool.tgz", archive.clone());
    let whole = unpacked(&bench, &bench.realize(&fetch(&bench, sha256.clone(), false)).await.unwrap());
    assert_eq!(whole.get("opt/tool"), Some(&Node::file(0o755, archive)));
    let content = unpacked(&bench, &bench.realize(&fetch(&bench, sha256, true)).await.unwrap());
    assert_eq!(content.get("opt/tool/tool-1/bin/tool"), Some(&Node::file(0o755, "elf")));
    assert_eq!(bench.server.asked().len(), 1, "the second layer took it from the store");
}

#[tokio::test]
async fn a_file_that_is_not_the_one_meant_is_refused_whoever_serves_it() {
    let bench = Bench::new();
    bench.server.gives("/dl/tool.tgz", "something else");
    let refused = bench.realize(&fetch(&bench, Digest::sha256(b"tool"), false)).await.unwrap_err();
    assert!(refused.contains("the source changed or lies") && refused.contains("fleet.kdl"), "{refused}");
}

fn source(name: &str, bytes: &[u8]) -> FileEntry {
    let what = FileWhat::Source {
        path: name.into(),
        blake3: blake3::hash(bytes).to_hex().to_string(),
        size: bytes.len() as u64,
    };
    FileEntry { path: format!("/srv/{name}"), mode: 0o644, uid: 0, gid: 0, what }
}

#[tokio::test]
async fn files_of_the_project_are_read_when_the_layer_is_made_and_held_against_the_plan() {
    let mut bench = Bench::new();
    let project = tempfile::tempdir().unwrap();
    let large = vec![3; 700_000];
    std::fs::write(project.path().join("large"), &large).unwrap();
    std::fs::write(project.path().join("empty"), "").unwrap();
    let recipe = LayerRecipe::Files { entries: vec![source("empty", b""), source("large", &large)] };
    let nobody = bench.realize(&recipe).await.unwrap_err();
    assert!(nobody.contains("file of a project"), "{nobody}");
    bench.workshop.project = Some(project.path().to_owned());
    let tree = unpacked(&bench, &bench.realize(&recipe).await.unwrap());
    assert_eq!(tree.get("srv/large"), Some(&Node::file(0o644, large.clone())));
    assert_eq!(tree.get("srv/empty"), Some(&Node::file(0o644, "")));
    let mut edited = large.clone();
    edited[699_999] = 4;
    let others = [edited, large[1..].to_vec(), [&large[..], &[1]].concat()];
    for other in others {
        std::fs::write(project.path().join("large"), other).unwrap();
        let changed = bench.realize(&recipe).await.unwrap_err();
        assert!(changed.contains("large") && changed.contains("since the plan was made"), "{changed}");
    }
    std::fs::remove_file(project.path().join("large")).unwrap();
    assert!(bench.realize(&recipe).await.unwrap_err().contains("large"));
}

/// One npm package with a command.
fn tool(bench: &Bench, name: &str) -> NpmPin {
    let mut zipped = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    zipped.write_all(&tar(&[("package/cli.js", name)])).unwrap();
    let tarball = zipped.finish().unwrap();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(&tarball);
    bench.server.gives(&format!("/npm/{name}/-/{name}-1.0.0.tgz"), tarball);
    NpmPin {
        path: format!("node_modules/{name}"),
        name: name.to_owned(),
        version: "1.0.0".into(),
        integrity: integrity(&hasher.finish()),
        bin: [(name.to_owned(), "cli.js".to_owned())].into(),
        ..NpmPin::default()
    }
}

#[tokio::test]
async fn the_layers_of_a_node_that_is_split_are_together_what_it_would_be_whole() {
    let bench = Bench::new();
    let pins = [tool(&bench, "asked"), tool(&bench, "needed")];
    let layer = |request: &[&str], packages: &[NpmPin], links| LayerRecipe::Npm {
        to: "/opt/x".into(),
        request: request.iter().map(|name| ((*name).to_owned(), "1.0.0".to_owned())).collect(),
        packages: packages.to_vec(),
        omit: Vec::new(),
        links,
        allow_scripts: Vec::new(),
    };
    let commands = pins.iter().map(|pin| NpmCommands { path: pin.path.clone(), bin: pin.bin.clone() }).collect();
    let whole = bench.realize(&layer(&["asked"], &pins, NpmLinks::Own)).await.unwrap();
    let needed = bench.realize(&layer(&[], &pins[1..], NpmLinks::Elsewhere)).await.unwrap();
    let asked = bench.realize(&layer(&["asked"], &pins[..1], NpmLinks::Of(commands))).await.unwrap();
    let mut both = unpacked(&bench, &needed);
    let upper = unpacked(&bench, &asked);
    for (path, node) in both.iter() {
        let shared = upper.get(path);
        assert!(shared.is_none_or(|other| other == node), "{path} is not the same in both layers");
    }
    both.overlay(upper).unwrap();
    assert_eq!(both, unpacked(&bench, &whole));
}

/// A mirror with one package, and a suite without updates or security archive.
fn mirror(bench: &Bench, listed: &str) {
    let packages = format!(
        "Package: tool\nVersion: 1\nArchitecture: amd64\nPriority: optional\nFilename: pool/main/t/tool.deb\nSize: 3\nSHA256: {}\n",
        "a".repeat(64)
    );
    let mut xz = xz2::write::XzEncoder::new(Vec::new(), 1);
    xz.write_all(packages.as_bytes()).unwrap();
    let packed = xz.finish().unwrap();
    let digest = Digest::sha256(&packed);
    let release = format!(
        "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSuite: sid\nDate: Sat, 06 Sep 2026 10:00:00 UTC\nSHA256:\n {} {} {listed}\n-----BEGIN PGP SIGNATURE-----\n\nxyz\n-----END PGP SIGNATURE-----\n",
        digest.hex(),
        packed.len()
    );
    bench.server.gives("/debian/dists/sid/InRelease", release);
    bench.server.gives("/debian/dists/sid/main/binary-amd64/Packages.xz", packed);
}

fn request(packages: &[String]) -> debian::Request<'_> {
    debian::Request { suite: "sid", platform: Platform::LinuxAmd64, packages }
}

#[tokio::test]
async fn a_suite_without_updates_is_resolved_and_an_unchecked_signature_is_told() {
    let bench = Bench::new();
    mirror(&bench, "main/binary-amd64/Packages.xz");
    let packages = ["tool".to_owned()];
    let resolved = debian::resolve(&bench.workshop, request(&packages)).await.unwrap();
    assert_eq!(resolved.lock.packages[0].pool_path, "pool/main/t/tool.deb");
    assert_eq!(resolved.lock.release_date, "Sat, 06 Sep 2026 10:00:00 UTC");
    assert!(resolved.notes[0].contains("the signature of sid was not checked"), "{:?}", resolved.notes);
}

#[tokio::test]
async fn a_release_signed_by_nobody_we_know_is_refused() {
    let mut bench = Bench::new();
    mirror(&bench, "main/binary-amd64/Packages.xz");
    // gpgv comes with apt; without it this test fails, because then nothing would check signatures here.
    bench.workshop.sources.debian_keyring = Path::new("/usr/share/keyrings/debian-archive-keyring.gpg").into();
    let packages = ["tool".to_owned()];
    let refused = debian::resolve(&bench.workshop, request(&packages)).await;
    assert!(matches!(refused, Err(debian::DebianError::Signature { .. })), "{refused:?}");
}
