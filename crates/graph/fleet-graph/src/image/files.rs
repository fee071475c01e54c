//! `copy` and `tree`: files of the project as parts of an image, read when their layers are made.

use std::collections::BTreeMap;

use fleet_derivation::{Hash, Input};
use fleet_model::{Links, ListedEntry, ListedFile, Listing, Looked, RelPath, SourceFile, late};
use fleet_oci::{
    LayerRecipe, Packing,
    recipe::{FileEntry, FileWhat},
};
use serde_json::json;

use super::{Maker, Part, split, value_inputs};
use crate::{Problem, template};

/// What a node puts at one path, and the input that says so.
struct Placed {
    entry: FileEntry,
    input: (String, Input),
    size: u64,
}

impl Maker<'_> {
    /// `copy` with `render=#true`: small files, rendered now.
    pub(super) fn rendered(&self, from: &RelPath, to: &str) -> Result<Vec<Part>, Problem> {
        let mut entries = Vec::new();
        let mut inputs = Vec::new();
        let single = matches!(self.inputs.sources.get(from), Some(Looked::File(_)));
        for (path, file) in self.inputs.sources.files_below(from) {
            let inside = path.as_str().strip_prefix(&from.as_folder()).filter(|_| !single);
            let bytes = self.render(path, file)?.into_bytes();
            let hash = Hash::from_bytes(file.hash);
            inputs.push((path.to_string(), Input::File { path: path.clone(), hash, executable: file.executable }));
            inputs.push((format!("{path} rendered"), Input::Value { text: Hash::of(&bytes).to_string() }));
            let what = FileWhat::Inline(bytes);
            entries.push(FileEntry { path: target(to, inside), mode: mode(file.executable), uid: 0, gid: 0, what });
        }
        if entries.is_empty() {
            return Err(self.nothing(from));
        }
        entries.sort();
        Ok(vec![part(None, to, entries, inputs, self.packing())])
    }

    /// `copy` and `tree`: whatever was listed, in as many layers as its size asks for.
    pub(super) fn listed(&self, from: &RelPath, to: &str, links: Links) -> Result<Vec<Part>, Problem> {
        let listing = self.inputs.sources.listing(from, links).ok_or_else(|| self.nothing(from))?;
        let entries = match &*listing {
            Listing::File(file) => {
                let one = placed_file(from, to, None, *file);
                return Ok(vec![part(None, to, vec![one.entry], vec![one.input], self.packing())]);
            }
            Listing::Folder(entries) => entries,
            Listing::Missing => return Err(self.nothing(from)),
            Listing::Unreadable(why) => {
                return Err(self.problem(format!("{from} cannot be read: {why}"), "see fleetctl check".to_owned()));
            }
        };
        let mut placed: BTreeMap<&str, Placed> = BTreeMap::new();
        for (inside, entry) in entries {
            if let Some(one) = self.placed(from, to, (inside, entry), entries, links)? {
                placed.insert(inside, one);
            }
        }
        if placed.is_empty() {
            return Err(self.nothing(from));
        }
        Ok(self.shared_out(to, placed))
    }

    /// What stands at one path of a folder; folders that hold something come with what they hold.
    fn placed(
        &self,
        from: &RelPath,
        to: &str,
        (inside, entry): (&str, &ListedEntry),
        all: &BTreeMap<String, ListedEntry>,
        links: Links,
    ) -> Result<Option<Placed>, Problem> {
        let named = |what: FileWhat, mode: u32, text: String| Placed {
            entry: FileEntry { path: target(to, Some(inside)), mode, uid: 0, gid: 0, what },
            input: (format!("{from}/{inside}"), Input::Value { text }),
            size: 0,
        };
        let unusable = |why: &str| self.problem(format!("{from}/{inside}: {why}"), "see fleetctl check".to_owned());
        Ok(match entry {
            ListedEntry::File(file) => {
                let path = from.join(inside).map_err(|why| unusable(&why.to_string()))?;
                Some(placed_file(&path, to, Some(inside), *file))
            }
            ListedEntry::Folder => {
                let below = format!("{inside}/");
                let empty = all.range(below.clone()..).next().is_none_or(|(next, _)| !next.starts_with(&below));
                // `copy` never brought empty folders.
                (empty && links == Links::Kept).then(|| named(FileWhat::Dir, 0o755, "an empty folder".to_owned()))
            }
            ListedEntry::Link(to) => Some(named(FileWhat::Symlink(to.clone()), 0o777, format!("a link to {to}"))),
            ListedEntry::Refused(why) => return Err(unusable(why)),
        })
    }

    fn shared_out(&self, to: &str, placed: BTreeMap<&str, Placed>) -> Vec<Part> {
        let sizes: Vec<(&str, u64)> = placed.iter().map(|(path, one)| (*path, one.size)).collect();
        let units = split::folder_units(&sizes, split::BYTES);
        let buckets = split::buckets(&units, split::BYTES);
        let homes =
            buckets.iter().enumerate().flat_map(|(at, bucket)| bucket.units.iter().map(move |unit| (*unit, at)));
        let homes: BTreeMap<&str, usize> = homes.collect();
        let mut shares: Vec<_> = buckets.iter().map(|_| (Vec::new(), Vec::new())).collect();
        for (path, one) in placed {
            let unit = split::unit_of(path, |name| homes.contains_key(name));
            if let Some((entries, inputs)) = unit.and_then(|unit| shares.get_mut(*homes.get(unit)?)) {
                entries.push(one.entry);
                inputs.push(one.input);
            }
        }
        let named = buckets.into_iter().map(|bucket| (!bucket.bits.is_empty()).then_some(bucket.bits));
        named
            .zip(shares)
            .map(|(name, (mut entries, inputs))| {
                entries.sort();
                part(name, to, entries, inputs, self.packing())
            })
            .collect()
    }

    fn nothing(&self, from: &RelPath) -> Problem {
        self.problem(format!("{from} has no files"), "an empty copy is never meant".to_owned())
    }

    fn render(&self, path: &RelPath, file: &SourceFile) -> Result<String, Problem> {
        let environment = self.inputs.environment;
        let context = json!({
            "fleet": {"name": self.inputs.model.fleet.name, "domain": self.inputs.model.fleet.domain},
            "environment": {
                "name": environment.name,
                "homeserver": {"port": environment.homeserver.port},
                "web": environment.web.as_ref().map(|web| json!({"port": web.port})),
            },
        });
        let text = file.text().ok_or_else(|| {
            self.problem(format!("{path} is to be rendered and is not text"), "drop render=#true".to_owned())
        })?;
        template::render_text(path, text, &context).map_err(|e| Problem {
            code: late::TEMPLATE,
            origin: e.origin(),
            ..self.problem(e.to_string(), "it may use fleet.* and environment.*".to_owned())
        })
    }
}

fn placed_file(path: &RelPath, to: &str, inside: Option<&str>, file: ListedFile) -> Placed {
    let hash = Hash::from_bytes(file.hash);
    let what = FileWhat::Source { path: path.to_string(), blake3: hash.to_string(), size: file.size };
    Placed {
        entry: FileEntry { path: target(to, inside), mode: mode(file.executable), uid: 0, gid: 0, what },
        input: (path.to_string(), Input::File { path: path.clone(), hash, executable: file.executable }),
        size: file.size,
    }
}

/// Where a file of a folder lands; a single file lands at `to` itself.
fn target(to: &str, inside: Option<&str>) -> String {
    inside.map_or_else(|| to.to_owned(), |inside| format!("{}/{inside}", to.trim_end_matches('/')))
}

const fn mode(executable: bool) -> u32 {
    if executable { 0o755 } else { 0o644 }
}

fn part(
    name: Option<String>,
    to: &str,
    entries: Vec<FileEntry>,
    files: Vec<(String, Input)>,
    packing: Packing,
) -> Part {
    let recipe = LayerRecipe::Files { entries };
    let mut inputs = value_inputs(recipe.packing_hash_inputs(packing));
    inputs.push(("to".to_owned(), Input::Value { text: to.to_owned() }));
    inputs.extend(files);
    Part { name, recipe, inputs, needs_below: false }
}
