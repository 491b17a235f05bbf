//! An initramfs: a tree of files of this host at the paths that they have here, as a cpio archive (`newc`, see the
//! kernel's Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::command::output;

/// What a name in the tree is.
enum Node {
    Folder,
    File {
        source: PathBuf,
        mode: u32,
    },
    Bytes {
        content: Vec<u8>,
        mode: u32,
    },
    Link(PathBuf),
    /// The kernel opens it before anything is mounted: without it the first process has no output.
    Console,
}

/// The tree; every parent folder of a name is in it too.
#[derive(Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<PathBuf, Node>,
}

impl Tree {
    /// A tree with the top-level links of this host (/bin → usr/bin and the like), so that paths mean the same.
    pub(crate) fn like_this_host() -> Result<Self> {
        let mut tree = Self::default();
        for name in ["bin", "sbin", "lib", "lib64", "lib32", "libx32"] {
            let path = Path::new("/").join(name);
            match fs::read_link(&path) {
                Ok(target) => tree.put(&path, Node::Link(target)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => tree.folder(&path),
                Err(error) => return Err(error).with_context(|| format!("read the link {}", path.display())),
            }
        }
        for folder in
            ["/proc", "/sys", "/dev", "/run", "/tmp", "/root", "/var", "/usr/bin", "/usr/sbin", "/vm/bin"]
        {
            tree.folder(Path::new(folder));
        }
        tree.put(Path::new("/dev/console"), Node::Console);
        Ok(tree)
    }

    /// An empty folder, unless it is there.
    pub(crate) fn folder(&mut self, path: &Path) {
        if path.parent().is_some() && !self.nodes.contains_key(path) {
            self.put(path, Node::Folder);
        }
    }

    /// A file with this content.
    pub(crate) fn bytes(&mut self, path: &str, mode: u32, content: impl Into<Vec<u8>>) {
        self.put(Path::new(path), Node::Bytes { content: content.into(), mode });
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &str, target: &str) {
        self.put(Path::new(path), Node::Link(target.into()));
    }

    /// The content of `source`, at `path`.
    pub(crate) fn file(&mut self, path: &Path, source: &Path) -> Result<()> {
        let meta = fs::metadata(source).with_context(|| format!("look at {}", source.display()))?;
        if !meta.is_file() {
            bail!("{} is no file", source.display());
        }
        let node = Node::File { source: source.to_owned(), mode: meta.permissions().mode() & 0o7777 };
        self.put(path, node);
        Ok(())
    }

    /// A file of this host at its own path; a program comes with the libraries that it loads, a script with its
    /// interpreter, a folder with all that is in it.
    pub(crate) fn with(&mut self, path: &Path) -> Result<()> {
        let path = std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
        let place = place(&path)?;
        if self.nodes.get(&place).is_some_and(|node| !matches!(node, Node::Folder)) {
            return Ok(());
        }
        if path.is_dir() {
            self.folder(&place);
            let entries = fs::read_dir(&path).with_context(|| format!("list {}", path.display()))?;
            for entry in entries {
                self.with(&entry.with_context(|| format!("list {}", path.display()))?.path())?;
            }
            return Ok(());
        }
        self.file(&place, &path)?;
        let mut start = [0; 256];
        let length = io::Read::read(
            &mut File::open(&path).with_context(|| format!("open {}", path.display()))?,
            &mut start,
        )
        .with_context(|| format!("read {}", path.display()))?;
        let start = start.get(..length).unwrap_or_default();
        if start.starts_with(b"\x7fELF") {
            for library in libraries(&path)? {
                let place = self::place(&library)?;
                self.file(&place, &library)?;
            }
        } else if let Some(interpreter) = interpreter(start) {
            self.with(&interpreter)
                .with_context(|| format!("bring the interpreter of {}", path.display()))?;
        }
        Ok(())
    }

    /// All files below `source`, as they are, below `path`.
    pub(crate) fn folder_at(&mut self, path: &Path, source: &Path) -> Result<()> {
        let path = place(path)?;
        self.folder(&path);
        for entry in fs::read_dir(source).with_context(|| format!("list {}", source.display()))? {
            let entry = entry.with_context(|| format!("list {}", source.display()))?;
            let (below, source) = (path.join(entry.file_name()), entry.path());
            if source.is_dir() {
                self.folder_at(&below, &source)?;
            } else {
                self.file(&below, &source)?;
            }
        }
        Ok(())
    }

    fn put(&mut self, path: &Path, node: Node) {
        if let Some(parent) = path.parent() {
            self.folder(parent);
        }
        self.nodes.insert(path.to_owned(), node);
    }

    /// Writes the archive; several one after the other are one tree to the kernel.
    pub(crate) fn write(&self, out: &mut impl Write) -> Result<()> {
        for (number, (path, node)) in (1..).zip(&self.nodes) {
            write_node(out, number, path, node).with_context(|| format!("pack {}", path.display()))?;
        }
        header(out, Header { name: b"TRAILER!!!", inode: 0, mode: 0, size: 0, device: (0, 0) })?;
        Ok(())
    }
}

#[derive(Clone, Copy)]
struct Header<'a> {
    name: &'a [u8],
    inode: u32,
    mode: u32,
    size: u64,
    device: (u32, u32),
}

fn header(out: &mut impl Write, header: Header<'_>) -> Result<()> {
    let Header { name, inode, mode, size, device: (major, minor) } = header;
    let size = u32::try_from(size).context("a file of 4 GiB or more has no place in a cpio archive")?;
    let links = if mode & 0o170_000 == 0o040_000 { 2 } else { 1 };
    write!(out, "070701{inode:08x}{mode:08x}{:08x}{:08x}{links:08x}{:08x}{size:08x}", 0, 0, 0)?;
    write!(out, "{:08x}{:08x}{major:08x}{minor:08x}{:08x}{:08x}", 0, 0, name.len() + 1, 0)?;
    out.write_all(name)?;
    out.write_all(&[0])?;
    pad(out, 110 + name.len() as u64 + 1)
}

fn pad(out: &mut impl Write, length: u64) -> Result<()> {
    let missing = usize::try_from(length.wrapping_neg() % 4)?;
    Ok(out.write_all([0; 3].get(..missing).unwrap_or_default())?)
}

fn write_node(out: &mut impl Write, inode: u32, path: &Path, node: &Node) -> Result<()> {
    let name = path.as_os_str().as_bytes();
    let name = name.strip_prefix(b"/").unwrap_or(name);
    let plain = |mode, size| Header { name, inode, mode, size, device: (0, 0) };
    match node {
        Node::Folder => header(out, plain(0o040_755, 0)),
        Node::Console => header(out, Header { device: (5, 1), ..plain(0o020_600, 0) }),
        Node::Link(target) => content(out, plain(0o120_777, 0), target.as_os_str().as_bytes()),
        Node::Bytes { content: bytes, mode } => content(out, plain(0o100_000 | mode, 0), bytes),
        Node::File { source, mode } => {
            let mut file = File::open(source)?;
            let size = file.metadata()?.len();
            header(out, plain(0o100_000 | mode, size))?;
            let copied = io::copy(&mut io::Read::take(&mut file, size), out)?;
            if copied != size {
                bail!("{} became shorter while it was read", source.display());
            }
            pad(out, size)
        }
    }
}

fn content(out: &mut impl Write, fields: Header<'_>, bytes: &[u8]) -> Result<()> {
    header(out, Header { size: bytes.len() as u64, ..fields })?;
    out.write_all(bytes)?;
    pad(out, bytes.len() as u64)
}

/// Where a path of this host lies when the links of its folders are followed, but not its own.
fn place(path: &Path) -> Result<PathBuf> {
    let (Some(parent), Some(Component::Normal(name))) = (path.parent(), path.components().next_back()) else {
        bail!("{} names no file", path.display());
    };
    // A folder that is only in the tree has no links.
    let parent = match parent.canonicalize() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => place(parent)?,
        result => result.with_context(|| format!("find {}", parent.display()))?,
    };
    Ok(parent.join(name))
}

/// Whether a program runs without any library.
pub(crate) fn is_static(program: &Path) -> Result<bool> {
    Ok(libraries(program)?.is_empty())
}

/// All libraries that the loader would take for a program, and the loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    // A static program is an error for ldd; it needs none.
    let Ok(text) = output(Command::new("ldd").arg(program).env("LC_ALL", "C")) else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.ends_with("not found") {
            bail!("{} needs a library that is missing: {line}", program.display());
        }
        let path =
            line.split_once("=> ").map_or(line, |(_, path)| path).split(" (").next().unwrap_or_default();
        if path.starts_with('/') {
            found.push(path.into());
        }
    }
    Ok(found)
}

/// The interpreter of a script; the shell is busybox's and is there.
fn interpreter(start: &[u8]) -> Option<PathBuf> {
    let line = start.strip_prefix(b"#!")?.split(|&byte| byte == b'\n').next()?;
    let word = line.trim_ascii().split(u8::is_ascii_whitespace).next()?;
    let path = Path::new(OsStr::from_bytes(word));
    let is_shell = matches!(path.file_name()?.to_str()?, "sh" | "env");
    (!is_shell).then(|| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_has_every_parent_before_its_child_and_a_trailer() {
        let mut tree = Tree::default();
        tree.bytes("/a/b/c", 0o755, *b"12345");
        tree.link("/a/link", "b/c");
        let mut archive = Vec::new();
        tree.write(&mut archive).unwrap();
        assert_eq!(archive.len() % 4, 0);
        let text = String::from_utf8_lossy(&archive);
        let at = |name: &str| text.find(&format!("{name}\0")).unwrap_or_else(|| panic!("no {name}"));
        assert!(at("a") < at("a/b") && at("a/b") < at("a/b/c") && at("a/b/c") < at("TRAILER!!!"));
        assert!(text.contains("a/b/c\0") && text.contains("12345\0\0\x00070701"), "{text}");
    }

    #[test]
    fn a_program_brings_its_loader_and_libraries() {
        let itself = std::env::current_exe().unwrap();
        let libraries = libraries(&itself).unwrap();
        let has = |start: &str| {
            libraries.iter().any(|path| path.file_name().unwrap().to_str().unwrap().starts_with(start))
        };
        assert!(has("libc.so") && has("ld-linux"), "{libraries:?}");
    }

    #[test]
    fn a_script_brings_its_interpreter_unless_that_is_the_shell() {
        assert_eq!(interpreter(b"#! /usr/bin/python3 -u\nx"), Some("/usr/bin/python3".into()));
        assert_eq!(interpreter(b"#!/bin/sh\n"), None);
        assert_eq!(interpreter(b"text"), None);
    }
}
