//! [`push`]: images and the statements about them into a registry.

use std::{collections::BTreeMap, fs::File, io, sync::Arc};

use async_trait::async_trait;
use fleet_apply::{Event as Told, Events as _};
use fleet_oci::{Upload, upload::BlobRef};
use fleet_registry::{Event, Left, Origin, RegistryError, Source, StoreBlobs, Target};

use super::make::Made;
use crate::{context::Context, error::Failure, exit::Exit, pipeline::Prepared};

/// The store's blobs, and what is said about one image.
struct Outgoing<'a> {
    blobs: &'a StoreBlobs,
    made: &'a Made,
}

#[async_trait]
impl Source for Outgoing<'_> {
    fn origins(&self, blob: &BlobRef) -> Vec<Origin> {
        self.blobs.origins(blob)
    }

    async fn open(&self, blob: &BlobRef) -> io::Result<Option<File>> {
        self.blobs.open(blob).await
    }

    async fn is_right(&self, blob: &BlobRef) -> bool {
        self.blobs.is_right(blob).await
    }

    async fn statements(&self) -> Vec<Upload> {
        self.made.statements().await.iter().map(Upload::of_referrer).collect()
    }

    fn kept(&self, repository: &str) -> Left {
        self.blobs.kept(repository)
    }

    fn keep(&self, repository: &str, left: &Left) {
        self.blobs.keep(repository, left);
    }
}

/// Pushes every image to `<place>/<fleet>/<image>:d-<hash>` and says under which reference each can be pulled, in order.
/// What is there already is not sent again.
///
/// # Errors
/// An environment without a registry where none is named; whatever a registry can answer.
pub async fn push(
    context: &Context,
    prepared: &Prepared,
    place: Option<&str>,
    made: &[Made],
) -> Result<Vec<String>, Failure> {
    let place = match place {
        Some(place) => place.to_owned(),
        None => declared(prepared)?,
    };
    let client = crate::world::registries()?;
    let blobs = StoreBlobs { store: Arc::clone(&prepared.opened.store), origins: BTreeMap::new(), said: Vec::new() };
    let mut references: Vec<String> = Vec::new();
    let mut repositories: Vec<String> = Vec::new();
    for one in made {
        let repository = format!("{place}/{}", one.repository);
        let written = format!("{repository}:{}", one.tag);
        let mut target = Target::parse(&written).map_err(|error| unpushed(&written, &error))?;
        // Images of a fleet share layers: what the ones before brought is mounted.
        target.mount_from.clone_from(&repositories);
        let events = |event: Event| tell(context, &written, &event);
        let source = Outgoing { blobs: &blobs, made: one };
        let pushed = client.push(&target, &one.upload, &source, &events).await;
        let pushed = pushed.map_err(|error| unpushed(&written, &error))?;
        pushed.notices.iter().for_each(|remark| notice(context, remark.to_string()));
        if pushed.found {
            notice(context, format!("{written}: is there"));
        } else {
            let size = pushed.sent >> 10;
            notice(
                context,
                format!("{written}: sent {size} KB, {} mounted, {} were there", pushed.mounted, pushed.skipped),
            );
        }
        references.push(format!("{repository}@{}", one.digest()));
        repositories
            .extend(written.split_once('/').and_then(|(_, rest)| rest.rsplit_once(':')).map(|(r, _)| r.to_owned()));
    }
    Ok(references)
}

/// The registry that the environment declares.
///
/// # Errors
/// One that declares none.
pub fn declared(prepared: &Prepared) -> Result<String, Failure> {
    let environment = prepared.environment()?;
    environment.registry.as_ref().map(|registry| registry.value.to_string()).ok_or_else(|| {
        Failure::new(Exit::Usage, format!("environment {} declares no registry", prepared.scope.environment))
            .hint("add `registry \"HOST/PREFIX\"` to it, or name one here: --to registry:HOST/PREFIX")
    })
}

fn tell(context: &Context, written: &str, event: &Event) {
    if let Event::Retrying { why, pause } = event {
        notice(context, format!("{written}: {why}; again in {:.1} s", pause.as_secs_f32()));
    }
}

fn notice(context: &Context, text: String) {
    context.console.emit(Told::Notice { text });
}

fn unpushed(what: &str, error: &RegistryError) -> Failure {
    let exit = if error.is_unreachable() { Exit::Unavailable } else { Exit::Failed };
    Failure::caused(exit, format!("{what} cannot be pushed"), error)
}
