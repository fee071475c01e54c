//! [`RootFs`]: Debian packages put over one another, and the few things their scripts would have made that images
//! need, made here instead, the same every time.
//!
//! Made: merged-/usr links, `/etc/passwd` and `/etc/group`, the CA bundle, `/tmp` and friends, configuration that
//! `base-files` copies, the default command of common alternatives, dpkg's status file (scanners read it).
//! Not made: `ld.so.cache` (Debian's loader searches the multiarch folders by itself), byte-compiled Python,
//! caches of fonts, icons and MIME types. Whatever else a script does is not done; [`RootFs::skipped`] lists them.

use std::{collections::BTreeMap, io};

use crate::{
    content::Content,
    deb::Deb,
    recipe::User,
    tree::{Meta, Node, Tree, TreeError},
};

/// Under merged-/usr these are links into `usr`.
const MERGED: [&str; 4] = ["bin", "lib", "lib64", "sbin"];
/// Folders that scripts or the installer make, with their modes.
const FOLDERS: [(&str, u32); 11] = [
    ("dev", 0o755),
    ("etc", 0o755),
    ("home", 0o755),
    ("opt", 0o755),
    ("proc", 0o755),
    ("root", 0o700),
    ("run/lock", 0o1777),
    ("sys", 0o755),
    ("tmp", 0o1777),
    ("var/lib", 0o755),
    ("var/tmp", 0o1777),
];
/// Links that `base-files` makes.
const LINKS: [(&str, &str); 3] = [("var/lock", "/run/lock"), ("var/run", "/run"), ("etc/mtab", "../proc/self/mounts")];
/// What `base-files` copies into `/etc` on a first installation.
const COPIES: [(&str, &str); 3] = [
    ("usr/share/base-files/nsswitch.conf", "etc/nsswitch.conf"),
    ("usr/share/base-files/profile", "etc/profile"),
    ("usr/share/base-files/motd", "etc/motd"),
];
/// `/etc/nsswitch.conf` where `base-files` is not among the packages: names of the engine (`/etc/hosts`) before DNS,
/// whatever this glibc would do without the file.
const NSSWITCH: &str = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\n";
/// Command, and the programs that may stand behind it, best first.
const ALTERNATIVES: [(&str, &[&str]); 6] = [
    ("awk", &["/usr/bin/gawk", "/usr/bin/mawk"]),
    ("editor", &["/usr/bin/vim.tiny", "/bin/nano"]),
    ("nawk", &["/usr/bin/gawk", "/usr/bin/mawk"]),
    ("nc", &["/bin/nc.openbsd", "/bin/nc.traditional"]),
    ("pager", &["/usr/bin/less", "/bin/more"]),
    ("which", &["/usr/bin/which.debianutils"]),
];
const CERTIFICATES: &str = "usr/share/ca-certificates";
/// Where every program that uses the system's authorities looks.
pub const CA_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";

/// A root file system.
#[derive(Clone, Debug, Default)]
pub struct RootFs {
    /// Its files.
    pub tree: Tree,
    /// Package → maintainer scripts that were not run.
    pub skipped: BTreeMap<String, Vec<String>>,
}

/// Why packages do not make a root file system.
#[derive(Debug, thiserror::Error)]
pub enum RootFsError {
    /// Two packages, or a package and what we make, contradict each other.
    #[error("package {package}: {source}")]
    Package {
        /// The later one.
        package: String,
        /// What is in the way.
        #[source]
        source: TreeError,
    },
    /// What we make is blocked by a package's file.
    #[error("the files fleetctl adds to a Debian root: {0}")]
    Own(#[from] TreeError),
    /// A content could not be read again.
    #[error("a file of a package cannot be read: {0}")]
    Io(#[from] io::Error),
}

impl RootFs {
    /// Puts packages over one another, in the order given (the lock's: by name), and adds what images need.
    ///
    /// # Errors
    /// [`RootFsError`].
    pub fn from_packages(packages: Vec<Deb>, users: &[User]) -> Result<Self, RootFsError> {
        let mut root = Self::default();
        for link in MERGED {
            root.tree.insert(link, Node::Symlink(format!("usr/{link}")))?;
            root.tree.insert(&format!("usr/{link}"), Node::Dir(Meta::root(0o755)))?;
        }
        let mut status = String::new();
        for package in packages {
            status.push_str(&status_paragraph(&package.control));
            let overlaid = root.tree.overlay(package.tree);
            overlaid.map_err(|source| RootFsError::Package { package: package.name.clone(), source })?;
            if !package.scripts.is_empty() {
                root.skipped.insert(package.name, package.scripts);
            }
        }
        root.tree.insert("var/lib/dpkg/status", Node::file(0o644, status))?;
        root.add_layout()?;
        root.add_accounts(users)?;
        root.add_certificates()?;
        root.add_alternatives()?;
        Ok(root)
    }

    fn add_layout(&mut self) -> Result<(), RootFsError> {
        for (path, mode) in FOLDERS {
            self.tree.insert(path, Node::Dir(Meta::root(mode)))?;
        }
        for (path, target) in LINKS {
            if self.tree.get(path).is_none() {
                self.tree.insert(path, Node::Symlink(target.to_owned()))?;
            }
        }
        for (from, to) in COPIES {
            if let (Some((_, content)), None) = (self.tree.resolve_file(from), self.tree.get(to)) {
                let content = content.clone();
                self.tree.insert(to, Node::File(Meta::root(0o644), content))?;
            }
        }
        if self.tree.get("etc/nsswitch.conf").is_none() {
            self.tree.insert("etc/nsswitch.conf", Node::file(0o644, NSSWITCH))?;
        }
        Ok(())
    }

    /// `base-passwd`'s accounts when that package is there, else root and nobody; then the declared ones.
    fn add_accounts(&mut self, users: &[User]) -> Result<(), RootFsError> {
        let mut passwd = self.text("usr/share/base-passwd/passwd.master")?.unwrap_or_else(|| {
            "root:*:0:0:root:/root:/bin/sh\nnobody:*:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n".to_owned()
        });
        let mut group = self
            .text("usr/share/base-passwd/group.master")?
            .unwrap_or_else(|| "root:*:0:\nnogroup:*:65534:\n".to_owned());
        if self.tree.resolve_file("bin/bash").is_none() {
            passwd = passwd.replace(":/bin/bash", ":/bin/sh");
        }
        for User { name, uid, gid, home } in users {
            // One that Debian has by this name is another: the declared one stands in its place.
            let others = |line: &&str| line.split(':').next() != Some(name.as_str());
            passwd = passwd.lines().filter(others).flat_map(|line| [line, "\n"]).collect();
            passwd.push_str(&format!("{name}:*:{uid}:{gid}:{name}:{home}:/bin/sh\n"));
            if !group.lines().any(|line| line.split(':').nth(2) == Some(&gid.to_string())) {
                group.push_str(&format!("{name}:*:{gid}:\n"));
            }
            let owner = Meta { mode: 0o750, uid: *uid, gid: *gid };
            self.tree.insert(home.trim_start_matches('/'), Node::Dir(owner))?;
        }
        self.tree.insert("etc/passwd", Node::file(0o644, passwd))?;
        self.tree.insert("etc/group", Node::file(0o644, group))?;
        Ok(())
    }

    /// All of Mozilla's authorities in one file, in byte order of their names, as `update-ca-certificates` does.
    fn add_certificates(&mut self) -> Result<(), RootFsError> {
        let mut bundle = Vec::new();
        for (path, node) in self.tree.below(CERTIFICATES) {
            if let (true, Node::File(_, content)) = (path.ends_with(".crt"), node) {
                content.copy_to(&mut bundle)?;
                if bundle.last() != Some(&b'\n') {
                    bundle.push(b'\n');
                }
            }
        }
        if bundle.is_empty() {
            return Ok(());
        }
        self.tree.insert(CA_BUNDLE, Node::File(Meta::root(0o644), Content::bytes(bundle)))?;
        // OpenSSL's own default file; its default folder would need hashed links.
        if self.tree.get("usr/lib/ssl").is_some() && self.tree.get("usr/lib/ssl/cert.pem").is_none() {
            self.tree.insert("usr/lib/ssl/cert.pem", Node::Symlink(format!("/{CA_BUNDLE}")))?;
        }
        Ok(())
    }

    fn add_alternatives(&mut self) -> Result<(), RootFsError> {
        for (command, candidates) in ALTERNATIVES {
            let link = format!("usr/bin/{command}");
            let present = candidates.iter().find(|path| self.tree.resolve_file(path.trim_start_matches('/')).is_some());
            if let (Some(target), None) = (present, self.tree.get(&link)) {
                self.tree.insert(&link, Node::Symlink(format!("/etc/alternatives/{command}")))?;
                self.tree.insert(&format!("etc/alternatives/{command}"), Node::Symlink((*target).to_owned()))?;
            }
        }
        Ok(())
    }

    fn text(&self, path: &str) -> Result<Option<String>, RootFsError> {
        let Some((_, content)) = self.tree.resolve_file(path) else { return Ok(None) };
        Ok(Some(String::from_utf8_lossy(&content.to_vec()?).into_owned()))
    }
}

/// A package's paragraph as dpkg's status file has it: unpacked is what it is, whatever its scripts wanted.
fn status_paragraph(control: &str) -> String {
    let (first, rest) = control.split_once('\n').unwrap_or((control, ""));
    format!("{first}\nStatus: install ok installed\n{rest}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deb(name: &str, files: &[(&str, &str)]) -> Deb {
        let mut tree = Tree::new();
        for (path, text) in files {
            tree.insert(path, Node::file(0o755, *text)).unwrap();
        }
        Deb {
            control: format!("Package: {name}\nVersion: 1\n"),
            name: name.to_owned(),
            scripts: vec!["postinst".to_owned()],
            conffiles: Vec::new(),
            tree,
        }
    }

    fn text(root: &RootFs, path: &str) -> String {
        root.text(path).unwrap().unwrap_or_else(|| panic!("no {path}"))
    }

    #[test]
    fn authorities_accounts_and_alternatives_are_there_without_running_a_script() {
        let certificates =
            [("usr/share/ca-certificates/mozilla/b.crt", "B\n"), ("usr/share/ca-certificates/mozilla/a.crt", "A")];
        let user = User { name: "agent".into(), uid: 1000, gid: 1000, home: "/home/agent".into() };
        let packages = vec![deb("ca-certificates", &certificates), deb("mawk", &[("bin/mawk", "elf")])];
        let root = RootFs::from_packages(packages, &[user]).unwrap();
        assert_eq!(text(&root, CA_BUNDLE), "A\nB\n");
        assert_eq!(text(&root, "usr/bin/awk"), "elf");
        assert!(text(&root, "etc/nsswitch.conf").contains("hosts: files dns"));
        assert!(text(&root, "etc/passwd").ends_with("agent:*:1000:1000:agent:/home/agent:/bin/sh\n"));
        assert!(text(&root, "etc/group").ends_with("agent:*:1000:\n"));
        assert_eq!(root.tree.get("home/agent"), Some(&Node::Dir(Meta { mode: 0o750, uid: 1000, gid: 1000 })));
        let passwd = "root:*:0:0:root:/root:/bin/bash\ngames:*:5:60:games:/usr/games:/usr/sbin/nologin\n";
        let games = User { name: "games".into(), uid: 1000, gid: 1000, home: "/home/games".into() };
        let packages = vec![deb("base-passwd", &[("usr/share/base-passwd/passwd.master", passwd)])];
        let other = RootFs::from_packages(packages, &[games]).unwrap();
        let expected = "root:*:0:0:root:/root:/bin/sh\ngames:*:1000:1000:games:/home/games:/bin/sh\n";
        assert_eq!(text(&other, "etc/passwd"), expected);
        assert_eq!(root.tree.get("tmp"), Some(&Node::Dir(Meta::root(0o1777))));
        assert_eq!(root.skipped.keys().collect::<Vec<_>>(), ["ca-certificates", "mawk"]);
        assert!(text(&root, "var/lib/dpkg/status").starts_with("Package: ca-certificates\nStatus: install ok"));
    }
}
