//! [`application`] and [`configuration`]: build contexts that are the same on every machine for the same seed.
//!
//! The application is shaped as a Node.js program with its dependencies: 3,000 files in 884 folders, 194 MB. 58 of them
//! are binaries: one third incompressible (images, archives), two thirds as compressible as machine code. The rest is
//! text as sources are: a few thousand words in lines, 1 to 32 KB, most about 4 KB.

use std::{fs, path::Path};

use fastrand::Rng;

/// Files of [`application`].
pub const FILES: usize = 3000;
/// Folders of [`application`], its own root not counted.
pub const FOLDERS: usize = 884;
const BINARIES: usize = 58;
const BYTES: usize = 193_900_000;
/// Files below `src/`; the rest are dependencies.
const SOURCES: usize = 100;
const SOURCE_FOLDERS: usize = 12;

/// The file that the benchmark edits: small, among the sources.
pub const EDITED: &str = "src/module-06/file-0042.js";

const WORDS: &[&str] = &[
    "const",
    "let",
    "function",
    "return",
    "await",
    "async",
    "import",
    "export",
    "from",
    "if",
    "else",
    "for",
    "of",
    "new",
    "this",
    "=>",
    "===",
    "(",
    ")",
    "{",
    "}",
    "[",
    "]",
    ";",
    ",",
    "'",
    "\"",
    "// the",
    "value",
    "index",
    "options",
    "error",
    "result",
    "callback",
    "module",
    "require",
    "length",
    "push",
    "map",
    "filter",
    "Object",
    "Array",
    "String",
    "Promise",
    "undefined",
    "null",
    "true",
    "false",
    "throw",
    "Error",
    "name",
    "path",
    "buffer",
    "stream",
    "event",
    "listener",
];

/// Makes the application in a folder that is not there yet.
///
/// # Errors
/// When files cannot be written.
pub fn application(folder: &Path, seed: u64) -> anyhow::Result<()> {
    let mut random = Rng::with_seed(seed);
    let mut folders = vec![folder.join("src"), folder.join("node_modules")];
    folders.extend((0..SOURCE_FOLDERS).map(|n| folder.join(format!("src/module-{n:02}"))));
    let packages = FOLDERS - folders.len();
    // Of every three folders, one is a package and two are its own.
    let package = |n: usize| folder.join(format!("node_modules/package-{:03}", n / 3));
    folders.extend((0..packages).map(|n| match n % 3 {
        0 => package(n),
        1 => package(n).join("lib"),
        _ => package(n).join("dist"),
    }));
    for made in &folders {
        fs::create_dir_all(made)?;
    }
    let dependencies = &folders[2 + SOURCE_FOLDERS..];
    let texts = FILES - BINARIES;
    let mut written = 0;
    for n in 0..texts {
        let path = match n {
            n if n < SOURCES => folder.join(format!("src/module-{:02}/file-{n:04}.js", n % SOURCE_FOLDERS)),
            n => dependencies[n % dependencies.len()].join(format!("file-{n:04}.js")),
        };
        let text = source_text(&mut random, n);
        written += text.len();
        fs::write(path, text)?;
    }
    let each = (BYTES - written) / BINARIES;
    for n in 0..BINARIES {
        let bytes = if n % 3 == 0 { noise(&mut random, each) } else { machine_code(&mut random, each) };
        fs::write(dependencies[(n * 7) % dependencies.len()].join(format!("native-{n:02}.node")), bytes)?;
    }
    Ok(())
}

/// All of [`application`] in one file, one after the other: a layer that nothing can divide.
pub const BUNDLE: &str = "application.bundle";

/// The bytes of the application as one file, in a folder that is not there yet.
///
/// # Errors
/// When files cannot be written.
pub fn bundle(folder: &Path, seed: u64) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    let parts = folder.join("parts");
    application(&parts, seed)?;
    let mut whole = fs::File::create(folder.join(BUNDLE))?;
    for path in crate::stat::walk(&parts)?.files.keys() {
        std::io::copy(&mut fs::File::open(parts.join(path))?, &mut whole)?;
    }
    Ok(fs::remove_dir_all(parts)?)
}

/// Five small files, 15.6 KB.
///
/// # Errors
/// When files cannot be written.
pub fn configuration(folder: &Path, seed: u64) -> anyhow::Result<()> {
    let mut random = Rng::with_seed(seed);
    fs::create_dir_all(folder.join("conf.d"))?;
    for name in ["agent.json", "rooms.json", "models.json", "conf.d/one.conf", "conf.d/two.conf"] {
        let mut text = source_text(&mut random, 0);
        text.truncate(3_120);
        fs::write(folder.join(name), text)?;
    }
    Ok(())
}

fn source_text(random: &mut Rng, number: usize) -> String {
    // Most about 4 KB, some much larger.
    let wanted =
        1_000 + random.usize(0..6_500) + if number.is_multiple_of(25) { random.usize(0..24_000) } else { 3_200 };
    let mut text = format!("// file {number}\n");
    while text.len() < wanted {
        let indent = random.usize(0..4);
        text.extend(std::iter::repeat_n("    ", indent));
        for _ in 0..random.usize(3..12) {
            text.push_str(WORDS[random.usize(..WORDS.len())]);
            text.push(' ');
            if random.u8(..) < 24 {
                text.push_str(&format!("{}{} ", WORDS[random.usize(..WORDS.len())], random.u16(..)));
            }
        }
        text.push('\n');
    }
    text
}

fn noise(random: &mut Rng, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    random.fill(&mut bytes);
    bytes
}

/// Instructions of 2 to 7 bytes from a few hundred, common ones far more often, with operands that are random now and
/// then: zstd makes about a third of it, as of machine code.
fn machine_code(random: &mut Rng, length: usize) -> Vec<u8> {
    let mut table = Vec::new();
    for _ in 0..400 {
        let length = random.usize(2..8);
        table.push(noise(random, length));
    }
    let mut bytes = b"\x7fELF\x02\x01\x01\x00".to_vec();
    while bytes.len() < length {
        let (a, b) = (random.usize(..table.len()), random.usize(..table.len()));
        bytes.extend(&table[a * b / table.len()]);
        if random.u8(..) < 70 {
            bytes.push(random.u8(..));
        }
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stat::walk;

    #[test]
    fn the_application_is_what_the_reference_measured_and_the_same_each_time() {
        let folder = tempfile::tempdir().unwrap();
        let paths = [folder.path().join("a"), folder.path().join("b")];
        let hashes = paths.each_ref().map(|path| {
            application(path, 1).unwrap();
            let found = walk(path).unwrap();
            let mut all = blake3::Hasher::new();
            for (name, stamp) in &found.files {
                all.update(name.as_bytes());
                all.update(&fs::read(path.join(name)).unwrap());
                assert!(stamp.size > 0);
            }
            assert_eq!((found.files.len(), found.folders.len()), (FILES, FOLDERS));
            let bytes: u64 = found.files.values().map(|stamp| stamp.size).sum();
            assert!((193_000_000..195_000_000).contains(&bytes), "{bytes} bytes");
            assert!(found.files.contains_key(EDITED));
            all.finalize()
        });
        assert_eq!(hashes[0], hashes[1]);
    }
}
