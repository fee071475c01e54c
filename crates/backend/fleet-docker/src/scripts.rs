//! [`Engine::run_scripts`]: install scripts of npm packages, run in a container of the image so far, without a network, as
//! npm would run them. What they changed becomes a layer: [`Changes::tree`].
//!
//! Deliberately absent: npm itself, which images need not have. What a script wants from the network it does not get.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, Read, Write},
    time::Duration,
};

use bollard::{
    models::{ChangeType, ContainerCreateBody, HostConfig},
    query_parameters::DownloadFromContainerOptions,
};
use fleet_oci::{
    Content, ContentSink, Meta, Node, Tree, TreeError,
    read_tar::{Modes, ReadTarError, read_tar},
};
use futures::StreamExt as _;

use crate::{Engine, EngineError, images::CHECK};

/// Seconds that the scripts of one layer may take.
const SCRIPT_SECONDS: u64 = 900;

/// Runs what npm runs, in npm's order and with the variables that scripts rely on; the first argument is the folder of
/// `node_modules`, the others are packages.
const RUNNER: &str = r#"
const { spawnSync } = require("child_process"), fs = require("fs"), path = require("path");
const [root, ...packages] = process.argv.slice(1);
for (const folder of packages) {
    const file = path.join(folder, "package.json");
    const { name, version, scripts = {} } = JSON.parse(fs.readFileSync(file, "utf8"));
    if (!scripts.install && !scripts.preinstall && fs.existsSync(path.join(folder, "binding.gyp"))) {
        scripts.install = "node-gyp rebuild";
    }
    const bins = [];
    for (let at = folder; at !== path.dirname(at); at = path.dirname(at)) bins.push(path.join(at, "node_modules/.bin"));
    for (const event of ["preinstall", "install", "postinstall"]) {
        if (!scripts[event]) continue;
        console.log(`${name}@${version} ${event}: ${scripts[event]}`);
        const env = {
            ...process.env, HOME: "/tmp", INIT_CWD: root, npm_lifecycle_event: event, npm_lifecycle_script: scripts[event],
            npm_package_name: name, npm_package_version: version, npm_package_json: file, npm_node_execpath: process.execPath,
            PATH: [...bins, path.dirname(process.execPath), process.env.PATH].join(":"),
        };
        const done = spawnSync("/bin/sh", ["-c", scripts[event]], { cwd: folder, env, stdio: "inherit" });
        if (done.error) throw done.error;
        if (done.status !== 0) {
            console.log(`${name}@${version} ${event} ended with ${done.status ?? done.signal}`);
            process.exit(1);
        }
    }
}
"#;

/// Which scripts to run.
#[derive(Clone, Copy, Debug)]
pub struct Scripts<'a> {
    /// Id or tag of an image that has the packages, `node` and `/bin/sh`.
    pub image: &'a str,
    /// Absolute folder that has `node_modules`; nothing outside it is kept.
    pub folder: &'a str,
    /// Packages: folders relative to `folder`, in order.
    pub packages: &'a [String],
}

/// Why scripts did not run.
#[derive(Debug, thiserror::Error)]
pub enum ScriptsError {
    /// The engine.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// One failed.
    #[error("an install script failed{}; the last lines it printed:\n{}", .how, .last_lines.join("\n"))]
    Failed {
        /// In words; begins with a space or is empty.
        how: String,
        /// Oldest first.
        last_lines: Vec<String>,
    },
    /// What they changed cannot be kept.
    #[error("what the scripts wrote cannot be kept: {0}")]
    Io(#[from] io::Error),
}

/// What scripts changed, as paths relative to the root of the image.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    folder: String,
    /// Files and links that are new or other than before, and new folders.
    pub written: BTreeSet<String>,
    /// What is gone.
    pub removed: BTreeSet<String>,
}

impl Changes {
    /// A tree with what was written, from the archive that [`Engine::run_scripts`] wrote, and a whiteout for what was removed.
    ///
    /// # Errors
    /// [`ReadTarError`].
    pub fn tree(&self, archive: impl Read, sink: &mut dyn ContentSink) -> Result<Tree, ReadTarError> {
        let whole = read_tar(archive, Modes::FromXBit, sink, |path| {
            let (_, inside) = path.trim_end_matches('/').split_once('/')?;
            (!inside.is_empty()).then(|| format!("{}/{inside}", self.folder))
        })?;
        let mut tree = Tree::new();
        for (path, node) in whole.iter().filter(|(path, _)| self.written.contains(*path)) {
            let node = match node {
                // Another name of a file that is as it was: the layer has to bring the bytes.
                Node::Hardlink(target) if !self.written.contains(target) => whole.get(target).unwrap_or(node),
                node => node,
            };
            tree.insert(path, node.clone())?;
        }
        for path in &self.removed {
            whiteout(&mut tree, path)?;
        }
        Ok(tree)
    }

    fn note(&mut self, kind: ChangeType, path: &str) {
        let path = path.trim_start_matches('/');
        if !path.strip_prefix(&self.folder).is_some_and(|inside| inside.starts_with('/')) {
            return;
        }
        match kind {
            ChangeType::_2 => self.removed.insert(path.to_owned()),
            _ => self.written.insert(path.to_owned()),
        };
    }
}

/// OCI image layer specification, "Whiteouts".
fn whiteout(tree: &mut Tree, path: &str) -> Result<(), TreeError> {
    let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
    let node = Node::File(Meta::from_x_bit(false), Content::bytes(Vec::new()));
    tree.insert(&format!("{folder}/.wh.{name}"), node)
}

impl Engine {
    /// Runs scripts, writes a tar of the folder afterwards to `out`, and removes the container.
    ///
    /// # Errors
    /// [`ScriptsError`].
    pub async fn run_scripts(
        &self,
        scripts: &Scripts<'_>,
        out: &mut (dyn Write + Send),
    ) -> Result<Changes, ScriptsError> {
        self.sweep_checks().await?;
        let folders = scripts.packages.iter().map(|package| format!("{}/{package}", scripts.folder));
        let arguments = ["-e", RUNNER, "--", scripts.folder].map(str::to_owned);
        let body = ContainerCreateBody {
            image: Some(scripts.image.to_owned()),
            entrypoint: Some(vec!["node".to_owned()]),
            cmd: Some(arguments.into_iter().chain(folders).collect()),
            user: Some("0:0".to_owned()),
            working_dir: Some("/".to_owned()),
            labels: Some(HashMap::from([(CHECK.to_owned(), scripts.image.to_owned())])),
            network_disabled: Some(true),
            host_config: Some(HostConfig { network_mode: Some("none".to_owned()), ..HostConfig::default() }),
            ..ContainerCreateBody::default()
        };
        let created = self.client.create_container(None, body).await;
        let id = created.map_err(self.failed("creating a container for install scripts"))?.id;
        let ran = self.run_in(&id, scripts, out).await;
        let removed = self.remove_check(&id).await;
        let ran = ran?;
        removed?;
        Ok(ran)
    }

    async fn run_in(
        &self,
        id: &str,
        scripts: &Scripts<'_>,
        out: &mut (dyn Write + Send),
    ) -> Result<Changes, ScriptsError> {
        let ended = self.run_to_end(id, Duration::from_secs(SCRIPT_SECONDS)).await?;
        if ended.exit_code != Some(0) {
            let how = match ended.exit_code {
                None => format!(": it did not end within {SCRIPT_SECONDS} s"),
                Some(127) => ": the image has no `node`, or no `/bin/sh`".to_owned(),
                Some(_) => String::new(),
            };
            return Err(ScriptsError::Failed { how, last_lines: ended.last_lines });
        }
        let mut changes = Changes { folder: scripts.folder.trim_matches('/').to_owned(), ..Changes::default() };
        let changed = self.client.container_changes(id).await.map_err(self.failed("listing what scripts changed"))?;
        changed.unwrap_or_default().iter().for_each(|change| changes.note(change.kind, &change.path));
        let options = DownloadFromContainerOptions { path: scripts.folder.to_owned() };
        let mut pieces = self.client.download_from_container(id, Some(options));
        while let Some(piece) = pieces.next().await {
            out.write_all(&piece.map_err(self.failed("reading what scripts wrote"))?)?;
        }
        Ok(changes)
    }
}

#[cfg(test)]
mod tests {
    use fleet_oci::MemorySink;

    use super::*;

    #[test]
    fn only_what_changed_in_the_folder_is_kept_and_what_is_gone_is_whited_out() {
        let mut changes = Changes { folder: "opt/tool".into(), ..Changes::default() };
        for (kind, path) in [
            (ChangeType::_0, "/opt"),
            (ChangeType::_0, "/opt/tool"),
            (ChangeType::_0, "/opt/tool/a"),
            (ChangeType::_1, "/opt/tool/b"),
            (ChangeType::_1, "/opt/tool/linked"),
            (ChangeType::_2, "/opt/tool/gone"),
            (ChangeType::_1, "/tmp/elsewhere"),
            (ChangeType::_1, "/opt/toolbox"),
        ] {
            changes.note(kind, path);
        }
        let mut archive = tar::Builder::new(Vec::new());
        for (path, text) in [("tool/a", "new"), ("tool/b", "made"), ("tool/same", "old")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            archive.append_data(&mut header, path, text.as_bytes()).unwrap();
        }
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Link);
        header.set_size(0);
        archive.append_link(&mut header, "tool/linked", "tool/same").unwrap();
        let archive = archive.into_inner().unwrap();
        let tree = changes.tree(&archive[..], &mut MemorySink).unwrap();
        let paths: Vec<&str> = tree.iter().map(|(path, _)| path).collect();
        assert_eq!(paths, ["opt/tool/.wh.gone", "opt/tool/a", "opt/tool/b", "opt/tool/linked"]);
        assert!(matches!(tree.get("opt/tool/linked"), Some(Node::File(..))), "its other name is in a layer below");
    }
}
