//! [`solve`]: the packages that are asked for, with everything they need.

use std::collections::{BTreeMap, VecDeque};

use debian_control::lossy::Relation;
use fleet_oci::lock::DebPin;

use super::{
    DebianError, Request,
    index::{Candidate, Index},
};

/// Our root is merged-/usr from the start (`fleet_oci::rootfs`): where Debian offers the choice between the tool that
/// converts a system (with perl) and this statement that it is done, we take the statement.
const MERGED_ALREADY: &str = "usr-is-merged";

/// Breadth first in the order of the request: an alternative that is chosen already is kept, else the first that
/// can be had, else the most important package that provides it. No back-tracking: in a released suite the newest
/// version of each package fits the others.
pub(super) fn solve(index: &Index, request: Request<'_>) -> Result<Vec<DebPin>, DebianError> {
    let mut chosen: BTreeMap<&str, &Candidate> = BTreeMap::new();
    let mut queue = VecDeque::new();
    for name in request.packages {
        let candidate = index.get(name).ok_or_else(|| DebianError::UnknownPackage {
            suite: request.suite.to_owned(),
            name: name.clone(),
            architecture: request.platform.architecture().to_owned(),
            hint: index.nearest(name),
        })?;
        if chosen.insert(&candidate.pin.name, candidate).is_none() {
            queue.push_back(candidate);
        }
    }
    while let Some(candidate) = queue.pop_front() {
        let needs = candidate.needs().map_err(|why| malformed(request.suite, why))?;
        for alternatives in &needs {
            if alternatives.iter().any(|wanted| is_fulfilled(&chosen, wanted)) {
                continue;
            }
            let ours = alternatives.iter().filter(|wanted| wanted.name == MERGED_ALREADY);
            let found = ours.chain(alternatives).find_map(|wanted| index.best(wanted));
            let found = found.ok_or_else(|| unsatisfiable(request.suite, candidate, alternatives))?;
            chosen.insert(&found.pin.name, found);
            queue.push_back(found);
        }
    }
    Ok(chosen.into_values().map(|candidate| candidate.pin.clone()).collect())
}

fn is_fulfilled(chosen: &BTreeMap<&str, &Candidate>, wanted: &Relation) -> bool {
    chosen.values().any(|candidate| candidate.is(wanted) || candidate.stands_in_for(wanted))
}

fn malformed(suite: &str, why: String) -> DebianError {
    DebianError::Malformed { url: format!("the package index of {suite}"), why }
}

fn unsatisfiable(suite: &str, candidate: &Candidate, alternatives: &[Relation]) -> DebianError {
    let needs: Vec<String> = alternatives.iter().map(ToString::to_string).collect();
    DebianError::Unsatisfiable {
        suite: suite.to_owned(),
        package: candidate.pin.name.clone(),
        needs: needs.join(" | "),
    }
}

#[cfg(test)]
mod tests {
    use fleet_oci::Platform;

    use super::*;

    fn index(packages: &[&str]) -> Index {
        let mut text = String::new();
        for (count, fields) in packages.iter().enumerate() {
            text.push_str(fields);
            text.push_str(&format!(
                "\nArchitecture: amd64\nFilename: pool/{count}.deb\nSize: 1\nSHA256: {count:064}\n\n"
            ));
        }
        let mut index = Index::default();
        index.add("debian", &text).unwrap();
        index
    }

    fn names(index: &Index, packages: &[&str]) -> Result<Vec<String>, DebianError> {
        let packages: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
        let request = Request { suite: "bookworm", platform: Platform::LinuxAmd64, packages: &packages };
        Ok(solve(index, request)?.into_iter().map(|pin| format!("{} {}", pin.name, pin.version)).collect())
    }

    #[test]
    fn dependencies_are_followed_through_alternatives_virtual_names_and_circles() {
        let index = index(&[
            "Package: app\nVersion: 1\nPriority: optional\nDepends: missing | lib (>= 2~), awk, python3:any\nPre-Depends: libc6",
            "Package: lib\nVersion: 2~rc1\nPriority: optional\nDepends: app",
            "Package: gawk\nVersion: 1\nPriority: optional\nProvides: awk",
            "Package: mawk\nVersion: 1\nPriority: required\nProvides: awk",
            "Package: python3\nVersion: 3.11\nPriority: optional",
            "Package: libc6\nVersion: 2.36\nPriority: optional",
            "Package: other\nVersion: 1\nPriority: optional",
        ]);
        assert_eq!(names(&index, &["app"]).unwrap(), ["app 1", "lib 2~rc1", "libc6 2.36", "mawk 1", "python3 3.11"]);
        assert_eq!(names(&index, &["gawk", "app"]).unwrap().len(), 5, "a chosen provider is kept");
    }

    #[test]
    fn the_newest_version_wins_as_debian_counts() {
        let index = index(&[
            "Package: a\nVersion: 1:1.9~rc1-1\nPriority: optional",
            "Package: a\nVersion: 1:1.10-1+deb12u2\nPriority: optional",
            "Package: a\nVersion: 1:1.10-1+deb12u1\nPriority: optional",
            "Package: a\nVersion: 2.0-1\nPriority: optional",
        ]);
        assert_eq!(names(&index, &["a"]).unwrap(), ["a 1:1.10-1+deb12u2"]);
    }

    #[test]
    fn what_cannot_be_had_is_named_with_who_wants_it() {
        let index = index(&[
            "Package: a\nVersion: 1\nPriority: optional\nDepends: b (>> 2) | c",
            "Package: b\nVersion: 2\nPriority: optional\nProvides: c-dev",
        ]);
        let message = names(&index, &["a"]).unwrap_err().to_string();
        assert!(message.contains("package a needs b (>> 2) | c"), "{message}");
        let message = names(&index, &["aa"]).unwrap_err().to_string();
        assert!(message.contains("no package aa") && message.contains("did you mean a?"), "{message}");
    }
}
