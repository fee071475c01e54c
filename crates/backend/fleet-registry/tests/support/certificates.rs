//! Keys and certificates of one test, made by `openssl`.

#![allow(dead_code, reason = "shared by several test binaries")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Runs `openssl` in a folder; words are separated by spaces.
pub fn openssl(folder: &Path, arguments: &str) {
    let mut command = Command::new("openssl");
    let output = command.args(arguments.split(' ')).current_dir(folder).output().expect("openssl is installed");
    assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A certificate that signs itself: `NAME.pem` with `NAME.key` in the folder.
pub fn self_signed(folder: &Path, name: &str) -> PathBuf {
    openssl(
        folder,
        &format!("req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN={name} -keyout {name}.key -out {name}.pem"),
    );
    folder.join(format!("{name}.pem"))
}

/// A corporate CA that nobody knows, and a certificate of it for an address.
pub struct Authority {
    /// The CA's certificate.
    pub ca: PathBuf,
    /// What a registry's `http` section says to use the other.
    pub http: String,
}

impl Authority {
    pub fn for_address(folder: &Path, address: &str) -> Self {
        let ca = self_signed(folder, "corporate");
        fs::write(folder.join("san"), format!("subjectAltName=IP:{address}\n")).unwrap();
        openssl(folder, "req -newkey rsa:2048 -nodes -subj /CN=registry -keyout tls.key -out tls.csr");
        openssl(
            folder,
            "x509 -req -in tls.csr -CA corporate.pem -CAkey corporate.key -CAcreateserial -days 2 -extfile san -out tls.pem",
        );
        let at = |name: &str| folder.join(name).display().to_string();
        Self { ca, http: format!(", tls: {{certificate: {}, key: {}}}", at("tls.pem"), at("tls.key")) }
    }
}
