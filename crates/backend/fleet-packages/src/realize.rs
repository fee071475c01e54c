//! [`realize_layer`]: from a recipe to a layer in the blob store.

use std::{fs::File, io, path::PathBuf, sync::Arc};

use fleet_oci::{
    Content, Digest, LayerDescriptor, LayerRecipe, Meta, Node, Packing, Tree, TreeError,
    deb::{DebError, read_deb},
    digest::DigestError,
    layer::write_layer,
    lock::{DebPin, NpmPin, PipPin},
    read_tar::ReadTarError,
    recipe::{FileEntry, FileWhat, NpmLinks, User},
    rootfs::{RootFs, RootFsError},
    unpack::UnpackError,
    wheel::{self, WheelError},
};
use rayon::prelude::*;

use crate::{
    cache::BlobCache,
    fetch::{Event, FetchError, Fetcher, Progress, Wanted},
    npm,
    pinned::{Pinned as _, fetch_all},
    source_file::{Changed, SourceFile},
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
    /// The project's folder, for recipes that name its files.
    pub project: Option<PathBuf>,
}

/// No file that is fetched may be larger: what is not checked before it is whole must not fill the disk.
const MAXIMUM_FETCHED: u64 = 16 << 30;

impl Workshop {
    /// A workshop with the machine's own mirrors, and without a project.
    #[must_use]
    pub fn new(cache: Arc<dyn BlobCache>, progress: Progress) -> Self {
        Self { fetcher: Fetcher::new(cache, progress), sources: Sources::from_machine(), project: None }
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
    /// A file that `fetch` names is not there, or is another one.
    #[error("image {image}: {source}. Name an address that has it in fleet.kdl, or the hash of what is there now")]
    Gone {
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
    /// An archive that was fetched.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
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
    #[error("it cannot be read, or the blob store not be written: {0}")]
    Io(#[from] io::Error),
    /// A file of the recipe that nobody put into the store.
    #[error("the blob {0} is not in the store")]
    NoBlob(Digest),
    /// A file of a project, and nobody said which project.
    #[error("it is a file of a project, and there is none")]
    NoProject,
    /// A file of the project that was edited meanwhile.
    #[error(transparent)]
    Changed(#[from] Changed),
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
    packing: impl Into<Packing>,
) -> Result<RealizedLayer, RealizeError> {
    let archives = match recipe {
        LayerRecipe::Debian { packages, .. } => fetch_all(workshop, packages).await,
        LayerRecipe::Node { package, .. } => fetch_all(workshop, std::slice::from_ref(package)).await,
        LayerRecipe::Npm { packages, .. } => fetch_all(workshop, packages).await,
        LayerRecipe::Pip { packages, .. } => fetch_all(workshop, packages).await,
        LayerRecipe::Fetch { url, sha256, .. } => fetched(workshop, url, sha256).await,
        LayerRecipe::Files { .. } => Ok(Vec::new()),
        LayerRecipe::Base { .. }
        | LayerRecipe::Image { .. }
        | LayerRecipe::FleetAgent { .. }
        | LayerRecipe::Fleetctl { .. }
        | LayerRecipe::Containerfile { .. } => {
            return Err(RealizeError::NotMadeHere { image: image.to_owned(), kind: recipe.kind() });
        }
    };
    let archives = archives.map_err(|source| match recipe {
        LayerRecipe::Fetch { .. } => RealizeError::Gone { image: image.to_owned(), source },
        _ => RealizeError::Fetch { image: image.to_owned(), source },
    })?;
    workshop.fetcher.report(Event::Packing { name: format!("{image}: {}", recipe.kind()) });
    let job = Job {
        cache: workshop.fetcher.cache().clone(),
        project: workshop.project.clone(),
        recipe: recipe.clone(),
        archives,
        packing: packing.into(),
    };
    let made = tokio::task::spawn_blocking(move || job.run()).await;
    let made = made.unwrap_or_else(|stopped| Err(("packing".to_owned(), io::Error::other(stopped).into())));
    made.map_err(|(name, source)| RealizeError::Package { image: image.to_owned(), name, source })
}

/// A file that is known by its hash: from the store, else from where it was said to be.
async fn fetched(workshop: &Workshop, url: &str, sha256: &Digest) -> Result<Vec<PathBuf>, FetchError> {
    let name = url.rsplit('/').next().unwrap_or(url).to_owned();
    let wanted = Wanted { name, digest: sha256.clone(), size: MAXIMUM_FETCHED, urls: vec![url.to_owned()] };
    if workshop.fetcher.cache().get(sha256).is_none() {
        workshop.fetcher.report(Event::Started { blobs: 1, bytes: 0 });
    }
    workshop.fetcher.blob(&wanted).await.map(|path| vec![path])
}

/// The part that computes: archives are on disk, nothing is awaited.
struct Job {
    cache: Arc<dyn BlobCache>,
    project: Option<PathBuf>,
    recipe: LayerRecipe,
    archives: Vec<PathBuf>,
    packing: Packing,
}

impl Job {
    fn run(&self) -> Result<RealizedLayer, Failure> {
        let whole = |error: io::Error| {
            let error = error.downcast::<Changed>().map_or_else(PackError::from, PackError::from);
            (self.recipe.kind().to_owned(), error)
        };
        let sink = SpillSink::new(self.cache.scratch().map_err(whole)?.into_file());
        let (tree, notes) = self.tree(&sink)?;
        let out = io::BufWriter::new(self.cache.scratch().map_err(whole)?);
        let (out, descriptor) = write_layer(&tree, self.packing, out).map_err(whole)?;
        let file = out.into_inner().map_err(|failed| whole(failed.into_error()))?;
        self.cache.put_made(&descriptor.digest, file).map_err(whole)?;
        Ok(RealizedLayer { descriptor, notes })
    }

    fn tree(&self, sink: &SpillSink) -> Result<(Tree, Vec<String>), Failure> {
        match &self.recipe {
            LayerRecipe::Debian { packages, users, .. } => self.debian(packages, users, sink),
            LayerRecipe::Node { to, package } => self.node(to, package, sink).map(|tree| (tree, Vec::new())),
            LayerRecipe::Npm { to, packages, omit, .. } => {
                let links = self.npm_links().map_err(|error| (to.clone(), error.into()))?;
                let mut tree = self.npm(to, packages, links, sink)?;
                let mut notes = npm::notes(packages);
                for path in omit.iter().filter(|path| !tree.prune(&format!("{}/{path}", to.trim_matches('/')))) {
                    notes.push(format!("omit {path:?}: there is no such file in {to}"));
                }
                Ok((tree, notes))
            }
            LayerRecipe::Pip { to, python, packages, environment, .. } => {
                self.pip((to, python, *environment), packages, sink).map(|tree| (tree, Vec::new()))
            }
            LayerRecipe::Fetch { url, to, executable, unpack, .. } => {
                let made = self.fetched(to, *executable, *unpack, sink);
                made.map(|tree| (tree, Vec::new())).map_err(|error| (url.clone(), error))
            }
            LayerRecipe::Files { entries } => self.files(entries).map(|tree| (tree, Vec::new())),
            LayerRecipe::Base { .. }
            | LayerRecipe::Image { .. }
            | LayerRecipe::FleetAgent { .. }
            | LayerRecipe::Fleetctl { .. }
            | LayerRecipe::Containerfile { .. } => Ok((Tree::new(), Vec::new())),
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
        let packages =
            self.unpacked(pins, DebPin::title, |_, file| Ok(read_deb(io::BufReader::new(file), &mut sink.clone())?))?;
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

    /// Links to commands, and the manifest, as far as they are in this layer.
    fn npm_links(&self) -> Result<Tree, TreeError> {
        let LayerRecipe::Npm { to, request, packages, links, .. } = &self.recipe else { return Ok(Tree::new()) };
        match links {
            NpmLinks::Own => {
                fleet_oci::npm::links(to, request, packages.iter().map(|pin| (pin.path.as_str(), &pin.bin)))
            }
            NpmLinks::Of(all) => {
                fleet_oci::npm::links(to, request, all.iter().map(|one| (one.path.as_str(), &one.bin)))
            }
            NpmLinks::Elsewhere => Ok(Tree::new()),
        }
    }

    fn npm(&self, to: &str, pins: &[NpmPin], links: Tree, sink: &SpillSink) -> Result<Tree, Failure> {
        let unpack = |pin: &NpmPin, file| Ok(fleet_oci::npm::unpack(file, to, pin, &mut sink.clone())?);
        let trees = self.unpacked(pins, NpmPin::title, unpack)?;
        overlaid(trees.into_iter().chain([links]), to)
    }

    fn pip(
        &self,
        (to, python, environment): (&str, &str, bool),
        pins: &[PipPin],
        sink: &SpillSink,
    ) -> Result<Tree, Failure> {
        let environment = if environment {
            wheel::environment(to, python).map_err(|error| (to.to_owned(), error.into()))?
        } else {
            Tree::new()
        };
        let unpack = |_: &PipPin, file| Ok(wheel::unpack(file, to, python, &mut sink.clone())?);
        let trees = self.unpacked(pins, PipPin::title, unpack)?;
        overlaid([environment].into_iter().chain(trees), to)
    }

    fn fetched(&self, to: &str, executable: bool, unpack: bool, sink: &SpillSink) -> Result<Tree, PackError> {
        let mut tree = Tree::new();
        for path in &self.archives {
            let file = File::open(path)?;
            if unpack {
                tree.overlay(fleet_oci::unpack::unpack(file, to, &mut sink.clone())?)?;
            } else {
                let size = file.metadata()?.len();
                let node = Node::File(Meta::from_x_bit(executable), SpillSink::new(file).whole(size));
                tree.insert(to.trim_start_matches('/'), node)?;
            }
        }
        Ok(tree)
    }

    fn files(&self, entries: &[FileEntry]) -> Result<Tree, Failure> {
        let mut tree = Tree::new();
        for entry in entries {
            let inserted = self
                .node_of(entry)
                .and_then(|node| tree.insert(entry.path.trim_start_matches('/'), node).map_err(PackError::from));
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
            FileWhat::Source { path, blake3, size } => {
                let project = self.project.as_ref().ok_or(PackError::NoProject)?;
                let source =
                    SourceFile { path: project.join(path), name: path.clone(), blake3: blake3.clone(), size: *size };
                Node::File(meta, Content::file(Arc::new(source), *size))
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
