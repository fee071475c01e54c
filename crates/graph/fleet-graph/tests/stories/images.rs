//! Images as derivations: which input changes which layer, and what there is for which platform.

use std::collections::BTreeMap;

use fleet_derivation::{Derivation, Hash, Input};
use fleet_graph::{
    Inputs, Problem,
    image::{PlannedImage, image_for, images, platforms},
};
use fleet_model::{
    Links, ListedEntry, ListedFile, Listing, Looked, RelPath, SourceFile, SourceTree, check, model::Model, resolve,
};
use fleet_oci::{
    Digest, LayerRecipe, Lock, Platform,
    lock::{BasePin, NodeLock, NpmLock, NpmPin, Unpack},
    recipe::FileWhat,
};

const AMD: Platform = Platform::LinuxAmd64;
const ARM: Platform = Platform::LinuxArm64;
const BASE: &str = "docker.io/library/debian:bookworm";
const SHA: &str = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

fn path(text: &str) -> RelPath {
    RelPath::new(text).unwrap()
}

/// A project whose environment runs the image `homeserver`.
struct Bench {
    tree: SourceTree,
    lock: Lock,
    binaries: BTreeMap<Platform, Hash>,
    epoch: Option<u64>,
}

impl Bench {
    /// `images` stands within the node of this name; `target` after the target's word.
    fn new(images: &str, target: &str) -> Self {
        let text = format!(
            "fleet \"tiny\" domain=\"tiny.test\"\nimages {{\n{images}\n}}\nenvironment \"local\" {{ target \"docker\" {target} }}\n"
        );
        let mut tree = SourceTree::default();
        tree.insert(path("fleet.kdl"), Looked::File(SourceFile::new(text.into_bytes(), false)));
        tree.insert(path("templates"), Looked::Folder);
        let mut lock = Lock::default();
        let pin = |text: &str| BasePin { digest: Digest::sha256(text.as_bytes()) };
        lock.bases.insert(BASE.into(), BTreeMap::from([(AMD, pin("amd")), (ARM, pin("arm"))]));
        Self { tree, lock, binaries: BTreeMap::from([(AMD, Hash::of(b"agent"))]), epoch: None }
    }

    /// The folder `site`: paths and sizes; a size of `None` is an empty folder.
    fn site(mut self, files: impl IntoIterator<Item = (String, Option<u64>)>) -> Self {
        let entry = |(path, size): (String, Option<u64>)| {
            let file = |size| ListedFile {
                hash: *Hash::of(format!("{path} {size}").as_bytes()).as_bytes(),
                size,
                executable: false,
            };
            let entry = size.map_or(ListedEntry::Folder, |size| ListedEntry::File(file(size)));
            (path, entry)
        };
        let entries = files.into_iter().map(entry).collect();
        self.tree.insert_listing(path("site"), Links::Kept, Listing::Folder(entries));
        self
    }

    fn model(&self) -> Model {
        let checked = check(&path("fleet.kdl"), &self.tree);
        checked.model.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics))
    }

    fn with<T>(&self, ask: impl FnOnce(&Inputs<'_>) -> T) -> T {
        let model = self.model();
        let resolved = resolve(&model, "local").unwrap();
        ask(&Inputs {
            model: &model,
            environment: &model.environments["local"],
            resolved: &resolved,
            sources: &self.tree,
            lock: &self.lock,
            platform: AMD,
            agent_binaries: &self.binaries,
            fleetctl_binaries: &BTreeMap::new(),
            source_date_epoch: self.epoch,
            outputs: &BTreeMap::new(),
        })
    }

    fn homeserver(&self) -> PlannedImage {
        self.with(images).unwrap().remove("homeserver").unwrap()
    }
}

/// Hashes of the layers made here, by address.
fn layers(image: &PlannedImage) -> BTreeMap<String, Hash> {
    let (_, layers) = image.derivations.split_last().unwrap();
    layers.iter().map(|layer| (layer.address.to_string(), layer.hash())).collect()
}

fn whats(problems: Vec<Problem>) -> String {
    problems.iter().map(|one| format!("{one}; {}", one.help)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_compression_of_the_target_and_the_time_of_files_are_in_every_layer_and_image() {
    let image = format!(
        "image \"homeserver\" {{ base \"{BASE}\"; tree \"site\" to=\"/srv\"; fetch \"https://a.test/x\" sha256=\"{SHA}\" to=\"/x\" }}"
    );
    let one = |target: &str, epoch| {
        let mut bench = Bench::new(&image, target).site([("a".to_owned(), Some(1))]);
        bench.epoch = epoch;
        let planned = bench.homeserver();
        let recipe = &planned.spec.recipe;
        ((recipe.compression, recipe.mtime), layers(&planned), planned.hash)
    };
    let made = [one("", None), one("compression=\"gzip\"", None), one("", Some(1_700_000_000))];
    for (at, (_, layers, hash)) in made.iter().enumerate() {
        assert_eq!(layers.len(), 2);
        for (packing, others, other) in &made[at + 1..] {
            assert!(other != hash && layers.iter().all(|(name, hash)| others[name] != *hash), "{packing:?}");
        }
    }
    let (same, zstd) = (one("compression=\"zstd\"", Some(1)), &made[0]);
    assert!(same == *zstd, "what is said is what holds when nobody says anything");
}

#[test]
fn where_a_file_is_fetched_is_no_reason_to_make_a_layer_again() {
    let image = |host: &str, to: &str| {
        let fetch = format!("fetch \"https://{host}/x\" sha256=\"{SHA}\" to=\"{to}\"");
        Bench::new(&format!("image \"homeserver\" {{ base \"{BASE}\"; {fetch} }}"), "").homeserver().hash
    };
    assert_eq!(image("a.test", "/x"), image("b.test", "/x"));
    assert_ne!(image("a.test", "/x"), image("a.test", "/y"));
}

/// Ten folders of ten files of 2 MiB.
fn large(more: &[(&str, u64)]) -> Bench {
    let files = (0..100).map(|n| (format!("d{}/f{n}", n % 10), Some(2 << 20)));
    let more = more.iter().map(|(path, size)| ((*path).to_owned(), Some(*size)));
    let empty = [("empty".to_owned(), None), ("d1".to_owned(), None)];
    let image = format!(
        "image \"homeserver\" {{ base \"{BASE}\"; tree \"site\" to=\"/srv\"; fetch \"https://a.test/x\" sha256=\"{SHA}\" to=\"/x\" }}"
    );
    Bench::new(&image, "").site(files.chain(empty).chain(more))
}

#[test]
fn a_large_folder_is_several_layers_of_which_a_change_moves_one() {
    let before = large(&[]).homeserver();
    let all = layers(&before);
    assert!((5..=11).contains(&all.len()), "{all:#?}");
    let mut seen = Vec::new();
    for layer in &before.spec.recipe.layers {
        let LayerRecipe::Files { entries } = layer else { continue };
        let size: u64 = entries.iter().map(|e| if let FileWhat::Source { size, .. } = e.what { size } else { 0 }).sum();
        assert!(size <= 32 << 20, "{size}");
        seen.extend(entries.iter().map(|entry| entry.path.clone()));
    }
    seen.sort();
    assert_eq!(seen.len(), 101, "each file once, and the folder that is empty");
    assert!(seen.contains(&"/srv/empty".to_owned()) && !seen.contains(&"/srv/d1".to_owned()));
    for (name, size) in [("d3/new", 5), ("d3/f3", 7), ("other", 1), ("e/f/g", 1)] {
        let after = layers(&large(&[(name, size)]).homeserver());
        let changed: Vec<_> = all.iter().filter(|(layer, hash)| after.get(*layer) != Some(hash)).collect();
        assert_eq!(changed.len(), 1, "{name} changed {changed:?}");
    }
}

#[test]
fn the_layers_of_an_image_are_named_by_its_derivation_in_their_order() {
    let image = large(&[]).homeserver();
    let (whole, layers) = image.derivations.split_last().unwrap();
    let hash_at = |index: usize| {
        let start = format!("layer.{index}.");
        whole.inputs.iter().find(|(name, _)| name.starts_with(&start)).map(|(_, input)| match input {
            Input::Derivation { hash, .. } => *hash,
            other => panic!("{other:?}"),
        })
    };
    for (index, layer) in layers.iter().enumerate() {
        assert_eq!(hash_at(index), Some(layer.hash()));
    }
    assert_eq!(image.spec.recipe.layers.len(), layers.len() + 1, "the base is not made here");
}

const AGENT: &str = "image \"agent\" platform=\"linux/amd64,linux/arm64\" { base \"docker.io/library/debian:bookworm\"; fleet-agent to=\"/a\" }";

#[test]
fn an_image_of_two_platforms_is_made_for_each_with_what_it_stands_on() {
    let images = format!(
        "{AGENT}\nimage \"homeserver\" platform=\"linux/arm64,linux/amd64\" {{ base image=\"agent\"; tree \"site\" to=\"/srv\" }}"
    );
    let mut bench = Bench::new(&images, "").site([("a".to_owned(), Some(1))]);
    bench.binaries.insert(ARM, Hash::of(b"agent for arm"));
    let model = bench.model();
    let both = bench.with(|inputs| platforms(inputs, &model.images["homeserver"]));
    assert_eq!(both, [AMD, ARM]);
    let made = |platform| bench.with(|inputs| image_for(inputs, "homeserver", platform)).unwrap();
    let (amd, arm) = (made(AMD), made(ARM));
    assert_eq!((amd.spec.recipe.platform, arm.spec.recipe.platform), (AMD, ARM));
    assert_eq!(amd.hash, bench.homeserver().hash, "the target's own platform is what it always was");
    assert_eq!(layers(&amd), layers(&arm), "files are the same for every platform");
    let base = |image: &PlannedImage| image.derivations.last().map(|whole| whole.inputs["base"].clone());
    assert_ne!(base(&amd), base(&arm));
}

#[test]
fn what_there_is_not_for_a_platform_is_named() {
    let bench =
        Bench::new(&format!("{AGENT}\nimage \"homeserver\" platform=\"linux/amd64\" {{ base \"{BASE}\" }}"), "");
    let problem = |name: &str| whats(bench.with(|inputs| image_for(inputs, name, ARM)).unwrap_err());
    let text = problem("agent");
    assert!(text.contains("no agent runtime for linux/arm64") && text.contains("remove the platform"), "{text}");
    let text = problem("homeserver");
    assert!(text.contains("declared for linux/amd64, and linux/arm64 is wanted"), "{text}");
    assert!(problem("typo").contains("not declared"));
    let mut bench = bench;
    bench.binaries.insert(ARM, Hash::of(b"x"));
    bench.lock.bases.get_mut(BASE).unwrap().remove(&ARM);
    let text = whats(bench.with(|inputs| image_for(inputs, "agent", ARM)).unwrap_err());
    assert!(text.contains("for linux/arm64 is not in fleet.lock"), "{text}");
}

/// An `npm` layer on top of a tree, with one package that may run its script.
fn scripted(allow: &str, below: u64) -> Result<PlannedImage, String> {
    let allow = if allow.is_empty() { String::new() } else { format!("; allow-scripts \"{allow}\"") };
    let image = format!(
        "image \"homeserver\" {{ base \"{BASE}\"; tree \"site\" to=\"/srv\"; npm to=\"/opt/x\" {{ package \"app\" \"1.0.0\"{allow} }} }}"
    );
    let mut bench = Bench::new(&image, "").site([("a".to_owned(), Some(below))]);
    let pin = |name: &str, scripts: bool| NpmPin {
        path: format!("node_modules/{name}"),
        name: name.to_owned(),
        version: "1.0.0".to_owned(),
        has_install_script: scripts,
        ..NpmPin::default()
    };
    let entry = NpmLock {
        request: BTreeMap::from([("app".to_owned(), "1.0.0".to_owned())]),
        unpack: BTreeMap::new(),
        packages: vec![pin("app", false), pin("native", true)],
    };
    bench.lock.npm.entry("homeserver".into()).or_default().insert("/opt/x".into(), entry);
    let made = bench.with(images).map_err(whats)?;
    Ok(made["homeserver"].clone())
}

fn npm(image: &PlannedImage) -> &Derivation {
    image.derivations.iter().find(|made| made.address.to_string().contains("npm")).unwrap()
}

#[test]
fn scripts_make_a_layer_depend_on_what_they_run_on_and_only_then() {
    let hash = |allow: &str, below| npm(&scripted(allow, below).unwrap()).hash();
    assert_eq!(hash("", 1), hash("", 2));
    assert_ne!(hash("native", 1), hash("", 1));
    assert_ne!(hash("native", 1), hash("native", 2));
    let image = scripted("native", 1).unwrap();
    let recipe = image.spec.recipe.layers.last().unwrap();
    assert!(matches!(recipe, LayerRecipe::Npm { allow_scripts, .. } if *allow_scripts == ["native"]));
}

#[test]
fn allowing_a_script_that_there_is_not_is_a_mistake() {
    assert!(scripted("app", 1).unwrap_err().contains("app, which has no install script"));
    assert!(scripted("typo", 1).unwrap_err().contains("typo, which is not among the packages"));
}

#[test]
fn the_node_of_an_image_below_is_held_against_what_packages_and_plugins_need() {
    let problem = |package: &str, plugin: &str| {
        let image = format!(
            "image \"below\" {{ base \"{BASE}\"; node \"18.20.0\" }}\nimage \"between\" {{ base image=\"below\" }}\n\
             image \"homeserver\" {{ base image=\"between\"; npm to=\"/opt/x\" {{ package \"app\" \"1.0.0\"; unpack \"plug\" \"2.0.0\" at=\"plugins/plug\" }} }}"
        );
        let mut bench = Bench::new(&image, "");
        let node = NodeLock { version: "18.20.0".to_owned(), platforms: BTreeMap::from([(AMD, NpmPin::default())]) };
        bench.lock.node.insert("below".into(), node);
        let pin = |path: &str, (name, version): (&str, &str), range: &str| NpmPin {
            path: path.to_owned(),
            name: name.to_owned(),
            version: version.to_owned(),
            engines: BTreeMap::from([("node".to_owned(), range.to_owned())]),
            ..NpmPin::default()
        };
        let entry = NpmLock {
            request: BTreeMap::from([("app".to_owned(), "1.0.0".to_owned())]),
            unpack: BTreeMap::from([(
                "plug".to_owned(),
                Unpack { version: "2.0.0".to_owned(), at: "plugins/plug".to_owned() },
            )]),
            packages: vec![
                pin("node_modules/app", ("app", "1.0.0"), package),
                pin("plugins/plug", ("plug", "2.0.0"), plugin),
            ],
        };
        bench.lock.npm.entry("homeserver".into()).or_default().insert("/opt/x".into(), entry);
        bench.with(images).map(drop).map_err(whats)
    };
    assert_eq!(problem(">=18", "^18"), Ok(()));
    assert!(problem(">=20", "^18").unwrap_err().contains("needs Node >=20, the image has 18.20.0"));
    assert!(problem(">=18", ">=20").unwrap_err().contains("plug"));
}
