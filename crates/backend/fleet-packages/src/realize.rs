//! [`realize_layer`]: from a recipe to a layer in the blob store.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use fleet_oci::{
    Compression, Content, Digest, LayerDescriptor, LayerRecipe, Meta, Node, Tree, TreeError,
    deb::{DebError, read_deb},
    digest::DigestError,
    layer::write_layer,
    lock::{DebPin, NpmPin, PipPin},
    read_tar::ReadTarError,
    recipe::{FileEntry, FileWhat, User},
    rootfs::{RootFs, RootFsError},
    wheel::{self, WheelError},
};
use rayon::prelude::*;

use crate::{
    cache::BlobCache,
    fetch::{Event, FetchError, Fetcher, Progress},
    npm,
    pinned::{Pinned as _, fetch_all},
    sources::Sources,
    spill::SpillSink,
};

/// Everything that making layers and resolving packages needs of the world.
#[derive(Clone)]
pub struct Workshop {
    /// Downloads, and the blob store.
    pub fetcher: Fetcher,
    /// The machine's mirrors.
    pub sources: Sources,
}

impl Workshop {
    /// A workshop with the machine's own mirrors.
    ///
    /// # Errors
    /// When the machine's TLS set-up cannot be used.
    pub fn new(cache: Arc<dyn BlobCache>, progress: Progress) -> Result<Self, FetchError> {
        Ok(Self { fetcher: Fetcher::new(cache, progress)?, sources: Sources::from_machine() })
    }
}

/// A layer whose blob is in the store under its digest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RealizedLayer {
    /// What manifests say of it.
    pub descriptor: LayerDescriptor,
    /// What a person should know of how it was made (scripts that were not run…), one line each.
    pub notes: Vec<String>,
}

/// Why a layer could not be made.
#[derive(Debug, thiserror::Error)]
pub enum RealizeError {
    /// A pinned package is nowhere.
    #[error("image {image}: {source}. If it is gone for good, pin another one: `fleetctl lock --only image/{image}`")]
    Fetch {
        /// Name in `fleet.kdl`.
        image: String,
        /// What was tried.
        #[source]
        source: FetchError,
    },
    /// A package cannot be taken apart, or packages contradict each other.
    #[error("image {image}: {name}: {source}")]
    Package {
        /// Name in `fleet.kdl`.
        image: String,
        /// Which package or file.
        name: String,
        /// What is wrong.
        #[source]
        source: PackError,
    },
    /// A base, another image or a Containerfile: somebody else has its layers.
    #[error("image {image}: a `{kind}` layer is not made from packages")]
    NotMadeHere {
        /// Name in `fleet.kdl`.
        image: String,
        /// [`LayerRecipe::kind`]
        kind: &'static str,
    },
}

/// What can be wrong with a package, a tree or the disk.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// A Debian package.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// Packages over one another.
    #[error(transparent)]
    RootFs(#[from] RootFsError),
    /// An npm tarball.
    #[error(transparent)]
    Tar(#[from] ReadTarError),
    /// A wheel.
    #[error(transparent)]
    Wheel(#[from] WheelError),
    /// A path.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A pin that is no hash.
    #[error(transparent)]
    Pin(#[from] DigestError),
    /// The disk.
    #[error("the blob store cannot be used: {0}")]
    Io(#[from] io::Error),
    /// A file of the recipe that nobody put into the store.
    #[error("the blob {0} is not in the store")]
    NoBlob(Digest),
    /// The node package has no `bin/node`.
    #[error("the package has no bin/node")]
    NoNode,
}

/// Which package or file, and what is wrong with it.
type Failure = (String, PackError);

/// Makes one layer and puts its blob into the store. `image` is only for messages.
///
/// # Errors
/// [`RealizeError`].
pub async fn realize_layer(
    workshop: &Workshop,
    image: &str,
    recipe: &LayerRecipe,
    compression: Compression,
) -> Result<RealizedLayer, RealizeError> {
    let archives = match recipe {
        LayerRecipe::Debian { packages, .. } => fetch_all(workshop, packages).await,
        LayerRecipe::Node { package, .. } => fetch_all(workshop, std::slice::from_ref(package)).await,
        LayerRecipe::Npm { packages, .. } => fetch_all(workshop, packages).await,
        LayerRecipe::Pip { packages, .. } => fetch_all(workshop, packages).await,
        LayerRecipe::Files { .. } => Ok(Vec::new()),
        LayerRecipe::Base { .. }
        | LayerRecipe::Image { .. }
        | LayerRecipe::FleetAgent { .. }
        | LayerRecipe::Containerfile { .. } => {
            return Err(RealizeError::NotMadeHere { image: image.to_owned(), kind: recipe.kind() });
        }
    };
    let archives = archives.map_err(|source| RealizeError::Fetch { image: image.to_owned(), source })?;
    workshop.fetcher.report(Event::Packing { name: format!("{image}: {}", recipe.kind()) });
    let job = Job { cache: workshop.fetcher.cache().clone(), recipe: recipe.clone(), archives, compression };
    let made = tokio::task::spawn_blocking(move || job.run()).await;
    let made = made.unwrap_or_else(|stopped| Err(("packing".to_owned(), io::Error::other(stopped).into())));
    made.map_err(|(name, source)| RealizeError::Package { image: image.to_owned(), name, source })
}

/// The part that computes: archives are on disk, nothing is awaited.
struct Job {
    cache: Arc<dyn BlobCache>,
    recipe: LayerRecipe,
    archives: Vec<PathBuf>,
    compression: Compression,
}

impl Job {
    fn run(&self) -> Result<RealizedLayer, Failure> {
        let whole = |error: io::Error| (self.recipe.kind().to_owned(), PackError::from(error));
        let sink = SpillSink::new(self.cache.scratch().map_err(whole)?.into_file());
        let (tree, notes) = self.tree(&sink)?;
        let out = io::BufWriter::new(self.cache.scratch().map_err(whole)?);
        let (out, descriptor) = write_layer(&tree, self.compression, out).map_err(whole)?;
        let file = out.into_inner().map_err(|failed| whole(failed.into_error()))?;
        self.cache.put(&descriptor.digest, file).map_err(whole)?;
        Ok(RealizedLayer { descriptor, notes })
    }

    fn tree(&self, sink: &SpillSink) -> Result<(Tree, Vec<String>), Failure> {
        match &self.recipe {
            LayerRecipe::Debian { packages, users, .. } => self.debian(packages, users, sink),
            LayerRecipe::Node { to, package } => self.node(to, package, sink).map(|tree| (tree, Vec::new())),
            LayerRecipe::Npm { to, request, packages, omit } => {
                let links = fleet_oci::npm::links(to, request, packages).map_err(|error| (to.clone(), error.into()))?;
                let mut tree = self.npm(to, packages, links, sink)?;
                let mut notes = npm::notes(packages);
                for path in omit.iter().filter(|path| !tree.prune(&format!("{}/{path}", to.trim_matches('/')))) {
                    notes.push(format!("omit {path:?}: there is no such file in {to}"));
                }
                Ok((tree, notes))
            }
            LayerRecipe::Pip { to, python, packages } => {
                self.pip(to, python, packages, sink).map(|tree| (tree, Vec::new()))
            }
            LayerRecipe::Files { entries } => self.files(entries).map(|tree| (tree, Vec::new())),
            LayerRecipe::Base { .. }
        | LayerRecipe::Image { .. }
        | LayerRecipe::FleetAgent { .. }
        | LayerRecipe::Containerfile { .. } => {
                Ok((Tree::new(), Vec::new()))
            }
        }
    }

    /// Takes archives apart side by side; `pins` and archives are in the same order.
    fn unpacked<P: Sync, T: Send>(
        &self,
        pins: &[P],
        name: impl Fn(&P) -> String + Sync,
        unpack: impl Fn(&P, File) -> Result<T, PackError> + Sync,
    ) -> Result<Vec<T>, Failure> {
        let both = pins.par_iter().zip(&self.archives);
        both.map(|(pin, archive)| {
            let opened = File::open(archive).map_err(PackError::from);
            opened.and_then(|file| unpack(pin, file)).map_err(|error| (name(pin), error))
        })
        .collect()
    }

    fn debian(&self, pins: &[DebPin], users: &[User], sink: &SpillSink) -> Result<(Tree, Vec<String>), Failure> {
        let packages = self.unpacked(
            pins,
            DebPin::title,
            |_, file| Ok(read_deb(io::BufReader::new(file), &mut sink.clone())?),
        )?;
        let root = RootFs::from_packages(packages, users).map_err(|error| ("debian".to_owned(), error.into()))?;
        let note = |(package, scripts): (&String, &Vec<String>)| {
            format!("{package}: maintainer scripts not run: {}", scripts.join(", "))
        };
        let notes = root.skipped.iter().map(note).collect();
        Ok((root.tree, notes))
    }

    fn node(&self, to: &str, pin: &NpmPin, sink: &SpillSink) -> Result<Tree, Failure> {
        let trees = self.unpacked(std::slice::from_ref(pin), NpmPin::title, |_, file| {
            let tree = fleet_oci::npm::unpack_node(file, to, &mut sink.clone())?;
            if tree.is_empty() { Err(PackError::NoNode) } else { Ok(tree) }
        })?;
        Ok(trees.into_iter().next().unwrap_or_default())
    }

    fn npm(&self, to: &str, pins: &[NpmPin], links: Tree, sink: &SpillSink) -> Result<Tree, Failure> {
        let unpack = |pin: &NpmPin, file| Ok(fleet_oci::npm::unpack(file, to, pin, &mut sink.clone())?);
        let trees = self.unpacked(pins, NpmPin::title, unpack)?;
        overlaid(trees.into_iter().chain([links]), to)
    }

    fn pip(&self, to: &str, python: &str, pins: &[PipPin], sink: &SpillSink) -> Result<Tree, Failure> {
        let environment = wheel::environment(to, python).map_err(|error| (to.to_owned(), error.into()))?;
        let unpack = |_: &PipPin, file| Ok(wheel::unpack(file, to, python, &mut sink.clone())?);
        let trees = self.unpacked(pins, PipPin::title, unpack)?;
        overlaid([environment].into_iter().chain(trees), to)
    }

    fn files(&self, entries: &[FileEntry]) -> Result<Tree, Failure> {
        let mut tree = Tree::new();
        for entry in entries {
            let inserted = self.node_of(entry).and_then(|node| {
                tree.insert(entry.path.trim_start_matches('/'), node).map_err(PackError::from)
            });
            inserted.map_err(|error| (entry.path.clone(), error))?;
        }
        Ok(tree)
    }

    fn node_of(&self, entry: &FileEntry) -> Result<Node, PackError> {
        let meta = Meta { mode: entry.mode & 0o7777, uid: entry.uid, gid: entry.gid };
        Ok(match &entry.what {
            FileWhat::Dir => Node::Dir(meta),
            FileWhat::Symlink(target) => Node::Symlink(target.clone()),
            FileWhat::Inline(bytes) => Node::File(meta, Content::bytes(bytes.clone())),
            FileWhat::Blob { digest, size } => {
                let path = self.cache.get(digest).ok_or_else(|| PackError::NoBlob(digest.clone()))?;
                Node::File(meta, SpillSink::new(File::open(path)?).whole(*size))
            }
        })
    }
}

fn overlaid(trees: impl Iterator<Item = Tree>, to: &str) -> Result<Tree, Failure> {
    let mut whole = Tree::new();
    for tree in trees {
        whole.overlay(tree).map_err(|error| (to.to_owned(), error.into()))?;
    }
    Ok(whole)
}
