//! From `xtcp-ebpf` to one object for all kernels, and from that to the release agent that embeds it.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{run, which};
use crate::fingerprint::{self, OBJECT, SIDECAR};
use crate::toolchain::{self, Toolchain};
use crate::{bpf_linker, debian, workspace};

#[derive(clap::Args, Clone, Copy, Default)]
pub(crate) struct Options {
    /// Compile log lines into the eBPF programs, for debugging
    #[arg(long)]
    log: bool,
    /// Stop after the eBPF object: don't build the agent
    #[arg(long)]
    no_agent: bool,
}

const TARGET: &str = "bpfel-unknown-none";
/// Cargo's folder for the object: apart, because its compiler is another than the agent's, and not beside the object,
/// because the agent's build script watches the object's folder.
const BUILD: &str = "target/bpf-build";
/// What the object was made from and with.
const RECIPE: &str = "target/bpf/xtcp-ebpf.recipe";

pub(crate) fn main(options: Options) -> Result<()> {
    build_object(options.log)?;
    if options.no_agent {
        return Ok(());
    }
    let agent = build_agent()?;
    say_what_next(&agent);
    Ok(())
}

/// Builds object and agent; returns the agent's path.
pub(crate) fn build_all() -> Result<PathBuf> {
    build_object(false)?;
    build_agent()
}

/// Removes the object and all that it was built from, but not the linker.
pub(crate) fn clean() -> Result<()> {
    let root = workspace::root();
    let object = root.join(OBJECT);
    for folder in [object.parent().context("the object has no folder")?, &root.join(BUILD)] {
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("remove {}", folder.display()))?;
        }
    }
    Ok(())
}

/// Builds the object unless it is there and made from the same sources by the same compiler with the same flags.
pub(crate) fn build_object(log: bool) -> Result<()> {
    let root = workspace::root();
    let (object, made_by) = (root.join(OBJECT), root.join(RECIPE));
    let sources = fingerprint::fingerprint(root).context("fingerprint the eBPF sources")?;
    let toolchain = toolchain::find()?;
    let recipe = recipe(&sources, &toolchain, log)?;
    let same = |file: &Path, text: &str| fs::read(file).is_ok_and(|was| was == text.as_bytes());
    if object.exists() && same(&made_by, &recipe) && same(&root.join(SIDECAR), &sources) {
        println!("eBPF object: {OBJECT} is up to date");
        return Ok(());
    }
    let linker = bpf_linker::find_or_build(&toolchain)?;
    compile(&toolchain, &linker, log)?;
    let built = root.join(BUILD).join(TARGET).join("release/xtcp-ebpf");
    let built = fs::read(&built).with_context(|| format!("read {}", built.display()))?;
    let folder = object.parent().context("the object has no folder")?;
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    // The recipe comes last: an interrupted build is done again.
    write_if_new(&object, &built)?;
    write_if_new(&root.join(SIDECAR), sources.as_bytes())?;
    write_if_new(&made_by, recipe.as_bytes())?;
    println!("eBPF object: {OBJECT}, {} bytes", built.len());
    Ok(())
}

/// Leaves a file alone that has this content: what depends on it stays fresh.
fn write_if_new(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|was| was == content) {
        return Ok(());
    }
    fs::write(path, content).with_context(|| format!("write {}", path.display()))
}

/// All that the object depends on.
fn recipe(sources: &str, toolchain: &Toolchain, log: bool) -> Result<String> {
    let lock = fs::read(workspace::root().join("Cargo.lock")).context("read Cargo.lock")?;
    let mut hasher = DefaultHasher::new();
    hasher.write(&lock);
    let (lock, flags) = (hasher.finish(), flags().join(" "));
    Ok(format!("sources {sources}\nlock {lock:016x}\nlog {log}\nflags {flags}\n{}", toolchain.version))
}

fn flags() -> [String; 4] {
    [
        "-Cdebuginfo=2".to_owned(),
        // The object carries BTF: the kernel checks the programs' types with it.
        "-Clink-arg=--btf".to_owned(),
        // Only `pt_regs` depends on it.
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        format!("--remap-path-prefix={}=.", workspace::root().display()),
    ]
}

fn compile(toolchain: &Toolchain, linker: &Path, log: bool) -> Result<()> {
    let mut cargo = Command::new(&toolchain.cargo);
    cargo.args(["build", "--release", "--locked", "--package", "xtcp-ebpf", "--target", TARGET]);
    cargo.args(["-Z", "build-std=core", "--target-dir"]).arg(workspace::root().join(BUILD));
    if log {
        cargo.args(["--features", "log"]);
    }
    cargo.env("RUSTC", &toolchain.rustc).env_remove("RUSTC_WRAPPER").env_remove("RUSTFLAGS");
    cargo.env("CARGO_ENCODED_RUSTFLAGS", flags().join("\u{1f}"));
    cargo.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", linker);
    // The workspace's release profile is the agent's; BPF wants whole-program optimisation and its debug info.
    for (setting, value) in
        [("LTO", "fat"), ("CODEGEN_UNITS", "1"), ("PANIC", "abort"), ("STRIP", "none"), ("DEBUG", "2")]
    {
        cargo.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
    }
    if !toolchain.nightly {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    if let Some(library) = &toolchain.source_elsewhere {
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    run(&mut cargo).context("compile xtcp-ebpf")
}

/// Builds the release agent with every destination; cargo's own check makes this a no-op when nothing changed.
pub(crate) fn build_agent() -> Result<PathBuf> {
    libraries()?;
    let mut cargo = Command::new(workspace::cargo());
    cargo.args(["build", "--release", "--locked", "--package", "xtcp-agent"]).args(workspace::EVERYTHING);
    run(&mut cargo)?;
    Ok(workspace::agent())
}

/// What the Kafka client links against: OpenSSL and zlib, with their headers.
pub(crate) fn libraries() -> Result<()> {
    let found = |library| {
        let mut pkg_config = Command::new("pkg-config");
        pkg_config.args(["--exists", library]).status().is_ok_and(|status| status.success())
    };
    if found("openssl") && found("zlib") {
        return Ok(());
    }
    debian::need(&["libssl-dev", "pkg-config", "zlib1g-dev"], "the Kafka client needs OpenSSL and zlib")
}

fn say_what_next(agent: &Path) {
    let shown = workspace::shown(agent);
    println!("\nthe agent, eBPF programs inside: {shown}");
    println!("  run it:      sudo {shown}");
    println!("  see traffic: cargo xtask run --demo");
    match which("xtcp2-agent") {
        None => println!("  install it:  cargo xtask install    (then: sudo xtcp2-agent)"),
        Some(installed) if same(&installed, agent) => println!("  installed:   {}", installed.display()),
        Some(installed) => {
            println!("  {} is another build: cargo xtask install replaces it", installed.display());
        }
    }
}

fn same(one: &Path, other: &Path) -> bool {
    let size = |path: &Path| path.metadata().map(|meta| meta.len()).ok();
    size(one) == size(other) && fs::read(one).ok() == fs::read(other).ok()
}
