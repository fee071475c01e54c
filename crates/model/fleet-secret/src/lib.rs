//! The one home of secret values and of everything derived from the fleet secret.
//!
//! [`Secret`] holds bytes that must never be shown; [`FleetSecret`] derives every account password and
//! every service key from one value, so that nothing has to be stored or exchanged.
//!
//! Deliberately absent: `Display`, `Debug`, `Serialize`, `Deserialize`, `PartialEq` and any way to read a
//! secret from the environment or a file: the edge does that and hands a value in.

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use zeroize::Zeroizing;

/// Fewer characters than this are refused for a fleet secret: every password in the fleet is derived from it.
pub const MINIMUM_LENGTH: usize = 16;

/// Bytes that reach no log, error, plan, label, argument list or hash. Wiped when dropped.
#[derive(Clone)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes ownership of a secret value.
    #[must_use]
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self(Zeroizing::new(value.into()))
    }

    /// The bytes, for the one place that must use them (a request body, a file that only its owner reads).
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }

    /// The value as text; secrets that people type or that we derive are always UTF-8.
    ///
    /// # Errors
    /// When the bytes are not UTF-8. The error does not carry them.
    pub fn expose_str(&self) -> Result<&str, NotText> {
        std::str::from_utf8(&self.0).map_err(|_| NotText)
    }
}

/// A secret was expected to be text and is not.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("a secret value is not UTF-8 text")]
pub struct NotText;

/// The fleet secret is too short to derive passwords from.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "the fleet secret has {length} characters; at least {MINIMUM_LENGTH} are needed, because every password is derived from it"
)]
pub struct TooShort {
    /// How long the refused value was, in bytes.
    pub length: usize,
}

/// The value that every account password and service key of one environment is derived from.
#[derive(Clone)]
pub struct FleetSecret(Secret);

impl FleetSecret {
    /// Accepts a secret of at least [`MINIMUM_LENGTH`] bytes.
    ///
    /// # Errors
    /// [`TooShort`] otherwise.
    pub fn new(value: Secret) -> Result<Self, TooShort> {
        let length = value.expose().len();
        if length < MINIMUM_LENGTH {
            return Err(TooShort { length });
        }
        Ok(Self(value))
    }

    /// The password of a Matrix account, 32 lower-case hex characters (design §6).
    /// `epoch` starts at 0 and grows when a password must change while the secret stays.
    #[must_use]
    pub fn password(&self, matrix_id: &str, epoch: u32) -> Secret {
        derive_password(&self.0, matrix_id, epoch)
    }

    /// A key for another purpose (registration token, homeserver shared secret…): 64 lower-case hex
    /// characters, independent of every password because the label has its own prefix.
    #[must_use]
    pub fn key_for(&self, label: &str) -> Secret {
        let message = format!("fleetctl/v1/{label}");
        Secret::new(hex_hmac(&self.0, message.as_bytes()))
    }
}

/// `hex(HMAC-SHA256(key = secret, msg = full matrix id))[..32]`, as the replaced system derives it, so that
/// existing accounts keep working. Later epochs extend the message.
#[must_use]
pub fn derive_password(secret: &Secret, matrix_id: &str, epoch: u32) -> Secret {
    let message = if epoch == 0 { matrix_id.to_owned() } else { format!("{matrix_id}\nepoch {epoch}") };
    let mut hex = hex_hmac(secret, message.as_bytes());
    hex.truncate(32);
    Secret::new(hex)
}

fn hex_hmac(key: &Secret, message: &[u8]) -> String {
    // HMAC takes a key of any length (RFC 2104 §2), so this cannot fail; an empty key would be the fallback.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.expose()) else {
        return String::new();
    };
    mac.update(message);
    hex::encode(mac.finalize().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_match_the_vectors_of_the_replaced_system() {
        let secret = Secret::new("test123");
        for (id, expected) in [
            ("@manu.mishra:anycompany.corp", "8d30a8e4c23d3f4c3745283464e232ba"),
            ("@aaron.phillips:anycompany.corp", "93bf098aebf69f6e307b3c42b1ddb60e"),
        ] {
            assert_eq!(derive_password(&secret, id, 0).expose(), expected.as_bytes());
        }
    }

    #[test]
    fn another_epoch_or_label_gives_an_unrelated_value() {
        let fleet = FleetSecret::new(Secret::new("0123456789abcdef")).unwrap_or_else(|e| panic!("{e}"));
        let first = fleet.password("@a:b.c", 0);
        assert_ne!(first.expose(), fleet.password("@a:b.c", 1).expose());
        assert_ne!(fleet.key_for("registration").expose(), fleet.key_for("shared-secret").expose());
    }

    #[test]
    fn a_short_fleet_secret_is_refused_without_being_repeated() {
        let Err(error) = FleetSecret::new(Secret::new("hunter2")) else { panic!("accepted a short secret") };
        assert!(error.to_string().contains("7 characters"));
        assert!(!error.to_string().contains("hunter2"));
    }
}
