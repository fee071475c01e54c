//! [`Context`]: what reading collects while it goes on: texts, findings, wanted paths, references to check.

use std::{borrow::Cow, collections::BTreeSet};

use crate::{
    code,
    diagnostic::Draft,
    origin::{Declared, Origin},
    source::{BadPath, Links, Listing, Looked, RelPath, SourceFile, SourceTree, Wanted},
    text::{Files, Place},
};

/// Paths of one folder that cannot be used are named one by one up to here.
pub(crate) const SHOWN: usize = 5;

/// How many of them are not named, for the end of a help.
pub(crate) fn not_shown(all: usize) -> String {
    let more = all.saturating_sub(SHOWN);
    if more > 0 { format!("; {more} more paths in it have such a problem") } else { String::new() }
}

/// What a name refers to; checked when everything is read.
#[derive(Clone, Debug)]
pub(crate) enum Refers {
    /// A person, from a room or a selector.
    Person,
    /// An image.
    Image,
    /// A skill below the templates folder.
    Skill,
    /// A model as `provider/model`.
    Model,
    /// A department.
    Department,
    /// A team, of a department if one is named.
    Team(Option<String>),
}

/// One reference: its kind, the name used, and where.
#[derive(Clone, Debug)]
pub(crate) struct Reference {
    pub refers: Refers,
    pub name: String,
    pub place: Place,
}

/// Everything one run collects.
pub(crate) struct Context<'t> {
    /// The project's files.
    pub tree: &'t SourceTree,
    /// The texts that were read.
    pub files: Files,
    /// What is wrong.
    pub found: Vec<Draft>,
    /// Paths that nobody looked up yet.
    pub wants: Wanted,
    /// Names to check.
    pub references: Vec<Reference>,
    /// What could not be read.
    pub gaps: Gaps,
}

/// What could not be read, by kind: a name that may have been declared there is not reported as unknown. A mistake in one
/// section hides none in another.
#[derive(Default)]
pub(crate) struct Gaps {
    /// A whole text, or a part of one: it may have declared anything.
    pub text: bool,
    /// Rows of a directory: people whose ids are unknown, with their departments and teams.
    pub rows: bool,
    /// Ids of people who are declared and of whom something else is wrong.
    pub ids: BTreeSet<String>,
    /// A department or a team without a name.
    pub departments: bool,
    /// Words of nodes (`image`, `provider`, `environment`, `person`) of which one has no name that can be read.
    pub nameless: BTreeSet<String>,
    /// Ids of people whose manager was given and refused.
    pub managers: BTreeSet<String>,
    /// The folder of templates.
    pub templates: bool,
    /// Names of images, model providers and environments that cannot be names: what refers to one has one mistake, not two.
    pub names: BTreeSet<String>,
    /// Providers of whom something is wrong: what they serve is unknown.
    pub served_by: BTreeSet<String>,
}

impl Gaps {
    /// Somebody of this id may be declared.
    pub fn person(&self, id: &str) -> bool {
        self.text || self.rows || self.nameless.contains("person") || self.ids.contains(id)
    }

    /// Somebody is missing among the people that are known.
    pub fn people(&self) -> bool {
        self.text || self.rows || self.nameless.contains("person") || !self.ids.is_empty()
    }

    /// A department or team may be declared that is not known.
    pub fn departments(&self) -> bool {
        self.text || self.rows || self.departments
    }

    /// An `image`, a `provider` or an `environment` of this name may be declared; `word` says which of them.
    pub fn named(&self, word: &str, name: &str) -> bool {
        self.text || self.nameless.contains(word) || self.names.contains(name)
    }

    /// Templates and skills may lie elsewhere.
    pub fn templates(&self) -> bool {
        self.text || self.templates
    }

    /// A provider of this name may be declared, or serve models that are not known.
    pub fn provider(&self, name: &str) -> bool {
        self.named("provider", name) || self.served_by.contains(name)
    }
}

impl<'t> Context<'t> {
    /// Nothing read yet.
    pub fn new(tree: &'t SourceTree) -> Self {
        Self {
            tree,
            files: Files::default(),
            found: Vec::new(),
            wants: Wanted::default(),
            references: Vec::new(),
            gaps: Gaps::default(),
        }
    }

    /// Notes a finding.
    pub fn report(&mut self, draft: Draft) {
        self.found.push(draft);
    }

    /// Notes a reference.
    pub fn refer(&mut self, refers: Refers, (name, place): (&str, Place)) {
        self.references.push(Reference { refers, name: name.to_owned(), place });
    }

    /// File and line of a place.
    pub fn origin(&self, place: Place) -> Origin {
        self.files.origin(place)
    }

    /// A value declared at a place.
    pub fn declared<T>(&self, value: T, place: Place) -> Declared<T> {
        Declared::at(value, self.files.origin(place))
    }

    /// A path within the project.
    pub fn path(&mut self, (text, place): (&str, Place)) -> Option<RelPath> {
        let error = match RelPath::new(text) {
            Ok(path) => return Some(path),
            Err(error) => error,
        };
        let (code, help) = match error {
            BadPath::Absolute | BadPath::Leaves => (
                code::FILE_OUTSIDE,
                "everything a fleet is made of lies in the folder of fleet.kdl or below: copy the file there",
            ),
            BadPath::Empty | BadPath::Character => {
                (code::FILE_BAD_PATH, "write a path below the folder of fleet.kdl, with / between folders")
            }
        };
        self.report(
            Draft::error(code, format!("`{}`: {error}", text.escape_debug())).at(place, "this path").help(help),
        );
        None
    }

    /// What is at a path; notes that it is wanted when nobody looked yet.
    pub fn look(&mut self, path: &RelPath) -> Option<&'t Looked> {
        let found = self.tree.get(path);
        if found.is_none() {
            self.wants.contents.insert(path.clone());
        }
        found
    }

    /// What a path lists, without bytes; reports at `place` when there is nothing that can be used.
    pub fn list(&mut self, path: &RelPath, links: Links, place: Place) -> Option<Cow<'t, Listing>> {
        let tree = self.tree;
        let Some(listing) = tree.listing(path, links) else {
            self.wants.listings.insert((path.clone(), links));
            self.absent(path, None, Some(place));
            return None;
        };
        match &*listing {
            Listing::File(_) | Listing::Folder(_) => return Some(listing),
            Listing::Missing => self.absent(path, None, Some(place)),
            Listing::Unreadable(why) => {
                let found = Looked::Unreadable(why.clone());
                self.absent(path, Some(&found), Some(place));
            }
        }
        None
    }

    /// A path that must be a file; reports what is wrong with it at `place`.
    pub fn file(&mut self, path: &RelPath, place: Option<Place>) -> Option<&'t SourceFile> {
        match self.look(path) {
            Some(Looked::File(file)) => return Some(file),
            Some(Looked::Folder) => self.report(
                Draft::error(code::FILE_WRONG_KIND, format!("{path} is a folder, and a file is needed"))
                    .maybe_at(place, "named here")
                    .help("name a file within it"),
            ),
            other => self.absent(path, other, place),
        }
        None
    }

    /// A path that must be there, as a file or a folder.
    pub fn present(&mut self, path: &RelPath, place: Place) -> Option<&'t Looked> {
        match self.look(path) {
            found @ Some(Looked::File(_) | Looked::Folder) => found,
            other => {
                self.absent(path, other, Some(place));
                None
            }
        }
    }

    /// A path that must be a folder.
    pub fn folder(&mut self, path: &RelPath, place: Place) {
        match self.look(path) {
            Some(Looked::Folder) => {}
            Some(Looked::File(_)) => self.report(
                Draft::error(code::FILE_WRONG_KIND, format!("{path} is a file, and a folder is needed"))
                    .at(place, "named here")
                    .help("name the folder that holds it"),
            ),
            other => self.absent(path, other, Some(place)),
        }
    }

    /// Everything below a folder whose bytes are wanted must be readable: what is not would be missing without a word.
    pub fn readable_below(&mut self, folder: &RelPath, place: Option<Place>) {
        let tree = self.tree;
        let refused: Vec<(&RelPath, &str)> = tree.refused_below(folder).collect();
        for (path, why) in refused.iter().take(SHOWN) {
            self.report(
                Draft::error(code::FILE_UNREADABLE, format!("{} cannot be read: {why}", path.as_str().escape_debug()))
                    .maybe_at(place, "in this folder")
                    .help(format!(
                        "make it a regular file within the project that you may read, or leave it out with a line in {folder}/.fleetignore{}",
                        not_shown(refused.len())
                    )),
            );
        }
    }

    /// The folder of templates when nobody names one: it need not be there, and must be readable where it is.
    pub fn readable_templates(&mut self, folder: &RelPath) {
        let tree = self.tree;
        match tree.get(folder) {
            found @ Some(Looked::Unreadable(_)) => {
                self.gaps.templates = true;
                self.absent(folder, found, None);
            }
            _ => self.readable_below(folder, None),
        }
    }

    fn absent(&mut self, path: &RelPath, found: Option<&Looked>, place: Option<Place>) {
        let draft = match found {
            Some(Looked::Unreadable(why)) => {
                Draft::error(code::FILE_UNREADABLE, format!("{path} cannot be read: {why}"))
                    .help("make it a regular file within the project that you may read")
            }
            _ => Draft::error(code::FILE_MISSING, format!("there is no {path}")).help(self.neighbours(path)),
        };
        self.report(draft.maybe_at(place, "named here"));
    }

    fn neighbours(&self, path: &RelPath) -> String {
        let known = self.tree.iter().filter(|(_, found)| matches!(found, Looked::File(_) | Looked::Folder));
        crate::words::did_you_mean(path.as_str(), known.map(|(other, _)| other.as_str())).unwrap_or_else(|| {
            "paths are relative to the folder of fleet.kdl; create the file or correct the path".into()
        })
    }
}
