//! Python wheels as trees: a virtual environment ([`environment`]) and [`unpack`] for each wheel in it.
//!
//! Only wheels; a source distribution would have to run somebody's code. Files are not byte-compiled: that would
//! need the image's Python, and its output carries mtimes.

use std::io::{self, BufRead, Read, Seek};

use crate::{
    content::{Content, ContentSink},
    npm::relative,
    read_tar::{MAXIMUM_ENTRIES, MAXIMUM_UNPACKED},
    tree::{Meta, Node, Tree, TreeError, clean},
};

/// Why a wheel is refused.
#[derive(Debug, thiserror::Error)]
pub enum WheelError {
    /// Not a zip, or broken.
    #[error("the wheel cannot be read: {0}")]
    Zip(#[from] zip::result::ZipError),
    /// A content cannot be read or kept.
    #[error("the wheel cannot be unpacked: {0}")]
    Io(#[from] io::Error),
    /// A path that leaves the environment.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// As the archive names it, before it is placed.
    #[error("the entry {entry:?} is refused: {source}")]
    Entry {
        /// The entry.
        entry: String,
        /// What is wrong.
        #[source]
        source: TreeError,
    },
    /// More than the declared bounds.
    #[error("the wheel has more than {bound} at the entry {entry:?}")]
    TooLarge {
        /// Which bound.
        bound: &'static str,
        /// The first entry beyond it.
        entry: String,
    },
    /// A symbolic link: wheels have none.
    #[error("the entry {0:?} is a symbolic link, which wheels cannot have")]
    Link(String),
    /// A data scheme nobody knows.
    #[error("the wheel puts {0:?} where no installer would know to put it")]
    Scheme(String),
}

/// A virtual environment on the image's `/usr/bin/python3`: links and `pyvenv.cfg`.
///
/// # Errors
/// [`TreeError`] when `to` is refused.
pub fn environment(to: &str, python: &str) -> Result<Tree, TreeError> {
    let to = relative(to);
    let config = format!("home = /usr/bin\ninclude-system-site-packages = false\nversion = {python}\n");
    let mut tree = Tree::new();
    tree.insert(&format!("{to}/pyvenv.cfg"), Node::file(0o644, config))?;
    for name in ["python", "python3", &format!("python{python}")] {
        tree.insert(&format!("{to}/bin/{name}"), Node::Symlink(format!("/usr/bin/python{python}")))?;
    }
    Ok(tree)
}

/// Where the parts of a wheel go.
struct Places {
    root: String,
    site: String,
    interpreter: String,
}

/// Unpacks a wheel into the environment at `to`.
///
/// # Errors
/// [`WheelError`].
pub fn unpack(wheel: impl Read + Seek, to: &str, python: &str, sink: &mut dyn ContentSink) -> Result<Tree, WheelError> {
    let root = relative(to).to_owned();
    let places = Places {
        site: format!("{root}/lib/python{python}/site-packages"),
        interpreter: format!("/{root}/bin/python3"),
        root,
    };
    let mut archive = zip::ZipArchive::new(wheel)?;
    if archive.len() > MAXIMUM_ENTRIES {
        return Err(WheelError::TooLarge { bound: "1,000,000 entries", entry: "its directory".to_owned() });
    }
    let mut tree = Tree::new();
    let mut unpacked = 0;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        if entry.is_dir() {
            continue;
        }
        let name = entry.name()?.into_owned();
        let refused = |source| WheelError::Entry { entry: name.clone(), source };
        clean(&name).map_err(refused)?;
        unpacked = entry.size().saturating_add(unpacked);
        if unpacked > MAXIMUM_UNPACKED {
            return Err(WheelError::TooLarge { bound: "16 GiB of files", entry: name });
        }
        if entry.is_symlink() {
            // pip writes them as files that hold the target; nobody can mean that.
            return Err(WheelError::Link(name));
        }
        let (path, script) = places.of(&name)?;
        let executable = script || entry.unix_mode().is_some_and(|mode| mode & 0o100 != 0);
        let size = entry.size();
        let mut content = sink.store(&mut entry, size)?;
        if script {
            content = places.with_interpreter(&content)?;
        }
        if name.ends_with(".dist-info/entry_points.txt") {
            places.add_commands(&content, &mut tree)?;
        }
        tree.insert_once(&path, Node::File(Meta::from_x_bit(executable), content)).map_err(refused)?;
    }
    Ok(tree)
}

impl Places {
    /// Where a member goes, and whether it is a script.
    fn of(&self, name: &str) -> Result<(String, bool), WheelError> {
        // `x-1.0.data/scripts/run` is for bin/, everything outside `.data` for site-packages.
        let data = name.split_once('/').filter(|(first, _)| first.ends_with(".data"));
        let Some((_, rest)) = data else { return Ok((format!("{}/{name}", self.site), false)) };
        match rest.split_once('/') {
            Some(("scripts", file)) => Ok((format!("{}/bin/{file}", self.root), true)),
            Some(("purelib" | "platlib", file)) => Ok((format!("{}/{file}", self.site), false)),
            Some(("data", file)) => Ok((format!("{}/{file}", self.root), false)),
            Some(("headers", file)) => Ok((format!("{}/include/{file}", self.root), false)),
            _ => Err(WheelError::Scheme(name.to_owned())),
        }
    }

    /// `#!python` is a placeholder for the environment's interpreter.
    fn with_interpreter(&self, content: &Content) -> io::Result<Content> {
        let bytes = content.to_vec()?;
        let Some(rest) = bytes.strip_prefix(b"#!python") else { return Ok(content.clone()) };
        let line_end = rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len());
        Ok(Content::bytes([format!("#!{}", self.interpreter).as_bytes(), &rest[line_end..]].concat()))
    }

    /// A script in bin/ for each console entry point.
    fn add_commands(&self, entry_points: &Content, tree: &mut Tree) -> Result<(), WheelError> {
        let bytes = entry_points.to_vec()?;
        let mut in_scripts = false;
        for line in io::Cursor::new(bytes).lines() {
            let line = line?;
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.starts_with('[') {
                in_scripts = line == "[console_scripts]" || line == "[gui_scripts]";
                continue;
            }
            let Some((command, target)) = line.split_once('=').filter(|_| in_scripts) else { continue };
            let target = target.split('[').next().unwrap_or_default().trim();
            let Some((module, function)) = target.split_once(':') else { continue };
            let script = self.command(module.trim(), function.trim());
            tree.insert(&format!("{}/bin/{}", self.root, command.trim()), Node::file(0o755, script))?;
        }
        Ok(())
    }

    fn command(&self, module: &str, function: &str) -> String {
        let imported = function.split('.').next().unwrap_or_default();
        format!(
            "#!{}\nimport sys\nfrom {module} import {imported}\nif __name__ == '__main__':\n    sys.exit({function}())\n",
            self.interpreter
        )
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Cursor, Write};

    use super::*;
    use crate::MemorySink;

    fn wheel(files: &[(&str, &str)]) -> Cursor<Vec<u8>> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        for (path, text) in files {
            zip.start_file(*path, zip::write::SimpleFileOptions::default()).unwrap();
            zip.write_all(text.as_bytes()).unwrap();
        }
        Cursor::new(zip.finish().unwrap().into_inner())
    }

    fn text(tree: &Tree, path: &str) -> String {
        let (_, content) = tree.resolve_file(path).unwrap_or_else(|| panic!("no {path}"));
        String::from_utf8(content.to_vec().unwrap()).unwrap()
    }

    #[test]
    fn modules_scripts_and_entry_points_land_where_python_finds_them() {
        let wheel = wheel(&[
            ("pkg/__init__.py", "x = 1"),
            ("pkg-1.data/scripts/old", "#!python -E\nprint()"),
            ("pkg-1.data/data/share/pkg/a.txt", "a"),
            ("pkg-1.dist-info/entry_points.txt", "[other]\na = b:c\n[console_scripts]\nrun = pkg.main:App.run [x]\n"),
        ]);
        let tree = unpack(wheel, "/opt/s", "3.11", &mut MemorySink).unwrap();
        assert_eq!(text(&tree, "opt/s/lib/python3.11/site-packages/pkg/__init__.py"), "x = 1");
        assert_eq!(text(&tree, "opt/s/bin/old"), "#!/opt/s/bin/python3\nprint()");
        assert_eq!(text(&tree, "opt/s/share/pkg/a.txt"), "a");
        let run = text(&tree, "opt/s/bin/run");
        assert!(run.contains("from pkg.main import App\n") && run.contains("sys.exit(App.run())"), "{run}");
        assert!(tree.get("opt/s/bin/a").is_none());
    }

    #[test]
    fn a_wheel_that_climbs_out_is_refused() {
        let wheel = wheel(&[("../../../../../etc/passwd", "root")]);
        assert!(matches!(unpack(wheel, "/opt/s", "3.11", &mut MemorySink), Err(WheelError::Entry { .. })));
    }
}
