//! [`Sources`]: where this machine gets its packages, as its own tools are configured.

use std::{env, fs, path::PathBuf};

const DEBIAN: &str = "http://deb.debian.org/debian";
const DEBIAN_SECURITY: &str = "http://deb.debian.org/debian-security";
const SNAPSHOT: &str = "https://snapshot.debian.org";
const NPM: &str = "https://registry.npmjs.org";
const PYPI: &str = "https://pypi.org/simple";

/// Addresses, none with a slash at its end. They may carry credentials: show them only through error messages.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sources {
    /// The archive `debian` (a suite and its `-updates`).
    pub debian: String,
    /// The archive `debian-security`.
    pub debian_security: String,
    /// Where packages that left the mirrors are found.
    pub debian_snapshot: String,
    /// Keys that sign Debian's archives; the file may be absent.
    pub debian_keyring: PathBuf,
    /// npm registry.
    pub npm: String,
    /// Python package index, the simple API.
    pub pip: String,
}

impl Default for Sources {
    /// What each tool uses when nothing is configured.
    fn default() -> Self {
        Self {
            debian: DEBIAN.to_owned(),
            debian_security: DEBIAN_SECURITY.to_owned(),
            debian_snapshot: SNAPSHOT.to_owned(),
            debian_keyring: "/usr/share/keyrings/debian-archive-keyring.gpg".into(),
            npm: NPM.to_owned(),
            pip: PYPI.to_owned(),
        }
    }
}

impl Sources {
    /// Reads the machine's configuration: `FLEET_DEBIAN_MIRROR`, `FLEET_DEBIAN_SECURITY_MIRROR`,
    /// `FLEET_DEBIAN_SNAPSHOT` and apt's sources; `npm_config_registry` and `.npmrc`; `PIP_INDEX_URL` and `pip.conf`.
    #[must_use]
    pub fn from_machine() -> Self {
        let mut sources = Self::default();
        for line in apt_lines() {
            sources.take_apt(&line);
        }
        let home = env::var("HOME").unwrap_or_default();
        for file in ["/etc/npmrc".to_owned(), format!("{home}/.npmrc")] {
            set(&mut sources.npm, setting(&read(&file), "registry"));
        }
        set(&mut sources.npm, variable(&["npm_config_registry", "NPM_CONFIG_REGISTRY"]));
        for file in
            ["/etc/pip.conf".to_owned(), format!("{home}/.pip/pip.conf"), format!("{home}/.config/pip/pip.conf")]
        {
            set(&mut sources.pip, setting(&read(&file), "index-url"));
        }
        set(&mut sources.pip, variable(&["PIP_INDEX_URL"]));
        set(&mut sources.debian, variable(&["FLEET_DEBIAN_MIRROR"]));
        set(&mut sources.debian_security, variable(&["FLEET_DEBIAN_SECURITY_MIRROR"]));
        set(&mut sources.debian_snapshot, variable(&["FLEET_DEBIAN_SNAPSHOT"]));
        sources
    }

    /// The address of an archive by the name that the lock gives it.
    #[must_use]
    pub fn archive(&self, name: &str) -> &str {
        if name == "debian-security" { &self.debian_security } else { &self.debian }
    }

    /// Takes a mirror of Debian's own archives; other archives (and other distributions) say nothing to us.
    fn take_apt(&mut self, address: &str) {
        let address = address.trim_end_matches('/');
        if address.ends_with("/debian") {
            self.debian = address.to_owned();
        } else if address.ends_with("/debian-security") {
            self.debian_security = address.to_owned();
        }
    }
}

fn set(target: &mut String, value: Option<String>) {
    if let Some(value) = value {
        *target = value.trim_end_matches('/').to_owned();
    }
}

fn variable(names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| env::var(name).ok()).filter(|value| !value.is_empty())
}

fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// `key = value` of an ini file, whatever its section; the last one counts.
fn setting(text: &str, key: &str) -> Option<String> {
    text.lines()
        .filter_map(|line| line.split_once('='))
        .filter(|(name, _)| name.trim() == key)
        .map(|(_, value)| value.trim().trim_matches('"').to_owned())
        .rfind(|value| !value.is_empty())
}

/// Addresses in apt's sources, both formats.
fn apt_lines() -> Vec<String> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(folder) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(folder.filter_map(Result::ok).map(|entry| entry.path()));
    }
    files.sort();
    files.iter().flat_map(|file| addresses(&fs::read_to_string(file).unwrap_or_default())).collect()
}

fn addresses(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for line in text.lines() {
        let line = line.trim();
        if let Some(uris) = line.strip_prefix("URIs:") {
            found.extend(uris.split_whitespace().map(str::to_owned));
        } else if line.starts_with("deb ") {
            found.extend(line.split_whitespace().find(|word| word.contains("://")).map(str::to_owned));
        }
    }
    found.retain(|address| address.starts_with("http://") || address.starts_with("https://"));
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn apt_sources_of_both_formats_give_the_mirrors() {
        let text = "Types: deb\nURIs: http://mirror.example/debian/\nSuites: bookworm\n\n# deb http://no/debian x\ndeb [signed-by=/k] https://sec.example/debian-security bookworm-security main\ndeb https://other.example/node nodistro main\n";
        let mut sources = Sources::default();
        addresses(text).iter().for_each(|address| sources.take_apt(address));
        assert_eq!(sources.archive("debian"), "http://mirror.example/debian");
        assert_eq!(sources.archive("debian-security"), "https://sec.example/debian-security");
    }

    #[test]
    fn the_last_setting_of_an_ini_file_counts() {
        let text = "[global]\nindex-url = https://a/simple\n; index-url = x\nindex-url=https://b/simple/\n";
        assert_eq!(setting(text, "index-url").as_deref(), Some("https://b/simple/"));
        assert_eq!(setting(text, "registry"), None);
    }
}
