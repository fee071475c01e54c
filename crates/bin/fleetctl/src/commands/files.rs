//! `init`, `check`, `fmt`: commands that only read and write files of the project.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
};

use fleet_model::{Checked, Diagnostic, Looked, RelPath, Severity, late, resolved::Resolved};
use fleet_store::write_atomic;
use include_dir::{Dir, DirEntry, include_dir};
use serde_json::{Value, json};

use crate::{
    cli::Global,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    project::{FLEET_KDL, FLEET_LOCK, Opened, refused},
    ui::out::to_stderr,
};

/// A fleet of one agent, small enough to be read in a minute.
const STARTER: &str = include_str!("../../starter.kdl");
/// What it is made of: our own templates, image files and pins.
static FOLDERS: [(&str, Dir<'_>); 3] = [
    ("templates", include_dir!("$CARGO_MANIFEST_DIR/../../../templates")),
    ("images/homeserver", include_dir!("$CARGO_MANIFEST_DIR/../../../images/homeserver")),
    ("images/agent/plugins", include_dir!("$CARGO_MANIFEST_DIR/../../../images/agent/plugins")),
];
const STARTER_LOCK: &str = include_str!("../../../../../fleet.lock");

/// `fleetctl init`.
///
/// # Errors
/// When there is a `fleet.kdl` already, or the name is none.
pub fn init(global: &Global, name: &str, domain: &str) -> Outcome {
    let folder = global.project.clone().unwrap_or_else(|| ".".into());
    let kdl = folder.join(FLEET_KDL);
    if kdl.exists() {
        return Err(Failure::new(Exit::Failed, format!("{} is there already; nothing was written", kdl.display())));
    }
    // The name goes through the language's own checks before anything is written.
    let text = STARTER.replace("FLEET_NAME", name).replace("FLEET_DOMAIN", domain);
    let root = crate::project::root_file();
    let mut tree = fleet_model::SourceTree::default();
    tree.insert(root.clone(), Looked::File(fleet_model::SourceFile::new(text.as_bytes(), false)));
    let bad = |code: &str| ["fleet::name", "fleet::language"].iter().any(|prefix| code.starts_with(prefix));
    for diagnostic in fleet_model::check(&root, &tree).diagnostics {
        if miette::Diagnostic::code(&diagnostic).is_some_and(|code| bad(&code.to_string())) {
            to_stderr(format_args!("{}", crate::project::report(&diagnostic, global)));
            return Err(Failure::new(Exit::Usage, "this is no name or domain for a fleet; nothing was written"));
        }
    }
    for (path, dir) in &FOLDERS {
        write_folder(&folder.join(path), dir)?;
    }
    write(&folder.join(FLEET_LOCK), STARTER_LOCK.as_bytes())?;
    // Last, so that a folder with a fleet.kdl is a whole project.
    write(&kdl, text.as_bytes())?;
    print_out(&format!("wrote {}, templates/ and images/\n", kdl.display()));
    print_out("next: fleetctl check, then fleetctl quickstart\n");
    Ok(Exit::Done)
}

fn write_folder(to: &Path, dir: &Dir<'_>) -> Result<(), Failure> {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(inner) => write_folder(to, inner)?,
            DirEntry::File(file) => {
                write(&to.join(file.path()), file.contents())?;
            }
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let failed = |error: &dyn std::error::Error| {
        Failure::caused(Exit::Failed, format!("{} cannot be written", path.display()), error)
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    write_atomic(path, bytes, 0o644).map_err(|error| failed(&error))
}

/// `fleetctl check`: the language, then templates, images and the lock for every environment.
///
/// # Errors
/// Every mistake that can be found without touching anything.
pub fn check(context: &Context) -> Outcome {
    let opened = Opened::open(&context.global)?;
    let Checked { model, diagnostics: mut found } = opened.checked();
    let broken = opened.read_lock().err();
    let opened = if broken.is_some() { opened.ignoring_lock() } else { opened };
    // Without a lock nothing is pinned, which is then not worth saying of everything.
    let worth_saying = |one: &Diagnostic| broken.is_none() || one.code != late::NOT_LOCKED;
    let mut environments = Vec::new();
    let mut people = 0;
    if let Some(model) = model {
        people = model.org.people.len();
        let names: Vec<String> = model.environments.keys().cloned().collect();
        let mut read = (opened, model);
        for name in &names {
            let prepared = Prepared::of(context, read.0, read.1, name)?;
            let problems = prepared.instantiated(&BTreeMap::new()).err().into_iter().flatten();
            found.extend(problems.filter(worth_saying).map(lenient));
            environments.push(summary(name, &prepared.resolved));
            read = (prepared.opened, prepared.model);
        }
    }
    found.extend(broken.map(|broken| broken.diagnostic));
    // Two environments that use one image have one mistake.
    let mut seen = BTreeSet::new();
    found.retain(|one| seen.insert((one.code, one.origin.clone(), one.message.clone())));
    let wrong = found.iter().any(|one| one.severity == Severity::Error);
    if context.json() {
        let found: Vec<_> = found.iter().map(diagnostic_json).collect();
        print_json(&json!({
            "schema": 1, "right": !wrong, "people": people, "environments": environments, "diagnostics": found,
        }));
    }
    for one in &found {
        to_stderr(format_args!("{}", crate::project::report(one, &context.global)));
        crate::ui::github::annotate(one);
    }
    if wrong {
        return Err(refused(&found, "the project"));
    }
    if !context.json() {
        print_out(&format!("{FLEET_KDL} is right: {people} people.\n"));
        let mut table = crate::ui::table::Table::default();
        let count = |one: &Value, key: &str, noun: &str| format!("{} {noun}", one[key]);
        for one in &environments {
            table.row([
                one["name"].as_str().unwrap_or_default().to_owned(),
                count(one, "agents", "agents"),
                count(one, "rooms", "rooms"),
                count(one, "direct_messages", "direct-message pairs"),
            ]);
        }
        print_out(&table.text());
    }
    Ok(Exit::Done)
}

/// What was never locked stops only those who build it: `check` sees every environment, also those out of reach.
fn lenient(mut found: Diagnostic) -> Diagnostic {
    if found.code == late::NOT_LOCKED {
        found.severity = Severity::Warning;
    }
    found
}

fn summary(name: &str, resolved: &Resolved) -> Value {
    json!({
        "name": name, "agents": resolved.agents.len(), "rooms": resolved.rooms.len(),
        "direct_messages": resolved.direct_messages.len(),
    })
}

fn diagnostic_json(one: &Diagnostic) -> Value {
    let severity = match one.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
        Severity::Advice => "advice",
    };
    let places: Vec<Value> =
        one.places().iter().map(|(l, c, text)| json!({"line": l, "column": c, "label": text})).collect();
    json!({
        "code": one.code, "severity": severity, "message": one.message, "help": one.help,
        "file": one.origin.as_ref().map(|origin| &origin.file), "line": one.origin.as_ref().map(|origin| origin.line),
        "places": places,
    })
}

/// `fleetctl fmt`.
///
/// # Errors
/// Files that do not parse, each with its mistakes; the others are laid out.
pub fn fmt(context: &Context, only_check: bool) -> Outcome {
    let opened = Opened::open(&context.global)?;
    let mut changed: Vec<(RelPath, String)> = Vec::new();
    let mut broken: BTreeMap<RelPath, String> = BTreeMap::new();
    if opened.tree.file(&crate::project::root_file()).is_none() {
        broken.insert(crate::project::root_file(), "it cannot be read".to_owned());
    }
    // Skills and build contexts may hold KDL of their own: it is theirs to lay out.
    for path in fleet_model::language_files(&crate::project::root_file(), &opened.tree) {
        let Some(file) = opened.tree.file(&path) else { continue };
        let formatted = file.text().ok_or_else(|| "it is not UTF-8 text".to_owned());
        match formatted.and_then(|text| fleet_model::format(text).map_err(|error| error.to_string())) {
            Ok(formatted) if Some(formatted.as_str()) != file.text() => changed.push((path, formatted)),
            Ok(_) => {}
            Err(why) => drop(broken.insert(path, why)),
        }
    }
    for (path, text) in &changed {
        if !only_check {
            write(&opened.root.join(path.as_str()), text.as_bytes())?;
        }
        if !context.json() {
            print_out(&format!("{path}{}\n", if only_check { " would change" } else { "" }));
        }
    }
    if context.json() {
        let changed: Vec<&RelPath> = changed.iter().map(|(path, _)| path).collect();
        let broken: Vec<&RelPath> = broken.keys().collect();
        print_json(&json!({"schema": 1, "written": !only_check, "changed": changed, "broken": broken}));
    }
    if !broken.is_empty() {
        return Err(unparsed(context, &opened, &broken));
    }
    Ok(if only_check && !changed.is_empty() { Exit::Failed } else { Exit::Done })
}

/// Shows what is wrong in files that could not be laid out.
fn unparsed(context: &Context, opened: &Opened, broken: &BTreeMap<RelPath, String>) -> Failure {
    let syntax = |code: &str| code == "fleet::language::syntax" || code.starts_with("fleet::file::");
    let of = |one: &Diagnostic| one.origin.as_ref().map(|origin| origin.file.clone());
    let mut shown = BTreeSet::new();
    for one in opened.checked().diagnostics.iter().filter(|one| syntax(one.code)) {
        let Some(file) = of(one).filter(|file| broken.contains_key(file)) else { continue };
        to_stderr(format_args!("{}", crate::project::report(one, &context.global)));
        shown.insert(file);
    }
    let names: Vec<&str> = broken.keys().map(RelPath::as_str).collect();
    let mut failure = Failure::new(Exit::Failed, format!("left as it is: {}", names.join(", ")));
    failure.causes =
        broken.iter().filter(|(file, _)| !shown.contains(*file)).map(|(file, why)| format!("{file}: {why}")).collect();
    failure.hint("`fleetctl check` shows every mistake")
}
