//! [`Opened`]: a project on disk: its root, its store, and its files as far as anybody asked for them.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use fleet_model::{Checked, Diagnostic, RelPath, SourceTree, late, model::Model};
use fleet_oci::{Lock, lock::LockError};
use fleet_store::{StatCache, Store};
use miette::{GraphicalReportHandler, GraphicalTheme, Severity};

use crate::{
    cli::Global,
    error::Failure,
    exit::Exit,
    ui::{out::to_stderr, style::Style},
};

/// Name of the file that makes a folder a project.
pub const FLEET_KDL: &str = "fleet.kdl";
/// Name of the lock file beside it.
pub const FLEET_LOCK: &str = "fleet.lock";

/// The diagnostic that says that a declared limit would be exceeded; it has an exit code of its own.
const OVER_LIMIT: &str = "fleet::environment::over-limit";

/// A project.
pub struct Opened {
    /// Folder of `fleet.kdl`.
    pub root: PathBuf,
    /// `.fleet/`.
    pub store: Arc<Store>,
    /// Reader of files, with the stat cache.
    pub files: fleet_store::Project,
    /// What was read.
    pub tree: SourceTree,
    /// How what is wrong is shown.
    global: Global,
    /// See [`Self::ignoring_lock`].
    without_lock: bool,
}

impl Opened {
    /// Finds the project, opens its store and reads every file that checking needs.
    ///
    /// # Errors
    /// No project, or a store that cannot be used.
    pub fn open(global: &Global) -> Result<Self, Failure> {
        let root = find(global.project.as_deref())?;
        let failed =
            |error: &dyn std::error::Error| Failure::caused(Exit::Failed, "the project cannot be opened", error);
        let store = Arc::new(Store::open(&root).map_err(|error| failed(&error))?);
        let cache = if global.no_stat_cache { StatCache::distrusting(&store) } else { StatCache::load(&store) };
        let files = fleet_store::Project::open(&root, cache).map_err(|error| failed(&error))?;
        let (tree, global) = (SourceTree::default(), global.clone());
        let mut opened = Self { root, store, files, tree, global, without_lock: false };
        opened.load();
        // A cache that cannot be written costs time at the next run, nothing else.
        let _ = opened.files.save_cache();
        Ok(opened)
    }

    /// Asks the model what it wants to see until it wants nothing more.
    fn load(&mut self) {
        let root = root_file();
        loop {
            let wanted = fleet_model::wanted(&root, &self.tree);
            if wanted.is_empty() {
                return;
            }
            self.files.load(&wanted.contents, &mut self.tree);
            self.files.load_listings(&wanted.listings, &mut self.tree);
            // Whatever was asked for and not found was recorded as missing, so this ends.
        }
    }

    /// Checks everything; prints warnings; fails with every error at once.
    ///
    /// # Errors
    /// When there is an error-level diagnostic.
    pub fn model(&self, global: &Global) -> Result<Model, Failure> {
        let checked = self.checked();
        for diagnostic in &checked.diagnostics {
            to_stderr(format_args!("{}", report(diagnostic, global)));
            crate::ui::github::annotate(diagnostic);
        }
        checked.model.ok_or_else(|| refused(&checked.diagnostics, FLEET_KDL))
    }

    /// Checks everything and prints nothing.
    #[must_use]
    pub fn checked(&self) -> Checked {
        fleet_model::check(&root_file(), &self.tree)
    }

    /// `fleet.lock`; an empty one when there is none. What is wrong with it is shown.
    ///
    /// # Errors
    /// A file that cannot be read or understood.
    pub fn lock(&self) -> Result<Lock, Failure> {
        self.read_lock().map_err(|broken| {
            to_stderr(format_args!("{}", report(&broken.diagnostic, &self.global)));
            crate::ui::github::annotate(&broken.diagnostic);
            refused(std::slice::from_ref(&broken.diagnostic), FLEET_LOCK)
        })
    }

    /// The same, with what is wrong as a diagnostic.
    ///
    /// # Errors
    /// As there.
    pub fn read_lock(&self) -> Result<Lock, Box<BrokenLock>> {
        if self.without_lock {
            return Ok(Lock::default());
        }
        let bytes = match std::fs::read(self.root.join(FLEET_LOCK)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Lock::default()),
            Err(error) => {
                let why = format!("{FLEET_LOCK} cannot be read: {error}");
                return Err(BrokenLock::of_whole(why, "make it a file that you may read", false));
            }
        };
        let Ok(text) = std::str::from_utf8(&bytes) else {
            return Err(BrokenLock::of_whole(format!("{FLEET_LOCK} is not UTF-8 text"), RESTORE, true));
        };
        Lock::parse(text).map_err(|error| match error {
            LockError::Malformed { what, line, column } => {
                let said = (format!("{FLEET_LOCK} cannot be read: {what}"), RESTORE.to_owned());
                let diagnostic = Diagnostic::of_text(late::LOCK_SYNTAX, said, (&lock_file(), text), (line, column));
                Box::new(BrokenLock { diagnostic, replaceable: true })
            }
            other => {
                BrokenLock::of_whole(other.to_string(), "install the fleetctl that wrote it, or a newer one", false)
            }
        })
    }

    /// Judges everything but the lock, which was found to be broken: as if nothing were pinned.
    #[must_use]
    pub fn ignoring_lock(self) -> Self {
        Self { without_lock: true, ..self }
    }
}

/// What to do about a lock that is not what we write.
const RESTORE: &str = "restore it from version control, or run `fleetctl lock`, which pins everything anew";

/// A `fleet.lock` that cannot be used.
pub struct BrokenLock {
    /// What is wrong.
    pub diagnostic: Diagnostic,
    /// It says nothing that `lock` would lose by writing another.
    pub replaceable: bool,
}

impl BrokenLock {
    fn of_whole(message: String, help: &str, replaceable: bool) -> Box<Self> {
        let tree = SourceTree::default();
        let diagnostic = Diagnostic::of_line(late::LOCK_SYNTAX, message, help.to_owned(), None, &tree);
        Box::new(Self { diagnostic, replaceable })
    }
}

/// How many errors there are and what they mean for the exit code, after each of them was shown.
pub fn refused(diagnostics: &[Diagnostic], place: &str) -> Failure {
    let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|one| one.severity == Severity::Error).collect();
    let only_limits = !errors.is_empty() && errors.iter().all(|one| one.code == OVER_LIMIT);
    let noun = if errors.len() == 1 { "error" } else { "errors" };
    let exit = if only_limits { Exit::LimitExceeded } else { Exit::Failed };
    Failure::new(exit, format!("{} {noun} in {place}", errors.len()))
        .hint("`fleetctl explain CODE` tells more about each code")
}

/// `fleet.kdl`, as the model names it.
#[must_use]
pub fn root_file() -> RelPath {
    constant(FLEET_KDL)
}

fn lock_file() -> RelPath {
    constant(FLEET_LOCK)
}

fn constant(path: &'static str) -> RelPath {
    match RelPath::new(path) {
        Ok(path) => path,
        Err(_) => unreachable!("a constant that is a path"),
    }
}

/// A diagnostic as people see it.
pub fn report(diagnostic: &dyn miette::Diagnostic, global: &Global) -> String {
    let style = Style::stderr(global.color);
    let theme = if style.is_on() { GraphicalTheme::unicode() } else { GraphicalTheme::unicode_nocolor() };
    let mut text = String::new();
    let handler = GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
    if handler.render_report(&mut text, diagnostic).is_err() {
        text = diagnostic.to_string();
    }
    text.push('\n');
    text
}

fn find(given: Option<&Path>) -> Result<PathBuf, Failure> {
    let start = match given {
        Some(folder) => folder.to_owned(),
        None => std::env::current_dir()
            .map_err(|error| Failure::caused(Exit::Failed, "the working folder cannot be used", &error))?,
    };
    let above = if given.is_some() { 1 } else { usize::MAX };
    start.ancestors().take(above).find(|folder| folder.join(FLEET_KDL).is_file()).map(Path::to_owned).ok_or_else(|| {
        Failure::new(Exit::Failed, format!("there is no {FLEET_KDL} in {}", start.display()))
            .hint("go to the folder of a fleet, or name it with -C DIR")
            .hint("`fleetctl init` writes a small fleet.kdl to begin with")
    })
}
