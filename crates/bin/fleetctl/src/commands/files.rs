//! `init`, `check`, `fmt`: commands that only read and write files of the project.

use std::path::Path;

use fleet_model::{Looked, RelPath};
use include_dir::{Dir, DirEntry, include_dir};
use fleet_store::write_atomic;

use crate::{
    cli::Global,
    context::{Context, print_json, print_out},
    error::{Failure, Outcome},
    exit::Exit,
    pipeline::Prepared,
    project::{FLEET_KDL, FLEET_LOCK, Opened},
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
            eprint!("{}", crate::project::report(&diagnostic, global));
            return Err(Failure::new(Exit::Usage, "this is no name or domain for a fleet; nothing was written"));
        }
    }
    for (path, dir) in &FOLDERS {
        write_folder(&folder.join(path), dir)?;
    }
    write(&folder.join(FLEET_LOCK), STARTER_LOCK)?;
    // Last, so that a folder with a fleet.kdl is a whole project.
    write(&kdl, &text)?;
    print_out(&format!("wrote {}, templates/ and images/\n", kdl.display()));
    print_out("next: fleetctl check, then fleetctl quickstart\n");
    Ok(Exit::Done)
}

fn write_folder(to: &Path, dir: &Dir<'_>) -> Result<(), Failure> {
    for entry in dir.entries() {
        match entry {
            DirEntry::Dir(inner) => write_folder(to, inner)?,
            DirEntry::File(file) => {
                write(&to.join(file.path()), file.contents_utf8().unwrap_or_default())?;
            }
        }
    }
    Ok(())
}

fn write(path: &Path, text: &str) -> Result<(), Failure> {
    let folder = path.parent().unwrap_or(Path::new("."));
    let failed = |error: &dyn std::error::Error| {
        Failure::caused(Exit::Failed, format!("{} cannot be written", path.display()), error)
    };
    std::fs::create_dir_all(folder).map_err(|error| failed(&error))?;
    write_atomic(path, text.as_bytes(), 0o644).map_err(|error| failed(&error))
}

/// `fleetctl check`: the language, then templates and the lock for every environment.
///
/// # Errors
/// Every mistake that can be found without touching anything.
pub fn check(context: &Context) -> Outcome {
    let opened = Opened::open(&context.global)?;
    let model = opened.model(&context.global)?;
    let mut failures: Vec<Failure> = Vec::new();
    let mut summaries = Vec::new();
    for name in model.environments.keys() {
        let prepared = Prepared::new(context, name)?;
        if let Err(failure) = prepared.instance(&std::collections::BTreeMap::new()) {
            failures.push(Failure { message: format!("environment {name}: {}", failure.message), ..failure });
        }
        let resolved = &prepared.resolved;
        summaries.push((name.clone(), resolved.agents.len(), resolved.rooms.len(), resolved.direct_messages.len()));
    }
    let (used, unused): (Vec<Failure>, Vec<Failure>) = failures.into_iter().partition(|failure| {
        // A base that was never locked stops only the environment that uses it.
        !failure.causes.iter().all(|cause| cause.contains("is not in fleet.lock"))
    });
    for failure in &unused {
        eprint!("{}", failure.text().replacen("error:", "warning:", 1));
    }
    if let Some(failure) = used.into_iter().next() {
        return Err(failure);
    }
    if context.json() {
        let environments: Vec<_> = summaries
            .iter()
            .map(|(name, agents, rooms, pairs)| {
                serde_json::json!({"name": name, "agents": agents, "rooms": rooms, "direct_messages": pairs})
            })
            .collect();
        print_json(&serde_json::json!({"schema": 1, "people": model.org.people.len(), "environments": environments}));
        return Ok(Exit::Done);
    }
    print_out(&format!("{FLEET_KDL} is right: {} people.\n", model.org.people.len()));
    let mut table = crate::ui::table::Table::default();
    for (name, agents, rooms, pairs) in summaries {
        table.row([
            name,
            format!("{agents} agents"),
            format!("{rooms} rooms"),
            format!("{pairs} direct-message pairs"),
        ]);
    }
    print_out(&table.text());
    Ok(Exit::Done)
}

/// `fleetctl fmt`.
///
/// # Errors
/// A file that does not parse; nothing is written then.
pub fn fmt(context: &Context, only_check: bool) -> Outcome {
    let opened = Opened::open(&context.global)?;
    let mut changed: Vec<(RelPath, String)> = Vec::new();
    for (path, found) in opened.tree.iter() {
        let Looked::File(file) = found else { continue };
        if !path.as_str().ends_with(".kdl") {
            continue;
        }
        let Some(text) = file.text() else { continue };
        let formatted = fleet_model::format(text)
            .map_err(|error| Failure::caused(Exit::Failed, format!("{path} cannot be formatted"), &error))?;
        if formatted != text {
            changed.push((path.clone(), formatted));
        }
    }
    for (path, text) in &changed {
        if only_check {
            print_out(&format!("{path} would change\n"));
        } else {
            write(&opened.root.join(path.as_str()), text)?;
            print_out(&format!("{path}\n"));
        }
    }
    Ok(if only_check && !changed.is_empty() { Exit::Failed } else { Exit::Done })
}

