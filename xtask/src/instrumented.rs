//! Finding a compiler that builds with a sanitizer: it takes `-Z` flags, and has the sanitizer's runtime beside its
//! standard library, as those from rustup do and most distributions' don't.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow};

use crate::command::output;
use crate::workspace;

const HOW_TO_GET_ONE: &str = "\
no compiler here brings the runtime of that sanitizer; one of these does:
  rustup toolchain install nightly
  rustup toolchain install stable";

/// This machine's target, named: without `--target`, build scripts and macros would be instrumented too.
pub(crate) const TARGET: &str =
    if cfg!(target_arch = "aarch64") { "aarch64-unknown-linux-gnu" } else { "x86_64-unknown-linux-gnu" };

/// A compiler with its cargo.
pub(crate) struct Compiler {
    /// `bin` of its toolchain.
    bin: PathBuf,
    nightly: bool,
}

impl Compiler {
    /// One that has the runtime called `sanitizer` (`asan`, `msan`): a nightly before the default one.
    pub(crate) fn find(sanitizer: &str) -> Result<Self> {
        let mut verdicts = Vec::new();
        for (name, bin) in toolchains() {
            match Self::inspect(bin, sanitizer) {
                Ok(compiler) => {
                    println!("compiler: {name}");
                    return Ok(compiler);
                }
                Err(why) => verdicts.push(format!("{name}: {why:#}")),
            }
        }
        Err(anyhow!("{}\n{HOW_TO_GET_ONE}", verdicts.join("\n")))
    }

    fn inspect(bin: PathBuf, sanitizer: &str) -> Result<Self> {
        runtime(&bin, sanitizer)?;
        Self::at(bin)
    }

    /// The one in this folder.
    pub(crate) fn at(bin: PathBuf) -> Result<Self> {
        let nightly = output(Command::new(bin.join("rustc")).arg("-V"))?.contains("nightly");
        Ok(Self { bin, nightly })
    }

    /// A program of this toolchain (`cargo`), or one that calls its cargo (`cargo-fuzz`).
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Result<Command> {
        let mut command = Command::new(self.bin.join(program));
        let rest = std::env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(self.bin.clone()).chain(std::env::split_paths(&rest));
        command.env("PATH", std::env::join_paths(path).context("put the toolchain on the PATH")?);
        command.env("CARGO", self.bin.join("cargo")).env("RUSTC", self.bin.join("rustc"));
        // Those of the build that runs this program are not meant for another compiler.
        for variable in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS"] {
            command.env_remove(variable);
        }
        if !self.nightly {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        Ok(command)
    }
}

/// The runtime of a sanitizer (`asan`, `msan`) that the compiler in this folder has.
pub(crate) fn runtime(bin: &Path, sanitizer: &str) -> Result<PathBuf> {
    let mut rustc = Command::new(bin.join("rustc"));
    let libraries = output(rustc.args(["--print", "target-libdir", "--target", TARGET]))?;
    runtime_in(Path::new(libraries.trim()), sanitizer)
}

/// `librustc-nightly_rt.asan.a` and the like; its middle is the channel's name.
fn runtime_in(libraries: &Path, sanitizer: &str) -> Result<PathBuf> {
    let end = format!("_rt.{sanitizer}.a");
    let files = std::fs::read_dir(libraries).with_context(|| format!("list {}", libraries.display()))?;
    let mut paths = files.flatten().map(|file| file.path());
    let is_it = |path: &PathBuf| path.to_string_lossy().ends_with(&end);
    paths.find(is_it).with_context(|| format!("no *{end} in {}", libraries.display()))
}

/// Every compiler of rustup, nightlies first, and the default one: what it is called, and its `bin`.
pub(crate) fn toolchains() -> Vec<(String, PathBuf)> {
    let list = output(Command::new("rustup").args(["toolchain", "list"])).unwrap_or_default();
    let mut names: Vec<_> = list.lines().filter_map(|line| line.split_whitespace().next()).collect();
    names.sort_by_key(|name| !name.starts_with("nightly"));
    let bin_of = |name: &str| {
        let rustc = output(Command::new("rustup").args(["which", "--toolchain", name, "rustc"])).ok()?;
        Path::new(rustc.trim()).parent().map(Path::to_owned)
    };
    let mut found: Vec<_> =
        names.into_iter().filter_map(|name| Some((name.to_owned(), bin_of(name)?))).collect();
    if let Some(bin) = workspace::cargo().parent().filter(|bin| bin.join("rustc").exists()) {
        found.push(("the default compiler".to_owned(), bin.to_owned()));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_known_by_its_end_and_a_missing_one_is_named() {
        let folder = std::env::temp_dir().join(format!("xtask-runtime-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder of our own");
        let runtime = folder.join("librustc-dev_rt.asan.a");
        std::fs::write(&runtime, "").expect("a file of our own");
        assert_eq!(runtime_in(&folder, "asan").ok(), Some(runtime));
        let error = runtime_in(&folder, "msan").expect_err("there is none").to_string();
        assert!(error.contains("_rt.msan.a"), "{error}");
        std::fs::remove_dir_all(&folder).expect("it was ours");
    }
}
