//! Looks for secrets in everything that was written or printed.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// As many characters of a secret in a row are a leak.
const PIECE: usize = 8;

/// Within a longer run of hexadecimal digits eight that agree are chance: of a few hundred pieces one is in some hash
/// every few runs. As many in a row are not.
const PIECE_OF_HASH: usize = 12;

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

    /// Of these secrets the one of this name.
    #[must_use]
    pub fn only(&self, name: &str) -> Self {
        Self(self.0.iter().filter(|(known, _)| known == name).cloned().collect())
    }

    /// These secrets but for those of these names.
    #[must_use]
    pub fn without(&self, names: &[&str]) -> Self {
        Self(self.0.iter().filter(|(known, _)| !names.contains(&known.as_str())).cloned().collect())
    }

    /// The name of a secret of which a piece is in these bytes.
    #[must_use]
    pub fn found_in(&self, bytes: &[u8]) -> Option<&str> {
        let mut pieces: Vec<(&[u8], usize, usize)> = Vec::new();
        let mut begins = vec![false; 1 << 16]; // what may be long is passed over two bytes at a time
        for (index, (_, value)) in self.0.iter().enumerate() {
            for (at, piece) in value.windows(PIECE).enumerate() {
                begins[usize::from(piece[0]) << 8 | usize::from(piece[1])] = true;
                pieces.push((piece, index, at));
            }
        }
        pieces.sort_unstable();
        bytes.windows(PIECE).enumerate().find_map(|(place, window)| {
            if !begins[usize::from(window[0]) << 8 | usize::from(window[1])] {
                return None;
            }
            let found = pieces.binary_search_by(|(piece, ..)| (*piece).cmp(window)).ok()?;
            let (_, index, at) = pieces[found];
            let (name, value) = &self.0[index];
            is_leak(bytes, place, value, at).then_some(name.as_str())
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
            let bytes = match fs::read(file) {
                // Another test shares the store, and its drafts come and go.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
                read => read.expect("a file that can be read"),
            };
            self.absent_from(&file.display().to_string(), &bytes);
            if bytes.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
                let plain = zstd::decode_all(&bytes[..]).expect("what begins like zstd is zstd");
                self.absent_from(&format!("{} (decompressed)", file.display()), &plain);
            }
        }
        files.len()
    }
}

/// Eight bytes agree, at `place` of what was searched and at `at` of the secret: is that more than chance?
fn is_leak(bytes: &[u8], place: usize, secret: &[u8], at: usize) -> bool {
    let left = secret[..at].iter().rev().zip(bytes[..place].iter().rev()).take_while(|(a, b)| a == b).count();
    let right = secret[at..].iter().zip(&bytes[place..]).take_while(|(a, b)| a == b).count();
    let is_digit = |at: Option<usize>| at.and_then(|at| bytes.get(at)).is_some_and(u8::is_ascii_hexdigit);
    let in_hash = is_digit((place - left).checked_sub(1)) || is_digit(Some(place + right));
    let only_digits = bytes[place..place + PIECE].iter().all(u8::is_ascii_hexdigit);
    left + right >= PIECE_OF_HASH || !(in_hash && only_digits)
}

/// Every file below a folder.
#[must_use]
pub fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder that is there") {
        let path = entry.expect("an entry").path();
        // Through links too: parts of a test's `.fleet/` are shared.
        if path.is_dir() {
            found.extend(files(&path))
        } else if path.is_file() {
            found.push(path)
        }
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
        assert_eq!(secrets.found_in(b"a hash, 77456789ab77"), None);
        assert_eq!(secrets.found_in(b"no hash, 77456789abcdef77"), Some("the key"));
    }
}
