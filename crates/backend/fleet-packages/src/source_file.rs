//! [`SourceFile`]: a file of the project as the content of a layer, read when its turn comes and held against the hash
//! that the plan was made with.

use std::{
    fs::File,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt as _,
    path::PathBuf,
};

use fleet_oci::content::FileSource;

const CHUNK: usize = 256 * 1024;
/// Opening a pipe that took the file's place must not block.
#[cfg(target_os = "linux")]
const NONBLOCK: i32 = 0o4000;
#[cfg(not(target_os = "linux"))]
const NONBLOCK: i32 = 0x4;

/// A file that the plan knows by its hash.
pub struct SourceFile {
    /// Absolute.
    pub path: PathBuf,
    /// As people know it, relative to the project.
    pub name: String,
    /// BLAKE3 of its bytes, in hexadecimal.
    pub blake3: String,
    /// How many.
    pub size: u64,
}

/// A file is not what it was when the plan was made. Travels within an [`io::Error`].
#[derive(Debug, thiserror::Error)]
#[error("{name} {how} since the plan was made, and nothing was kept; run the command again")]
pub struct Changed {
    /// Relative to the project.
    name: String,
    /// What happened to it.
    how: &'static str,
}

impl SourceFile {
    fn changed(&self, how: &'static str) -> io::Error {
        io::Error::other(Changed { name: self.name.clone(), how })
    }
}

impl FileSource for SourceFile {
    fn copy_to(&self, writer: &mut dyn Write) -> io::Result<()> {
        let opened = File::options().read(true).custom_flags(NONBLOCK).open(&self.path);
        let mut file = opened.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", self.name)))?;
        if !file.metadata()?.is_file() {
            return Err(self.changed("became something that is no file"));
        }
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK.min(usize::try_from(self.size).unwrap_or(CHUNK).max(1))];
        let mut left = self.size;
        while left > 0 {
            let most = buffer.len().min(usize::try_from(left).unwrap_or(CHUNK));
            let got = file.read(&mut buffer[..most])?;
            if got == 0 {
                return Err(self.changed("became shorter"));
            }
            hasher.update(&buffer[..got]);
            writer.write_all(&buffer[..got])?;
            left -= got as u64;
        }
        if file.read(&mut [0])? != 0 {
            return Err(self.changed("became longer"));
        }
        if hasher.finalize().to_hex().as_str() != self.blake3 {
            return Err(self.changed("changed"));
        }
        Ok(())
    }
}
