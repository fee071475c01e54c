//! [`Key`]: who has it vouches for objects, and knows which are not to be believed: [`Refused`].

use fleet_secret::{FleetSecret, Secret};
use hmac::{Hmac, KeyInit, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;

use super::{KEY_LABEL, SCHEMA};

/// Vouches for objects: whoever has the fleet secret of the environment has it.
#[derive(Clone)]
pub struct Key(Secret);

impl Key {
    /// The key of an environment.
    #[must_use]
    pub fn of(secret: &FleetSecret) -> Self {
        Self(secret.key_for(KEY_LABEL))
    }

    /// HMAC-SHA256 over what an object is for and its text, as hex.
    pub(super) fn sign(&self, purpose: &str, text: &str) -> String {
        self.mac(purpose, text).map(|mac| hex::encode(mac.finalize().into_bytes())).unwrap_or_default()
    }

    /// In constant time.
    pub(super) fn verifies(&self, purpose: &str, text: &str, signature: &str) -> bool {
        let (Some(mac), Ok(signature)) = (self.mac(purpose, text), hex::decode(signature)) else { return false };
        mac.verify_slice(&signature).is_ok()
    }

    fn mac(&self, purpose: &str, text: &str) -> Option<Hmac<Sha256>> {
        // HMAC takes a key of any length (RFC 2104 §2), so there always is one.
        let mut mac = Hmac::<Sha256>::new_from_slice(self.0.expose()).ok()?;
        mac.update(format!("fleetctl/manager/v{SCHEMA}\n{purpose}\n").as_bytes());
        mac.update(text.as_bytes());
        Some(mac)
    }
}

/// Why an object is not taken for what it says it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Not an object of this protocol.
    #[error("it is not of this protocol: {0}")]
    Shape(String),
    /// Of another version.
    #[error("it has schema {0}, and this version knows {SCHEMA}")]
    Schema(u32),
    /// Nobody vouches for it.
    #[error("its signature is not that of this environment's fleet secret: somebody else wrote it, or it was altered")]
    Signature,
    /// Signed, and not for here.
    #[error("it is meant for {0}")]
    Elsewhere(String),
}

/// Text with a signature.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sealed {
    schema: u32,
    text: String,
    mac: String,
}

/// Seals a value for a purpose.
pub(super) fn seal<T: Serialize>(key: &Key, purpose: &str, value: &T) -> String {
    // Plain data with string keys: it always has a JSON form.
    let text = serde_json::to_string(value).unwrap_or_default();
    let mac = key.sign(purpose, &text);
    serde_json::to_string(&Sealed { schema: SCHEMA, text, mac }).unwrap_or_default()
}

/// Opens what [`seal`] made for the same purpose; with the text that was signed.
pub(super) fn open<T: for<'d> Deserialize<'d>>(key: &Key, purpose: &str, bytes: &[u8]) -> Result<(T, String), Refused> {
    let shape = |error: serde_json::Error| Refused::Shape(error.to_string());
    let sealed: Sealed = serde_json::from_slice(bytes).map_err(shape)?;
    if sealed.schema != SCHEMA {
        return Err(Refused::Schema(sealed.schema));
    }
    // Before anything in it is looked at.
    if !key.verifies(purpose, &sealed.text, &sealed.mac) {
        return Err(Refused::Signature);
    }
    Ok((serde_json::from_str(&sealed.text).map_err(shape)?, sealed.text))
}
