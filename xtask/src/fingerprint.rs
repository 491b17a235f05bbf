//! Which sources an eBPF object was built from: written beside the object by `cargo xtask build-ebpf`, compared by
//! the agent's build script (which includes this very file), so that a stale object is never embedded.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The object, relative to the workspace.
pub(crate) const OBJECT: &str = "target/bpf/xtcp-ebpf.o";
/// The [`fingerprint`] of the sources that [`OBJECT`] was built from, relative to the workspace.
pub(crate) const SIDECAR: &str = "target/bpf/xtcp-ebpf.sources";
/// Files and folders that the object is made from, relative to the workspace.
pub(crate) const SOURCES: [&str; 4] =
    ["xtcp-common/Cargo.toml", "xtcp-common/src", "xtcp-ebpf/Cargo.toml", "xtcp-ebpf/src"];

/// FNV-1a (64 bits, 16 hexadecimal digits) over the path, length and content of every file in [`SOURCES`], in the
/// order of their paths: the same on every machine and in every checkout.
pub(crate) fn fingerprint(workspace: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for source in SOURCES {
        collect(&workspace.join(source), &mut files)?;
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    for file in files {
        let content = fs::read(&file)?;
        hash.update(file.strip_prefix(workspace).unwrap_or(&file).to_string_lossy().as_bytes());
        hash.update(&content.len().to_le_bytes());
        hash.update(&content);
    }
    Ok(format!("{:016x}", hash.0))
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let mut entries =
        fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<PathBuf>>>()?;
    entries.sort();
    entries.iter().try_for_each(|entry| collect(entry, files))
}

struct Fnv(u64);

impl Fnv {
    fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }
}
