//! [`archive`]: the tar that puts a container's files into it before it starts, secrets included.
//!
//! The files live in the container's own writable layer, so a restart keeps them and nothing else sees them: no
//! volume, label, environment variable or argument. Folders that do not exist are made by the engine, 0755 and root's;
//! folders that exist keep their mode, which is why the archive names files only.

use std::collections::BTreeSet;

use bytes::Bytes;
use fleet_apply::Secrets;
use fleet_plan::{Content, PlacedFile, SECRET_PLACE, SecretUse};

/// Why the archive could not be written.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    /// A path that does not start at the root of the container, or climbs.
    #[error("{path}: a placed file needs an absolute path without `..`")]
    BadPath {
        /// Which.
        path: String,
    },
    /// The tar could not be written.
    #[error("{path}: {source}")]
    Tar {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
}

/// An archive to unpack at `/`. Times are zero; modes and owners are as declared. Secrets are resolved here and nowhere
/// before.
///
/// # Errors
/// [`ArchiveError`]; it never repeats contents.
pub fn archive(files: &[PlacedFile], secrets: &Secrets) -> Result<Bytes, ArchiveError> {
    let mut tar = tar::Builder::new(Vec::new());
    for file in files {
        match &file.content {
            Content::Text { text } => append(&mut tar, file, text.as_bytes())?,
            Content::Secret { secret } => append(&mut tar, file, secrets.resolve(secret).expose())?,
            Content::Filled { text, secret } => {
                let (before, after) = text.split_once(SECRET_PLACE).unwrap_or((text, ""));
                let secret = secrets.resolve(secret);
                append(&mut tar, file, &[before.as_bytes(), secret.expose(), after.as_bytes()].concat())?;
            }
        }
    }
    finish(tar)
}

/// An archive of one text that everybody may read.
///
/// # Errors
/// [`ArchiveError`].
pub(crate) fn archive_text(path: &str, text: &str) -> Result<Bytes, ArchiveError> {
    let content = Content::Text { text: "".into() };
    let file = PlacedFile { path: path.to_owned(), mode: 0o444, uid: 0, gid: 0, content };
    let mut tar = tar::Builder::new(Vec::new());
    append(&mut tar, &file, text.as_bytes())?;
    finish(tar)
}

fn finish(tar: tar::Builder<Vec<u8>>) -> Result<Bytes, ArchiveError> {
    let bytes = tar.into_inner().map_err(|source| ArchiveError::Tar { path: "/".to_owned(), source })?;
    Ok(bytes.into())
}

fn append(tar: &mut tar::Builder<Vec<u8>>, file: &PlacedFile, bytes: &[u8]) -> Result<(), ArchiveError> {
    let climbs = |p: &&str| p.split('/').any(|part| part.is_empty() || part == "." || part == "..");
    let relative = file.path.strip_prefix('/').filter(|p| !climbs(p));
    let relative = relative.ok_or_else(|| ArchiveError::BadPath { path: file.path.clone() })?;
    let mut header = tar::Header::new_gnu();
    header.set_mode(file.mode);
    header.set_uid(file.uid.into());
    header.set_gid(file.gid.into());
    header.set_size(bytes.len() as u64);
    tar.append_data(&mut header, relative, bytes)
        .map_err(|source| ArchiveError::Tar { path: file.path.clone(), source })
}

/// Names of the operator's secrets that `files` are to hold and that the operator has not given.
pub(crate) fn not_given(files: &[PlacedFile], secrets: &Secrets) -> BTreeSet<String> {
    let wanted = files.iter().filter_map(|file| match file.content.secret() {
        Some(SecretUse::Operator { name }) => Some(name),
        _ => None,
    });
    wanted.filter(|name| !secrets.operator.contains_key(*name)).cloned().collect()
}

/// Replaces every secret of `files` in lines that a container printed: a crashing program may print its configuration.
#[must_use]
pub fn redact(lines: Vec<String>, files: &[PlacedFile], secrets: &Secrets) -> Vec<String> {
    let values: Vec<_> =
        files.iter().filter_map(|file| file.content.secret()).map(|secret| secrets.resolve(secret)).collect();
    let hide = |line: String| {
        values
            .iter()
            .filter_map(|v| v.expose_str().ok())
            .map(str::trim)
            .filter(|v| !v.is_empty())
            .fold(line, |line, value| line.replace(value, "<secret>"))
    };
    lines.into_iter().map(hide).collect()
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, io::Read};

    use fleet_secret::{FleetSecret, Secret};

    use super::*;

    fn secrets() -> Secrets {
        let fleet = FleetSecret::new(Secret::new("0123456789abcdef")).expect("long enough");
        Secrets { fleet, operator: BTreeMap::from([("KEY".to_owned(), Secret::new("operator-value"))]) }
    }
    fn file(path: &str, content: Content) -> PlacedFile {
        PlacedFile { path: path.to_owned(), mode: 0o400, uid: 7, gid: 8, content }
    }
    fn operator() -> Content {
        Content::Secret { secret: SecretUse::Operator { name: "KEY".to_owned() } }
    }

    #[test]
    fn files_keep_their_mode_and_owner_and_secrets_are_resolved_only_here() {
        let long = format!("/run/{}/key", "d".repeat(150));
        let files = [file("/etc/a.json", Content::Text { text: "{}".into() }), file(&long, operator())];
        let bytes = archive(&files, &secrets()).expect("an archive");
        let mut seen = Vec::new();
        for entry in tar::Archive::new(&bytes[..]).entries().expect("entries") {
            let mut entry = entry.expect("an entry");
            let header = entry.header().clone();
            let meta = (header.mode().expect("mode"), header.uid().expect("uid"), header.gid().expect("gid"));
            assert_eq!(meta, (0o400, 7, 8));
            let mut text = String::new();
            let path = entry.path().expect("path").display().to_string();
            entry.read_to_string(&mut text).expect("text");
            seen.push((format!("/{path}"), text));
        }
        assert_eq!(seen, [("/etc/a.json".to_owned(), "{}".to_owned()), (long, "operator-value".to_owned())]);
    }

    #[test]
    fn text_around_a_secret_is_filled_in_only_in_the_archive() {
        let text = format!("token = \"{SECRET_PLACE}\"\n");
        let secret = SecretUse::Operator { name: "KEY".to_owned() };
        let files = [file("/fleet/x.toml", Content::Filled { text, secret })];
        let bytes = archive(&files, &secrets()).expect("an archive");
        let written = String::from_utf8_lossy(&bytes).into_owned();
        assert!(written.contains("token = \"operator-value\"\n"), "{written}");
        assert_eq!(redact(vec!["is operator-value".to_owned()], &files, &secrets()), ["is <secret>"]);
    }

    #[test]
    fn secrets_that_the_operator_did_not_give_are_known_by_name() {
        let absent = Content::Secret { secret: SecretUse::Operator { name: "LATER".to_owned() } };
        let files = [file("/k", operator()), file("/l", absent)];
        assert_eq!(not_given(&files, &secrets()), BTreeSet::from(["LATER".to_owned()]));
    }

    #[test]
    fn a_path_that_climbs_or_is_relative_is_refused() {
        for path in ["etc/a", "/etc/../../a", "/", "//a"] {
            let files = [file(path, Content::Text { text: "".into() })];
            assert!(matches!(archive(&files, &secrets()), Err(ArchiveError::BadPath { .. })), "{path}");
        }
    }

    #[test]
    fn a_secret_that_a_crashing_program_printed_is_not_passed_on() {
        let lines = redact(vec!["password=operator-value!".to_owned()], &[file("/k", operator())], &secrets());
        assert_eq!(lines, ["password=<secret>!"]);
    }
}
