//! Projects for tests: from a folder as the tool reads it, or from texts.

use std::{collections::BTreeMap, fs, path::Path};

use fleet_model::{Checked, Links, ListedEntry, Listing, Looked, RelPath, SourceFile, SourceTree, check, wanted};

pub fn path(text: &str) -> RelPath {
    RelPath::new(text).expect("a path within the project")
}

/// The tree of `folder`, loaded by demand until `check` wants nothing more.
pub fn load(folder: &Path) -> SourceTree {
    let mut tree = SourceTree::default();
    for _ in 0..64 {
        let missing = wanted(&path("fleet.kdl"), &tree);
        if missing.is_empty() {
            return tree;
        }
        for one in missing.contents {
            look(folder, one, &mut tree);
        }
        for (one, links) in missing.listings {
            let listing = list(folder, &folder.join(one.as_str()), links);
            tree.insert_listing(one, links, listing);
        }
    }
    panic!("still wanting files after 64 rounds: {folder:?}");
}

fn look(folder: &Path, at: RelPath, tree: &mut SourceTree) {
    let full = folder.join(at.as_str());
    // As the tool does it: a link that leaves the project is not followed.
    if full.is_symlink() {
        tree.insert(at, Looked::Unreadable("it is a link that leaves the project".into()));
    } else if full.is_dir() {
        for entry in fs::read_dir(&full).expect("a readable folder") {
            let name = entry.expect("an entry").file_name();
            look(folder, at.join(&name.to_string_lossy()).expect("a path"), tree);
        }
        tree.insert(at, Looked::Folder);
    } else if full.is_file() {
        let bytes = fs::read(&full).expect("a readable file");
        tree.insert(at, Looked::File(SourceFile::new(bytes, false)));
    } else {
        tree.insert(at, Looked::Missing);
    }
}

/// As the tool lists: see `fleet_store::Project`.
fn list(project: &Path, at: &Path, links: Links) -> Listing {
    if at.is_dir() {
        let mut entries = BTreeMap::new();
        list_below((project, at, links), at, &mut entries);
        Listing::Folder(entries)
    } else if at.is_file() {
        let bytes = fs::read(at).expect("a readable file");
        Listing::File(SourceFile::new(bytes, false).listed())
    } else {
        Listing::Missing
    }
}

fn list_below(of: (&Path, &Path, Links), folder: &Path, entries: &mut BTreeMap<String, ListedEntry>) {
    let (project, root, links) = of;
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let full = entry.expect("an entry").path();
        let name = full.strip_prefix(root).expect("below").to_string_lossy().into_owned();
        let bound = if links == Links::Kept { root } else { project };
        let real = fs::canonicalize(&full).ok();
        let found = match fs::read_link(&full) {
            Ok(target) if real.is_none() => ListedEntry::Refused(format!(
                "it is a link to {}, which leads to nothing in the folder",
                target.display()
            )),
            Ok(target)
                if !real.expect("it leads somewhere").starts_with(fs::canonicalize(bound).expect("a folder")) =>
            {
                ListedEntry::Refused(format!("it is a link to {}, which leaves the folder", target.display()))
            }
            Ok(target) if links == Links::Kept => ListedEntry::Link(target.to_string_lossy().into_owned()),
            _ if full.is_dir() => {
                list_below(of, &full, entries);
                ListedEntry::Folder
            }
            _ => ListedEntry::File(SourceFile::new(fs::read(&full).expect("a readable file"), false).listed()),
        };
        entries.insert(name, found);
    }
}

pub fn check_folder(folder: &Path) -> Checked {
    check(&path("fleet.kdl"), &load(folder))
}

/// A tree of these texts; everything else is missing.
pub fn tree(files: &[(&str, &str)]) -> SourceTree {
    let mut tree = SourceTree::default();
    for (name, text) in files {
        let mut folder = *name;
        while let Some((parent, _)) = folder.rsplit_once('/') {
            tree.insert(path(parent), Looked::Folder);
            folder = parent;
        }
        tree.insert(path(name), Looked::File(SourceFile::new(text.as_bytes(), false)));
    }
    tree
}

pub fn check_texts(files: &[(&str, &str)]) -> Checked {
    check(&path("fleet.kdl"), &tree(files))
}

/// Diagnostics as people see them, without colour, 100 columns wide.
pub fn render(checked: &Checked) -> String {
    let theme = miette::GraphicalTheme::unicode_nocolor();
    let handler = miette::GraphicalReportHandler::new_themed(theme).with_width(100).with_links(false);
    let mut out = String::new();
    for one in &checked.diagnostics {
        handler.render_report(&mut out, one).expect("a String takes everything");
        out.push('\n');
    }
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    format!("{}\n", lines.join("\n").trim_end())
}

/// Compares with a golden file; with FLEET_BLESS=1 writes it instead.
pub fn golden(file: &Path, text: &str) -> Result<(), String> {
    if std::env::var_os("FLEET_BLESS").is_some() {
        fs::write(file, text).map_err(|error| error.to_string())?;
    }
    let expected = fs::read_to_string(file).unwrap_or_default();
    if expected == text {
        return Ok(());
    }
    Err(format!("{} differs; FLEET_BLESS=1 accepts what is now:\n{text}", file.display()))
}
