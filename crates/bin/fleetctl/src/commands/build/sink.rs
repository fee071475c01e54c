//! [`Sink`]: where images go, and [`write`], which puts them there.

use std::{
    fs::Permissions,
    io::{self, BufWriter, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use fleet_apply::{Event, Events as _};
use fleet_oci::export::{self, Named};
use serde_json::{Value, json};

use super::{make::Made, registry};
use crate::{
    blobs::StoreCache,
    context::{Context, print_json, print_out},
    error::Failure,
    exit::Exit,
    pipeline::Prepared,
};

/// A place for images.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// The container engine of this machine.
    Engine,
    /// An OCI layout: a folder that may hold other images already.
    Oci(PathBuf),
    /// A file that `docker load` reads.
    DockerArchive(PathBuf),
    /// A registry, `host[:port][/prefix]`; without one, that of the environment.
    Registry(Option<String>),
}

impl FromStr for Sink {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            None if text == "engine" => Ok(Self::Engine),
            None if text == "registry" => Ok(Self::Registry(None)),
            Some(("registry", place)) if !place.trim_matches('/').is_empty() => {
                Ok(Self::Registry(Some(place.trim_matches('/').to_owned())))
            }
            Some(("oci", folder)) if !folder.is_empty() => Ok(Self::Oci(folder.into())),
            Some(("docker-archive", file)) if !file.is_empty() => Ok(Self::DockerArchive(file.into())),
            _ => Err("write engine, registry, registry:HOST/PREFIX, oci:DIR or docker-archive:FILE".to_owned()),
        }
    }
}

impl std::fmt::Display for Sink {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Engine => f.write_str("engine"),
            Self::Oci(folder) => write!(f, "oci:{}", folder.display()),
            Self::DockerArchive(file) => write!(f, "docker-archive:{}", file.display()),
            Self::Registry(None) => f.write_str("registry"),
            Self::Registry(Some(place)) => write!(f, "registry:{place}"),
        }
    }
}

/// Looks at a place before anything is made for it; what becomes of it meanwhile shows when it is written.
///
/// # Errors
/// A place that cannot be written, and why.
pub fn usable(prepared: &Prepared, sink: &Sink) -> Result<(), Failure> {
    let unwritable = || Failure::new(Exit::Failed, format!("{sink} cannot be written"));
    match sink {
        Sink::Engine | Sink::Registry(Some(_)) => Ok(()),
        Sink::Registry(None) => registry::declared(prepared).map(drop),
        Sink::Oci(folder) => fleet_registry::layout::usable(folder)
            .map_err(|error| Failure::caused(Exit::Failed, unwritable().message, &error)),
        Sink::DockerArchive(file) if file.is_dir() => {
            Err(unwritable().hint(format!("it is a folder; name a file, for instance {sink}/images.tar")))
        }
        Sink::DockerArchive(file) if !folder_of(file).is_dir() => {
            let folder = folder_of(file).display().to_string();
            Err(unwritable().hint(format!("there is no folder {folder}; make it first: mkdir -p {folder}")))
        }
        Sink::DockerArchive(_) => Ok(()),
    }
}

/// The folder that a file is or will be in.
fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Puts images there and says under which reference each can be had (`oci:out:agent`), in the order of `made`.
///
/// # Errors
/// A place that cannot be written; what was there before is still there.
pub async fn write(context: &Context, prepared: &Prepared, sink: &Sink, made: &[Made]) -> Result<Vec<String>, Failure> {
    context.console.emit(Event::Notice { text: format!("writing {sink}") });
    match sink {
        // Loaded before anything else, because its checks decide.
        Sink::Engine => Ok(made.iter().map(|one| format!("{}:{}", one.repository, one.tag)).collect()),
        Sink::Oci(folder) => {
            let items = futures::future::join_all(made.iter().map(Made::item)).await;
            let (folder, store) = (folder.clone(), Arc::clone(&prepared.opened.store));
            let written = move || fleet_registry::layout::write(&folder, &items, &store);
            blocking(sink, written).await?;
            Ok(made.iter().map(|one| format!("{sink}:{}", one.name)).collect())
        }
        Sink::Registry(place) => registry::push(context, prepared, place.as_deref(), made).await,
        Sink::DockerArchive(file) => {
            let names: Vec<[String; 1]> = made.iter().map(|one| [format!("{}:{}", one.repository, one.tag)]).collect();
            let images = made.iter().filter_map(|one| Some(&one.platforms.values().next()?.image));
            let named: Vec<Named<'_>> = images.zip(&names).map(|(image, names)| Named { image, names }).collect();
            let export = export::plan(&named, &std::collections::BTreeSet::new());
            let cache = StoreCache(Arc::clone(&prepared.opened.store));
            let file = file.clone();
            blocking(sink, move || archive(&file, &cache, &export)).await?;
            Ok(names.into_iter().map(|[name]| name).collect())
        }
    }
}

async fn blocking<E: std::error::Error + Send + 'static>(
    sink: &Sink,
    work: impl FnOnce() -> Result<(), E> + Send + 'static,
) -> Result<(), Failure> {
    let unwritten =
        |error: &dyn std::error::Error| Failure::caused(Exit::Failed, format!("{sink} cannot be written"), error);
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| unwritten(&error)),
        Err(stopped) => Err(unwritten(&stopped)),
    }
}

/// Writes the archive beside its place and renames it.
fn archive(file: &Path, cache: &StoreCache, export: &export::Export) -> io::Result<()> {
    let folder = folder_of(file);
    let mut out = BufWriter::new(tempfile::Builder::new().prefix(".archive-").tempfile_in(folder)?);
    fleet_packages::write_archive(cache, export, &mut out)?;
    out.flush()?;
    let written = out.into_inner().map_err(io::IntoInnerError::into_error)?;
    written.as_file().set_permissions(Permissions::from_mode(0o644))?;
    written.as_file().sync_all()?;
    written.persist(file).map_err(|failed| failed.error)?;
    std::fs::File::open(folder)?.sync_all()
}

/// Says what was made: a line `repository@digest` for each image, or JSON. `references` are those of each sink.
pub async fn tell(context: &Context, made: &[Made], sinks: &[&Sink], references: &[Vec<String>]) {
    if context.json() {
        let mut images = Vec::new();
        for (at, one) in made.iter().enumerate() {
            images.push(described(one, at, sinks, references).await);
        }
        print_json(&json!({"schema": fleet_plan::SCHEMA, "images": images}));
        return;
    }
    let width = made.iter().map(|one| one.repository.len()).max().unwrap_or(0);
    for one in made {
        let once = one.once();
        let remark = if once.is_reproducible() {
            String::new()
        } else {
            format!("{:pad$}  not reproducible: {}", "", once.words(), pad = width - one.repository.len())
        };
        print_out(&format!("{}@{}{remark}\n", one.repository, one.digest()));
    }
}

async fn described(one: &Made, at: usize, sinks: &[&Sink], references: &[Vec<String>]) -> Value {
    let statements = one.statements().await;
    let about = |digest: &fleet_oci::Digest| {
        let about = statements.iter().filter(|statement| statement.subject.digest == *digest);
        about.map(|statement| statement.digest.to_string()).collect::<Vec<_>>()
    };
    let platform = |(platform, made): (&fleet_oci::Platform, &super::make::MadeImage)| {
        let digest = &made.image.digest;
        (platform.to_string(), json!({"digest": digest, "derivation": made.hash, "statements": about(digest)}))
    };
    let platforms: serde_json::Map<String, Value> = one.platforms.iter().map(platform).collect();
    let places: Vec<Value> = sinks
        .iter()
        .zip(references)
        .map(|(sink, names)| json!({"to": sink.to_string(), "reference": names.get(at)}))
        .collect();
    let once = one.once();
    json!({
        "name": one.name, "repository": one.repository, "tag": one.tag, "digest": one.digest(),
        "reproducible": once.is_reproducible(), "install_scripts": once.scripts, "containerfiles": once.containerfiles,
        "statements": about(one.digest()),
        "platforms": platforms, "places": places,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_reads_as_it_is_written_and_others_are_refused() {
        for text in ["engine", "registry", "registry:localhost:5000/fleets", "oci:out/images", "docker-archive:a.tar"] {
            assert_eq!(text.parse::<Sink>().map(|sink| sink.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "oci", "oci:", "registry:/", "docker", "tarball:a.tar", "engine:x"] {
            assert!(text.parse::<Sink>().is_err(), "{text}");
        }
    }
}
