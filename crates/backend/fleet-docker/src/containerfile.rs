//! [`build`]: images that need RUN, built by the engine's BuildKit.
//!
//! The context is one tar that the caller chose the files of; the CA bundle of the host is offered as the build secret
//! `ca` and proxies as the predefined build arguments, so that neither enters the image. Deliberately absent: hashing,
//! pulling base images (bases are loaded or pulled by digest before), and engines without BuildKit.

use std::{
    collections::{BTreeMap, VecDeque},
    path::{Path, PathBuf},
};

use bollard::grpc::{
    BuildRef,
    build::{ImageBuildFrontendOptions, ImageBuildLoadInput, ImageBuildPlatform, SecretSource},
    driver::{Build as _, moby::Moby},
    error::GrpcError,
};
use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use crate::{Engine, EngineError, build_status};

/// How many lines of a failed build are kept for its error.
const LAST_LINES: usize = 20;
/// How long a build is held back until somebody listens to what it says.
const WATCHED_WITHIN: std::time::Duration = std::time::Duration::from_secs(20);
/// How long the rest of the progress may take once the build has ended.
const DRAIN: std::time::Duration = std::time::Duration::from_secs(10);

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
        /// The last lines that its steps printed.
        last_lines: Vec<String>,
    },
    /// It ended well and the image is not there.
    #[error("the build of {tag} ended and left no image")]
    NoImage {
        /// Which image.
        tag: String,
    },
}

/// Builds and returns the image id. `progress` gets a line for every step that begins and every line that one prints.
///
/// # Errors
/// See [`BuildError`]; a failed build leaves no tag.
pub async fn build(
    engine: &Engine,
    request: &BuildRequest,
    progress: &mut (dyn FnMut(String) + Send),
) -> Result<String, BuildError> {
    if !engine.buildkit {
        return Err(EngineError::Unsupported {
            why: format!("{engine:?} does not build with BuildKit, which `containerfile` images need"),
            help: "use Docker 18.09 or newer, or declare the image with layers (`debian`, `copy`) instead of a \
                   `containerfile`"
                .to_owned(),
        }
        .into());
    }
    let reference = BuildRef::random();
    let (lines_in, mut lines) = mpsc::unbounded_channel();
    let (ready_in, ready) = oneshot::channel();
    let name = reference.as_ref().to_owned();
    let watching = tokio::spawn(build_status::watch(engine.endpoint.clone(), name, lines_in, ready_in));
    // A build without progress is better than none.
    let _ = tokio::time::timeout(WATCHED_WITHIN, ready).await;
    let mut solving = solve(engine, request, reference)?;
    let mut last_lines = VecDeque::new();
    let mut told = |line: String| {
        last_lines.push_back(line.clone());
        if last_lines.len() > LAST_LINES {
            last_lines.pop_front();
        }
        progress(line);
    };
    let built = loop {
        tokio::select! {
            built = &mut solving.result => break built,
            Some(line) = lines.recv() => told(line),
        }
    };
    let drained = async {
        while let Some(line) = lines.recv().await {
            told(line);
        }
    };
    // Progress is for people: a build does not fail because the rest of it does not come.
    let _ = tokio::time::timeout(DRAIN, drained).await;
    watching.abort();
    let failed = |why: String| BuildError::Failed {
        tag: request.tag.clone(),
        why,
        last_lines: last_lines.into_iter().collect(),
    };
    match built {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(failed(words(&error))),
        Err(_) => return Err(failed("the build ended without a result".to_owned())),
    }
    let id = engine.inspect_id(&request.tag).await?;
    id.ok_or_else(|| BuildError::NoImage { tag: request.tag.clone() })
}

/// A build on its way; dropping it cancels it.
struct Solving {
    result: oneshot::Receiver<Result<(), GrpcError>>,
    _cancel: oneshot::Sender<()>,
}

/// Sends the build to BuildKit. `bollard`'s build future cannot move between threads, so it gets one of its own.
fn solve(engine: &Engine, request: &BuildRequest, reference: BuildRef) -> Result<Solving, BuildError> {
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
    let (driver, tag, options) = (Moby::new(&engine.client), request.tag.clone(), options.build());
    let (cancel, cancelled) = oneshot::channel();
    let (ended, result) = oneshot::channel();
    let runtime = tokio::runtime::Handle::current();
    tokio::task::spawn_blocking(move || {
        runtime.block_on(async move {
            let building =
                driver.docker_build(&tag, options, ImageBuildLoadInput::Upload(context), None, Some(reference));
            tokio::select! {
                built = building => {
                    // Nobody waits any more: nothing to tell.
                    let _ = ended.send(built);
                }
                _ = cancelled => {}
            }
        });
    });
    Ok(Solving { result, _cancel: cancel })
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
