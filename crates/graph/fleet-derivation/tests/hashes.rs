//! What a hash of a derivation depends on, and what it is: properties, and a golden file.

use std::{collections::BTreeMap, fs, path::Path};

use fleet_derivation::{Derivation, DerivationGraph, Hash, Input, encoding};
use fleet_model::{Address, Kind, Origin, RelPath};
use proptest::prelude::*;

type Any = Result<(), Box<dyn std::error::Error>>;

/// Few letters, among them those that an encoding without lengths would mix up, so that near misses are frequent.
fn text() -> impl Strategy<Value = String> {
    prop::collection::vec(prop::sample::select(vec!["a", "b", "\0", "\u{1}", "\u{2}", "\u{3}", "/", ":"]), 0..4)
        .prop_map(|letters| letters.concat())
}

fn address() -> impl Strategy<Value = Address> {
    (prop::sample::select(Kind::ALL.to_vec()), "[ab]{1,2}").prop_map(|(kind, name)| Address::new(kind, name))
}

fn hash() -> impl Strategy<Value = Hash> {
    (0_u8..3).prop_map(|n| Hash::of(&[n]))
}

fn path() -> impl Strategy<Value = RelPath> {
    "[ab](/[ab])?".prop_filter_map("a path", |text| RelPath::new(&text).ok())
}

fn input() -> impl Strategy<Value = Input> {
    prop_oneof![
        text().prop_map(|text| Input::Value { text }),
        (path(), hash(), any::<bool>()).prop_map(|(path, hash, executable)| Input::File { path, hash, executable }),
        (address(), hash(), prop::option::of(text())).prop_map(|(address, hash, output)| Input::Derivation {
            address,
            hash,
            output
        }),
        (text(), 0_u32..3).prop_map(|(name, epoch)| Input::Secret { name, epoch }),
    ]
}

fn derivation() -> impl Strategy<Value = Derivation> {
    (address(), prop::collection::btree_map(text(), input(), 0..4)).prop_map(|(address, inputs)| {
        let mut derivation = Derivation::new(address);
        derivation.inputs = inputs;
        derivation
    })
}

/// What a hash may depend on: everything but origins, and the hash of an input whose output is known.
fn meaning(derivation: &Derivation) -> (Address, BTreeMap<String, Input>) {
    let mut inputs = derivation.inputs.clone();
    for input in inputs.values_mut() {
        if let Input::Derivation { hash, output: Some(_), .. } = input {
            *hash = Hash::of(b"");
        }
    }
    (derivation.address.clone(), inputs)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn two_derivations_share_a_hash_only_when_they_mean_the_same(one in derivation(), two in derivation()) {
        prop_assert_eq!(one.hash() == two.hash(), meaning(&one) == meaning(&two), "{:?}\n{:?}", one, two);
    }

    #[test]
    fn text_that_moves_between_a_name_and_its_value_changes_the_hash(all in "[ab\u{1}\u{2}\u{3}]{2,8}", cut in 0_usize..8, other in 0_usize..8) {
        let at = |cut: usize| {
            let (name, value) = all.split_at(cut.min(all.len()));
            let mut derivation = Derivation::new(Address::new(Kind::Agent, "ada"));
            derivation.value(name, value, None);
            derivation.hash()
        };
        prop_assert_eq!(at(cut) == at(other), cut.min(all.len()) == other.min(all.len()));
    }

    #[test]
    fn the_order_in_which_inputs_are_added_is_irrelevant(
        (inputs, shuffled) in prop::collection::btree_map(text(), input(), 0..6).prop_flat_map(|inputs| {
            let listed: Vec<_> = inputs.clone().into_iter().collect();
            (Just(inputs), Just(listed).prop_shuffle())
        })
    ) {
        let build = |inputs: Vec<(String, Input)>| {
            let mut derivation = Derivation::new(Address::new(Kind::Agent, "ada"));
            for (name, input) in inputs {
                derivation.input(name, input, None);
            }
            derivation.hash()
        };
        prop_assert_eq!(build(inputs.into_iter().collect()), build(shuffled));
    }

    #[test]
    fn where_an_input_is_declared_is_irrelevant(plain in derivation(), line in 1_u32..1000, file in path()) {
        let mut declared = plain.clone();
        declared.origins = plain.inputs.keys().map(|n| (n.clone(), Origin { file: file.clone(), line })).collect();
        prop_assert_eq!(plain.hash(), declared.hash());
    }

    #[test]
    fn a_known_output_cuts_off_what_is_behind_it(address in address(), one in hash(), two in hash(), output in text()) {
        let of = |hash: Hash, output: Option<&str>| {
            let mut derivation = Derivation::new(Address::new(Kind::Agent, "ada"));
            let input = Input::Derivation { address: address.clone(), hash, output: output.map(str::to_owned) };
            derivation.input("image", input, None);
            derivation
        };
        prop_assert_eq!(of(one, Some(&output)).hash(), of(two, Some(&output)).hash());
        prop_assert_eq!(of(one, None).hash() == of(two, None).hash(), one == two);
        prop_assert_ne!(of(one, None).hash(), of(one, Some(&output)).hash());
        let filled = of(one, None).with_outputs(&BTreeMap::from([(one, output.clone())]));
        prop_assert_eq!(filled.hash(), of(two, Some(&output)).hash());
    }

    #[test]
    fn json_and_back_is_the_same_derivation(derivation in derivation()) {
        let text = serde_json::to_string(&derivation).map_err(|e| TestCaseError::fail(e.to_string()))?;
        let back: Derivation = serde_json::from_str(&text).map_err(|e| TestCaseError::fail(e.to_string()))?;
        prop_assert_eq!(back.hash(), derivation.hash());
        prop_assert_eq!(back, derivation);
    }
}

/// The encoding written out by hand, so that the golden file is not the only witness.
#[test]
fn the_encoding_is_as_it_is_documented() -> Any {
    let mut derivation = Derivation::new(Address::new(Kind::Agent, "ada"));
    derivation.value("model", "small", None);
    derivation.input("a-secret", Input::Secret { name: "fleet".to_owned(), epoch: 2 }, None);
    let field = |tag: u8, bytes: &[u8]| {
        let mut field = vec![tag];
        field.extend((bytes.len() as u64).to_le_bytes());
        field.extend(bytes);
        field
    };
    let expected = [
        field(1, b"agent/ada"),
        field(2, b"a-secret"),
        field(7, b"fleet"),
        field(7, &[2, 0, 0, 0]),
        field(2, b"model"),
        field(3, b"small"),
    ]
    .concat();
    assert_eq!(encoding::VERSION, "fleetctl derivation 1");
    assert_eq!(derivation.hash(), Hash::from_bytes(blake3::derive_key("fleetctl derivation 1", &expected)));
    Ok(())
}

/// A small fleet with every kind of input and of address.
fn fixed_fleet() -> Result<DerivationGraph, Box<dyn std::error::Error>> {
    let mut graph = DerivationGraph::default();
    let mut source = Derivation::new(Address::new(Kind::Source, "images/agent"));
    for (path, text, executable) in [("images/agent/start.sh", "#!/bin/sh\n", true), ("images/agent/motd", "", false)] {
        let file = Input::File { path: RelPath::new(path)?, hash: Hash::of(text.as_bytes()), executable };
        source.input(format!("file.{path}"), file, None);
    }
    let mut base = Derivation::new(Address::new(Kind::Base, "debian"));
    base.value("digest", format!("sha256:{}", "0".repeat(64)), None);
    base.value("platform", "linux/amd64", None);
    let mut layer = Derivation::new(Address::new(Kind::Layer, "agent/0"));
    layer.input("source", reference(&source, None), None);
    let mut image = Derivation::new(Address::new(Kind::Image, "agent"));
    image.input("base", reference(&base, Some("sha256:base")), None);
    image.input("layer.0", reference(&layer, None), None);
    image.value("env.NODE_ENV", "production", None);
    image.value("env.EMPTY", "", None);
    let mut workspace = Derivation::new(Address::new(Kind::Workspace, "zoë.o'hara"));
    workspace.value("IDENTITY.md", "# Zoë\n", None);
    let mut agent = Derivation::new(Address::new(Kind::Agent, "zoë.o'hara"));
    agent.input("image", reference(&image, Some("sha256:image")), None);
    agent.input("workspace", reference(&workspace, None), None);
    agent.input("secret.password", Input::Secret { name: "fleet".to_owned(), epoch: 0 }, None);
    agent.input("secret.bedrock", Input::Secret { name: "bedrock".to_owned(), epoch: 7 }, None);
    agent.value("model", "bedrock/claude", None);
    let rest = Kind::ALL.map(|kind| Derivation::new(Address::new(kind, "empty")));
    for derivation in [source, base, layer, image, workspace, agent].into_iter().chain(rest) {
        graph.insert(derivation);
    }
    Ok(graph)
}

fn reference(to: &Derivation, output: Option<&str>) -> Input {
    Input::Derivation { address: to.address.clone(), hash: to.hash(), output: output.map(str::to_owned) }
}

#[test]
fn the_hashes_of_a_fixed_fleet_are_those_of_the_golden_file() -> Any {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/hashes.txt");
    let graph = fixed_fleet()?;
    let mut actual = format!("# {}\n", encoding::VERSION);
    for derivation in graph.iter() {
        actual.push_str(&format!("{} {}\n", derivation.hash(), derivation.address));
    }
    actual.push_str(&format!("{} the graph\n", graph.hash()));
    if std::env::var_os("FLEET_REGENERATE_GOLDEN").is_some() {
        fs::write(&path, &actual)?;
    }
    let golden = fs::read_to_string(&path)?;
    let changed: Vec<&str> = actual.lines().filter(|line| !golden.lines().any(|known| known == *line)).collect();
    assert!(
        golden == actual,
        "the hashes of a fixed fleet changed: every agent of every fleet rolls once after an upgrade.\n\
         If nobody meant that, mend the encoding. If it is meant, it is an announced break: raise `encoding::VERSION`,\n\
         write it into CHANGELOG.md, and regenerate the file with\n\
         FLEET_REGENERATE_GOLDEN=1 cargo test --release -p fleet-derivation --test hashes\n\
         Lines that are new:\n{}",
        changed.join("\n")
    );
    Ok(())
}
