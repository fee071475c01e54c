//! [`absent`]: what a whole `lock` drops from `fleet.lock` before it asks anybody for anything.

use std::collections::BTreeMap;

use fleet_model::{
    SourceFile, SourceTree,
    model::{BaseRef, Image, Layer, Recipe},
};
use fleet_oci::{Lock, Platform};

/// Drops what no declared image asks for any more: images, their sections, folders in them, platforms, and bases.
///
/// An image that declares no platforms is for those of whoever locks it, so it keeps all that it has. A base that a
/// containerfile mentions anywhere is kept.
pub fn absent(lock: &mut Lock, images: &BTreeMap<String, Image>, sources: &SourceTree) {
    lock.bases.retain(|reference, pins| {
        let users: Vec<&Image> = images.values().filter(|image| stands_on(image, reference, sources)).collect();
        pins.retain(|platform, _| users.iter().any(|image| is_for(image, *platform)));
        !pins.is_empty()
    });
    lock.debian.retain(|name, arches| {
        let image = images.get(name).filter(|image| has(image, |layer| matches!(layer, Layer::Debian { .. })));
        let platform = |architecture: &String| Platform::from_architecture(architecture);
        arches.retain(|arch, _| {
            image.is_some_and(|image| platform(arch).is_some_and(|platform| is_for(image, platform)))
        });
        !arches.is_empty()
    });
    lock.node.retain(|name, _| {
        images.get(name).is_some_and(|image| has(image, |layer| matches!(layer, Layer::Node { .. })))
    });
    lock.npm.retain(|name, folders| {
        let asked = |folder: &String| {
            images
                .get(name)
                .is_some_and(|image| has(image, |layer| matches!(layer, Layer::Npm { to, .. } if to == folder)))
        };
        folders.retain(|folder, _| asked(folder));
        !folders.is_empty()
    });
    lock.pip.retain(|name, folders| {
        folders.retain(|folder, platforms| {
            let image = images
                .get(name)
                .filter(|image| has(image, |layer| matches!(layer, Layer::Pip { to, .. } if to == folder)));
            platforms.retain(|platform, _| image.is_some_and(|image| is_for(image, *platform)));
            !platforms.is_empty()
        });
        !folders.is_empty()
    });
}

fn stands_on(image: &Image, reference: &str, sources: &SourceTree) -> bool {
    match &image.recipe {
        Recipe::Layers(recipe) => recipe
            .base
            .as_ref()
            .is_some_and(|base| matches!(&base.value, BaseRef::Reference(declared) if declared == reference)),
        Recipe::Containerfile(recipe) => {
            let text = sources.file(&recipe.file).and_then(SourceFile::text);
            // One that cannot be read is reported elsewhere; nothing is known of its bases.
            text.is_none_or(|text| text.contains(reference))
                || recipe.args.values().any(|value| value.contains(reference))
        }
    }
}

fn has(image: &Image, wanted: impl Fn(&Layer) -> bool) -> bool {
    match &image.recipe {
        Recipe::Layers(recipe) => recipe.layers.iter().any(|layer| wanted(&layer.value)),
        Recipe::Containerfile(_) => false,
    }
}

fn is_for(image: &Image, platform: Platform) -> bool {
    image.platforms.is_empty() || super::platforms(image).contains(&platform)
}

#[cfg(test)]
mod tests {
    use fleet_model::{
        Declared, Looked, Origin, RelPath,
        model::{ContainerfileRecipe, LayeredRecipe},
    };
    use serde_json::json;

    use super::*;

    fn image(name: &str, platforms: &[&str], recipe: Recipe) -> (String, Image) {
        let origin = Origin { file: RelPath::new("fleet.kdl").expect("a path"), line: 1 };
        let platforms = platforms.iter().map(|one| (*one).to_owned()).collect();
        (name.to_owned(), Image { name: name.to_owned(), platforms, recipe, checks: Vec::new(), origin })
    }

    fn layered(base: Option<&str>, layers: Vec<Layer>) -> Recipe {
        let base = base.map(|base| Declared::built_in(BaseRef::Reference(base.to_owned())));
        let layers = layers.into_iter().map(Declared::built_in).collect();
        Recipe::Layers(LayeredRecipe { base, layers, ..LayeredRecipe::default() })
    }

    #[test]
    fn only_what_images_still_ask_for_stays() {
        let debian = || Layer::Debian { suite: "bookworm".to_owned(), packages: ["dash".to_owned()].into() };
        let npm = Layer::Npm {
            to: "/opt/now".to_owned(),
            packages: BTreeMap::new(),
            unpack: BTreeMap::new(),
            omit: [].into(),
            allow_scripts: [].into(),
        };
        let file = RelPath::new("tools/Containerfile").expect("a path");
        let containerfile = ContainerfileRecipe {
            file: file.clone(),
            context: RelPath::new("tools").expect("a path"),
            args: BTreeMap::new(),
            base_image: None,
        };
        let mut sources = SourceTree::default();
        sources.insert(file, Looked::File(SourceFile::new(b"FROM docker.io/library/mentioned:1\n".as_slice(), false)));
        let images = BTreeMap::from([
            image("one", &["linux/amd64"], layered(None, vec![debian(), npm])),
            image("any", &[], layered(None, vec![debian()])),
            image("based", &["linux/amd64"], layered(Some("docker.io/library/now:1"), Vec::new())),
            image("built", &[], Recipe::Containerfile(containerfile)),
        ]);
        let deb = json!({"suite": "bookworm", "request": ["dash"], "release_date": "", "packages": []});
        let npm = json!({"request": {}, "packages": []});
        let pip = json!({"python": "3.11", "glibc": "2.36", "request": [], "packages": []});
        let pin = json!({"digest": format!("sha256:{}", "0".repeat(64))});
        let both = |pins: &serde_json::Value| json!({"linux/amd64": pins, "linux/arm64": pins});
        let before = json!({
            "schema": 1,
            "bases": {
                "docker.io/library/now:1": both(&pin), "docker.io/library/then:1": both(&pin),
                "docker.io/library/mentioned:1": both(&pin),
            },
            "debian": {
                "one": {"amd64": deb, "arm64": deb}, "any": {"amd64": deb, "arm64": deb}, "based": {"amd64": deb},
                "gone": {"amd64": deb},
            },
            "node": {"one": {"version": "24.1.0", "platforms": {}}},
            "npm": {"one": {"/opt/now": npm, "/opt/then": npm}, "any": {"/opt/then": npm}},
            "pip": {"one": {"/opt/then": both(&pip)}},
        });
        let after = json!({
            "schema": 1,
            "bases": {"docker.io/library/now:1": {"linux/amd64": pin}, "docker.io/library/mentioned:1": both(&pin)},
            "debian": {"one": {"amd64": deb}, "any": {"amd64": deb, "arm64": deb}},
            "npm": {"one": {"/opt/now": npm}},
        });
        let mut lock = Lock::parse(&before.to_string()).expect("a lock");
        absent(&mut lock, &images, &sources);
        assert_eq!(lock, Lock::parse(&after.to_string()).expect("a lock"));
    }
}
