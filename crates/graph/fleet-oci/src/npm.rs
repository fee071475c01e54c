//! npm packages as trees: [`unpack`] one tarball, [`links`] for the commands of all.

use std::{collections::BTreeMap, io::Read};

use crate::{
    content::ContentSink,
    lock::NpmPin,
    read_tar::{Modes, ReadTarError, read_tar},
    tree::{Meta, Node, Tree, TreeError},
};

/// Unpacks a tarball below `<to>/<pin.path>`, its files' first folder stripped, its commands executable.
///
/// # Errors
/// [`ReadTarError`].
pub fn unpack(tarball: impl Read, to: &str, pin: &NpmPin, sink: &mut dyn ContentSink) -> Result<Tree, ReadTarError> {
    let folder = format!("{}/{}", relative(to), pin.path);
    let commands: Vec<String> = pin
        .bin
        .values()
        .filter_map(|file| crate::tree::clean(file).ok())
        .map(|file| format!("{folder}/{file}"))
        .collect();
    let unzipped = flate2::read::MultiGzDecoder::new(tarball);
    let mut tree = read_tar(unzipped, Modes::FromXBit, sink, |path| {
        let (_, rest) = path.trim_start_matches("./").split_once('/')?;
        (!rest.is_empty()).then(|| format!("{folder}/{rest}"))
    })?;
    for command in commands {
        // npm makes commands executable whatever the tarball says.
        if let Some(Node::File(_, content)) = tree.get(&command) {
            let node = Node::File(Meta::from_x_bit(true), content.clone());
            tree.insert(&command, node)?;
        }
    }
    Ok(tree)
}

/// The Node runtime's package: only its `bin/node`, at `<to>/bin/node`.
///
/// # Errors
/// [`ReadTarError`].
pub fn unpack_node(tarball: impl Read, to: &str, sink: &mut dyn ContentSink) -> Result<Tree, ReadTarError> {
    let target = format!("{}/bin/node", relative(to));
    let unzipped = flate2::read::MultiGzDecoder::new(tarball);
    read_tar(unzipped, Modes::FromXBit, sink, |path| path.ends_with("/bin/node").then(|| target.clone()))
}

/// `.bin` links of all packages (path and commands of each), as `npm install` makes them, and a `package.json` that says
/// what was asked.
///
/// # Errors
/// [`TreeError`] for a path in a pin that is refused.
pub fn links<'a>(
    to: &str,
    request: &BTreeMap<String, String>,
    packages: impl IntoIterator<Item = (&'a str, &'a BTreeMap<String, String>)>,
) -> Result<Tree, TreeError> {
    let mut tree = Tree::new();
    let to = relative(to);
    for (path, bin) in packages {
        let Some((modules, name)) = split_modules(path) else { continue };
        for (command, file) in bin {
            let file = crate::tree::clean(file)?;
            let link = format!("{to}/{modules}/.bin/{command}");
            tree.insert(&link, Node::Symlink(format!("../{name}/{file}")))?;
        }
    }
    let manifest = serde_json::json!({ "private": true, "dependencies": request });
    tree.insert(&format!("{to}/package.json"), Node::file(0o644, format!("{manifest:#}\n")))?;
    Ok(tree)
}

/// `a/node_modules/@s/n` → (`a/node_modules`, `@s/n`)
fn split_modules(path: &str) -> Option<(&str, &str)> {
    let at = path.rfind("node_modules/")? + "node_modules/".len();
    Some((&path[..at - 1], &path[at..]))
}

/// A folder in the image as trees name it.
pub(crate) fn relative(folder: &str) -> &str {
    folder.trim_matches('/')
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::{MemorySink, write_tar::write_tar};

    fn pin() -> NpmPin {
        NpmPin {
            path: "node_modules/a/node_modules/@s/tool".into(),
            bin: BTreeMap::from([("tool".into(), "./bin/tool.mjs".into())]),
            ..NpmPin::default()
        }
    }

    #[test]
    fn a_command_is_executable_and_its_link_leads_to_it() {
        let mut archive = Tree::new();
        archive.insert("package/bin/tool.mjs", Node::file(0o644, "#!/usr/bin/env node")).unwrap();
        archive.insert("package/README", Node::file(0o666, "hello")).unwrap();
        let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        let mut bytes = Vec::new();
        write_tar(&archive, &mut bytes).unwrap();
        gzip.write_all(&bytes).unwrap();
        let mut tree = unpack(&gzip.finish().unwrap()[..], "/opt/x", &pin(), &mut MemorySink).unwrap();
        tree.overlay(links("/opt/x", &BTreeMap::new(), [(pin().path.as_str(), &pin().bin)]).unwrap()).unwrap();
        let (path, _) = tree.resolve_file("opt/x/node_modules/a/node_modules/.bin/tool").unwrap();
        assert_eq!(path, "opt/x/node_modules/a/node_modules/@s/tool/bin/tool.mjs");
        assert!(matches!(tree.get(&path), Some(Node::File(Meta { mode: 0o755, .. }, _))));
        let readme = tree.get("opt/x/node_modules/a/node_modules/@s/tool/README");
        assert!(matches!(readme, Some(Node::File(Meta { mode: 0o644, .. }, _))));
    }
}
