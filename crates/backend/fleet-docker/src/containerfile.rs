//! [`build`]: images that need RUN, built by the engine's BuildKit.
//!
//! The context is one tar that the caller chose the files of; the CA bundle of the host is offered as the build secret
//! `ca` and proxies as the predefined build arguments, so that neither enters the image. Deliberately absent: hashing,
//! pulling base images (bases are loaded or pulled by digest before), and engines without BuildKit.

use std::{collections::BTreeMap, path::{Path, PathBuf}};

use bollard::grpc::{
    build::{ImageBuildFrontendOptions, ImageBuildLoadInput, ImageBuildPlatform, SecretSource},
    driver::{Build as _, moby::Moby},
    error::GrpcError,
};
use bytes::Bytes;

use crate::{Engine, EngineError};

/// Name of the Containerfile in the context that is sent.
const CONTAINERFILE: &str = ".fleetctl.Containerfile";

/// One file of a build context.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextFile {
    /// Relative path.
    pub path: String,
    /// Permission bits.
    pub mode: u32,
    /// Contents.
    pub bytes: Bytes,
}

/// Everything that a build takes.
#[derive(Clone, Debug)]
pub struct BuildRequest {
    /// The Containerfile's text.
    pub containerfile: String,
    /// The context.
    pub files: Vec<ContextFile>,
    /// Build arguments that are part of the derivation, `BASE` among them.
    pub args: BTreeMap<String, String>,
    /// Build arguments that are not: `HTTP_PROXY`, `HTTPS_PROXY`, `NO_PROXY`… BuildKit keeps these out of the image.
    pub proxies: BTreeMap<String, String>,
    /// A file with the host's CA bundle, offered as the secret `ca`; at most 500 KB.
    pub ca: Option<PathBuf>,
    /// `linux/amd64`.
    pub platform: String,
    /// The tag that the image gets.
    pub tag: String,
}

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// No BuildKit here.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The context could not be written.
    #[error("the build context could not be written: {0}")]
    Context(std::io::Error),
    /// A step failed.
    #[error("the build of {tag} failed: {why}")]
    Failed {
        /// Which image.
        tag: String,
        /// BuildKit's words.
        why: String,
    },
    /// It ended well and the image is not there.
    #[error("the build of {tag} ended and left no image")]
    NoImage {
        /// Which image.
        tag: String,
    },
}

/// Builds and returns the image id. `progress` gets each line that BuildKit tells.
///
/// # Errors
/// See [`BuildError`]; a failed build leaves no tag.
pub async fn build(engine: &Engine, request: &BuildRequest) -> Result<String, BuildError> {
    if !engine.buildkit {
        return Err(EngineError::Unsupported {
            why: format!("{engine:?} does not build with BuildKit, which `containerfile` images need"),
            help: "use Docker 18.09 or newer, or declare the image with layers (`debian`, `copy`) instead of a \
                   `containerfile`"
                .to_owned(),
        }
        .into());
    }
    let context = context(request).map_err(BuildError::Context)?;
    let mut options = ImageBuildFrontendOptions::builder()
        .dockerfile(Path::new(CONTAINERFILE))
        .platforms(&platform(&request.platform));
    for (name, value) in request.args.iter().chain(&request.proxies) {
        options = options.buildarg(name, value);
    }
    if let Some(ca) = &request.ca {
        options = options.set_secret("ca", &SecretSource::File(ca.clone()));
    }
    let driver = Moby::new(&engine.client);
    let built =
        driver.docker_build(&request.tag, options.build(), ImageBuildLoadInput::Upload(context), None, None).await;
    built.map_err(|error| BuildError::Failed { tag: request.tag.clone(), why: words(&error) })?;
    let id = engine.inspect_id(&request.tag).await?;
    id.ok_or_else(|| BuildError::NoImage { tag: request.tag.clone() })
}

/// What BuildKit said, without the wrapping of gRPC.
fn words(error: &GrpcError) -> String {
    match error {
        GrpcError::TonicStatus { err } => err.message().to_owned(),
        other => other.to_string(),
    }
}

fn platform(text: &str) -> ImageBuildPlatform {
    let mut parts = text.splitn(3, '/').map(str::to_owned);
    ImageBuildPlatform {
        os: parts.next().unwrap_or_default(),
        architecture: parts.next().unwrap_or_default(),
        variant: parts.next(),
    }
}

/// The context as one tar: sorted, times zero, everything root's.
fn context(request: &BuildRequest) -> std::io::Result<Bytes> {
    let mut files: Vec<&ContextFile> = request.files.iter().collect();
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        tar.append_data(&mut header, path, bytes)
    };
    for file in files {
        add(&file.path, file.mode, &file.bytes)?;
    }
    add(CONTAINERFILE, 0o644, request.containerfile.as_bytes())?;
    Ok(tar.into_inner()?.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_context_is_the_same_bytes_whatever_order_the_files_come_in() {
        let file = |path: &str| ContextFile { path: path.to_owned(), mode: 0o644, bytes: Bytes::from_static(b"x") };
        let request = |files| BuildRequest {
            containerfile: "FROM scratch".to_owned(),
            files,
            args: BTreeMap::new(),
            proxies: BTreeMap::new(),
            ca: None,
            platform: "linux/amd64".to_owned(),
            tag: "t".to_owned(),
        };
        let one = context(&request(vec![file("a"), file("b/c")])).expect("tar");
        let two = context(&request(vec![file("b/c"), file("a")])).expect("tar");
        assert_eq!(one, two);
    }
}
