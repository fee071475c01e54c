//! [`Index`]: the packages of a release by name and by what they provide.

use std::{collections::BTreeMap, io::Cursor};

use deb822_fast::{Deb822, Paragraph};
use debian_control::{
    lossy::{Relation, Relations},
    relations::VersionConstraint,
};
use debversion::Version;
use fleet_oci::{Digest, lock::DebPin};

/// A package that could be taken.
pub(super) struct Candidate {
    pub pin: DebPin,
    version: Version,
    /// Alternatives of each dependency, `Pre-Depends` first, as written.
    needs: Vec<String>,
    provides: Vec<Relation>,
    /// 0 for required … 4 for extra.
    priority: usize,
}

/// Newest candidate of each name, and who provides which virtual name.
#[derive(Default)]
pub(super) struct Index {
    packages: BTreeMap<String, Candidate>,
    /// Virtual name → packages.
    providers: BTreeMap<String, Vec<String>>,
}

impl Index {
    /// Takes over the packages of one archive's index.
    pub fn add(&mut self, archive: &str, text: &str) -> Result<(), String> {
        for paragraph in Deb822::iter_paragraphs_from_reader(Cursor::new(text)) {
            let paragraph = paragraph.map_err(|error| error.to_string())?;
            let name = paragraph.get("Package").unwrap_or("a package without a name");
            let candidate = Candidate::read(archive, &paragraph).map_err(|why| format!("{name}: {why}"))?;
            if self.packages.get(name).is_none_or(|old| candidate.version > old.version) {
                for provided in &candidate.provides {
                    self.providers.entry(provided.name.clone()).or_default().push(name.to_owned());
                }
                self.packages.insert(name.to_owned(), candidate);
            }
        }
        Ok(())
    }

    pub fn get(&self, name: &str) -> Option<&Candidate> {
        self.packages.get(name)
    }

    /// A name that contains this one or is contained in it, of the nearest length.
    pub fn nearest(&self, name: &str) -> Option<String> {
        let near = |other: &&String| other.contains(name) || name.contains(other.as_str());
        self.packages.keys().filter(near).min_by_key(|other| other.len().abs_diff(name.len())).cloned()
    }

    /// The best package that fulfils one alternative: the one of that name, else the most important provider.
    pub fn best(&self, wanted: &Relation) -> Option<&Candidate> {
        let own = self.packages.get(&wanted.name).filter(|own| own.is(wanted));
        own.or_else(|| {
            let names = self.providers.get(&wanted.name).into_iter().flatten();
            let providers = names.filter_map(|name| self.packages.get(name));
            let fitting = providers.filter(|provider| provider.stands_in_for(wanted));
            fitting.min_by(|a, b| (a.priority, &a.pin.name).cmp(&(b.priority, &b.pin.name)))
        })
    }
}

impl Candidate {
    fn read(archive: &str, paragraph: &Paragraph) -> Result<Self, String> {
        let field = |name: &str| {
            let value = paragraph.get(name).map(str::trim).filter(|value| !value.is_empty());
            value.ok_or_else(|| format!("no {name}"))
        };
        let version = field("Version")?;
        let priorities = ["required", "important", "standard", "optional"];
        let priority = field("Priority").unwrap_or("extra");
        let needs = ["Pre-Depends", "Depends"].into_iter().filter_map(|name| field(name).ok()).map(str::to_owned);
        let provides = field("Provides").map_or(Ok(Vec::new()), relations)?;
        Ok(Self {
            version: version.parse().map_err(|_| format!("the version {version} is none"))?,
            pin: DebPin {
                name: field("Package")?.to_owned(),
                version: version.to_owned(),
                architecture: field("Architecture")?.to_owned(),
                archive: archive.to_owned(),
                pool_path: field("Filename")?.to_owned(),
                size: field("Size")?.parse().map_err(|_| "a Size that is no number".to_owned())?,
                sha256: Digest::from_sha256_hex(field("SHA256")?).map_err(|error| error.to_string())?,
            },
            needs: needs.collect(),
            provides: provides.into_iter().flatten().collect(),
            priority: priorities.iter().position(|known| *known == priority).unwrap_or(priorities.len()),
        })
    }

    /// Alternatives of each dependency. Read only for packages that are taken: an index has sixty thousand.
    pub fn needs(&self) -> Result<Vec<Vec<Relation>>, String> {
        let mut all = Vec::new();
        for field in &self.needs {
            all.extend(relations(field)?);
        }
        Ok(all)
    }

    /// Whether this package, by its own name and version, is what is wanted.
    pub fn is(&self, wanted: &Relation) -> bool {
        self.pin.name == wanted.name && fits(wanted, &self.version)
    }

    /// Whether it provides what is wanted; a version is only matched by a provided version (Debian policy 7.5).
    pub fn stands_in_for(&self, wanted: &Relation) -> bool {
        let mut provided = self.provides.iter().filter(|provided| provided.name == wanted.name);
        provided.any(|provided| match &provided.version {
            Some((_, version)) => fits(wanted, version),
            None => wanted.version.is_none(),
        })
    }
}

fn fits(wanted: &Relation, version: &Version) -> bool {
    wanted.version.as_ref().is_none_or(|(constraint, bound)| match constraint {
        VersionConstraint::LessThan => version < bound,
        VersionConstraint::LessThanEqual => version <= bound,
        VersionConstraint::Equal => version == bound,
        VersionConstraint::GreaterThanEqual => version >= bound,
        VersionConstraint::GreaterThan => version > bound,
    })
}

fn relations(text: &str) -> Result<Vec<Vec<Relation>>, String> {
    text.parse::<Relations>().map(|relations| relations.0).map_err(|error| format!("{text}: {error}"))
}
