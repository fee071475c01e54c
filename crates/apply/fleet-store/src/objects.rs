//! Derivations, outputs, records and pins: small JSON files by hash or key.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
};

use fleet_derivation::{Derivation, Hash, Hashed};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{BlobId, Store, atomic::Temporary};

/// What a derivation produced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// What downstream derivations take for it: an image's digest.
    pub digest: String,
    /// A remark for people or for whoever wrote it; nothing here reads it.
    #[serde(default)]
    pub note: String,
    /// Records it needs (its layers): kept as long as the derivation is.
    #[serde(default)]
    pub records: Vec<RecordId>,
    /// Blobs it needs: kept as long as the derivation is.
    #[serde(default)]
    pub blobs: Vec<BlobId>,
}

/// Names one record: `layers` and a layer's key, say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RecordId {
    /// Which kind of record; chosen by who writes it: `layers`, `checks`.
    pub space: String,
    /// Its key: a hash or another short text.
    pub key: String,
}

/// Something that collection keeps though no generation needs it: the packages of `fleet.lock`, say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Pin {
    /// A derivation and all that it needs.
    Derivation(Hash),
    /// A record and its blobs.
    Record(RecordId),
    /// A blob.
    Blob(BlobId),
}

/// A record as it is on disk.
#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    blobs: Vec<BlobId>,
    value: T,
}

/// Why an object could not be stored or read.
#[derive(Debug, thiserror::Error)]
pub enum ObjectError {
    /// A file system error.
    #[error("cannot {doing} {}: {source}{}", .path.display(), crate::atomic::remedy(.source))]
    Io {
        /// `read`, `write`.
        doing: &'static str,
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The value has no JSON form.
    #[error("cannot store {what}: {why}")]
    NotJson {
        /// What.
        what: String,
        /// Why.
        why: String,
    },
}

impl ObjectError {
    pub(crate) fn at(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

impl Store {
    /// Stores derivations under their hashes and returns the hashes, in the order given. Those already there are not
    /// written again. They are not synced one by one, which would take seconds for a thousand: a file that a power failure
    /// tears does not match its name and counts as missing.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn put_derivations<'a>(
        &self,
        derivations: impl IntoIterator<Item = &'a Derivation>,
    ) -> Result<Vec<Hash>, ObjectError> {
        let mut hashes = Vec::new();
        for derivation in derivations {
            let hash = derivation.hash();
            self.put_derivation(&hash, derivation)?;
            hashes.push(hash);
        }
        Ok(hashes)
    }

    /// The same for those whose hashes are known.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn put_hashed<'a>(&self, derivations: impl IntoIterator<Item = &'a Hashed>) -> Result<(), ObjectError> {
        derivations.into_iter().try_for_each(|hashed| self.put_derivation(&hashed.hash(), hashed))
    }

    fn put_derivation(&self, hash: &Hash, derivation: &Derivation) -> Result<(), ObjectError> {
        let path = self.object_place("derivations", &hash.to_string());
        if path.exists() { Ok(()) } else { self.put_json(&path, derivation, &derivation.address.to_string()) }
    }

    /// The derivation with this hash; `None` when it is not there. One that does not hash to its name is removed, noted, and `None`.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn derivation(&self, hash: &Hash) -> Result<Option<Derivation>, ObjectError> {
        let path = self.object_place("derivations", &hash.to_string());
        let found: Option<Derivation> = self.get_json(&path)?;
        if found.as_ref().is_some_and(|d| d.hash() != *hash) {
            self.put_aside(&path, "its content is not what its name says");
            return Ok(None);
        }
        Ok(found)
    }

    /// Remembers what the derivation with this hash produced. A later output replaces it.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn put_output(&self, derivation: &Hash, output: &Output) -> Result<(), ObjectError> {
        let path = self.object_place("outputs", &derivation.to_string());
        self.put_json_to_last(&path, output, &format!("the output of {derivation}"))
    }

    /// What the derivation with this hash produced, as far as it is known here.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn output(&self, derivation: &Hash) -> Result<Option<Output>, ObjectError> {
        self.get_json(&self.object_place("outputs", &derivation.to_string()))
    }

    /// Every known output digest by derivation hash, for early cutoff.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn outputs(&self) -> Result<BTreeMap<Hash, String>, ObjectError> {
        let mut all = BTreeMap::new();
        for path in self.object_files("outputs") {
            let hash = path.file_stem().and_then(|stem| stem.to_str()).and_then(|stem| stem.parse::<Hash>().ok());
            match (hash, self.get_json::<Output>(&path)?) {
                (Some(hash), Some(output)) => drop(all.insert(hash, output.digest)),
                (None, _) => self.note_unknown(&path),
                (Some(_), None) => {}
            }
        }
        Ok(all)
    }

    /// Stores what is known under a key, such as a layer's descriptor, with the blobs that it is about: they are kept
    /// as long as the record is. A later record replaces it.
    ///
    /// Like derivations, records are not synced: what a power failure tears is no JSON (bytes that were not written are
    /// zeros or missing), counts as missing, and is made again.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn put_record(&self, id: &RecordId, value: &impl Serialize, blobs: &[BlobId]) -> Result<(), ObjectError> {
        let path = self.record_place(id);
        let record = Envelope { blobs: blobs.to_vec(), value };
        self.put_json(&path, &record, &format!("record {}/{}", id.space, id.key))
    }

    /// What [`Store::put_record`] stored; `None` when there is nothing or it has another shape (an older tool's), which is noted.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn get_record<T: DeserializeOwned>(&self, id: &RecordId) -> Result<Option<T>, ObjectError> {
        Ok(self.get_json::<Envelope<T>>(&self.record_place(id))?.map(|record| record.value))
    }

    /// The blobs of a record.
    pub(crate) fn record_blobs(&self, id: &RecordId) -> Result<Vec<BlobId>, ObjectError> {
        let record: Option<Envelope<serde::de::IgnoredAny>> = self.get_json(&self.record_place(id))?;
        Ok(record.map(|record| record.blobs).unwrap_or_default())
    }

    /// Keeps these from collection under a name, such as `fleet.lock`; replaces what the name kept before. An empty list unpins.
    ///
    /// # Errors
    /// [`ObjectError`].
    pub fn pin(&self, name: &str, pins: &[Pin]) -> Result<(), ObjectError> {
        let path = self.root().join("pins").join(format!("{}.json", file_name(name)));
        if pins.is_empty() {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(ObjectError::at("remove", &path)(error)),
                _ => Ok(()),
            };
        }
        self.put_json_to_last(&path, pins, name)
    }

    /// Everything pinned under any name.
    ///
    /// # Errors
    /// [`ObjectError::Io`].
    pub fn pins(&self) -> Result<Vec<Pin>, ObjectError> {
        let mut all = Vec::new();
        for path in files_of(&self.root().join("pins")) {
            all.extend(self.get_json::<Vec<Pin>>(&path)?.into_iter().flatten());
        }
        Ok(all)
    }

    pub(crate) fn object_place(&self, folder: &str, name: &str) -> PathBuf {
        let shard = name.get(..2).unwrap_or("__");
        self.root().join(folder).join(shard).join(format!("{name}.json"))
    }

    pub(crate) fn record_place(&self, id: &RecordId) -> PathBuf {
        self.object_place(&format!("records/{}", file_name(&id.space)), &file_name(&id.key))
    }

    /// The files of a sharded folder, in byte order.
    pub(crate) fn object_files(&self, folder: &str) -> Vec<PathBuf> {
        files_of(&self.root().join(folder)).into_iter().flat_map(|shard| files_of(&shard)).collect()
    }

    pub(crate) fn note_unknown(&self, path: &Path) {
        let shown = path.strip_prefix(self.root()).unwrap_or(path).display();
        self.note(format!("{}/{shown} is not a file of this store; it was left alone", crate::DIRECTORY));
    }

    /// Whole or not at all, but not synced: a power failure may leave an empty file, which counts as missing.
    fn put_json<T: Serialize + ?Sized>(&self, path: &Path, value: &T, what: &str) -> Result<(), ObjectError> {
        let (temporary, _) = self.written_json(path, value, what)?;
        self.make_parent(path).map_err(ObjectError::at("write", path))?;
        fs::rename(&temporary.path, path).map_err(ObjectError::at("write", path))
    }

    /// Whole or not at all, also after a power failure: the bytes are on the disk before the name shows them.
    fn put_json_to_last<T: Serialize + ?Sized>(&self, path: &Path, value: &T, what: &str) -> Result<(), ObjectError> {
        let (temporary, file) = self.written_json(path, value, what)?;
        file.sync_all().and_then(|()| self.place(temporary, path)).map_err(ObjectError::at("write", path))
    }

    fn written_json<T: Serialize + ?Sized>(
        &self,
        path: &Path,
        value: &T,
        what: &str,
    ) -> Result<(Temporary, File), ObjectError> {
        let bytes = serde_json::to_vec(value)
            .map_err(|error| ObjectError::NotJson { what: what.to_owned(), why: error.to_string() })?;
        let temporary = self.temporary();
        let mut file = temporary.create(0o600).map_err(ObjectError::at("write", path))?;
        io::Write::write_all(&mut file, &bytes).map_err(ObjectError::at("write", path))?;
        Ok((temporary, file))
    }

    /// `None` when it is not there; what does not parse is removed, noted, and `None`.
    fn get_json<T: DeserializeOwned>(&self, path: &Path) -> Result<Option<T>, ObjectError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(ObjectError::at("read", path)(error)),
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                self.put_aside(path, &format!("it cannot be understood ({error})"));
                Ok(None)
            }
        }
    }
}

/// The entries of a folder in byte order; none when it is not there.
pub(crate) fn files_of(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    files.sort();
    files
}

/// A name as one path component: everything but letters, digits, `-`, `_` and inner dots as `%xx`.
pub(crate) fn file_name(name: &str) -> String {
    let mut safe = String::with_capacity(name.len());
    for (at, byte) in name.bytes().enumerate() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_') || (byte == b'.' && at > 0) {
            safe.push(char::from(byte));
        } else {
            safe.push_str(&format!("%{byte:02x}"));
        }
    }
    safe
}

/// Undoes [`file_name`], and what an object store does to the same end: `%2F` is `/`.
pub(crate) fn unescaped(part: &str) -> String {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let mut byte = [first];
        rest = after;
        if first == b'%' && after.len() >= 2 && hex::decode_to_slice(&after[..2], &mut byte).is_ok() {
            rest = &after[2..];
        }
        bytes.push(byte[0]);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use fleet_model::{Address, Kind};

    use super::*;

    type Any = Result<(), Box<dyn std::error::Error>>;

    fn agent(model: &str) -> Derivation {
        let mut derivation = Derivation::new(Address::new(Kind::Agent, "ada"));
        derivation.value("model", model, None);
        derivation
    }

    #[test]
    fn derivations_come_back_by_hash_and_a_changed_file_counts_as_missing() -> Any {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        let (one, two) = (agent("small"), agent("large"));
        let hashes = store.put_derivations([&one, &two])?;
        assert_eq!(store.derivation(&hashes[0])?, Some(one));
        let path = store.object_place("derivations", &hashes[1].to_string());
        fs::copy(store.object_place("derivations", &hashes[0].to_string()), path)?;
        assert_eq!(store.derivation(&hashes[1])?, None);
        assert_eq!(store.take_notes().len(), 1);
        Ok(())
    }

    #[test]
    fn a_torn_output_is_unknown_and_the_others_are_still_read() -> Any {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        let (one, two) = (Hash::of(b"1"), Hash::of(b"2"));
        for hash in [one, two] {
            store.put_output(&hash, &Output { digest: format!("sha256:{hash}"), ..Output::default() })?;
        }
        fs::write(store.object_place("outputs", &two.to_string()), "{\"dig")?;
        assert_eq!(store.outputs()?.into_keys().collect::<Vec<_>>(), [one]);
        assert_eq!(store.output(&two)?, None);
        assert!(store.take_notes()[0].contains("cannot be understood"));
        Ok(())
    }

    #[test]
    fn a_record_key_cannot_leave_its_folder() -> Any {
        let project = tempfile::tempdir()?;
        let store = Store::open(project.path())?;
        let id = RecordId { space: "layers".into(), key: "../../../escape".into() };
        store.put_record(&id, &1, &[])?;
        assert_eq!(store.get_record::<u8>(&id)?, Some(1));
        let place = store.record_place(&id);
        assert!(place.starts_with(store.root().join("records/layers")));
        let name = place.file_stem().and_then(|stem| stem.to_str()).ok_or("no name")?;
        assert_eq!(unescaped(name), id.key);
        Ok(())
    }
}
