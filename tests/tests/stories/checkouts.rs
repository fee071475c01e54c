//! Two checkouts of one project: other folders, times, umasks, orders of creation, numbers of threads; the same bytes.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use anyhow::{Result, anyhow};
use fleet_graph::{Inputs, image::images};
use fleet_model::{RelPath, SourceTree, check, resolve, wanted};
use fleet_oci::{LayerDescriptor, Lock, Platform};
use fleet_packages::{FolderCache, Workshop, realize_layer};
use fleet_store::{Project, StatCache};

const KDL: &str = r#"fleet "tiny" domain="tiny.test"
images {
    image "homeserver" {
        tree "site" to="/srv/site"
        copy "app" to="/srv/app"
        copy "app/motd" to="/etc/motd" render=#true
        entrypoint "/srv/app/run"
    }
}
environment "local" { target "docker" }
"#;

struct Checkout {
    umask: u32,
    backwards: bool,
    age: Duration,
    threads: usize,
}

impl Checkout {
    fn write(&self, root: &Path) -> Result<()> {
        let large: Vec<u8> = (0..5_000_000_u32).map(|n| (n / 3) as u8).collect();
        let mut files: Vec<(String, Vec<u8>)> =
            (0..200).map(|n| (format!("site/d{}/ä {n}", n % 7), vec![n; 900])).collect();
        files.extend((0..9).map(|n| (format!("site/media/{n}"), large[n..].to_vec())));
        files.push(("app/run".into(), b"#!/bin/sh\n".to_vec()));
        files.push(("app/motd".into(), b"{{ fleet.name }}\n".to_vec()));
        files.push(("app/empty".into(), Vec::new()));
        files.push(("fleet.kdl".into(), KDL.as_bytes().to_vec()));
        if self.backwards {
            files.reverse();
        }
        for (name, bytes) in &files {
            let path = root.join(name);
            fs::create_dir_all(path.parent().ok_or_else(|| anyhow!("a parent"))?)?;
            fs::write(&path, bytes)?;
            let mode = if name == "app/run" { 0o777 } else { 0o666 };
            fs::set_permissions(&path, fs::Permissions::from_mode(mode & !self.umask))?;
            fs::File::options()
                .write(true)
                .open(&path)
                .or_else(|_| fs::File::open(&path))?
                .set_modified(SystemTime::now() - self.age)?;
        }
        fs::create_dir_all(root.join("site/nothing/here"))?;
        fs::create_dir_all(root.join("templates"))?;
        symlink("../d1", root.join("site/d2/link"))?;
        for folder in ["site", "site/d1", "site/nothing", "app"] {
            fs::set_permissions(root.join(folder), fs::Permissions::from_mode(0o777 & !self.umask))?;
        }
        Ok(())
    }

    /// The layers of its image, bottom to top.
    fn layers(&self, root: &Path) -> Result<Vec<LayerDescriptor>> {
        let project = Project::open(root, StatCache::none())?;
        let (kdl, mut tree) = (RelPath::new("fleet.kdl")?, SourceTree::default());
        loop {
            let missing = wanted(&kdl, &tree);
            if missing.is_empty() {
                break;
            }
            project.load(&missing.contents, &mut tree);
            project.load_listings(&missing.listings, &mut tree);
        }
        let checked = check(&kdl, &tree);
        let model = checked.model.ok_or_else(|| anyhow!("{:?}", checked.diagnostics))?;
        let resolved = resolve(&model, "local")?;
        let made = images(&Inputs {
            model: &model,
            environment: &model.environments["local"],
            resolved: &resolved,
            sources: &tree,
            lock: &Lock::default(),
            platform: Platform::LinuxAmd64,
            agent_binaries: &BTreeMap::new(),
            fleetctl_binaries: &BTreeMap::new(),
            source_date_epoch: None,
            outputs: &BTreeMap::new(),
        });
        let made = made.map_err(|problems| anyhow!("{problems:?}"))?;
        let recipe = &made["homeserver"].spec.recipe;
        let blobs = tempfile::tempdir()?;
        let mut workshop = Workshop::new(Arc::new(FolderCache::new(blobs.path())), Arc::new(|_| {}));
        workshop.project = Some(root.to_owned());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let layers = recipe.layers.iter().map(|layer| {
            Ok(runtime.block_on(realize_layer(&workshop, "homeserver", layer, recipe.packing()))?.descriptor)
        });
        layers.collect()
    }

    fn made(&self) -> Result<Vec<LayerDescriptor>> {
        let root = tempfile::tempdir()?;
        self.write(root.path())?;
        let pool = rayon::ThreadPoolBuilder::new().num_threads(self.threads).build()?;
        pool.install(|| self.layers(root.path()))
    }
}

#[test]
fn two_checkouts_give_the_same_layers_whatever_their_place_times_umask_and_order() -> Result<()> {
    let one = Checkout { umask: 0o022, backwards: false, age: Duration::ZERO, threads: 2 };
    let other = Checkout { umask: 0o077, backwards: true, age: Duration::from_secs(86_400 * 400), threads: 1 };
    let layers = one.made()?;
    assert!(layers.len() > 3, "45 MB are several layers: {layers:?}");
    assert_eq!(layers, other.made()?);
    Ok(())
}
