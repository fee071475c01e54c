//! Looks for secrets in everything that was written or printed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// As many characters of a secret in a row are a leak.
const PIECE: usize = 8;

/// What must be nowhere.
#[derive(Default)]
pub struct Secrets(Vec<(String, Vec<u8>)>);

impl Secrets {
    /// Adds a secret; `name` is how a finding calls it.
    ///
    /// # Panics
    /// When it is too short to be looked for.
    pub fn add(&mut self, name: &str, value: &[u8]) {
        assert!(value.len() >= 2 * PIECE, "{name} is no secret to look for: {} bytes", value.len());
        self.0.push((name.to_owned(), value.to_vec()));
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The name of a secret of which a piece is in these bytes.
    #[must_use]
    pub fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        let mut pieces: Vec<(&[u8], &str)> =
            self.0.iter().flat_map(|(name, value)| value.windows(PIECE).map(|piece| (piece, name.as_str()))).collect();
        pieces.sort_unstable();
        // One pass over what may be long, a few steps for each place.
        bytes.windows(PIECE).find_map(|window| {
            let at = pieces.binary_search_by(|(piece, _)| (*piece).cmp(window)).ok()?;
            Some(pieces[at].1)
        })
    }

    /// Fails the test when a piece of a secret is in these bytes.
    #[track_caller]
    pub fn absent_from(&self, place: &str, bytes: &[u8]) {
        if let Some(name) = self.found_in(bytes) {
            panic!("a piece of {name} is in {place}");
        }
    }

    /// Fails the test when a piece of a secret is in a file below a folder, also in compressed ones, or in its name.
    /// Returns how many files were looked at.
    #[track_caller]
    pub fn absent_below(&self, folder: &Path) -> usize {
        let files = files(folder);
        for file in &files {
            self.absent_from("the name of a file", file.to_string_lossy().as_bytes());
            let bytes = fs::read(file).expect("a file that is there");
            self.absent_from(&file.display().to_string(), &bytes);
            if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                let plain = zstd::decode_all(&bytes[..]).expect("what begins like zstd is zstd");
                self.absent_from(&format!("{} (decompressed)", file.display()), &plain);
            }
        }
        files.len()
    }
}

/// Every file below a folder.
#[must_use]
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder that is there") {
        let path = entry.expect("an entry").path();
        // Through links too: parts of a test's `.fleet/` are shared.
        if path.is_dir() { found.extend(files(&path)) } else if path.is_file() { found.push(path) }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_characters_of_a_secret_are_found_and_seven_are_not() {
        let mut secrets = Secrets::default();
        secrets.add("the key", b"0123456789abcdef");
        assert_eq!(secrets.found_in(b"xx 456789ab yy"), Some("the key"));
        assert_eq!(secrets.found_in(b"xx 456789a yy"), None);
        assert_eq!(secrets.found_in(b"short"), None);
    }
}
