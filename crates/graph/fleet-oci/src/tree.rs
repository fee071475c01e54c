//! [`Tree`]: the files of a layer or of a whole root file system, by path.
//!
//! Paths are relative, `/`-separated UTF-8 without `.`, `..` or empty parts. Every way in goes through
//! [`Tree::insert`], which refuses what could leave the root and follows links that stand where a folder is written
//! (`lib/x` under merged-/usr lands in `usr/lib/x`), as an unpacking package manager would.

use std::collections::BTreeMap;

use crate::content::Content;

/// How many links one path may go through; Linux uses the same bound.
pub const MAXIMUM_LINK_DEPTH: usize = 40;
/// The longest path or link target accepted, in bytes (`PATH_MAX`).
pub const MAXIMUM_PATH_LENGTH: usize = 4096;
/// The longest part of a path accepted, in bytes (`NAME_MAX`): no file system could hold a longer one.
pub const MAXIMUM_NAME_LENGTH: usize = 255;

/// Permissions and owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Numeric owner.
    pub uid: u32,
    /// Numeric group.
    pub gid: u32,
}

impl Meta {
    /// Owned by root.
    #[must_use]
    pub fn root(mode: u32) -> Self {
        Self { mode: mode & 0o7777, uid: 0, gid: 0 }
    }

    /// 0755 when `executable`, else 0644: all that is kept of a mode where the source is not a packaged root file
    /// system, since the rest is the umask of whoever made the archive.
    #[must_use]
    pub fn from_x_bit(executable: bool) -> Self {
        Self::root(if executable { 0o755 } else { 0o644 })
    }
}

/// What stands at a path.
#[derive(Clone, Debug, PartialEq)]
pub enum Node {
    /// A folder.
    Dir(Meta),
    /// A regular file.
    File(Meta, Content),
    /// A symbolic link; the target is kept as written.
    Symlink(String),
    /// Another name of the file at this path of the same tree.
    Hardlink(String),
}

impl Node {
    /// A file from bytes in memory.
    #[must_use]
    pub fn file(mode: u32, bytes: impl Into<Vec<u8>>) -> Self {
        Self::File(Meta::root(mode), Content::bytes(bytes.into()))
    }
}

/// A path or node that a tree refuses.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum TreeError {
    /// Absolute, with `..`, with NUL, empty or too long.
    #[error("the path {path:?} is refused: {why}")]
    BadPath {
        /// As it was given.
        path: String,
        /// Which rule it breaks.
        why: &'static str,
    },
    /// A link on the way leads out of the root or in a circle.
    #[error("the path {path:?} goes through the link {link:?}, which {why}")]
    BadLink {
        /// The path that was to be written.
        path: String,
        /// The link on its way.
        link: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A file stands where a folder is needed, or a folder with files where a file is written.
    #[error("{path:?} cannot be written: {obstacle:?} is {what}")]
    InTheWay {
        /// The path that was to be written.
        path: String,
        /// What stands in the way.
        obstacle: String,
        /// What it is.
        what: &'static str,
    },
    /// A hard link names nothing.
    #[error("{path:?} is a hard link to {target:?}, which is not a file of the same tree")]
    DanglingHardlink {
        /// The link.
        path: String,
        /// What it names.
        target: String,
    },
    /// One archive says two things about one path.
    #[error("{path:?} stands in the archive twice, and differently")]
    Twice {
        /// Where both are.
        path: String,
    },
}

/// Paths and what stands there, in byte order. Parents that nobody declared are implied (0755, root).
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tree {
    nodes: BTreeMap<String, Node>,
}

impl Tree {
    /// An empty tree.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Paths and nodes in byte order of the path.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.nodes.iter().map(|(path, node)| (path.as_str(), node))
    }

    /// The node at exactly this path, links not followed.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&Node> {
        self.nodes.get(path)
    }

    /// How many nodes were declared.
    #[must_use]
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nothing was declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// All nodes strictly below a folder.
    pub fn below<'a>(&'a self, folder: &str) -> impl Iterator<Item = (&'a str, &'a Node)> + use<'a> {
        let prefix = format!("{folder}/");
        self.nodes
            .range(prefix.clone()..)
            .take_while(move |(path, _)| path.starts_with(&prefix))
            .map(|(path, node)| (path.as_str(), node))
    }

    /// The file at a path after following links, with the path it really has.
    #[must_use]
    pub fn resolve_file(&self, path: &str) -> Option<(String, &Content)> {
        let mut path = clean(path).ok()?;
        for _ in 0..MAXIMUM_LINK_DEPTH {
            path = self.real_parent(&path).ok()?;
            match self.nodes.get(&path)? {
                Node::File(_, content) => return Some((path, content)),
                Node::Symlink(target) => path = join_link(&path, target)?,
                Node::Hardlink(target) => path = target.clone(),
                Node::Dir(_) => return None,
            }
        }
        None
    }

    /// Puts a node at a path. A later file replaces an earlier one; a folder over a link to a folder keeps the link.
    ///
    /// # Errors
    /// [`TreeError`] for a path that is refused or blocked.
    pub fn insert(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        self.put(path, node, true)
    }

    /// As [`Self::insert`], and what stands at the path already must be the same: for one archive, in which a second
    /// entry for a path would show different files to different readers.
    ///
    /// # Errors
    /// [`TreeError`]; [`TreeError::Twice`] when something else stands there.
    pub fn insert_once(&mut self, path: &str, node: Node) -> Result<(), TreeError> {
        self.put(path, node, false)
    }

    fn put(&mut self, path: &str, node: Node, replace: bool) -> Result<(), TreeError> {
        let asked = clean(path)?;
        let real = self.real_parent(&asked)?;
        match (&node, self.nodes.get(&real)) {
            // dpkg and tar keep a link that stands where a package brings the folder it points to.
            (Node::Dir(_), Some(Node::Symlink(_))) => return Ok(()),
            (Node::Dir(_), Some(Node::File(..) | Node::Hardlink(_))) => {
                return Err(TreeError::InTheWay { path: asked, obstacle: real, what: "a file" });
            }
            (Node::Dir(_), _) => {}
            _ if self.below(&real).next().is_some() => {
                return Err(TreeError::InTheWay { path: asked, obstacle: real, what: "a folder with files" });
            }
            _ => {}
        }
        let node = match node {
            Node::Hardlink(target) => self.hardlink(&real, &target)?,
            other => other,
        };
        if !replace && self.nodes.get(&real).is_some_and(|there| *there != node) {
            return Err(TreeError::Twice { path: asked });
        }
        self.nodes.insert(real, node);
        Ok(())
    }

    /// Takes away what stands at a path, and below it. Returns whether anything did.
    pub fn prune(&mut self, path: &str) -> bool {
        let before = self.nodes.len();
        let below = format!("{path}/");
        self.nodes.retain(|at, _| at != path && !at.starts_with(&below));
        self.nodes.len() != before
    }

    /// Puts every node of `upper` over this tree; the later one wins.
    ///
    /// # Errors
    /// [`TreeError`] for the first node that is blocked.
    pub fn overlay(&mut self, upper: Self) -> Result<(), TreeError> {
        // Hard links last: their target may sort after them.
        let (links, others): (Vec<_>, Vec<_>) =
            upper.nodes.into_iter().partition(|(_, node)| matches!(node, Node::Hardlink(_)));
        for (path, node) in others.into_iter().chain(links) {
            self.insert(&path, node)?;
        }
        Ok(())
    }

    /// A hard link to the file it finally names; a second name of a symbolic link becomes a link of its own.
    fn hardlink(&self, path: &str, target: &str) -> Result<Node, TreeError> {
        let dangling = || TreeError::DanglingHardlink { path: path.to_owned(), target: target.to_owned() };
        let mut real = self.real_parent(&clean(target)?)?;
        for _ in 0..MAXIMUM_LINK_DEPTH {
            match self.nodes.get(&real) {
                Some(Node::Hardlink(next)) => real.clone_from(next),
                Some(Node::File(..)) if real != path => return Ok(Node::Hardlink(real)),
                Some(Node::Symlink(target)) => return Ok(Node::Symlink(target.clone())),
                _ => return Err(dangling()),
            }
        }
        Err(dangling())
    }

    /// The path with every link among its parents followed.
    fn real_parent(&self, path: &str) -> Result<String, TreeError> {
        let mut path = path.to_owned();
        for _ in 0..MAXIMUM_LINK_DEPTH {
            let Some(next) = self.follow_first_link(&path)? else { return Ok(path) };
            path = next;
        }
        Err(TreeError::BadLink { link: path.clone(), path, why: "leads in a circle" })
    }

    /// The path with the first link among its parents replaced by its target; `None` when there is none.
    fn follow_first_link(&self, path: &str) -> Result<Option<String>, TreeError> {
        for (at, _) in path.match_indices('/') {
            let parent = &path[..at];
            match self.nodes.get(parent) {
                Some(Node::Symlink(target)) => {
                    let link = || TreeError::BadLink {
                        path: path.to_owned(),
                        link: parent.to_owned(),
                        why: "leads out of the root",
                    };
                    let base = join_link(parent, target).ok_or_else(link)?;
                    let rest = &path[at + 1..];
                    return Ok(Some(if base.is_empty() { rest.to_owned() } else { format!("{base}/{rest}") }));
                }
                Some(Node::File(..) | Node::Hardlink(_)) => {
                    return Err(TreeError::InTheWay {
                        path: path.to_owned(),
                        obstacle: parent.to_owned(),
                        what: "a file",
                    });
                }
                Some(Node::Dir(_)) | None => {}
            }
        }
        Ok(None)
    }
}

/// A path as trees keep it: `./a//b/` becomes `a/b`.
///
/// # Errors
/// [`TreeError::BadPath`] for absolute paths, `..`, NUL, and what is left empty or too long.
pub fn clean(path: &str) -> Result<String, TreeError> {
    let bad = |why| Err(TreeError::BadPath { path: path.to_owned(), why });
    if path.starts_with('/') {
        return bad("it is absolute");
    }
    if path.contains('\0') {
        return bad("it contains a NUL byte");
    }
    if path.len() > MAXIMUM_PATH_LENGTH {
        return bad("it is longer than 4096 bytes");
    }
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    if parts.contains(&"..") {
        return bad("it contains `..`");
    }
    if parts.is_empty() {
        return bad("it is empty");
    }
    if parts.iter().any(|part| part.len() > MAXIMUM_NAME_LENGTH) {
        return bad("a part of it is longer than 255 bytes");
    }
    Ok(parts.join("/"))
}

/// Whether a link at a path leads to somewhere within the root. Absolute targets do: they start at the image's root.
#[must_use]
pub fn stays_within(link: &str, target: &str) -> bool {
    target.len() <= MAXIMUM_PATH_LENGTH && join_link(link, target).is_some()
}

/// Where a link leads, from the root; `None` when it climbs out of it.
fn join_link(link: &str, target: &str) -> Option<String> {
    let parent = link.rsplit_once('/').map_or("", |(parent, _)| parent);
    let start = if target.starts_with('/') { "" } else { parent };
    let mut parts: Vec<&str> = start.split('/').filter(|part| !part.is_empty()).collect();
    for part in target.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop()?;
            }
            other => parts.push(other),
        }
    }
    Some(parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(nodes: &[(&str, Node)]) -> Tree {
        let mut tree = Tree::new();
        for (path, node) in nodes {
            tree.insert(path, node.clone()).unwrap();
        }
        tree
    }

    #[test]
    fn a_package_that_writes_below_a_merged_usr_link_lands_in_usr() {
        let mut root = tree(&[("lib", Node::Symlink("usr/lib".into()))]);
        root.insert("./lib/", Node::Dir(Meta::root(0o755))).unwrap();
        root.insert("./lib/x86_64-linux-gnu/libc.so.6", Node::file(0o755, "elf")).unwrap();
        assert_eq!(root.get("lib"), Some(&Node::Symlink("usr/lib".into())));
        assert!(matches!(root.get("usr/lib/x86_64-linux-gnu/libc.so.6"), Some(Node::File(..))));
    }

    #[test]
    fn paths_that_leave_the_root_are_refused_however_they_are_written() {
        let mut root = tree(&[
            ("out", Node::Symlink("../../etc".into())),
            ("loop", Node::Symlink("loop".into())),
            ("abs", Node::Symlink("/usr".into())),
        ]);
        for path in ["/etc/passwd", "../x", "a/../../x", "a\0b", "", ".", "out/passwd", "loop/x"] {
            assert!(root.insert(path, Node::file(0o644, "x")).is_err(), "{path:?} was accepted");
        }
        root.insert("abs/x", Node::file(0o644, "x")).unwrap();
        assert!(root.get("usr/x").is_some(), "an absolute link is relative to the image's root");
    }

    #[test]
    fn a_later_file_wins_and_a_folder_with_files_is_not_replaced() {
        let mut root = tree(&[("a/b", Node::file(0o644, "old"))]);
        root.overlay(tree(&[("a/b", Node::file(0o755, "new"))])).unwrap();
        assert_eq!(root.get("a/b"), Some(&Node::file(0o755, "new")));
        assert!(matches!(root.insert("a", Node::Symlink("b".into())), Err(TreeError::InTheWay { .. })));
        assert!(matches!(root.insert("a/b/c", Node::file(0o644, "")), Err(TreeError::InTheWay { .. })));
    }

    #[test]
    fn a_hard_link_must_name_a_file_that_is_there() {
        let mut root = tree(&[("z", Node::file(0o644, "z"))]);
        root.insert("a", Node::Hardlink("z".into())).unwrap();
        root.insert("b", Node::Hardlink("a".into())).unwrap();
        assert_eq!(root.get("b"), Some(&Node::Hardlink("z".into())));
        assert!(root.insert("c", Node::Hardlink("nothing".into())).is_err());
        let mut copy = Tree::new();
        copy.overlay(root.clone()).unwrap();
        assert_eq!(copy, root);
    }
}
