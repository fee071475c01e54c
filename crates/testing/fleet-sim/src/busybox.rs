//! [`busybox`]: the smallest image that can do something, for tests with a real engine.

/// The root file system of a test image, as a tar: a static busybox under these names, and some folders.
///
/// # Panics
/// Where no static busybox is installed.
#[must_use]
pub fn busybox(names: &[&str]) -> Vec<u8> {
    let program = std::fs::read("/bin/busybox").unwrap_or_else(|error| {
        panic!("these tests need a static busybox: `apt-get install busybox-static` (/bin/busybox: {error})")
    });
    write(&program, names).unwrap_or_else(|error| panic!("a tar in memory: {error}"))
}

fn write(program: &[u8], names: &[&str]) -> std::io::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut add = |path: &str, kind: tar::EntryType, mode: u32, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_size(bytes.len() as u64);
        tar.append_data(&mut header, path, bytes)
    };
    for folder in ["bin/", "data/", "etc/"] {
        add(folder, tar::EntryType::Directory, 0o755, b"")?;
    }
    add("tmp/", tar::EntryType::Directory, 0o1777, b"")?;
    add("bin/busybox", tar::EntryType::Regular, 0o755, program)?;
    for name in names {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(tar::EntryType::Symlink);
        header.set_size(0);
        tar.append_link(&mut header, format!("bin/{name}"), "busybox")?;
    }
    tar.into_inner()
}
