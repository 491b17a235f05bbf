//! The decoder's unit, property and corpus tests under a sanitizer: address finds reads and writes out of bounds and
//! after free, memory finds decisions on what was never written.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::instrumented::{self, Compiler, TARGET};
use crate::stage::Stages;
use crate::toolchain::Toolchain;
use crate::{libtest, toolchain, workspace};

#[derive(clap::Args)]
pub(crate) struct Options {
    /// Which; both unless given
    sanitizers: Vec<Sanitizer>,
    /// The agent's unit tests too, under the address sanitizer: they are what calls its unsafe code
    #[arg(long)]
    agent: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Sanitizer {
    Address,
    Memory,
}

/// How long a test may say nothing: they are several times slower than without.
const PATIENCE: Duration = Duration::from_secs(10 * 60);
/// The tests of the decoder that ask no kernel.
const DECODER: [&str; 7] =
    ["--package", "xtcp-inet-diag", "--lib", "--test", "kernel_bytes", "--test", "wire"];

pub(crate) fn main(options: &Options) -> Result<()> {
    let mut stages = Stages::default();
    let wanted = |sanitizer| options.sanitizers.is_empty() || options.sanitizers.contains(&sanitizer);
    if wanted(Sanitizer::Address) {
        address_stage(&mut stages);
    }
    if wanted(Sanitizer::Memory) {
        memory_stage(&mut stages);
    }
    if options.agent {
        stages.run_noting("address sanitizer, agent", |notes| {
            address(&["--package", "xtcp-agent", "--lib"], notes)
        });
    }
    stages.finish("cargo xtask sanitize")
}

/// What CI runs of it.
pub(crate) fn stages_of(stages: &mut Stages) {
    address_stage(stages);
    memory_stage(stages);
}

fn address_stage(stages: &mut Stages) {
    stages.run_noting("address sanitizer", |notes| address(&DECODER, notes));
}

fn memory_stage(stages: &mut Stages) {
    stages.run_noting("memory sanitizer", memory);
}

/// The standard library need not be instrumented for this one: what it allocates is watched all the same.
fn address(tests: &[&str], notes: &mut Vec<String>) -> Result<()> {
    let mut cargo = Compiler::find("asan")?.command("cargo")?;
    cargo.env("CARGO_ENCODED_RUSTFLAGS", "-Zsanitizer=address");
    test(&mut cargo, "address", tests, notes)
}

/// Every store must be seen by this one, those of the standard library too: it is built anew from its source.
fn memory(notes: &mut Vec<String>) -> Result<()> {
    let compiler = toolchain::find()?;
    let flags = memory_flags(&compiler)?;
    let mut cargo = Command::new(&compiler.cargo);
    cargo.env("RUSTC", &compiler.rustc).env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"));
    for variable in ["RUSTUP_TOOLCHAIN", "RUSTC_WRAPPER", "RUSTFLAGS"] {
        cargo.env_remove(variable);
    }
    if !compiler.nightly {
        cargo.env("RUSTC_BOOTSTRAP", "1");
    }
    if let Some(library) = &compiler.source_elsewhere {
        cargo.env("__CARGO_TESTS_ONLY_SRC_ROOT", library);
    }
    let tests: Vec<_> = ["-Zbuild-std"].iter().chain(&DECODER).copied().collect();
    test(&mut cargo, "memory", &tests, notes)
}

/// The compiler with the library's source may lack the runtime: then another one's is linked, made by the same LLVM.
fn memory_flags(compiler: &Toolchain) -> Result<Vec<String>> {
    let mut flags = vec!["-Zsanitizer=memory".to_owned()];
    let bin = compiler.rustc.parent().context("a compiler is in a folder")?;
    if instrumented::runtime(bin, "msan").is_ok() {
        return Ok(flags);
    }
    let runtime = runtime_of(compiler.llvm_major)?;
    println!("runtime: {}", runtime.display());
    flags.push("-Zexternal-clangrt".to_owned());
    let runtime = runtime.display().to_string();
    // Before the objects, as the compiler would put its own: GNU ld resolves what the runtime calls in this order only.
    let link = ["-Wl,--whole-archive", &runtime, "-Wl,--no-whole-archive"];
    flags.extend(link.iter().map(|argument| format!("-Zpre-link-arg={argument}")));
    flags.extend(["-lm", "-lpthread"].iter().map(|argument| format!("-Clink-arg={argument}")));
    Ok(flags)
}

fn runtime_of(llvm_major: u32) -> Result<PathBuf> {
    for (_, bin) in instrumented::toolchains() {
        let same = toolchain::llvm_major(&bin.join("rustc")).is_ok_and(|major| major == llvm_major);
        if let Ok(runtime) = instrumented::runtime(&bin, "msan")
            && same
        {
            return Ok(runtime);
        }
    }
    bail!(
        "no compiler of LLVM {llvm_major} here brings the memory sanitizer's runtime: rustup toolchain install stable"
    )
}

fn test(cargo: &mut Command, name: &str, tests: &[&str], notes: &mut Vec<String>) -> Result<()> {
    let home = workspace::target().join("sanitize").join(name);
    // Overflow checks and debug assertions stay, and the tests are done in a fifth of the time.
    cargo.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1");
    cargo.args(["test", "--locked", "--target", TARGET, "--target-dir"]).arg(home).args(tests);
    if libtest::run(cargo, PATIENCE, notes)? == 0 {
        bail!("no test ran");
    }
    Ok(())
}
