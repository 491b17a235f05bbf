//! The linker for BPF. It must read the compiler's bitcode, so it is built against the compiler's own libLLVM,
//! once, under `target/`.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::command::{output, run, which};
use crate::toolchain::Toolchain;
use crate::workspace;

const VERSION: &str = "0.13.0";

/// A linker that was seen to link this compiler's output: one of ours, one on the PATH, or a new one.
pub(crate) fn find_or_build(toolchain: &Toolchain) -> Result<PathBuf> {
    let home = workspace::target().join(format!("bpf-linker/llvm-{}", toolchain.llvm_major));
    let own = home.join("bin/bpf-linker");
    let candidates = [own.exists().then(|| own.clone()), which("bpf-linker")];
    for linker in candidates.into_iter().flatten() {
        match links(&linker, toolchain) {
            Ok(()) => {
                println!("bpf-linker: {}", workspace::shown(&linker));
                return Ok(linker);
            }
            Err(why) => println!("bpf-linker: not {}: {why:#}", workspace::shown(&linker)),
        }
    }
    println!("bpf-linker: building {VERSION} for LLVM {}, once", toolchain.llvm_major);
    build(&home, toolchain)?;
    links(&own, toolchain).context("try the new bpf-linker")?;
    Ok(own)
}

/// Tries it: an LLVM that does not fit, or one that is gone, shows at the smallest program.
fn links(linker: &Path, toolchain: &Toolchain) -> Result<()> {
    let version = output(Command::new(linker).arg("--version"))?;
    anyhow::ensure!(version.contains(VERSION), "it is {}", version.trim());
    let dir = workspace::target().join("bpf-linker/probe");
    fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let (source, bitcode) = (dir.join("probe.rs"), dir.join("probe.bc"));
    fs::write(&source, "#![feature(no_core)]\n#![no_core]\n#![crate_type = \"lib\"]\n")
        .with_context(|| format!("write {}", source.display()))?;
    let mut compile = Command::new(&toolchain.rustc);
    compile.env("RUSTC_BOOTSTRAP", "1").args(["--target", "bpfel-unknown-none", "--emit", "llvm-bc"]);
    output(compile.arg("-o").arg(&bitcode).arg(&source))?;
    let mut link = Command::new(linker);
    link.args(["--target", "bpfel-unknown-none", "--output"]).arg(dir.join("probe.o")).arg(&bitcode);
    output(&mut link).map(|_| ())
}

fn build(home: &Path, toolchain: &Toolchain) -> Result<()> {
    let lib = home.join("lib");
    if lib.exists() {
        fs::remove_dir_all(&lib).with_context(|| format!("remove {}", lib.display()))?;
    }
    fs::create_dir_all(&lib).with_context(|| format!("create {}", lib.display()))?;
    // The linker's build looks for `libLLVM.so` and sets its run path to this folder; at run time the loader
    // wants the name that the library gives itself, which is its file name.
    let name = toolchain.llvm.file_name().context("libLLVM has no file name")?;
    for link in [lib.join("libLLVM.so"), lib.join(name)] {
        if !link.exists() {
            symlink(&toolchain.llvm, &link).with_context(|| format!("link {}", link.display()))?;
        }
    }
    let mut install = Command::new(workspace::cargo());
    install.args([
        "install",
        "bpf-linker",
        "--version",
        VERSION,
        "--locked",
        "--force",
        "--no-default-features",
    ]);
    install.args(["--features", &format!("llvm-{}", toolchain.llvm_major), "--root"]).arg(home);
    install.arg("--target-dir").arg(workspace::target().join("bpf-linker/build"));
    install.env("LLVM_PREFIX", home).env_remove("RUSTFLAGS").env_remove("CARGO_ENCODED_RUSTFLAGS");
    run(&mut install).with_context(|| {
        format!(
            "build bpf-linker {VERSION} for LLVM {}: it takes a C compiler to link with",
            toolchain.llvm_major
        )
    })?;
    // What built it is 200 MB that nothing needs again.
    let _ = fs::remove_dir_all(workspace::target().join("bpf-linker/build"));
    Ok(())
}
