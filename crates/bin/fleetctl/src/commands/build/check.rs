//! [`check`]: every image made twice, in two places that have nothing in common but the project's files, and compared.
//!
//! Each time the files are copied into a new folder and this program is run there as a process of its own: with an empty
//! store, with other times, permissions and number of threads. Only packages that `fleet.lock` pins are taken along: they
//! are known by their hashes. Nothing is compared with what was built before.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File, FileTimes, Permissions},
    io,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, SystemTime},
};

use fleet_apply::{Event, Events as _};
use fleet_model::{ListedEntry, ListedFile, Listing, Looked, RelPath};
use fleet_oci::Platform;
use fleet_registry::LocalImage;
use fleet_store::{Pin, Store};
use serde_json::json;

use super::{
    compare::{self, Compared},
    make,
};
use crate::{
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::{self, Prepared},
    project::FLEET_LOCK,
};

/// Lines of a failed build that are shown.
const LAST_LINES: usize = 20;

/// How the two places differ.
struct Manner {
    name: &'static str,
    umask: u32,
    threads: &'static str,
    modified: SystemTime,
}

/// `fleetctl build --check`.
///
/// # Errors
/// A build that fails; two that differ.
pub async fn check(
    context: &Context,
    prepared: &Prepared,
    names: &BTreeSet<String>,
    platforms: &BTreeSet<Platform>,
) -> Outcome {
    let (layered, skipped) = split(prepared, names)?;
    let place = prepared.opened.store.scratch().map_err(|error| no_room(&error))?;
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(981_173_106);
    let manners = [
        Manner { name: "first", umask: 0o022, threads: "1", modified: SystemTime::now() },
        Manner { name: "second", umask: 0o077, threads: "3", modified: long_ago },
    ];
    let mut layouts = Vec::new();
    for manner in manners.iter().filter(|_| !layered.is_empty()) {
        context.console.emit(Event::Notice { text: format!("building the {} time", manner.name) });
        let folder = place.path().join(manner.name);
        lay_out(prepared, &folder.join("project"), manner).map_err(|error| no_room(&error))?;
        layouts.push(run(prepared, &folder, manner, (&layered, platforms)).await?);
    }
    let mut results = Vec::new();
    if let [first, second] = layouts.as_slice() {
        for name in &layered {
            let compared = compare::images(first, second, name);
            let compared = compared.map_err(|error| incomparable(name, &error))?;
            results.push((name.clone(), compared));
        }
    }
    tell(context, &results, &skipped)
}

/// Images that can be made twice, and why the others cannot.
type Split = (BTreeSet<String>, BTreeMap<String, String>);

fn split(prepared: &Prepared, names: &BTreeSet<String>) -> Result<Split, Failure> {
    let once = make::made_once(prepared, names)?;
    let (skipped, layered): (Vec<_>, Vec<_>) = names.iter().cloned().partition(|name| once.contains_key(name));
    let why = |name: String| {
        let why = once.get(&name).map(make::Once::words).unwrap_or_default();
        (name, format!("not reproducible: {why}"))
    };
    Ok((layered.into_iter().collect(), skipped.into_iter().map(why).collect()))
}

/// The project's files as far as images may take something from them, and the packages that are pinned.
fn lay_out(prepared: &Prepared, folder: &Path, manner: &Manner) -> io::Result<()> {
    for (path, looked) in prepared.opened.tree.iter() {
        if let Looked::File(file) = looked {
            let mode = if file.executable { 0o777 } else { 0o666 };
            place_file(&folder.join(path.as_str()), &file.bytes, mode, manner)?;
        }
    }
    for (path, listing) in prepared.opened.tree.listings() {
        lay_out_listed(&prepared.opened.root, folder, (path, listing), manner)?;
    }
    for reference in prepared.lock.bases.keys() {
        if let Some(local) = LocalImage::parse(reference, Path::new("")) {
            link_all(&prepared.opened.root.join(local.path()), &folder.join(local.path()))?;
        }
    }
    place_file(&folder.join(FLEET_LOCK), prepared.lock.to_text().as_bytes(), 0o666, manner)?;
    let store = &prepared.opened.store;
    let other = Store::open(folder).map_err(io::Error::other)?;
    for pin in pipeline::lock_pins(&prepared.lock) {
        let Pin::Blob(id) = pin else { continue };
        let Some(here) = store.blob_path(&id) else { continue };
        let Ok(inside) = here.strip_prefix(store.root()) else { continue };
        link_all(&here, &other.root().join(inside))?;
    }
    Ok(())
}

/// Bases on disk are known by their digests: they are not copied.
fn link_all(from: &Path, to: &Path) -> io::Result<()> {
    if !from.exists() {
        return Ok(());
    }
    if from.is_dir() {
        fs::create_dir_all(to)?;
        return fs::read_dir(from)?.try_for_each(|entry| {
            let name = entry?.file_name();
            link_all(&from.join(&name), &to.join(&name))
        });
    }
    fs::create_dir_all(to.parent().unwrap_or(Path::new(".")))?;
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

/// Files that images only copy: their bytes were not read yet.
fn lay_out_listed(
    root: &Path,
    folder: &Path,
    (path, listing): (&RelPath, &Listing),
    manner: &Manner,
) -> io::Result<()> {
    let file = |path: &Path, listed: &ListedFile| {
        let mode = if listed.executable { 0o777 } else { 0o666 };
        place_file(&folder.join(path), &fs::read(root.join(path))?, mode, manner)
    };
    let path = Path::new(path.as_str());
    match listing {
        Listing::File(listed) => file(path, listed),
        Listing::Folder(entries) => entries.iter().try_for_each(|(inside, entry)| {
            let inside = path.join(inside);
            let there = folder.join(&inside);
            match entry {
                ListedEntry::File(listed) => file(&inside, listed),
                ListedEntry::Folder => fs::create_dir_all(there),
                // The same folder may be listed with its links and without.
                ListedEntry::Link(target) if fs::symlink_metadata(&there).is_err() => symlink(target, there),
                ListedEntry::Link(_) | ListedEntry::Refused(_) => Ok(()),
            }
        }),
        Listing::Missing | Listing::Unreadable(_) => Ok(()),
    }
}

fn place_file(path: &Path, bytes: &[u8], mode: u32, manner: &Manner) -> io::Result<()> {
    fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
    fs::write(path, bytes)?;
    fs::set_permissions(path, Permissions::from_mode(mode & !manner.umask))?;
    let times = FileTimes::new().set_modified(manner.modified).set_accessed(manner.modified);
    File::options().write(true).open(path)?.set_times(times)
}

/// Builds there; where the layout is.
async fn run(
    prepared: &Prepared,
    folder: &Path,
    manner: &Manner,
    (names, platforms): (&BTreeSet<String>, &BTreeSet<Platform>),
) -> Result<PathBuf, Failure> {
    let failed = |why: String| {
        let mut failure = Failure::new(Exit::Failed, format!("the {} build failed", manner.name));
        failure.causes.push(why);
        failure
    };
    let program = std::env::current_exe().map_err(|error| failed(error.to_string()))?;
    let layout = folder.join("layout");
    let mut command = tokio::process::Command::new("sh");
    command.args(["-c", &format!("umask {:03o}; exec \"$0\" \"$@\"", manner.umask)]).arg(program);
    command.arg("-C").arg(folder.join("project"));
    command.args(["build", "-e", &prepared.scope.environment, "--to"]).arg(format!("oci:{}", layout.display()));
    for platform in platforms {
        command.args(["--platform", &platform.to_string()]);
    }
    command.args(names).env("RAYON_NUM_THREADS", manner.threads).stdin(Stdio::null()).kill_on_drop(true);
    let output = command.output().await.map_err(|error| failed(error.to_string()))?;
    if output.status.success() {
        return Ok(layout);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<&str> = said.lines().collect();
    Err(failed(lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")))
}

fn tell(context: &Context, results: &[(String, Compared)], skipped: &BTreeMap<String, String>) -> Outcome {
    let width = results.iter().map(|(name, _)| name.len()).chain(skipped.keys().map(String::len)).max().unwrap_or(0);
    let mut lines: BTreeMap<&String, String> = skipped.iter().map(|(name, why)| (name, why.clone())).collect();
    for (name, compared) in results {
        lines.insert(
            name,
            match &compared.difference {
                None => format!("{} both times", compared.first),
                Some(difference) => format!("{} and then {}: {difference}", compared.first, compared.second),
            },
        );
    }
    let differ: Vec<&str> =
        results.iter().filter(|(_, compared)| compared.difference.is_some()).map(|(name, _)| name.as_str()).collect();
    if context.json() {
        let images: Vec<_> = results
            .iter()
            .map(|(name, c)| json!({"name": name, "first": c.first, "second": c.second, "difference": c.difference}))
            .chain(skipped.iter().map(|(name, why)| json!({"name": name, "not_compared": why})))
            .collect();
        print_json(&json!({"schema": fleet_plan::SCHEMA, "images": images}));
    } else {
        lines.iter().for_each(|(name, line)| print_out(&format!("{name:width$}  {line}\n")));
    }
    if differ.is_empty() {
        return Ok(Exit::Done);
    }
    Err(Failure::new(Exit::Failed, format!("the same inputs gave different images: {}", differ.join(", "))))
}

fn no_room(error: &dyn std::error::Error) -> Failure {
    Failure::caused(Exit::Failed, "there is no room to build twice", error)
}

fn incomparable(name: &str, error: &dyn std::error::Error) -> Failure {
    Failure::caused(Exit::Failed, format!("what was built of {name} cannot be compared"), error)
}
