//! Finding a compiler that can build for BPF: it needs the source of its own `core`, because no
//! `bpfel-unknown-none` library comes prebuilt, and a shared libLLVM that bpf-linker can use too.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, bail};

use crate::command::{output, which};
use crate::{debian, workspace};

/// The oldest compiler that builds this workspace, as (major, minor).
const OLDEST: (u32, u32) = (1, 90);

/// What Debian calls a recent compiler and its library source.
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "rust-web-src"];

const HOW_TO_GET_ONE: &str = "\
no compiler here can build for BPF; one of these brings one:
  rustup:  rustup toolchain install nightly --component rust-src
  Debian:  sudo apt-get update && sudo apt-get install -y rustc-web rust-web-src
  Fedora:  sudo dnf install -y rust cargo rust-src llvm-libs
  Nix:     nix develop";

/// A compiler that can build the eBPF side.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// The compiler itself, never rustup's proxy.
    pub(crate) rustc: PathBuf,
    /// The cargo to drive it with.
    pub(crate) cargo: PathBuf,
    /// All that `rustc -Vv` says: part of the decision whether to build again.
    pub(crate) version: String,
    /// Whether it takes `-Z` flags by itself.
    pub(crate) nightly: bool,
    /// The library source where it is not in the sysroot.
    pub(crate) source_elsewhere: Option<PathBuf>,
    /// The shared libLLVM that the compiler runs with.
    pub(crate) llvm: PathBuf,
    /// Its major version: bpf-linker must have the same to read the compiler's bitcode.
    pub(crate) llvm_major: u32,
}

/// Searches in a fixed order and prints each verdict; on Debian as root installs one when none is there.
pub(crate) fn find() -> Result<Toolchain> {
    if let Some(toolchain) = search() {
        return Ok(toolchain);
    }
    if !debian::may_install() {
        bail!(HOW_TO_GET_ONE);
    }
    println!("none found, but this is Debian-like and we are root: installing {}", DEBIAN_PACKAGES.join(" "));
    debian::install(&DEBIAN_PACKAGES).context(HOW_TO_GET_ONE)?;
    search().ok_or_else(|| anyhow!(HOW_TO_GET_ONE))
}

fn search() -> Option<Toolchain> {
    type Look = fn() -> Result<Toolchain>;
    let places = [
        ("a nightly with rust-src", nightly as Look),
        ("the default compiler with rust-src", default_compiler),
        ("a system compiler with its library source", system_compiler),
    ];
    println!("compilers for the eBPF side:");
    for (number, (place, look)) in (1..).zip(places) {
        match look() {
            Ok(found) => {
                let version = found.version.lines().next().unwrap_or_default();
                println!("  {number}. {place}: {version} at {}", found.rustc.display());
                return Some(found);
            }
            Err(why) => println!("  {number}. {place}: no: {why:#}"),
        }
    }
    None
}

fn nightly() -> Result<Toolchain> {
    if which("rustup").is_none() {
        bail!("no rustup");
    }
    let list = output(Command::new("rustup").args(["toolchain", "list"]))?;
    let names = list.lines().filter_map(|line| line.split_whitespace().next());
    let mut last = anyhow!("rustup has no nightly");
    for name in names.filter(|name| name.starts_with("nightly")) {
        let looked = output(Command::new("rustup").args(["which", "--toolchain", name, "rustc"]))
            .and_then(|rustc| inspect(Path::new(rustc.trim())));
        match looked {
            Ok(found) => return Ok(found),
            Err(why) => last = why.context(name.to_owned()),
        }
    }
    Err(last)
}

fn default_compiler() -> Result<Toolchain> {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))?;
    inspect(&Path::new(sysroot.trim()).join("bin/rustc"))
}

fn system_compiler() -> Result<Toolchain> {
    let rustc = Path::new("/usr/bin/rustc");
    if !rustc.exists() {
        bail!("no {}", rustc.display());
    }
    inspect(rustc)
}

/// Gathers what we must know of one compiler, or says what it lacks.
fn inspect(rustc: &Path) -> Result<Toolchain> {
    let version = output(Command::new(rustc).arg("-Vv"))?;
    let field = |name: &str| {
        let value = version.lines().find_map(|line| line.strip_prefix(name));
        value.map(str::trim).with_context(|| format!("`{} -Vv` has no line {name}", rustc.display()))
    };
    let release = field("release:")?;
    if major_minor(release).is_none_or(|number| number < OLDEST) {
        bail!("{release} is older than {}.{}", OLDEST.0, OLDEST.1);
    }
    let sysroot = output(Command::new(rustc).args(["--print", "sysroot"]))?;
    let source_elsewhere = library_source(Path::new(sysroot.trim()), release)?;
    Ok(Toolchain {
        rustc: rustc.to_owned(),
        cargo: cargo_beside(rustc),
        nightly: release.contains("nightly"),
        source_elsewhere,
        llvm: shared_llvm(rustc)?,
        llvm_major: llvm_major(rustc)?,
        version,
    })
}

/// The major version of the LLVM that a compiler generates code with.
pub(crate) fn llvm_major(rustc: &Path) -> Result<u32> {
    let version = output(Command::new(rustc).arg("-Vv"))?;
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version:"));
    let major = line.and_then(|line| line.trim().split('.').next()?.parse().ok());
    major.with_context(|| format!("`{} -Vv` names no LLVM version", rustc.display()))
}

/// `None`: in the sysroot, where cargo looks by itself.
fn library_source(sysroot: &Path, release: &str) -> Result<Option<PathBuf>> {
    let has_core = |library: &Path| library.join("core/src/lib.rs").exists();
    if has_core(&sysroot.join("lib/rustlib/src/rust/library")) {
        return Ok(None);
    }
    let system = PathBuf::from(format!("/usr/src/rustc-{release}/library"));
    if sysroot == Path::new("/usr") && has_core(&system) {
        return Ok(Some(system));
    }
    // nixpkgs keeps it apart and says where; elsewhere that variable may mean another compiler's.
    let named = std::env::var_os("RUST_SRC_PATH").map(PathBuf::from).filter(|library| has_core(library));
    if let Some(library) = named.filter(|_| sysroot.starts_with("/nix/store")) {
        return Ok(Some(library));
    }
    bail!("{release} in {} has no library source", sysroot.display())
}

/// The loader knows best which libLLVM a compiler runs with, whatever the distribution or architecture.
fn shared_llvm(rustc: &Path) -> Result<PathBuf> {
    let needed = output(Command::new("ldd").arg(rustc).env("LC_ALL", "C"))?;
    let found = needed.lines().find(|line| line.trim_start().starts_with("libLLVM"));
    let path = found.and_then(|line| line.split_whitespace().nth(2)).map(PathBuf::from);
    path.filter(|path| path.exists())
        .with_context(|| format!("{} does not run with a shared libLLVM", rustc.display()))
}

fn cargo_beside(rustc: &Path) -> PathBuf {
    let beside = rustc.with_file_name("cargo");
    if beside.exists() { beside } else { workspace::cargo() }
}

fn major_minor(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::major_minor;

    #[test]
    fn releases_are_compared_by_number_and_not_as_text() {
        assert_eq!(major_minor("1.97.0-nightly"), Some((1, 97)));
        assert!(major_minor("1.9.0") < major_minor("1.90.0"));
        assert_eq!(major_minor("unknown"), None);
    }
}
