//! [`Engine::save`]: an image out of the engine, as the archive that `docker save` writes (`GET /images/{id}/get`).
//!
//! Deliberately absent: reading the archive (fleet-registry does, as it reads those that people made).

use std::io::{self, Write};

use futures::StreamExt as _;

use crate::{Engine, EngineError};

/// An image whose archive has more bytes is not taken.
pub const MAXIMUM_ARCHIVE: u64 = 64 << 30;

/// Why an image was not taken out of the engine.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The archive could not be written here.
    #[error("the image cannot be written here: {0}")]
    Io(#[from] io::Error),
    /// An engine that does not end.
    #[error("the image's archive has more than {MAXIMUM_ARCHIVE} bytes")]
    TooLarge,
}

impl Engine {
    /// Writes an image's archive to `out` as it streams in; its bytes. Name it by id: a tag may move meanwhile.
    ///
    /// # Errors
    /// [`SaveError`]; what is in `out` then is worth nothing.
    pub async fn save(&self, image: &str, out: &mut (dyn Write + Send)) -> Result<u64, SaveError> {
        let mut pieces = Box::pin(self.client.export_image(image));
        let mut length = 0;
        while let Some(piece) = pieces.next().await {
            let piece = piece.map_err(self.failed("taking an image out of the engine"))?;
            length += piece.len() as u64;
            if length > MAXIMUM_ARCHIVE {
                return Err(SaveError::TooLarge);
            }
            out.write_all(&piece)?;
        }
        out.flush()?;
        Ok(length)
    }
}
