//! Secret files and [`Scrubber`], which keeps what they hold out of everything that OpenClaw prints.

use std::{
    borrow::Cow,
    collections::BTreeSet,
    fs,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use fleet_secret::Secret;

use crate::settings::{InputError, Settings};

/// So many characters of a secret in a row must never be printed.
const WINDOW: usize = 8;
/// Where the password may be as well: a tmpfs, where the engine offers one.
const RUNTIME_PASSWORD: &str = "/run/fleet/password";

/// The file that holds the password of the agent's account.
pub fn password_path(settings: &Settings) -> PathBuf {
    let runtime = PathBuf::from(RUNTIME_PASSWORD);
    if runtime.exists() { runtime } else { settings.secrets_dir.join("password") }
}

/// Reads a secret file: one line, readable by its owner only.
///
/// # Errors
/// [`InputError`] when it is missing, empty, not text, or readable by group or others. Never shows the contents.
pub fn read(path: &Path, what: &'static str) -> Result<Secret, InputError> {
    let missing = |e: std::io::Error| InputError::Missing { what, path: path.to_owned(), why: e.to_string() };
    let mode = fs::metadata(path).map_err(missing)?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(InputError::wrong(
            path,
            format!("others than its owner may read it (mode {mode:o}); it must be 400"),
        ));
    }
    let mut bytes = fs::read(path).map_err(missing)?;
    while bytes.last().is_some_and(|b| matches!(b, b'\n' | b'\r')) {
        bytes.pop();
    }
    let secret = Secret::new(bytes);
    match secret.expose_str() {
        Ok("") => Err(InputError::wrong(path, "it is empty")),
        Ok(text) if text.contains(['\n', '\0']) => Err(InputError::wrong(path, "it must be a single line")),
        Ok(_) => Ok(secret),
        Err(error) => Err(InputError::wrong(path, error)),
    }
}

/// Reads the file of an operator's secret. `None`: it is empty, because the operator gave none.
///
/// # Errors
/// See [`read`].
pub fn read_if_given(path: &Path, what: &'static str) -> Result<Option<Secret>, InputError> {
    match fs::metadata(path) {
        Ok(file) if file.len() == 0 => Ok(None),
        _ => read(path, what).map(Some),
    }
}

/// `bytes` random bytes as lower-case hex.
///
/// # Errors
/// When the system has no random numbers.
pub fn random(bytes: usize) -> std::io::Result<Secret> {
    use std::io::Read as _;
    let mut buffer = vec![0; bytes];
    fs::File::open("/dev/urandom")?.read_exact(&mut buffer)?;
    Ok(Secret::new(hex::encode(buffer)))
}

/// Replaces every run of eight or more characters of a known secret.
#[derive(Clone, Default)]
pub struct Scrubber {
    windows: BTreeSet<[u8; WINDOW]>,
}

impl Scrubber {
    /// Adds a secret. One of fewer than eight characters is not looked for: it would match by chance.
    pub fn add(&mut self, secret: &Secret) {
        self.windows.extend(secret.expose().windows(WINDOW).filter_map(|w| <[u8; WINDOW]>::try_from(w).ok()));
    }

    /// The line with what is secret in it replaced by `***`.
    pub fn clean<'a>(&self, line: &'a [u8]) -> Cow<'a, [u8]> {
        let hit = |w: &[u8]| <[u8; WINDOW]>::try_from(w).is_ok_and(|w| self.windows.contains(&w));
        if self.windows.is_empty() || !line.windows(WINDOW).any(hit) {
            return Cow::Borrowed(line);
        }
        let mut clean = Vec::with_capacity(line.len());
        let mut secret_until = 0;
        for (at, byte) in line.iter().enumerate() {
            if line.get(at..at + WINDOW).is_some_and(hit) {
                if at >= secret_until {
                    clean.extend_from_slice(b"***");
                }
                secret_until = at + WINDOW;
            }
            if at >= secret_until {
                clean.push(*byte);
            }
        }
        Cow::Owned(clean)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn file(text: &str, mode: u32) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("password");
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        (folder, path)
    }

    #[test]
    fn a_secret_file_is_one_line_for_its_owner_only() {
        let (_keep, path) = file("correct horse\n", 0o400);
        assert_eq!(read(&path, "it").unwrap().expose(), b"correct horse");
    }

    #[test]
    fn a_readable_or_empty_secret_is_refused_without_being_shown() {
        for (text, mode, expected) in
            [("correct horse", 0o644, "mode 644"), ("\n", 0o400, "empty"), ("two\nlines", 0o400, "single")]
        {
            let (_keep, path) = file(text, mode);
            let Err(error) = read(&path, "it") else { panic!("accepted {text:?}") };
            assert!(error.to_string().contains(expected) && !error.to_string().contains("horse"), "{error}");
        }
    }

    #[test]
    fn eight_characters_of_a_secret_are_never_passed_on() {
        let mut scrubber = Scrubber::default();
        scrubber.add(&Secret::new("abcdefghijklmnop"));
        assert_eq!(&*scrubber.clean(b"token abcdefghijklmnop."), b"token ***.");
        assert_eq!(&*scrubber.clean(b"token cdefghijkl!"), b"token ***!");
        assert_eq!(&*scrubber.clean(b"token abcdefg"), b"token abcdefg");
    }
}
