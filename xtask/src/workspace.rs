//! Where things are in this checkout.

use std::path::{Path, PathBuf};

/// The folder that holds the workspace's `Cargo.toml`.
pub(crate) fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// `target/` of this checkout: the eBPF object and its tools live here whatever `CARGO_TARGET_DIR` says,
/// because the agent's build script looks for the object here.
pub(crate) fn target() -> PathBuf {
    root().join("target")
}

/// Where cargo puts what it builds.
pub(crate) fn cargo_target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(target, |dir| root().join(dir))
}

/// The release agent.
pub(crate) fn agent() -> PathBuf {
    cargo_target().join("release/xtcp2-agent")
}

/// The cargo that runs this program: a real path, not rustup's proxy.
pub(crate) fn cargo() -> PathBuf {
    std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from)
}

/// Cargo's words for an agent with every destination.
pub(crate) const EVERYTHING: [&str; 2] = ["--features", "xtcp-agent/full"];

/// `path` as a person in the workspace would write it.
pub(crate) fn shown(path: &Path) -> std::path::Display<'_> {
    path.strip_prefix(root()).unwrap_or(path).display()
}
