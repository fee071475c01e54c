//! Release files: fetched, their signature checked, and the package indexes they name.

use std::{
    io::{Cursor, Read, Write as _},
    process::Stdio,
};

use deb822_fast::Paragraph;
use fleet_oci::{Digest, Platform};
use tokio::process::Command;

use super::{DebianError, index_file};
use crate::{
    fetch::{FetchError, Wanted, shown},
    realize::Workshop,
};

/// An unpacked package index larger than this is refused.
const MAXIMUM_INDEX: u64 = 512 << 20;

/// A Release file that was read.
pub(super) struct Release {
    fields: Paragraph,
    /// Why its signature was not checked, if it was not.
    pub unverified: Option<String>,
}

impl Release {
    /// `Date`, as written.
    pub fn date(&self) -> String {
        self.fields.get("Date").unwrap_or_default().to_owned()
    }

    /// SHA-256 and size of an index.
    fn index(&self, path: &str) -> Option<(Digest, u64)> {
        let lines = self.fields.get("SHA256")?.lines();
        let mut rows = lines.map(|line| line.split_whitespace().collect::<Vec<_>>());
        let row = rows.find(|row| row.len() == 3 && row[2] == path)?;
        Some((Digest::from_sha256_hex(row[0]).ok()?, row[1].parse().ok()?))
    }
}

/// The suites that make up a release: archive, suite, and whether it must exist (unstable has no updates).
pub(super) fn suites(suite: &str) -> [(&'static str, String, bool); 3] {
    [
        ("debian", suite.to_owned(), true),
        ("debian", format!("{suite}-updates"), false),
        ("debian-security", format!("{suite}-security"), false),
    ]
}

pub(super) async fn fetch(workshop: &Workshop, archive: &str, suite: &str) -> Result<Release, DebianError> {
    let url = format!("{}/dists/{suite}/InRelease", workshop.sources.archive(archive));
    let signed = workshop.fetcher.answer(&url, "*/*").await?;
    let (text, unverified) = match verified(workshop, &url, &signed).await? {
        Checked::Good(text) => (text, None),
        Checked::Impossible(why) => (cleartext(&String::from_utf8_lossy(&signed)), Some(why)),
    };
    let fields = text
        .parse()
        .map_err(|error: deb822_fast::Error| DebianError::Malformed { url: shown(&url), why: error.to_string() })?;
    Ok(Release { fields, unverified })
}

/// The package index of `main` for an architecture, as text.
pub(super) async fn packages(
    workshop: &Workshop,
    (archive, suite): (&str, &str),
    release: &Release,
    platform: Platform,
) -> Result<String, DebianError> {
    let base = format!("{}/dists/{suite}", workshop.sources.archive(archive));
    let folder = format!("main/binary-{}", platform.architecture());
    let path = format!("{folder}/Packages.xz");
    let malformed = |why: String| DebianError::Malformed { url: format!("{}/{path}", shown(&base)), why };
    let (digest, size) =
        release.index(&path).ok_or_else(|| malformed("its Release file does not list it".to_owned()))?;
    // By hash first: the plain path may already be the next index while this Release is a cached one.
    let urls = vec![format!("{base}/{folder}/by-hash/SHA256/{}", digest.hex()), format!("{base}/{path}")];
    let packed = index_file(workshop, Wanted { name: format!("package index of {suite}"), digest, size, urls }).await?;
    let mut text = String::new();
    let unpacked = xz2::read::XzDecoder::new_multi_decoder(Cursor::new(packed));
    unpacked.take(MAXIMUM_INDEX).read_to_string(&mut text).map_err(|error| malformed(error.to_string()))?;
    Ok(text)
}

enum Checked {
    /// The signed text, and nothing around it.
    Good(String),
    /// This machine cannot check signatures.
    Impossible(String),
}

/// Has gpgv (apt's own checker) check the signature and takes only what it says was signed.
async fn verified(workshop: &Workshop, url: &str, signed: &[u8]) -> Result<Checked, DebianError> {
    let keyring = &workshop.sources.debian_keyring;
    if !keyring.is_file() {
        return Ok(Checked::Impossible(format!("there is no keyring at {}", keyring.display())));
    }
    let mut file = tempfile::NamedTempFile::new().map_err(FetchError::from)?;
    file.write_all(signed).map_err(FetchError::from)?;
    let mut gpgv = Command::new("gpgv");
    gpgv.arg("--keyring").arg(keyring).args(["--output", "-"]).arg(file.path());
    let output = match gpgv.stdin(Stdio::null()).kill_on_drop(true).output().await {
        Ok(output) => output,
        Err(error) => return Ok(Checked::Impossible(format!("gpgv cannot be run: {error}"))),
    };
    if output.status.success() {
        return Ok(Checked::Good(String::from_utf8_lossy(&output.stdout).into_owned()));
    }
    let why = String::from_utf8_lossy(&output.stderr).lines().last().unwrap_or("gpgv refused it").to_owned();
    Err(DebianError::Signature { url: shown(url), keyring: keyring.display().to_string(), why })
}

/// The text inside the signature's armour.
fn cleartext(signed: &str) -> String {
    let body = signed.split_once("\n\n").map_or(signed, |(_, body)| body);
    let body = body.split("\n-----BEGIN PGP SIGNATURE-----").next().unwrap_or_default();
    let lines = body.lines().map(|line| line.strip_prefix("- ").unwrap_or(line));
    lines.fold(String::new(), |text, line| text + line + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_names_its_indexes_by_hash() {
        let hash = "0".repeat(64);
        let signed = format!(
            "-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nSuite: stable\nDate: Sat, 06 Sep 2026 10:00:00 UTC\nSHA256:\n {hash} 42 main/binary-amd64/Packages.xz\n-----BEGIN PGP SIGNATURE-----\n\nxyz\n"
        );
        let release = Release { fields: cleartext(&signed).parse().unwrap(), unverified: None };
        assert_eq!(release.date(), "Sat, 06 Sep 2026 10:00:00 UTC");
        assert_eq!(release.index("main/binary-amd64/Packages.xz").unwrap().1, 42);
        assert!(release.index("main/binary-arm64/Packages.xz").is_none());
    }
}
