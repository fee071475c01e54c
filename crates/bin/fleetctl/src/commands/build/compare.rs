//! [`images`]: two layouts' images of one name, compared layer by layer down to the first file that differs.

use std::{
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

use fleet_oci::{
    Digest,
    compress::unpacked,
    layout::{INDEX, LayoutError, blob_path, find},
};
use serde::Deserialize;

/// Bytes that are compared at a time.
const PIECE: usize = 1 << 16;

/// What a comparison found.
pub struct Compared {
    /// Digest in the first layout.
    pub first: Digest,
    /// Digest in the second.
    pub second: Digest,
    /// The first difference, in words; `None` when there is none.
    pub difference: Option<String>,
}

/// Why two images cannot be compared.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    /// A file of a layout.
    #[error("{}: {source}", .path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An index.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A manifest.
    #[error("a manifest cannot be read: {0}")]
    Manifest(#[from] serde_json::Error),
}

/// What manifests and indexes have in common with each other, as far as it matters here.
#[derive(Deserialize)]
struct Document {
    #[serde(default)]
    manifests: Vec<Blob>,
    config: Option<Blob>,
    #[serde(default)]
    layers: Vec<Blob>,
}

#[derive(Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
struct Blob {
    media_type: String,
    digest: Digest,
}

/// Compares the images of this name.
///
/// # Errors
/// [`CompareError`].
pub fn images(first: &Path, second: &Path, name: &str) -> Result<Compared, CompareError> {
    let digest = |layout: &Path| Ok::<_, CompareError>(find(&read(&layout.join(INDEX))?, Some(name))?.digest);
    let (a, b) = (digest(first)?, digest(second)?);
    let difference = if a == b { None } else { Some(Pair { first, second }.documents(&a, &b)?) };
    Ok(Compared { first: a, second: b, difference })
}

struct Pair<'a> {
    first: &'a Path,
    second: &'a Path,
}

impl Pair<'_> {
    fn documents(&self, a: &Digest, b: &Digest) -> Result<String, CompareError> {
        let document = |layout: &Path, digest| {
            let bytes = read(&layout.join(blob_path(digest)))?;
            Ok::<_, CompareError>(serde_json::from_slice::<Document>(&bytes)?)
        };
        let (first, second) = (document(self.first, a)?, document(self.second, b)?);
        if first.manifests.len() != second.manifests.len() || first.layers.len() != second.layers.len() {
            return Ok("one has more layers or platforms".to_owned());
        }
        if let Some((a, b)) = first.manifests.iter().zip(&second.manifests).find(|(a, b)| a != b) {
            return self.documents(&a.digest, &b.digest);
        }
        for (number, (a, b)) in first.layers.iter().zip(&second.layers).enumerate() {
            if a != b {
                return Ok(format!("layer {} differs: {}", number + 1, self.layers(a, b)?));
            }
        }
        let config = first.config != second.config;
        Ok(if config { "only the config differs" } else { "only the manifest's form differs" }.to_owned())
    }

    fn layers(&self, a: &Blob, b: &Blob) -> Result<String, CompareError> {
        let open = |layout: &Path, blob: &Blob| {
            let path = layout.join(blob_path(&blob.digest));
            let opened = File::open(&path).and_then(|file| unpacked(&blob.media_type, BufReader::new(file)));
            opened.map(|tar| (path.clone(), tar)).map_err(|source| CompareError::Io { path, source })
        };
        let ((path, first), (_, second)) = (open(self.first, a)?, open(self.second, b)?);
        let found = difference(first, second).map_err(|source| CompareError::Io { path, source })?;
        Ok(found.unwrap_or_else(|| "the same files, compressed differently".to_owned()))
    }
}

/// The first entry of two tars that differs, in words.
fn difference(first: impl Read, second: impl Read) -> io::Result<Option<String>> {
    let (mut first, mut second) = (tar::Archive::new(first), tar::Archive::new(second));
    let (mut first, mut second) = (first.entries()?, second.entries()?);
    loop {
        let (mut a, mut b) = match (first.next().transpose()?, second.next().transpose()?) {
            (None, None) => return Ok(None),
            (Some(only), None) => return Ok(Some(format!("{} is only in the first", path(&only)))),
            (None, Some(only)) => return Ok(Some(format!("{} is only in the second", path(&only)))),
            (Some(a), Some(b)) => (a, b),
        };
        let (name, other) = (path(&a), path(&b));
        if name != other {
            let (which, only) = if name < other { ("first", name) } else { ("second", other) };
            return Ok(Some(format!("{only} is only in the {which}")));
        }
        let (x, y) = (a.header(), b.header());
        for (what, x, y) in [("mode", x.mode()?, y.mode()?), ("owner", id(x.uid()?), id(y.uid()?))] {
            if x != y {
                return Ok(Some(format!("{name} has {what} {x:o} and then {y:o}")));
            }
        }
        if x.as_bytes() != y.as_bytes() {
            return Ok(Some(format!("{name} has another kind, time, length or target")));
        }
        if !same_bytes(&mut a, &mut b)? {
            return Ok(Some(format!("{name} has other content")));
        }
    }
}

fn id(value: u64) -> u32 {
    u32::try_from(value).unwrap_or(u32::MAX)
}

fn path<R: Read>(entry: &tar::Entry<'_, R>) -> String {
    String::from_utf8_lossy(&entry.path_bytes()).into_owned()
}

fn same_bytes(a: &mut impl Read, b: &mut impl Read) -> io::Result<bool> {
    let (mut one, mut other) = (Vec::with_capacity(PIECE), Vec::with_capacity(PIECE));
    loop {
        one.clear();
        other.clear();
        let length = a.by_ref().take(PIECE as u64).read_to_end(&mut one)?;
        b.by_ref().take(PIECE as u64).read_to_end(&mut other)?;
        if one != other || length == 0 {
            return Ok(one == other);
        }
    }
}

fn read(path: &Path) -> Result<Vec<u8>, CompareError> {
    fs::read(path).map_err(|source| CompareError::Io { path: path.to_owned(), source })
}

#[cfg(test)]
mod tests {
    use fleet_oci::{Content, Meta, Node, Tree, write_tar::write_tar};

    use super::*;

    fn tar(files: &[(&str, u32, &str)]) -> Vec<u8> {
        let mut tree = Tree::new();
        for (path, mode, text) in files {
            let meta = Meta { mode: *mode, uid: 0, gid: 0 };
            tree.insert(path, Node::File(meta, Content::bytes(text.as_bytes().to_vec()))).unwrap();
        }
        let mut out = Vec::new();
        write_tar(&tree, &mut out).unwrap();
        out
    }

    #[test]
    fn the_first_file_that_differs_is_named_with_how() {
        let plain = tar(&[("a", 0o644, "x"), ("b", 0o644, "y")]);
        let cases = [
            (tar(&[("a", 0o644, "x"), ("b", 0o644, "y")]), None),
            (tar(&[("a", 0o644, "x"), ("b", 0o644, "z")]), Some("b has other content")),
            (tar(&[("a", 0o600, "x"), ("b", 0o644, "z")]), Some("a has mode 644 and then 600")),
            (tar(&[("a", 0o644, "x")]), Some("b is only in the first")),
            (tar(&[("a", 0o644, "x"), ("aa", 0o644, "y"), ("b", 0o644, "y")]), Some("aa is only in the second")),
            (tar(&[("a", 0o644, "longer"), ("b", 0o644, "y")]), Some("a has another kind, time, length or target")),
        ];
        for (other, wanted) in cases {
            assert_eq!(difference(&plain[..], &other[..]).unwrap().as_deref(), wanted);
        }
    }
}
