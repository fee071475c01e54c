//! The canonical encoding that is hashed. Changing it changes every hash of every fleet: bump [`VERSION`], regenerate
//! the golden file and announce it in the changelog.
//!
//! Every field is a tag byte and a length (8 bytes, little endian) before its bytes, so that no two different
//! derivations share an encoding; inputs come in byte order of their names.

use crate::{Derivation, Hash, Input};

/// Separates our hashes from everybody else's and from our own former encodings.
pub const VERSION: &str = "fleetctl derivation 1";

const ADDRESS: u8 = 1;
const NAME: u8 = 2;
const VALUE: u8 = 3;
const FILE: u8 = 4;
const DERIVATION: u8 = 5;
const OUTPUT: u8 = 6;
const SECRET: u8 = 7;

/// BLAKE3 hashes much at a time several times as fast as little by little: so many bytes are gathered first.
const GATHERED: usize = 64 << 10;

/// Room for what most derivations gather.
const USUAL: usize = 4 << 10;

struct Encoder {
    hasher: blake3::Hasher,
    gathered: Vec<u8>,
}

impl Encoder {
    fn field(&mut self, tag: u8, bytes: &[u8]) {
        self.gathered.push(tag);
        self.gathered.extend((bytes.len() as u64).to_le_bytes());
        self.gathered.extend(bytes);
        if self.gathered.len() >= GATHERED {
            self.hasher.update(&self.gathered);
            self.gathered.clear();
        }
    }

    fn finish(mut self) -> Hash {
        Hash::from_bytes(*self.hasher.update(&self.gathered).finalize().as_bytes())
    }
}

/// The hash of a derivation.
#[must_use]
pub fn hash(derivation: &Derivation) -> Hash {
    let mut encoder = Encoder { hasher: blake3::Hasher::new_derive_key(VERSION), gathered: Vec::with_capacity(USUAL) };
    encoder.field(ADDRESS, derivation.address.to_string().as_bytes());
    for (name, input) in &derivation.inputs {
        encoder.field(NAME, name.as_bytes());
        match input {
            Input::Value { text } => encoder.field(VALUE, text.as_bytes()),
            Input::File { path, hash, executable } => {
                encoder.field(FILE, path.as_str().as_bytes());
                encoder.field(FILE, hash.as_bytes());
                encoder.field(FILE, &[u8::from(*executable)]);
            }
            Input::Derivation { address, hash, output } => {
                encoder.field(DERIVATION, address.to_string().as_bytes());
                match output {
                    Some(output) => encoder.field(OUTPUT, output.as_bytes()),
                    None => encoder.field(DERIVATION, hash.as_bytes()),
                }
            }
            Input::Secret { name, epoch } => {
                encoder.field(SECRET, name.as_bytes());
                encoder.field(SECRET, &epoch.to_le_bytes());
            }
        }
    }
    encoder.finish()
}
